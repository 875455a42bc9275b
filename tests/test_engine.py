"""
Translation of errors: users never see an exception of another library.

The libraries are the docker SDK, requests, urllib3 and socket.
"""

import gc
import http.client
import json
import re
import socket
import ssl
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker.credentials.errors
import docker.errors
import pytest
import requests
import requests.exceptions
import urllib3
import urllib3.exceptions
from urllib3.connection import HTTPConnection

from dockertest import (
    ContainerCreateError,
    DockertestError,
    DockerUnavailableError,
    EngineError,
    InvalidOptionError,
)
from dockertest._engine.connect import adopt, connect, find
from dockertest._engine.endpoint import Endpoint
from dockertest._engine.sdk import client, translate, translate_errors

POOL = urllib3.HTTPConnectionPool("localhost")
CONNECTION = HTTPConnection("localhost")
FOREIGN = ("docker", "requests", "urllib3")
MODULES = (
    docker.errors,
    docker.credentials.errors,
    requests.exceptions,
    urllib3.exceptions,
    http.client,
    socket,
    ssl,
)

# The arguments of classes that take more than a message.
PARTS: "dict[str, tuple[Any, ...]]" = {
    "docker.errors.BuildError": ("no such file", iter([{"stream": "Step 1/2"}])),
    "docker.errors.ContainerError": ("container", 1, "false", "busybox", b"went wrong"),
    "urllib3.exceptions.ClosedPoolError": (POOL, "pool is closed"),
    "urllib3.exceptions.EmptyPoolError": (POOL, "pool is empty"),
    "urllib3.exceptions.FullPoolError": (POOL, "pool is full"),
    "urllib3.exceptions.HeaderParsingError": ([], b"unparsed"),
    "urllib3.exceptions.HostChangedError": (POOL, "http://elsewhere/", 3),
    "urllib3.exceptions.IncompleteRead": (3, 5),
    "urllib3.exceptions.InvalidChunkLength": (urllib3.HTTPResponse(b""), b"zz"),
    "urllib3.exceptions.MaxRetryError": (POOL, "/info", OSError(113, "No route to host")),
    "urllib3.exceptions.NameResolutionError": ("nowhere", CONNECTION, socket.gaierror(-2, "Name or service not known")),
    "urllib3.exceptions.NewConnectionError": (CONNECTION, "[Errno 111] Connection refused"),
    "urllib3.exceptions.PoolError": (POOL, "went wrong"),
    "urllib3.exceptions.ProxyError": ("cannot connect to proxy", OSError("refused")),
    "urllib3.exceptions.ReadTimeoutError": (POOL, "/info", "read timed out"),
    "urllib3.exceptions.RequestError": (POOL, "/info", "went wrong"),
    "json.decoder.JSONDecodeError": ("expecting value", "<html>", 0),
    "requests.exceptions.JSONDecodeError": ("expecting value", "<html>", 0),
}  # fmt: skip
BEFORE_2 = not hasattr(urllib3.exceptions, "NameResolutionError")
if BEFORE_2:  # urllib3 1, which the docker SDK still supports
    del PARTS["urllib3.exceptions.FullPoolError"], PARTS["urllib3.exceptions.NameResolutionError"]
NAME_ERROR = urllib3.exceptions.NewConnectionError if BEFORE_2 else urllib3.exceptions.NameResolutionError


