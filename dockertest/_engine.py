"""
One container engine, through the docker SDK: the only module that imports it, and the border at which its errors,
and those of requests and urllib3, become ours.
"""

from __future__ import annotations

import json
import math
import os
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from dockertest._endpoint import Endpoint
from dockertest.errors import (
    ContainerCreateError,
    DockertestError,
    DockerUnavailableError,
    EngineError,
    InvalidOptionError,
)

if TYPE_CHECKING:  # the SDK takes 0.2 s to import: only what talks to an engine pays for it
    from docker import DockerClient as DockerClient
    from docker.models.containers import Container
    from docker.models.networks import Network

    SdkContainer = Container
    SdkNetwork = Network


# The newest API that the tests of this package have met. Older engines are spoken to in theirs.
NEWEST_API = "1.45"


class Engine:
    """
    A connection to one engine.

    Attributes:
        endpoint: Where it is.
        timeout: Seconds that it may be silent within one request.
    """

    def __init__(self, client: DockerClient, endpoint: Endpoint, timeout: float, *, owned: bool) -> None:
        self.endpoint = endpoint
        self.timeout = timeout
        self._client = client
        self._owned = owned
        self._is_podman = False  # until it has answered something
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def client(self) -> DockerClient:
        """The docker SDK's client; a new one in a forked child, which must not talk on its parent's sockets."""
        if self._owned and self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._client = _client(self.endpoint, self.timeout, self._client.api.api_version)
                    self._pid = os.getpid()
        return self._client

    def address(self) -> dict[str, str] | None:
        """Say how another process reaches the engine with the standard library; `None` if it cannot."""
        api: Any = self.client.api
        said = {"url": str(api.base_url), "api": str(api.api_version)}
        if said["url"].startswith("http+docker://"):
            path = getattr(getattr(api, "_custom_adapter", None), "socket_path", None)
            return {**said, "url": f"unix://{path}"} if path and not said["url"].endswith("npipe") else None
        if isinstance(api.verify, str):
            said["ca"] = api.verify
        if api.cert:
            said["cert"], said["key"] = api.cert
        return said

    def container(self, attrs: Mapping[str, Any]) -> SdkContainer:
        """Give what an inspection answered as the docker SDK's container, without asking again."""
        return self.client.containers.prepare_model(dict(attrs))

    def network(self, attrs: Mapping[str, Any]) -> SdkNetwork:
        """Give what an inspection answered as the docker SDK's network, without asking again."""
        return self.client.networks.prepare_model(dict(attrs))

    def send(
        self,
        method: Literal["get", "post", "put", "delete"],
        path: str,
        *,
        what: str,
        params: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        within: float | None = None,
        patience: float = 0.0,
        error: type[DockertestError] = EngineError,
    ) -> Any:
        """
        Send one request and give the engine's response, a `requests.Response`; a refusal is an error.

        The docker SDK's own methods drop parts of some answers and have no limit of time in others; its transport is
        sound.

        Args:
            method: The HTTP method.
            path: What is asked for, without the version of the API.
            what: What is being done, for the error: "inspect container 'pg'".
            params: The query.
            body: Sent as JSON, unless it is bytes or an iterator of them already.
            headers: More headers.
            stream: Leave the answer's body to be read by the caller, who has to close it.
            within: Seconds that the engine may be silent, where that is less than `timeout`.
            patience: Seconds that it may be silent on top, where the request itself is to take that long.
            error: The class of error for a refusal.
        """
        with border(self, what, error):
            api: Any = self.client.api
            sent = dict(headers or {})
            if isinstance(body, dict):
                sent["Content-Type"], body = "application/json", json.dumps(body)
            response = getattr(api, f"_{method}")(
                api._url(path),
                params=dict(params or {}),
                data=body,
                headers=sent,
                stream=stream,
                timeout=self._limit(within, patience),
            )
            self._is_podman = response.headers.get("Server", "").startswith("Libpod")
            api._raise_for_status(response)
            return response

    def _limit(self, within: float | None, patience: float) -> float | None:
        limit = (self.timeout if within is None else min(within, self.timeout)) + patience
        return limit if math.isfinite(limit) else None

    def get(
        self, path: str, *, what: str, params: Mapping[str, object] | None = None, within: float | None = None
    ) -> Any:
        """Ask for *path* and give the answer, read from JSON."""
        response = self.send("get", path, what=what, params=params, within=within)
        with border(self, what):
            return response.json()

    def messages(self, response: Any, what: str) -> Iterator[dict[str, Any]]:
        """Give the JSON messages of a streamed answer as they come."""
        with border(self, what), response:
            for line in response.iter_lines(chunk_size=65536):
                if line.strip():
                    yield json.loads(line)

    def inspect(self, container: str, *, within: float | None = None) -> dict[str, Any]:
        """Ask for all that is known of a container."""
        answer: dict[str, Any] = self.get(
            f"/containers/{container}/json", what=f"inspect container {container[:12]}", within=within
        )
        return answer

    def containers(
        self, labels: Iterable[str], *, within: float | None = None, status: str = ""
    ) -> list[dict[str, Any]]:
        """List the containers that have all of *labels* (`"key=value"`), running or not, in one request."""
        filters: dict[str, list[str]] = {"label": list(labels)}
        if status:
            filters["status"] = [status]
        answer: list[dict[str, Any]] = self.get(
            "/containers/json",
            what="list containers",
            params={"all": "1", "filters": json.dumps(filters)},
            within=within,
        )
        return answer

    def list_networks(self, *, name: str = "", label: str = "") -> list[dict[str, Any]]:
        """List networks whose name has *name* in it, or that have a label."""
        filters = {key: [value] for key, value in (("name", name), ("label", label)) if value}
        answer: list[dict[str, Any]] = self.get(
            "/networks", what="list networks", params={"filters": json.dumps(filters)}
        )
        return answer

    def create(self, body: dict[str, Any], *, name: str, platform: str) -> str:
        """
        Create a container and give its id.

        Raises:
            ContainerCreateError: The engine refused.
        """
        params = {key: value for key, value in (("name", name), ("platform", platform)) if value}
        what = (
            f"create container {name!r} of {body['Image']}"
            if name
            else f"create a container of {body['Image']}"
        )
        response = self.send(
            "post", "/containers/create", what=what, params=params, body=body, error=ContainerCreateError
        )
        with border(self, what):
            return str(response.json()["Id"])

    def connect_network(self, network: str, container: str, endpoint_config: Mapping[str, Any]) -> None:
        """Connect a container to a network, named or by id."""
        self.send(
            "post",
            f"/networks/{quoted(network)}/connect",
            what=f"connect container {container[:12]} to network {network!r}",
            body={"Container": container, "EndpointConfig": dict(endpoint_config)},
        )

    def remove(self, container: str) -> None:
        """Remove a container, running or not, and its anonymous volumes; one that is gone already is no error."""
        what = f"remove container {container[:12]}"
        deadline = time.monotonic() + self.timeout
        if self._is_podman:  # from 5 on it waits for 10 s before it kills, and has no parameter against it
            with suppress(EngineError):  # it has ended, or is gone
                self.send("post", f"/containers/{container}/kill", what=what)
        while True:
            try:
                self.send("delete", f"/containers/{container}", what=what, params={"force": 1, "v": 1})
            except EngineError as error:
                if error.status == 404:
                    return
                # Somebody else is removing it at this moment: it is not gone before they are done.
                if error.status != 409 or "in progress" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def wait(self, container: str, seconds: float) -> int | None:
        """Wait until a container ends and give its exit code; `None` if *seconds* pass first."""
        what = f"wait for container {container[:12]}"
        outer = sys.exc_info()[1]
        try:
            response = self.send(
                "post", f"/containers/{container}/wait", what=what, within=0, patience=seconds
            )
        except EngineError as error:
            if error.status is None and _timed_out(list(_chain(error, outer))):
                return None
            raise
        with border(self, what):
            return int(response.json()["StatusCode"])

    def close(self) -> None:
        """Close the connections, unless the client is the user's own."""
        if self._owned and self._pid == os.getpid():
            with suppress(Exception):
                self._client.close()


