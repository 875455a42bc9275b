"""
Containers reach servers of the test process.

Siblings and other hosts are refused.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import dockertest

from ..engines.fault_proxy import FaultProxy, answer_json  # noqa: TID252 - `tests` is on no path
from .conftest import Engine, Suite
from .test_from_inside import packages

__all__ = ["packages"]  # a fixture of `inside`

BUSYBOX = "busybox:1.35"
SLEEP = ["sleep", "600"]
HOST = "host.docker.internal"


@contextmanager
def serving(address: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """Send a line to every connection."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"hello\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def port(engine: Engine) -> Iterator[int]:
    """The port of a server on loopback."""
    if not engine.is_local:
        pytest.skip("engine: it is remote, so that its containers cannot reach this host")
    with serving() as server:
        yield server.getsockname()[1]


def ask(resource: dockertest.Resource, port: int, host: str = HOST) -> str:
    """Return what a server sends to a container."""
    return resource.exec(["nc", "-w", "5", host, str(port)], stdin=b"").stdout


def address_of(resource: dockertest.Resource) -> str:
    """Return the address that the name leads to."""
    lines = resource.read_file("/etc/hosts").decode().splitlines()
    return next(line.split()[0] for line in lines if HOST in line.split())


def test_a_container_reaches_a_server_on_loopback(
    pool: dockertest.Pool, engine: Engine, port: int, name: str
) -> None:
    """
    It does so from its first moment and after a restart.

    The port is closed with the last container that may use it.
    """
    first = ["sh", "-c", f"nc -w 5 {HOST} {port} </dev/null >/first; exec sleep 600"]
    with (
        serving("0.0.0.0") as everywhere,  # whose port is taken, but the container reaches the server
        serving("::1") as six,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        others = [server.getsockname()[1] for server in (everywhere, six, silent)]
        resource = pool.run(BUSYBOX, cmd=first, host_access_ports=[port, *others])
        assert pool.retry(lambda: resource.read_file("/first")) == b"hello\n"
        assert [ask(resource, other) for other in others[:2]] == ["hello\n"] * 2
        silent.settimeout(0.1)
        with pytest.raises(TimeoutError):  # No probe has used the only connection that a server may accept.
            silent.accept()
    with resource:
        resource.restart(timeout=0)
        assert ask(resource, port) == "hello\n"
        address = address_of(resource)
        second = pool.run(BUSYBOX, cmd=SLEEP, host_access_ports=[port])
        assert ask(second, port) == "hello\n"
    assert ask(second, port) == "hello\n"
    with pool.run(BUSYBOX, cmd=SLEEP):  # Podman removes the address with the last container.
        second.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), timeout=5)
        with (  # Another process may grant access to the same port.
            socket.create_server((address, port)),
            pytest.raises(dockertest.HostAccessError, match=f"cannot listen on {address}:{port}") as caught,
        ):
            pool.run(BUSYBOX, name=name, cmd=SLEEP, host_access_ports=[port])
    assert caught.value.reason == "in-use"
    assert not engine.has(name)


def test_siblings_and_other_hosts_are_refused(pool: dockertest.Pool, port: int, name: str) -> None:
    """
    They are refused, although they can send packets to the same address.

    One even has the address of a container that was stopped.
    """
    with pool.run(BUSYBOX, cmd=SLEEP, host_access_ports=[port]) as resource:
        address = address_of(resource)
        with pool.run(BUSYBOX, cmd=SLEEP) as sibling, pool.create_network() as network:
            assert ask(sibling, port, address) == ""
            sibling.connect_to_network(network)
            assert ask(sibling, port, address) == ""
            resource.stop(timeout=0)
            with pool.run(BUSYBOX, cmd=SLEEP) as successor:  # It has the address that has become free.
                assert ask(successor, port, address) == ""
            resource.start()
            with other_host(name, address) as prefix:
                assert knock(prefix, address, port) == "reset"
            assert knock([], address, port) == "reset"  # a program on this host
            assert ask(resource, port) == "hello\n"


@contextmanager
def other_host(name: str, destination: str) -> Iterator[list[str]]:
    """
    Yield the prefix of commands that run in another network namespace.

    A veth pair connects the namespace, and *destination* is routed through it.
    """
    if os.geteuid() != 0:
        pytest.skip("machine: only root can create network namespaces")
    space, near = name[:24], f"dt{name[-8:]}"
    commands = [
        f"ip netns add {space}",
        f"ip link add {near} type veth peer name eth0 netns {space}",
        f"ip address add 10.77.201.1/24 dev {near}",
        f"ip link set {near} up",
        f"ip -n {space} address add 10.77.201.2/24 dev eth0",
        f"ip -n {space} link set eth0 up",
        f"ip -n {space} route add {destination}/32 via 10.77.201.1",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True, capture_output=True)
        yield ["nsenter", f"--net=/run/netns/{space}"]
    finally:
        subprocess.run(["ip", "link", "delete", near], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "delete", space], check=False, capture_output=True)


