"""The docker SDK, which no other module imports, and the border at which its errors and its transport's become ours."""

from __future__ import annotations

import logging
import os
import posixpath
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dockertest._engine.endpoint import Endpoint
from dockertest._images import build_context as _dockerfile
from dockertest.errors import DockertestError, DockerUnavailableError, EngineError, ImageBuildError

if TYPE_CHECKING:  # the SDK takes 0.2 s to import: only what talks to an engine pays for it
    from docker import DockerClient as DockerClient
    from docker.models.containers import Container
    from docker.models.networks import Network

    SdkContainer = Container
    SdkNetwork = Network


def client(
    endpoint: Endpoint,
    timeout: float,
    version: str,
    dial: Callable[[float | None], socket.socket] | None = None,
) -> DockerClient:
    """
    Make the docker SDK's client; that contacts nothing.

    Args:
        timeout: Seconds that the engine may be silent within one request.
        version: The engine's API to speak.
        dial: Makes a connection to an engine behind ssh://, within so many seconds.
    """
    url = "unix://ssh" if dial else endpoint.url
    made: DockerClient = _client(base_url=url, version=version, timeout=timeout, tls=_tls(endpoint))
    made.api.trust_env = False  # no proxy and no CA bundle of the environment gets between us and the engine
    if dial:
        _dial(made.api, dial)
    if endpoint.speaks_tls:
        _verify_as_docker_does(made.api)
    return made


def _tls(endpoint: Endpoint) -> Any:
    """Give the docker SDK's configuration, of those of the three files that are there."""
    if not endpoint.speaks_tls:
        return False
    import docker

    ca, cert, key = (
        str(path) if endpoint.cert_path and path.is_file() else ""
        for path in (Path(endpoint.cert_path) / name for name in ("ca.pem", "cert.pem", "key.pem"))
    )
    pair: Any = (cert, key) if cert and key else None
    return docker.tls.TLSConfig(client_cert=pair, ca_cert=ca or None, verify=endpoint.verify)


def _dial(api: Any, dial: Callable[[float | None], socket.socket]) -> None:
    """Have the docker SDK's transport for sockets get each of them from *dial*."""
    from docker.transport import unixconn

    def connect(connection: Any) -> None:
        connection.sock = dial(connection.timeout)
        connection.sock.settimeout(connection.timeout)

    one = type("Dialled", (unixconn.UnixHTTPConnection,), {"connect": connect})
    made = {"_new_conn": lambda pool: one(pool.base_url, "", pool.timeout)}
    many = type("DialledPool", (unixconn.UnixHTTPConnectionPool,), made)
    adapter = api._custom_adapter
    # One for all paths: a new connection is dear.
    adapter.pools["ssh"] = many("http+docker://ssh", "", api.timeout, adapter.max_pool_size)
    adapter.get_connection = lambda _url, _proxies=None: adapter.pools["ssh"]


def _verify_as_docker_does(api: Any) -> None:
    """
    Take a CA that does not say what its key is for, as one by Docker's own manual, and do not warn where none counts.

    From Python 3.13 on, urllib3 would refuse the first; and it would warn with every request.
    """
    from urllib3.connectionpool import HTTPSConnectionPool
    from urllib3.util.ssl_ import create_urllib3_context, resolve_cert_reqs

    usual = HTTPSConnectionPool.ConnectionCls

    def connect(connection: Any) -> None:
        if connection.ssl_context is None:  # else it is requests' own, which has the public CAs
            connection.ssl_context = create_urllib3_context(cert_reqs=resolve_cert_reqs(connection.cert_reqs))
            connection.ssl_context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        usual.connect(connection)

    changed = {"connect": connect, "is_verified": property(lambda _: True, lambda _, _verified: None)}
    pool = type("Pool", (HTTPSConnectionPool,), {"ConnectionCls": type("Connection", (usual,), changed)})
    api.get_adapter("https://").poolmanager.pool_classes_by_scheme = {"https": pool}


def _client(**given: Any) -> Any:
    """
    Make the docker SDK's client; where the docker CLI's configuration is broken, one that leaves it alone.

    Its constructor reads that file whether it is needed or not, fails on it, and has no argument against it.
    """
    import docker

    try:
        client: Any = docker.DockerClient(**given)
        headers = client.api._general_configs.get("HttpHeaders") or {}  # these go with every request
        if all(isinstance(each, str) for each in (*headers.keys(), *headers.values())):
            return client
    except Exception:  # noqa: BLE001, S110 - if it was not the configuration, the same comes again below
        pass
    # What it takes for the file instead: not empty, since then it would read the file once more.
    nothing = property(lambda _: {"auths": {"": {}}}, lambda _, _read: None)
    client = docker.DockerClient.__new__(docker.DockerClient)
    client.api = type("APIClient", (docker.APIClient,), {"_general_configs": nothing})(**given)
    return client


