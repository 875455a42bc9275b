"""Find the engine that answers, agree with it on the version of its API, and say what to do where none does."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import replace
from typing import Any

from dockertest._engine import sdk as _sdk
from dockertest._engine import ssh as _ssh
from dockertest._engine.client import Engine
from dockertest._engine.endpoint import Attempt, Endpoint
from dockertest._engine.sdk import border
from dockertest.errors import DockertestError, DockerUnavailableError, EngineError, InvalidOptionError

# The newest API that the tests of this package have met. Older engines are spoken to in theirs, down to the oldest that
# the docker SDK knows; so are newer ones that have forgotten this one.
NEWEST_API = "1.51"
OLDEST_API = "1.24"

PATIENCE = 4.0  # seconds that an engine may take to be connected to, and to say the first word
MORE = 0.5  # seconds that all of it together may take on top of that, over a network
LOGIN = 15.0  # the same over ssh, which keeps to PATIENCE itself until a server talks to it: logging in may take longer


def find(candidates: list[Endpoint], timeout: float) -> Engine:
    """
    Connect to the first of *candidates* that answers.

    Raises:
        DockerUnavailableError: None does; its text has each of them and why.
    """
    tried: list[Attempt] = []
    cause: DockertestError | None = None
    for endpoint in candidates:
        try:
            return connect(endpoint, timeout, tuple(tried))
        except DockertestError as error:
            tried.append(Attempt(endpoint=endpoint, failure=str(error), remedy=_remedy(error, endpoint)))
            cause = error
    if len(tried) == 1:
        remedy = "" if tried[0].remedy or "; " in tried[0].failure else "; start it, or name another engine"
        raise DockerUnavailableError(f"no container engine answers at {tried[0]}{remedy}") from cause
    lines = "".join(f"\n  {each}" for each in tried)
    raise DockerUnavailableError(
        f"no container engine answers; start one, or say in DOCKER_HOST where it is; tried:{lines}"
    ) from cause


def connect(endpoint: Endpoint, timeout: float, passed_over: tuple[Attempt, ...] = ()) -> Engine:
    """
    Connect to the engine at *endpoint* and agree on the version of its API.

    Args:
        timeout: Seconds that the engine may be silent within one request; within the first ones, 4 at most, and over a
            network no more than 4.5 for all of them, the name's resolution included; over ssh 15 at most.
        passed_over: What was tried before.

    Raises:
        DockertestError: It does not answer, or not as an engine.
    """
    patience = min(timeout, PATIENCE)
    dial = _ssh.Dial(endpoint.url, patience) if endpoint.url.startswith("ssh://") else None
    if dial:
        patience = min(timeout, LOGIN)
    with border(patience, ""):
        if endpoint.url.startswith("unix://"):
            _knock(endpoint.url.removeprefix("unix://"), patience)
        client = _sdk.client(endpoint, timeout, NEWEST_API, dial)
        if endpoint.is_socket or dial:
            _greet(client, patience)
        else:
            _greet_in_time(client, patience)
    if dial:
        endpoint = replace(endpoint, hostname=dial.hostname())
    return Engine(client, endpoint, timeout, owned=True, dial=dial, passed_over=passed_over)


def adopt(client: _sdk.DockerClient, timeout: float) -> Engine:
    """Use a client of the user's own, which is theirs to close."""
    api = getattr(client, "api", None)
    url = str(getattr(api, "base_url", ""))
    if not url:
        raise InvalidOptionError(f"client must be a docker.DockerClient: got {client!r}")
    adapter = getattr(api, "_custom_adapter", None)
    known_as = ""
    if url == "http+docker://ssh":
        url = f"ssh://{adapter.ssh_host.removeprefix('ssh://')}" if adapter else "ssh://"
        known_as = getattr(adapter, "ssh_params", {}).get("hostname", "")
    elif url == "http+docker://localnpipe":
        url = f"npipe://{getattr(adapter, 'npipe_path', '')}"
    elif url.startswith("http+docker://"):
        url = f"unix://{getattr(adapter, 'socket_path', '')}"
    return Engine(client, Endpoint(url, "client=", hostname=known_as), timeout, owned=False)


def _knock(path: str, patience: float) -> None:
    """Fail at once where nothing listens: the SDK would take 0.2 s to load first, and leave a socket open."""
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.settimeout(patience)
        knocking.connect(path if path.startswith("/") else f"/{path}")


def _greet(client: _sdk.DockerClient, patience: float) -> None:
    try:
        _agree(client.api, patience)
    except BaseException:
        client.close()
        raise


