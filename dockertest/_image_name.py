"""Names of images, such as "postgres:15" or "host:5000/app@sha256:…". Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dockertest._validation import format_value, parse_str
from dockertest.errors import InvalidOptionError

# The grammar of https://github.com/distribution/reference, except for its limit of 255 characters.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?", re.ASCII)
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST = re.compile(
    r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}"
    r"|(?!sha256:|sha512:)[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}",
    re.ASCII,
)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_BARE_ID = re.compile(r"[0-9a-f]{12,64}", re.ASCII)


@dataclass(frozen=True)
class ImageName:
    """
    The name of an image.

    Attributes:
        repository: The registry, if the name has one, and the path; or the id of an image, `"sha256:…"`.
        tag: The tag; empty if there is only a digest, and for an id.
        digest: The digest; empty if there is none.
    """

    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return self.repository + tag + digest

    @property
    def is_id(self) -> bool:
        """Whether this is the id of an image, which can be neither pulled nor prefixed."""
        return bool(_IMAGE_ID.fullmatch(self.repository))

    @property
    def may_be_id(self) -> bool:
        """
        Whether this may also be the beginning of an image's id.

        `docker images` prints ids in this form.
        """
        return bool(_BARE_ID.fullmatch(self.repository)) and self.tag == "latest" and not self.digest

    @property
    def registry(self) -> str:
        """The registry in the name, or `""` if the engine chooses it."""
        first, slash, _ = self.repository.partition("/")
        is_registry = first == "localhost" or "." in first or ":" in first or first != first.lower()
        return first if slash and is_registry else ""

    @property
    def path(self) -> str:
        """The repository without its registry."""
        return self.repository.removeprefix(f"{self.registry}/") if self.registry else self.repository

    def prefixed(self, prefix: str) -> ImageName:
        """Return the name with *prefix* in front, unless it has a registry or is an id."""
        if not prefix or self.registry or self.is_id:
            return self
        return ImageName(prefix.rstrip("/") + "/" + self.repository, self.tag, self.digest)


def parse_image_name(field: str, repository: object, tag: str | None = None) -> ImageName:
    """
    Return the parsed name or id of an image.

    Examples of names are `"postgres"`, `"postgres:15"` and `"host:5000/team/app@sha256:…"`.

    Args:
        field: The name of the field, for messages; the tag's is `tag`.
        repository: The name, with or without a tag and a digest.
        tag: The tag, unless *repository* has one; `latest` by default.
    """
    text = parse_str(field, repository)
    name = _parse_reference(field, text)
    has_version = bool(name.tag or name.digest or name.is_id)
    if tag is None or (isinstance(tag, str) and not tag):
        return name if has_version else ImageName(name.repository, "latest")
    if not isinstance(tag, str) or not _TAG.fullmatch(tag):
        raise _invalid_tag(tag)
    if has_version:
        raise InvalidOptionError(
            f"tag: {tag!r} is a second tag: {field} is {text!r}", hint="set only one of the two"
        )
    return ImageName(name.repository, tag)


def _parse_reference(field: str, text: str) -> ImageName:
    if _IMAGE_ID.fullmatch(text):
        return ImageName(text)
    before, at, digest = text.partition("@")
    folder, slash, last = before.rpartition("/")
    last, colon, tag = last.partition(":")
    name = ImageName(folder + slash + last, tag, digest)
    is_valid = (
        _PATH.fullmatch(name.path)
        and (not name.registry or _REGISTRY.fullmatch(name.registry))
        and (not colon or _TAG.fullmatch(tag))
        and (not at or _DIGEST.fullmatch(digest))
    )
    if not is_valid:
        raise InvalidOptionError(
            f"{field}: invalid image name {format_value(text)}: expected one such as 'postgres:15' or 'registry:5000/team/app'"
        )
    return name


def _invalid_tag(tag: object) -> InvalidOptionError:
    """
    Return the error for an invalid tag, without values that may be secret.

    An environment may have been passed in its place.
    """
    if isinstance(tag, Mapping) or "=" in format_value(tag):
        return InvalidOptionError(
            "tag: expected an image tag, got an environment (the value is not shown, since it may be a secret)",
            hint="pass it as env=",
        )
    if isinstance(tag, float) or (isinstance(tag, int) and not isinstance(tag, bool)):
        return InvalidOptionError(
            f"tag: invalid image tag {format_value(tag)}: expected a string", hint="put it in quotation marks"
        )
    return InvalidOptionError(
        f"tag: invalid image tag {format_value(tag)}: expected one such as '15' or '15-alpine'"
    )
