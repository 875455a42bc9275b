"""
Credentials for registries, as the docker CLI has them: its configuration file, its helper programs, and the variable
that CI systems use. Contacts no engine and no registry.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockertest._images.cli_config import HELPER_NAME, Helpers, UnusableError
from dockertest._values import AuthConfig
from dockertest.errors import InvalidOptionError

log = logging.getLogger("dockertest")

HUB = "docker.io"
_HUB_SERVER = "https://index.docker.io/v1/"  # what the CLI, its helpers and engines call it
_HUB_NAMES = ("", HUB, "index.docker.io", "registry-1.docker.io")
_VARIABLE = "DOCKER_AUTH_CONFIG"
_NOT_FOR_OTHERS = ("auths", "credsStore", "credHelpers", "currentContext")


class Header(str):
    """A header with a secret in it, which tracebacks that show variables do not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Login:
    """
    Credentials for one registry.

    Attributes:
        auth: What to send.
        source: Where they were found, for an error.
    """

    auth: AuthConfig
    source: str


class Credentials:
    """
    What this user's docker CLI knows of registries.

    Nothing is read before it is asked for. Nothing that is wrong with it stops anything: what cannot be used is told
    by a warning, once, and public images need none of it.

    Args:
        environ: The environment to look into, and to start helper programs with.
        patience: Seconds that a helper program may take.
    """

    def __init__(self, environ: Mapping[str, str], *, patience: float = 10.0) -> None:
        self._environ = dict(environ)
        self._helpers = Helpers(self._environ, patience)
        self._warned: set[str] = set()

    def find(self, registry: str) -> Login | None:
        """Give the credentials for a registry, `""` for Docker Hub; a helper program may be asked for them."""
        host = hostname(registry)
        for source, config in self._configurations():
            login = self._from_helper(source, config, host) or self._from_entries(source, config, host)
            if login:
                return login
        return None

    def for_build(
        self, registries: Set[str], auth: AuthConfig | Mapping[str, AuthConfig] | None = None
    ) -> dict[str, AuthConfig]:
        """
        Give the credentials to send along with a build, by the name of the registry's server.

        Helper programs are asked for *registries* alone: each may take seconds, and there may be many.

        Args:
            registries: The registries of the base images, `""` for Docker Hub.
            auth: Goes before what is configured: by registry, or for the one registry that it names, else the Dockerfile.
        """
        wanted = {hostname(each) for each in registries}
        found: dict[str, AuthConfig] = {}
        for source, config in reversed(list(self._configurations())):
            for host in {hostname(key) for key in _mapping(config.get("auths"))} - wanted:
                if login := self._from_entries(source, config, host):
                    found[server(host)] = login.auth
        for host in wanted:
            if login := self.find(host):
                found[server(host)] = login.auth
        if isinstance(auth, AuthConfig):
            auth = {auth.server_address or _only(registries): auth}
        return found | {server(hostname(registry)): each for registry, each in (auth or {}).items()}

    def settings(self) -> dict[str, Any]:
        """Give what the docker CLI's configuration file says of other things, for a docker CLI that is told credentials."""
        file = self._file()
        found = next((config for source, config in self._configurations() if source == str(file)), {})
        rest = {key: value for key, value in found.items() if key not in _NOT_FOR_OTHERS}
        if file:  # its plug-ins lie beside it
            extra = rest.get("cliPluginsExtraDirs") or []
            rest["cliPluginsExtraDirs"] = [*extra, str(file.parent / "cli-plugins")]
        return rest

    def _configurations(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Give each configuration there is, and where it stands; the first that knows a registry counts."""
        file = self._file()
        for source, written in (
            (str(file), self._text(file) if file else ""),
            (_VARIABLE, self._environ.get(_VARIABLE, "")),
        ):
            if written.strip():
                try:
                    config = json.loads(written)
                except (ValueError, RecursionError):
                    config = None
                if isinstance(config, dict):
                    yield source, config
                else:
                    self._warn(source, "it is not a JSON object")

    def _file(self) -> Path | None:
        folder = self._environ.get("DOCKER_CONFIG")
        home = self._environ.get("USERPROFILE" if os.name == "nt" else "HOME")
        if not folder and not home:
            return None
        return (Path(folder) if folder else Path(home or "", ".docker")) / "config.json"

    def _text(self, file: Path) -> str:
        try:
            return file.read_text(encoding="utf-8-sig")
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self._warn(str(file), str(error.strerror).lower())
        except ValueError:
            self._warn(str(file), "it is not text in UTF-8")
        return ""

    def _from_entries(self, source: str, config: Mapping[str, Any], host: str) -> Login | None:
        """Read the credentials that stand in a configuration itself."""
        entries = _mapping(config.get("auths"))
        if entries is not config.get("auths", entries):
            self._warn(source, "its 'auths' is not an object")
        # The name as such goes before a URL or a path of the same host.
        for key in sorted((key for key in entries if hostname(key) == host), key=lambda key: key != host):
            try:
                auth = _entry(entries[key], host)
            except ValueError:
                self._warn(source, f"its entry for {host} cannot be read")
            else:
                if auth:
                    return Login(auth, source)
        return None

    def _from_helper(self, source: str, config: Mapping[str, Any], host: str) -> Login | None:
        """Ask the helper program that a configuration names for *host*, else the one that it names for all."""
        helpers = {hostname(key): value for key, value in _mapping(config.get("credHelpers")).items()}
        helper = helpers.get(host) or config.get("credsStore")
        if not helper:
            return None
        if not isinstance(helper, str) or not HELPER_NAME.fullmatch(helper):
            self._warn(source, "it names a credential helper by what is no name of one")
            return None
        name = f"docker-credential-{helper}"
        try:
            found = self._helpers.ask(name, server(host))
        except UnusableError as problem:
            self._warn(name, str(problem))
            return None
        auth = found and _auth(*found, host)
        return Login(auth, name) if auth else None

    def _warn(self, about: str, problem: str) -> None:
        """Tell a problem, and only the first one of each file or program; never what is in it."""
        if about not in self._warned:
            self._warned.add(about)
            log.warning("credentials for registries: going on without those of %s: %s", about, problem)


def hostname(registry: str) -> str:
    """Give the host, with its port if it has one, of what people write for a registry; `""` is Docker Hub."""
    host = registry.strip().lower().rpartition("://")[2].partition("/")[0]
    return HUB if host in _HUB_NAMES else host


def server(host: str) -> str:
    """Give what engines and helper programs call a registry."""
    return _HUB_SERVER if host == HUB else host


def _only(registries: Set[str]) -> str:
    """Give the one registry that credentials without a server are meant for: sent to another, they would be given away."""
    named = sorted(registries - {""})
    if len(named) > 1 or not registries:
        said = f"several registries, {', '.join(named)}" if named else "no registry"
        raise InvalidOptionError(
            f"auth: the Dockerfile names {said}; say with server_address= which one the credentials are for"
        )
    return named[0] if named else ""


def header(auth: AuthConfig) -> Header:
    """Give the value of `X-Registry-Auth`, which goes with a pull."""
    return _encoded(_as_engine(auth))


def build_header(auths: Mapping[str, AuthConfig]) -> Header:
    """Give the value of `X-Registry-Config`, which goes with a build, for credentials by server."""
    return _encoded({name: _as_engine(auth) for name, auth in auths.items()})


def entry(auth: AuthConfig) -> dict[str, str]:
    """Give credentials as the docker CLI's configuration file keeps them."""
    if auth.identity_token:
        return {"identitytoken": auth.identity_token}
    return {"auth": base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()}


def _encoded(value: Mapping[str, object]) -> Header:
    return Header(base64.urlsafe_b64encode(json.dumps(value).encode()).decode())


def _as_engine(auth: AuthConfig) -> dict[str, str]:
    said = {
        "username": auth.username,
        "password": auth.password,
        "serveraddress": auth.server_address,
        "identitytoken": auth.identity_token,
    }
    return {key: value for key, value in said.items() if value}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _entry(entry: object, host: str) -> AuthConfig | None:
    """Read an entry of `auths`; one that is empty only says that a helper has it. `ValueError` if it is broken."""
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    said = [entry.get(key) or "" for key in ("auth", "username", "password", "identitytoken")]
    if not all(isinstance(each, str) for each in said):
        raise ValueError("not strings")
    both, user, password, token = said
    if both:
        user, colon, password = base64.b64decode("".join(both.split()), validate=True).decode().partition(":")
        if not colon:
            raise ValueError("no colon")
    return _auth(user, password.strip("\0"), token, host)


def _auth(user: str, password: str, token: str, host: str) -> AuthConfig | None:
    if not (user and password) and not token:
        return None
    return AuthConfig(user, password, server_address=server(host), identity_token=token or None)
