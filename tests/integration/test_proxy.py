"""
Proxies in front of containers simulate outages and keep their address.

The tests show how drivers see an outage.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import dockertest

from .conftest import without_tls_warning

POSTGRES = dockertest.RunOptions(repository="postgres", tag="15", env={"POSTGRES_PASSWORD": "secret"})
REDIS = dockertest.RunOptions(repository="redis", tag="7.0")


@pytest.fixture(scope="module")
def postgres(pool: dockertest.Pool) -> Iterator[dockertest.Resource]:
    """A PostgreSQL server that accepts connections."""
    with pool.run_with_options(POSTGRES) as resource:
        url = f"postgresql://postgres:secret@{resource.get_host_port(5432)}/postgres"
        resource.retry(lambda: psycopg.connect(url).close())
        yield resource


@pytest.fixture(scope="module")
def cache(pool: dockertest.Pool) -> Iterator[dockertest.Resource]:
    """A Redis server that accepts connections."""
    with pool.run_with_options(REDIS) as resource:
        resource.retry(lambda: ask(*resource.get_host_port(6379).split(":")))
        yield resource


def ask(host: str, port: str | int) -> bool:
    """Return whether Redis answers a new connection."""
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(7) == b"+PONG\r\n"


def connect(proxy: dockertest.Proxy, **options: Any) -> psycopg.Connection[Any]:
    """Return a connection to PostgreSQL through a proxy."""
    return psycopg.connect(proxy.url(), autocommit=True, **options)


def client(proxy: dockertest.Proxy, **options: Any) -> redis.Redis:
    """Return a client of Redis without retries, through a proxy."""
    host, port = proxy.get_address()
    return redis.Redis(host=host, port=port, retry=Retry(NoBackoff(), 0), **options)


def ping(asking: redis.Redis) -> None:
    """Wait for an answer, even if the first one is later than the client's limit."""
    assert dockertest.retry(asking.ping, on=redis.TimeoutError, max_wait=30)


def test_the_table_of_faults_for_postgresql(postgres: dockertest.Resource) -> None:
    """The table in docs/how-to/outages.md describes what psycopg raises and when."""
    with postgres.proxy(5432) as proxy:
        with connect(proxy) as connection:
            proxy.cut()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
            assert connection.closed
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect(proxy)
        proxy.restore()
        with connect(proxy) as connection:
            proxy.freeze()
            with pytest.raises(psycopg.errors.ConnectionTimeout):
                connect(proxy, connect_timeout=2)
            proxy.restore()
            assert connection.execute("SELECT 1").fetchone() == (1,)
            proxy.delay(0.4)
            began = time.monotonic()
            connection.execute("SELECT 1")
            assert 0.4 <= time.monotonic() - began < 5
            proxy.restore()
            proxy.bandwidth(100_000)
            began = time.monotonic()
            connection.execute("SELECT repeat('x', 50000)")
            assert 0.4 < time.monotonic() - began < 5


def test_the_table_of_faults_for_redis(cache: dockertest.Resource) -> None:
    """The table in docs/how-to/outages.md describes what redis-py raises and when."""
    with cache.proxy(6379) as proxy, client(proxy, socket_timeout=2) as asking:
        ping(asking)
        proxy.cut()
        for _ in range(2):  # The client notices the reset before it asks, and connects again.
            with pytest.raises(redis.ConnectionError, match="refused"):
                asking.ping()
        proxy.restore()
        ping(asking)
        proxy.freeze()
        with pytest.raises(redis.TimeoutError):
            asking.ping()
        proxy.restore()
        ping(asking)
        proxy.delay(0.2)
        began = time.monotonic()
        ping(asking)
        assert time.monotonic() - began >= 0.2
        proxy.delay(4.0)
        with pytest.raises(redis.TimeoutError):
            asking.ping()
        proxy.restore()
        with client(proxy) as patient:
            patient.set("big", bytes(50_000))
        proxy.bandwidth(100_000)
        began = time.monotonic()
        with client(proxy) as patient:
            assert len(patient.get("big") or b"") == 50_000
        assert time.monotonic() - began > 0.4


def test_a_paused_container_does_not_answer(cache: dockertest.Resource) -> None:
    """A client runs into its time limit, and continues afterwards."""
    with cache.proxy(6379) as proxy, client(proxy, socket_timeout=0.5) as asking:
        ping(asking)
        cache.pause()
        try:
            with pytest.raises(redis.TimeoutError):
                asking.ping()
        finally:
            cache.unpause()
        ping(asking)


def test_the_address_outlives_a_stop_and_a_restart(pool: dockertest.Pool) -> None:
    """
    The address stays the same, although the container's own ports may change.

    A container that does not run resets connections.
    """
    with pool.run_with_options(REDIS) as resource, resource.proxy("6379") as proxy:
        address = proxy.get_address()
        assert pool.retry(lambda: ask(*address))
        resource.stop(timeout=5)
        with pytest.raises(ConnectionResetError):
            ask(*address)
        resource.start()
        assert pool.retry(lambda: ask(*address))
        resource.restart(timeout=5)
        assert pool.retry(lambda: ask(*address))
        assert proxy.get_address() == address
    with pytest.raises(ConnectionRefusedError):
        ask(*address)


