"""
dockertest sends as few requests as possible.

Each request is a round trip, possibly to a remote host.
"""

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
    """A proxy that records every request."""
    with FaultProxy(tmp_path / "count.sock").running() as proxy:
        yield proxy


def new_requests(proxy: FaultProxy) -> "list[str]":
    """
    Return the method and the kind of each request since the last call.

    Names and ids are removed.
    """
    requests = []
    for line in proxy.requests:
        method, target, _ = line.split()
        parts = re.sub(r"^/v[\d.]+", "", target.split("?")[0]).strip("/").split("/")
        requests.append(" ".join([method, parts[0], *parts[2 if len(parts) > 2 else 1 :][-1:]]))
    proxy.requests.clear()
    return [
        request if not request.startswith("DELETE") else request.rsplit(" ", 1)[0] for request in requests
    ]


def test_a_run_needs_four_requests(proxy: FaultProxy, engine: Engine) -> None:
    """
    Inspect the image, create, start, and list the ports.

    The removal needs one more, or two with Podman.
    """
    with dockertest.Pool(proxy.endpoint, reaper=False) as pool:
        new_requests(proxy)
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        assert new_requests(proxy) == [
            "GET images json",
            "POST containers create",
            "POST containers start",
            "GET containers json",
        ]
        resource.close()
        assert new_requests(proxy) == ["POST containers kill"] * engine.is_podman + ["DELETE containers"]


def test_reusing_a_container_needs_two_requests(proxy: FaultProxy, name: str) -> None:
    """Inspect the image and list the container."""
    with dockertest.Pool(proxy.endpoint, reaper=False) as pool:
        first = pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
        new_requests(proxy)
        pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
        assert new_requests(proxy) == ["GET images json", "GET containers json"]
        pool.purge(first)


def test_a_pool_needs_one_request(proxy: FaultProxy) -> None:
    """
    The ping's headers contain the engine's version.

    A newer API version than ours would need another request.
    """
    dockertest.Pool(proxy.endpoint, reaper=False).close()
    assert new_requests(proxy) == ["GET _ping"]


def test_a_failed_attempt_needs_one_request(proxy: FaultProxy) -> None:
    """It checks whether containers have exited, however many there are."""
    with dockertest.Pool(proxy.endpoint, reaper=False) as pool:
        options = dockertest.RunOptions(repository="busybox:1.35", cmd=SLEEP)
        first, _ = pool.run_all([options] * 2)
        answers = iter([False, False, True])
        new_requests(proxy)
        first.retry(lambda: next(answers))
        assert new_requests(proxy) == ["GET containers json"] * 2
        answers = iter([False, False, True])
        pool.retry(lambda: next(answers))
        assert new_requests(proxy) == ["GET containers json"] * 2
