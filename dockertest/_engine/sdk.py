"""
The docker SDK and its transport.

This is the only module that imports docker, requests or urllib3.

Two things are concentrated here. One is every use of a private part of these libraries, each with its reason. The other is
the translation of their errors into those of `dockertest.errors`.
"""

from __future__ import annotations

import errno
import http.client
import logging
import os
import re
import socket
import ssl
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from dockertest import _clock
from dockertest._engine import streams
from dockertest._engine.endpoint import CERTIFICATE_FILES, Endpoint
from dockertest._interruption import is_of_handler
from dockertest.errors import DockertestError, DockerUnavailableError, EngineError, InvalidOptionError

if TYPE_CHECKING:  # importing the SDK takes 0.2 s, which only code that talks to an engine should pay for
    from docker import DockerClient as DockerClient
    from docker.models.containers import Container
    from docker.models.networks import Network

    SdkContainer = Container
    SdkNetwork = Network

MAX_IDLE = 64  # connections that are kept for later requests; urllib3 logs a warning for each further one
CONNECT_SECONDS = 4.0  # for a network connection, all addresses of a name together

T = TypeVar("T")
Connector = Callable[[float | None], socket.socket]


# --- Clients -------------------------------------------------------------------------------------------------------------


def client(
    endpoint: Endpoint,
    timeout: float,
    version: str,
    *,
    connector: Connector | None = None,
    tls: ssl.SSLContext | None = None,
) -> DockerClient:
    """
    Return a client of the docker SDK, which has contacted nothing yet.

    Args:
        endpoint: The address of the engine.
        timeout: Seconds that the engine may be silent within one request.
        version: The version of the engine's API to speak.
        connector: Returns a connection to an engine behind ssh://, given a timeout in seconds.
        tls: The certificates, from `tls_context`.

    Raises:
        InvalidOptionError: A header in the docker CLI's configuration is invalid.
    """
    url = "unix://ssh" if connector else endpoint.url
    sdk_client: DockerClient = _client(
        base_url=url, version=version, timeout=timeout, tls=tls is not None, max_pool_size=MAX_IDLE
    )
    # Neither a proxy nor a CA bundle of the environment belongs between this process and the engine.
    sdk_client.api.trust_env = False
    if connector:
        _use_connector(sdk_client.api, connector)
    elif endpoint.url.startswith("unix:"):
        _close_failed_sockets(sdk_client.api)
    elif not endpoint.is_socket:
        sdk_client.api.verify = endpoint.verify
        _use_own_connections(sdk_client.api, tls)
    # Its certificates are in memory, and another pool that is given this client needs their files, too.
    api: Any = sdk_client.api
    api.dockertest_endpoint = endpoint
    return sdk_client


def _client(**options: Any) -> Any:
    """
    Return the docker SDK's client.

    If the docker CLI's configuration is unusable, the client ignores that file.

    The constructor reads the file whether it is needed or not, fails on unexpected values, and has no argument against it:
    https://github.com/docker/docker-py/blob/7.1.0/docker/api/client.py#L121
    """
    import docker

    try:
        sdk_client: Any = docker.DockerClient(**options)
    except Exception:  # noqa: BLE001, S110 - if the configuration was not the cause, the same error is raised below
        pass
    else:
        headers = sdk_client.api._general_configs.get("HttpHeaders") or {}  # sent with every request
        if isinstance(headers, dict) and all(
            isinstance(part, str) for pair in headers.items() for part in pair
        ):
            _check_headers(headers)
            return sdk_client
    # This replaces the content of the file. It is not empty, or else the SDK would read the file once more.
    nothing = property(lambda _: {"auths": {"": {}}}, lambda _, _content: None)
    sdk_client = docker.DockerClient.__new__(docker.DockerClient)
    sdk_client.api = type("APIClient", (docker.APIClient,), {"_general_configs": nothing})(**options)
    return sdk_client