def name_of(cls: "type[Exception]") -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def foreign_classes() -> "list[type[Exception]]":
    """
    Return the exception classes of these modules and their subclasses.

    Subclasses are those in the same libraries.
    """
    todo = [
        value
        for module in MODULES
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    classes: dict[str, type[Exception]] = {}
    while todo:
        cls = todo.pop()
        if classes.setdefault(name_of(cls), cls) is cls:
            todo += [
                subclass
                for subclass in type.__subclasses__(cls)
                if subclass.__module__.split(".")[0] in FOREIGN and name_of(subclass) not in classes
            ]
    return [classes[name] for name in sorted(classes)]


def make(cls: "type[Exception]") -> Exception:
    """Return an instance with the arguments that the libraries use."""
    return cls(*PARTS.get(name_of(cls), ("it went wrong",)))


def translated(foreign: Exception, error: "type[DockertestError]" = EngineError) -> DockertestError:
    """Return what leaves the block in which *foreign* is raised."""
    with pytest.raises(DockertestError) as failure, translate_errors(None, "inspect it", error):
        raise foreign
    return failure.value


every_class = pytest.mark.parametrize("cls", foreign_classes(), ids=name_of)


def test_the_list_of_classes_is_complete() -> None:
    """It contains the classes of all libraries."""
    names = {name_of(cls) for cls in foreign_classes()}
    assert len(names) > 80
    assert {
        "docker.errors.ImageNotFound", "docker.credentials.errors.StoreError", "requests.exceptions.ReadTimeout",
        "urllib3.exceptions.MaxRetryError", "http.client.RemoteDisconnected", "socket.gaierror", "ssl.SSLError",
    } <= names  # fmt: skip


def test_the_table_of_arguments_has_no_unknown_class() -> None:
    """Each of its classes exists."""
    assert set(PARTS) <= {name_of(cls) for cls in foreign_classes()}


@every_class
def test_every_third_party_error_is_translated(cls: "type[Exception]") -> None:
    """
    The message names the operation.

    The original error is the cause, even if it is wrapped.
    """
    wrapped = requests.exceptions.ConnectionError(urllib3.exceptions.MaxRetryError(POOL, "/info", make(cls)))
    for foreign in (make(cls), wrapped):
        ours = translated(foreign)
        # The text of an invalid header is the header, which may be a token.
        assert ours.__cause__ is (None if ours.reason == "header" else foreign)
        assert type(ours) in (EngineError, DockerUnavailableError)
        assert str(ours).startswith("cannot inspect it: ")
        assert str(ours) != "cannot inspect it: "
        assert isinstance(translate(foreign), DockertestError)
    # Only an answer of the engine is a refusal; timeouts and lost connections are not.
    refused = issubclass(cls, docker.errors.APIError)
    assert isinstance(translated(make(cls), ContainerCreateError), ContainerCreateError) == refused


def http_error(status: int, body: bytes, reason: str = "reason") -> docker.errors.APIError:
    """Return the error that the docker SDK raises for a response."""
    response = requests.Response()
    response.status_code, response.reason, response.url = status, reason, "http+docker://localhost/x"
    response._content = body
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        try:
            docker.errors.create_api_error_from_http_exception(error)
        except docker.errors.APIError as sdk_error:
            return sdk_error
    pytest.fail("the SDK has no error for it")


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (404, b'{"message": "No such container: pg"}', "No such container: pg"),
        (404, b'{"message": "No such image: pg:15"}', "No such image: pg:15"),
        (409, b'{"message": "name is in use\\n"}', "name is in use"),
        (500, b"it went wrong", "it went wrong"),
        (500, b'{"cause": "x", "message": "podman words", "response": 500}', "podman words"),
        (503, b"", "reason"),
    ],
)
def test_a_refusal_has_the_engines_message(status: int, body: bytes, message: str) -> None:
    """It also has the status, if the class has that attribute."""
    ours = translated(http_error(status, body))
    assert str(ours) == f"cannot inspect it: {message}"
    assert isinstance(ours, EngineError)
    assert ours.status == status
    refused = translated(http_error(status, body), ContainerCreateError)
    assert type(refused) is ContainerCreateError
    assert str(refused) == f"cannot inspect it: {message}"


def caused(error: Exception, cause: Exception) -> Exception:
    """Return *error* as if it had been raised from *cause*."""
    error.__cause__ = cause
    return error


def max_retry(reason: Exception) -> Exception:
    return requests.exceptions.ConnectionError(urllib3.exceptions.MaxRetryError(POOL, "/info", reason))


