"""
The relay behind proxies, with and without faults.

The tests observe both ends of a connection.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dockertest import EngineError, retry
from dockertest._relay import Mode, Relay


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server whose connections the tests accept themselves."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        server.settimeout(10)
        yield server


@pytest.fixture
def relay(listener: socket.socket) -> Iterator[Relay]:
    """A relay to that server."""
    with contextlib.closing(Relay("127.0.0.1", lambda: listener.getsockname()[:2])) as relay:
        yield relay


Connect = Callable[[], tuple[socket.socket, socket.socket]]


@pytest.fixture
def connect(listener: socket.socket, relay: Relay) -> Iterator[Connect]:
    """Returns both ends of a new connection through the relay."""
    with contextlib.ExitStack() as opened:

        def connected() -> tuple[socket.socket, socket.socket]:
            client = opened.enter_context(socket.create_connection(relay.address, timeout=10))
            server, _ = listener.accept()
            server.settimeout(10)
            return client, opened.enter_context(server)

        yield connected


def read(source: socket.socket, size: int) -> bytes:
    """Read exactly that many bytes, or up to the end."""
    data = b""
    while len(data) < size and (more := source.recv(size - len(data))):
        data += more
    return data


def is_readable(source: socket.socket, timeout: float) -> bool:
    """Return whether there is something to read within *timeout* seconds."""
    return bool(select.select([source], [], [], timeout)[0])


def reset(side: socket.socket) -> None:
    """Close a connection by a reset."""
    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    side.close()


def refuses(relay: Relay) -> bool:
    """Return whether the relay's port refuses connections."""
    with socket.socket() as client:
        return client.connect_ex(relay.address) == errno.ECONNREFUSED


def is_reset(relay: Relay) -> bool:
    """
    Return whether a new connection is reset.

    `connect` may already see the reset.
    """
    try:
        with socket.create_connection(relay.address, 10) as client:
            client.recv(1)
    except ConnectionResetError:
        return True
    return False


def echo(listener: socket.socket, is_done: threading.Event) -> None:
    """
    Send one message of each connection back, and end the connection.

    It ends for all processes that have a copy.
    """
    while not is_done.is_set():
        with contextlib.suppress(OSError):
            server, _ = listener.accept()
            with server:
                server.sendall(server.recv(100))
                server.shutdown(socket.SHUT_RDWR)


def test_data_is_transferred_in_both_directions(connect: Connect) -> None:
    """16 MiB each way at the same time arrive complete and in order."""
    client, server = connect()
    sent = os.urandom(1 << 24)
    received: dict[str, bytes] = {}
    work = [
        threading.Thread(target=client.sendall, args=(sent,)),
        threading.Thread(target=server.sendall, args=(sent[::-1],)),
        threading.Thread(target=lambda: received.update(up=read(server, len(sent)))),
        threading.Thread(target=lambda: received.update(down=read(client, len(sent)))),
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert received == {"up": sent, "down": sent[::-1]}


def test_a_half_closed_connection_still_transfers_the_answer(connect: Connect) -> None:
    """
    The server sees the end of the request.

    The client sees all of the answer, and then its end.
    """
    client, server = connect()
    client.sendall(b"request")
    client.shutdown(socket.SHUT_WR)
    assert read(server, 100) == b"request"
    server.sendall(b"answer")
    server.close()
    assert read(client, 100) == b"answer"


@pytest.mark.parametrize("is_up", [True, False], ids=["client", "server"])
def test_a_reset_is_passed_on_after_the_data(connect: Connect, is_up: bool) -> None:
    """
    The other side reads the data that was sent before the reset.

    It then gets a reset rather than an ordinary end.
    """
    ends = connect()
    one, other = ends if is_up else ends[::-1]
    one.sendall(b"data")
    assert read(other, 4) == b"data"
    reset(one)
    with pytest.raises(ConnectionResetError):
        other.recv(1)


def test_a_server_that_stops_reading_is_noticed(connect: Connect) -> None:
    """
    If the server closes while the client is sending, sending fails.

    The last data of the server arrives.
    """
    client, server = connect()
    server.sendall(b"too large")
    assert read(client, 9) == b"too large"
    server.close()
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        client.sendall(bytes(1 << 27))


def test_back_pressure_reaches_the_sender(connect: Connect) -> None:
    """
    A sender is blocked if the receiver does not read.

    It continues as soon as the receiver does.
    """
    client, server = connect()
    client.setblocking(False)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while select.select([], [client], [], 0.5)[1]:
            sent += client.send(bytes(1 << 16))
            assert sent < 1 << 26, "64 MiB were accepted from a client whose server reads nothing"
    assert len(read(server, sent)) == sent
    assert select.select([], [client], [], 10)[1]


def test_hundreds_of_connections_share_one_thread(relay: Relay, listener: socket.socket) -> None:
    """300 connections at the same time cost one thread."""
    threads = threading.active_count()
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(socket.create_connection(relay.address, 10)) for _ in range(300)]
        servers = [opened.enter_context(listener.accept()[0]) for _ in clients]
        for number, client in enumerate(clients):
            client.sendall(struct.pack("!I", number))
        assert {struct.unpack("!I", read(server, 4))[0] for server in servers} == set(range(300))
        assert threading.active_count() <= threads
        for server in servers:
            server.sendall(b"!")
        assert all(read(client, 1) == b"!" for client in clients)


