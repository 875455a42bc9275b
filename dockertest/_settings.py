"""The environment variables of dockertest, read once when a `Pool` is made."""

from __future__ import annotations

import os
import re
import secrets
import stat
import sys
import tempfile
import zlib
from collections.abc import Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dockertest import _image_name, _validation
from dockertest._secret import SecretStr
from dockertest.errors import InvalidOptionError

RUN_ID = "DOCKERTEST_RUN_ID"
ENDPOINTS = "DOCKERTEST_ENDPOINTS"
FAILED = "failed"
_MADE_RUN_ID = re.compile(r"(?:pytest|random)-[0-9a-f]{32}|process-\d+-\d+")
_NUMBER = re.compile(r"\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    The environment variables that a pool obeys, parsed.

    Attributes:
        environ: A copy of the whole environment, for programs that the pool starts.
        image_prefix: `DOCKERTEST_IMAGE_PREFIX`; empty if unset.
        platform: `DOCKER_DEFAULT_PLATFORM`; empty if unset.
        publish_ip: `DOCKERTEST_PUBLISH_IP`; empty if unset.
        host_override: `DOCKERTEST_HOST_OVERRIDE`; empty if unset.
        ttl: `DOCKERTEST_TTL` in seconds; `None` if unset.
        run_id: `DOCKERTEST_RUN_ID`, the test run that this process belongs to.
        keep: Whether `DOCKERTEST_KEEP` is 1.
        keep_failed: Whether it is "failed".
        reaper: Whether `DOCKERTEST_REAPER` allows the reaper.
        prepared_unused: `DOCKERTEST_PREPARED_UNUSED` in seconds; 14 days if unset.
    """

    environ: Mapping[str, str] = field(repr=False)
    image_prefix: str
    platform: str
    publish_ip: str
    host_override: str
    ttl: float | None
    run_id: str
    keep: bool
    keep_failed: bool
    reaper: bool
    prepared_unused: float

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """
        Parse *environ*.

        Raises:
            InvalidOptionError: A variable has an invalid value.
        """
        ttl = environ.get("DOCKERTEST_TTL")
        keep = environ.get("DOCKERTEST_KEEP")
        return cls(
            environ=dict(environ),
            image_prefix=parse_image_prefix(
                "DOCKERTEST_IMAGE_PREFIX", environ.get("DOCKERTEST_IMAGE_PREFIX", "")
            ),
            platform=environ.get("DOCKER_DEFAULT_PLATFORM", ""),
            publish_ip=_validation.parse_ip_address(
                "DOCKERTEST_PUBLISH_IP", environ.get("DOCKERTEST_PUBLISH_IP")
            ),
            host_override=_validation.parse_host(
                "DOCKERTEST_HOST_OVERRIDE", environ.get("DOCKERTEST_HOST_OVERRIDE")
            ),
            ttl=_validation.parse_duration("DOCKERTEST_TTL", ttl) if ttl else None,
            run_id=environ.get(RUN_ID, ""),
            keep=keep != FAILED and bool(_validation.parse_switch("DOCKERTEST_KEEP", keep)),
            keep_failed=keep == FAILED,
            reaper=_validation.parse_switch("DOCKERTEST_REAPER", environ.get("DOCKERTEST_REAPER"))
            is not False,
            prepared_unused=prepared_unused(environ),
        )


@dataclass(slots=True)
class Defaults:
    """
    What a user may change on a pool at any time; its resources see the change.

    Attributes:
        max_wait: Seconds after which a wait gives up unless the call sets another limit.
        keep: Whether closing leaves everything standing.
        keep_failed: Whether it does after a failure.
    """

    max_wait: float = 60.0
    keep: bool = False
    keep_failed: bool = False


def parse_image_prefix(name: str, value: str) -> str:
    """Return *value* if it can stand before an image name; empty stands for none."""
    if _validation.parse_str(name, value):
        _image_name.parse_image_name(name, f"{value.rstrip('/')}/name")
    return value


def export_run_id(environ: MutableMapping[str, str]) -> None:
    """Set the test run's variable for this process and its children, unless set."""
    if not environ.get(RUN_ID):
        environ[RUN_ID] = _process_of_run() or f"random-{secrets.token_hex(16)}"


def parse_endpoints(environ: Mapping[str, str]) -> list[str]:
    """
    Return the endpoints in `DOCKERTEST_ENDPOINTS`, as they are written.

    Raises:
        InvalidOptionError: There are some, and `DOCKERTEST_HOST_OVERRIDE` has one address for all of them.
    """
    endpoints = list(dict.fromkeys(environ.get(ENDPOINTS, "").split()))
    if endpoints and environ.get("DOCKERTEST_HOST_OVERRIDE"):
        raise InvalidOptionError(
            f"{ENDPOINTS} cannot be combined with DOCKERTEST_HOST_OVERRIDE, which is the address of one engine",
            hint="unset one of them",
        )
    return endpoints


def placement(environ: Mapping[str, str]) -> int:
    """
    Return a number by which this process chooses an engine.

    The number is the same each time for this process of this run. It is the number of pytest-xdist's worker, else that
    of a worker of `multiprocessing` plus a hash of the run. A run that has no id by the user is known by its folder, so
    that the next one meets the containers that it reuses.
    """
    worker = _NUMBER.search(environ.get("PYTEST_XDIST_WORKER", ""))
    if worker:
        return int(worker[0])
    run = environ.get(RUN_ID, "")
    if not run or _MADE_RUN_ID.fullmatch(run):
        with suppress(OSError):  # The folder was removed.
            run = str(Path.cwd())
    module = sys.modules.get("multiprocessing.process")
    process = str(module.current_process().name).removeprefix("MainProcess") if module else ""
    number = _NUMBER.search(process)
    return zlib.crc32(run.encode(errors="replace")) + (
        int(number[0]) if number else zlib.crc32(process.encode())
    )


def _process_of_run() -> str:
    """
    Return an id for the process that began the run, or an empty string.

    The string is empty if that process cannot be determined. Workers of `multiprocessing`, Django's for example, find
    the same one even if their parent has made no pool.
    """
    module = sys.modules.get("multiprocessing.process")  # A worker has imported it.
    parent = module.parent_process() if module else None
    process = os.getpid() if parent is None else parent.pid
    try:
        # An earlier process with the same id was started at another time.
        status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        return f"process-{process}-{status.rpartition(')')[2].split()[19]}"
    except (OSError, IndexError):
        return ""


def prepared_unused(environ: Mapping[str, str]) -> float:
    """Return the seconds after its last use when a prepared image is removed."""
    value = environ.get("DOCKERTEST_PREPARED_UNUSED")
    return _validation.parse_duration("DOCKERTEST_PREPARED_UNUSED", value) if value else 14 * 86400.0


def required_reason(environ: Mapping[str, str]) -> str:
    """Return why tests must not be skipped without an engine; empty if they may be."""
    required = _validation.parse_switch("DOCKERTEST_REQUIRED", environ.get("DOCKERTEST_REQUIRED"))
    if required is not None:
        return "DOCKERTEST_REQUIRED is 1" if required else ""
    return "CI is set" if environ.get("CI", "").lower() not in ("", "0", "false") else ""


def state_folder(environ: Mapping[str, str]) -> Path:
    """
    Return the private folder for the locks of living sessions.

    It is created if it is missing. If no folder is private and writable, a path that does not exist is returned.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0
    home = Path(environ.get("XDG_STATE_HOME", ""))
    if not home.is_absolute():  # The XDG specification ignores relative paths; the reaper runs elsewhere.
        home = Path(os.path.expanduser("~/.local/state"))  # noqa: PTH111 - never raises; an unknown user's ~ stays
    folders = [home / "dockertest"] if home.is_absolute() else []
    with suppress(OSError):  # No temporary folder is writable.
        folders.append(Path(tempfile.gettempdir()) / f"dockertest-{user}")
    for folder in folders:
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _is_private(folder, user) and os.access(folder, os.W_OK):
                return folder
    # Opening a file there fails, and the error names the folder.
    return folders[0] / "not-private-or-not-writable" if folders else Path(os.sep, "dockertest")


def private_text(environ: Mapping[str, str], name: str) -> SecretStr:
    """
    Return a random text that this user's processes on this machine share.

    No other user can read it.

    Args:
        name: Which one; it is made when it is read for the first time.

    Raises:
        InvalidOptionError: It cannot be stored.
    """
    path = state_folder(environ) / name
    draft = path.with_name(f"{name}.{secrets.token_hex(4)}")
    try:
        if not path.exists():
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(16))
            with suppress(FileExistsError):
                os.link(draft, path)  # Atomic: of several processes, one wins.
            draft.unlink()
        return SecretStr(path.read_text(encoding="ascii"))
    except OSError as error:
        raise InvalidOptionError(
            f"cannot store a secret in {str(path)!r}: {error.strerror}",
            hint="set XDG_STATE_HOME to a folder that you can write to",
        ) from error


def _is_private(folder: Path, user: int) -> bool:
    """
    Return whether only this user can write to *folder*.

    Permissions that are too wide are removed from the folder. Another user may have created it, or a link in its place,
    to read or to plant the locks and records in it.
    """
    if not hasattr(os, "getuid"):
        return True
    if folder.lstat().st_uid != user:
        return False
    status = folder.stat()
    if status.st_uid != user or not stat.S_ISDIR(status.st_mode):
        return False
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    return True