def _check_headers(headers: Mapping[str, str]) -> None:
    """
    Reject headers that cannot be sent.

    requests would show their values in its error, and they may be tokens.
    """
    from docker.utils.config import find_config_file

    for name, value in headers.items():
        if not _is_header(name) or not _is_header(value):
            raise InvalidOptionError(
                f"HttpHeaders in {find_config_file()!s}: the value of {name!r} is not valid in a header",
                hint="remove line breaks, control characters, and spaces at its beginning and end",
            )


def _is_header(text: str) -> bool:
    """Return whether *text* can be in an HTTP header: Latin-1, without line breaks."""
    return text.isprintable() and text == text.strip() and all(ord(letter) < 256 for letter in text)


def tls_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    """
    Return a context with an endpoint's certificates; `None` without TLS.

    The files are read once. The context does not need their folder afterwards.

    Raises:
        InvalidOptionError: A file cannot be read, or contains something else.
    """
    if not endpoint.speaks_tls:
        return None
    from importlib.metadata import version

    import requests.utils
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    # Certificates that are made by Docker's own manual do not state the purpose of the CA's key, which is strictly
    # required from Python 3.13 on: https://docs.docker.com/engine/security/protect-access/
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    # urllib3 1 compares the names itself. For a host that is an address, it does not pass the name on to Python.
    context.check_hostname = endpoint.verify and not version("urllib3").startswith("1.")
    if not endpoint.verify:
        context.verify_mode = ssl.CERT_NONE
    ca, cert, key = certificate_files(endpoint)
    if ca:
        _load(lambda: context.load_verify_locations(cadata=_pem(ca)), ca)
    else:
        context.load_verify_locations(requests.utils.DEFAULT_CA_BUNDLE_PATH)
    if cert and key:
        _load(lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_pem(cert)), cert)
        _pem(key)  # `load_cert_chain` would not say which of the two files it cannot read
        # Without a password it would ask for one on the terminal.
        _load(lambda: context.load_cert_chain(cert, key, password=""), key)
    return context


def certificate_files(endpoint: Endpoint) -> list[str]:
    """Return the paths of CA, certificate and key; empty for a missing file."""
    folder = Path(endpoint.cert_path) if endpoint.cert_path else None
    return [str(folder / name) if folder and (folder / name).is_file() else "" for name in CERTIFICATE_FILES]


def _pem(file: str) -> str:
    try:
        return Path(file).read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise InvalidOptionError(
            f"cannot read the certificate file {file}: {(error.strerror or '').lower()}",
            hint="make it readable for this user",
        ) from error


def _load(load: Callable[[], None], file: str) -> None:
    try:
        load()
    except ssl.SSLError as error:
        is_key = file.endswith("key.pem")
        other = "is encrypted, is not in PEM format or does not belong to the certificate" if is_key else ""
        raise InvalidOptionError(
            f"cannot use the certificate file {file}: it {other or 'is not in PEM format'}",
            hint="replace it with the file that was issued for this engine",
        ) from error


def _use_connector(api: Any, connector: Connector) -> None:
    """
    Make the docker SDK's socket transport take connections from *connector*.

    The SDK has no way to pass a transport, and its own for ssh:// loses output:
    https://github.com/docker/docker-py/issues/2806
    """
    from docker.transport import unixconn

    def connect(connection: Any) -> None:
        connection.sock = connector(connection.timeout)
        connection.sock.settimeout(connection.timeout)

    connection = type("SSHConnection", (unixconn.UnixHTTPConnection,), {"connect": connect})
    members = {"_new_conn": lambda pool: connection(pool.base_url, "", pool.timeout)}
    pool = type("SSHConnectionPool", (unixconn.UnixHTTPConnectionPool,), members)
    adapter = api._custom_adapter
    # One pool for all paths, since a new connection is expensive.
    adapter.pools["ssh"] = pool("http+docker://ssh", "", api.timeout, adapter.max_pool_size)
    adapter.get_connection = lambda _url, _proxies=None: adapter.pools["ssh"]


