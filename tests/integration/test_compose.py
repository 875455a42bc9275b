"""Compose projects: started, used, refused, failing, and removed after a kill."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import dockertest
from dockertest._images.process import run_program

from .conftest import Engine, skip_if_unsupported

THREE = """
services:
  db:
    image: redis:7.0
    ports: ["127.0.0.1::6379"]
    volumes: ["data:/data"]
    stop_grace_period: 0s
  web:
    image: busybox:1.35
    command: ["sleep", "600"]
    depends_on: [db]
    environment: {SECRET: "${SECRET:-none}"}
    networks: [default, inner]
  setup:
    image: busybox:1.35
    command: ["sh", "-c", "echo prepared"]
networks:
  inner:
    internal: true
volumes:
  data:
"""

PROGRAM = """
import sys
import dockertest
pool = dockertest.Pool()
print(pool._runtime.session.id, flush=True)
pool.compose(sys.argv[1])
print("up", flush=True)
sys.stdin.read()
"""


def has_compose() -> bool:
    """Return whether the docker CLI has Docker Compose."""
    with contextlib.suppress(OSError):
        return (
            subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
        )
    return False


pytestmark = [
    pytest.mark.skipif(not has_compose(), reason="machine: the docker CLI has no plugin compose"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A Compose file with three services, two networks and a volume."""
    path = tmp_path / "compose.yaml"
    path.write_text(THREE, encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def _on_docker(request: pytest.FixtureRequest, engine: Engine) -> None:
    """Skip a test on an engine where projects are refused."""
    if "podman" not in request.node.name:
        skip_if_unsupported("Compose projects", engine)


def things(engine: Engine, label: str) -> list[str]:
    """Return containers, networks and volumes with a label."""
    filters = {"label": label}
    api = engine.client.api
    volumes = api.volumes(filters=filters).get("Volumes") or []
    return [
        *(one["Names"][0] for one in api.containers(all=True, filters=filters)),
        *(one["Name"] for one in api.networks(filters=filters)),
        *(one["Name"] for one in volumes),
    ]


def of(project: str) -> str:
    """Return the label that Docker Compose puts on everything of a project."""
    return f"com.docker.compose.project={project}"


def test_a_project_is_used_and_removed(pool: dockertest.Pool, engine: Engine, file: Path) -> None:
    """Services are resources; containers, networks and volumes are gone at the end."""
    with pool.compose(file, env={"SECRET": "hunter2"}) as compose:
        assert sorted(compose.services) == ["db", "setup", "web"]
        assert "db" in compose
        assert "other" not in compose
        db, web = compose["db"], compose["web"]
        assert db.exec(["redis-cli", "ping"], check=True).stdout == "PONG\n"
        assert db.get_port(6379) > 0
        assert web.exec(["sh", "-c", "echo $SECRET"], check=True).stdout == "hunter2\n"
        assert compose["setup"].wait(10) == 0
        assert compose["setup"].logs() == "prepared\n"
        assert compose.containers("db") == [db]
        assert len(things(engine, of(compose.project))) == 3 + 2 + 1
        assert repr(compose).startswith(f"<Compose '{compose.project}': ")
        with pytest.raises(KeyError, match="no service 'other' was started; services: "):
            compose["other"]
        assert pool.retry(lambda: True)
    assert things(engine, of(compose.project)) == []
    compose.close()
    with pytest.raises(dockertest.ResourceClosedError), compose:
        pass


def test_the_pool_removes_a_project(engine: Engine, file: Path) -> None:
    """A folder finds its file, and projects of the same file do not conflict."""
    with dockertest.Pool() as pool:
        first, second = pool.compose(file.parent), pool.compose(file)
        assert first.project != second.project
        assert len(things(engine, of(first.project))) == len(things(engine, of(second.project))) == 6
    assert things(engine, of(first.project)) == things(engine, of(second.project)) == []


def test_everything_carries_our_labels(pool: dockertest.Pool, engine: Engine, file: Path) -> None:
    """The reaper and `prune` find everything by them."""
    with pool.compose(file) as compose:
        session = f"dockertest.session={pool._runtime.session.id}"
        assert set(things(engine, of(compose.project))) <= set(things(engine, session))
        assert {compose["db"].id, compose["web"].id} <= {item.id for item in pool.inventory()}


def test_profiles(pool: dockertest.Pool, tmp_path: Path) -> None:
    """Only services of the active profiles are started."""
    (tmp_path / "compose.yaml").write_text(
        THREE.replace("  web:\n", "  web:\n    profiles: [extra]\n"), encoding="utf-8"
    )
    with pool.compose(tmp_path) as compose:
        assert "web" not in compose
    with pool.compose(tmp_path, profiles=["extra"]) as compose:
        assert "web" in compose


def test_replicas(pool: dockertest.Pool, tmp_path: Path) -> None:
    """A service with several containers has all of them, in order."""
    text = "services: {web: {image: 'busybox:1.35', command: [sleep, '600'], scale: 2}}"
    (tmp_path / "compose.yaml").write_text(text, encoding="utf-8")
    with pool.compose(tmp_path) as compose:
        assert [one.name.rpartition("-")[2] for one in compose.containers("web")] == ["1", "2"]


def test_a_service_that_is_built(pool: dockertest.Pool, engine: Engine, tmp_path: Path) -> None:
    """The image has the same name in all runs, so that no run leaves its own image."""
    (tmp_path / "Dockerfile").write_text(
        f"FROM {os.environ.get('DOCKERTEST_IMAGE_PREFIX', '')}busybox:1.35\nCMD sleep 600\n", encoding="utf-8"
    )
    (tmp_path / "compose.yaml").write_text("services: {web: {build: .}}", encoding="utf-8")
    images = set()
    for word in ("first", "second"):
        with (tmp_path / "Dockerfile").open("a") as dockerfile:
            dockerfile.write(f"RUN echo {word} > /word\n")
        with pool.compose(tmp_path) as compose:
            images.add(compose["web"].image)
            assert compose["web"].exec(["cat", "/word"]).stdout == f"{word}\n"
    (image,) = images
    engine.client.images.remove(image, force=True)


def test_the_override_of_a_folder_is_used(pool: dockertest.Pool, tmp_path: Path) -> None:
    """As by `docker compose up` in the folder; with the file itself it is not."""
    (tmp_path / "compose.yaml").write_text(
        "services: {web: {image: 'busybox:1.35', command: sleep 600}}", encoding="utf-8"
    )
    (tmp_path / "compose.override.yaml").write_text(
        "services: {web: {environment: {A: over}}}", encoding="utf-8"
    )
    for path, expected in ((tmp_path, "over\n"), (tmp_path / "compose.yaml", "\n")):
        with pool.compose(path) as compose:
            assert compose["web"].exec(["sh", "-c", "echo $A"]).stdout == expected


def assert_times_out(folder: Path, words: str) -> None:
    """Check that the project is not ready after eight seconds, and the error."""
    with (
        dockertest.Pool(max_wait=8) as pool,
        pytest.raises(dockertest.ComposeError, match=words) as caught,
    ):
        pool.compose(folder)
    assert caught.value.reason == "timeout"


def test_a_service_that_restarts_again_and_again_is_not_ready(tmp_path: Path) -> None:
    """It has to run for half a second without a restart; the error shows its log."""
    (tmp_path / "compose.yaml").write_text(
        "services: {web: {image: 'busybox:1.35', restart: always, "
        "command: ['sh', '-c', 'echo no database; exit 1']}}",
        encoding="utf-8",
    )
    assert_times_out(tmp_path, r"not healthy after 8 s(?s:.*)no database")


@pytest.mark.differs("health checks")
def test_a_dependency_that_never_becomes_healthy(tmp_path: Path) -> None:
    """`docker compose` would wait for it without an end."""
    (tmp_path / "compose.yaml").write_text(
        """
services:
  db:
    image: busybox:1.35
    command: ["sh", "-c", "echo no space left; exec sleep 600"]
    healthcheck: {test: ["CMD-SHELL", "exit 1"], interval: 1s, start_period: 1h}
  app:
    image: busybox:1.35
    command: ["sleep", "600"]
    depends_on: {db: {condition: service_healthy}}
""",
        encoding="utf-8",
    )
    assert_times_out(tmp_path, r"not ready after 8 s(?s:.*)no space left")


@pytest.mark.differs("health checks")
def test_health_checks_are_waited_for(pool: dockertest.Pool, tmp_path: Path) -> None:
    """A service is healthy when the project is handed over."""
    (tmp_path / "compose.yaml").write_text(
        """
services:
  web:
    image: busybox:1.35
    command: ["sh", "-c", "sleep 1; touch /tmp/ready; exec sleep 600"]
    healthcheck: {test: ["CMD", "test", "-e", "/tmp/ready"], interval: 0.2s, retries: 50}
""",
        encoding="utf-8",
    )
    with pool.compose(tmp_path) as compose:
        assert compose["web"].health == "healthy"


def test_an_existing_project_is_never_adopted(
    pool: dockertest.Pool, engine: Engine, file: Path, name: str
) -> None:
    """Neither a project, nor its network or volume alone, is taken over or removed."""
    with pool.compose(file, project=name) as compose:
        with pytest.raises(dockertest.ComposeError, match="exists already") as caught:
            pool.compose(file, project=name)
        assert caught.value.reason == "exists"
        assert compose["db"].status == "running"
    volume = engine.client.volumes.create(f"{name}_data")
    try:
        with pytest.raises(
            dockertest.ComposeError, match=f"there is a volume '{name}_data'; declare the volume"
        ):
            pool.compose(file, project=name)
        assert engine.has_volume(volume.name)
    finally:
        volume.remove()
    with pool.create_network(f"{name}_default"), pytest.raises(dockertest.ComposeError, match="network"):
        pool.compose(file, project=name)


def test_one_of_two_threads_gets_a_name(pool: dockertest.Pool, file: Path, name: str) -> None:
    """Two starts of the same name at the same time do not mix."""
    outcomes: list[object] = []

    def start() -> None:
        try:
            outcomes.append(pool.compose(file, project=name))
        except dockertest.ComposeError as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "exists" in outcomes
    (compose,) = (one for one in outcomes if isinstance(one, dockertest.Compose))
    with compose:
        assert compose["db"].status == "running"


def test_a_service_that_fails_reports_its_own_log(
    pool: dockertest.Pool, engine: Engine, tmp_path: Path
) -> None:
    """The error has its last lines and exit code, and nothing of the project is left."""
    (tmp_path / "compose.yaml").write_text(
        THREE.replace('echo prepared"', 'echo no such database; exit 3"'), encoding="utf-8"
    )
    with pytest.raises(dockertest.ComposeError, match="no such database") as caught:
        pool.compose(tmp_path, project="dockertest-failing")
    assert caught.value.reason == "service"
    (report,) = caught.value.reports
    assert (report.exit_code, report.logs) == (3, "no such database")
    assert things(engine, of("dockertest-failing")) == []


def test_a_dependency_that_fails_reports_its_own_log(
    pool: dockertest.Pool, engine: Engine, tmp_path: Path, name: str
) -> None:
    """If `docker compose up` fails, the error has the log of the failed service."""
    (tmp_path / "compose.yaml").write_text(
        """
services:
  web:
    image: busybox:1.35
    command: ["sleep", "600"]
    depends_on: {setup: {condition: service_completed_successfully}}
  setup:
    image: busybox:1.35
    command: ["sh", "-c", "echo no such database; exit 3"]
""",
        encoding="utf-8",
    )
    with pytest.raises(dockertest.ComposeError, match="no such database") as caught:
        pool.compose(tmp_path, project=name)
    assert caught.value.reason == "up"
    assert "exit" in caught.value.output
    assert things(engine, of(name)) == []


def test_errors_before_anything_is_created(pool: dockertest.Pool, tmp_path: Path) -> None:
    """They name the mistake."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("services: [", encoding="utf-8")
    with pytest.raises(dockertest.ComposeError, match="yaml: ") as caught:
        pool.compose(bad)
    assert caught.value.reason == "config"
    with pytest.raises(dockertest.InvalidOptionError, match=r"contains none of compose\.yaml"):
        pool.compose(tmp_path)
    with pytest.raises(dockertest.InvalidOptionError, match="there is no file"):
        pool.compose(tmp_path / "missing.yaml")
    with pytest.raises(dockertest.InvalidOptionError, match="project: invalid name"):
        pool.compose(bad, project="Not A Name")
    with pytest.raises(dockertest.InvalidOptionError, match="DOCKER_HOST"):
        pool.compose(bad, env={"DOCKER_HOST": "tcp://elsewhere:2375"})
    with pytest.raises(dockertest.InvalidOptionError, match="profiles"):
        pool.compose(bad, profiles="extra")


def test_a_missing_docker_cli_is_explained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path
) -> None:
    """The hint is what to install, for the CLI as for its plugin."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        dockertest.Pool() as pool,
        pytest.raises(dockertest.ComposeError, match="was not found on PATH") as caught,
    ):
        pool.compose(file)
    assert caught.value.reason == "missing"
    fake = tmp_path / "docker"
    fake.write_text("#!/bin/sh\necho \"unknown shorthand flag: 'f' in -f\" >&2; exit 125\n", encoding="utf-8")
    fake.chmod(0o755)
    with dockertest.Pool() as pool, pytest.raises(dockertest.ComposeError, match="plugin compose") as caught:
        pool.compose(file)
    assert "install docker-compose-plugin" in caught.value.hint


