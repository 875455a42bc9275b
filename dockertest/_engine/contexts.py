"""Docker contexts, the docker CLI's names for engines, as it keeps them in its own folder. Only reads files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from dockertest.errors import InvalidOptionError

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """
    What the docker CLI knows of an engine.

    Attributes:
        host: Its endpoint; empty for the default one.
        cert_path: Folder with what there is of `ca.pem`, `cert.pem` and `key.pem`; empty without TLS.
        verify: Whether the engine's certificate counts.
    """

    host: str
    cert_path: str
    verify: bool


def folder(environ: Mapping[str, str], home: str) -> Path:
    """Give the folder of the docker CLI's configuration."""
    return Path(environ.get("DOCKER_CONFIG") or Path(home, ".docker"))


def current(config: Path) -> tuple[str, str]:
    """Give the name of the current context, empty where it is the default one, and why it could not be read."""
    try:
        written = _read(config / "config.json")
    except FileNotFoundError:
        return "", ""
    except (OSError, ValueError) as error:
        return "", _words(error)
    name = written.get("currentContext")
    return (name, "") if isinstance(name, str) and name != DEFAULT else ("", "")


def load(config: Path, name: str, asked_by: str) -> Context:
    """
    Give a context by its name.

    Args:
        asked_by: Who named it, in words for an error.

    Raises:
        InvalidOptionError: There is none of that name, or its file cannot be read.
    """
    key = sha256(name.encode(errors="surrogatepass")).hexdigest()  # the name of its folders
    file = config / "contexts" / "meta" / key / "meta.json"
    try:
        return _context(_read(file), config / "contexts" / "tls" / key / "docker")
    except FileNotFoundError:
        raise InvalidOptionError(
            f"{asked_by}: there is no docker context {name!r}; known are: {', '.join(names(config))}"
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidOptionError(
            f"{asked_by}: docker context {name!r} cannot be read from {file}: {_words(error)}; "
            "make it anew with docker context rm and docker context create"
        ) from error


def names(config: Path) -> list[str]:
    """Give the names of all contexts that can be read, the default one first."""
    found = []
    for file in (config / "contexts" / "meta").glob("*/meta.json"):
        try:
            found.append(str(_read(file)["Name"]))
        except (OSError, ValueError, KeyError):
            continue
    return [DEFAULT, *sorted(found)]


def _context(meta: Mapping[str, Any], tls: Path) -> Context:
    endpoints = meta.get("Endpoints")
    docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
    host = docker.get("Host", "") if isinstance(docker, dict) else None
    if not isinstance(docker, dict) or not isinstance(host, str):
        raise ValueError("it names no endpoint for docker")
    has_files = any((tls / each).is_file() for each in ("ca.pem", "cert.pem", "key.pem"))
    return Context(
        host=host,
        cert_path=str(tls.absolute()) if has_files else "",
        verify=docker.get("SkipTLSVerify") is not True,
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        written = json.loads(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(written, dict):
        raise ValueError("it is no JSON object")
    return written


def _words(error: Exception) -> str:
    return (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