def _close_failed_sockets(api: Any) -> None:
    """
    Make the docker SDK close the socket of a failed connection.

    The SDK itself leaves that to the garbage collector:
    https://github.com/docker/docker-py/blob/7.1.0/docker/transport/unixconn.py#L26
    """
    from docker.transport import unixconn

    def connect(connection: Any) -> None:
        opened = socket.socket(socket.AF_UNIX)
        try:
            opened.settimeout(connection.timeout)
            opened.connect(connection.unix_socket)
        except BaseException:
            opened.close()
            raise
        connection.sock = opened

    members = {"connect": connect}
    connection_class: Any = type("EngineConnection", (unixconn.UnixHTTPConnection,), members)
    adapter = api._custom_adapter
    usual = adapter.get_connection

    def get_connection(url: str, proxies: object = None) -> Any:
        pool = usual(url, proxies)
        pool._new_conn = lambda: connection_class(pool.base_url, pool.socket_path, pool.timeout)
        return pool

    adapter.get_connection = get_connection


def _use_own_connections(api: Any, tls: ssl.SSLContext | None) -> None:
    """
    Make requests use *tls* and one connect limit for all addresses of a name.

    Both need the class of connections, which urllib3 lets a pool manager choose, but requests does not pass on:
    https://urllib3.readthedocs.io/en/stable/advanced-usage.html
    """
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.exceptions import SystemTimeWarning

    scheme = "http" if tls is None else "https"
    pool = HTTPConnectionPool if tls is None else HTTPSConnectionPool
    usual: Any = pool.ConnectionCls
    families: set[int] = set()
    api.dockertest_families = families
    members: dict[str, Any] = {"_new_conn": lambda connection: _new_connection(usual, connection, families)}

    def connect(connection: Any) -> None:
        connection.ssl_context = tls
        # The context has them all. requests would read the files with every connection.
        connection.ca_certs = connection.ca_cert_dir = connection.cert_file = connection.key_file = None
        if _clock.is_mocked():
            # urllib3 takes a date before 2025 for a wrong system clock. OpenSSL goes by the real one.
            warnings.filterwarnings("ignore", category=SystemTimeWarning)
        usual.connect(connection)

    if tls is not None:
        # urllib3 would warn with every request where the user asked not to verify the certificate.
        members |= {"connect": connect, "is_verified": property(lambda _: True, lambda _, _verified: None)}
    connections = type("EngineConnection", (usual,), members)
    own = type("EngineConnectionPool", (pool,), {"ConnectionCls": connections})
    manager = api.get_adapter(f"{scheme}://").poolmanager
    manager.pool_classes_by_scheme = {scheme: own}
    manager.connection_pool_kw["maxsize"] = MAX_IDLE  # The SDK sets it only for its own transports.


def has_only_ipv6(sdk_client: DockerClient) -> bool:
    """
    Return whether the host of a connected client has IPv6 addresses only.

    The result is `False` for a client that this package did not create.
    """
    return getattr(sdk_client.api, "dockertest_families", None) == {socket.AF_INET6}


def _new_connection(usual: Any, connection: Any, families: set[int]) -> socket.socket:
    """
    Connect to the first address of a name that accepts, with one limit for all.

    The families of its addresses are added to *families*.

    urllib3 allows the whole timeout for every address: https://github.com/urllib3/urllib3/issues/2515
    """
    name, timeout = connection._dns_host, connection.timeout
    try:
        addresses = socket.getaddrinfo(name.strip("[]"), connection.port, type=socket.SOCK_STREAM)
    except OSError:
        return cast(
            "socket.socket", usual._new_conn(connection)
        )  # fails in the same way, with urllib3's own error
    families.update(family for family, *_ in addresses)
    limit = min(timeout if isinstance(timeout, (int, float)) else CONNECT_SECONDS, CONNECT_SECONDS)
    deadline = _clock.monotonic() + limit
    failure: Exception | None = None
    try:
        for index, (*_, address) in enumerate(addresses):
            connection._dns_host = address[0]
            connection.timeout = max(0.05, (deadline - _clock.monotonic()) / (len(addresses) - index))
            try:
                opened: socket.socket = open_socket(partial(usual._new_conn, connection))
            except Exception as error:  # noqa: BLE001 - the last one is raised below
                failure = error
            else:
                opened.settimeout(timeout if isinstance(timeout, (int, float)) else None)
                streams.enable_keepalive(opened)
                return opened
    finally:
        connection._dns_host, connection.timeout = name, timeout
    failure = failure or OSError(f"no address for {name}")
    vars(failure)["connect_seconds"] = limit
    raise failure


