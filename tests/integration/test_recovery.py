"""What later sessions, `prune` and the reaper may remove, and what they must not."""

import functools
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dockertest
from dockertest._cleanup import reaper as _reaper
from dockertest._cleanup import reaper_client as _reaper_client
from tests.engines.fault_proxy import FaultProxy, engine_socket

from .conftest import Engine
from .test_reaper import SLEEP, count, program, run

Identity = Callable[[str], None]


@pytest.fixture
def this_identity(monkeypatch: pytest.MonkeyPatch, name: str) -> Callable[..., str]:
    """
    Assign an identity to this process, and return a function for variants of it.

    Other sessions on this engine and the tests then do not remove each other's containers.
    """
    _, machine, boot, namespace = _reaper_client.identity(Path()).split(".")

    def identity(boot: str = boot, namespace: str = namespace) -> str:
        return f"{name}.{machine}.{boot}.{namespace}"

    monkeypatch.setattr(_reaper_client, "identity", lambda _folder: identity())
    return identity


def make(engine: Engine, pool: dockertest.Pool, labels: "dict[str, str]") -> str:
    """
    Start a container with the plain docker SDK, and return its id.

    Another program would start it in the same way.
    """
    image = f"{pool.image_prefix}busybox:1.35"
    container = engine.client.containers.run(image, list(SLEEP), detach=True, labels=labels)
    return str(container.id)


def labelled(identity: str, **more: str) -> "dict[str, str]":
    """Return a complete set of dockertest's labels."""
    session = {_reaper.MANAGED: "true", _reaper.SESSION: os.urandom(16).hex(), _reaper.IDENTITY: identity}
    return {**session, **{f"dockertest.{key}": value for key, value in more.items()}}


def remove(engine: Engine, *containers: str) -> None:
    """Remove those of the containers that exist."""
    for container in containers:
        if engine.has(container):
            engine.remove(container)


# Proof of death


def test_a_session_in_another_pid_namespace_is_left_alone(engine: Engine) -> None:
    """Whether a process is alive can only be determined in its own namespace."""
    unshare = (
        "unshare",
        *(() if os.geteuid() == 0 else ("--map-root-user",)),
        "--pid",
        "--fork",
        "--kill-child",
    )
    with program("time.sleep(600)", *unshare, DOCKERTEST_REAPER="0") as (process, created):
        session = created["session"]
        process.kill()
        process.wait(30)
    try:
        with dockertest.Pool() as following:
            following.create_network()
            assert not {*created["containers"], created["network"]} & set(following.prune())
        assert count(engine, session) == 4
    finally:
        remove(engine, *created["containers"])
        engine.client.api.remove_network(created["network"])


def test_incomplete_and_unknown_labels_are_left_alone(engine: Engine, pool: dockertest.Pool) -> None:
    """
    A container is kept unless its labels prove that its session is dead.

    The labels are copied by hand, of another host, or of a session that never had a lock.
    """
    labels: list[dict[str, str]] = [
        {"dockertest.managed": "true"},
        {"dockertest.managed": "true", "dockertest.session": "0" * 32, "dockertest.identity": "0.a.b.1"},
        {"dockertest.session": "../../etc/passwd"},
    ]
    containers = [make(engine, pool, item) for item in labels]
    try:
        pool.prune()
        assert all(engine.has(container) for container in containers)
    finally:
        remove(engine, *containers)


def test_an_earlier_boot_is_recovered_from_the_engine_of_this_machine(
    engine: Engine, local: str, pool: dockertest.Pool, this_identity: Callable[..., str]
) -> None:
    """After a reboot, no process of the earlier boot is alive."""
    created = make(engine, pool, labelled(this_identity(boot="0" * 32)))
    try:
        assert created in pool.prune()
    finally:
        remove(engine, created)


def test_a_boot_of_another_machine_is_left_alone(
    engine: Engine, local: str, pool: dockertest.Pool, this_identity: Callable[..., str]
) -> None:
    """
    Cloned machines share a machine id.

    The other machine reaches this engine through a forwarded socket.
    """
    created = make(engine, pool, labelled(this_identity(boot="0" * 32) + _reaper.ELSEWHERE))
    try:
        assert created not in pool.prune()
        assert engine.has(created)
    finally:
        remove(engine, created)


