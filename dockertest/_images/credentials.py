"""
Registry credentials from the docker CLI's configuration and helpers.

Credential helpers are programs that the configuration names. This module contacts neither an engine nor a registry.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import shutil
import subprocess
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

from dockertest import _clock
from dockertest._images.cli_config import CliConfig, mapping
from dockertest._images.process import run_program
from dockertest._images.single_flight import SingleFlight
from dockertest._options import AuthConfig
from dockertest._secret import SecretDict, SecretStr
from dockertest.errors import InvalidOptionError

log = logging.getLogger("dockertest")

HUB = "docker.io"
_HUB_SERVER = "https://index.docker.io/v1/"  # its name for the docker CLI, credential helpers and engines
_HUB_NAMES = ("", HUB, "index.docker.io", "registry-1.docker.io")
_HELPER_NAME = re.compile(r"[a-z0-9._-]+", re.ASCII)  # follows `docker-credential-`
_REUSE_SECONDS = 10.0  # how long an answer also serves other pulls, such as those that start together
_ANSWER_BYTES = 1 << 20  # the tokens of cloud services take a few thousand


@dataclass(frozen=True, slots=True)
class Login:
    """
    Credentials for one registry.

    Attributes:
        auth: The credentials.
        source: The file, variable or program that they are from, for an error.
    """

    auth: AuthConfig
    source: str


class Credentials:
    """
    The registry credentials of this user's docker CLI.

    Nothing is read before it is needed. Problems are logged as warnings and stop nothing, since public images need no
    credentials.

    Args:
        environ: The environment, which may name the configuration's folder, and that helpers are started with.
        helper_timeout: Seconds that a credential helper may take.

    Attributes:
        config: The docker CLI's configuration.
    """

    def __init__(self, environ: Mapping[str, str], *, helper_timeout: float = 10.0) -> None:
        self.config = CliConfig(environ)
        self._helpers = _Helpers(SecretDict(environ), helper_timeout)

    def find(self, registry: str) -> Login | None:
        """
        Return the credentials for a registry, `""` for Docker Hub.

        This may run a credential helper.
        """
        host = hostname(registry)
        for source, config in self.config.sources():
            login = self._from_helper(source, config, host) or self._from_entries(source, config, host)
            if login:
                return login
        return None

    def for_build(
        self,
        registries: Set[str],
        auth: AuthConfig | Mapping[str, AuthConfig] | None = None,
        *,
        more: Set[str] = frozenset(),
    ) -> dict[str, AuthConfig]:
        """
        Return the credentials to send with a build, by the registry's server.

        Credential helpers are only asked about *registries* and *more*: each may take seconds, and there may be many.

        Args:
            registries: The registries of the base images, `""` for Docker Hub.
            auth: Takes precedence over the configuration. A mapping has a registry for each; a single one is for the
                registry that it names itself, or else for the one in *registries*.
            more: The registries of other images that the build needs, which *auth* without a server is not for.

        Raises:
            InvalidOptionError: It is not clear which registry *auth* is for.
        """
        hosts = {hostname(registry) for registry in registries | more}
        auths = {server(host): login.auth for host, login in self._configured(hosts).items()}
        if isinstance(auth, AuthConfig):
            auth = {auth.server_address or _only(registries): auth}
        for registry, own in (auth or {}).items():
            login = with_server(own, hostname(registry))
            auths[str(login.server_address)] = login
        return auths

    def _configured(self, hosts: Set[str]) -> dict[str, Login]:
        """Return the credentials from all entries, and from helpers for *hosts* only."""
        logins: dict[str, Login] = {}
        for source, config in reversed(list(self.config.sources())):
            for host in {hostname(key) for key in mapping(config.get("auths"))} - hosts:
                if login := self._from_entries(source, config, host):
                    logins[host] = login
        for host in hosts:
            if login := self.find(host):
                logins[host] = login
        return logins

    def _from_entries(self, source: str, config: Mapping[str, Any], host: str) -> Login | None:
        """Return the credentials that the configuration itself contains."""
        if not isinstance(config.get("auths") or {}, dict):
            self.config.warn(source, "its 'auths' is not an object")
        entries = mapping(config.get("auths"))
        keys = [key for key in entries if hostname(key) == host]
        # The server's own name takes precedence over other names and URLs of the same host, as in the docker CLI.
        for key in sorted(keys, key=lambda key: (key != server(host), key != host)):
            try:
                auth = _parse_entry(entries[key], host)
            except ValueError:
                self.config.warn(source, f"its entry for {host} is invalid")
            else:
                if auth:
                    return Login(auth, source)
        return None

    def _from_helper(self, source: str, config: Mapping[str, Any], host: str) -> Login | None:
        """Ask the configured helper for *host*, or else the one for all registries."""
        helpers = {hostname(key): value for key, value in mapping(config.get("credHelpers")).items()}
        # An empty entry is for a registry whose credentials are in the file itself.
        helper = helpers[host] if host in helpers else config.get("credsStore")
        if not helper:
            return None
        if not isinstance(helper, str) or not _HELPER_NAME.fullmatch(helper):
            self.config.warn(source, "it contains an invalid name of a credential helper")
            return None
        name = f"docker-credential-{helper}"
        try:
            auth = self._helpers.ask(name, host)
        except _HelperError as problem:
            self.config.warn(name, str(problem))
            return None
        return Login(auth, name) if auth else None


class _HelperError(Exception):
    """A helper cannot be used; the message contains none of its output."""


class _Helpers:
    """
    The credential helpers on the PATH.

    A helper that does not answer in time is not run again.
    """

    def __init__(self, environ: Mapping[str, str], timeout: float) -> None:
        self._environ = environ
        self._timeout = timeout
        self._calls: SingleFlight[AuthConfig | None] = SingleFlight()
        self._answers: dict[tuple[str, str], tuple[float, AuthConfig]] = {}
        self._hanging: set[str] = set()

    def ask(self, name: str, host: str) -> AuthConfig | None:
        """
        Return the credentials that the helper *name* has for a registry.

        Any failure is a `_HelperError`.
        """
        # A dozen pulls that start together ask once.
        return self._calls.call((name, host), lambda: self._recent(name, host) or self._ask(name, host))

    def _recent(self, name: str, host: str) -> AuthConfig | None:
        asked_at, auth = self._answers.get((name, host), (0.0, None))
        return auth if _clock.monotonic() - asked_at < _REUSE_SECONDS else None

    def _ask(self, name: str, host: str) -> AuthConfig | None:
        if name in self._hanging:
            return None
        exit_code, answer = self._run(name, host)
        if b"credentials not found" in answer.data.lower():
            log.debug("%s has no credentials for %s", name, host)
            return None
        if exit_code:
            raise _HelperError(f"it failed with exit code {exit_code} when asked for {server(host)}")
        try:
            auth = _parse_answer(answer.data, host)
        except (ValueError, RecursionError):
            raise _HelperError(f"its answer for {server(host)} is not credentials") from None
        if auth:
            self._answers[name, host] = _clock.monotonic(), auth
        return auth

    def _run(self, name: str, host: str) -> tuple[int, _Answer]:
        """
        Return a helper's exit code and output.

        Its standard error is discarded, since it may contain secrets.
        """
        program = shutil.which(name, path=self._environ.get("PATH", ""))
        if not program:
            raise _HelperError("it was not found on PATH")
        answer = _Answer()
        try:
            exit_code = run_program(
                [program, "get"],
                self._environ,
                answer.add,
                stdin=server(host).encode(),
                timeout=self._timeout,
            )
        except subprocess.TimeoutExpired:
            self._hanging.add(name)
            raise _HelperError(
                f"it did not answer within {self._timeout:g} s and will not be asked again"
            ) from None
        except OSError as error:
            raise _HelperError(f"it cannot be started: {str(error.strerror).lower()}") from None
        return exit_code, answer


class _Answer:
    """The output of a helper, which no tool that shows variables shows."""

    def __init__(self) -> None:
        self.data = b""

    def add(self, data: bytes) -> None:
        """Add a piece of output."""
        self.data += data
        if len(self.data) > _ANSWER_BYTES:
            raise _HelperError(f"it printed more than {_ANSWER_BYTES} bytes")


def hostname(registry: str) -> str:
    """
    Return the host of a registry, with its port if there is one.

    The registry may be written as a URL or with a path. `""` is Docker Hub.
    """
    host = registry.strip().lower().rpartition("://")[2].partition("/")[0]
    return HUB if host in _HUB_NAMES else host


def server(host: str) -> str:
    """Return the name of a registry for engines and credential helpers."""
    return _HUB_SERVER if host == HUB else host


def with_server(auth: AuthConfig, host: str) -> AuthConfig:
    """
    Return credentials with the server that they are for.

    Docker's containerd image store takes those without a server for Docker Hub's.
    """
    return replace(auth, server_address=server(host))


def _only(registries: Set[str]) -> str:
    """
    Return the one registry that credentials without a server are for.

    The credentials must not be sent to another registry.
    """
    named = sorted(registries - {""})
    if len(named) > 1 or not registries:
        problem = f"several registries ({', '.join(named)})" if named else "no registry"
        raise InvalidOptionError(
            f"ambiguous auth: the Dockerfile names {problem}",
            hint="set server_address= to the registry that the credentials are for",
        )
    return named[0] if named else ""


def pull_header(auth: AuthConfig) -> SecretStr:
    """Return the value of `X-Registry-Auth` for a pull."""
    return _encode(_for_engine(auth))


def build_header(auths: Mapping[str, AuthConfig]) -> SecretStr:
    """Return the value of `X-Registry-Config`, from credentials by server."""
    return _encode({name: _for_engine(auth) for name, auth in auths.items()})


def config_entry(auth: AuthConfig) -> dict[str, str]:
    """Return credentials as an entry of `auths` in the docker CLI's configuration."""
    if auth.identity_token:
        return {"identitytoken": auth.identity_token}
    return {"auth": base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()}