def close(sdk_client: DockerClient) -> None:
    """
    Close a client's connections.

    Those in urllib3's pools are closed one by one: at the interpreter's exit its finalizers have run already, and would not
    close the connections that the last cleanup opens.
    """
    api: Any = sdk_client.api
    for adapter in api.adapters.values():
        pools = getattr(getattr(adapter, "poolmanager", None), "pools", {})
        for key in list(pools.keys()):
            pools[key].close()
    api.close()


# --- Requests ------------------------------------------------------------------------------------------------------------


def request(
    sdk_client: DockerClient,
    method: str,
    path: str,
    *,
    timeout: float | None,
    params: Mapping[str, object] | None = None,
    data: Any = None,
    headers: Mapping[str, str] | None = None,
    content_type: str = "",
    stream: bool = False,
    versioned: bool = True,
) -> Any:
    """
    Send one request and return the `requests.Response`, with any status.

    The SDK's public methods drop parts of some answers, and some of them have no timeout:
    https://github.com/docker/docker-py/issues/2617
    """
    api: Any = sdk_client.api

    def complete(prepared: Any) -> Any:
        # Added here since requests before 2.29 accepts only plain strings for `headers`, and secrets are more than that.
        prepared.headers.update(headers or {})
        prepared.prepare_auth(api.auth)  # that of a user's own client, which `auth=` would have replaced
        return prepared

    own = {"Content-Type": content_type} if content_type else {}
    # The SDK does not wrap this method alone, so that it lacks the configured headers.
    if method == "head":
        send, own = api.head, {**(api._general_configs.get("HttpHeaders") or {}), **own}
    else:
        send = getattr(api, f"_{method}")
    return send(
        api._url(path, versioned_api=versioned),
        params=dict(params or {}),
        data=data,
        headers=own,
        auth=complete if headers else None,
        stream=stream,
        timeout=timeout,
    )


def raise_for_status(sdk_client: DockerClient, response: Any) -> None:
    """Raise the docker SDK's error for a response whose status is one."""
    api: Any = sdk_client.api
    api._raise_for_status(response)


def exchange(
    sdk_client: DockerClient,
    method: str,
    path: str,
    *,
    what: str,
    error: type[DockertestError],
    parse: Callable[[Any], Any] | None,
    at: object,
    **options: Any,
) -> tuple[Any, Any]:
    """
    Send one request and return the response, with all errors translated.

    Args:
        what: What is done, for the error.
        error: The class of the error for a refusal.
        parse: Turns the answer, read from JSON, into the second value that is returned; `None` leaves it unread.
        at: The engine's address, for the error.
        options: Those of `request`.
    """
    with translate_errors(options["timeout"], what, error, at=at):
        response = request(sdk_client, method, path, **options)
        raise_for_status(sdk_client, response)
        return response, parse(response.json()) if parse else None


def header_of_refusal(error: EngineError, name: str) -> str:
    """Return a header of the answer that *error* is about; empty if there is none."""
    response = getattr(error.__cause__, "response", None)
    return "" if response is None else str(response.headers.get(name, ""))


def use_api_version(sdk_client: DockerClient, version: str) -> None:
    """
    Set the API version of a client.

    The docker SDK itself sets it only when a client is created.
    """
    api: Any = sdk_client.api
    api._version = version


@contextmanager
def suppress_request_log() -> Iterator[None]:
    """
    Keep this thread's requests out of urllib3's log.

    That log contains URLs, and some of them contain secrets.
    """
    here = threading.get_ident()

    def is_of_another_thread(_: logging.LogRecord) -> bool:
        return threading.get_ident() != here

    wire = logging.getLogger("urllib3.connectionpool")
    wire.addFilter(is_of_another_thread)
    try:
        yield
    finally:
        wire.removeFilter(is_of_another_thread)


