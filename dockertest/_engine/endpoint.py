"""
Decide which engine to talk to, from arguments, an environment and files. Contacts nothing.

What a user named (an argument, a variable) is never replaced by something else; only where nothing is named are the
places looked at where engines usually listen.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from dockertest import _validation as _specs
from dockertest._engine import contexts as _contexts
from dockertest.errors import InvalidOptionError

SCHEMES = ("unix", "tcp", "http", "https", "ssh", "npipe")
_SOCKETS = ("unix:", "npipe:")
_FILES = ("ca.pem", "cert.pem", "key.pem")
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f]|\s\Z")
_PASSWORD = re.compile(r":.*@", re.DOTALL)


@dataclass(frozen=True, repr=False)
class Endpoint:
    """
    Where an engine may listen.

    Attributes:
        url: Its address, with a scheme.
        why: Who said so, in words for an error.
        cert_path: Folder with what there is of `ca.pem`, `cert.pem` and `key.pem`; empty without TLS.
        verify: Whether the engine's certificate counts.
        hostname: The name of its host, where that is not the one in `url` (ssh has names of its own).
        remark: What its user should know; empty if nothing.
    """

    url: str
    why: str
    cert_path: str = ""
    verify: bool = True
    hostname: str = ""
    remark: str = ""

    @property
    def is_local(self) -> bool:
        """Whether ports published on the engine's loopback are reached from here."""
        return self.is_socket or _is_loopback(self.host)

    @property
    def is_socket(self) -> bool:
        """Whether it is a file of this machine, and no address in a network."""
        return self.url.startswith(_SOCKETS)

    @property
    def speaks_tls(self) -> bool:
        """Whether the conversation is encrypted by TLS."""
        return self.url.startswith("https:") or bool(self.cert_path) or not self.verify

    @property
    def host(self) -> str:
        """The name or address of the engine's host, without brackets; empty for a socket."""
        return "" if self.is_socket else self.hostname or urlsplit(self.url).hostname or ""

    def __repr__(self) -> str:
        return f"<Endpoint {self}, {self.why}>"

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        if parts.password:  # in no log line and no error
            return self.url.replace(f":{parts.password}@", ":***@")
        return self.url


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An endpoint that was tried, why it failed, and what to do about it if anybody knows."""

    endpoint: Endpoint
    failure: str
    remedy: str

    def __str__(self) -> str:
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.endpoint} ({self.endpoint.why}): {self.failure}{remedy}"


def candidates(
    endpoint: str | None, cert_path: str | None, environ: Mapping[str, str], *, home: str, platform: str
) -> list[Endpoint]:
    """
    Give the endpoints to try, in order: one if the user named it, else those where engines usually listen.

    Raises:
        InvalidOptionError: What the user named is no endpoint or context, or its certificates are not there.
    """
    named = [
        (endpoint, "endpoint="),
        (environ.get("DOCKER_HOST"), "DOCKER_HOST"),
        (environ.get("DOCKER_URL"), "DOCKER_URL"),
    ]
    for url, why in named:
        if url:
            return [_named(url, why, cert_path, environ, home)]
    found = _of_context(cert_path, environ, home, platform)
    if cert_path:
        _check_tls("cert_path", found[0].url)
    return found


def _of_context(
    cert_path: str | None, environ: Mapping[str, str], home: str, platform: str
) -> list[Endpoint]:
    config = _contexts.folder(environ, home)
    usual = _usual(environ, home, platform)
    name, why, problem = environ.get("DOCKER_CONTEXT", ""), "DOCKER_CONTEXT", ""
    if name == _contexts.DEFAULT:
        return [replace(usual[0], why=f"{usual[0].why}, since DOCKER_CONTEXT is {name!r}")]
    if not name:
        name, problem = _contexts.current(config)
        why = f"the current docker context in {config / 'config.json'}"
    if problem:
        lost = f"cannot read the current docker context from {config / 'config.json'}: {problem}"
        return [replace(each, remark=f"{lost}; going on with {each.why} at {each}") for each in usual]
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
    found = Endpoint(_completed(context.host, certificates), why, certificates, context.verify)
    return [replace(found, remark=_remark(found))]


def _usual(environ: Mapping[str, str], home: str, platform: str) -> list[Endpoint]:
    """Give the places where engines listen if nobody tells them otherwise."""
    if platform == "win32":
        pipes = {
            "docker_engine": "the default pipe",
            "dockerDesktopLinuxEngine": "Docker Desktop",
            "podman-machine-default": "Podman",
        }
        return [Endpoint(f"npipe:////./pipe/{pipe}", why) for pipe, why in pipes.items()]
    runtime, mac = environ.get("XDG_RUNTIME_DIR"), platform == "darwin"
    settings = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    temporary = environ.get("TMPDIR", "").rstrip("/")
    machine = f"{home}/.local/share/containers/podman/machine"
    sockets = {
        "/var/run/docker.sock": "the default socket",
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
    usual = str(_contexts.folder(environ, home)) if environ.get("DOCKER_TLS_VERIFY") else ""
    if cert_path or (scheme == "http" and usual):
        _check_tls("cert_path" if cert_path else "DOCKER_TLS_VERIFY", url)
    certificates, folder = "", environ.get("DOCKER_CERT_PATH", "")
    if scheme in ("tcp", "https"):
        # A folder alone that has none of the files asks for nothing: some CI services set the variable anyway.
        if cert_path:
            certificates = _certificates(cert_path, home, "cert_path")
        elif folder and (usual or _has_some(folder, home)):
            certificates = _certificates(folder, home, "DOCKER_CERT_PATH")
        elif usual:
            certificates = _certificates(usual, home, "DOCKER_TLS_VERIFY")
    found = Endpoint(_completed(url, certificates), why, certificates)
    return replace(found, remark=_remark(found))


def _completed(url: str, certificates: str) -> str:
    """Give an address of the kind tcp:// with the host and the port that it means where it has none."""
    parts = urlsplit(url)
    if parts.scheme != "tcp" or (parts.hostname and parts.port):
        return url
    _, _, host = parts.netloc.rpartition("@")
    written = host if parts.port is None else host.rpartition(":")[0]
    port = parts.port or (2376 if certificates else 2375)
    return f"tcp://{written.rstrip(':') or '127.0.0.1'}:{port}{parts.path}"