def test_a_crash_is_still_reported(pool: dockertest.Pool) -> None:
    """Connections to a container that has ended do not count as a report of its exit."""
    with pool.run("busybox:1.35", cmd=["sleep", "600"], exposed_ports=[80]) as resource:
        with resource.proxy(80) as proxy:
            resource.container.kill()
            resource.wait(10)
            with pytest.raises(ConnectionResetError):
                ask(*proxy.get_address())
        with pytest.raises(dockertest.ContainerExitedError):
            resource.proxy(80)


def test_it_is_closed_with_its_resource(pool: dockertest.Pool) -> None:
    """
    Open connections end, and new ones are refused.

    The proxy can no longer be used.
    """
    resource = pool.run_with_options(REDIS)
    proxy = resource.proxy(6379)
    borrowed = pool.container_by_name(resource.name)
    assert borrowed is not None
    other = borrowed.proxy(6379)
    borrowed.close()
    with pytest.raises(ConnectionRefusedError):
        ask(*other.get_address())
    assert resource.retry(lambda: ask(*proxy.get_address()))
    with socket.create_connection(proxy.get_address()) as connection:
        resource.close()
        with suppress(ConnectionResetError):  # The engine's own proxy may end it first, without a reset.
            assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        ask(*proxy.get_address())
    for act in (proxy.cut, proxy.freeze, proxy.restore, lambda: proxy.delay(1), lambda: proxy.bandwidth(1)):
        with pytest.raises(dockertest.ResourceClosedError, match="proxy of 6379/tcp"):
            act()
    proxy.close()
    assert "closed" in repr(proxy)
    with pytest.raises(dockertest.ResourceClosedError), proxy:
        pass


def test_faults_combine_and_are_shown(cache: dockertest.Resource) -> None:
    """The repr has the container and the fault."""
    with cache.proxy(6379) as proxy:
        assert f"<Proxy {proxy.get_host_port()} to 6379/tcp of container {cache.name!r}" in repr(proxy)
        assert repr(proxy).endswith("(open)>")
        proxy.delay(0.5)
        proxy.bandwidth(1000)
        proxy.freeze()
        assert repr(proxy).endswith("(frozen, delay 0.5 s, 1000 B/s)>")
        proxy.restore()
        assert repr(proxy).endswith("(open)>")
        assert proxy.port == "6379/tcp"
        assert proxy.get_host_port() == "{}:{}".format(*proxy.get_address())


def test_invalid_arguments(cache: dockertest.Resource) -> None:
    """They are rejected with a reason, and change nothing."""
    with pytest.raises(dockertest.InvalidOptionError, match="TCP only"):
        cache.proxy("6379/udp")
    with pytest.raises(dockertest.InvalidOptionError, match="invalid port"):
        cache.proxy("redis")
    with pytest.raises(dockertest.PortNotPublishedError):
        cache.proxy(6380)
    with cache.proxy(6379) as proxy:
        for seconds in (-1, "1", None, float("nan")):
            with pytest.raises(dockertest.InvalidOptionError, match="seconds"):
                proxy.delay(seconds)  # type: ignore[arg-type]
        for rate in (0, -1, 0.5, "1k", None, True, float("nan"), float("inf")):
            with pytest.raises(dockertest.InvalidOptionError, match="bytes_per_second"):
                proxy.bandwidth(rate)  # type: ignore[arg-type]
        assert ask(*proxy.get_address())


def test_hundreds_of_clients(cache: dockertest.Resource) -> None:
    """300 simultaneous connections are served, and a cut resets all of them."""
    with cache.proxy(6379) as proxy:
        clients = [socket.create_connection(proxy.get_address(), timeout=30) for _ in range(300)]
        for one in clients:
            one.sendall(b"PING\r\n")
        assert all(one.recv(7) == b"+PONG\r\n" for one in clients)
        proxy.cut()
        for one in clients:
            with one, pytest.raises(ConnectionResetError):
                one.recv(1)


def in_child(proxy: dockertest.Proxy, answers: Any) -> None:
    """Use the parent's proxy."""
    served = ask(*proxy.get_address())
    try:
        proxy.cut()
    except dockertest.ResourceClosedError:
        answers.put(served)
    proxy.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="machine: no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_connects_but_does_not_control(cache: dockertest.Resource) -> None:
    """
    The proxy belongs to the process that made it.

    It continues when the child has closed its copy.
    """
    context = multiprocessing.get_context("fork")
    answers: Any = context.Queue()
    with cache.proxy(6379) as proxy:
        child = context.Process(target=in_child, args=(proxy, answers))
        child.start()
        assert answers.get(timeout=20) is True
        child.join()
        assert ask(*proxy.get_address())
        with pytest.raises(TypeError, match="cannot be pickled"):
            multiprocessing.get_context("spawn").Process(target=in_child, args=(proxy, None)).start()


def test_a_program_that_forgets_it_ends_cleanly() -> None:
    """Neither threads nor open sockets keep the interpreter, or cause warnings."""
    program = """if True:
        import dockertest, socket
        pool = dockertest.Pool(publish_ip="0.0.0.0")  # without a warning if the engine is remote
        resource = pool.run("busybox:1.35", cmd=["nc", "-ll", "-p", "80", "-e", "cat"], exposed_ports=[80])
        proxy = resource.proxy(80)
        socket.create_connection(proxy.get_address()).close()
    """
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, without_tls_warning(ended.stderr)) == (0, "", "")