@pytest.mark.parametrize(
    ("foreign", "ours", "reason", "message"),
    [
        (
            max_retry(caused(urllib3.exceptions.NewConnectionError(CONNECTION, "x"), ConnectionRefusedError(111, "Connection refused"))),
            DockerUnavailableError,
            "refused",
            "connection refused",
        ),
        (
            max_retry(caused(urllib3.exceptions.NewConnectionError(CONNECTION, "x"), OSError(113, "No route to host"))),
            DockerUnavailableError,
            "network",
            "no route to host",
        ),
        (
            max_retry(caused(make(NAME_ERROR), socket.gaierror(-2, "Name or service not known"))),
            DockerUnavailableError,
            "name",
            "name or service not known",
        ),
        (
            requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", FileNotFoundError(2, "No such file or directory"))),
            DockerUnavailableError,
            "refused",
            "no such file or directory",
        ),
        (
            requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", PermissionError(13, "Permission denied"))),
            DockerUnavailableError,
            "permission",
            "permission denied",
        ),
        (requests.exceptions.SSLError(ssl.SSLError(1, "wrong version number")), DockerUnavailableError, "tls", "SSLError: wrong version number"),
        (max_retry(urllib3.exceptions.ConnectTimeoutError(CONNECTION, "x")), DockerUnavailableError, "timeout", "no connection within 7 s"),
        (requests.exceptions.ConnectTimeout("x"), DockerUnavailableError, "timeout", "no connection within 7 s"),
        (requests.exceptions.ReadTimeout("x"), EngineError, "timeout", "the engine did not answer within 7 s"),
        (
            requests.exceptions.ConnectionError(urllib3.exceptions.ReadTimeoutError(POOL, "/wait", "x")),
            EngineError,
            "timeout",
            "the engine did not answer within 7 s",
        ),
        (TimeoutError("timed out"), EngineError, "timeout", "the engine did not answer within 7 s"),
        (
            requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", ConnectionResetError(104, "Connection reset by peer"))),
            EngineError,
            "disconnected",
            "the engine closed the connection: connection reset by peer",
        ),
        (
            requests.exceptions.ChunkedEncodingError(urllib3.exceptions.ProtocolError("Connection broken", http.client.IncompleteRead(b"x"))),
            EngineError,
            "disconnected",
            "the engine closed the connection: IncompleteRead: ",
        ),
        (docker.errors.NullResource("Resource ID was not provided"), EngineError, "", "NullResource: Resource ID was not provided"),
        (KeyError("Id"), EngineError, "", "KeyError: 'Id'"),
        (RuntimeError(), EngineError, "", "RuntimeError"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_kinds_of_failures_are_distinguished(
    foreign: Exception, ours: "type[DockertestError]", reason: str, message: str
) -> None:
    """
    An engine is unreachable, does not answer, or disconnects.

    The message is the system's if there is one.
    """
    error = translate(foreign, "do it", limit=7)
    assert type(error) is ours
    assert error.reason == reason
    assert str(error).startswith(f"cannot do it: {message}")


@pytest.mark.parametrize("handled", [TimeoutError(110, "Timed out"), ConnectionRefusedError(111, "Refused")])
def test_an_error_that_the_caller_handles_is_not_the_cause(handled: Exception) -> None:
    """Containers are often closed or inspected while an error of a driver is handled."""
    try:
        raise handled
    except OSError:
        assert (
            str(translated(RuntimeError("something else")))
            == "cannot inspect it: RuntimeError: something else"
        )
        reset = translated(ConnectionResetError(104, "Reset by peer"))
        assert str(reset) == (
            "cannot inspect it: the engine closed the connection: reset by peer; it answered before, so it may have been stopped "
            "or restarted: check it with dockertest doctor"
        )


@pytest.mark.parametrize(
    "ours", [EngineError("x", status=404), InvalidOptionError("x"), DockerUnavailableError("x")]
)
def test_our_own_errors_pass_unchanged(ours: DockertestError) -> None:
    """Blocks may be nested."""
    assert translated(ours) is ours
    assert ours.__cause__ is None


@pytest.mark.parametrize("foreign", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_passes_unchanged(foreign: "type[BaseException]") -> None:
    """It is not an error from the engine."""
    with pytest.raises(foreign), translate_errors(None, "inspect it"):
        raise foreign


def test_a_circular_chain_of_errors_is_followed_once() -> None:
    """Errors can refer to each other."""
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__context__ = second, first
    assert isinstance(translate(first), EngineError)


@contextmanager
def listening(answer: "bytes | None") -> "Iterator[str]":
    """
    Listen on loopback, and answer every client with these bytes.

    If they are `None`, never answer.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            clients = []
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    break
                if answer is None:
                    clients.append(connection)
                else:
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)
            for client in clients:
                client.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def failure(url: str, timeout: float = 10) -> DockertestError:
    """Return the error of a connection to *url*."""
    with pytest.raises(DockertestError) as error:
        connect(Endpoint(url, "a test"), timeout)
    return error.value


def answered(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "the engine closed the connection: RemoteDisconnected: "),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            "the engine closed the connection: BadStatusLine: SSH-2.0-OpenSSH_9.2",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nO",
            # urllib3 1 accepts an incomplete answer.
            "the server there is not" if BEFORE_2 else "the engine closed the connection: IncompleteRead: ",
        ),
        (answered(b"<html>hello</html>"), "the server there is not a container engine"),
        (answered(b'{"message": "no access"}', "403 Forbidden"), "no access"),
        (answered(b"", "502 Bad Gateway"), "Bad Gateway"),
    ],
)
def test_a_server_that_is_not_an_engine(answer: bytes, message: str) -> None:
    """The answers are sent over a real connection."""
    with listening(answer) as address:
        error = failure(f"tcp://{address}")
    assert type(error) is EngineError
    assert str(error).startswith(message)
    assert (
        error.hint == "use the port of a container engine; if it uses TLS, set cert_path= or DOCKER_CERT_PATH"
    )


def test_a_silent_server_times_out() -> None:
    """The timeout of the pool applies."""
    with listening(None) as address:
        began = time.monotonic()
        error = failure(f"tcp://{address}", timeout=0.05)
        assert str(error).startswith("the engine did not answer within 0.05 s; ")
        assert error.reason == "timeout"
        assert time.monotonic() - began < 30


def test_tls_to_a_port_without_it() -> None:
    """The message is OpenSSL's."""
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        error = failure(f"https://{address}")
    assert type(error) is DockerUnavailableError
    assert error.reason == "tls"
    assert "ssl" in str(error).lower()


def closed_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_an_endpoint_without_a_server(tmp_path: "Any") -> None:
    """This is a closed port, a missing socket, or a file that is not a socket."""
    network = "start the engine, or check its address and the firewall"
    local = "start the engine, or use another endpoint"
    port, file = closed_port(), tmp_path / "docker.sock"
    assert str(failure(f"tcp://127.0.0.1:{port}")) == f"connection refused; {network}"
    assert str(failure(f"unix://{file}")) == f"no such file or directory; {local}"
    file.touch()
    error = failure(f"unix://{file}")
    assert str(error) == f"connection refused; {local}"
    assert error.reason == "refused"


def test_the_path_of_a_socket_is_too_long(tmp_path: "Any") -> None:
    """The system's error has no number and does not mention the limit."""
    error = failure(f"unix://{tmp_path}/{'x' * 108}")
    assert type(error) is DockerUnavailableError
    assert re.fullmatch(
        r"the path of the socket is longer than the 10[37] bytes that the system allows; "
        "create a link with a shorter path, and use that",
        str(error),
    )


def test_the_error_lists_every_attempt(tmp_path: "Any") -> None:
    """
    Each line has the endpoint, its origin and the reason of the failure.

    The last error is the cause.
    """
    port = closed_port()
    places = [
        Endpoint(f"unix://{tmp_path}/x", "default socket"),
        Endpoint(f"tcp://127.0.0.1:{port}", "DOCKER_HOST"),
    ]
    with pytest.raises(DockerUnavailableError) as failure:
        find(places, 10)
    assert str(failure.value).splitlines() == [
        "cannot find a container engine; tried:",
        f"  unix://{tmp_path}/x (default socket): no such file or directory",
        f"  tcp://127.0.0.1:{port} (DOCKER_HOST): connection refused; start the engine, or check its address and the firewall",
        "start one, or set DOCKER_HOST to its address",
    ]
    assert failure.value.reason == "no-engine"
    assert isinstance(failure.value.__cause__, DockerUnavailableError)


@pytest.mark.parametrize(
    "client", ["unix:///x", 5, object(), docker], ids=lambda client: type(client).__name__
)
def test_a_client_of_another_type_is_rejected(client: Any) -> None:
    """The message names the expected type."""
    with pytest.raises(InvalidOptionError, match=r"^invalid client .*: expected a docker\.DockerClient"):
        adopt(client, 10)


def test_a_users_own_client_is_never_closed() -> None:
    """It belongs to the user."""
    client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{closed_port()}", version="1.41")
    engine = adopt(client, 10)
    assert engine.client is client
    assert engine.endpoint.is_local
    engine.close()
    with pytest.raises(requests.exceptions.ConnectionError):
        client.ping()
    client.close()


def test_an_answer_that_is_not_json_is_translated() -> None:
    """A proxy may send one."""
    with pytest.raises(EngineError, match="JSONDecodeError"), translate_errors(None, "inspect it"):
        json.loads("<html>")


def test_a_refused_connection_leaves_no_socket_open(tmp_path: Path) -> None:
    """
    An engine that has just ended refuses connections.

    The SDK leaves its socket to the garbage collector.
    """
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    gc.collect()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        refused = client(Endpoint(f"unix://{path}", "test"), 5, "1.41")
        with pytest.raises(requests.exceptions.ConnectionError):
            refused.api.version()
        refused.close()
        gc.collect()
    assert [str(warning.message) for warning in caught if warning.category is ResourceWarning] == []
