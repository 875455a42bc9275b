"""Errors are clear `DockertestError`s, and nothing is left behind after them."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import dockertest
from dockertest.postgres import TemplateDatabase

from ..engines.fault_proxy import FaultProxy, answer  # noqa: TID252 - `tests` is on no path
from .conftest import Engine

SLEEP = ("sleep", "600")


def test_no_engine_is_found(tmp_path: Path) -> None:
    """The error is raised promptly, with the attempted endpoint and the reason."""
    missing = f"unix://{tmp_path}/no.sock"
    began = time.monotonic()
    with pytest.raises(dockertest.DockerUnavailableError) as caught:
        dockertest.Pool(missing)
    assert time.monotonic() - began < 5
    assert missing in str(caught.value)
    assert "no such file or directory" in str(caught.value)


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_URL"])
def test_an_engine_named_in_the_environment_has_no_fallback(
    monkeypatch: pytest.MonkeyPatch, variable: str, tmp_path: Path
) -> None:
    """The default socket is not tried if a variable names another one."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv(variable, f"unix://{tmp_path}/no.sock")
    with pytest.raises(dockertest.DockerUnavailableError, match=variable):
        dockertest.Pool()


def test_a_refused_connection() -> None:
    """The error has the operating system's message."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(dockertest.DockerUnavailableError, match="connection refused"):
            dockertest.Pool(f"tcp://127.0.0.1:{unused.getsockname()[1]}")


def test_a_server_that_is_not_an_engine(tmp_path: Path) -> None:
    """An unexpected response is reported as such."""
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
        with pytest.raises(dockertest.DockerUnavailableError, match="not a container engine"):
            dockertest.Pool(f"unix://{path}")
        thread.join()


def test_waiting_for_an_engine_that_is_starting(tmp_path: Path) -> None:
    """As documented, `retry` creates the pool."""
    with pytest.raises(dockertest.RetryTimeoutError) as caught:
        dockertest.retry(
            lambda: dockertest.Pool(f"unix://{tmp_path}/no.sock"),
            on=dockertest.DockerUnavailableError,
            max_wait=0.3,
        )
    assert isinstance(caught.value.__cause__, dockertest.DockerUnavailableError)
    with dockertest.retry(dockertest.Pool, on=dockertest.DockerUnavailableError) as pool:
        assert pool.client.ping()


def test_a_missing_image(pool: dockertest.Pool) -> None:
    """The error names the image."""
    with pytest.raises(
        dockertest.ImagePullError, match=r"cannot pull image '.*no-such-image-of-dockertest:1'"
    ):
        pool.run("localhost:1/no-such-image-of-dockertest", "1")


def test_pull_never_contacts_no_registry(pool: dockertest.Pool) -> None:
    """The error names the policy."""
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
def test_invalid_options_are_rejected_before_a_request(
    pool: dockertest.Pool, engine: Engine, options: dict[str, Any], word: str
) -> None:
    """The error names the option, and no container is created."""
    before = len(engine.labelled(f"dockertest.session={pool._runtime.session.id}"))
    with pytest.raises(dockertest.InvalidOptionError, match=word):
        pool.run(**{"repository": "busybox", "cmd": SLEEP, **options})
    assert len(engine.labelled(f"dockertest.session={pool._runtime.session.id}")) == before


@pytest.mark.differs("missing mount sources")
def test_a_missing_mount_source(pool: dockertest.Pool, engine: Engine, name: str, tmp_path: Path) -> None:
    """
    The engine reports the source, and does not create an empty folder.

    Such a folder would belong to root.
    """
    source = tmp_path / "missing"
    with pytest.raises(dockertest.ContainerCreateError, match=str(source)):
        pool.run("busybox:1.35", name=name, cmd=SLEEP, mounts=[f"{source}:/data"])
    assert not source.exists()
    assert not engine.has(name)


def test_a_container_name_in_use(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """The error names it, and the existing container is not affected."""
    with pool.run("busybox:1.35", name=name, cmd=SLEEP) as first:
        with pytest.raises(dockertest.ContainerCreateError, match=name):
            pool.run("busybox:1.35", name=name, cmd=SLEEP)
        assert engine.has(first.id)


def test_a_command_that_is_missing_from_the_image(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """The container is removed again."""
    with pytest.raises(dockertest.ContainerStartError, match="no-such-command") as caught:
        pool.run("busybox:1.35", name=name, cmd=["no-such-command"])
    assert "cmd=" in caught.value.hint
    assert not engine.has(name)


def test_the_report_of_a_failed_start(pool: dockertest.Pool, name: str) -> None:
    """It describes the container as it was before its removal."""
    with pytest.raises(dockertest.ContainerStartError) as caught:
        pool.run("busybox:1.35", name=name, cmd=["no-such-command"], env={"PASSWORD": "hunter2"})
    report = caught.value.report
    assert report is not None
    assert (report.name, report.image) == (name, f"{pool.image_prefix}busybox:1.35")
    assert "no-such-command" in report.error
    assert "hunter2" not in repr(report) + str(report)


@contextmanager
def used_port(pool: dockertest.Pool, engine: Engine) -> Iterator[int]:
    """
    Yield a used port of the engine's host.

    On a local host this process uses the port, on a remote host a container.
    """
    if engine.is_local:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            yield listener.getsockname()[1]
    else:
        with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[80]) as resource:
            yield resource.get_port(80)


def test_a_host_port_in_use(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """The error names the port, and the container is removed."""
    with (
        used_port(pool, engine) as port,
        pytest.raises(dockertest.ContainerStartError, match=str(port)) as caught,
    ):
        pool.run("busybox:1.35", name=name, cmd=SLEEP, port_bindings={80: port})
    assert caught.value.hint.startswith("free the host port")
    assert not engine.has(name)


def test_a_missing_network(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """Nothing is left, whether the container or its second connection fails."""
    network = pool.create_network()
    for networks in ([f"{name}-missing"], [network.id, f"{name}-missing"]):
        with pytest.raises(dockertest.DockertestError, match=f"{name}-missing"):
            pool.run("busybox:1.35", name=name, cmd=SLEEP, networks=networks)
        assert not engine.has(name)


def test_a_failing_modifier(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """The exception propagates unchanged, and no container is left."""

    def modify(_host_config: dict[str, Any]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.run_with_options(dockertest.RunOptions(repository="busybox", tag="1.35", name=name), modify)
    assert not engine.has(name)


def test_secrets_are_not_in_logs_and_labels(
    pool: dockertest.Pool, engine: Engine, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The value of an environment variable reaches the container only."""
    caplog.set_level(logging.DEBUG, logger="dockertest")
    options = dockertest.RunOptions(
        repository="busybox", tag="1.35", name=name, env={"PASSWORD": "hunter2"}, cmd=SLEEP
    )
    with pool.run_with_options(options) as resource:
        attrs: Any = engine.inspect(name)
        assert "hunter2" not in str(attrs["Config"]["Labels"])
        assert "hunter2" not in repr(resource) + repr(options) + repr(pool) + caplog.text
    with pytest.raises(dockertest.DockertestError) as caught:
        pool.run("busybox:1.35", env={"PASSWORD": "hunter2"}, cmd=["no-such-command"])
    assert "hunter2" not in str(caught.value)