def quoted(name: str) -> str:
    """Make a name safe to stand in a path."""
    return quote(name, safe="")


def find(candidates: list[Endpoint], timeout: float) -> Engine:
    """
    Connect to the first of *candidates* that answers.

    Raises:
        DockerUnavailableError: None does; its text has each of them and why.
    """
    failures: list[DockertestError] = []
    for endpoint in candidates:
        try:
            return connect(endpoint, timeout)
        except DockertestError as error:
            failures.append(error)
    tried = "".join(f"\n  {each} ({each.why}): {why}" for each, why in zip(candidates, failures, strict=True))
    raise DockerUnavailableError(
        f"no container engine answers; start one, or say in DOCKER_HOST where it is; tried:{tried}"
    ) from failures[-1]


def connect(endpoint: Endpoint, timeout: float) -> Engine:
    """
    Connect to the engine at *endpoint* and agree on the version of its API.

    The version comes with the header of a ping: the SDK's own `version="auto"` asks for what takes some engines 0.4 s.
    """
    with border(None, ""):
        if endpoint.url.startswith("unix://"):
            _knock(endpoint.url.removeprefix("unix://"), timeout)
        client = _client(endpoint, timeout, NEWEST_API)
        api: Any = client.api
        response = api._get(api._url("/_ping", versioned_api=False), timeout=min(timeout, 5.0))
        api._raise_for_status(response)
        offered = response.headers.get("Api-Version", "")
    if not offered:
        client.close()
        raise EngineError("what answers there is no container engine")
    if _version(offered) < _version(NEWEST_API):
        client.close()
        with border(None, ""):
            client = _client(endpoint, timeout, offered)
    return Engine(client, endpoint, timeout, owned=True)


def shut(response: Any) -> None:
    """End a streamed answer from another thread: whoever reads it gets its end."""
    from docker.types.daemon import CancellableStream

    CancellableStream(iter(()), response).close()


