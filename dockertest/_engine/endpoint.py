"""
Choose the engine's endpoint from arguments, environment variables and files.

No endpoint is contacted. An endpoint that the user named is never replaced by another one. The usual places are tried
only if none is named.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from dockertest import _settings, _validation
from dockertest._engine import contexts as _contexts
from dockertest.errors import InvalidOptionError

SCHEMES = ("unix", "tcp", "http", "https", "ssh", "npipe")
CERTIFICATE_FILES = ("ca.pem", "cert.pem", "key.pem")
_SOCKETS = ("unix:", "npipe:")
_TLS = ("tcp:", "https:")
_FOUND_BY_CLI = ("default ", "DOCKER_HOST", "docker context ")  # how `Endpoint.why` begins
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f]|\s\Z")
_PASSWORD = re.compile(r":.*@", re.DOTALL)
_FEW_SLASHES = re.compile(rf"({'|'.join(SCHEMES)}):/?(?!/)(.+)", re.DOTALL)


@dataclass(frozen=True, repr=False)
class Endpoint:
    """
    The address at which an engine may listen.

    Attributes:
        url: The address, with a scheme.
        why: Where it comes from, as words for messages: `"DOCKER_HOST"`, `"default socket"`.
        cert_path: Folder with any of `ca.pem`, `cert.pem` and `key.pem`; empty without TLS.
        verify: Whether the engine's certificate is verified.
        hostname: The name of its host if that differs from the one in `url`, as ssh's configuration can define it.
        has_only_ipv6: Whether its host turned out to have IPv6 addresses only.
        remark: A warning for the user; empty if there is none.
    """

    url: str
    why: str
    cert_path: str = ""
    verify: bool = True
    hostname: str = ""
    has_only_ipv6: bool = False
    remark: str = ""

    @property
    def is_local(self) -> bool:
        """Whether ports published on the engine's loopback can be reached from here."""
        return self.is_socket or _is_loopback(self.host)

    @property
    def is_socket(self) -> bool:
        """Whether it is a socket or pipe of this machine rather than a network address."""
        return self.url.startswith(_SOCKETS)

    @property
    def speaks_tls(self) -> bool:
        """Whether the connection is encrypted by TLS."""
        return self.url.startswith("https:") or bool(self.cert_path) or not self.verify

    @property
    def host(self) -> str:
        """The name or address of the engine's host, without brackets; empty for a socket."""
        return "" if self.is_socket else self.hostname or urlsplit(self.url).hostname or ""

    @property
    def is_ipv6(self) -> bool:
        """
        Whether its host is reached by IPv6 only.

        Ports that are published for IPv4 are not bound to such an address.
        """
        return self.has_only_ipv6 or ":" in self.host

    @property
    def cli(self) -> str:
        """
        The beginning of a shell command for this engine.

        It is `"docker"` alone where Docker's CLI finds the engine by itself.
        """
        if self.why in ("Podman", "rootless Podman"):
            return "podman"
        if self.why.startswith(_FOUND_BY_CLI):
            return "docker"
        certificates = (
            f"DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={shlex.quote(self.cert_path)} " if self.cert_path else ""
        )
        address = re.sub("^https?:", "tcp:", str(self))
        return f"{certificates}docker -H {shlex.quote(address)}"

    def __repr__(self) -> str:
        return f"<Endpoint {self}, {self.why}>"

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        if parts.password:  # never shown in a log line or an error
            return self.url.replace(f":{parts.password}@", ":***@")
        return self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """
    A failed attempt to connect.

    Attributes:
        failure: Why it failed.
        hint: What to do about it; empty if nothing is known to help.
        is_silent: Whether something listens there, and did not answer in time.
    """

    endpoint: Endpoint
    failure: str
    hint: str
    is_silent: bool = False

    def __str__(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.endpoint} ({self.endpoint.why}): {self.failure}{hint}"


def candidates(
    endpoint: str | None, cert_path: str | None, environ: Mapping[str, str], *, home: str, platform: str
) -> list[Endpoint]:
    """
    Return the endpoints to try, in order.

    It is the one that the user named; or those of `DOCKERTEST_ENDPOINTS`, beginning with the one of this process; or those
    where engines usually listen.

    Raises:
        InvalidOptionError: The endpoint or context is invalid, or its certificates are missing.
    """
    several = [] if endpoint else _settings.parse_endpoints(environ)
    if several:
        first = _settings.placement(environ) % len(several)
        return [
            _named(url, _settings.ENDPOINTS, cert_path if url.startswith(_TLS) else None, environ, home)
            for url in several[first:] + several[:first]
        ]
    sources = [
        (endpoint, "endpoint="),
        (environ.get("DOCKER_HOST"), "DOCKER_HOST"),
        (environ.get("DOCKER_URL"), "DOCKER_URL"),
    ]
    for url, why in sources:
        if url:
            return [_named(url, why, cert_path, environ, home)]
    endpoints = _from_context(cert_path, environ, home, platform)
    if cert_path:
        _check_tls("cert_path", endpoints[0].url)
    return endpoints


