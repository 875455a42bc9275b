"""The smaller values that options are made of, and how what was written becomes them. Knows nothing of the engine."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from dockertest import _validation as _specs
from dockertest.errors import InvalidOptionError

PullPolicy = Literal["missing", "always", "never"]


PortSpec = str | int


EnvSpec = Mapping[str, object] | Iterable[str]


class HasId(Protocol):
    """What can stand for a network besides its name or id: a `Network`, or the docker SDK's."""

    @property
    def id(self) -> str | None: ...


NetworkSpec = str | HasId


@dataclass(frozen=True, slots=True)
class PortBinding:
    """
    An address and port of the host.

    Attributes:
        host_ip: The address to publish on; empty for the pool's `publish_ip`.
        host_port: The port, as a number or a string; empty or `0` for any free one.
    """

    host_ip: str = ""
    host_port: str | int = ""

    def __post_init__(self) -> None:
        write(self, host_ip=_specs.address("host_ip", self.host_ip))
        write(self, host_port=_specs.host_port("host_port", self.host_port))


BindingSpec = str | int | PortBinding | Sequence[str | int | PortBinding]


# The keys are ports, as strings or numbers. A mapping of either is not one of both to a type checker, and a union of
# mappings leaves it without a word about the values.
BindingSpecs = Mapping[Any, BindingSpec]


Healthcheck = str | Mapping[str, Any]


FileSpec = bytes | str | os.PathLike[str]
_THE_ENGINES_OWN = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


@dataclass(frozen=True, slots=True)
class AuthConfig:
    """
    Credentials for a registry. Password and token are in no repr, log line or error.

    Attributes:
        username: The user's name.
        password: The password, or an access token used as one.
        server_address: The registry; the one that the image's name says when absent.
        identity_token: A token from an earlier login, instead of the password.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    server_address: str | None = None
    identity_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("username", "password", "server_address", "identity_token"):
            if not isinstance(getattr(self, name), (str, type(None))):
                raise InvalidOptionError(
                    f"auth: {name} must be a string (not shown here: it may be a secret)"
                )


def port_bindings(value: BindingSpecs) -> dict[str, tuple[PortBinding, ...]]:
    """Give port bindings with canonical ports, each bound to one or more `PortBinding`."""
    if not isinstance(value, Mapping):
        raise InvalidOptionError(
            f"port_bindings must be a mapping: got {_specs.shown(value)}; write {{'5432/tcp': 15432}}"
        )
    found: dict[str, tuple[PortBinding, ...]] = {}
    for written, bound in value.items():
        port = _specs.container_port("port_bindings", written)
        if port in found:
            raise InvalidOptionError(f"port_bindings: {port} is there twice; write a list of its host ports")
        several = [bound] if isinstance(bound, (str, int, PortBinding)) else bound
        if isinstance(several, (bytes, Mapping)) or not isinstance(several, Iterable):
            raise InvalidOptionError(
                f"port_bindings[{written!r}]: {_specs.shown(bound)} is no port, PortBinding or list of them"
            )
        found[port] = tuple(
            each
            if isinstance(each, PortBinding)
            else PortBinding(host_port=_specs.host_port(f"port_bindings[{written!r}]", each))
            for each in several
        )
    return found


def tmpfs(value: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """Give in-memory folders as a mapping of path to mount options."""
    paths = dict(value) if isinstance(value, Mapping) else dict.fromkeys(_specs.texts("tmpfs", value), "")
    for path, options in paths.items():
        if not _specs.text("tmpfs: a path", path).startswith("/"):
            raise InvalidOptionError(f"tmpfs: {path!r} is no absolute path")
        _specs.text(f"tmpfs[{path!r}]", options)
    return paths


def healthcheck(value: Healthcheck) -> dict[str, Any]:
    """Give a health check as the engine writes it, its times in nanoseconds."""
    written = {"test": value} if isinstance(value, str) else value
    known = {
        "test": "Test",
        "interval": "Interval",
        "timeout": "Timeout",
        "start_period": "StartPeriod",
        "retries": "Retries",
    }
    if not isinstance(written, Mapping) or not set(written) <= set(known):
        raise InvalidOptionError(
            f"healthcheck: {_specs.shown(value)} is neither a command nor a mapping of {', '.join(known)}"
        )
    request: dict[str, Any] = {}
    for key, given in written.items():
        if key == "test":
            request["Test"] = (
                ["CMD-SHELL", _specs.text("healthcheck: test", given)]
                if isinstance(given, str)
                else list(_specs.texts("healthcheck: test", given))
            )
        elif key == "retries":
            request["Retries"] = _retries(given)
        else:
            request[known[key]] = int(_specs.seconds(f"healthcheck: {key}", given) * 1e9)
    return request


def _retries(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 10**9:
        raise InvalidOptionError(
            f"healthcheck: retries must be a whole number, zero or more: got {_specs.shown(value)}"
        )
    return value


class Content(bytes):
    """What is in a file: never shown."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__


