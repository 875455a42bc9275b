"""
Turn the strings people write ("5432/tcp", "src:dst:ro", "repo:tag", "K=V") into values. Knows nothing of Docker.

Every function takes what was written and gives the one canonical form, or raises `InvalidOptionError` that names the
field. Each takes its own results as well, so that a value may be checked early and used late.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from dockertest.errors import InvalidOptionError

_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_HOST = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9_])?", re.ASCII)
_DRIVE = re.compile(r"[a-zA-Z]:[\\/]", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,18})([bkmg]?)b?", re.ASCII | re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(s|m|h|d)?", re.ASCII)
_MOUNT_MODE = re.compile(r"ro|rw|z|Z|U|nocopy|cached|delegated|consistent|r?shared|r?slave|r?private")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 10**9  # seconds: clocks and engines count nanoseconds in 64 bits
RESERVED_LABELS = "dockertest."


def text(field: str, value: object) -> str:
    """Give *value* back if it is a string that the engine can take."""
    if not isinstance(value, str):
        raise InvalidOptionError(f"{field} must be a string: got {shown(value)}")
    if "\0" in value:
        raise InvalidOptionError(f"{field} contains a NUL character")
    return value


def texts(field: str, values: object) -> tuple[str, ...]:
    """Give a sequence of strings as a tuple; one string alone is a mistake, since it would be taken apart."""
    if values is None:
        return ()
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        remedy = f"; write [{shown(values)}]" if isinstance(values, str) else ""
        if remedy and field in ("cmd", "entrypoint"):  # the engine would look for a program of that name
            remedy = f"; write each word apart, or ['sh', '-c', {shown(values)}] for a shell to do that"
        raise InvalidOptionError(f"{field} must be a sequence of strings: got {shown(values)}{remedy}")
    return tuple(text(f"{field}[{index}]", value) for index, value in enumerate(values))


def container_port(field: str, value: "str | int") -> str:
    """Give a container port as the engine writes it: `5432` and `"5432"` are `"5432/tcp"`."""
    match = _PORT.fullmatch(_digits(value))
    if match and 1 <= int(match[1]) <= 65535:
        return f"{int(match[1])}/{(match[2] or 'tcp').lower()}"
    raise InvalidOptionError(f"{field}: {shown(value)} is no port; write '5432/tcp', '5432' or 5432")


def container_ports(field: str, values: "Iterable[str | int]") -> tuple[str, ...]:
    """Give several container ports, each once and in the order written."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise InvalidOptionError(
            f"{field} must be a sequence of ports: got {shown(values)}; write [{shown(values)}]"
        )
    return tuple(dict.fromkeys(container_port(f"{field}[{i}]", value) for i, value in enumerate(values)))


def host_port(field: str, value: "str | int") -> str:
    """Give a port of the host; `""` is any free one, and so are `0` and `"0"`."""
    match = _PORT.fullmatch(_digits(value) or ("0" if value == "" else ""))
    if match and not match[2] and int(match[1]) <= 65535:
        return str(int(match[1])) if int(match[1]) else ""
    raise InvalidOptionError(
        f"{field}: {shown(value)} is no port of the host; write a number up to 65535, or '' for any free one"
    )


def address(field: str, value: object) -> str:
    """Give an IP address to publish on; `""` stands for the default."""
    if value is None or value == "":
        return ""
    with suppress(ValueError):
        if "%" not in str(value):  # engines take no zone, as in fe80::1%eth0
            return str(ipaddress.ip_address(str(value)))
    raise InvalidOptionError(f"{field}: {shown(value)} is no IP address; write one such as '127.0.0.1'")


def host(field: str, value: object) -> str:
    """Give the name or address of a host, an IPv6 address without its brackets; `""` stands for the default."""
    if value is None or value == "":
        return ""
    written = text(field, value)
    with suppress(ValueError):
        return str(ipaddress.ip_address(written[1:-1] if written[:1] + written[-1:] == "[]" else written))
    if _HOST.fullmatch(written):
        return written
    raise InvalidOptionError(
        f"{field}: {shown(value)} is no host; write a name or an IP address, without a port"
    )


def environment(field: str, value: object) -> tuple[str, ...]:
    """
    Give an environment, a mapping or `"K=V"` strings, as `"K=V"` strings.

    No value is ever shown in an error: environments hold passwords.
    """
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return tuple(_assignment(field, key, val) for key, val in value.items())
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise InvalidOptionError(
            f"{field} must be a mapping or a sequence of 'K=V' strings: got a value {_kind(value)}"
        )
    pairs = []
    for index, item in enumerate(value):
        if not isinstance(item, str) or "=" not in item:
            raise InvalidOptionError(
                f"{field}[{index}] is not of the form 'K=V' (not shown here: it may be a secret)"
            )
        pairs.append(_assignment(field, *item.split("=", 1)))
    return tuple(pairs)


def _assignment(field: str, key: object, value: object) -> str:
    if not isinstance(key, str) or not key or "=" in key or "\0" in key:
        name = shown(key.split("=", 1)[0]) if isinstance(key, str) else f"a key {_kind(key)}"
        raise InvalidOptionError(f"{field}: {name} is no name of an environment variable")
    if value is None or isinstance(value, (bytes, bytearray)):
        raise InvalidOptionError(
            f"{field}: the value of {key!r} is {_kind(value)}; give a string, or leave the key out"
        )
    try:
        written = str(value)
    except ValueError:
        raise InvalidOptionError(
            f"{field}: the value of {key!r} is a number of thousands of digits"
        ) from None
    if "\0" in written:
        raise InvalidOptionError(f"{field}: the value of {key!r} contains a NUL character")
    return f"{key}={written}"