def test_the_identity_shows_that_a_socket_is_forwarded(
    tmp_path: Path, pool: dockertest.Pool, local: str, engine: Engine
) -> None:
    """
    A forwarded socket may lead to another machine.

    The sessions there must not treat ours as dead.
    """
    assert _reaper.is_engine_behind(f"unix://{local}")
    with FaultProxy(tmp_path / "front.sock").running() as proxy:
        assert not _reaper.is_engine_behind(proxy.endpoint)
        with dockertest.Pool(proxy.endpoint, reaper=False) as other:
            labels = other.run("busybox:1.35", cmd=SLEEP).container.labels
    assert labels[_reaper.IDENTITY].endswith(_reaper.ELSEWHERE)


def test_nothing_is_recovered_by_boot_through_a_forwarded_socket(
    engine: Engine, pool: dockertest.Pool, tmp_path: Path, this_identity: Callable[..., str]
) -> None:
    """
    The engine appears to run on another machine.

    The proxy hides the processes of the containers.
    """
    created = make(engine, pool, labelled(this_identity(boot="0" * 32)))

    class Elsewhere(FaultProxy):
        def passed_on(self, head: bytes) -> bytes:
            return head.replace(
                b"/containers/json HTTP", b"/containers/json?filters=%7B%22id%22%3A%5B%22none%22%5D%7D HTTP"
            )

    try:
        with Elsewhere(tmp_path / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as other:
            assert created not in other.prune()
            assert engine.has(created)
    finally:
        remove(engine, created)


def test_a_process_of_a_container_proves_that_the_engine_runs_here(
    engine: Engine, pool: dockertest.Pool, tmp_path: Path, this_identity: Callable[..., str]
) -> None:
    """
    The engine reports the process id of the container.

    The id proves nothing if the engine has process ids of its own.
    """
    if not has_our_process_ids():
        pytest.skip("engine: it runs in a PID namespace of its own")
    created = make(engine, pool, labelled(this_identity(boot="0" * 32)))
    try:
        with FaultProxy(tmp_path / "near.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as other:
            assert created in other.prune()
    finally:
        remove(engine, created)


def has_our_process_ids() -> bool:
    """Return whether the engine runs in the PID namespace of this process."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(engine_socket())
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    theirs = Path(f"/proc/{struct.unpack('3i', credentials)[0]}/ns/pid")
    return theirs.exists() and theirs.readlink() == Path("/proc/self/ns/pid").readlink()


def test_an_unknown_boot_proves_nothing(tmp_path: Path) -> None:
    """
    Some sandboxes hide the boot id.

    The same engine may serve clients outside of them.
    """
    for boot, end, dead in (("another", "", True), ("", "", False), ("another", _reaper.ELSEWHERE, False)):
        labels = {"dockertest.managed": "true", "dockertest.session": "a"}
        labels["dockertest.identity"] = f"0.machine.{boot}.1{end}"
        for proof in (True, False):
            prove = functools.partial(bool, proof)
            evidence = _reaper.Evidence("0.machine.boot.1", _reaper.Records(tmp_path), "", prove)
            assert evidence.is_dead(labels) is (dead and proof)


# Time to live


def test_any_session_removes_expired_containers(engine: Engine, pool: dockertest.Pool) -> None:
    """`DOCKERTEST_TTL` covers sessions that cannot be proven dead."""
    with program("time.sleep(600)", DOCKERTEST_TTL="10", DOCKERTEST_REAPER="0") as (_, created):
        expires = time.time() + 11  # at the latest, as it is rounded up
        dockertest.retry(lambda: time.time() > expires, max_wait=20)
        pool.prune()  # Another session on this engine may be faster, even before this test sees the containers.
        dockertest.retry(lambda: not any(map(engine.has, created["containers"])), max_wait=60)


def test_a_time_to_live_applies_to_each_container(engine: Engine, pool: dockertest.Pool) -> None:
    """An older session keeps its newer containers and the lock that proves it alive."""
    with dockertest.Pool() as old:
        old._runtime.session.ttl = 8
        late = old.run("busybox:1.35", cmd=SLEEP)
        expires = time.time() + 9  # at the latest, as it is rounded up
        old._runtime.session.ttl = 3600
        since = old.run("busybox:1.35", cmd=SLEEP)
        dockertest.retry(lambda: time.time() > expires, max_wait=20)
        pool.prune()
        dockertest.retry(lambda: not engine.has(late.id), max_wait=60)  # Another session may be faster.
        assert engine.has(since.id)
        assert old._runtime.session._reaper.standing(since.container.labels) == "living"


# What the user keeps


def reaper_client(pool: dockertest.Pool) -> _reaper_client.ReaperClient:
    """Return the client of a pool's reaper."""
    client = pool._runtime.session._reaper
    assert isinstance(client, _reaper_client.ReaperClient)
    return client


def test_recovery_never_removes_kept_containers(
    engine: Engine, local: str, pool: dockertest.Pool, this_identity: Callable[..., str]
) -> None:
    """They survive a reboot, their time to live and a sweep of their session."""
    client = reaper_client(pool)
    labels = [labelled(this_identity(boot="0" * 32)), labelled(this_identity(), expires="1000")]
    # Until the containers are marked: the reapers of other tests may remove them at any moment.
    for one in labels:
        client.mark_kept(one[_reaper.SESSION])
    containers = [make(engine, pool, one) for one in labels]
    try:
        for container in containers:
            assert client.mark_kept(container)
            assert client.is_kept(container)
        for one in labels:
            client._records.forget_kept(one[_reaper.SESSION])
        assert not set(containers) & set(pool.prune())
        for container in containers:
            session = engine.inspect(container)["Config"]["Labels"][_reaper.SESSION]
            assert client.sweep(pool._runtime.engine, session) == []
        assert all(engine.has(container) for container in containers)
    finally:
        remove(engine, *containers)
        for container in containers:
            client._records.forget_kept(container)


def test_a_kept_container_survives_a_kill_of_its_process(engine: Engine, pool: dockertest.Pool) -> None:
    """It keeps its network. The rest of the session is removed."""
    code = """
made[0].expire(1)
pool._runtime.session._reaper.mark_kept(made[0].id, needed=[network.id])
os.kill(os.getpid(), signal.SIGKILL)
"""
    with program(code) as (process, created):
        process.wait(30)
    kept, *others = list(created["containers"])
    try:
        dockertest.retry(lambda: not any(map(engine.has, others)), max_wait=15)
        with dockertest.Pool() as following:
            following.prune()
        assert engine.has(kept)
        assert count(engine, created["session"]) == 2
    finally:
        remove(engine, kept)
        engine.client.api.remove_network(created["network"])
        for kept_id in (kept, created["network"]):
            reaper_client(pool)._records.forget_kept(kept_id)


def test_containers_of_a_keeping_pool_survive_a_reboot_and_their_time_to_live(
    engine: Engine,
    local: str,
    pool: dockertest.Pool,
    this_identity: Callable[..., str],
) -> None:
    """A record with the session id keeps everything that the session has created."""
    earlier = this_identity(boot="0" * 32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_reaper_client, "identity", lambda _folder: earlier)
        with dockertest.Pool(keep=True, ttl=0) as keeping:
            created = keeping.run("busybox:1.35", cmd=SLEEP)
            session = keeping._runtime.session.id
    try:
        assert created.id not in pool.prune()
        assert reaper_client(pool).standing(created.container.labels) == "kept"
    finally:
        remove(engine, created.id)
        reaper_client(pool)._records.forget_kept(session)


def test_a_keeping_pool_sets_no_expiry_time(engine: Engine, tmp_path: Path) -> None:
    """Sessions of another user or state folder do not see the record of kept things."""
    with dockertest.Pool(keep=True, ttl=0) as keeping:
        created = keeping.run("busybox:1.35", cmd=SLEEP)
        session = keeping._runtime.session.id
    try:
        ended = run("import dockertest; print(dockertest.Pool().prune())", XDG_STATE_HOME=str(tmp_path))
        assert created.id not in ended.stdout
        assert engine.has(created.id), ended.stderr
        assert _reaper.EXPIRES not in created.container.labels
    finally:
        remove(engine, created.id)
        with dockertest.Pool() as pool:
            reaper_client(pool)._records.forget_kept(session)


# Reuse: who owns a container


class StartedMeanwhile:
    """
    Requests to a real engine, which starts a container in the meantime.

    The container is started directly after the engine has listed it as created.
    """

    def __init__(self, engine: dockertest.Pool, container: str) -> None:
        self._request = _reaper_client._request(engine._runtime.engine)
        self._container = container

    def __call__(self, method: str, path: str, body: Any) -> "tuple[int, Any]":
        answer = self._request(method, path, body)
        if method == "GET" and "/json?all=1" in path:
            self._request("POST", f"/containers/{self._container}/start", None)
        return answer


def test_the_reaper_keeps_a_reused_container_that_was_started_meanwhile(
    engine: Engine, pool: dockertest.Pool, tmp_path: Path
) -> None:
    """The creator died during the start, and another process may use the container."""
    labels = labelled("0.machine.boot.1", reuse="key")
    image = f"{pool.image_prefix}busybox:1.35"
    created = engine.client.api.create_container(image, list(SLEEP), labels=labels)["Id"]
    try:
        records = _reaper.Records(tmp_path)
        session = labels[_reaper.SESSION]
        _reaper.remove_sessions(StartedMeanwhile(pool, created), [session], records)
        assert engine.inspect(created)["State"]["Running"]
        assert (
            _reaper.remove_sessions(_reaper_client._request(pool._runtime.engine), [session], records) == []
        )
    finally:
        remove(engine, created)


def test_the_reaper_removes_a_reused_container_that_was_never_started(
    engine: Engine, pool: dockertest.Pool, tmp_path: Path
) -> None:
    """No other process can have taken it."""
    labels = labelled("0.machine.boot.1", reuse="key")
    image = f"{pool.image_prefix}busybox:1.35"
    created = engine.client.api.create_container(image, list(SLEEP), labels=labels)["Id"]
    try:
        request = _reaper_client._request(pool._runtime.engine)
        assert _reaper.remove_sessions(request, [labels[_reaper.SESSION]], _reaper.Records(tmp_path)) == [
            created
        ]
        assert not engine.has(created)
    finally:
        remove(engine, created)


CREATOR = """
import dockertest, sys
sys.stdin.readline()
resource = dockertest.Pool().run("busybox:1.35", cmd=["sleep", "600"], reuse=sys.argv[1])
print(resource.id, flush=True)
sys.stdin.readline()
print(resource.status, flush=True)
"""


def test_reused_containers_survive_the_kill_of_their_creator(engine: Engine, name: str) -> None:
    """
    The other processes keep a container whose creator is killed.

    The creator is killed at several moments between create and start.
    """
    for delay in (0.0, 0.06, 0.15, 0.25):
        group = f"{name}-{delay}"
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", CREATOR, group],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(3)
        ]
        events = engine.client.events(filters={"event": "create"}, decode=True)
        limit = threading.Timer(60, events.close)
        limit.start()
        for process in processes:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        # Podman 4 finds no labels by their names alone.
        made = (event["Actor"]["Attributes"] for event in events)
        session = next(labels[_reaper.SESSION] for labels in made if _reaper.REUSE in labels)
        limit.cancel()
        creator = creator_of(processes, session)
        events.close()
        threading.Event().wait(delay)
        if creator:
            creator.send_signal(signal.SIGKILL)
        takers = [process for process in processes if process is not creator]
        ids = {process.stdout.readline().strip() for process in takers if process.stdout}
        threading.Event().wait(2)  # as long as a reaper polls at short intervals
        statuses = [process.communicate("go\n", timeout=60)[0].strip() for process in takers]
        for process in processes:
            process.kill()
            process.communicate()
        remove(engine, *(container for container in ids if container))
        assert len(ids) == 1, delay
        assert statuses == ["running"] * len(takers), delay


def creator_of(processes: "list[subprocess.Popen[str]]", session: str) -> "subprocess.Popen[str] | None":
    """Return the process that holds a session's lock."""
    for process in processes:
        for link in Path(f"/proc/{process.pid}/fd").iterdir():
            try:
                if session in str(link.readlink()):
                    return process
            except OSError:
                continue
    return None


def test_images_of_an_expired_session_are_removed(
    engine: Engine, pool: dockertest.Pool, tmp_path: Path
) -> None:
    """Its process may have run elsewhere, so that nothing proves its end."""
    labels = {**labelled("0.a.b.1", expires="1"), _reaper.INTERMEDIATE: "true"}
    lines = [
        f"FROM {pool.image_prefix}busybox:1.35",
        *(f"LABEL {key}={value}" for key, value in labels.items()),
    ]
    (tmp_path / "Dockerfile").write_text("\n".join(lines))
    image, _ = engine.client.images.build(path=str(tmp_path))
    pool.prune()  # Podman answers with an error although it has removed the image.
    assert not engine.has_image(str(image.id))


def test_what_cannot_be_removed_is_not_reported_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container of the user may use a volume of a dead session."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code = "import dockertest, os; print(dockertest.Pool(reaper=False).create_volume().name, flush=True); os._exit(0)"
    volume = run(code).stdout.strip()
    with dockertest.Pool(reaper=False) as own:
        with own.run("busybox:1.35", cmd=SLEEP, mounts=[f"{volume}:/data"]):
            assert own.prune() == []
            assert f"not removed: {volume}" in caplog.text
        assert volume in own.prune()


# Records of things that are gone


def test_locks_and_deadlines_of_sessions_without_leftovers_are_removed(
    engine: Engine, pool: dockertest.Pool, tmp_path: Path
) -> None:
    """A process and its reaper were killed when nothing was left to remove."""
    code = """
import dockertest, os, signal
pool = dockertest.Pool(reaper=False)
pool._runtime.session.begin()
pool._runtime.session._reaper._records.set_deadline("a" * 64, pool._runtime.session._reaper._url, "", 1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run(code, XDG_STATE_HOME=str(tmp_path))
    folder = tmp_path / "dockertest"
    (lock,) = folder.glob("*.lock")
    prune = "import dockertest; dockertest.Pool().prune()"
    assert run(prune, XDG_STATE_HOME=str(tmp_path)).returncode == 0
    assert [file.suffix for file in folder.iterdir()] == [".lock"]  # It may still appear on the engine.
    os.utime(lock, (0, 0))
    assert run(prune, XDG_STATE_HOME=str(tmp_path)).returncode == 0
    assert list(folder.iterdir()) == []


def test_hostile_labels_are_ignored(engine: Engine, pool: dockertest.Pool, name: str) -> None:
    """Neither recovery nor `ps` trusts labels that another user has written."""
    hostile: list[dict[str, str]] = [
        labelled("0.a.b.1", expires="9" * 5000),
        labelled("0.a.b.1", expires="١٢٣"),
        {**labelled("0.a.b.1"), _reaper.SESSION: "x" * 5000},
        {**labelled("0.a.b.1"), _reaper.SESSION: "é" * 300},
        {**labelled("." * 50), "dockertest.reuse": "\x1b[2J"},
        {**labelled("0.a.b.1"), _reaper.IDENTITY: "a" * 9000 + "...", "dockertest.managed": "true"},
    ]
    containers = [make(engine, pool, labels) for labels in hostile]
    try:
        pool.prune()
        client = reaper_client(pool)
        for labels in hostile:
            assert client.standing(labels) in ("elsewhere", "reused", "kept")
        listed = subprocess.run(
            [sys.executable, "-m", "dockertest", "ps", "--json"], capture_output=True, text=True, check=False
        )
        assert listed.returncode == 0, listed.stderr
        assert all(container in listed.stdout for container in containers)
    finally:
        remove(engine, *containers)


def test_a_machine_without_an_id_has_the_same_identity_in_each_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    An id is generated once and stored in the state folder.

    The machine has neither a machine id nor a network card.
    """
    code = f"""
import uuid
from pathlib import Path
from dockertest._cleanup import reaper_client
first_line = reaper_client._first_line
reaper_client._first_line = lambda path: "" if path == "/etc/machine-id" else first_line(path)
uuid.getnode = uuid._random_getnode
print(reaper_client.identity(Path({str(tmp_path)!r})))
"""
    ended = [run(code) for _ in range(2)]
    assert ended[0].stdout, ended[0].stderr
    assert ended[0].stdout == ended[1].stdout
