"""The border: no error of the docker SDK, requests, urllib3 or a socket gets out, and what becomes of each."""

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
from dockertest._engine.sdk import border, translate

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

# What the classes are made of that one sentence does not make. A new class that wants more has its line here.
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
if BEFORE_2:  # which is the oldest that the docker SDK takes
    del PARTS["urllib3.exceptions.FullPoolError"], PARTS["urllib3.exceptions.NameResolutionError"]
NAME_ERROR = urllib3.exceptions.NewConnectionError if BEFORE_2 else urllib3.exceptions.NameResolutionError


def name_of(cls: "type[Exception]") -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def foreign_classes() -> "list[type[Exception]]":
    """Give every exception class of these modules, and what was derived from one within the same libraries."""
    todo = [
        each
        for module in MODULES
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, Exception)
    ]
    found: dict[str, type[Exception]] = {}
    while todo:
        cls = todo.pop()
        if found.setdefault(name_of(cls), cls) is cls:
            todo += [
                each
                for each in type.__subclasses__(cls)
                if each.__module__.split(".")[0] in FOREIGN and name_of(each) not in found
            ]
    return [found[name] for name in sorted(found)]


def make(cls: "type[Exception]") -> Exception:
    """Make an instance as the libraries would."""
    return cls(*PARTS.get(name_of(cls), ("it went wrong",)))


def crossed(foreign: Exception, error: "type[DockertestError]" = EngineError) -> DockertestError:
    """Give what comes out when *foreign* is raised at the border."""
    with pytest.raises(DockertestError) as caught, border(None, "inspect it", error):
        raise foreign
    return caught.value


every_class = pytest.mark.parametrize("cls", foreign_classes(), ids=name_of)


def test_the_walk_finds_the_classes() -> None:
    """All four libraries' are there, the standard library's as well."""
    names = {name_of(cls) for cls in foreign_classes()}
    assert len(names) > 80
    assert {
        "docker.errors.ImageNotFound", "docker.credentials.errors.StoreError", "requests.exceptions.ReadTimeout",
        "urllib3.exceptions.MaxRetryError", "http.client.RemoteDisconnected", "socket.gaierror", "ssl.SSLError",
    } <= names  # fmt: skip


def test_no_line_is_left_over() -> None:
    """What the table has parts for is among the classes."""
    assert set(PARTS) <= {name_of(cls) for cls in foreign_classes()}


@every_class
def test_every_foreign_error_becomes_ours(cls: "type[Exception]") -> None:
    """With what was being done in the text, the words of the foreign one, and itself as the cause; wrapped ones too."""
    wrapped = requests.exceptions.ConnectionError(urllib3.exceptions.MaxRetryError(POOL, "/info", make(cls)))
    for foreign in (make(cls), wrapped):
        ours = crossed(foreign)
        assert ours.__cause__ is foreign
        assert type(ours) in (EngineError, DockerUnavailableError)
        assert str(ours).startswith("cannot inspect it: ")
        assert str(ours) != "cannot inspect it: "
        assert isinstance(translate(foreign), DockertestError)
    # Silence and lost connections are no refusal of the engine's, whatever was asked of it.
    refused = issubclass(cls, docker.errors.APIError)
    assert isinstance(crossed(make(cls), ContainerCreateError), ContainerCreateError) == refused


def http_error(status: int, body: bytes, reason: str = "reason") -> docker.errors.APIError:
    """Give the SDK's error for an answer, made by the SDK of a real response."""
    response = requests.Response()
    response.status_code, response.reason, response.url = status, reason, "http+docker://localhost/x"
    response._content = body
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        try:
            docker.errors.create_api_error_from_http_exception(error)
        except docker.errors.APIError as made:
            return made
    pytest.fail("the SDK has no error for it")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (404, b'{"message": "No such container: pg"}', "No such container: pg"),
        (404, b'{"message": "No such image: pg:15"}', "No such image: pg:15"),
        (409, b'{"message": "name is in use\\n"}', "name is in use"),
        (500, b"it went wrong", "it went wrong"),
        (500, b'{"cause": "x", "message": "podman words", "response": 500}', "podman words"),
        (503, b"", "reason"),
    ],
)
def test_an_answer_is_told_in_the_engines_own_words(status: int, body: bytes, said: str) -> None:
    """With its status, where the error has one."""
    ours = crossed(http_error(status, body))
    assert str(ours) == f"cannot inspect it: {said}"
    assert isinstance(ours, EngineError)
    assert ours.status == status
    refused = crossed(http_error(status, body), ContainerCreateError)
    assert type(refused) is ContainerCreateError
    assert str(refused) == f"cannot inspect it: {said}"