def end_connection(connection: http.client.HTTPConnection) -> None:
    """
    End the request that is in progress on a connection.

    The engine and the sender see that the connection is lost.
    """
    with suppress(AttributeError, OSError):  # There is no socket, or it is closed.
        connection.sock.shutdown(socket.SHUT_RDWR)


def end_stream(response: Any) -> None:
    """
    End a streamed response from another thread or a signal handler.

    Its reader and the engine see the end.
    """
    from docker.types.daemon import CancellableStream

    connection = streams.connection(response)
    with suppress(OSError):  # It has been ended before.
        CancellableStream(iter(()), response).close()
        # A remote engine that cannot send more does not see the end before the buffer of this connection is empty.
        while isinstance(connection, socket.socket) and connection.recv(streams.CHUNK_BYTES):
            pass


# --- What a client knows -------------------------------------------------------------------------------------------------


def endpoint_of(sdk_client: object) -> Endpoint:
    """
    Return the endpoint of a user's own client.

    Raises:
        InvalidOptionError: It is not a client of the docker SDK.
    """
    api = getattr(sdk_client, "api", None)
    url = str(getattr(api, "base_url", ""))
    if not url:
        raise InvalidOptionError(f"invalid client {sdk_client!r}: expected a docker.DockerClient")
    adapter = getattr(api, "_custom_adapter", None)
    hostname = ""
    if url == "http+docker://ssh":
        url = f"ssh://{adapter.ssh_host.removeprefix('ssh://')}" if adapter else "ssh://"
        hostname = getattr(adapter, "ssh_params", {}).get("hostname", "")
    elif url == "http+docker://localnpipe":
        url = f"npipe://{getattr(adapter, 'npipe_path', '')}"
    elif url.startswith("http+docker://"):
        url = f"unix://{getattr(adapter, 'socket_path', '')}"
    return Endpoint(url, "client=", hostname=hostname)


def address(sdk_client: DockerClient) -> dict[str, Any]:
    """
    Return the details that another process needs to send the same requests.

    The other process needs only the standard library. The result has `url`, `api` and `headers`, with TLS also `verify`, `ca`,
    `cert` and `key`. If another process cannot send the same requests, `obstacle` is the reason. The headers may contain
    credentials: they must not appear in a command line, an environment or a log.
    """
    api: Any = sdk_client.api
    url = str(api.base_url)
    path = getattr(getattr(api, "_custom_adapter", None), "socket_path", None)
    known: dict[str, Any] = {"url": url, "api": str(api.api_version), "headers": {}, "obstacle": ""}
    if url.startswith("http+docker://"):
        if not path or url.endswith("npipe"):
            return {**known, "obstacle": "only the docker SDK can use its connection"}
        known["url"] = f"unix://{path}"
    elif problem := _transport_problem(api, url):
        return {**known, "obstacle": problem}
    else:
        known |= _tls_files(api, url)
    try:
        known["headers"] = _common_headers(api, url)
    except Exception as error:  # noqa: BLE001 - a user's own authentication may raise anything
        known["obstacle"] = f"its authentication fails outside of a request ({type(error).__name__})"
    if known["headers"] is None:
        known |= {"headers": {}, "obstacle": "its authentication differs from request to request"}
    if api.params:
        known["obstacle"] = "it adds parameters to every request"
    return known


def _transport_problem(api: Any, url: str) -> str:
    from requests.adapters import HTTPAdapter

    if type(api.get_adapter(url)) is not HTTPAdapter:
        return f"it has a transport adapter of its own ({type(api.get_adapter(url)).__name__})"
    if any(_settings(api, url)["proxies"].values()):
        return "it goes through an HTTP proxy"
    return ""


def _settings(api: Any, url: str) -> dict[str, Any]:
    """
    Return the proxies and certificates that requests uses for *url*.

    Those of the environment are included if the client uses them.
    """
    settings: dict[str, Any] = api.merge_environment_settings(url, {}, False, None, None)
    return settings