def test_a_delay_postpones_answers_alone(connect: Connect, relay: Relay) -> None:
    """
    Requests arrive at once, and answers arrive later.

    Ending the delay releases the answers that are on their way, in order.
    """
    client, server = connect()
    relay.change_faults(delay=600.0)
    client.sendall(b"?")
    assert read(server, 1) == b"?"
    relay.change_faults(delay=0.3)
    began = time.monotonic()
    server.sendall(b"!")
    assert read(client, 1) == b"!"
    assert time.monotonic() - began >= 0.3
    relay.change_faults(delay=600.0)
    server.sendall(b"1")
    assert not is_readable(client, 0.05)
    server.sendall(b"2")
    server.close()
    relay.change_faults(delay=0.0)
    assert read(client, 3) == b"12"


def test_a_delay_keeps_the_throughput(connect: Connect, relay: Relay) -> None:
    """2 MiB that are sent at once arrive together after one delay."""
    client, server = connect()
    relay.change_faults(delay=2.0)
    began = time.monotonic()
    sender = threading.Thread(target=server.sendall, args=(bytes(1 << 21),))
    sender.start()
    assert len(read(client, 1 << 21)) == 1 << 21
    sender.join()
    assert 2 <= time.monotonic() - began < 30  # one after another, 32 chunks would take 64 seconds


@pytest.mark.parametrize("is_up", [True, False], ids=["up", "down"])
def test_bandwidth_is_limited_in_each_direction(connect: Connect, relay: Relay, is_up: bool) -> None:
    """
    100 kB take about half a second at 200 kB/s.

    Without a limit, data takes almost no time.
    """
    ends = connect()
    one, other = ends if is_up else ends[::-1]
    relay.change_faults(rate=200_000.0)
    began = time.monotonic()
    one.sendall(bytes(100_000))
    assert len(read(other, 100_000)) == 100_000
    assert 0.4 < time.monotonic() - began < 20
    relay.change_faults(rate=5_000.0)
    one.sendall(bytes(250_000))
    assert read(other, 1) == b"\0"  # The rest is in the relay, and waits.
    relay.change_faults(rate=0.0)
    began = time.monotonic()
    assert len(read(other, 249_999)) == 249_999
    assert time.monotonic() - began < 25  # with the limit, it would take 50 seconds


def test_frozen_connections_lose_nothing(connect: Connect, relay: Relay, listener: socket.socket) -> None:
    """
    Old and new connections stay open without any traffic.

    They continue after the end of the fault.
    """
    client, server = connect()
    relay.change_faults(mode=Mode.FROZEN)
    client.sendall(b"old")
    with socket.create_connection(relay.address, 10) as late:
        late.sendall(b"new")
        assert not is_readable(server, 0.1)
        assert not is_readable(listener, 0.1)
        relay.change_faults(mode=Mode.OPEN)
        assert read(server, 3) == b"old"
        accepted, _ = listener.accept()
        with accepted:
            assert read(accepted, 3) == b"new"


