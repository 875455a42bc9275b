"""Images of servers that start with their data."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker.errors
import pytest

import dockertest
from dockertest import InvalidOptionError, PrepareError, RunOptions
from dockertest._cleanup import reaper
from dockertest._images import commit

from ..engines.fault_proxy import FaultProxy, answer_json  # noqa: TID252 - `tests` is on no path
from .conftest import Engine

# Ends by its stop signal, as a server does, and writes down that it did.
SERVER = ("sh", "-c", "trap 'echo stopped >>/data/log; exit 0' TERM; echo up; sleep 600 & wait")
CANARY = "canary-5f1e"


def ready(resource: dockertest.Resource) -> None:
    """Wait until a container has written its first line."""
    resource.wait_for_log("up")


def fill(resource: dockertest.Resource) -> None:
    """Write something into a container."""
    resource.exec(["sh", "-c", "mkdir -p /data; echo filled >>/data/log"], check=True)


def read_log(resource: dockertest.Resource) -> list[str]:
    """Return what the server and `fill` have written."""
    return resource.exec(["cat", "/data/log"], check=True).stdout.split()


class State:
    """
    A state folder of one test, and the prepared images in it.

    Other sessions do not know the folder.
    """

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.records = reaper.Records(folder / "dockertest")
        self.engine = engine

    def images(self) -> list[str]:
        """Return the ids of the engine's prepared images with records in this folder."""
        if not self.records.owner():
            return []
        owner = f"{reaper.PREPARED_OWNER}={self.records.owner()}"
        return self.engine.images(owner)

    def age(self, prepared: dockertest.PreparedImage, seconds: float) -> None:
        """Let the last use of an image be some time ago."""
        then = time.time() - seconds
        os.utime(self.records.folder / f"{prepared.key}.prepared", (then, then))


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Iterator[State]:
    """A state folder whose images are removed after the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    state = State(tmp_path, engine)
    yield state
    with dockertest.Pool() as pool:
        pool.prune(prepared=True)
    assert state.images() == []


@pytest.fixture
def own(state: State) -> Iterator[dockertest.Pool]:
    """A pool with that state folder."""
    with dockertest.Pool() as pool:
        yield pool


@pytest.fixture
def server(name: str) -> RunOptions:
    """Options of a server that nothing else on the engine has."""
    return RunOptions(repository="busybox:1.35", cmd=SERVER, env={"TEST": name}, files={"/data/placed": "x"})


class Standing:
    """What a pool has on the engine."""

    def __init__(self, engine: Engine, pool: dockertest.Pool) -> None:
        self.engine = engine
        self.label = f"{reaper.SESSION}={pool._runtime.session.id}"
        self.volumes = self._volumes()

    def _volumes(self) -> set[str]:
        return {volume.name for volume in self.engine.client.volumes.list()}

    def left(self) -> list[str]:
        """Return the containers and images of the pool that are left."""
        return [*self.engine.labelled(self.label), *self.engine.images(self.label, everything=True)]


class TestContent:
    """What the containers of an image start with."""

    def test_a_container_starts_with_the_data(self, own: dockertest.Pool, server: RunOptions) -> None:
        """
        Each container has a copy of its own.

        The server was stopped cleanly after it was filled.
        """
        prepared = own.prepare(server, fill, ready=ready)
        first, second = own.run_all([prepared, prepared])
        assert read_log(first) == read_log(second) == ["filled", "stopped"]
        first.exec(["sh", "-c", "echo more >>/data/log"], check=True)
        assert read_log(second) == ["filled", "stopped"]
        assert first.read_file("/data/placed") == b"x"
        assert first.image == second.image == f"{own.image_prefix}busybox:1.35"

    @pytest.mark.differs("copies of volumes")
    def test_owners_are_those_in_the_container(
        self, local: str, state: State, engine: Engine, name: str, tmp_path: Path
    ) -> None:
        """
        Owners are mapped back if the engine remaps users.

        Such engines send the ids of their host, which begin here at 30 and 40. Other ids are not remapped.
        """
        info = engine.client.info()
        if any("userns" in option for option in info["SecurityOptions"]):
            pytest.skip("engine: it remaps users itself")
        info |= {"DockerRootDir": "/data/30.40", "SecurityOptions": ["name=userns"]}
        proxy = FaultProxy(tmp_path / "engine.sock", local)
        proxy.next("GET .*/info", answer_json(info))
        options = RunOptions(repository="busybox:1.35", cmd=SERVER, env={"TEST": name}, tmpfs=["/memory"])
        change = "cd /memory; for owner in 33:44 5:6; do echo data >$owner; chown $owner $owner; done"
        with proxy.running(), dockertest.Pool(proxy.endpoint) as pool:
            prepared = pool.prepare(
                options, lambda one: one.exec(["sh", "-c", change], check=True), ready=ready
            )
            server = pool.run_with_options(prepared)
            found = server.exec(["sh", "-c", "cd /memory; stat -c %n=%u:%g *; cat *"], check=True).stdout
            assert found.split() == ["33:44=3:4", "5:6=5:6", "data", "data"]

    def test_the_configuration_is_that_of_the_base_image(
        self, own: dockertest.Pool, server: RunOptions, engine: Engine
    ) -> None:
        """
        Command, environment and user are those of a container without preparation.

        The host name is fixed.
        """
        prepared = own.prepare(server, fill, ready=ready)
        plain, fresh = (engine.inspect(own.run_with_options(one).id) for one in (server, prepared))
        for key, default in (("Cmd", None), ("Entrypoint", None), ("User", "0"), ("WorkingDir", "/")):
            assert (plain["Config"][key] or default) == (fresh["Config"][key] or default)
        assert environment(plain) == environment(fresh)
        assert fresh["Config"]["Hostname"] == prepared.options.hostname != ""
        labels = {name: value for name, value in fresh["Config"]["Labels"].items() if value}
        assert labels.keys() == plain["Config"]["Labels"].keys()

    def test_volumes_and_memory_are_kept(
        self, own: dockertest.Pool, name: str, engine: Engine, tmp_path: Path
    ) -> None:
        """
        Owners, modes, links and deletions in nested volumes are kept.

        The content of a tmpfs is kept, too, and it is a tmpfs again.
        """
        (tmp_path / "Dockerfile").write_text(
            f"FROM {own.image_prefix}busybox:1.35\n"
            "RUN mkdir -p /vol/inner /other && echo old >/vol/removed && chown 7:8 /vol && chmod 2750 /vol\n"
            "VOLUME /vol /vol/inner /other\nSTOPSIGNAL SIGUSR1\n"
            """CMD trap 'exit 0' USR1; echo up; sleep 600 & wait\n"""
        )
        tag = f"{own.image_prefix}{name}:latest"
        engine.client.images.build(path=str(tmp_path), tag=tag, rm=True)
        script = (
            "rm /vol/removed; echo a >/vol/file; chown 5:6 /vol/file; chmod 4711 /vol/file; ln /vol/file /vol/hard; "
            "ln -s file /vol/soft; mkfifo /vol/pipe; mkdir -m 700 /vol/empty; echo b >/vol/inner/file; "
            "dd if=/dev/zero of=/vol/sparse bs=1 count=1 seek=1048575 2>/dev/null; echo c >/mem/file; chown 5:6 /mem/file"
        )
        look = "cd / && find vol other mem -exec stat -c '%n %F %u:%g %a %h' {} + | sort; cat /vol/soft /vol/inner/file /mem/file"

        def write(resource: dockertest.Resource) -> None:
            resource.exec(["sh", "-c", script], check=True)
            seen.append(resource.exec(["sh", "-c", look], check=True).stdout)

        seen: list[str] = []
        options = RunOptions(repository=name, tmpfs={"/mem": "size=1m,mode=1770"}, pull="never")
        try:
            prepared = own.prepare(options, write, ready=ready)
            for _ in range(2):
                resource = own.run_with_options(prepared)
                ready(resource)
                assert (
                    resource.exec(["sh", "-c", look], check=True).stdout.splitlines() == seen[0].splitlines()
                )
                assert resource.exec(["stat", "-c", "%s", "/vol/sparse"]).stdout == "1048576\n"
                mounts = resource.exec(["cat", "/proc/mounts"]).stdout
                assert "tmpfs /mem tmpfs" in mounts
                assert "size=1024k" in mounts
                volumes = [one for one in engine.inspect(resource.id)["Mounts"] if one["Type"] == "volume"]
                assert {one["Destination"] for one in volumes} == {"/vol", "/vol/inner", "/other"}
                resource.exec(["rm", "/vol/file"], check=True)
        finally:
            own.close()
            with dockertest.Pool() as pool:
                pool.prune(prepared=True)
            engine.client.images.remove(tag)

    def test_no_secret_is_in_the_image(
        self, own: dockertest.Pool, engine: Engine, state: State, name: str
    ) -> None:
        """
        The environment, command and labels of the container are not in the image.

        This applies to its configuration, its history and its description.
        """
        options = RunOptions(
            repository="busybox:1.35",
            env={"SECRET": f"{CANARY}-env", "TEST": name},
            cmd=[*SERVER, f"{CANARY}-cmd"],
            labels={"label": f"{CANARY}-label"},
            files={"/secret": f"{CANARY}-file"},
        )
        prepared = own.prepare(options, ready=ready)
        found = engine.client.images.get(prepared.id)
        image, history = found.attrs, found.history()
        record = state.records.prepared(prepared.key)
        assert CANARY not in json.dumps([image, history, record])
        assert f"{CANARY}-env" not in repr(prepared)
        assert CANARY.encode() not in json_files(engine, prepared.name)
        assert not any(value for key, value in image["Config"]["Labels"].items() if key == reaper.SESSION)


def environment(attrs: dict[str, Any]) -> list[str]:
    """
    Return a container's environment without the variables that Podman adds.

    Podman sets them in every container.
    """
    return sorted(one for one in attrs["Config"]["Env"] if not one.startswith(("HOME=", "HOSTNAME=")))


def json_files(engine: Engine, image: str) -> bytes:
    """
    Return the descriptions in the archive of an image.

    They are recognized by their content, because some engines name layers and descriptions alike, by their
    hash.
    """
    import tarfile

    content = b"".join(engine.client.api.get_image(image))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = [file.read() for member in archive if (file := archive.extractfile(member))]
        return b"".join(content for content in files if content.startswith((b"{", b"[")))


class TestFinding:
    """Later calls find the image."""

    @pytest.mark.usefixtures("state")
    def test_another_pool_finds_it_quickly(self, server: RunOptions, tmp_path: Path) -> None:
        """It costs two requests."""
        calls: list[str] = []

        def fill(resource: dockertest.Resource) -> None:
            calls.append(resource.id)

        other = replace(server, name="other", port_bindings={"80": 8080})
        with FaultProxy(tmp_path / "engine.sock").running() as proxy:
            with dockertest.Pool(proxy.endpoint, reaper=False) as pool:
                prepared = pool.prepare(server, fill, ready=ready)
            with dockertest.Pool(proxy.endpoint, reaper=False) as pool:
                proxy.requests.clear()
                assert pool.prepare(other, fill).id == prepared.id
                assert len(proxy.requests) == 2, proxy.requests
        assert len(calls) == 1

    def test_other_options_make_another_image(self, own: dockertest.Pool, server: RunOptions) -> None:
        """They may change the data; so may other files."""
        first = own.prepare(server, ready=ready)

        def refuse(resource: dockertest.Resource) -> None:
            raise LookupError

        for change in ({"env": {"A": "1"}}, {"files": {"/x": "y"}}, {"user": "1"}, {"hostname": "h"}):
            with pytest.raises(dockertest.RetryTimeoutError):
                own.prepare(replace(server, **change), ready=refuse, max_wait=0)
        assert own.prepare(server, ready=refuse).id == first.id

    def test_other_bound_values_make_another_image(self, server: RunOptions, state: State) -> None:
        """Neither image has the data of the other, or replaces it."""

        def filled_with(word: str) -> Callable[[dockertest.Resource], None]:
            def fill(resource: dockertest.Resource) -> None:
                resource.exec(["sh", "-c", f"mkdir -p /data; echo {word} >>/data/log"], check=True)

            return fill

        with dockertest.Pool() as pool:
            images = [pool.prepare(server, filled_with(word), ready=ready) for word in ("small", "large")]
            resources = pool.run_all(images)
            assert [read_log(resource)[0] for resource in resources] == ["small", "large"]
        with dockertest.Pool() as pool:
            pool.prune()
            assert sorted(state.images()) == sorted(image.id for image in images)

    def test_another_version_replaces_it(self, server: RunOptions, state: State, tmp_path: Path) -> None:
        """The old image goes with the next clean-up, unless a pool still uses it."""
        version = tmp_path / "version"
        version.write_text("1")
        with dockertest.Pool() as user, dockertest.Pool() as pool:
            old = user.prepare(server, fill, ready=ready, version=version)
            version.write_text("2")
            new = pool.prepare(server, fill, ready=ready, version=version)
            assert old.id not in pool.prune()
            assert read_log(user.run_with_options(old)) == ["filled", "stopped"]
        version.write_text("3")
        with dockertest.Pool() as pool:
            pool.prepare(server, fill, ready=ready, version=version)
            # The reaper may have removed them in the background already.
            standings = {item.id: item.standing for item in pool.inventory()}
            assert {standings.get(image, "superseded") for image in (old.id, new.id)} == {"superseded"}
            pool.prune()  # It leaves an image to the reaper that is just removing it.
            dockertest.retry(
                lambda: not {old.id, new.id} & {item.id for item in pool.inventory()}, max_wait=30
            )

    def test_an_old_image_is_made_again(self, own: dockertest.Pool, server: RunOptions, state: State) -> None:
        """After `max_age`; the old one is removed when no open pool uses it any more."""
        old = own.prepare(server, fill, ready=ready)
        with dockertest.Pool() as other:
            new = other.prepare(server, fill, ready=ready, max_age=0)
        assert new.id != old.id
        assert read_log(own.run_with_options(old)) == ["filled", "stopped"]
        own.close()
        with dockertest.Pool() as other:
            other.prune()
        assert state.images() == [new.id]

    def test_a_planted_image_is_not_used(
        self, own: dockertest.Pool, server: RunOptions, engine: Engine, name: str
    ) -> None:
        """
        The name may refer to another image, which is not ours to remove.

        Everyone who may use the engine can move the name.
        """
        prepared = own.prepare(server, fill, ready=ready)
        repository, _, tag = prepared.name.rpartition(":")
        planted = engine.client.containers.create(f"{own.image_prefix}busybox:1.35")
        foreign = str(planted.commit(name).id)
        planted.remove()
        try:
            engine.client.api.tag(foreign, repository, tag, force=True)
            again = own.prepare(server, fill, ready=ready)
            assert read_log(own.run_with_options(again)) == ["filled", "stopped"]
            assert engine.client.images.get(name).id == foreign
        finally:
            engine.client.images.remove(foreign, force=True)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="machine: it has no fork")
    def test_a_child_does_not_hold_the_lock(
        self, own: dockertest.Pool, server: RunOptions, state: State
    ) -> None:
        """What `fill` starts may outlive it; others do not wait for that."""
        children = []

        def fork(resource: dockertest.Resource) -> None:
            fill(resource)
            children.append(os.fork())
            if not children[-1]:
                time.sleep(60)
                os._exit(0)

        prepared = own.prepare(server, fork, ready=ready)
        try:
            descriptor = state.records.lock(f"{prepared.key}.preparing", shared=False)
            assert descriptor is not None
            os.close(descriptor)
        finally:
            os.kill(children[0], signal.SIGKILL)
            os.waitpid(children[0], 0)

    def test_threads_of_a_pool_share_its_hold(
        self, own: dockertest.Pool, server: RunOptions, state: State
    ) -> None:
        """
        Until the pool is closed, a failure of one thread does not free the image.

        After that, nothing keeps the image.
        """
        key = own.prepare(server, ready=ready).key
        with dockertest.Pool() as other, ThreadPoolExecutor(8) as threads:
            records = other._runtime.session.prepared
            list(threads.map(lambda _: records.use(key), range(8)))
            records.release(key)
            own.close()
            with state.records.removing_prepared(key) as is_free:
                assert not is_free
        with state.records.removing_prepared(key) as is_free:
            assert is_free

    def test_processes_prepare_once(self, own: dockertest.Pool, name: str, tmp_path: Path) -> None:
        """The others wait for the first one, and find its image."""
        calls = tmp_path / "calls"
        processes = [
            subprocess.Popen(program(name, calls), stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        ids = {process.communicate(timeout=60)[0].strip() for process in processes}
        assert [process.returncode for process in processes] == [0] * 4
        assert len(ids) == 1
        assert calls.read_text() == "x"


PROGRAM = """
import dockertest, sys, time
from pathlib import Path
def ready(resource):
    resource.wait_for_log("up")
