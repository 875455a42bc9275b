"""What networks and busy engines do, done to every request of a session in turn, by a proxy before the real engine."""

import itertools
import os
import random
import time
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import Fault, FaultProxy, answer, cut, delay, freeze, refuse, swallow

from .conftest import Engine

FAULTS: "dict[str, Fault]" = {
    "refuse": refuse,
    "freeze": freeze,
    "swallow": swallow,
    "delay": delay,
    "cut in the head": cut(20),
    "cut in the body": cut(230),
    "500": answer(500, "the disk is full"),
    "409": answer(409, "something else is going on"),
}


def session(pool: dockertest.Pool) -> None:
    """Do a bit of everything."""
    network = pool.create_network()
    resource = pool.run(
        "busybox:1.35", cmd=["sleep", "600"], exposed_ports=[80], networks=[network], stop_timeout=0
    )
    resource.get_host_port(80)
    resource.exec(["cat"], stdin="in and out")
    resource.write_file("/tmp/file", b"content")
    resource.read_file("/tmp/file")
    resource.logs()
    resource.stop(timeout=0)
    resource.wait(
        timeout=3
    )  # without a limit it waits for a container, and so for an engine, as long as it takes
    resource.logs(tail=1)
    resource.start()
    resource.restart(timeout=0)
    assert resource.status == "running"
    assert resource.health == "none"
    pool.container_by_name(resource.name)
    pool.networks_by_name(network.name)
    resource.disconnect_from_network(network)
    resource.connect_to_network(network, aliases=["again"])
    resource.get_ip_in_network(network)
    network.close()
    resource.close()


def number_of_requests(folder: Path) -> int:
    """Count the requests of a session, its beginning and its end among them."""
    with FaultProxy(folder / "count.sock").running() as proxy:
        with dockertest.Pool(proxy.endpoint) as pool:
            session(pool)
        return len(proxy.requests)


def go_through(folder: Path, engine: Engine, number: int, fault: Fault, timeout: float) -> str:
    """Do a session with a fault at one of its requests; give what came of it, with nothing left behind."""
    label = ""
    came = "success"
    pool: dockertest.Pool | None = None
    with FaultProxy(folder / "fault.sock").running() as proxy:
        proxy.at(number, fault)
        try:
            with dockertest.Pool(proxy.endpoint, timeout=timeout) as pool:
                label = f"dockertest.session={pool._session_id}"
                session(pool)
        except dockertest.DockertestError as error:
            came = type(error).__name__
        if pool and came != "success":  # what could not be removed is tried again by closing again
            dockertest.retry(pool.close, on=dockertest.CleanupError, max_wait=15)
        if label:  # the proxy is the reaper's way to the engine, too

            def gone() -> bool:
                left = engine.client.api.networks(filters={"label": [label]})
                return not engine.labelled(label) and not left

            dockertest.retry(gone, max_wait=15)
    (folder / "fault.sock").unlink()
    return came


def all_of_them(count: int) -> list[tuple[int, str]]:
    """Give every request with every fault."""
    return list(itertools.product(range(count), FAULTS))


def hold(folder: Path, engine: Engine, chosen: list[tuple[int, str]], timeout: float) -> None:
    """Each ends, in an error of ours or in success, within the time that its requests may take: *timeout* seconds each."""
    for number, kind in chosen:
        began = time.monotonic()
        came = go_through(folder, engine, number, FAULTS[kind], timeout)
        took = time.monotonic() - began
        print(f"request {number}, {kind}: {came} in {took:.1f} s")
        assert took < 30, (number, kind)


def test_some_faults_end_in_an_error_of_ours_or_in_success(engine: Engine, tmp_path: Path) -> None:
    """A tenth of what `make soak` does; the seed is printed."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    hold(
        tmp_path, engine, random.Random(seed).sample(all_of_them(number_of_requests(tmp_path)), 30), timeout=1
    )


@pytest.mark.soak
def test_all_faults_end_in_an_error_of_ours_or_in_success(engine: Engine, tmp_path: Path) -> None:
    """Every request with every fault: more than three hundred."""
    every = all_of_them(number_of_requests(tmp_path))
    assert len(every) >= 300
    hold(tmp_path, engine, every, timeout=3)
