"""Volumes that a pool creates, and their removal."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, answer

from .conftest import Engine

SLEEP = ["sleep", "600"]


@contextmanager
def killed(code: str, **environ: str) -> Iterator["list[str]"]:
    """Run a program that prints words on one line, kill it, and provide these words."""
    program = f"import sys, dockertest\npool = dockertest.Pool()\n{code}\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environ},
    ) as process:
        assert process.stdout
        words = process.stdout.readline().split()
        os.kill(process.pid, signal.SIGKILL)
    yield words


MAKE = """
volume = pool.create_volume()
resource = pool.run("busybox:1.35", cmd=["sleep", "600"], mounts=[(volume, "/data")])
print(volume.name, resource.id, flush=True)
"""


def test_containers_share_a_volume(engine: Engine) -> None:
    """
    One container reads a file that another has written to the volume.

    The volume is removed with the pool, after the containers.
    """
    with dockertest.Pool() as pool:
        volume = pool.create_volume()
        writer = pool.run("busybox:1.35", cmd=SLEEP, mounts=[(volume, "/data")])
        reader = pool.run("busybox:1.35", cmd=SLEEP, mounts=[(volume, "/data", "ro")])
        writer.write_file("/data/file", "shared")
        writer.close()
        assert reader.read_file("/data/file") == b"shared"
        assert "Read-only" in reader.exec(["touch", "/data/other"]).stderr
        item = next(item for item in pool.inventory() if item.name == volume.name)
        assert (item.kind, item.id, item.standing) == ("volume", volume.name, "living")
        assert repr(volume) == f"<Volume {volume.name!r}>"
    assert not engine.has_volume(volume.name)
    assert repr(volume) == f"<Volume {volume.name!r} (closed)>"


def test_a_volume_in_use_is_not_removed(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """It can be closed again, or is closed with its pool."""
    with pool.create_volume(name) as volume:
        assert volume.name == name
        with (
            pool.run("busybox:1.35", cmd=SLEEP, mounts=[(volume, "/data")]),
            pytest.raises(dockertest.EngineError, match=name),
        ):
            volume.close()
        assert engine.has_volume(name)
    assert not engine.has_volume(name)
    volume.close()


def test_an_existing_volume_is_not_adopted(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """Engines return it as if it were new; it would be removed with the pool."""
    theirs = engine.client.volumes.create(name, labels={"mine": "1"})
    try:
        with pytest.raises(dockertest.EngineError, match="there is a volume of that name") as error:
            pool.create_volume(name)
        assert error.value.status == 409
        assert engine.has_volume(name)
    finally:
        theirs.remove()
    with (
        pool.create_volume(name),
        pytest.raises(dockertest.EngineError, match="there is a volume of that name"),
    ):
        pool.create_volume(name)


def test_a_closed_volume_cannot_be_used(pool: dockertest.Pool, engine: Engine) -> None:
    """The engine would create another one of that name, which nothing removes."""
    with pool.create_volume() as volume:
        options = dockertest.RunOptions(
            repository="busybox", tag="1.35", cmd=SLEEP, mounts=[(volume, "/data")]
        )
        with pytest.raises(
            dockertest.InvalidOptionError, match="reuse: the container would outlive its volume"
        ):
            pool.run("busybox:1.35", cmd=SLEEP, mounts=[(volume, "/data")], reuse=True)
    with pytest.raises(dockertest.ResourceClosedError, match=volume.name):
        pool.run_with_options(options)
    with pytest.raises(dockertest.ResourceClosedError):
        volume.__enter__()
    assert not engine.has_volume(volume.name)


@pytest.mark.parametrize("name", ["a", "/data", "a b", 5, "-a"])
def test_an_invalid_name_is_rejected(pool: dockertest.Pool, name: str) -> None:
    """Even a name that an engine would accept as a path."""
    with pytest.raises(dockertest.InvalidOptionError, match="name"):
        pool.create_volume(name)


def test_a_volume_is_removed_after_a_kill(engine: Engine) -> None:
    """The reaper removes the container before."""
    with killed(MAKE) as (volume, container):
        dockertest.retry(lambda: not engine.has(container) and not engine.has_volume(volume), max_wait=30)


def test_a_later_session_removes_a_volume(engine: Engine) -> None:
    """This happens if the process was killed and had no reaper."""
    with killed(MAKE, DOCKERTEST_REAPER="0") as (volume, container), dockertest.Pool() as pool:
        # The recovery by another session may be faster.
        standings = {item.standing for item in pool.inventory() if item.name == volume}
        assert standings <= {"dead"}
        pool.prune()
        dockertest.retry(lambda: not engine.has(container) and not engine.has_volume(volume), max_wait=10)


def test_a_kept_container_keeps_its_volume(engine: Engine) -> None:
    """Neither the reaper nor `prune` removes it."""
    code = MAKE.replace("print(", "resource.keep()\nother = pool.create_volume()\nprint(other.name, ")
    with killed(code) as (other, volume, container):
        try:
            dockertest.retry(lambda: not engine.has_volume(other), max_wait=30)
            with dockertest.Pool() as pool:
                pool.prune()
                standings = [item.standing for item in pool.inventory() if item.name == volume]
            assert standings == ["kept"]
            assert engine.has(container)
            assert engine.has_volume(volume)
        finally:
            engine.remove(container)
            engine.client.api.remove_volume(volume)


def test_a_kept_pool_keeps_its_volumes(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    """The command to remove each of them is printed."""
    with dockertest.Pool(keep=True) as pool:
        volume = pool.create_volume()
    try:
        assert f"docker volume rm {volume.name}" in capsys.readouterr().err
        with dockertest.Pool() as other:
            assert volume.name not in other.prune()
        assert engine.has_volume(volume.name)
    finally:
        engine.client.api.remove_volume(volume.name)


def test_an_engine_without_volumes(local: str, tmp_path: Path) -> None:
    """Cleanup works even if a proxy in front of the engine refuses volume requests."""
    refusal = answer(403, "not allowed here")
    with FaultProxy(tmp_path / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        pool.run("busybox:1.35", cmd=SLEEP)
        proxy.next("GET .*/volumes", refusal)
        assert pool.inventory()
        proxy.next("GET .*/volumes", refusal)
        pool.prune()