def fill(resource):
    with Path(sys.argv[2]).open("a") as file:
        file.write("x")
    resource.exec(["sh", "-c", "mkdir -p /data; echo filled >>/data/log"], check=True)
    time.sleep(float(sys.argv[3]))
options = dockertest.RunOptions(repository="busybox:1.35", env={"TEST": sys.argv[1]}, cmd=sys.argv[4:])
with dockertest.Pool() as pool:
    print(pool._runtime.session.id, file=sys.stderr, flush=True)
    prepared = pool.prepare(options, fill, ready=ready)
    with pool.run_with_options(prepared) as resource:
        assert resource.exec(["cat", "/data/log"], check=True).stdout == "filled\\nstopped\\n"
    print(prepared.id)
"""


def program(name: str, calls: Path, pause: float = 0.0) -> list[str]:
    """Return a command that prepares an image and prints its id."""
    return [sys.executable, "-W", "error", "-c", PROGRAM, name, str(calls), str(pause), *SERVER]


class TestFailures:
    """Nothing half-made is left or used."""

    def test_an_error_of_fill_is_raised_unchanged(
        self, own: dockertest.Pool, server: RunOptions, engine: Engine, state: State
    ) -> None:
        """Its container is removed, and there is no image."""
        error = LookupError("fill")

        def fail(resource: dockertest.Resource) -> None:
            raise error

        with pytest.raises(LookupError) as raised:
            own.prepare(server, fail, ready=ready)
        assert raised.value is error
        assert Standing(engine, own).left() == state.images() == []

    def test_a_fill_that_is_not_awaited_is_an_error(
        self, own: dockertest.Pool, server: RunOptions, engine: Engine, state: State
    ) -> None:
        """The image would be empty."""

        async def fill_later(resource: dockertest.Resource) -> None:
            raise AssertionError

        with pytest.raises(InvalidOptionError, match=r"^fill is a coroutine function: ") as raised:
            own.prepare(server, lambda resource: fill_later(resource), ready=ready)
        assert "asyncio.run" in raised.value.hint
        with pytest.raises(InvalidOptionError, match=r"^ready is a coroutine function: "):
            own.prepare(server, fill, ready=fill_later)
        assert Standing(engine, own).left() == state.images() == []

    def test_a_server_that_is_killed_is_an_error(
        self, own: dockertest.Pool, server: RunOptions, engine: Engine, state: State
    ) -> None:
        """It did not write what it had in memory."""
        deaf = replace(server, cmd=["sh", "-c", "trap '' TERM; echo up; sleep 600"], stop_timeout=1)
        with pytest.raises(PrepareError, match="was killed") as raised:
            own.prepare(deaf, ready=ready)
        assert raised.value.report
        assert raised.value.report.exit_code == 137
        assert "stop_timeout" in raised.value.hint
        assert Standing(engine, own).left() == state.images() == []

    def test_a_server_that_has_ended_is_an_error(self, own: dockertest.Pool, server: RunOptions) -> None:
        """It ended before it was asked to."""
        with pytest.raises(dockertest.ContainerExitedError):
            own.prepare(replace(server, cmd=["sh", "-c", "echo up"]), ready=lambda it: it.wait())

    def test_an_end_by_the_signal_itself_is_clean(self, own: dockertest.Pool, server: RunOptions) -> None:
        """Exit code 143, as of a Java program."""
        own.prepare(
            replace(server, cmd=["sh", "-c", "trap 'exit 143' TERM; echo up; sleep 600 & wait"]), ready=ready
        )

    def test_a_tmpfs_that_would_lose_its_data_is_refused(
        self, own: dockertest.Pool, server: RunOptions
    ) -> None:
        """Only the content of those that `tmpfs=` names is copied."""
        with pytest.raises(InvalidOptionError, match="'/data' is outside of the container"):
            own.prepare(replace(server, host_config={"Tmpfs": {"/data": ""}}), fill, ready=ready)

    @pytest.mark.parametrize("mount", ["/tmp:/x", "volume:/x", "volume:/x:ro"])
    def test_data_outside_of_the_container_is_refused(
        self, own: dockertest.Pool, server: RunOptions, mount: str
    ) -> None:
        """All containers of the image would share it."""
        with pytest.raises(InvalidOptionError, match="outside of the container"):
            own.prepare(replace(server, mounts=[mount]), ready=ready)

    def test_a_read_only_mount_is_allowed(self, own: dockertest.Pool, server: RunOptions) -> None:
        """It is mounted in every container."""
        prepared = own.prepare(replace(server, mounts=["/usr:/x:ro"]), ready=ready)
        resource = own.run_with_options(prepared)
        assert resource.exec(["test", "-d", "/x/share"]).exit_code == 0

    def test_a_killed_process_leaves_nothing(
        self, own: dockertest.Pool, name: str, tmp_path: Path, engine: Engine, state: State
    ) -> None:
        """The process that waited for it makes the image."""
        calls = tmp_path / "calls"
        with subprocess.Popen(program(name, calls, 60), stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            session = process.stderr.readline().strip()
            dockertest.retry(calls.exists)
            with subprocess.Popen(program(name, calls)) as other:
                process.send_signal(signal.SIGKILL)
                assert other.wait(30) == 0
        label = f"{reaper.SESSION}={session}"
        dockertest.retry(lambda: not engine.labelled(label), max_wait=20)
        assert calls.read_text() == "xx"
        assert len(state.images()) == 1

    def test_images_of_a_dead_session_are_removed(
        self, own: dockertest.Pool, server: RunOptions, engine: Engine
    ) -> None:
        """A process may be killed between the two commits of an image."""
        resource = own.run_with_options(server)
        labels = f"LABEL {reaper.INTERMEDIATE}=true"
        image = commit.commit(own._runtime.engine, resource.id, [labels])
        resource.close()
        assert image not in own.prune()
        own._runtime.session._reaper.end(own._runtime.session.id)
        own._runtime.session._reaper._take_lock(own._runtime.session.id).close()  # type: ignore[union-attr]
        with dockertest.Pool() as pool:
            pool.prune()  # Other sessions do the same in the background.
        with pytest.raises(docker.errors.ImageNotFound):
            engine.client.images.get(image)


class TestPrune:
    """What is removed, and what stays."""

    def test_images_in_use_stay(self, server: RunOptions, state: State) -> None:
        """Also those that only another process with the pickled value uses."""
        with dockertest.Pool() as first:
            prepared = first.prepare(server, fill, ready=ready)
        with dockertest.Pool() as second, dockertest.Pool() as third:
            copy = pickle.loads(pickle.dumps(prepared))
            assert copy == prepared
            assert read_log(second.run_with_options(copy)) == ["filled", "stopped"]
            assert prepared.id not in third.prune(prepared=True)
            second.close()
            assert prepared.id in third.prune(prepared=True)
            with pytest.raises(PrepareError, match="no longer exists"):
                third.run_with_options(prepared)

    def test_unused_images_go(
        self, server: RunOptions, state: State, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After `DOCKERTEST_PREPARED_UNUSED`."""
        with dockertest.Pool() as pool:
            prepared = pool.prepare(server, ready=ready)
        state.age(prepared, 3000)
        with dockertest.Pool() as pool:
            assert prepared.id not in pool.prune()
        monkeypatch.setenv("DOCKERTEST_PREPARED_UNUSED", "50m")
        with dockertest.Pool() as pool:
            assert prepared.id in pool.prune()

    def test_images_with_other_records_stay(
        self, own: dockertest.Pool, server: RunOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """
        Another user does not know whether they are in use.

        The same applies to the same user with another state folder.
        """
        prepared = own.prepare(server, ready=ready)
        with monkeypatch.context() as patch:
            patch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
            with dockertest.Pool() as pool:
                assert prepared.id not in pool.prune(prepared=True)
                item = next(item for item in pool.inventory() if item.id == prepared.id)
                assert (item.kind, item.standing, item.last_used) == ("image", "elsewhere", None)
        item = next(item for item in own.inventory() if item.id == prepared.id)
        assert (item.kind, item.standing, item.name) == ("image", "prepared", prepared.name)
        assert item.size
        assert item.last_used
        assert abs(item.last_used - time.time()) < 60


class TestReplace:
    """Options that may differ between the containers of one image."""

    def test_what_does_not_touch_the_data_may_differ(
        self, own: dockertest.Pool, server: RunOptions, name: str
    ) -> None:
        """Name, networks, ports, labels and files."""
        network = own.create_network()
        prepared = own.prepare(server, fill, ready=ready)
        changed = prepared.replace(
            name=name,
            networks=[network],
            labels={"a": "b"},
            files={"/data/placed": "y"},
            exposed_ports=["80"],
        )
        resource = own.run_with_options(changed)
        assert resource.name == name
        assert resource.get_ip_in_network(network)
        assert resource.get_port(80)
        assert resource.container.labels["a"] == "b"
        assert resource.read_file("/data/placed") == b"y"
        assert read_log(resource) == ["filled", "stopped"]
        assert prepared.options.name == ""

    @pytest.mark.parametrize(
        "change", [{"env": {"A": "1"}}, {"hostname": "h"}, {"cmd": ["x"]}, {"nonsense": 1}]
    )
    def test_the_rest_is_refused(
        self, own: dockertest.Pool, server: RunOptions, change: dict[str, Any]
    ) -> None:
        """The data depends on it."""
        with pytest.raises(InvalidOptionError, match="part of the prepared data"):
            own.prepare(server, ready=ready).replace(**change)

    def test_another_engine_is_refused(self, own: dockertest.Pool, server: RunOptions) -> None:
        """The image is on the engine where it was made."""
        elsewhere = replace(own.prepare(server, ready=ready), engine="tcp://elsewhere:2376")
        with pytest.raises(InvalidOptionError, match="tcp://elsewhere:2376"):
            own.run_with_options(elsewhere)
