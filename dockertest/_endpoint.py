"""
Decide which engine to talk to, from arguments, an environment and files. Contacts nothing.

What a user named (an argument, a variable) is never replaced by something else; only where nothing is named are the
places looked at where engines usually listen.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dockertest import _specs
from dockertest.errors import InvalidOptionError

SCHEMES = ("unix", "tcp", "http", "https", "ssh", "npipe")
_PASSWORD = re.compile(r":.*@", re.DOTALL)
_DEFAULTS = {"win32": "npipe:////./pipe/docker_engine"}


@dataclass(frozen=True, repr=False)
class Endpoint:
    """
    Where an engine may listen.

    Attributes:
        url: Its address, with a scheme.
        why: Who said so, in words for an error.
        cert_path: Folder of `ca.pem`, `cert.pem` and `key.pem`; empty without TLS.
    """

    url: str
    why: str
    cert_path: str = ""

    @property
    def is_local(self) -> bool:
        """Whether ports published on the engine's loopback are reached from here."""
        if self.url.startswith(("unix:", "npipe:")):
            return True
        return _is_loopback(self.host)

    @property
    def host(self) -> str:
        """The name or address of the engine's host, without brackets; empty for a socket."""
        return "" if self.url.startswith(("unix:", "npipe:")) else urlsplit(self.url).hostname or ""

    def __repr__(self) -> str:
        return f"<Endpoint {self}, {self.why}>"

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        if parts.password:  # in no log line and no error
            return self.url.replace(f":{parts.password}@", ":***@")
        return self.url


def candidates(
    endpoint: str | None, cert_path: str | None, environ: Mapping[str, str], *, platform: str
) -> list[Endpoint]:
    """
    Give the endpoints to try, in order: one if the user named it, else those where engines usually listen.

    Raises:
        InvalidOptionError: What the user named is no endpoint, or its certificates are not there.
    """
    named = [
        (endpoint, "endpoint="),
        (environ.get("DOCKER_HOST"), "DOCKER_HOST"),
        (environ.get("DOCKER_URL"), "DOCKER_URL"),
    ]
    for url, why in named:
        if url:
            return [_named(url, why, cert_path, environ)]
    return [Endpoint(_DEFAULTS.get(platform, "unix:///var/run/docker.sock"), "the default socket")]


def _named(url: str, why: str, cert_path: str | None, environ: Mapping[str, str]) -> Endpoint:
    scheme, separator, rest = _specs.text(why, url).partition("://")
    if not separator or scheme not in SCHEMES or not rest or not _is_url(url):
        shown = _PASSWORD.sub(":***@", url)
        hint = f"unix://{shown}" if url.startswith("/") else f"tcp://{shown}" if not separator else "tcp://…"
        raise InvalidOptionError(
            f"{why}: {shown!r} is no endpoint; write a scheme of {', '.join(f'{each}://' for each in SCHEMES)}, "
            f"such as {hint}"
        )
    if urlsplit(url).password:
        raise InvalidOptionError(
            f"{why}: {_PASSWORD.sub(':***@', url)!r} has a password in it, which no engine asks for; "
            "use certificates, or a key for ssh"
        )
    asked = (
        cert_path
        or environ.get("DOCKER_CERT_PATH")
        or ("~/.docker" if environ.get("DOCKER_TLS_VERIFY") else "")
    )
    return Endpoint(url, why, _certificates(asked) if asked and scheme in ("tcp", "https") else "")


def _certificates(folder: str) -> str:
    """Check that the three files are there, since the docker SDK's own message does not name them."""
    path = Path(folder)
    with suppress(RuntimeError):  # `~nobody/certs`: the folder that is missing is named below
        path = path.expanduser()
    missing = [name for name in ("ca.pem", "cert.pem", "key.pem") if not (path / name).is_file()]
    if missing:
        raise InvalidOptionError(
            f"cert_path: {str(path)!r} has no {', '.join(missing)}; TLS needs ca.pem, cert.pem and key.pem"
        )
    return str(path)


def _is_url(written: str) -> bool:
    """Whether host and port can be read; a socket's path is taken as it is."""
    try:
        return urlsplit(written).port != -1
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
