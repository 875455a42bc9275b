"""
An engine's unix socket on a TCP port, with or without TLS.

Both can be tested without a second engine. It is as strict as the TLS of Go: if a client closes a connection without a
TLS alert, the connection is reset.
"""

from __future__ import annotations

import datetime
import selectors
import socket
import ssl
import struct
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dockertest._engine.reachability import join_host_port
from tests.engines.fault_proxy import engine_socket

CHUNK = 65536


class Front:
    """
    A context manager that runs the server.

    Attributes:
        url: The endpoint for a pool.
        port: Its port.
    """

    def __init__(
        self,
        target: str = "",
        context: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self._target = target or engine_socket()
        self._host = host
        self._context = context
        self._open = ExitStack()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listener = self._open.enter_context(socket.create_server((self._host, 0), family=family))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"tcp://{join_host_port(self._host, self.port)}"
        self._carriers = [threading.Thread(target=self._serve, daemon=True)]
        self._carriers[0].start()
        self._clients: list[socket.socket] = []
        self._engines: list[socket.socket] = []
        return self

    def cut(self) -> None:
        """
        Close all connections to clients, and accept new ones.

        A firewall or load balancer does the same.
        """
        self._shut(self._clients)

    def __exit__(self, *_: object) -> None:
        self._shut([self._listener])
        self._shut(self._clients)
        self._shut(self._engines)
        for carrier in self._carriers:
            carrier.join(10)
        self._open.close()

    def _shut(self, sockets: list[socket.socket]) -> None:
        with self._lock:
            for sock in sockets:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            with self._lock:
                self._clients.append(client)
                self._carriers.append(threading.Thread(target=self._carry, args=(client,), daemon=True))
                self._carriers[-1].start()

    def _carry(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as engine:
            try:
                engine.connect(self._target)
                with self._lock:
                    self._engines.append(engine)
                near, far = _Tls(client, self._context) if self._context else _Plain(client), _Plain(engine)
                ways = [_Way(near, far), _Way(far, near)]
                while any(way.is_open for way in ways):
                    _step(ways)
                    if not ways[1].is_open:  # an engine that has closed its side reads nothing more
                        far.out, far.is_deaf = b"", True
            except OSError:
                # A reset, so that the client cannot mistake it for the end of the data.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class _Plain:
    """A socket and the bytes that are still to be sent on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)
        self.out = b""
        self.ending = self.is_deaf = self.has_ended = False

    def read(self) -> bytes:
        """Return the bytes that have arrived, and note the end of the stream."""
        try:
            data = self.sock.recv(CHUNK)
        except BlockingIOError:
            return b""
        self.has_ended = not data
        return data

    def write(self, data: bytes) -> None:
        """Send *data* as soon as possible."""
        self.out += data

    def end(self) -> None:
        """Send nothing more."""
        self.ending = True

    def flush(self) -> None:
        """Send as many bytes as possible."""
        try:
            if self.out:
                self.out = self.out[self.sock.send(self.out) :]
            if self.ending and not self.out:
                self.ending = False
                self.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except ConnectionError:
            self.out, self.is_deaf = b"", True


class _Tls(_Plain):
    """
    The server side of a TLS connection in memory.

    Each direction ends separately.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    def read(self) -> bytes:
        wire = super().read()
        if self.has_ended:
            self.has_ended = False
            self._in.write_eof()
        self._in.write(wire)
        plain = []
        with suppress(ssl.SSLWantReadError):
            while not self.has_ended:
                plain.append(self._read())
        self.out += self._out.read()
        return b"".join(plain)

    def _read(self) -> bytes:
        try:
            data = self._tls.read(CHUNK)  # includes the handshake; an end without a TLS alert is an error
        except ssl.SSLZeroReturnError:
            data = b""
        self.has_ended = not data
        return data

    def write(self, data: bytes) -> None:
        self._tls.write(data)
        self.out += self._out.read()

    def end(self) -> None:
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self.out += self._out.read()
        super().end()


class _Way:
    """One direction, from its source to its sink, which buffers only the last read."""

    def __init__(self, source: _Plain, sink: _Plain) -> None:
        self.source = source
        self.sink = sink
        self.is_open = True

    def step(self) -> None:
        """Read once and forward the bytes."""
        data = self.source.read()
        if data and not self.sink.is_deaf:
            self.sink.write(data)
        if self.source.has_ended:
            self.is_open = False
            self.sink.end()
        self.sink.flush()


def _step(ways: list[_Way]) -> None:
    """Wait until a socket is ready, and read or write."""
    interests: dict[socket.socket, int] = {}
    for way in ways:
        if way.sink.out:
            interests[way.sink.sock] = interests.get(way.sink.sock, 0) | selectors.EVENT_WRITE
        elif way.is_open:
            interests[way.source.sock] = interests.get(way.source.sock, 0) | selectors.EVENT_READ
    with selectors.DefaultSelector() as waiting:
        for sock, events in interests.items():
            waiting.register(sock, events)
        ready = {key.fileobj: events for key, events in waiting.select()}
    for way in ways:
        if ready.get(way.sink.sock, 0) & selectors.EVENT_WRITE:
            way.sink.flush()
        if ready.get(way.source.sock, 0) & selectors.EVENT_READ and way.is_open and not way.sink.out:
            way.step()


def certificates(
    folder: Path, host: str = "127.0.0.1", not_after: datetime.datetime | None = None
) -> ssl.SSLContext:
    """
    Write certificates for a client, and return the context for the server.

    The files in *folder* are `ca.pem`, `cert.pem` and `key.pem`. The CA has no key usage, like those of Docker's manual
    and of older `docker:dind` images.

    Args:
        host: The host in the server's certificate.
        not_after: When the server's certificate expires; far in the future by default.
    """
    ca = trustme.CA()
    client = ca.issue_cert("client@dockertest.example")
    (folder / "ca.pem").write_bytes(_without_key_usage(ca))
    client.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    client.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    ca.issue_cert(host, not_after=not_after).configure_cert(context)
    return context


def _without_key_usage(ca: trustme.CA) -> bytes:
    full = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    plain = x509.CertificateBuilder().issuer_name(full.issuer).subject_name(full.subject)
    plain = plain.public_key(key.public_key()).serial_number(full.serial_number)
    plain = plain.not_valid_before(full.not_valid_before_utc).not_valid_after(full.not_valid_after_utc)
    plain = plain.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    plain = plain.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return plain.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
