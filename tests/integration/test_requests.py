"""What is done for a user is done with the fewest requests: each is a round trip, to a remote host a long one."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy

from .conftest import Engine

SLEEP = ("sleep", "600")


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[FaultProxy]:
    """Sees every request; the reaper's own would be among them, so it is left out."""
    with FaultProxy(tmp_path / "count.sock").running() as proxy:
        yield proxy


def asked(proxy: FaultProxy) -> "list[str]":
    """Give what was asked since the last time: verb and kind, without names and ids."""
    found = []
    for line in proxy.requests:
        method, target, _ = line.split()
        parts = re.sub(r"^/v[\d.]+", "", target.split("?")[0]).strip("/").split("/")
        found.append(" ".join([method, parts[0], *parts[2 if len(parts) > 2 else 1 :][-1:]]))
    proxy.requests.clear()
    return [each if not each.startswith("DELETE") else each.rsplit(" ", 1)[0] for each in found]


def test_a_run_takes_four_requests(proxy: FaultProxy, engine: Engine) -> None:
    """Is the image there, create, start, and what are its ports; its removal takes one, where that kills at once."""
    with dockertest.Pool(proxy.endpoint, reaper=False) as pool:
        asked(proxy)
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        assert asked(proxy) == [
            "GET images json",
            "POST containers create",
            "POST containers start",
            "GET containers json",
        ]
        resource.close()
        assert asked(proxy) == ["POST containers kill"] * engine.is_podman + ["DELETE containers"]


def test_a_reused_container_takes_two(proxy: FaultProxy, name: str) -> None:
    """Is the image there, and is the container."""
    with dockertest.Pool(proxy.endpoint, reaper=False) as pool:
        first = pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
        asked(proxy)
        pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
        assert asked(proxy) == ["GET images json", "GET containers json"]
        pool.purge(first)


def test_a_pool_takes_one(proxy: FaultProxy) -> None:
    """A ping, whose header says what version the engine speaks; one more where that is a newer one than ours."""
    dockertest.Pool(proxy.endpoint, reaper=False).close()
    assert asked(proxy) == ["GET _ping"]


def test_a_ping_takes_one(proxy: FaultProxy) -> None:
    """For each failed call of the user's own: has the container ended? However many there are."""
    with dockertest.Pool(proxy.endpoint, reaper=False) as pool:
        options = dockertest.RunOptions(repository="busybox:1.35", cmd=SLEEP)
        first, _ = pool.run_all([options] * 2)
        answers = iter([False, False, True])
        asked(proxy)
        first.retry(lambda: next(answers))
        assert asked(proxy) == ["GET containers json"] * 2
        answers = iter([False, False, True])
        pool.retry(lambda: next(answers))
        assert asked(proxy) == ["GET containers json"] * 2