def _from_context(
    cert_path: str | None, environ: Mapping[str, str], home: str, platform: str
) -> list[Endpoint]:
    config = _contexts.folder(environ, home)
    usual = _usual(environ, home, platform)
    name, why, problem = environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT", ""
    if name == _contexts.DEFAULT:
        return [replace(usual[0], why=f"{usual[0].why}, DOCKER_CONTEXT={name}")]
    if not name:
        name, problem = _contexts.current(config)
        why = f"current context in {config / 'config.json'}"
    if problem:
        ignored = f"cannot read the current docker context from {config / 'config.json'}: {problem}"
        return [replace(place, remark=f"{ignored}; using {place} ({place.why})") for place in usual]
    if not name:
        return usual
    context = _contexts.load(config, name, why)
    why = f"docker context {name!r}, {why}"
    if not context.host:
        return [replace(usual[0], why=why)]
    _check(context.host, why)
    if context.host.startswith((*_SOCKETS, "ssh:")):
        return [Endpoint(context.host, why)]
    if context.cert_path or not context.verify:
        _check_tls(why, context.host)
    certificates = _certificates(cert_path, home, "cert_path") if cert_path else context.cert_path
    return [_remarked(Endpoint(_complete(context.host, certificates), why, certificates, context.verify))]


def _usual(environ: Mapping[str, str], home: str, platform: str) -> list[Endpoint]:
    """Return the places where engines listen by default."""
    if platform == "win32":
        pipes = {
            "docker_engine": "default pipe",
            "dockerDesktopLinuxEngine": "Docker Desktop",
            "podman-machine-default": "Podman",
        }
        return [Endpoint(f"npipe:////./pipe/{pipe}", why) for pipe, why in pipes.items()]
    mac, user = platform == "darwin", os.getuid()
    # Programs that cron or sudo starts have no variable.
    usual_runtime = f"/run/user/{user}" if user and not mac else ""
    runtime = environ.get("XDG_RUNTIME_DIR") or usual_runtime
    settings = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    temporary = environ.get("TMPDIR", "").rstrip("/")
    machine = f"{home}/.local/share/containers/podman/machine"
    sockets = {
        "/var/run/docker.sock": "default socket",
        runtime and f"{runtime}/docker.sock": "rootless Docker",
        f"{home}/.docker/run/docker.sock": "Docker Desktop",
        f"{home}/.docker/desktop/docker.sock": "Docker Desktop",
        f"{environ.get('COLIMA_HOME') or f'{home}/.colima'}/default/docker.sock": "Colima",
        f"{settings}/colima/default/docker.sock": "Colima",
        mac and f"{home}/.orbstack/run/docker.sock": "OrbStack",
        f"{home}/.rd/docker.sock": "Rancher Desktop",
        runtime and f"{runtime}/podman/podman.sock": "rootless Podman",
        not mac and "/run/podman/podman.sock": "Podman",
        mac and f"{machine}/podman.sock": "Podman",
        mac and temporary and f"{temporary}/podman/podman-machine-default-api.sock": "Podman",
    }
    return [Endpoint(f"unix://{path}", why) for path, why in sockets.items() if path]


def _named(url: str, why: str, cert_path: str | None, environ: Mapping[str, str], home: str) -> Endpoint:
    scheme = _check(url, why)
    default = str(_contexts.folder(environ, home)) if environ.get("DOCKER_TLS_VERIFY") else ""
    is_one_of_several = why == _settings.ENDPOINTS
    if cert_path or (scheme == "http" and default and not is_one_of_several):
        _check_tls("cert_path" if cert_path else "DOCKER_TLS_VERIFY", url)
    certificates, folder = "", environ.get("DOCKER_CERT_PATH", "")
    host = urlsplit(url).hostname
    if folder and host and why != "DOCKER_HOST" and _has_some(own := f"{folder}/{host}", home):
        folder = own
    if scheme in ("tcp", "https"):
        # Some CI services set DOCKER_CERT_PATH even for an engine without TLS, so a folder without files is ignored.
        if cert_path:
            certificates = _certificates(cert_path, home, "cert_path")
        elif folder and (default or _has_some(folder, home)):
            certificates = _certificates(folder, home, "DOCKER_CERT_PATH")
        elif default:
            certificates = _certificates(default, home, "DOCKER_TLS_VERIFY")
    return _remarked(Endpoint(_complete(url, certificates), why, certificates))


def _complete(url: str, certificates: str) -> str:
    """Return a tcp:// address, completed with the docker CLI's default host and port."""
    parts = urlsplit(url)
    if parts.scheme != "tcp" or (parts.hostname and parts.port):
        return url
    _, _, host = parts.netloc.rpartition("@")
    written = host if parts.port is None else host.rpartition(":")[0]
    port = parts.port or (2376 if certificates else 2375)
    return f"tcp://{written.rstrip(':') or '127.0.0.1'}:{port}{parts.path}"