@contextmanager
def build_context(folder: str | os.PathLike[str], dockerfile: str) -> Iterator[tuple[IO[bytes], str]]:
    """
    Give the build context as a tar file, and the Dockerfile's name in it; what `.dockerignore` names is left out.

    It is kept in a temporary file, which is gone with the block.
    """
    from docker.api.build import process_dockerfile
    from docker.utils.build import create_archive

    root = Path(folder).absolute()
    with tempfile.TemporaryFile(prefix="dockertest-") as file:
        with border(None, f"pack the build context {str(root)!r}", ImageBuildError):
            lines = _dockerfile.lines(root)
            named: Any = process_dockerfile(dockerfile, os.fspath(root))
            name, content = named
            extra = []
            # The engine takes it from the context as if it were there, and then leaves it out.
            if content is not None:
                ignored = "\n".join([*(lines or [_dockerfile.IGNORE]), name])
                extra = [(_dockerfile.IGNORE, ignored.encode(errors="replace").decode()), named]
            always = {_dockerfile.IGNORE, posixpath.normpath(Path(name).as_posix())}
            files = list(_dockerfile.included(root, _dockerfile.rules(lines), always))
            create_archive(os.fspath(root), files, file, extra_files=extra)
        yield file, name


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep this thread's requests out of urllib3's log: it has their URLs, in which the engine wants some secrets."""
    here = threading.get_ident()

    def others(_: logging.LogRecord) -> bool:
        return threading.get_ident() != here

    wire = logging.getLogger("urllib3.connectionpool")
    wire.addFilter(others)
    try:
        yield
    finally:
        wire.removeFilter(others)


def shut(response: Any) -> None:
    """End a streamed answer from another thread: whoever reads it gets its end."""
    from docker.types.daemon import CancellableStream

    CancellableStream(iter(()), response).close()


def close(client: DockerClient) -> None:
    """
    Close a client's connections.

    Those in urllib3's pools one by one: at the interpreter's end its own finalizers have run already, and what is then
    opened for the last clean-up they do not close.
    """
    api: Any = client.api
    for adapter in api.adapters.values():
        pools = getattr(getattr(adapter, "poolmanager", None), "pools", {})
        for key in list(pools.keys()):
            pools[key].close()
    api.close()


@contextmanager
def border(limit: float | None, what: str, error: type[DockertestError] = EngineError) -> Iterator[None]:
    """
    Let no foreign error out: what the docker SDK, requests, urllib3 or a socket raises becomes ours, with it as cause.

    Only calls to the engine stand within; a user's callback stands outside, since its errors are the user's.

    Args:
        limit: Seconds that the engine may be silent, for the text.
        what: What is being done, for the text: "remove container 'pg'".
        error: The class for what the engine refuses; silence and lost connections have their own.
    """
    outer = sys.exc_info()[1]  # what the caller is just handling has nothing to do with what goes wrong here
    try:
        yield
    except DockertestError:
        raise
    except Exception as foreign:
        raise translate(foreign, what, error, limit, outer) from foreign


def translate(
    foreign: Exception,
    what: str = "",
    error: type[DockertestError] = EngineError,
    limit: float | None = None,
    outer: BaseException | None = None,
) -> DockertestError:
    """Give our error for a foreign one that was raised while *outer* was being handled."""
    import docker.errors
    import requests.exceptions as http
    import urllib3.exceptions as wire

    failed = f"cannot {what}: " if what else ""
    chain = list(reasons(foreign, outer))
    if isinstance(foreign, docker.errors.APIError):
        return _answer(foreign, failed, error)
    if any(isinstance(each, (*_UNREACHED, ssl.SSLError)) for each in chain):
        return DockerUnavailableError(failed + _words(chain))
    if any(isinstance(each, (wire.ConnectTimeoutError, http.ConnectTimeout)) for each in chain):
        return DockerUnavailableError(failed + (_strerror(chain) or f"no connection {_within(limit)}"))
    if timed_out(chain):
        return EngineError(f"{failed}the engine did not answer {_within(limit)}")
    if any(isinstance(each, (ConnectionError, wire.ProtocolError)) for each in chain):
        return EngineError(f"{failed}the engine broke off the connection: {_words(chain)}")
    return EngineError(failed + _words(chain))


def _within(limit: float | None) -> str:
    return "in time" if limit is None else f"within {limit:g} s"


_UNREACHED = (ConnectionRefusedError, FileNotFoundError, PermissionError, socket.gaierror)


def timed_out(chain: list[BaseException]) -> bool:
    """Whether silence is behind it."""
    return any(
        isinstance(each, TimeoutError) or type(each).__name__.startswith("ReadTimeout") for each in chain
    )


def _answer(foreign: Any, failed: str, error: type[DockertestError]) -> DockertestError:
    answered = foreign.response
    said = foreign.explanation or (answered.reason if answered is not None else str(foreign))
    if answered is not None and answered.headers.get("Content-Type", "").startswith("text/html"):
        asked = f"{answered.request.method} {urlsplit(answered.url).path}"  # the query may have secrets
        said = (
            f"{answered.status_code} {answered.reason} and a web page, which is no engine's answer; if a proxy stands "
            f"before the engine, have it let {asked} pass"
        )
    text = f"{failed}{str(said).strip()}"
    return EngineError(text, status=foreign.status_code) if error is EngineError else error(text)


def reasons(foreign: BaseException, outer: BaseException | None = None) -> Iterator[BaseException]:
    """Give an error and what it was made from: requests and urllib3 keep the reason in `args`, in `reason` or as context."""
    todo, seen = [foreign], {id(outer)}
    while todo:
        each = todo.pop(0)
        if id(each) not in seen:
            seen.add(id(each))
            yield each
            context = None if each.__suppress_context__ else each.__context__
            linked = (each.__cause__, context, getattr(each, "reason", None), *each.args)
            todo.extend(link for link in linked if isinstance(link, BaseException))


def _words(chain: list[BaseException]) -> str:
    """Say in the system's own words what is behind it all, where the system said something."""
    last = chain[-1]
    text = " ".join(str(last).split())  # in one line, whatever it is
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate cannot be verified: {str(getattr(each, 'verify_message', each)).lower().rstrip('.')}"
    return _strerror(chain) or (f"{type(last).__name__}: {text}" if text else type(last).__name__)


def _strerror(chain: list[BaseException]) -> str:
    said = (
        each.strerror for each in chain if isinstance(each, OSError) and not isinstance(each, ssl.SSLError)
    )
    return next((words.lower() for words in said if words), "")
