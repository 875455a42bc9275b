"""
Network faults and busy engines.

A proxy in front of the real engine injects the faults into each request.
"""

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
    """Use every part of the library once."""
    network = pool.create_network()
    volume = pool.create_volume()
    resource = pool.run(
        "busybox:1.35",
        cmd=["sleep", "600"],
        exposed_ports=[80],
        networks=[network],
        mounts=[(volume, "/shared")],
        stop_timeout=0,
    )
    resource.get_host_port(80)
    resource.exec(["cat"], stdin="in and out")
    resource.write_file("/tmp/file", b"content")
    resource.read_file("/tmp/file")
    resource.logs()
    resource.stop(timeout=0)
    resource.wait(timeout=3)  # without a timeout it would wait for the engine forever
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
    volume.close()


def number_of_requests(folder: Path) -> int:
    """Return the number of requests in a session."""
    with FaultProxy(folder / "count.sock").running() as proxy:
        with dockertest.Pool(proxy.endpoint) as pool:
            session(pool)
        return len(proxy.requests)


def run_with_fault(folder: Path, engine: Engine, number: int, fault: Fault, timeout: float) -> str:
    """
    Run a session with a fault in one request, and return the outcome.

    It also checks that nothing is left.
    """
    label = ""
    outcome = "success"
    pool: dockertest.Pool | None = None
    with FaultProxy(folder / "fault.sock").running() as proxy:
        proxy.at(number, fault)
        try:
            with dockertest.Pool(proxy.endpoint, timeout=timeout) as pool:
                label = f"dockertest.session={pool._runtime.session.id}"
                session(pool)
        except dockertest.DockertestError as error:
            outcome = type(error).__name__
        if pool and outcome != "success":  # the second close removes what the first one could not
            dockertest.retry(pool.close, on=dockertest.CleanupError, max_wait=15)
        if label:  # the reaper uses the proxy too

            def is_removed() -> bool:
                networks = engine.client.api.networks(filters={"label": [label]})
                volumes = engine.client.api.volumes(filters={"label": [label]})["Volumes"]
                return not engine.labelled(label) and not networks and not volumes

            dockertest.retry(is_removed, max_wait=15)
    (folder / "fault.sock").unlink()
    return outcome


def combinations(count: int) -> list[tuple[int, str]]:
    """Return every request with every fault."""
    return list(itertools.product(range(count), FAULTS))


def check_outcomes(folder: Path, engine: Engine, faults: list[tuple[int, str]], timeout: float) -> None:
    """
    Check that sessions succeed or raise `DockertestError` in time.

    *timeout* is the limit of each request in seconds.
    """
    for number, kind in faults:
        start = time.monotonic()
        outcome = run_with_fault(folder, engine, number, FAULTS[kind], timeout)
        took = time.monotonic() - start
        print(f"request {number}, {kind}: {outcome} in {took:.1f} s")
        assert took < 30, (number, kind)


def test_some_faults_end_in_success_or_a_dockertest_error(engine: Engine, tmp_path: Path) -> None:
    """A few of the combinations of `make soak`; the seed is printed."""
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    check_outcomes(
        tmp_path,
        engine,
        random.Random(seed).sample(combinations(number_of_requests(tmp_path)), 8),
        timeout=1,
    )


@pytest.mark.soak
def test_all_faults_end_in_success_or_a_dockertest_error(engine: Engine, tmp_path: Path) -> None:
    """Every request with every fault: more than three hundred combinations."""
    every = combinations(number_of_requests(tmp_path))
    assert len(every) >= 300
    check_outcomes(tmp_path, engine, every, timeout=3)
