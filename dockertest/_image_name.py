"""The names of images, such as "postgres:15" or "registry:5000/team/app@sha256:…". Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dockertest._validation import shown, text
from dockertest.errors import InvalidOptionError

_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"


_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"


_REGISTRY = re.compile(rf"(?:{_HOST}|\[[0-9a-fA-F:]+\])(?::[0-9]+)?", re.ASCII)


_REPOSITORY = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*", re.ASCII)


_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)


_DIGEST = re.compile(
    r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
    r"|(?!sha256:|sha512:)[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}",
    re.ASCII,
)


_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Reference:
    """The name of an image; `tag` and `digest` are empty where not written."""

    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return (
            self.repository
            + (f":{self.tag}" if self.tag else "")
            + (f"@{self.digest}" if self.digest else "")
        )

    @property
    def is_id(self) -> bool:
        """Whether this is the id of an image, which can neither be pulled nor prefixed."""
        return bool(_IMAGE_ID.fullmatch(self.repository))

    @property
    def registry(self) -> str:
        """The registry that the name says, `""` if it leaves that to the engine."""
        first, slash, _ = self.repository.partition("/")
        return (
            first
            if slash and (first == "localhost" or "." in first or ":" in first or first != first.lower())
            else ""
        )

    def prefixed(self, prefix: str) -> "Reference":
        """Put *prefix* before a name that names no registry."""
        if not prefix or self.registry or self.is_id:
            return self
        return Reference(prefix.rstrip("/") + "/" + self.repository, self.tag, self.digest)


def reference(field: str, repository: object, tag: "str | None" = None) -> Reference:
    """Read an image's name: `"postgres"`, `"postgres:15"`, `"host:5000/team/app@sha256:…"`, or an image id."""
    written = text(field, repository)
    if _IMAGE_ID.fullmatch(written):
        found = Reference(written)
    else:
        name, at, digest = written.partition("@")
        head, slash, last = name.rpartition("/")
        last, colon, own_tag = last.partition(":")
        found = Reference(head + slash + last, own_tag, digest)
        path = found.repository[len(found.registry) + 1 :] if found.registry else found.repository
        well_formed = (
            _REPOSITORY.fullmatch(path)
            and (not found.registry or _REGISTRY.fullmatch(found.registry))
            and (not colon or _TAG.fullmatch(own_tag))
            and (not at or _DIGEST.fullmatch(digest))
        )
        if not well_formed:
            raise InvalidOptionError(
                f"{field}: {written!r} is no image name; write one such as 'postgres' or 'registry:5000/team/app'"
            )
    if tag is None or tag == "":
        return found if found.tag or found.digest or found.is_id else Reference(found.repository, "latest")
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise InvalidOptionError(f"tag: {_no_tag(tag)}")
    if found.tag or found.digest or found.is_id:
        raise InvalidOptionError(
            f"tag: {tag!r} is a second tag, since {field} says {written!r} already; give one of them"
        )
    return Reference(found.repository, tag)


def _no_tag(given: object) -> str:
    """Say what is wrong with a tag, without what may be an environment that was given in its place."""
    if isinstance(given, Mapping) or "=" in shown(given):
        return "an environment is no image tag (not shown here: it may be a secret); give it as env="
    if isinstance(given, float) or (isinstance(given, int) and not isinstance(given, bool)):
        return f"{shown(given)} is no image tag; write it as a string"
    return f"{shown(given)} is no image tag"