def _encode(value: Mapping[str, object]) -> SecretStr:
    return SecretStr(base64.urlsafe_b64encode(json.dumps(value).encode()).decode())


def _for_engine(auth: AuthConfig) -> SecretDict[str]:
    fields = {
        "username": auth.username,
        "password": auth.password,
        "serveraddress": auth.server_address,
        "identitytoken": auth.identity_token,
    }
    return SecretDict({key: value for key, value in fields.items() if value})


def _parse_entry(entry: object, host: str) -> AuthConfig | None:
    """
    Return the credentials in an entry of `auths`.

    The result is `None` if the entry only refers to a helper.
    """
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    entry = {key.lower(): value for key, value in entry.items()}  # the docker CLI accepts any case
    values = [entry.get(key) or "" for key in ("auth", "username", "password", "identitytoken")]
    if not all(isinstance(value, str) for value in values):
        raise ValueError("not strings")
    encoded, user, password, token = values
    if encoded:
        decoded = base64.b64decode("".join(encoded.split()), validate=True).decode()
        user, colon, password = decoded.partition(":")
        if not colon:
            raise ValueError("no colon")
    return _auth(user, password.strip("\0"), token, host)


def _parse_answer(answer: bytes, host: str) -> AuthConfig | None:
    """
    Return the credentials that a helper printed, `None` if they are empty.

    Any other output is a `ValueError`.
    """
    fields = mapping(json.loads(answer))
    user, secret = fields.get("Username"), fields.get("Secret")
    if not isinstance(user, str) or not isinstance(secret, str):
        raise ValueError("not strings")
    return _auth("", "", secret, host) if user == "<token>" else _auth(user, secret, "", host)


def _auth(user: str, password: str, token: str, host: str) -> AuthConfig | None:
    if not (user and password) and not token:
        return None
    return AuthConfig(user, password, server_address=server(host), identity_token=token or None)
