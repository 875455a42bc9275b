"""
Connect to the first engine that answers and agree with it on an API version.

If no engine answers, the error states what to do.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from dockertest._engine import sdk as _sdk
from dockertest._engine import ssh as _ssh
from dockertest._engine.client import EngineClient, parse_version
from dockertest._engine.endpoint import Attempt, Endpoint
from dockertest._engine.sdk import translate_errors
from dockertest._settings import ENDPOINTS
from dockertest.errors import DockertestError, DockerUnavailableError, EngineError, InvalidOptionError

# The newest API version that this package knows: versions up to this one change nothing that it uses. Older engines are
# spoken to in theirs, down to the oldest that the docker SDK supports; newer ones in their oldest if they dropped this one.
# https://github.com/moby/moby/blob/master/api/docs/CHANGELOG.md
NEWEST_API = "1.55"
OLDEST_API = "1.24"

PROBE_SECONDS = 4.0  # for the connection and for each of the first answers
NETWORK_SECONDS = (
    0.5  # more than that for everything together over a network, the resolution of the name included
)
LOGIN_SECONDS = 15.0  # for the same over ssh, once a server talks to it
START_SECONDS = 60.0  # An engine that was started in this time may not answer yet, although it listens.
_SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107


def find(candidates: list[Endpoint], timeout: float) -> EngineClient:
    """
    Connect to the first of *candidates* that answers.

    Raises:
        DockerUnavailableError: None answers; the message lists each of them with the reason.
        EngineError: Something in this process prevents connections; its `reason` is `"blocked"` or `"files"`.
        InvalidOptionError: Certificates or the docker CLI's configuration cannot be used.
    """
    attempts: list[Attempt] = []
    cause: DockertestError | None = None
    for endpoint in candidates:
        try:
            return connect(endpoint, timeout, tuple(attempts))
        except InvalidOptionError:
            raise
        except DockertestError as error:
            if error.reason in _NOT_THE_ENGINE:
                raise
            # It is normal that a default location has no engine. The final error has one hint for all of them.
            hint = "" if endpoint.is_socket and error.reason == "refused" else error.hint
            attempts.append(
                Attempt(
                    endpoint=endpoint,
                    failure=_message(error),
                    hint=hint,
                    is_silent=error.reason == "timeout",
                )
            )
            cause = error
    if len(attempts) == 1 and cause:
        raise DockerUnavailableError(
            f"cannot connect to a container engine at {attempts[0].endpoint} ({attempts[0].endpoint.why}): "
            f"{attempts[0].failure}",
            hint=cause.hint,
            reason=cause.reason,
        ) from cause
    lines = "".join(f"\n  {attempt}" for attempt in attempts)
    raise DockerUnavailableError(
        f"cannot find a container engine; tried:{lines}",
        hint=f"start one of them, or change {ENDPOINTS}"
        if attempts and attempts[0].endpoint.why == ENDPOINTS
        else "start one, or set DOCKER_HOST to its address",
        reason="no-engine",
    ) from cause


# Reasons that are about this process: no other endpoint would do, and tests must fail rather than be skipped.
_NOT_THE_ENGINE = ("blocked", "files")


def connect(endpoint: Endpoint, timeout: float, passed_over: tuple[Attempt, ...] = ()) -> EngineClient:
    """
    Connect to the engine at *endpoint* and agree on the version of its API.

    Args:
        endpoint: Its address.
        timeout: Seconds that the engine may be silent within one request. For the first ones it is 4 at most, unless it
            is an engine on this machine that is just starting; over a network 4.5 for all of them, the resolution of
            the name included; over ssh 15.
        passed_over: The attempts that failed before.

    Raises:
        DockertestError: It does not answer, or not as an engine.
    """
    limit = min(timeout, PROBE_SECONDS)
    try:
        with translate_errors(limit, ""):
            if endpoint.url.startswith("ssh://"):
                return _connect_by_ssh(endpoint, timeout, limit, passed_over)
            path = _socket_path(endpoint.url)
            if path:
                probe_socket(path, limit)
            tls = _sdk.tls_context(endpoint)
            client = _sdk.client(endpoint, timeout, NEWEST_API, tls=tls)
            if endpoint.is_socket:
                ping_now(client, limit, patience=lambda: timeout if _is_starting(path) else 0.0)
            else:
                ping_in_time(client, limit)
            endpoint = replace(endpoint, has_only_ipv6=_sdk.has_only_ipv6(client))
    except DockertestError as error:
        if not error.hint and not isinstance(error, InvalidOptionError):
            error.hint = _hint(error, endpoint)
        raise
    return EngineClient(client, endpoint, timeout, owned=True, tls=tls, passed_over=passed_over)


def _connect_by_ssh(
    endpoint: Endpoint, timeout: float, limit: float, passed_over: tuple[Attempt, ...]
) -> EngineClient:
    connector = _ssh.SSHConnector(endpoint.url, limit)
    client = _sdk.client(endpoint, timeout, NEWEST_API, connector=connector)
    ping_now(client, min(timeout, LOGIN_SECONDS))
    endpoint = replace(endpoint, hostname=connector.hostname())
    return EngineClient(client, endpoint, timeout, owned=True, connector=connector, passed_over=passed_over)


def adopt(client: _sdk.DockerClient, timeout: float) -> EngineClient:
    """
    Use a user's own client, which stays theirs to close.

    Raises:
        InvalidOptionError: It is not a client of the docker SDK.
    """
    endpoint = _sdk.endpoint_of(client)
    made_here: Endpoint | None = getattr(client.api, "dockertest_endpoint", None)
    if made_here and made_here.speaks_tls:
        endpoint = replace(endpoint, cert_path=made_here.cert_path, verify=made_here.verify)
        return EngineClient(client, endpoint, timeout, owned=False, tls=_sdk.tls_context(endpoint))
    return EngineClient(client, endpoint, timeout, owned=False)


def probe_socket(path: str, timeout: float) -> None:
    """
    Raise an error immediately if nothing listens on a socket.

    Without this check, the SDK would take 0.2 s to import, and leave a socket open.
    """
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise DockerUnavailableError(
            f"the path of the socket is longer than the {_SOCKET_PATH_BYTES} bytes that the system allows",
            hint="create a link with a shorter path, and use that",
            reason="path",
        )

    def connect() -> None:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(timeout)
            probe.connect(path)

    _sdk.open_socket(connect)


def _socket_path(url: str) -> str:
    """Return the path in the URL of a unix socket; empty for another URL."""
    scheme, _, path = url.partition("://")
    return "/" + path.lstrip("/") if scheme == "unix" else ""


def _is_starting(path: str) -> bool:
    """
    Return whether the engine at a socket was started in the last minute.

    Until it answers, connections wait. systemd may listen for it, and starts it for the first connection. How a listener is
    recognized is described in `reaper.is_engine_behind`, whose file imports nothing of this package.
    """
    if not path or not hasattr(socket, "SO_PEERCRED"):
        return False
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PROBE_SECONDS)
            probe.connect(path)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        process: int = struct.unpack("3i", credentials)[0]
        if _program(process) == "systemd":
            process = _daemon(path)
            if not process:
                return True
        return _program(process) in ("dockerd", "podman") and 0 <= _age(process) < START_SECONDS
    except (OSError, ValueError):
        return False


def _daemon(path: str) -> int:
    """Return the id of the process that systemd has started; 0 if it is unknown."""
    if os.path.realpath(path) == "/run/docker.sock":
        with contextlib.suppress(OSError, ValueError):
            process = int(Path("/run/docker.pid").read_text(encoding="ascii"))
            return process if _program(process) == "dockerd" else 0
    return 0


def _program(process: int) -> str:
    return Path(f"/proc/{process}/comm").read_text(encoding="utf-8", errors="replace").strip()


def _age(process: int) -> float:
    """Return the seconds since a process was started."""
    stat = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    started = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return float(Path("/proc/uptime").read_text(encoding="ascii").split()[0]) - started


def ping_now(client: _sdk.DockerClient, timeout: float, patience: Callable[[], float] = lambda: 0.0) -> None:
    """
    Agree on an API version; the client is closed if that fails.

    Args:
        timeout: Seconds that the engine may be silent.
        patience: Called if it was silent for that long: the seconds for another attempt, 0 for none.
    """
    try:
        try:
            negotiate_api_version(client, timeout)
        except Exception as error:
            seconds = patience() if _sdk.is_timeout(list(_sdk.error_chain(error))) else 0.0
            if not seconds:
                raise
            with translate_errors(seconds, ""):
                negotiate_api_version(client, seconds)
    except BaseException:
        client.close()
        raise


def ping_in_time(client: _sdk.DockerClient, timeout: float) -> None:
    """
    Agree on an API version in a thread, and stop waiting for it after a limit.

    The limit is necessary because the resolution of a name has no timeout of its own. A thread that is left behind closes
    the client.
    """
    limit = timeout + NETWORK_SECONDS
    failure: list[BaseException] = []
    is_late = threading.Event()

    def ping() -> None:
        try:
            ping_now(client, timeout)
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            failure.append(error)
        if is_late.is_set():
            client.close()

    thread = threading.Thread(target=ping, name="dockertest-ping", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no thread can be started, as at the interpreter's exit; then nothing limits it
        ping_now(client, timeout)
        return
    try:
        thread.join(limit)
        if thread.is_alive():
            raise DockerUnavailableError(
                f"no answer within {limit:g} s, including the resolution of its name", reason="timeout"
            )
    except BaseException:
        is_late.set()
        client.close()  # the thread may just have missed that it was late
        raise
    if failure:
        raise failure[0]


def negotiate_api_version(client: _sdk.DockerClient, timeout: float) -> None:
    """
    Use the newest API version that both sides know.

    The engine's newest is in a header of its answer to a ping: the SDK's own `version="auto"` sends a request that takes
    some engines 0.4 s. The engine's oldest is only requested if its newest is newer than ours.
    """
    response = _sdk.request(client, "get", "/_ping", timeout=timeout, versioned=False)
    _sdk.raise_for_status(client, response)
    newest = response.headers.get("Api-Version", "")
    if not newest:
        raise EngineError("the server there is not a container engine", reason="not-an-engine")
    if parse_version(newest) < parse_version(OLDEST_API):
        raise EngineError(
            f"its API version {newest} is older than {OLDEST_API}, the oldest supported one",
            hint="update the engine",
            reason="too-old",
        )
    version = min(newest, NEWEST_API, key=parse_version)
    if parse_version(newest) > parse_version(NEWEST_API):
        response = _sdk.request(client, "get", "/version", timeout=timeout, versioned=False)
        # If a proxy does not allow this request, most likely the engine still supports our version.
        oldest = response.json().get("MinAPIVersion") if response.ok else ""
        version = max(NEWEST_API, oldest or "", key=parse_version)
    _sdk.use_api_version(client, version)


def _message(error: DockertestError) -> str:
    """Return an error's text without its hint."""
    return str(error.args[0])


