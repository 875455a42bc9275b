"""
Does a server answer in its own protocol? With the standard library's sockets alone; knows nothing of containers.

That a connection is accepted says nothing: the engine's proxy accepts at once. Every probe gives whether the server can
be used now, or raises what went wrong: an `OSError`, or one of `http.client`.
"""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import closing, contextmanager
from io import BufferedReader

Address = tuple[str, int]
Probe = Callable[[Address, Mapping[str, str]], bool]

PATIENCE = 5.0  # seconds that a server may take to be connected to, and for each word


@contextmanager
def _talk(address: Address, request: bytes = b"") -> Iterator[BufferedReader]:
    """Send a request, and give the answer to be read."""
    with (
        socket.create_connection(address, timeout=PATIENCE) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(request)
        yield answer


def postgres(address: Address, settings: Mapping[str, str]) -> bool:
    """Whether PostgreSQL asks who we are: while it starts or stops it says so (SQLSTATE 57P01 to 57P03) and hangs up."""
    user = settings.get("POSTGRES_USER") or "postgres"
    body = struct.pack(">i", 3 << 16) + b"user\0" + user.encode() + b"\0\0"
    with _talk(address, struct.pack(">i", len(body) + 4) + body) as answer:
        kind = answer.read(1)
        return kind == b"R" or (kind == b"E" and b"\0C57P0" not in answer.read())


def mysql(address: Address, _settings: Mapping[str, str]) -> bool:
    """Whether MySQL or MariaDB greets: its first packet is number 0 and of protocol 10, one of an error of 255."""
    with _talk(address) as answer:
        return answer.read(5)[3:] == b"\0\x0a"


def redis(address: Address, _settings: Mapping[str, str]) -> bool:
    """Whether Redis answers a ping, or asks for the password; while it loads its data it says so."""
    with _talk(address, b"PING\r\n") as answer:
        return answer.readline().startswith((b"+PONG", b"-NOAUTH"))


def amqp(address: Address, _settings: Mapping[str, str]) -> bool:
    """Whether a broker of AMQP 0-9-1 answers the protocol's header with the method 10.10, which starts a connection."""
    with _talk(address, b"AMQP\0\0\x09\x01") as answer:
        frame = answer.read(11)
        return frame[:3] == b"\x01\0\0" and frame[7:] == b"\0\x0a\0\x0a"


def memcached(address: Address, _settings: Mapping[str, str]) -> bool:
    """Whether memcached tells its version."""
    with _talk(address, b"version\r\n") as answer:
        return answer.readline().startswith(b"VERSION ")


def nats(address: Address, _settings: Mapping[str, str]) -> bool:
    """Whether NATS says its first word."""
    with _talk(address) as answer:
        return answer.readline().startswith(b"INFO ")


def zookeeper(address: Address, _settings: Mapping[str, str]) -> bool:
    """Whether ZooKeeper says what it is to its cluster: before it serves, it says that it does not."""
    with _talk(address, b"srvr") as answer:
        return b"\nMode: " in answer.read()


def mqtt(address: Address, _settings: Mapping[str, str]) -> bool:
    """Whether a broker of MQTT 3.1.1 takes our connection, or wants to know who we are (4 and 5)."""
    body = b"\0\x04MQTT\x04\x02\0\x3c\0\x0adockertest"
    with _talk(address, b"\x10" + bytes([len(body)]) + body) as answer:
        said = answer.read(4)
        return said[:2] == b"\x20\x02" and said[3:] in (b"\0", b"\x04", b"\x05")


def mongo(address: Address, _settings: Mapping[str, str]) -> bool:
    """Whether MongoDB answers `isMaster`, the one command that all versions understand without a login."""
    command = b"\x10isMaster\0\x01\0\0\0" + b"\x02$db\0\x06\0\0\0admin\0"
    document = struct.pack("<i", len(command) + 5) + command + b"\0"
    body = struct.pack("<iiiI", 1, 0, 2013, 0) + b"\0" + document  # OP_MSG, with one section of kind 0
    with _talk(address, struct.pack("<i", len(body) + 4) + body) as answer:
        (length,) = struct.unpack("<i", answer.read(4))
        return b"\x01ok\0" + struct.pack("<d", 1.0) in answer.read(min(length, 1 << 20) - 4)


def cassandra(address: Address, _settings: Mapping[str, str]) -> bool:
    """Whether Cassandra tells what it supports, by its protocol 4."""
    with _talk(address, b"\x04\0\0\0\x05\0\0\0\0") as answer:
        head = answer.read(9)
        return head[:1] == b"\x84" and head[4:5] == b"\x06"


def http_get(path: str = "/", accepted: Container[int] = range(200, 500)) -> Probe:
    """Give a probe for a server that answers `GET` for *path* with one of the *accepted* statuses."""

    def probe(address: Address, _settings: Mapping[str, str]) -> bool:
        with closing(http.client.HTTPConnection(*address, timeout=PATIENCE)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status in accepted

    return probe
