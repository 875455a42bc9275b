"""
The HTTP API of one container engine.

This module does not depend on how its callers use the answers.
"""

from __future__ import annotations

import json
import math
import os
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from operator import itemgetter
from typing import Any, Literal
from urllib.parse import quote

from dockertest import _clock
from dockertest._engine import sdk as _sdk
from dockertest._engine import ssh as _ssh
from dockertest._engine.endpoint import Attempt, Endpoint
from dockertest._engine.inspection import ENDED_STATUSES, Inspection
from dockertest._engine.sdk import translate_errors
from dockertest._interruption import interrupts_package
from dockertest._validation import Content
from dockertest.errors import ContainerCreateError, DockertestError, EngineError

RECHECK_SECONDS = 0.02
SHORTEST_WAIT_SECONDS = 0.05
_IMAGES_REQUESTS, _IMAGES_PAUSE_SECONDS = 10, 0.1

# What engines say when the same request succeeds a moment later.
_ENDING = (  # Podman, to an inspection of a container that is just ending or being removed
    "no such process",
    "no such container",
)
_BEING_REMOVED = "in progress"  # any engine, when another client removes the container at the same time
_PODMAN_VERSION = re.compile(r"Libpod/(\d+(?:\.\d+)*)")
_NETWORK_IS_GONE = "network not found"  # Podman 5, when the network was removed before its container