def labels(field: str, value: "Mapping[str, str]") -> dict[str, str]:
    """Give labels as a dict; those that begin with `dockertest.` are refused."""
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f"{field} must be a mapping: got {shown(value)}")
    for key, val in value.items():
        if not text(f"{field}: a key", key):
            raise InvalidOptionError(f"{field}: a key is empty")
        if key.startswith(RESERVED_LABELS):
            raise InvalidOptionError(
                f"{field}: {key!r} is reserved; labels beginning with 'dockertest.' are dockertest's own"
            )
        text(f"{field}[{key!r}]", val)
    return dict(value)


def container_name(field: str, value: object) -> str:
    """Give a container's or network's name that engines accept; `""` leaves the choice to the engine."""
    if value is None or value == "":
        return ""
    if isinstance(value, str) and _CONTAINER_NAME.fullmatch(value):
        return value
    raise InvalidOptionError(
        f"{field}: {shown(value)} is no name that engines accept; use two or more of a-z A-Z 0-9 _ . -, beginning with a letter or digit"
    )


@dataclass(frozen=True)
class Mount:
    """A host folder or a named volume, and where it appears in the container."""

    source: str
    target: str
    modes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ":".join([self.source, self.target, *([",".join(self.modes)] if self.modes else [])])

    @property
    def is_bind(self) -> bool:
        """Whether the source is a path of the engine's host, not the name of a volume."""
        return self.source.startswith("/") or bool(_DRIVE.match(self.source))


def mount(field: str, value: "str | Mount") -> Mount:
    """Read `"source:target[:mode]"`; the source is an absolute path (Windows drives too) or a volume's name."""
    written = text(field, str(value) if isinstance(value, Mount) else value)
    drive = 2 if _DRIVE.match(written) else 0
    source, *rest = written[drive:].split(":")
    source = written[:drive] + source
    modes = tuple(rest[1].split(",")) if len(rest) == 2 else ()
    if (
        len(rest) not in (1, 2)
        or not rest[0].startswith("/")
        or not all(_MOUNT_MODE.fullmatch(mode) for mode in modes)
        or {"ro", "rw"} <= set(modes)
    ):
        raise InvalidOptionError(
            f"{field}: {written!r} is no mount; write '/host/path:/container/path', ':ro' behind it to make it read-only"
        )
    found = Mount(source, rest[0], modes)
    if not found.is_bind and not _CONTAINER_NAME.fullmatch(source):
        raise InvalidOptionError(
            f"{field}: {source!r} is neither an absolute path nor the name of a volume; write an absolute path"
        )
    return found


def size(field: str, value: "int | str | None") -> "int | None":
    """Give a size in bytes: `67108864`, or `"64m"` with a unit of `b`, `k`, `m` or `g`."""
    if value is None:
        return None
    match = _SIZE.fullmatch(_digits(value))
    found = int(match[1]) << 10 * "bkmg".index(match[2].lower() or "b") if match else 0
    if not 0 < found < 10**18:
        raise InvalidOptionError(f"{field}: {shown(value)} is no size; write bytes, or '64m'")
    return found


def seconds(field: str, value: object) -> float:
    """Give a length of time in seconds; not negative, not endless."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _LONGEST:
        return float(value)
    raise InvalidOptionError(
        f"{field} must be a number of seconds from 0 to 1,000,000,000: got {shown(value)}"
    )


def boolean(field: str, value: object) -> bool:
    """Give *value* back if it is `True` or `False`."""
    if not isinstance(value, bool):
        raise InvalidOptionError(f"{field} must be True or False: got {shown(value)}")
    return value


def switch(field: str, value: "str | None") -> "bool | None":
    """Read a `1` or `0` of the environment; `None` where nothing is said."""
    if value not in (None, "", "0", "1"):  # a typing error must not turn anything on or off
        raise InvalidOptionError(f"{field}: {shown(value)} is neither 1 nor 0")
    return value == "1" if value else None


def duration(field: str, value: "str | float") -> float:
    """Read a length of time as people write it in an environment variable, `"90"` or `"2h"`, in seconds."""
    if not isinstance(value, str):
        return seconds(field, value)
    match = _DURATION.fullmatch(value.strip())
    found = float(match[1]) * _UNITS[match[2] or "s"] if match else -1.0
    if not 0 <= found <= _LONGEST:
        raise InvalidOptionError(
            f"{field}: {shown(value)} is no length of time; write seconds, or '90s', '30m', '2h', '1d'"
        )
    return found


def _digits(value: object) -> str:
    """Give what was written where a number may be given as such or as a string; `""` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if 0 <= value < 10**18 else ""
    return value if isinstance(value, str) else ""


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def shown(value: object) -> str:
    """Show a value in an error, shortened; whatever it is, that is no second error."""
    try:
        written = repr(value)
    except ValueError:  # a whole number of more digits than Python prints
        return "a number of thousands of digits"
    return written if len(written) <= 80 else written[:77] + "..."