def caused(error: Exception, cause: Exception) -> Exception:
    """Give *error* as if it had been raised from *cause*."""
    error.__cause__ = cause
    return error


def max_retry(reason: Exception) -> Exception:
    return requests.exceptions.ConnectionError(urllib3.exceptions.MaxRetryError(POOL, "/info", reason))


@pytest.mark.parametrize(
    ("foreign", "ours", "said"),
    [
        (
            max_retry(caused(urllib3.exceptions.NewConnectionError(CONNECTION, "x"), ConnectionRefusedError(111, "Connection refused"))),
            DockerUnavailableError,
            "connection refused",
        ),
        (
            max_retry(caused(urllib3.exceptions.NewConnectionError(CONNECTION, "x"), OSError(113, "No route to host"))),
            DockerUnavailableError,
            "no route to host",
        ),
        (
            max_retry(caused(make(NAME_ERROR), socket.gaierror(-2, "Name or service not known"))),
            DockerUnavailableError,
            "name or service not known",
        ),
        (
            requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", FileNotFoundError(2, "No such file or directory"))),
            DockerUnavailableError,
            "no such file or directory",
        ),
        (
            requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", PermissionError(13, "Permission denied"))),
            DockerUnavailableError,
            "permission denied",
        ),
        (requests.exceptions.SSLError(ssl.SSLError(1, "wrong version number")), DockerUnavailableError, "SSLError: wrong version number"),
        (max_retry(urllib3.exceptions.ConnectTimeoutError(CONNECTION, "x")), DockerUnavailableError, "no connection within 7 s"),
        (requests.exceptions.ConnectTimeout("x"), DockerUnavailableError, "no connection within 7 s"),
        (requests.exceptions.ReadTimeout("x"), EngineError, "the engine did not answer within 7 s"),
        (
            requests.exceptions.ConnectionError(urllib3.exceptions.ReadTimeoutError(POOL, "/wait", "x")),
            EngineError,
            "the engine did not answer within 7 s",
        ),
        (TimeoutError("timed out"), EngineError, "the engine did not answer within 7 s"),
        (
            requests.exceptions.ConnectionError(urllib3.exceptions.ProtocolError("Connection aborted.", ConnectionResetError(104, "Connection reset by peer"))),
            EngineError,
            "the engine broke off the connection: connection reset by peer",
        ),
        (
            requests.exceptions.ChunkedEncodingError(urllib3.exceptions.ProtocolError("Connection broken", http.client.IncompleteRead(b"x"))),
            EngineError,
            "the engine broke off the connection: IncompleteRead: ",
        ),
        (docker.errors.NullResource("Resource ID was not provided"), EngineError, "NullResource: Resource ID was not provided"),
        (KeyError("Id"), EngineError, "KeyError: 'Id'"),
        (RuntimeError(), EngineError, "RuntimeError"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_what_kind_of_error_it_becomes(foreign: Exception, ours: "type[DockertestError]", said: str) -> None:
    """Not reached, silent, broken off, or something else; in the system's own words where it has some."""
    found = translate(foreign, "do it", limit=7)
    assert type(found) is ours
    assert str(found).startswith(f"cannot do it: {said}")


@pytest.mark.parametrize("handled", [TimeoutError(110, "Timed out"), ConnectionRefusedError(111, "Refused")])
def test_what_the_caller_is_just_handling_is_not_the_reason(handled: Exception) -> None:
    """A container is often closed, or asked how it is, because a driver has just failed."""
    try:
        raise handled
    except OSError:
        assert (
            str(crossed(RuntimeError("something else"))) == "cannot inspect it: RuntimeError: something else"
        )
        reset = crossed(ConnectionResetError(104, "Reset by peer"))
        assert str(reset) == "cannot inspect it: the engine broke off the connection: reset by peer"


@pytest.mark.parametrize(
    "ours", [EngineError("x", status=404), InvalidOptionError("x"), DockerUnavailableError("x")]
)
def test_our_own_errors_cross_as_they_are(ours: DockertestError) -> None:
    """A border within a border tells the story once."""
    assert crossed(ours) is ours
    assert ours.__cause__ is None


@pytest.mark.parametrize("foreign", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_crosses_as_it_is(foreign: "type[BaseException]") -> None:
    """It is no error of the engine's."""
    with pytest.raises(foreign), border(None, "inspect it"):
        raise foreign


def test_errors_that_hold_each_other_end_somewhere() -> None:
    """A chain may be a circle."""
    first, second = RuntimeError("first"), RuntimeError("second")
    first.__cause__, second.__context__ = second, first
    assert isinstance(translate(first), EngineError)


@contextmanager
def listening(answer: "bytes | None") -> "Iterator[str]":
    """
    Listen on loopback, and answer whoever comes with these bytes: what is reached there is no engine.

    With `None` they are left to wait.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            held = []
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    break
                if answer is None:
                    held.append(connection)
                else:
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)
            for each in held:
                each.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def failure(url: str, timeout: float = 10) -> DockertestError:
    """Give what connecting there ends in."""
    with pytest.raises(DockertestError) as caught:
        connect(Endpoint(url, "a test"), timeout)
    return caught.value


def answered(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "the engine broke off the connection: RemoteDisconnected: "),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            "the engine broke off the connection: BadStatusLine: SSH-2.0-OpenSSH_9.2",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nO",
            # urllib3 1 takes half an answer for one.
            "what answers there is no"
            if BEFORE_2
            else "the engine broke off the connection: IncompleteRead: ",
        ),
        (answered(b"<html>hello</html>"), "what answers there is no container engine"),
        (answered(b'{"message": "no access"}', "403 Forbidden"), "no access"),
        (answered(b"", "502 Bad Gateway"), "Bad Gateway"),
    ],
)
def test_something_that_is_no_engine_is_told_as_such(answer: bytes, said: str) -> None:
    """Real answers over a real connection."""
    with listening(answer) as address:
        found = failure(f"tcp://{address}")
    assert type(found) is EngineError
    assert str(found).startswith(said)


def test_something_that_says_nothing_is_not_waited_for() -> None:
    """Longer than the time-out."""
    with listening(None) as address:
        began = time.monotonic()
        assert str(failure(f"tcp://{address}", timeout=0.05)) == "the engine did not answer within 0.05 s"
        assert time.monotonic() - began < 2


def test_tls_with_something_that_speaks_none() -> None:
    """The system's words are in it."""
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        found = failure(f"https://{address}")
    assert type(found) is DockerUnavailableError
    assert "ssl" in str(found).lower()


def closed_port() -> int:
    """Give a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def test_nobody_is_there(tmp_path: "Any") -> None:
    """A closed port, a socket that is missing, a file that is none."""
    assert str(failure(f"tcp://127.0.0.1:{closed_port()}")) == "connection refused"
    assert str(failure(f"unix://{tmp_path}/docker.sock")) == "no such file or directory"
    (tmp_path / "docker.sock").touch()
    assert str(failure(f"unix://{tmp_path}/docker.sock")) == "connection refused"


def test_all_that_was_tried_is_told(tmp_path: "Any") -> None:
    """Each endpoint, who named it and why it failed; the last one's error is the cause."""
    port = closed_port()
    tried = [
        Endpoint(f"unix://{tmp_path}/x", "the default socket"),
        Endpoint(f"tcp://127.0.0.1:{port}", "DOCKER_HOST"),
    ]
    with pytest.raises(DockerUnavailableError) as caught:
        find(tried, 10)
    remedy = "start the engine, or see whether its address is right and no firewall is in the way"
    assert str(caught.value).splitlines() == [
        "no container engine answers; start one, or say in DOCKER_HOST where it is; tried:",
        f"  unix://{tmp_path}/x (the default socket): no such file or directory",
        f"  tcp://127.0.0.1:{port} (DOCKER_HOST): connection refused; {remedy}",
    ]
    assert isinstance(caught.value.__cause__, DockerUnavailableError)


@pytest.mark.parametrize("client", ["unix:///x", 5, object(), docker], ids=lambda each: type(each).__name__)
def test_what_is_no_client_is_refused(client: Any) -> None:
    """The text says what is wanted."""
    with pytest.raises(InvalidOptionError, match=r"client must be a docker\.DockerClient: got "):
        adopt(client, 10)


def test_a_client_of_the_users_own_is_never_closed() -> None:
    """It is theirs, and so is where it is connected to."""
    client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{closed_port()}", version="1.41")
    engine = adopt(client, 10)
    assert engine.client is client
    assert engine.endpoint.is_local
    engine.close()
    with pytest.raises(requests.exceptions.ConnectionError):
        client.ping()
    client.close()


def test_json_is_asked_for_where_it_was_promised() -> None:
    """An answer that is none is an error of ours."""
    with pytest.raises(EngineError, match="JSONDecodeError"), border(None, "inspect it"):
        json.loads("<html>")