def _greet_in_time(client: _sdk.DockerClient, patience: float) -> None:
    """
    Leave it to a thread, which is not waited for without end: a resolver knows no limit, and each address has its own.

    A thread that was left behind closes the client.
    """
    limit = patience + MORE
    failure: list[BaseException] = []
    late = threading.Event()

    def greet() -> None:
        try:
            _greet(client, patience)
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            failure.append(error)
        if late.is_set():
            client.close()

    greeting = threading.Thread(target=greet, name="dockertest-greeting", daemon=True)
    try:
        greeting.start()
    except RuntimeError:  # no thread can be started, as while the interpreter ends: then nothing limits it
        _greet(client, patience)
        return
    try:
        greeting.join(limit)
        if greeting.is_alive():
            raise DockerUnavailableError(
                f"no answer within {limit:g} s, the resolution of its name included"
            ) from TimeoutError()
    except BaseException:
        late.set()
        client.close()  # the thread may just have seen that nobody was late
        raise
    if failure:
        raise failure[0]


def _agree(api: Any, patience: float) -> None:
    """
    Agree on the newest API that both know.

    The engine's comes in the header of a ping: the SDK's own `version="auto"` asks for what takes some engines 0.4 s.
    The oldest that an engine knows is asked for only where it may be newer than ours.
    """
    response = api._get(api._url("/_ping", versioned_api=False), timeout=patience)
    api._raise_for_status(response)
    offered = response.headers.get("Api-Version", "")
    if not offered:
        raise EngineError("what answers there is no container engine")
    if _version(offered) < _version(OLDEST_API):
        raise EngineError(
            f"the engine is too old: it speaks API {offered}, and {OLDEST_API} is the oldest that is spoken here; "
            "update the engine"
        )
    api._version = min(offered, NEWEST_API, key=_version)
    if _version(offered) > _version(NEWEST_API):
        response = api._get(api._url("/version", versioned_api=False), timeout=patience)
        # A proxy that keeps this from us is no obstacle: most likely the engine still speaks ours.
        oldest = response.json().get("MinAPIVersion") if response.ok else ""
        api._version = max(NEWEST_API, oldest or "", key=_version)


def _version(written: str) -> tuple[int, ...]:
    return tuple(int(part) for part in written.split(".") if part.isdigit())


def _remedy(error: DockertestError, endpoint: Endpoint) -> str:
    """Say what to do about a failure to connect; nothing where its text does already, or nobody knows."""
    reasons = list(_sdk.reasons(error.__cause__)) if error.__cause__ else []
    if endpoint.url.startswith("ssh:") and reasons:
        return f"it works as soon as this does: {_ssh.trial(endpoint.url)}"
    for each in reasons:
        if isinstance(each, ssl.SSLCertVerificationError):
            return _certificate_remedy(each, endpoint)
        if type(each).__name__ == "CertificateError":  # urllib3 1 compares the names itself
            return _OTHER_NAME.format(endpoint.host)
        if isinstance(each, ssl.SSLError) and each.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE"):
            return "no TLS is spoken there: leave out the certificates, or name the port that speaks it"
        if isinstance(each, ssl.SSLEOFError) or (
            isinstance(each, ssl.SSLError) and "ALERT" in str(each.reason)
        ):
            return _HANGS_UP.format(endpoint.cert_path or "cert_path")
        if isinstance(each, ssl.SSLError):
            return f"look at ca.pem, cert.pem and key.pem in {endpoint.cert_path or 'cert_path'}"
    if any(isinstance(each, PermissionError) for each in reasons) and endpoint.is_socket:
        return 'let this user in: sudo usermod -aG docker "$USER", then log in again, or run this as root'
    if isinstance(error, DockerUnavailableError) and not endpoint.is_socket and reasons:
        return "start the engine, or see whether its address is right and no firewall is in the way"
    return _talk_remedy(error, endpoint)


def _certificate_remedy(error: ssl.SSLCertVerificationError, endpoint: Endpoint) -> str:
    if error.verify_code == _EXPIRED:
        return "renew the engine's certificate"
    if error.verify_code in _OF_ANOTHER_NAME:
        return _OTHER_NAME.format(endpoint.host)
    if endpoint.cert_path:
        return f"the CA that signed it belongs into {endpoint.cert_path}/ca.pem"
    return "name the folder with its CA in cert_path= or DOCKER_CERT_PATH"


def _talk_remedy(error: DockertestError, endpoint: Endpoint) -> str:
    """Say what to do about something that was connected to, but does not talk as an engine does."""
    if isinstance(error, DockerUnavailableError) or "; " in str(error):
        return ""
    if "did not answer" in str(error):
        return "see whether the engine is well, or name another"
    if endpoint.speaks_tls:
        return _HANGS_UP.format(endpoint.cert_path or "cert_path")
    if endpoint.is_socket:
        return "name the socket of a container engine"
    return "name an engine's port, or if it speaks TLS give cert_path= or DOCKER_CERT_PATH"


_OTHER_NAME = "name the engine as its certificate does, or make one for {}"
_HANGS_UP = "an engine that hangs up does not know the certificate in {}"
# What OpenSSL calls them: X509_V_ERR_CERT_HAS_EXPIRED, …_HOSTNAME_MISMATCH and …_IP_ADDRESS_MISMATCH.
_EXPIRED = 10
_OF_ANOTHER_NAME = (62, 64)