def test_the_import_is_lazy() -> None:
    """The docker SDK and its dependencies are imported only when they are needed."""
    program = "import sys, dockertest; print([m for m in ('docker', 'requests', 'backoff', 'asyncio') if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["container", "network", "volume", "standby", "database server"])
@pytest.mark.parametrize("failure", [ZeroDivisionError("of the body"), KeyboardInterrupt(), None], ids=repr)
def test_a_failed_removal_does_not_replace_the_failure_of_a_body(
    local: str, tmp_path: Path, kind: str, failure: "BaseException | None", caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; without a failure of the body, it is raised."""
    proxy = FaultProxy(tmp_path / "engine.sock", local)
    options = dockertest.RunOptions(repository="busybox:1.35", cmd=SLEEP)
    with proxy.running(), dockertest.Pool(proxy.endpoint) as pool:
        made: dict[str, Callable[[], AbstractContextManager[object]]] = {
            "container": partial(pool.run_with_options, options),
            "network": pool.create_network,
            "volume": pool.create_volume,
            "standby": partial(pool.standby, options, ready=str),
            "database server": partial(TemplateDatabase, pool, str, prepared=False),
        }

        def fail() -> None:
            with made[kind]() as one:
                dockertest.retry(lambda: "(0 ready)" not in repr(one))  # of a standby
                proxy.always = answer(500, "no removal today")
                if failure:
                    raise failure

        with pytest.raises(type(failure) if failure else dockertest.EngineError) as caught:
            fail()
        proxy.always = None
        assert failure in (None, caught.value)
        assert ("no removal today" in caplog.text) == bool(failure)


def test_an_engine_that_remaps_users_refuses_what_needs_those_of_the_host(local: str, tmp_path: Path) -> None:
    """The hint is the option that lifts the remapping for the container."""
    words = "cannot share the host's network namespace when user namespaces are enabled"  # Docker's
    proxy = FaultProxy(tmp_path / "engine.sock", local)
    proxy.next("POST .*/containers/create", answer(400, words))
    with proxy.running(), dockertest.Pool(proxy.endpoint) as pool:
        with pytest.raises(dockertest.ContainerCreateError, match=words) as caught:
            pool.run("busybox:1.35", cmd=SLEEP, networks=["host"])
        assert caught.value.hint.endswith('host_config={"UsernsMode": "host"}')
        with pool.run(
            "busybox:1.35", cmd=SLEEP, networks=["host"], host_config={"UsernsMode": "host"}
        ) as resource:
            assert resource.exec(["id", "-u"], check=True).stdout == "0\n"