def _tls_files(api: Any, url: str) -> dict[str, Any]:
    """
    Return `verify` and the absolute paths of the certificates.

    The paths are absolute because the other process runs in another folder.
    """
    if not url.startswith("https:"):
        return {"verify": True}
    import requests.utils

    settings = _settings(api, url)
    verify, cert = settings["verify"], settings["cert"]
    files: dict[str, Any] = {"verify": bool(verify)}
    if verify:
        files["ca"] = _absolute(verify if isinstance(verify, str) else requests.utils.DEFAULT_CA_BUNDLE_PATH)
    if isinstance(cert, str):
        files["cert"] = files["key"] = _absolute(cert)
    elif cert:
        files["cert"], files["key"] = map(_absolute, cert)
    return files


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - does not follow links, which may be replaced later


# What belongs to one request, or to requests and its way of reading an answer.
_OWN_HEADERS = {"accept", "accept-encoding", "connection", "content-length", "content-type", "user-agent"}


def _common_headers(api: Any, url: str) -> dict[str, str] | None:
    """
    Return the headers of every request, with login and cookies.

    The result is `None` if they differ from request to request.
    """
    from requests import Request

    common = []
    for method, path in (("GET", "/_ping"), ("DELETE", "/containers/x")):
        prepared = api.prepare_request(
            Request(method, f"{url}{path}", headers=api._general_configs.get("HttpHeaders") or {})
        )
        if prepared.hooks != api.hooks:  # such as a login that waits for a challenge
            return None
        common.append(
            {name: str(value) for name, value in prepared.headers.items() if name.lower() not in _OWN_HEADERS}
        )
    return common[0] if common[0] == common[1] else None


# --- Errors --------------------------------------------------------------------------------------------------------------


class translate_errors:  # noqa: N801 - used as a function; a generator would leave a frame of contextlib in tracebacks
    """
    Replace errors of the docker SDK, requests, urllib3 and sockets by ours.

    The original error becomes the cause, unless its message contains the value of a header.

    Only calls to the engine belong into the block. A callback of the user does not, since its errors are the user's. An
    error with a file name is about a local file and passes unchanged, and so does what a signal handler raises.

    Args:
        limit: Seconds that the engine may be silent, for the message.
        what: What is done, for the message: "remove container 'pg'".
        error: The class for a refusal of the engine. Silence and lost connections have classes of their own.
        at: The engine's address, for the hint.
    """

    def __init__(
        self, limit: float | None, what: str, error: type[DockertestError] = EngineError, *, at: object = ""
    ) -> None:
        self._limit, self._what, self._error, self._at = limit, what, error, at

    def __enter__(self) -> None:
        # What the caller handles at this moment is not the reason for what fails in the block.
        self._outer = sys.exc_info()[1]

    def __exit__(self, _class: object, foreign: BaseException | None, _traceback: object) -> None:
        if not isinstance(foreign, Exception) or isinstance(foreign, DockertestError):
            return
        if local := _local_error(error_chain(foreign, self._outer)):
            if local is foreign:
                return
            raise local from None
        for link in error_chain(foreign, self._outer):
            # urllib3 replaces some errors, such as TimeoutError, and copies their traceback.
            is_replacement = type(link).__module__.partition(".")[0] in ("docker", "requests", "urllib3")
            if not is_replacement and is_of_handler(link):
                if link is foreign:
                    return
                raise link from None
        ours = translate(foreign, self._what, self._error, self._limit, self._outer, str(self._at))
        if ours.reason == "header":  # Its message contains the value of the header.
            raise ours from None
        raise ours from foreign


def _local_error(chain: Iterator[BaseException]) -> OSError | None:
    """
    Return the error about a local file that is behind an error.

    Errors about too many open files are ignored.
    """
    for error in chain:
        if isinstance(error, OSError) and error.filename is not None and error.errno not in _TOO_MANY_FILES:
            return error
    return None