def test_secrets_stay_out_of_arguments_and_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: Path
) -> None:
    """The values of `env` go to the docker CLI by its environment alone."""
    recorded = tmp_path / "arguments"
    fake = tmp_path / "docker"
    fake.write_text(
        f'#!/bin/sh\necho "$@" >>{recorded}\necho "$SECRET" | wc -c >>{recorded}\nexit 1\n', "utf-8"
    )
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with dockertest.Pool() as pool, pytest.raises(dockertest.ComposeError) as caught:
        pool.compose(file, env={"SECRET": "hunter2"})
    text = recorded.read_text(encoding="utf-8")
    assert "--format json" in text
    assert "8\n" in text
    assert "hunter2" not in f"{text}{caught.value}{caught.value.output}"


def test_podman_is_refused(engine: Engine, pool: dockertest.Pool, file: Path) -> None:
    """The error has an alternative."""
    if not engine.is_podman:
        pytest.skip("engine: it is not Podman")
    with pytest.raises(dockertest.InvalidOptionError, match="run_all"):
        pool.compose(file)


@pytest.mark.skipif(os.name == "nt", reason="machine: no /bin/sh")
def test_a_program_begins_only_after_its_registration(tmp_path: Path) -> None:
    """A process that is killed before has started nothing."""
    begun = tmp_path / "begun"
    seen: list[bool] = []

    def register(_process: int) -> None:
        time.sleep(0.1)
        seen.append(begun.exists())

    def refuse(_process: int) -> None:
        raise RuntimeError("stop")

    command = ["/bin/sh", "-c", f"touch {begun}; echo $0", "an argument"]
    output: list[bytes] = []
    assert run_program(command, dict(os.environ), output.append, on_start=register) == 0
    assert (seen, begun.exists(), output) == ([False], True, [b"an argument\n"])
    begun.unlink()
    with pytest.raises(RuntimeError, match="stop"):
        run_program(command, dict(os.environ), output.append, on_start=refuse)
    assert not begun.exists()