def files(value: Mapping[str, FileSpec], *, in_memory: Iterable[str] = ()) -> dict[str, Content | Path]:
    """Give files as a mapping of canonical paths in the container to content, or to the local path it comes from."""
    if not isinstance(value, Mapping):
        raise InvalidOptionError("files must be a mapping of paths in the container to what shall be there")
    found: dict[str, Content | Path] = {}
    for written, given in value.items():
        path = container_path("files", written)
        if path in found or path == "/" or written.endswith("/"):
            raise InvalidOptionError(f"files: {written!r} is there twice, or is no name of a file")
        if path in _THE_ENGINES_OWN:
            raise InvalidOptionError(
                f"files: {path!r} is the engine's own, put over any other at the start; "
                "hostname, extra_hosts and dns say what is in it"
            )
        for folder in in_memory:
            if lies_in(path, folder):  # Docker would lose it without a word
                raise InvalidOptionError(
                    f"files: {path!r} lies in the tmpfs {folder!r}, which is empty at the start"
                )
        if isinstance(given, os.PathLike):
            if not os.path.exists(given):  # noqa: PTH110 - may be no Path yet
                raise InvalidOptionError(f"files[{path!r}]: there is no {os.fspath(given)!r}")
            found[path] = Path(given)
        else:
            found[path] = file_content(f"files[{path!r}]", given)
    return found


def file_content(name: str, value: object) -> Content:
    """Give what is to be in a file; text is written in UTF-8."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value if isinstance(value, Content) else Content(value)
    if not isinstance(value, str):
        raise InvalidOptionError(f"{name} must be bytes or text: got a {type(value).__name__}")
    try:
        return Content(value.encode())
    except UnicodeEncodeError:
        raise InvalidOptionError(f"{name} has characters that UTF-8 cannot write; give bytes") from None


def local_path(name: str, value: object) -> Path:
    """Give a path of this machine, written as a string or a path."""
    if isinstance(value, (str, os.PathLike)) and isinstance(written := os.fspath(value), str):
        return Path(written)
    raise InvalidOptionError(f"{name}: {_specs.shown(value)} is no path; write a string or a pathlib.Path")


def container_path(name: str, value: object) -> str:
    """Give an absolute path in a container, without what does not count in it."""
    path = _specs.text(name, value)
    if not path.startswith("/"):
        raise InvalidOptionError(f"{name}: {_specs.shown(value)} is no absolute path in the container")
    return "/" + posixpath.normpath(path).lstrip("/")


def lies_in(path: str, folder: str) -> bool:
    """Whether *path* is *folder* or something below it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def networks(value: Sequence[NetworkSpec]) -> tuple[NetworkSpec, ...]:
    """Give networks, each a name, an id, or something that has one, as a tuple."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        shown = _specs.shown(value)
        raise InvalidOptionError(
            f"networks must be a sequence of networks, names or ids: got {shown}; write [{shown}]"
        )
    networks = tuple(value)
    for index, network in enumerate(networks):
        network_id(f"networks[{index}]", network)
    return networks


def network_id(field: str, value: NetworkSpec) -> str:
    """Give the name or id of a network, whatever stands for it."""
    named = getattr(value, "id", value)
    if not isinstance(named, str) or not _specs.text(field, named):
        raise InvalidOptionError(f"{field}: {_specs.shown(value)} is no Network, name or id")
    return named


def write(value: object, **changes: object) -> None:
    """Write the canonical form into a frozen value, as its `__post_init__` may."""
    for name, new in changes.items():
        object.__setattr__(value, name, new)
