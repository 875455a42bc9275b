"""Whatever goes wrong is a clear error of ours, and leaves nothing behind."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import dockertest

from .conftest import Engine

SLEEP = ("sleep", "600")


def test_no_engine_at_all(tmp_path: Path) -> None:
    """The error comes at once, names what was tried and why it failed."""
    missing = f"unix://{tmp_path}/no.sock"
    began = time.monotonic()
    with pytest.raises(dockertest.DockerUnavailableError) as caught:
        dockertest.Pool(missing)
    assert time.monotonic() - began < 5
    assert missing in str(caught.value)
    assert "no such file or directory" in str(caught.value)


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_URL"])
def test_an_engine_named_in_the_environment_is_never_replaced(
    monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path
) -> None:
    """A default socket that works is no answer to a variable that names another."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv(variable, f"unix://{tmp_path}/no.sock")
    with pytest.raises(dockertest.DockerUnavailableError, match=variable):
        dockertest.Pool()


def test_a_port_where_nothing_listens() -> None:
    """A refused connection is told in the system's words."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(dockertest.DockerUnavailableError, match="connection refused"):
            dockertest.Pool(f"tcp://127.0.0.1:{taken.getsockname()[1]}")


def test_a_server_that_is_no_engine(tmp_path: Path) -> None:
    """What answers something else is told apart from an engine."""
    path = tmp_path / "http.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if connection.recv(4096):
                        connection.sendall(
                            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
                        )
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(dockertest.DockerUnavailableError, match="no container engine"):
            dockertest.Pool(f"unix://{path}")
        thread.join()


def test_an_engine_that_still_starts_can_be_waited_for(tmp_path: Path) -> None:
    """The idiom of the documentation: retry the pool itself."""
    with pytest.raises(dockertest.RetryTimeoutError) as caught:
        dockertest.retry(
            lambda: dockertest.Pool(f"unix://{tmp_path}/no.sock"),
            on=dockertest.DockerUnavailableError,
            max_wait=0.3,
        )
    assert isinstance(caught.value.__cause__, dockertest.DockerUnavailableError)
    with dockertest.retry(dockertest.Pool, on=dockertest.DockerUnavailableError) as pool:
        assert pool.client.ping()


def test_an_image_that_is_nowhere(pool: dockertest.Pool) -> None:
    """The engine's own words, and the image by name."""
    with pytest.raises(
        dockertest.ImagePullError, match=r"cannot pull image '.*no-such-image-of-dockertest:1'"
    ):
        pool.run("localhost:1/no-such-image-of-dockertest", "1")


def test_never_pull_is_heeded(pool: dockertest.Pool) -> None:
    """With `pull="never"` nothing is asked of a registry."""
    with pytest.raises(dockertest.ImagePullError, match="pull='never'"):
        pool.run("localhost:1/no-such-image-of-dockertest", "1", pull="never")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"tag": "1.35", "repository": "busybox:1.35"}, "second tag"),
        ({"name": "no/name"}, "name"),
        ({"labels": {"dockertest.mine": "1"}}, "reserved"),
        ({"mounts": ["no mount at all"]}, "mounts"),
        ({"mounts": ["relative/path:/data"]}, "absolute"),
        ({"exposed_ports": ["http"]}, "exposed_ports"),
        ({"port_bindings": {"8080/tcp": "70000"}}, "port_bindings"),
        ({"env": ["NO_EQUALS_SIGN"]}, "env"),
    ],
)
def test_bad_options_are_refused_before_the_engine_sees_them(
    pool: dockertest.Pool, engine: Engine, options: dict[str, Any], word: str
) -> None:
    """The field and the value are named, and no container is made."""
    before = len(engine.labelled(f"dockertest.session={pool._session_id}"))
    with pytest.raises(dockertest.InvalidOptionError, match=word):
        pool.run(**{"repository": "busybox", "cmd": SLEEP, **options})
    assert len(engine.labelled(f"dockertest.session={pool._session_id}")) == before


