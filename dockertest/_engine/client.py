"""One container engine: what it is asked, in its own terms. Knows nothing of what the answers are for."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal
from urllib.parse import quote

from dockertest._engine import sdk as _sdk
from dockertest._engine import ssh as _ssh
from dockertest._engine.endpoint import Attempt, Endpoint
from dockertest._engine.sdk import border
from dockertest.errors import ContainerCreateError, DockertestError, EngineError

_INSTANT = 0.05  # seconds: as long as something takes that need not be waited for


class Engine:
    """
    A connection to one engine.

    Attributes:
        endpoint: Where it is.
        timeout: Seconds that it may be silent within one request.
        is_podman: Whether it is Podman; known once it has answered something.
        passed_over: The endpoints that were tried before this one, and why they failed.
    """

    def __init__(
        self,
        client: _sdk.DockerClient,
        endpoint: Endpoint,
        timeout: float,
        *,
        owned: bool,
        dial: _ssh.Dial | None = None,
        passed_over: tuple[Attempt, ...] = (),
    ) -> None:
        self.endpoint = endpoint
        self.passed_over = passed_over
        self.timeout = timeout
        self._client = client
        self._owned = owned
        self.is_podman = False  # until it has answered something
        self._dial = dial
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def client(self) -> _sdk.DockerClient:
        """The docker SDK's client; a new one in a forked child, which must not talk on its parent's sockets."""
        if self._owned and self._pid != os.getpid():
            with self._lock:
                if self._pid != os.getpid():
                    version = self._client.api.api_version
                    self._dial = self._dial and self._dial.renewed()
                    self._client = _sdk.client(self.endpoint, self.timeout, version, self._dial)
                    self._pid = os.getpid()
        return self._client

    def address(self) -> dict[str, Any] | None:
        """Say how another process reaches the engine with the standard library; `None` if it cannot."""
        api: Any = self.client.api
        said: dict[str, Any] = {"url": str(api.base_url), "api": str(api.api_version)}
        said["headers"] = api._general_configs.get("HttpHeaders") or {}  # for a proxy before it
        if self._dial:
            return {**said, "url": self.endpoint.url, "dial": self._dial.argv}
        if said["url"].startswith("http+docker://"):
            path = getattr(getattr(api, "_custom_adapter", None), "socket_path", None)
            return {**said, "url": f"unix://{path}"} if path and not said["url"].endswith("npipe") else None
        if isinstance(api.verify, str):
            said["ca"] = os.path.abspath(api.verify)  # noqa: PTH100 - from where we are now, not from where it will be
        said["verify"] = bool(api.verify)
        if api.cert:
            said["cert"], said["key"] = map(os.path.abspath, api.cert)
        return said

    def container(self, attrs: Mapping[str, Any]) -> _sdk.SdkContainer:
        """Give what an inspection answered as the docker SDK's container, without asking again."""
        return self.client.containers.prepare_model(dict(attrs))

    def network(self, attrs: Mapping[str, Any]) -> _sdk.SdkNetwork:
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

        def complete(request: Any) -> Any:
            # Here, since requests before 2.29 takes nothing but plain text for `headers`, and those with a secret are more.
            request.headers.update(headers or {})
            request.prepare_auth(self.client.api.auth)  # a user's own client may have one
            return request

        limit = self._limit(within, patience)
        with border(limit, what, error):
            api: Any = self.client.api
            sent = {}
            if isinstance(body, dict):
                sent["Content-Type"], body = "application/json", json.dumps(body)
            response = getattr(api, f"_{method}")(
                api._url(path),
                params=dict(params or {}),
                data=body,
                headers=sent,
                auth=complete if headers else None,
                stream=stream,
                timeout=limit,
            )
            # Not every answer says so: the one to an exec is a bare stream.
            self.is_podman = self.is_podman or response.headers.get("Server", "").startswith("Libpod")
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
        with border(self.timeout, what):
            return response.json()

    def messages(self, response: Any, what: str) -> Iterator[dict[str, Any]]:
        """Give the JSON messages of a streamed answer as they come."""
        with border(self.timeout, what), response:
            for line in response.iter_lines(chunk_size=65536):
                if line.strip():
                    yield json.loads(line)

    def inspect(self, container: str, *, within: float | None = None) -> dict[str, Any]:
        """Ask for all that is known of a container."""
        path, what = f"/containers/{container}/json", f"inspect container {container[:12]}"
        try:
            answer: dict[str, Any] = self.get(path, what=what, within=within)
        except EngineError as error:
            # Podman 4 says this of a container that ends at this moment; its next answer tells the end.
            if "no such process" not in str(error):
                raise
            answer = self.get(path, what=what, within=within)
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
        with border(self.timeout, what):
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
        if self.is_podman:  # from 5 on it waits for 10 s before it kills, and has no parameter against it
            with suppress(EngineError):  # it has ended, or is gone
                self.send("post", f"/containers/{container}/kill", what=what)
        while True:
            try:
                self.send("delete", f"/containers/{container}", what=what, params={"force": 1, "v": 1})
            except EngineError as error:
                if error.status == 404:
                    return
                # Somebody else is removing it at this moment: it is not gone before they are done. And Podman 5 removes
                # one whose network is gone only when it is asked again.
                again = "in progress" if error.status == 409 else "network not found"
                if again not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def wait(self, container: str, seconds: float) -> int | None:
        """
        Wait until a container ends and give its exit code; `None` if *seconds* pass first.

        A container may take as long as it likes, but not the engine: now and then it is asked whether it is still there.
        """
        what = f"wait for container {container[:12]}"
        deadline = time.monotonic() + seconds
        while True:
            outer = sys.exc_info()[1]
            patience = min(max(deadline - time.monotonic(), _INSTANT), self.timeout)
            try:
                response = self.send(
                    "post", f"/containers/{container}/wait", what=what, within=0, patience=patience
                )
            except EngineError as error:
                if not was_silent(error, outer):
                    raise
            else:
                with border(self.timeout, what):
                    return int(response.json()["StatusCode"])
            if time.monotonic() >= deadline:
                return None
            self.inspect(container)

    def close(self) -> None:
        """Close the connections, unless the client is the user's own."""
        if self._owned and self._pid == os.getpid():
            with suppress(Exception):
                _sdk.close(self._client)


def was_silent(error: EngineError, outer: BaseException | None = None) -> bool:
    """Whether a request failed since nothing was said for too long; *outer* is what was being handled before."""
    return error.status is None and _sdk.timed_out(list(_sdk.reasons(error, outer)))


def quoted(name: str) -> str:
    """Make a name safe to stand in a path."""
    return quote(name, safe="")