class EngineClient:
    """
    A connection to one engine.

    Attributes:
        endpoint: Its address.
        timeout: Seconds that it may be silent within one request.
        passed_over: The attempts to connect that failed before this one succeeded.
    """

    def __init__(
        self,
        client: _sdk.DockerClient,
        endpoint: Endpoint,
        timeout: float,
        *,
        owned: bool,
        connector: _ssh.SSHConnector | None = None,
        tls: ssl.SSLContext | None = None,
        passed_over: tuple[Attempt, ...] = (),
    ) -> None:
        self.endpoint = endpoint
        self.passed_over = passed_over
        self.timeout = timeout
        self._server = ""  # the name and version in its answers, such as "Libpod/5.8.6 (linux)"
        self._is_podman: bool | None = None
        self._info: Mapping[str, Any] | None = None
        self._client = client
        self._owned = owned
        self._connector = connector
        self._tls = tls
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def client(self) -> _sdk.DockerClient:
        """
        The docker SDK's client.

        A forked child gets a new client, since it must not use its parent's connections. A client that belongs to the user
        is not replaced.
        """
        if self._owned and self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    self._client = self._new_client()
                    self._pid = os.getpid()
        return self._client

    @property
    def is_podman(self) -> bool:
        """
        Whether the engine is Podman rather than Docker.

        If no earlier answer has shown this, the engine is asked for its version.
        """
        if self._is_podman is None:
            with suppress(EngineError):  # A proxy may refuse this request.
                self.send("get", "/version", what="ask for the version of the engine")
                self._is_podman = bool(self._is_podman)
        return bool(self._is_podman)

    @property
    def api_version(self) -> tuple[int, ...]:
        """The version of the API that is spoken with the engine, such as `(1, 51)`."""
        return parse_version(str(self.client.api.api_version))

    @property
    def podman_version(self) -> tuple[int, ...]:
        """The version of Podman, such as `(5, 8, 6)`; empty for another engine."""
        found = _PODMAN_VERSION.match(self._server) if self.is_podman else None
        return parse_version(found[1]) if found else ()

    @property
    def is_podman_4(self) -> bool:
        """Whether the engine is Podman 4 or older."""
        return () < self.podman_version < (5,)

    def info(self) -> Mapping[str, Any]:
        """
        Return the engine's description of itself (`/info`), requested only once.

        Podman takes 0.2 s to answer this request.
        """
        info = self._info
        if info is None:
            info = self._info = self.get("/info", what="get the engine's configuration")
        return info

    @property
    def is_rootless(self) -> bool:
        """Whether the engine runs without root."""
        info = self.info()
        # Docker lists it among the security options, and Podman has a field of its own for it.
        options = info.get("SecurityOptions") or ()
        return bool(info.get("Rootless")) or any("rootless" in option for option in options)

    def translate_errors(self, what: str, timeout: float | None = None) -> translate_errors:
        """
        Translate foreign errors in a `with` block that reads an answer of the engine.

        Args:
            what: What is done, for the message.
            timeout: Seconds that the engine may be silent, if that is not `self.timeout`.
        """
        return translate_errors(self.timeout if timeout is None else timeout, what, at=self.endpoint)

    @contextmanager
    def _lent_client(self, *, is_streamed: bool) -> Iterator[_sdk.DockerClient]:
        """
        Lend a client of the SDK for one request.

        A client that is created for this request stays open if it *is_streamed*, since the response is read afterwards.
        """
        if not (self._owned and interrupts_package()):
            yield self.client
            return
        # The interrupted code may hold a lock of the usual client.
        client = self._new_client()
        try:
            yield client
        finally:
            if not is_streamed:
                client.close()

    def _new_client(self) -> _sdk.DockerClient:
        connector = self._connector and self._connector.renewed()
        version = str(self._client.api.api_version)
        return _sdk.client(self.endpoint, self.timeout, version, connector=connector, tls=self._tls)

    def address(self) -> dict[str, Any] | None:
        """
        Return the connection details for another process; `None` if it cannot connect.

        The other process needs only the standard library. The keys are `url`, `api` (the version) and `headers`, which
        include the login and the cookies of a user's own client; with ssh `dial`, the command; with TLS `verify`, `ca`, `cert`
        and `key`. Headers are secret: pass them through a pipe, never in a command line, an environment variable or a log.
        """
        known = self._address()
        obstacle = known.pop("obstacle")
        return None if obstacle else known

    def address_obstacle(self) -> str:
        """Return why another process cannot connect as this one does; empty if it can."""
        return str(self._address()["obstacle"])

    def _address(self) -> dict[str, Any]:
        known = _sdk.address(self.client)
        if self._connector:
            return {**known, "url": self.endpoint.url, "dial": self._connector.argv, "obstacle": ""}
        if self._tls:  # the client itself has the certificates in memory
            files = zip(("ca", "cert", "key"), _sdk.certificate_files(self.endpoint), strict=True)
            known |= {name: file for name, file in files if file}
        return known

    def container(self, attrs: Mapping[str, Any]) -> _sdk.SdkContainer:
        """Return the docker SDK's container for an inspection, without another request."""
        return self.client.containers.prepare_model(dict(attrs))

    def network(self, attrs: Mapping[str, Any]) -> _sdk.SdkNetwork:
        """Return the docker SDK's network for an inspection, without another request."""
        return self.client.networks.prepare_model(dict(attrs))

    def send(
        self,
        method: Literal["get", "head", "post", "put", "delete"],
        path: str,
        *,
        what: str,
        params: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        timeout: float | None = None,
        extra_timeout: float = 0.0,
        error: type[DockertestError] = EngineError,
        parse: Callable[[Any], Any] | None = None,
    ) -> Any:
        """
        Send one request and return the response, or the result of *parse*.

        Without *parse*, the result is a `requests.Response`.

        Args:
            method: The HTTP method.
            path: The path without the API version.
            what: What is done, for the error: "inspect container 'pg'".
            params: The query.
            body: A dictionary, sent as JSON; else bytes, a binary file or an iterator of bytes.
            headers: Additional headers.
            stream: Leave the body of the response to the caller, which must close it.
            timeout: Seconds that the engine may be silent, if that is less than `self.timeout`.
            extra_timeout: Seconds that it may be silent on top, for a request that is meant to take that long.
            error: The class of the error for a refusal.
            parse: Called with the answer, read from JSON.

        Raises:
            DockertestError: *error* for a refusal; `EngineError` or `DockerUnavailableError` for a lost connection or a
                timeout. Errors of reading *body* pass unchanged.
        """
        limit = self._limit(timeout, extra_timeout)
        source = None
        content_type = ""
        if isinstance(body, dict):
            content_type, body = "application/json", Content(json.dumps(body).encode())
        elif body is not None and not isinstance(body, (str, bytes)):
            body = source = _Body(body)
        try:
            with self._lent_client(is_streamed=stream) as client:
                response, answer = _sdk.exchange(
                    client,
                    method,
                    path,
                    what=what,
                    error=error,
                    parse=parse,
                    at=self.endpoint,
                    timeout=limit,
                    params=params,
                    data=body,
                    headers=headers,
                    content_type=content_type,
                    stream=stream,
                )
            # Not every answer has this header: the one to an exec is a bare stream.
            if self._is_podman is None and (server := response.headers.get("Server", "")):
                self._server = server
                self._is_podman = server.startswith("Libpod")
            return answer if parse else response
        except DockertestError:
            if source and source.failure:
                raise source.failure from None
            raise

    def _limit(self, timeout: float | None, extra_timeout: float) -> float | None:
        limit = (self.timeout if timeout is None else min(timeout, self.timeout)) + extra_timeout
        return limit if math.isfinite(limit) else None

    def get(
        self,
        path: str,
        *,
        what: str,
        params: Mapping[str, object] | None = None,
        timeout: float | None = None,
        parse: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Send a GET request and return its JSON answer, passed through *parse* if set."""
        return self.send("get", path, what=what, params=params, timeout=timeout, parse=parse or _unchanged)

    def messages(self, response: Any, what: str, *, extra_timeout: float = 0.0) -> Iterator[dict[str, Any]]:
        """
        Yield the JSON messages of a streamed response as they arrive.

        *what* and *extra_timeout* are those of the request, for the error.
        """
        with self.translate_errors(what, self.timeout + extra_timeout), response:
            for line in response.iter_lines(chunk_size=65536):
                if line.strip():
                    yield json.loads(line)

    def inspect(self, container: str, *, timeout: float | None = None) -> Inspection:
        """
        Return what the engine reports about a container.

        Args:
            container: Its id or its name, which `quote_path` has made safe for a path.
            timeout: Seconds that the engine may be silent, if that is less than `self.timeout`.
        """
        path, what = f"/containers/{container}/json", f"inspect container {container[:12]}"
        try:
            inspection: Inspection = self.get(path, what=what, timeout=timeout, parse=Inspection.parse)
        except EngineError as error:
            if error.status == 404 or not any(words in str(error) for words in _ENDING):
                raise
            inspection = self.get(path, what=what, timeout=timeout, parse=Inspection.parse)
        return inspection

    def containers(
        self, labels: Iterable[str], *, timeout: float | None = None, status: str = ""
    ) -> list[dict[str, Any]]:
        """
        Return the containers that have all *labels* (`"key=value"`), running or not.

        Only one request is sent. If *status* is set, the containers in other states are left out.
        """
        filters: dict[str, list[str]] = {"label": list(labels)}
        if status:
            filters["status"] = [status]
        answer: list[dict[str, Any]] = self.get(
            "/containers/json",
            what="list containers",
            params={"all": "1", "filters": json.dumps(filters)},
            timeout=timeout,
        )
        return answer

    def list_networks(self, *, name: str = "", label: str = "") -> list[dict[str, Any]]:
        """Return the networks whose name contains *name*, or that have a label."""
        filters = {key: [value] for key, value in (("name", name), ("label", label)) if value}
        answer: list[dict[str, Any]] = self.get(
            "/networks", what="list networks", params={"filters": json.dumps(filters)}
        )
        return answer

    def list_volumes(self, label: str) -> list[dict[str, Any]]:
        """
        Return the volumes that have a label.

        The result is empty if a proxy in front of the engine does not allow this request.
        """
        try:
            answer = self.get(
                "/volumes", what="list volumes", params={"filters": json.dumps({"label": [label]})}
            )
        except EngineError as error:
            if error.status not in (403, 404, 405, 501):
                raise
            return []
        return list(answer.get("Volumes") or [])

    def list_images(self, label: str) -> list[dict[str, Any]]:
        """Return the images that have a label."""
        params = {"filters": json.dumps({"label": [label]})}
        answer: list[dict[str, Any]] = self.get_images("/images/json", what="list images", params=params)
        return answer

    def get_images(self, path: str, *, what: str, **options: Any) -> Any:
        """
        Do what `get` does for an answer about images.

        Podman answers with an error while another image is being removed, so it is asked up to ten times. A limit of time
        would mean only one or two requests to an engine under load, where removals last longer, too.
        """
        for _ in range(_IMAGES_REQUESTS - 1):
            try:
                return self.get(path, what=what, **options)
            except EngineError as error:
                if error.status != 500 or not self.is_podman:
                    raise
                _clock.sleep(_IMAGES_PAUSE_SECONDS)
        return self.get(path, what=what, **options)

    def create(self, body: dict[str, Any], *, name: str, platform: str) -> str:
        """
        Create a container and return its id.

        Raises:
            ContainerCreateError: The engine refused.
        """
        params = {key: value for key, value in (("name", name), ("platform", platform)) if value}
        what = (
            f"create container {name!r} of {body['Image']}"
            if name
            else f"create a container of {body['Image']}"
        )
        container = self.send(
            "post",
            "/containers/create",
            what=what,
            params=params,
            body=body,
            error=ContainerCreateError,
            parse=itemgetter("Id"),
        )
        return str(container)

    def connect_network(self, network: str, container: str, endpoint_config: Mapping[str, Any]) -> None:
        """Connect a container to a network, which is given by name or id."""
        self.send(
            "post",
            f"/networks/{quote_path(network)}/connect",
            what=f"connect container {container[:12]} to network {network!r}",
            body={"Container": container, "EndpointConfig": dict(endpoint_config)},
        )

    def remove(self, container: str) -> None:
        """
        Remove a container, running or not, with its anonymous volumes.

        It is not an error if the container does not exist.
        """
        what = f"remove container {container[:12]}"
        deadline = _clock.monotonic() + self.timeout
        if (
            self.is_podman
        ):  # from version 5 on, a removal waits for 10 s before it kills, without an option against that
            with suppress(EngineError):  # the container has exited, or does not exist
                self.send("post", f"/containers/{container}/kill", what=what)
        while True:
            try:
                self.send("delete", f"/containers/{container}", what=what, params={"force": 1, "v": 1})
            except EngineError as error:
                if error.status == 404:
                    return
                temporary = _BEING_REMOVED if error.status == 409 else _NETWORK_IS_GONE
                if temporary not in str(error) or _clock.monotonic() > deadline:
                    raise
                _clock.sleep(RECHECK_SECONDS)
            else:
                return

    def remove_unless_running(self, container: str) -> bool:
        """
        Remove a container, and its anonymous volumes, unless it is running.

        The engine decides, under its own lock of the container: a start that is in progress comes first.

        Returns:
            Whether the container is gone.
        """
        what = f"remove container {container[:12]}"
        try:
            self.send("delete", f"/containers/{container}", what=what, params={"v": 1})
        except EngineError as error:
            if error.status == 404:
                return True
            if error.status == 409 or self.inspect(container).status not in ENDED_STATUSES:
                return False
            raise
        return True

    def wait(self, container: str, seconds: float) -> int | None:
        """
        Wait until a container exits and return its exit code.

        The result is `None` if it has not exited after *seconds*.

        A container may take any time, but an engine may not: it is asked regularly whether it still answers.
        """
        what = f"wait for container {container[:12]}"
        deadline = _clock.monotonic() + seconds
        while True:
            outer = sys.exc_info()[1]
            extra_timeout = min(max(deadline - _clock.monotonic(), SHORTEST_WAIT_SECONDS), self.timeout)
            try:
                response = self.send(
                    "post", f"/containers/{container}/wait", what=what, timeout=0, extra_timeout=extra_timeout
                )
            except EngineError as error:
                if not is_read_timeout(error, outer):
                    raise
            else:
                with self.translate_errors(what):
                    return int(response.json()["StatusCode"])
            inspection = self.inspect(container)
            # A busy engine may not answer the other request in time, and Podman needs up to 0.25 s for it.
            if inspection.has_ended:
                return inspection.exit_code
            if _clock.monotonic() >= deadline:
                return None

    def close(self) -> None:
        """Close the connections, unless the client belongs to the user."""
        if self._owned and self._pid == os.getpid():
            with suppress(Exception):
                _sdk.close(self._client)


class _Body:
    """A request body, read while it is sent, and the error that reading it raised."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.failure: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        """
        Return an attribute of the source.

        For a file, requests asks for its descriptor, its length and its position.
        """
        value = getattr(self._source, name)
        return self._reading(value) if name == "read" else value

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._source
        except Exception as error:
            self.failure = error
            raise

    def _reading(self, read: Any) -> Any:
        def guarded(size: int = -1) -> Any:
            try:
                return read(size)
            except Exception as error:
                self.failure = error
                raise

        return guarded


def is_read_timeout(error: EngineError, outer: BaseException | None = None) -> bool:
    """
    Return whether a request failed because the engine was silent.

    *outer* is an exception that was already being handled before the request, so it is not a cause.
    """
    return error.status is None and _sdk.is_timeout(list(_sdk.error_chain(error, outer)))


def quote_path(name: str) -> str:
    """Quote a name for a path."""
    return quote(name, safe="")


def _unchanged(answer: Any) -> Any:
    return answer


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers in a version such as `1.51`."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