@pytest.mark.differs("missing mounts")
def test_a_mount_that_is_not_there(pool: dockertest.Pool, engine: Engine, name: str, tmp_path: Path) -> None:
    """The engine refuses it, instead of making an empty folder that belongs to root."""
    source = tmp_path / "missing"
    with pytest.raises(dockertest.ContainerCreateError, match=str(source)):
        pool.run("busybox:1.35", name=name, cmd=SLEEP, mounts=[f"{source}:/data"])
    assert not source.exists()
    assert not engine.has(name)


def test_a_name_that_is_taken(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """The second container is refused, with the engine's words, and the first is left alone."""
    with pool.run("busybox:1.35", name=name, cmd=SLEEP) as first:
        with pytest.raises(dockertest.ContainerCreateError, match=name):
            pool.run("busybox:1.35", name=name, cmd=SLEEP)
        assert engine.has(first.id)


def test_a_command_that_is_not_in_the_image(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """The container that cannot start is removed again."""
    with pytest.raises(dockertest.ContainerStartError, match="no-such-command"):
        pool.run("busybox:1.35", name=name, cmd=["no-such-command"])
    assert not engine.has(name)


def test_the_report_of_a_failed_start(pool: dockertest.Pool, name: str) -> None:
    """What was known of the container before it was removed."""
    with pytest.raises(dockertest.ContainerStartError) as caught:
        pool.run("busybox:1.35", name=name, cmd=["no-such-command"], env={"PASSWORD": "hunter2"})
    report = caught.value.report
    assert report is not None
    assert (report.name, report.image) == (name, f"{pool.image_prefix}busybox:1.35")
    assert "no-such-command" in report.error
    assert "hunter2" not in repr(report) + str(report)


@contextmanager
def taken_port(pool: dockertest.Pool, engine: Engine) -> Iterator[int]:
    """Give a port of the engine's host that is taken: by us, or where that is another machine, by a container."""
    if engine.is_local:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            yield taken.getsockname()[1]
    else:
        with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[80]) as resource:
            yield resource.get_port(80)


def test_a_host_port_that_is_taken(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """The start fails, says which port, and leaves nothing."""
    with (
        taken_port(pool, engine) as port,
        pytest.raises(dockertest.ContainerStartError, match=str(port)),
    ):
        pool.run("busybox:1.35", name=name, cmd=SLEEP, port_bindings={80: port})
    assert not engine.has(name)


def test_a_network_that_is_not_there(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """Whether at the creation or between it and the start, nothing stays."""
    there = pool.create_network()
    for networks in ([f"{name}-missing"], [there.id, f"{name}-missing"]):
        with pytest.raises(dockertest.DockertestError, match=f"{name}-missing"):
            pool.run("busybox:1.35", name=name, cmd=SLEEP, networks=networks)
        assert not engine.has(name)


def test_a_failing_modifier_leaves_nothing(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """An error in the caller's own code comes out as it is."""

    def modify(_host_config: dict[str, Any]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.run_with_options(dockertest.RunOptions(repository="busybox", tag="1.35", name=name), modify)
    assert not engine.has(name)


def test_secrets_are_in_no_log_and_no_label(
    pool: dockertest.Pool, engine: Engine, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The value of an environment variable goes to the container and nowhere else."""
    caplog.set_level(logging.DEBUG, logger="dockertest")
    options = dockertest.RunOptions(
        repository="busybox", tag="1.35", name=name, env={"PASSWORD": "hunter2"}, cmd=SLEEP
    )
    with pool.run_with_options(options) as resource:
        found: Any = engine.inspect(name)
        assert "hunter2" not in str(found["Config"]["Labels"])
        assert "hunter2" not in repr(resource) + repr(options) + repr(pool) + caplog.text
    with pytest.raises(dockertest.DockertestError) as caught:
        pool.run("busybox:1.35", env={"PASSWORD": "hunter2"}, cmd=["no-such-command"])
    assert "hunter2" not in str(caught.value)


def test_importing_costs_little_of_what_the_docker_sdk_costs() -> None:
    """The docker SDK and all behind it load when they are needed, not with the import."""
    program = "import sys, dockertest; print([m for m in ('docker', 'requests', 'backoff', 'asyncio') if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert ended.stdout.strip() == "[]"