def _check(url: str, why: str) -> str:
    """Return the scheme of a valid endpoint."""
    scheme, separator, rest = _validation.parse_str(why, url).partition("://")
    shown = _PASSWORD.sub(":***@", url)
    invalid = f"{why}: invalid endpoint {shown!r}"
    if _INVISIBLE.search(url):
        raise InvalidOptionError(
            f"{invalid}: it contains a line break, a space at its end or another invisible character",
            hint="remove that character",
        )
    if suggestion := _bracketed(url):
        raise InvalidOptionError(
            f"{invalid}: an IPv6 address needs brackets", hint=f"write for example {suggestion}"
        )
    if not separator or scheme not in SCHEMES or not rest or not _is_url(url):
        *most, last = (f"{scheme}://" for scheme in SCHEMES)
        raise InvalidOptionError(
            f"{invalid}: expected an address that begins with {', '.join(most)} or {last}",
            hint=f"write for example {_suggestion(shown)}",
        )
    parts = urlsplit(url)
    if scheme == "unix" and set(url) & set("#?"):
        raise InvalidOptionError(
            f"{invalid}: the path of a socket cannot contain # or ?", hint="create a link to it without them"
        )
    if scheme in ("http", "https") and not parts.port:
        raise InvalidOptionError(f"{invalid}: it has no port", hint="add the port of the engine")
    if parts.password:
        raise InvalidOptionError(
            f"{invalid}: it contains a password, which engines do not support",
            hint="use TLS certificates, or a key for ssh",
        )
    return scheme


def _bracketed(url: str) -> str:
    """
    Return an endpoint with brackets around its IPv6 address.

    The result is empty if the endpoint has no IPv6 address without brackets.
    """
    scheme, _, rest = url.rpartition("://")
    if scheme not in ("", "tcp", "http", "https"):
        return ""
    host = rest.partition("/")[0]
    address, _, port = host.rpartition(":")
    # "::1:2375" is an address as well, but most likely the last part is a port.
    if not (port in ("2375", "2376") or len(port) > 4) or not _is_ipv6(address):
        address, port = host, "2375"
    return f"{scheme or 'tcp'}://[{address}]:{port}" if _is_ipv6(address) else ""


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _suggestion(shown: str) -> str:
    """Return an endpoint that was probably meant."""
    if shown.startswith("/"):
        return f"unix://{shown}"
    if few := _FEW_SLASHES.fullmatch(shown):  # "unix:/var/run/docker.sock"
        scheme, rest = few[1], few[2]
        return f"{scheme}://{'/' if scheme == 'unix' else ''}{rest}"
    return "tcp://host:2375" if ":/" in shown else f"tcp://{shown}"


def _remarked(endpoint: Endpoint) -> Endpoint:
    """Return *endpoint* with a remark if it is insecure."""
    if endpoint.url.startswith((*_SOCKETS, "ssh:")) or endpoint.speaks_tls or endpoint.is_local:
        return endpoint
    remark = (
        f"{endpoint} ({endpoint.why}) does not use TLS: anyone who can reach this port controls the host, and the traffic "
        "can be read on its way; use TLS or ssh://"
    )
    return replace(endpoint, remark=remark)


def _check_tls(option: str, url: str) -> None:
    """Reject certificates for an endpoint without TLS, where they have no effect."""
    if not url.startswith(("tcp:", "https:")):
        raise InvalidOptionError(
            f"{option}: {url} does not use TLS", hint="remove the certificates, or use a tcp:// endpoint"
        )


def _certificates(folder: str, home: str, option: str) -> str:
    """
    Return the absolute path of *folder*, which must contain all three files.

    The docker SDK's own error does not name these files.
    """
    path = _expanded(folder, home)
    try:
        missing = [name for name in CERTIFICATE_FILES if not (path / name).is_file()]
    except OSError as error:  # such as a folder that this user may not enter
        raise InvalidOptionError(
            f"{option}: cannot read {error.filename}: {(error.strerror or '').lower()}",
            hint="make the certificates readable for this user",
        ) from error
    if missing:
        raise InvalidOptionError(
            f"{option}: {str(path)!r} does not contain {', '.join(missing)}",
            hint="TLS needs ca.pem, cert.pem and key.pem in that folder",
        )
    return str(path.absolute())  # relative to where the process is now, not to where it goes later


def _has_some(folder: str, home: str) -> bool:
    """
    Return whether a folder has any certificate files, or cannot be read.

    A folder that cannot be read must not be mistaken for one without these files.
    """
    try:
        return any((_expanded(folder, home) / name).is_file() for name in CERTIFICATE_FILES)
    except OSError:
        return True


def _expanded(folder: str, home: str) -> Path:
    return Path(home, folder[2:]) if folder.startswith("~/") else Path(folder)


def _is_url(url: str) -> bool:
    """Return whether host and port can be parsed; a socket's path is not checked."""
    try:
        return urlsplit(url).port != -1
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified  # clients connect to this machine for 0.0.0.0
    except ValueError:
        return host == "localhost"