def knock(prefix: list[str], address: str, port: int) -> str:
    """Return what a program sees that connects."""
    program = (
        "import socket, sys\n"
        "with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:\n"
        "    try:\n"
        "        print(connection.recv(10))\n"
        "    except ConnectionResetError:\n"
        "        print('reset', end='')\n"
    )
    command = [*prefix, sys.executable, "-c", program, address, str(port)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_firewall_that_drops_is_reported(
    pool: dockertest.Pool, engine: Engine, port: int, name: str
) -> None:
    """Otherwise a test would wait until its own limit without an explanation."""
    if os.geteuid() != 0:
        pytest.skip("machine: only root can change the firewall")
    with pool.create_network() as network:
        (config,) = engine.client.api.inspect_network(network.id)["IPAM"]["Config"]
        rule = ["INPUT", "-s", config["Subnet"], "-p", "tcp", "-j", "DROP"]
        subprocess.run(["iptables", "-I", *rule], check=True)
        try:
            with pytest.raises(dockertest.HostAccessError, match="its packets do not arrive") as caught:
                pool.run(BUSYBOX, name=name, cmd=SLEEP, networks=[network], host_access_ports=[port])
        finally:
            subprocess.run(["iptables", "-D", *rule], check=True)
        assert caught.value.reason == "blocked"
        assert config["Subnet"] in caught.value.hint
        assert not engine.has(name)


def test_networks_without_a_way_to_this_host_are_refused(pool: dockertest.Pool, port: int) -> None:
    """So is another meaning of the name."""
    with pool.create_network(internal=True) as internal:
        for networks in ([internal], ["none"], ["host"]):
            with pytest.raises(dockertest.InvalidOptionError, match="host_access_ports"):
                pool.run(BUSYBOX, networks=networks, host_access_ports=[port])
    with pytest.raises(dockertest.InvalidOptionError, match="cannot be combined with host_access_ports"):
        pool.run_with_options(
            dockertest.RunOptions(repository=BUSYBOX, host_access_ports=[port]),
            lambda config: config["ExtraHosts"].append(f"{HOST}:10.0.0.1"),
        )


def test_a_remote_engine_is_refused(pool: dockertest.Pool, engine: Engine) -> None:
    """Its containers cannot connect to this host."""
    if engine.is_local:
        pytest.skip("engine: it is local")
    with pytest.raises(dockertest.InvalidOptionError, match="is on another host"):
        pool.run(BUSYBOX, cmd=SLEEP, host_access_ports=[8080])


INSIDE = """
import dockertest, socket, threading
with dockertest.Pool() as pool, socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]

    def serve():
        while True:
            server.accept()[0].sendall(b"hello from inside")

    threading.Thread(target=serve, daemon=True).start()
    with pool.run("busybox:1.35", cmd=["sleep", "600"], host_access_ports=[port]) as resource:
        print(resource.exec(["nc", "-w", "5", "host.docker.internal", str(port)], stdin=b"").stdout)
    with pool.create_network() as network:
        try:
            pool.run("busybox:1.35", networks=[network], host_access_ports=[port])
        except dockertest.InvalidOptionError as error:
            print(error)
"""


def test_a_container_reaches_the_container_of_its_starter(
    pool: dockertest.Pool, local: str, packages: Path
) -> None:
    """
    It reaches the loopback interface of the starter's container.

    This requires a network that both containers are in.
    """
    prefix = os.environ.get("DOCKERTEST_IMAGE_PREFIX", "")
    mounts = [
        f"{local}:/run/docker.sock"
    ]  # Docker 28.5 fails to copy files if it is mounted through a link (moby/moby#52653)
    with (
        pool.create_network() as network,
        pool.run("python:3.11", cmd=SLEEP, mounts=mounts, networks=[network]) as python,
    ):
        python.copy_in(packages, "/")
        environment = {"PYTHONPATH": "/packages", "DOCKERTEST_IMAGE_PREFIX": prefix}
        result = python.exec(["python3", "-W", "error", "-c", INSIDE], env=environment)
    assert result.exit_code == 0, result.stderr
    assert "hello from inside" in result.stdout
    assert "runs in a container that is not connected to the network" in result.stdout


KILLED = """
import dockertest, os, signal, socket
with dockertest.Pool() as pool, socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    resource = pool.run("busybox:1.35", cmd=["sleep", "600"], host_access_ports=[port])
    child = os.fork()
    if child == 0:
        server.close()
        print(resource.read_file("/etc/hosts").decode(), flush=True)
        signal.pause()
    print(port, child, flush=True)
    signal.pause()
"""


def test_nothing_listens_after_a_kill(port: int, tmp_path: Path) -> None:
    """A forked child, which lives on, has no copy of the sockets."""
    suite = Suite(tmp_path, "dockertest.host_access")
    suite.write("killed.py", KILLED)
    process = subprocess.Popen(
        suite.command("killed"), cwd=tmp_path, env=suite.environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    lines: list[str] = []
    while len(lines) < 2 or not (
        any(HOST in line for line in lines) and any(is_numbers(line) for line in lines)
    ):
        lines.append(process.stdout.readline())
        assert lines[-1], lines
    theirs, child = next(map(int, line.split()) for line in lines if is_numbers(line))
    address = next(line.split()[0] for line in lines if HOST in line)
    try:
        socket.create_connection((address, theirs), timeout=5).close()
        process.kill()
        process.wait()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, theirs), timeout=5)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def is_numbers(line: str) -> bool:
    """Return whether a line consists of two numbers."""
    return len(line.split()) == 2 and all(word.isdigit() for word in line.split())


@pytest.mark.parametrize(
    "said", [{"SecurityOptions": ["name=rootless"]}, {"Rootless": True}], ids=["Docker", "Podman"]
)
def test_an_engine_without_root_is_refused(
    said: dict[str, object], local: str, engine: Engine, port: int, tmp_path: Path
) -> None:
    """
    Its networks do not lead to this host.

    Docker and Podman report in different fields that they run without root.
    """
    proxy = FaultProxy(tmp_path / "engine.sock", local)
    proxy.next("GET .*/info", answer_json(engine.client.info() | said))
    refused = pytest.raises(
        dockertest.InvalidOptionError, match="host_access_ports: the engine runs without root"
    )
    with proxy.running(), dockertest.Pool(proxy.endpoint) as pool, refused:
        pool.run(BUSYBOX, cmd=SLEEP, host_access_ports=[port])