def _knock(path: str, timeout: float) -> None:
    """Fail at once where nothing listens: the SDK would take 0.2 s to load first, and leave a socket open."""
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(min(timeout, 5.0))
        knocking.connect(path if path.startswith("/") else f"/{path}")


def adopt(client: DockerClient, timeout: float) -> Engine:
    """Use a client of the user's own, which is theirs to close."""
    url = str(getattr(getattr(client, "api", None), "base_url", ""))
    if not url:
        raise InvalidOptionError(f"client must be a docker.DockerClient: got {client!r}")
    local = url.startswith("http+docker://")
    return Engine(client, Endpoint("unix://" if local else url, "client="), timeout, owned=False)


def _client(endpoint: Endpoint, timeout: float, version: str) -> DockerClient:
    import docker

    tls: Any = endpoint.url.startswith("https://")
    if endpoint.cert_path:
        tls = docker.tls.TLSConfig(
            client_cert=(f"{endpoint.cert_path}/cert.pem", f"{endpoint.cert_path}/key.pem"),
            ca_cert=f"{endpoint.cert_path}/ca.pem",
            verify=True,
        )
    client: DockerClient = _sdk_client(base_url=endpoint.url, version=version, timeout=timeout, tls=tls)
    client.api.trust_env = (
        False  # no proxy and no CA bundle of the environment gets between us and the engine
    )
    return client


def _sdk_client(**given: Any) -> Any:
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
    from docker.utils.build import tar

    root: Any = os.fspath(folder)  # whose stubs want a path
    ignore = Path(root) / ".dockerignore"
    lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else []
    exclude = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    said: Any = process_dockerfile(dockerfile, root)
    with tempfile.TemporaryFile(prefix="dockertest-") as file:
        tar(root, exclude=exclude, dockerfile=said, fileobj=file)
        yield file, said[0]


def _version(written: str) -> tuple[int, ...]:
    return tuple(int(part) for part in written.split(".") if part.isdigit())


@contextmanager
def border(engine: Engine | None, what: str, error: type[DockertestError] = EngineError) -> Iterator[None]:
    """
    Let no foreign error out: what the docker SDK, requests, urllib3 or a socket raises becomes ours, with it as cause.

    Only calls to the engine stand within; a user's callback stands outside, since its errors are the user's.

    Args:
        what: What is being done, for the text: "remove container 'pg'".
        error: The class for what the engine refuses; silence and lost connections have their own.
    """
    outer = sys.exc_info()[1]  # what the caller is just handling has nothing to do with what goes wrong here
    try:
        yield
    except DockertestError:
        raise
    except Exception as foreign:
        raise translate(foreign, what, error, engine, outer) from foreign


def translate(
    foreign: Exception,
    what: str = "",
    error: type[DockertestError] = EngineError,
    engine: Engine | None = None,
    outer: BaseException | None = None,
) -> DockertestError:
    """Give our error for a foreign one that was raised while *outer* was being handled."""
    import docker.errors
    import requests.exceptions as http
    import urllib3.exceptions as wire

    failed = f"cannot {what}: " if what else ""
    chain = list(_chain(foreign, outer))
    if isinstance(foreign, docker.errors.APIError):
        return _answer(foreign, failed, error)
    if any(isinstance(each, (*_UNREACHED, ssl.SSLError)) for each in chain):
        return DockerUnavailableError(failed + _words(chain))
    if any(isinstance(each, (wire.ConnectTimeoutError, http.ConnectTimeout)) for each in chain):
        return DockerUnavailableError(failed + (_strerror(chain) or "no connection in time"))
    if _timed_out(chain):
        return EngineError(f"{failed}the engine did not answer within {engine.timeout if engine else 5:g} s")
    if any(isinstance(each, (ConnectionError, wire.ProtocolError)) for each in chain):
        return EngineError(f"{failed}the engine broke off the connection: {_words(chain)}")
    return EngineError(failed + _words(chain))


_UNREACHED = (ConnectionRefusedError, FileNotFoundError, PermissionError, socket.gaierror)


def _timed_out(chain: list[BaseException]) -> bool:
    """Whether silence is behind it."""
    return any(
        isinstance(each, TimeoutError) or type(each).__name__.startswith("ReadTimeout") for each in chain
    )


def _answer(foreign: Any, failed: str, error: type[DockertestError]) -> DockertestError:
    said = foreign.explanation or (foreign.response.reason if foreign.response is not None else str(foreign))
    text = f"{failed}{str(said).strip()}"
    return EngineError(text, status=foreign.status_code) if error is EngineError else error(text)


def _chain(foreign: BaseException, outer: BaseException | None = None) -> Iterator[BaseException]:
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
    return _strerror(chain) or (f"{type(last).__name__}: {last}" if str(last) else type(last).__name__)


def _strerror(chain: list[BaseException]) -> str:
    said = (
        each.strerror for each in chain if isinstance(each, OSError) and not isinstance(each, ssl.SSLError)
    )
    return next((words.lower() for words in said if words), "")