def translate(
    foreign: Exception,
    what: str = "",
    error: type[DockertestError] = EngineError,
    limit: float | None = None,
    outer: BaseException | None = None,
    at: str = "",
) -> DockertestError:
    """Return our error for a foreign one that was raised while *outer* was handled."""
    failed = f"cannot {what}: " if what else ""
    answered_before = _ANSWERED_BEFORE.format(at or "it") if failed else ""
    chain = list(error_chain(foreign, outer))
    if trouble := _trouble_of_this_process(chain, failed):  # first, since it may have prevented an import
        return trouble
    import docker.errors
    import requests.exceptions as http
    import urllib3.exceptions as wire

    if isinstance(foreign, docker.errors.APIError):
        return _refusal(foreign, failed, error)
    if isinstance(foreign, http.InvalidHeader):
        return EngineError(
            f"{failed}a header of the client cannot be sent",
            hint="remove line breaks from it",
            reason="header",
        )
    for kinds, reason in _UNREACHABLE:
        if any(isinstance(link, kinds) for link in chain):
            return DockerUnavailableError(failed + _words(chain), hint=answered_before, reason=reason)
    if any(isinstance(link, (wire.ConnectTimeoutError, http.ConnectTimeout)) for link in chain):
        is_network = any(isinstance(link, OSError) and link.errno in _UNREACHABLE_NETWORK for link in chain)
        return DockerUnavailableError(
            failed + (_strerror(chain) or f"no connection {_within(_connect_limit(chain, limit))}"),
            hint=answered_before,
            reason="network" if is_network else "timeout",
        )
    if is_timeout(chain):
        return EngineError(
            f"{failed}the engine did not answer {_within(limit)}",
            hint=f"if {at or 'it'} is only slow, set timeout= of the pool" if failed else "",
            reason="timeout",
        )
    if any(isinstance(link, (ConnectionError, wire.ProtocolError)) for link in chain):
        return EngineError(
            f"{failed}the engine closed the connection: {_words(chain)}",
            hint=answered_before,
            reason="disconnected",
        )
    if any(type(link).__name__ == "IncompleteRead" for link in chain):  # of http.client or urllib3
        return EngineError(
            f"{failed}the engine closed the connection in the middle of its answer",
            hint=answered_before,
            reason="disconnected",
        )
    return EngineError(failed + _words(chain))


def _connect_limit(chain: list[BaseException], limit: float | None) -> float | None:
    """Return the connect limit in seconds, which may be less than *limit*."""
    limits = (vars(link)["connect_seconds"] for link in chain if "connect_seconds" in vars(link))
    return next(limits, limit)


def _within(limit: float | None) -> str:
    return "in time" if limit is None else f"within {limit:g} s"


_UNREACHABLE: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    ((ConnectionRefusedError, FileNotFoundError), "refused"),
    (PermissionError, "permission"),
    (socket.gaierror, "name"),
    (ssl.SSLError, "tls"),
)
# For errors after the connection has been checked; a failure to connect gets its own hint.
_ANSWERED_BEFORE = (
    "{} answered before, so it may have been stopped or restarted: check it with dockertest doctor"
)
_UNREACHABLE_NETWORK = (errno.EHOSTUNREACH, errno.ENETUNREACH)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
# Compared by name, since pytest-socket need not be installed: https://github.com/miketheman/pytest-socket
_BLOCKERS = ("SocketBlockedError", "SocketConnectBlockedError")
_ALLOW_SOCKETS = (
    "run pytest with --allow-unix-socket for an engine on a socket, with --allow-hosts for one at an address, or request the "
    "fixture socket_enabled"
)


def _trouble_of_this_process(chain: list[BaseException], failed: str) -> EngineError | None:
    """Return the error for a problem of this process rather than of the engine."""
    for link in chain:
        if isinstance(link, OSError) and link.errno in _TOO_MANY_FILES:
            whose = "this process has" if link.errno == errno.EMFILE else "this machine has"
            return EngineError(
                f"{failed}{whose} too many open files and sockets",
                hint=f"close some, or raise the limit{_file_limit()}",
                reason="files",
            )
        if type(link).__name__ in _BLOCKERS or vars(link).get("blocks_connections"):
            is_pytest_socket = "pytest_socket" in sys.modules
            return EngineError(
                f"{failed}{'pytest-socket' if is_pytest_socket else 'something'} blocks connections in this process: {link}",
                hint=_ALLOW_SOCKETS if is_pytest_socket else "allow connections to the engine",
                reason="blocked",
            )
    return None