def _hint(error: DockertestError, endpoint: Endpoint) -> str:
    """Return what to do about a failure to connect."""
    if endpoint.url.startswith("ssh:"):
        return f"this command has to work first: {_ssh.test_command(endpoint.url)}"
    hint = _HINTS.get(error.reason, _hint_not_an_engine)
    return hint if isinstance(hint, str) else hint(error, endpoint)


def _hint_refused(_error: DockertestError, endpoint: Endpoint) -> str:
    if endpoint.is_socket:
        return "start the engine, or use another endpoint"
    return _CHECK_NETWORK


def _hint_permission(_error: DockertestError, endpoint: Endpoint) -> str:
    if endpoint.is_socket:
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            return _ROOT_IS_DENIED
        return 'add this user to the group: sudo usermod -aG docker "$USER", then log in again; or run this as root'
    return _CHECK_NETWORK


def _hint_tls(error: DockertestError, endpoint: Endpoint) -> str:
    """Return what to do about a failed handshake, by OpenSSL's own codes."""
    folder = endpoint.cert_path or "cert_path"
    chain = _sdk.error_chain(error.__cause__) if error.__cause__ else iter(())
    for link in chain:
        if isinstance(link, ssl.SSLCertVerificationError):
            return _hint_certificate(link, endpoint)
        if type(link).__name__ == "CertificateError":  # urllib3 1 compares the names itself
            return _OTHER_NAME.format(endpoint.host)
        if isinstance(link, ssl.SSLError) and link.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE"):
            return "this port does not use TLS: remove the certificates, or use the port that does"
        if isinstance(link, ssl.SSLEOFError) or (
            isinstance(link, ssl.SSLError) and "ALERT" in str(link.reason)
        ):
            return _REJECTED.format(folder)
    return f"check ca.pem, cert.pem and key.pem in {folder}"