@pytest.fixture
def killed(file: Path, tmp_path: Path, engine: Engine) -> Iterator[list[str]]:
    """Collects sessions that were killed; at the end, nothing of them may be left."""
    sessions: list[str] = []
    yield sessions
    deadline = time.monotonic() + 60
    left = ["?"]
    while left and time.monotonic() < deadline:
        left = [one for session in sessions for one in things(engine, f"dockertest.session={session}")]
        time.sleep(0.1)
    assert left == []


def kill_at(file: Path, moment: float | None) -> str:
    """
    Kill a process that starts a project, and return its session.

    The kill happens *moment* seconds after the process began, or with `None` once the project is up.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        session = process.stdout.readline().strip()
        if moment is None:
            assert process.stdout.readline() == "up\n"
        else:
            time.sleep(moment)
        process.send_signal(signal.SIGKILL)
    return session


def running_composes(file: Path) -> list[str]:
    """Return the processes of Docker Compose that work on a file."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = entry.read_bytes().decode(errors="replace").replace("\0", " ")
            if "--project-name" in command and str(file) in command:
                found.append(command)
    return found


@pytest.mark.parametrize("moment", [None, 0.3, 0.8], ids=["up", "early", "late"])
def test_nothing_is_left_after_a_kill(file: Path, killed: list[str], moment: float | None) -> None:
    """Docker Compose ends with its parent process, and the reaper removes the rest."""
    killed.append(kill_at(file, moment))
    if sys.platform == "linux":
        dockertest.retry(lambda: not running_composes(file), max_wait=10)


@pytest.mark.soak
def test_nothing_is_left_after_50_kills(file: Path, killed: list[str]) -> None:
    """The moments are spread over the whole start."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    for _ in range(50):
        killed.append(kill_at(file, chance.uniform(0.0, 3.0)))
    print(json.dumps({"seed": seed}))


def test_ctrl_c_removes_the_project(file: Path, killed: list[str], engine: Engine) -> None:
    """
    An interrupted start ends Docker Compose.

    Nothing is left once the process has ended.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=-1,
        text=True,
    )
    with process:
        assert process.stdout is not None
        session = process.stdout.readline().strip()
        killed.append(session)
        dockertest.retry(
            lambda: bool(things(engine, f"dockertest.session={session}")),
            max_wait=30,
            wait=lambda: itertools.repeat(0.02),
        )
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
