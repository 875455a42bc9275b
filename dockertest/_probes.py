"""
Probes that ask servers in their own protocols whether they are ready.

They need only the standard library. An accepted connection proves nothing, because the engine's own proxy accepts
connections before the server does. A probe returns whether the server can be used now, or raises an `OSError`, a
`struct.error` or an error of `http.client`.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import struct
import sys
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import closing, contextmanager
from contextvars import ContextVar
from io import BufferedReader

from dockertest._interruption import is_of_handler

Address = tuple[str, int]
Probe = Callable[[Address, Mapping[str, str]], object]

RESPONSE_SECONDS = 5.0  # the longest time for a connection to a server, and for each part of its answer
_SHORTEST_SECONDS = 0.5  # so that a single attempt can succeed, however little time is left
_PROXY_SECONDS = 0.02  # until a proxy on this machine has noticed that nothing listens in the container

_seconds: ContextVar[float] = ContextVar("seconds", default=RESPONSE_SECONDS)


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """
    Limit the time of a connection and of each part of an answer in the block.

    The limit is *seconds*, but at least 0.5 s and at most 5 s.
    """
    token = _seconds.set(min(max(seconds, _SHORTEST_SECONDS), RESPONSE_SECONDS))
    try:
        yield
    finally:
        _seconds.reset(token)


@contextmanager
def _exchange(address: Address, request: bytes = b"") -> Iterator[BufferedReader]:
    """Send a request, and return a stream of the answer."""
    with (
        socket.create_connection(address, timeout=_seconds.get()) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(request)
        yield answer


def postgres(address: Address, settings: Mapping[str, str]) -> bool:
    """
    Return whether PostgreSQL asks for a password or rejects the user.

    While it starts or stops, it answers with one of the SQLSTATEs 57P01 to 57P03.
    """
    user = settings.get("POSTGRES_USER") or "postgres"
    # Without the database, a server that requires no password would look for one with the user's name, and log an error.
    database = settings.get("POSTGRES_DB") or user
    names = b"user\0" + user.encode() + b"\0database\0" + database.encode() + b"\0\0"
    body = struct.pack(">i", 3 << 16) + names
    with _exchange(address, struct.pack(">i", len(body) + 4) + body) as answer:
        kind = answer.read(1)
        return kind == b"R" or (kind == b"E" and b"\0C57P0" not in answer.read())


def mysql(address: Address, _settings: Mapping[str, str]) -> bool:
    """
    Return whether MySQL or MariaDB sends a handshake of protocol 10.

    The first packet may be an error (255) instead.
    """
    with _exchange(address) as answer:
        return answer.read(5)[3:] == b"\0\x0a"


def redis(address: Address, _settings: Mapping[str, str]) -> bool:
    """
    Return whether Redis answers a ping or asks for a password.

    While it loads data, its answer is `-LOADING`.
    """
    with _exchange(address, b"PING\r\n") as answer:
        return answer.readline().startswith((b"+PONG", b"-NOAUTH"))


def amqp(address: Address, _settings: Mapping[str, str]) -> bool:
    """
    Return whether an AMQP 0-9-1 broker answers the protocol header.

    The expected answer is `connection.start` (10, 10).
    """
    with _exchange(address, b"AMQP\0\0\x09\x01") as answer:
        frame = answer.read(11)
        return frame[:3] == b"\x01\0\0" and frame[7:] == b"\0\x0a\0\x0a"


def memcached(address: Address, _settings: Mapping[str, str]) -> bool:
    """Return whether memcached answers with its version."""
    with _exchange(address, b"version\r\n") as answer:
        return answer.readline().startswith(b"VERSION ")


def nats(address: Address, _settings: Mapping[str, str]) -> bool:
    """Return whether NATS sends its first line."""
    with _exchange(address) as answer:
        return answer.readline().startswith(b"INFO ")


def zookeeper(address: Address, _settings: Mapping[str, str]) -> bool:
    """
    Return whether ZooKeeper reports its mode.

    Before it is ready, it reports that it does not serve requests.
    """
    with _exchange(address, b"srvr") as answer:
        return b"\nMode: " in answer.read()


def mqtt(address: Address, _settings: Mapping[str, str]) -> bool:
    """
    Return whether an MQTT 3.1.1 broker accepts a connection or asks for a login.

    The codes 4 and 5 ask for a login.
    """
    body = b"\0\x04MQTT\x04\x02\0\x3c\0\x0adockertest"
    with _exchange(address, b"\x10" + bytes([len(body)]) + body) as answer:
        packet = answer.read(4)
        return packet[:2] == b"\x20\x02" and packet[3:] in (b"\0", b"\x04", b"\x05")


def mongo(address: Address, _settings: Mapping[str, str]) -> bool:
    """
    Return whether MongoDB answers `isMaster` and is not the set-up's server.

    All versions accept `isMaster` without a login. The server that the image starts for its set-up listens on loopback,
    which some engines forward to. It is the only one that runs with `--fork`, and it shows its command line without a
    login.
    """
    is_master, command_line = _mongo_command(b"isMaster"), _mongo_command(b"getCmdLineOpts")
    with _exchange(address, is_master + command_line) as answer:
        return b"\x01ok\0" + struct.pack("<d", 1.0) in _mongo_answer(
            answer
        ) and b"--fork\0" not in _mongo_answer(answer)


def _mongo_command(name: bytes) -> bytes:
    command = b"\x10" + name + b"\0\x01\0\0\0" + b"\x02$db\0\x06\0\0\0admin\0"
    document = struct.pack("<i", len(command) + 5) + command + b"\0"
    body = struct.pack("<iiiI", 1, 0, 2013, 0) + b"\0" + document  # OP_MSG, with one section of kind 0
    return struct.pack("<i", len(body) + 4) + body


def _mongo_answer(answer: BufferedReader) -> bytes:
    (length,) = struct.unpack("<i", answer.read(4))
    return answer.read(min(length, 1 << 20) - 4)


def cassandra(address: Address, _settings: Mapping[str, str]) -> bool:
    """Return whether Cassandra answers an options request of protocol version 4."""
    with _exchange(address, b"\x04\0\0\0\x05\0\0\0\0") as answer:
        head = answer.read(9)
        return head[:1] == b"\x84" and head[4:5] == b"\x06"


def sql_server(address: Address, _settings: Mapping[str, str]) -> bool:
    """
    Return whether SQL Server answers a PRELOGIN message.

    The answer is a packet of type 4.
    """
    options = (
        b"\0\0\x0b\0\x06\x01\0\x11\0\x01\xff"  # version and encryption: their places and sizes, then the end
    )
    body = options + b"\x11\0\0\0\0\0" + b"\x02"  # a version, and "encryption is not supported"
    with _exchange(address, struct.pack(">BBHHBB", 0x12, 1, len(body) + 8, 0, 1, 0) + body) as answer:
        return answer.read(8)[:1] == b"\x04"


def oracle(address: Address, settings: Mapping[str, str]) -> bool:
    """
    Return whether Oracle's listener accepts a connection to the database.

    A redirect (5) and a request to resend (11) count as well as an acceptance (2).
    """
    service = (settings.get("ORACLE_DATABASE") or "FREEPDB1").encode()
    data = b"(DESCRIPTION=(CONNECT_DATA=(SERVICE_NAME=" + service + b")))"
    head = struct.pack(">HHHHHHHHHHLBB", 314, 300, 0, 8192, 32767, 0x7F08, 0, 1, len(data), 58, 0, 0x41, 0x41)
    body = head + bytes(58 - 8 - len(head)) + data
    with _exchange(address, struct.pack(">HHBBH", len(body) + 8, 0, 1, 0, 0) + body) as answer:
        return answer.read(8)[4:5] in (b"\x02", b"\x05", b"\x0b")


def bolt(address: Address, _settings: Mapping[str, str]) -> bool:
    """Return whether Neo4j agrees on Bolt 5.0 to 5.4 or 4.2 to 4.4."""
    versions = struct.pack(">BBBBBBBB", 0, 4, 4, 5, 0, 2, 4, 4) + bytes(8)
    with _exchange(address, b"\x60\x60\xb0\x17" + versions) as answer:
        return answer.read(4)[3:] in (b"\x04", b"\x05")


def smtp(address: Address, _settings: Mapping[str, str]) -> bool:
    """Return whether an SMTP server sends its first line, with the code 220."""
    with _exchange(address) as answer:
        return answer.readline().startswith(b"220 ")


def http_probe(path: str = "/", accepted: Container[int] = range(200, 500), *, tls: bool = False) -> Probe:
    """
    Return a probe for servers that answer a `GET` request.

    Args:
        path: The path to request.
        accepted: The statuses with which a server is ready. By default all but errors of the server, since a server that
            demands a login or has no such page can be used as well.
        tls: Use HTTPS. The certificate is not verified.
    """

    def probe(address: Address, _settings: Mapping[str, str]) -> bool:
        return http_status(address, path, {}, tls=tls) in accepted

    return probe


def http_status(address: Address, path: str, headers: Mapping[str, str], *, tls: bool) -> int:
    """
    Return the status of the answer to a `GET` request for *path*.

    Redirects are not followed, and certificates are not verified.
    """
    timeout = _seconds.get()
    connection: http.client.HTTPConnection
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(*address, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(*address, timeout=timeout)
    with closing(connection):
        connection.request("GET", path, headers=dict(headers))
        return connection.getresponse().status


@contextmanager
def kept_open(address: Address, seconds: float = _PROXY_SECONDS) -> Iterator[bool]:
    """
    Connect, and yield whether the connection is still open after *seconds*.

    It stays open in the block.
    """
    try:
        connection = socket.create_connection(address, timeout=_seconds.get())
    except ConnectionRefusedError:  # by the container itself, without a proxy of the engine in between
        yield False
        return
    with connection:
        connection.settimeout(seconds)
        try:
            is_open = connection.recv(1, socket.MSG_PEEK) != b""
        except TimeoutError as error:
            if is_of_handler(error):
                raise
            is_open = True
        yield is_open


def is_listening(tables: str, port: int) -> bool:
    """
    Return whether a port accepts connections, not only from the same host.

    Args:
        tables: The content of `/proc/net/tcp` and `/proc/net/tcp6`.
        port: The port.
    """
    for words in map(str.split, tables.splitlines()):
        address, _, hexadecimal = words[1].partition(":") if len(words) > 3 else ("", "", "")
        is_state = bool(hexadecimal) and words[3] in (
            "0A",
            "01",
            "08",
        )  # listening; accepted, also if closed since
        if is_state and int(hexadecimal, 16) == port and not _is_loopback(address):
            return True
    return False


def _is_loopback(address: str) -> bool:
    """
    Return whether an address is a loopback address, as the kernel writes it.

    The kernel writes each 32 bits in the host's byte order.
    """
    data = b"".join(
        int(address[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(address), 8)
    )
    ip = ipaddress.ip_address(data)
    return ip.is_loopback or bool(
        isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped and ip.ipv4_mapped.is_loopback
    )