def _check(url: str, why: str) -> str:
    """Give the scheme of what is an endpoint."""
    scheme, separator, rest = _specs.text(why, url).partition("://")
    if not separator or scheme not in SCHEMES or not rest or not _is_url(url):
        shown = _PASSWORD.sub(":***@", url)
        hint = f"unix://{shown}" if url.startswith("/") else f"tcp://{shown}" if not separator else "tcp://…"
        raise InvalidOptionError(
            f"{why}: {shown!r} is no endpoint; write a scheme of {', '.join(f'{each}://' for each in SCHEMES)}, "
            f"such as {hint}"
        )
    if _INVISIBLE.search(url):
        raise InvalidOptionError(
            f"{why}: {_PASSWORD.sub(':***@', url)!r} has a line break or something else in it that nobody sees; "
            "leave it out"
        )
    parts = urlsplit(url)
    if (scheme in ("http", "https") and not parts.port) or (scheme == "unix" and set(url) & set("#?")):
        lack = (
            "a socket's path may have no # or ?; make a link to it"
            if scheme == "unix"
            else "name the engine's port"
        )
        raise InvalidOptionError(f"{why}: {_PASSWORD.sub(':***@', url)!r} leads nowhere; {lack}")
    if parts.password:
        raise InvalidOptionError(
            f"{why}: {_PASSWORD.sub(':***@', url)!r} has a password in it, which no engine asks for; "
            "use certificates, or a key for ssh"
        )
    return scheme


def _remark(endpoint: Endpoint) -> str:
    """Say what is dangerous about an endpoint."""
    if endpoint.url.startswith(("unix:", "npipe:", "ssh:")) or endpoint.speaks_tls or endpoint.is_local:
        return ""
    return (
        f"{endpoint} ({endpoint.why}) speaks no TLS: whoever can reach it has the engine's host, and can read along; "
        "use TLS or ssh://"
    )


def _check_tls(asked_by: str, url: str) -> None:
    """Refuse what asks for TLS where none is spoken: it would do nothing, and nobody would know."""
    if not url.startswith(("tcp:", "https:")):
        raise InvalidOptionError(f"{asked_by}: no TLS is spoken over {url}; leave it out, or write tcp://…")


def _certificates(folder: str, home: str, said: str) -> str:
    """Check that the three files are there, since the docker SDK's own message does not name them."""
    path = _expanded(folder, home)
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise InvalidOptionError(
            f"{said}: {str(path)!r} has no {', '.join(missing)}; TLS needs ca.pem, cert.pem and key.pem"
        )
    return str(path.absolute())  # from where we are now, not from where the process goes


def _has_some(folder: str, home: str) -> bool:
    return any((_expanded(folder, home) / name).is_file() for name in _FILES)


def _expanded(folder: str, home: str) -> Path:
    return Path(home, folder[2:]) if folder.startswith("~/") else Path(folder)


def _is_url(written: str) -> bool:
    """Whether host and port can be read; a socket's path is taken as it is."""
    try:
        return urlsplit(written).port != -1
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified  # which is understood as this machine
    except ValueError:
        return host == "localhost"