def open_socket(connect: Callable[[], T]) -> T:
    """
    Call *connect*, and mark an error that is not the system's.

    Such an error means that something in this process blocks connections. The type that pytest-socket raises
    depends on its version and on Python's filter of warnings.
    """
    try:
        return connect()
    except OSError:
        raise
    except Exception as error:
        if type(error).__module__.split(".")[0] != "urllib3":  # which wraps errors of the system
            vars(error)["blocks_connections"] = True
        raise


def _file_limit() -> str:
    with suppress(ImportError, OSError, ValueError):
        import resource

        return f" (now {resource.getrlimit(resource.RLIMIT_NOFILE)[0]}, ulimit -n)"
    return ""


def is_timeout(chain: list[BaseException]) -> bool:
    """Return whether the engine's silence is behind an error."""
    return any(
        isinstance(link, TimeoutError) or type(link).__name__.startswith("ReadTimeout") for link in chain
    )


# From Docker 28.5 with Debian's patches on, when it copies files into or out of any place in the container.
_LINKED_MOUNT = re.compile(r"\bmkdirat .*: (path escapes from parent|file exists)")


def _refusal(foreign: Any, failed: str, error: type[DockertestError]) -> DockertestError:
    """Return the error for a status of 400 or more, in the engine's own words."""
    response, hint = foreign.response, ""
    words = foreign.explanation or (response.reason if response is not None else str(foreign))
    if response is not None and response.headers.get("Content-Type", "").startswith("text/html"):
        asked = f"{response.request.method} {urlsplit(response.url).path}"  # the query may contain secrets
        words = f"{response.status_code} {response.reason} and a web page, which is not an answer of a container engine"
        hint = f"if there is a proxy in front of the engine, allow {asked} in it"
    if _LINKED_MOUNT.search(str(words)):
        hint = (
            "this engine cannot copy files if a mount's target is behind a link (moby/moby#52653); mount it at the real path, "
            "such as /run/docker.sock"
        )
    if "user namespaces" in str(words):
        # The network mode "host", and privileged containers, need the users of the host.
        hint = (
            'this engine remaps users; start the container without that: host_config={"UsernsMode": "host"}'
        )
    text = f"{failed}{str(words).strip()}"
    if error is EngineError:
        return EngineError(text, status=foreign.status_code, hint=hint)
    return error(text, hint=hint)


def error_chain(foreign: BaseException, outer: BaseException | None = None) -> Iterator[BaseException]:
    """
    Yield an error and its causes.

    requests and urllib3 keep causes in `args`, in `reason` or as context.
    """
    todo, seen = [foreign], {id(outer)}
    while todo:
        link = todo.pop(0)
        if id(link) not in seen:
            seen.add(id(link))
            yield link
            context = None if link.__suppress_context__ else link.__context__
            linked = (link.__cause__, context, getattr(link, "reason", None), *link.args)
            todo.extend(cause for cause in linked if isinstance(cause, BaseException))


def _words(chain: list[BaseException]) -> str:
    """Return the system's own words for the cause of an error, if it has any."""
    last = chain[-1]
    text = " ".join(str(last).split())  # on one line
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            message = str(getattr(link, "verify_message", link)).lower().rstrip(".")
            return f"cannot verify its certificate: {message}"
    return _strerror(chain) or (f"{type(last).__name__}: {text}" if text else type(last).__name__)


def _strerror(chain: list[BaseException]) -> str:
    words = (
        link.strerror for link in chain if isinstance(link, OSError) and not isinstance(link, ssl.SSLError)
    )
    return next((text.lower() for text in words if text), "")
