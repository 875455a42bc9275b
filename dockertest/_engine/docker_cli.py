"""What the docker CLI needs to reach the engine of a pool."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from dockertest._engine.client import EngineClient
from dockertest._secret import SecretDict


def daemon_host(engine: EngineClient) -> str:
    """Return an engine's address in the docker CLI's form."""
    address = engine.address() or {"url": engine.endpoint.url}
    return re.sub("^https?:", "tcp:", address["url"])


def endpoint_variables(engine: EngineClient, environ: Mapping[str, str], folder: Path) -> SecretDict[str]:
    """
    Return the variables that lead the docker CLI to an engine.

    Args:
        environ: The environment, which may have exemptions from a proxy.
        folder: A private folder, where the certificates are copied to.
    """
    address = engine.address() or {"url": engine.endpoint.url}
    variables = SecretDict({"DOCKER_HOST": daemon_host(engine)})
    if address["url"].startswith("https:"):
        tls = "DOCKER_TLS_VERIFY" if engine.endpoint.verify else "DOCKER_TLS"
        variables |= {"DOCKER_CERT_PATH": str(folder), tls: "1"}
        for part in {"ca", "cert", "key"} & set(address):
            shutil.copy(address[part], folder / f"{part}.pem")
    if host := urlsplit(variables["DOCKER_HOST"]).hostname:  # The engine is not reached through a proxy.
        exempt = environ.get("NO_PROXY") or environ.get("no_proxy")
        variables["NO_PROXY"] = variables["no_proxy"] = f"{exempt},{host}" if exempt else host
    return variables
