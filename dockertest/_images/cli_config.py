"""
The docker CLI's configuration, from its file and from a variable.

CI systems set the variable instead of the file. This module never writes a configuration.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dockertest._secret import SecretDict

log = logging.getLogger("dockertest")

_VARIABLE = "DOCKER_AUTH_CONFIG"
PROXY_VARIABLES = {
    "httpProxy": "HTTP_PROXY",
    "httpsProxy": "HTTPS_PROXY",
    "ftpProxy": "FTP_PROXY",
    "noProxy": "NO_PROXY",
    "allProxy": "ALL_PROXY",
}
_KEYS = {  # The docker CLI accepts them in any case.
    key.lower(): key
    for key in ("auths", "credsStore", "credHelpers", "currentContext", "cliPluginsExtraDirs", "proxies")
}
_NOT_FOR_BUILDX = ("auths", "credsStore", "credHelpers", "currentContext")


class CliConfig:
    """
    The configuration of this user's docker CLI.

    It is read each time that it is needed, so that a later `docker login` counts. A problem with it never stops
    anything: it is logged as a warning, once.

    Args:
        environ: The environment, which may name the file's folder.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = SecretDict(environ)
        self._warned: set[str] = set()

    def sources(self) -> Iterator[tuple[str, SecretDict[Any]]]:
        """
        Yield each configuration with the name of its file or variable.

        The variable comes first and takes precedence, as in the docker CLI.
        """
        file = self._file()
        for source, text in (
            (_VARIABLE, self._environ.get(_VARIABLE, "")),
            (str(file), self._read(file)),
        ):
            if not text.strip():
                continue
            try:
                config = json.loads(text)
            except (ValueError, RecursionError):
                config = None
            if isinstance(config, dict):
                yield (
                    source,
                    SecretDict(
                        {_KEYS.get(str(key).lower(), str(key)): value for key, value in config.items()}
                    ),
                )
            else:
                self.warn(source, "it is not a JSON object")

    def for_buildx(self) -> dict[str, Any]:
        """
        Return the file's settings without the engine and the credentials.

        The docker CLI that runs buildx gets those in another way. The user's own plugin folder is added.
        """
        settings = {key: value for key, value in self._from_file().items() if key not in _NOT_FOR_BUILDX}
        extra = settings.get("cliPluginsExtraDirs")
        extra = extra if isinstance(extra, list) else []
        settings["cliPluginsExtraDirs"] = [*extra, str(self._file().parent / "cli-plugins")]
        return settings

    def proxies(self, daemon_host: str) -> SecretDict[str]:
        """
        Return the proxies that the docker CLI sets in a build, by configuration key.

        Args:
            daemon_host: The engine's address in the docker CLI's form, as there may be proxies for one engine.
        """
        proxies = mapping(self._from_file().get("proxies"))
        proxy = mapping(proxies.get(daemon_host if daemon_host in proxies else "default"))
        return SecretDict(
            {key: proxy[key] for key in PROXY_VARIABLES if isinstance(proxy.get(key), str) and proxy[key]}
        )

    def warn(self, source: str, problem: str) -> None:
        """
        Log a problem, but only the first one of each source.

        *problem* must not quote the content of the source.
        """
        if source not in self._warned:
            self._warned.add(source)
            log.warning("ignoring registry credentials from %s: %s", source, problem)

    def _from_file(self) -> SecretDict[Any]:
        file = str(self._file())
        return next((config for source, config in self.sources() if source == file), SecretDict())

    def _file(self) -> Path:
        folder = self._environ.get("DOCKER_CONFIG")
        home = self._environ.get("USERPROFILE" if os.name == "nt" else "HOME")
        home = home or os.path.expanduser("~")  # noqa: PTH111 - never raises
        return (Path(folder) if folder else Path(home, ".docker")) / "config.json"

    def _read(self, file: Path) -> str:
        try:
            return file.read_text(encoding="utf-8-sig")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self.warn(str(file), str(error.strerror).lower())
        except ValueError:
            self.warn(str(file), "it is not UTF-8 text")
        return ""


def mapping(value: object) -> SecretDict[Any]:
    """Return a part of a configuration, empty if it is not an object."""
    return SecretDict(value) if isinstance(value, dict) else SecretDict()