def test_a_cut_resets_and_refuses(connect: Connect, relay: Relay, listener: socket.socket) -> None:
    """
    Both sides of a connection get a reset, and new ones are refused.

    The port stays reserved.
    """
    for _ in range(3):
        client, server = connect()
        relay.change_faults(mode=Mode.CUT)
        for side in (client, server):
            with pytest.raises(ConnectionResetError):
                side.recv(1)
        assert refuses(relay)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(relay.address)
        relay.change_faults(mode=Mode.FROZEN)  # which accepts again
        assert not refuses(relay)
        relay.change_faults(mode=Mode.OPEN)
        listener.accept()[0].close()  # that connection


def test_the_port_is_kept_after_a_cut_with_connections_that_ended_before(
    connect: Connect, relay: Relay
) -> None:
    """Connections that the relay's side has closed first do not occupy the port."""
    client, server = connect()
    server.close()
    assert read(client, 1) == b""
    client.close()
    relay.change_faults(mode=Mode.CUT)
    relay.change_faults(mode=Mode.OPEN)
    assert connect()


def test_without_a_target_connections_are_reset(listener: socket.socket) -> None:
    """
    The target refuses connections, or its address cannot be determined.

    Its name may not resolve, or the function that returns the address may fail.
    """
    closed = listener.getsockname()[:2]
    listener.close()

    def fail() -> tuple[str, int]:
        raise EngineError("the container has ended")

    for target in (lambda: closed, lambda: ("no-such-host.invalid", 1), fail):
        with contextlib.closing(Relay("127.0.0.1", target)) as relay:
            assert is_reset(relay)
            assert is_reset(relay)


def test_the_next_address_of_a_name_is_tried(listener: socket.socket) -> None:
    """A name such as localhost may also mean an address on which nothing listens."""
    port = listener.getsockname()[1]
    with (
        contextlib.closing(Relay("127.0.0.1", lambda: ("localhost", port))) as relay,
        socket.create_connection(relay.address, 10) as client,
        listener.accept()[0] as server,
    ):
        client.sendall(b"hello")
        assert read(server, 5) == b"hello"


def test_localhost_means_both_addresses_of_loopback() -> None:
    """Many systems define only one of them in their hosts file."""
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("machine: no IPv6")
    with (
        server,
        contextlib.closing(Relay("127.0.0.1", lambda: ("localhost", server.getsockname()[1]))) as relay,
        socket.create_connection(relay.address, 10) as client,
        server.accept()[0] as accepted,
    ):
        client.sendall(b"hello")
        assert read(accepted, 5) == b"hello"


@pytest.mark.skipif(
    sys.platform != "linux", reason="machine: only Linux can bind an address before it exists"
)
@pytest.mark.parametrize("host", ["192.0.2.77", "2001:db8::77"])
def test_an_address_that_does_not_exist_yet_can_be_listened_on(host: str) -> None:
    """
    Podman makes a network's gateway with the first container.

    Without `is_future`, such an address is an error.
    """
    target = ("127.0.0.1", 1)
    with contextlib.closing(Relay(host, lambda: target, is_future=True)) as relay:
        port = relay.address[1]
        assert relay.address == (host, port)
        with pytest.raises(OSError, match="in use"):
            Relay(host, lambda: target, port=port, is_future=True)
    with contextlib.closing(Relay(host, lambda: target, port=port, is_future=True)) as relay:
        assert relay.address == (host, port)
    with pytest.raises(OSError, match="assign requested address"):
        Relay(host, lambda: target)


def test_only_listed_peers_are_served(listener: socket.socket) -> None:
    """All others are reset without a connection to the target."""
    target = listener.getsockname()[:2]
    with contextlib.closing(Relay("127.0.0.1", lambda: target, lambda: {"127.0.0.2"})) as relay:
        assert is_reset(relay)
        with (
            socket.create_connection(relay.address, 10, source_address=("127.0.0.2", 0)) as client,
            listener.accept()[0] as server,
        ):
            client.sendall(b"hello")
            assert read(server, 5) == b"hello"