def _hint_certificate(error: ssl.SSLCertVerificationError, endpoint: Endpoint) -> str:
    if error.verify_code == _EXPIRED:
        return "renew the engine's certificate"
    if error.verify_code in _OTHER_HOST:
        return _OTHER_NAME.format(endpoint.host)
    if endpoint.cert_path:
        return f"replace {endpoint.cert_path}/ca.pem with the CA that signed it"
    return "set cert_path= or DOCKER_CERT_PATH to the folder with its CA"


def _hint_not_an_engine(_error: DockertestError, endpoint: Endpoint) -> str:
    """Return a hint about a listening peer that does not behave like an engine."""
    if endpoint.speaks_tls:
        return _REJECTED.format(endpoint.cert_path or "cert_path")
    if endpoint.is_socket:
        return "use the socket of a container engine"
    return "use the port of a container engine; if it uses TLS, set cert_path= or DOCKER_CERT_PATH"


def _hint_timeout(error: DockertestError, endpoint: Endpoint) -> str:
    if isinstance(error, DockerUnavailableError) and not endpoint.is_socket:
        return _CHECK_NETWORK
    return "restart the engine, or use another endpoint"


_ROOT_IS_DENIED = (
    "if this is a container, start it with --userns=host if the engine remaps users, or with --security-opt label=disable if "
    "SELinux denies it"
)
_CHECK_NETWORK = "start the engine, or check its address and the firewall"
_OTHER_NAME = "use the host name of the certificate in the endpoint, or issue a certificate for {}"
_REJECTED = "an engine that closes the connection does not accept the certificate in {}"
_HINTS: dict[str, str | Callable[[DockertestError, Endpoint], str]] = {
    "refused": _hint_refused,
    "permission": _hint_permission,
    "tls": _hint_tls,
    "timeout": _hint_timeout,
    "name": "check the host name, or the network",
    "network": _CHECK_NETWORK,
}
# OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH:
# https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
_EXPIRED = 10
_OTHER_HOST = (62, 64)
