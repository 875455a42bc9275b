"""
The docker CLI's contexts, read from its configuration folder.

A context is the docker CLI's name for an engine.
"""

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
    What the docker CLI stores about an engine.

    Attributes:
        host: Its endpoint; empty for the default one.
        cert_path: Folder with any of `ca.pem`, `cert.pem` and `key.pem`; empty without TLS.
        verify: Whether the engine's certificate is verified.
    """

    host: str
    cert_path: str
    verify: bool


def folder(environ: Mapping[str, str], home: str) -> Path:
    """Return the docker CLI's configuration folder."""
    return Path(environ.get("DOCKER_CONFIG") or Path(home, ".docker"))


def current(config: Path) -> tuple[str, str]:
    """
    Return the current context's name, and why it could not be read.

    The name is empty for the default context. The reason is empty if nothing failed.
    """
    try:
        settings = _read(config / "config.json")
    except FileNotFoundError:
        return "", ""
    except (OSError, ValueError) as error:
        return "", _reason(error)
    # The docker CLI accepts keys in any case.
    name = {key.lower(): value for key, value in settings.items()}.get("currentcontext")
    return (name, "") if isinstance(name, str) and name != DEFAULT else ("", "")


def load(config: Path, name: str, source: str) -> Context:
    """
    Return a context by its name.

    Args:
        config: The configuration folder.
        name: The context's name.
        source: Where the name comes from, as words for an error.

    Raises:
        InvalidOptionError: The context does not exist, or its file cannot be read.
    """
    key = sha256(name.encode(errors="surrogatepass")).hexdigest()  # the name of its folders
    file = config / "contexts" / "meta" / key / "meta.json"
    try:
        return _parse(_read(file), config / "contexts" / "tls" / key / "docker")
    except FileNotFoundError:
        raise InvalidOptionError(
            f"{source}: docker context {name!r} does not exist",
            hint=f"use one of: {', '.join(names(config))}",
        ) from None
    except (OSError, ValueError) as error:
        raise InvalidOptionError(
            f"{source}: cannot read docker context {name!r} from {file}: {_reason(error)}",
            hint="recreate it with docker context rm and docker context create",
        ) from error


def names(config: Path) -> list[str]:
    """Return the names of all readable contexts, the default one first."""
    readable = []
    for file in (config / "contexts" / "meta").glob("*/meta.json"):
        try:
            readable.append(str(_read(file)["Name"]))
        except (OSError, ValueError, KeyError):
            continue
    return [DEFAULT, *sorted(readable)]


def _parse(meta: Mapping[str, Any], tls: Path) -> Context:
    endpoints = meta.get("Endpoints")
    docker = endpoints.get("docker") if isinstance(endpoints, dict) else None
    host = docker.get("Host", "") if isinstance(docker, dict) else None
    if not isinstance(docker, dict) or not isinstance(host, str):
        raise ValueError("no docker endpoint in it")
    has_files = any((tls / name).is_file() for name in ("ca.pem", "cert.pem", "key.pem"))
    return Context(
        host=host,
        cert_path=str(tls.absolute()) if has_files else "",
        verify=docker.get("SkipTLSVerify") is not True,
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError("invalid JSON") from None
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    return content


def _reason(error: Exception) -> str:
    return (error.strerror or "").lower() if isinstance(error, OSError) else str(error)