def test_the_target_is_looked_up_once_for_connections_that_arrive_together(listener: socket.socket) -> None:
    """A slow engine is asked once per group, not once per connection."""
    lookups = 0
    may_continue = threading.Event()

    def find() -> tuple[str, int]:
        nonlocal lookups
        lookups += 1
        may_continue.wait(10)
        return str(listener.getsockname()[0]), int(listener.getsockname()[1])

    with contextlib.closing(Relay("127.0.0.1", find)) as relay, contextlib.ExitStack() as opened:
        for _ in range(50):
            opened.enter_context(socket.create_connection(relay.address, 10))
        retry(lambda: lookups == 1, max_wait=10)
        may_continue.set()
        for _ in range(50):
            opened.enter_context(listener.accept()[0])
        assert lookups <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="machine: no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_holds_nothing_open(connect: Connect, relay: Relay) -> None:
    """While it lives, closing and cutting in the parent work, and it can fork again."""
    client, server = connect()
    asking, answering = os.pipe()
    child = os.fork()
    if not child:
        grandchild = os.fork()
        if grandchild:
            os.waitpid(grandchild, 0)
            os.read(asking, 1)
        os._exit(0 if relay.is_closed else 1)
    try:
        client.sendall(b"hello")
        assert read(server, 5) == b"hello"
        relay.change_faults(mode=Mode.CUT)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert refuses(relay)
    finally:
        os.write(answering, b"!")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.close(asking)
        os.close(answering)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="machine: no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forks_in_the_middle_of_traffic_do_no_harm(relay: Relay, listener: socket.socket) -> None:
    """
    Every connection ends for both sides.

    Children that were forked meanwhile are still alive.
    """
    children = []
    asking, answering = os.pipe()
    is_done = threading.Event()
    thread = threading.Thread(target=echo, args=(listener, is_done))
    thread.start()
    try:
        for _ in range(30):
            with socket.create_connection(relay.address, 10) as client:
                client.sendall(b"hello")
                if child := os.fork():
                    children.append(child)
                else:
                    client.close()  # These are the test's own, not the relay's.
                    listener.close()
                    os.read(asking, 1)
                    os._exit(0)
                assert read(client, 6) == b"hello"
    finally:
        is_done.set()
        os.write(answering, b"!" * len(children))
        for child in children:
            os.waitpid(child, 0)
        socket.create_connection(listener.getsockname()).close()
        thread.join()
        os.close(asking)
        os.close(answering)


def test_closing_ends_everything(connect: Connect, relay: Relay) -> None:
    """
    Both sides get a reset, the port is free, and the thread has ended.

    Closing again does nothing.
    """
    client, server = connect()
    relay.close()
    relay.close()
    for side in (client, server):
        with pytest.raises(ConnectionResetError):
            side.recv(1)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(relay.address)
    assert relay.is_closed


def test_an_ipv6_address_can_be_listened_on(listener: socket.socket) -> None:
    """The target may be of another family."""
    target = listener.getsockname()[:2]
    try:
        relay = Relay("::1", lambda: target)
    except OSError:
        pytest.skip("machine: no IPv6")
    with (
        contextlib.closing(relay),
        socket.create_connection(relay.address, 10) as client,
        listener.accept()[0] as server,
    ):
        client.sendall(b"hello")
        assert read(server, 5) == b"hello"


def test_too_many_open_files_are_survived(tmp_path: Path) -> None:
    """
    Connections wait until there are descriptors, without a busy loop.

    A new relay fails with the reason.
    """
    program = tmp_path / "program.py"
    program.write_text(
        """
import resource, socket, time
from dockertest import EngineError
from dockertest._relay import Relay

server = socket.create_server(("127.0.0.1", 0))
relay = Relay("127.0.0.1", lambda: server.getsockname())
client = socket.socket()
used = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        used.append(socket.socket())
except OSError:
    pass
try:
    Relay("127.0.0.1", lambda: server.getsockname())
except EngineError as error:
    print(error.reason)
client.connect(relay.address)
began = time.process_time()
time.sleep(0.5)
print(time.process_time() - began < 0.25)
for each in used:
    each.close()
client.sendall(b"hello")
with server.accept()[0] as accepted:
    print(accepted.recv(5))
"""
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout.split() == ["files", "True", "b'hello'"], ended.stderr
