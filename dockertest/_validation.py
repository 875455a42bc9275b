"""
Parse values such as "5432/tcp", "src:dst:ro", "64m" and "K=V" into typed ones.

Parsing has no side effects.

Each `parse_` function takes the name of the field or argument, for messages, and the value. It returns the canonical form
or raises `InvalidOptionError`. It also accepts its own results, so that options made of other options stay the same.
"""

from __future__ import annotations

import inspect
import ipaddress
import json
import os
import posixpath
import re
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Container,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dockertest._secret import Assignment, SecretDict
from dockertest.errors import InvalidOptionError

RESERVED_LABELS = "dockertest."
_PORT = re.compile(r"([0-9]{1,5})(?:/(tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_PORT_RANGE = re.compile(r"([0-9]{1,5})-([0-9]{1,5})(/(?:tcp|udp|sctp))?", re.ASCII | re.IGNORECASE)
_CPUS = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}", re.ASCII)
_DEVICE_MODE = re.compile(r"r?w?m?")
_RESTART = re.compile(r"no|always|on-failure(?::[1-9][0-9]{0,8})?", re.ASCII)
_CONTAINER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_HOST = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9_])?", re.ASCII)
_DRIVE = re.compile(r"[a-zA-Z]:[\\/]", re.ASCII)
_SIZE = re.compile(
    r"([0-9]{1,18}|[0-9]{0,9}\.[0-9]{1,9}(?=[kmg]))([bkmg]?)b?",
    re.ASCII | re.IGNORECASE,
)
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(s|m|h|d)?", re.ASCII)
_MOUNT_MODE = re.compile(r"ro|rw|z|Z|U|nocopy|cached|delegated|consistent|r?shared|r?slave|r?private")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_SECONDS = 10**9  # Clocks and engines count nanoseconds in 64 bits.
_MAX_BYTES = 10**18
_MAX_RETRIES = 10**9
_MAX_HOSTNAME_BYTES = 64  # of sethostname(2)
_UNSHOWN = "the value is not shown, since it may be a secret"
_ULIMITS = (  # noqa: SIM905 - as in setrlimit(2), and what engines know
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
).split()

_OWNER = re.compile(r"([0-9]{1,10}):([0-9]{1,10})", re.ASCII)
_MAX_ID = 2**32 - 1  # The last one means "unchanged".
_ENGINE_KEY = re.compile(r"[A-Z][A-Za-z0-9]*", re.ASCII)
_SIGNALS = (  # noqa: SIM905 - those of Linux by number, which containers have on every host
    "0 HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU "
    "XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
_REAL_TIME_SIGNAL = re.compile(r"RTM(?:IN(?:\+[0-9]{1,2})?|AX(?:-[0-9]{1,2})?)", re.ASCII)


class HasId(Protocol):
    """
    Anything with an id that can be used as a network.

    Examples are a `Network` and a network of the docker SDK.
    """

    @property
    def id(self) -> str | None: ...


class HasName(Protocol):
    """
    Anything with a name that can be mounted as a volume.

    Examples are a `Volume` and a volume of the docker SDK.
    """

    @property
    def name(self) -> str | None: ...


NetworkSpec = str | HasId
MountSpec = str | tuple[HasName | os.PathLike[str], str] | tuple[HasName | os.PathLike[str], str, str]
Healthcheck = str | Mapping[str, Any]


def parse_str(field: str, value: object) -> str:
    """Return *value* if it is a string that can be sent to an engine."""
    if not isinstance(value, str):
        raise InvalidOptionError(f"{field} must be a string: got {format_value(value)}")
    if problem := unsendable(value):
        raise InvalidOptionError(f"{field} contains {problem}: {format_value(value)}")
    return value


def parse_hostname(field: str, value: object) -> str:
    """Return a host name that Linux accepts; `None` is `""`."""
    name = parse_optional_str(field, value)
    if len(name.encode()) > _MAX_HOSTNAME_BYTES:
        raise InvalidOptionError(
            f"{field}: {format_value(name)} is too long: expected at most {_MAX_HOSTNAME_BYTES} bytes"
        )
    return name


def parse_optional_str(field: str, value: object) -> str:
    """Return a string that can be sent to an engine; `None` is `""`."""
    return "" if value is None else parse_str(field, value)


def unsendable(text: str) -> str:
    """
    Describe a character in a string that cannot be sent to an engine.

    The description is empty if all characters can be sent.
    """
    if "\0" in text:
        return "a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:  # The engine would silently replace it by U+FFFD.
        return "a lone surrogate, which UTF-8 cannot encode"
    return ""


def parse_strings(field: str, values: object) -> tuple[str, ...]:
    """
    Return a sequence of strings as a tuple.

    A single string is refused, since it would be split into characters.
    """
    if values is None:
        return ()
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        hint = f"use [{format_value(values)}]" if isinstance(values, str) else ""
        if hint and field in ("cmd", "entrypoint"):  # The engine would look for a program of that name.
            hint = f"use one string per word, or ['sh', '-c', {format_value(values)}] to run it in a shell"
        raise InvalidOptionError(
            f"{field} must be a sequence of strings: got {format_value(values)}", hint=hint
        )
    return tuple(parse_str(f"{field}[{index}]", value) for index, value in enumerate(values))


def parse_bool(field: str, value: object) -> bool:
    """Return *value* if it is `True` or `False`."""
    if not isinstance(value, bool):
        raise InvalidOptionError(f"{field} must be True or False: got {format_value(value)}")
    return value


def parse_switch(field: str, value: str | None) -> bool | None:
    """
    Return the `1` or `0` of an environment variable as a boolean.

    Return `None` if the variable is unset or empty.
    """
    if value not in (None, "", "0", "1"):  # A typing error must not turn anything on or off.
        raise InvalidOptionError(f"{field}: invalid value {format_value(value)}: expected 1 or 0")
    return value == "1" if value else None


def parse_port(field: str, value: str | int) -> str:
    """
    Return a container port as engines write it, such as `"5432/tcp"`.

    `5432` and `"5432"` mean `"5432/tcp"`.
    """
    match = _PORT.fullmatch(_number(value))
    if match and 1 <= int(match[1]) <= 65535:
        return f"{int(match[1])}/{(match[2] or 'tcp').lower()}"
    raise InvalidOptionError(
        f'{field}: invalid port {format_value(value)}: expected "5432/tcp", "5432" or 5432'
    )


def parse_ports(field: str, values: Iterable[str | int]) -> tuple[str, ...]:
    """Return container ports in the given order, once each, with ranges expanded."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        hint = f"use [{format_value(values)}]" if isinstance(values, (str, int)) else ""
        if isinstance(values, Mapping):
            hint = "bind ports of the host with port_bindings="
        raise InvalidOptionError(
            f"{field} must be a sequence of ports: got {format_value(values)}", hint=hint
        )
    ports: dict[str, None] = {}
    for index, value in enumerate(values):
        ports.update(dict.fromkeys(parse_port_range(f"{field}[{index}]", value)))
    return tuple(ports)


def parse_host_ports(field: str, values: Iterable[str | int]) -> tuple[int, ...]:
    """Return TCP ports of the host as numbers, each of them once."""
    ports = parse_ports(field, values)
    for port in ports:
        if not port.endswith("/tcp"):
            raise InvalidOptionError(f"{field}: only TCP ports are supported: got {port!r}")
    return tuple(int(port.partition("/")[0]) for port in ports)


def parse_port_range(field: str, value: str | int) -> tuple[str, ...]:
    """Return the container ports of a port or a range such as `"7000-7003/udp"`."""
    match = _PORT_RANGE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        return (parse_port(field, value),)
    first, last = int(match[1]), int(match[2])
    if not 1 <= first <= last <= 65535:
        raise InvalidOptionError(
            f'{field}: invalid range of ports {value!r}: expected one such as "7000-7003"'
        )
    protocol = (match[3] or "/tcp").lower()
    return tuple(f"{port}{protocol}" for port in range(first, last + 1))


def parse_host_port(field: str, value: str | int) -> str:
    """
    Return a port of the host, or a range of them, as a string.

    `""`, `0` and `"0"` mean any free port and return `""`.
    """
    text = "0" if isinstance(value, str) and not value else _number(value)
    if match := _PORT_RANGE.fullmatch(text):
        first, last = int(match[1]), int(match[2])
        if not match[3] and 1 <= first <= last <= 65535:
            return f"{first}-{last}" if first < last else str(first)
    match = _PORT.fullmatch(text)
    if match and not match[2] and int(match[1]) <= 65535:
        return str(int(match[1])) if int(match[1]) else ""
    raise InvalidOptionError(
        f'{field}: invalid host port {format_value(value)}: expected a number up to 65535, a range such as "9000-9010", '
        'or "" for any free port'
    )


def parse_ip_address(field: str, value: object) -> str:
    """
    Return an IP address in its canonical form.

    `None` and `""` mean the default and return `""`.
    """
    if _is_default(value):
        return ""
    with suppress(ValueError):
        is_address = isinstance(value, (str, ipaddress.IPv4Address, ipaddress.IPv6Address))
        if is_address and "%" not in str(value):  # Engines accept no zone, as in fe80::1%eth0.
            return str(ipaddress.ip_address(str(value)))
    raise InvalidOptionError(
        f'{field}: invalid IP address {format_value(value)}: expected one such as "127.0.0.1" or "::1"'
    )


def parse_ip_addresses(field: str, values: object) -> tuple[str, ...]:
    """Return a sequence of IP addresses as a tuple, each as it was written."""
    addresses = parse_strings(field, values)
    for index, address in enumerate(addresses):
        if not parse_ip_address(f"{field}[{index}]", address):
            raise InvalidOptionError(f"{field}[{index}] must be an IP address: got ''")
    return addresses


def parse_host(field: str, value: object) -> str:
    """
    Return a host name, or an IP address without brackets.

    `None` and `""` mean the default and return `""`.
    """
    if _is_default(value):
        return ""
    host = parse_str(field, value)
    with suppress(ValueError):
        return str(ipaddress.ip_address(host[1:-1] if host[:1] + host[-1:] == "[]" else host))
    if _HOST.fullmatch(host):
        return host
    raise InvalidOptionError(
        f"{field}: invalid host {format_value(value)}: expected a name or an IP address, without a port"
    )


def parse_environment(field: str, value: object) -> tuple[Assignment, ...]:
    """
    Return an environment, written as a mapping or as strings, as `"K=V"` strings.

    No message shows a value, since environments contain passwords. Neither does the traceback of an error, which some
    tools print with all variables: it ends here, and this function forgets its argument.
    """
    try:
        return _parse_environment(field, value)
    except InvalidOptionError as error:
        raise error.with_traceback(None) from None
    finally:
        del value


def _parse_environment(field: str, value: object) -> tuple[Assignment, ...]:
    if value is None:
        return ()
    if isinstance(value, Mapping):
        return tuple(_parse_assignment(field, name, setting) for name, setting in value.items())
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise InvalidOptionError(
            f"{field} must be a mapping or a sequence of 'K=V' strings: got {_describe_type(value)}"
        )
    assignments = []
    for index, pair in enumerate(value):
        if not isinstance(pair, str) or "=" not in pair:
            raise InvalidOptionError(f"{field}[{index}] must have the form 'K=V' ({_UNSHOWN})")
        assignments.append(_parse_assignment(field, *pair.split("=", 1)))
    return tuple(assignments)


def _parse_assignment(field: str, name: object, value: object) -> Assignment:
    if not isinstance(name, str) or not name or "=" in name or unsendable(name):
        shown = format_value(name.split("=", 1)[0]) if isinstance(name, str) else _describe_type(name)
        raise InvalidOptionError(f"{field}: invalid name of a variable: {shown}")
    if value is None or isinstance(value, (bytes, bytearray)):
        raise InvalidOptionError(
            f"{field}: invalid value of {name!r}: expected a string, got {_describe_type(value)}",
            hint="leave the variable out to keep it unset" if value is None else "decode it first",
        )
    try:
        text = str(value)
    except Exception:  # noqa: BLE001 - such as a whole number of more than 4,300 digits
        text = None
    if text is None:  # Outside of the handler, since a chained exception might show the value.
        raise InvalidOptionError(
            f"{field}: invalid value of {name!r}: {_describe_type(value)} that cannot be converted to a string"
        )
    if problem := unsendable(text):
        raise InvalidOptionError(f"{field}: the value of {name!r} contains {problem} ({_UNSHOWN})")
    return Assignment(f"{name}={text}")


def parse_labels(field: str, value: Mapping[str, str]) -> dict[str, str]:
    """Return labels as a new dict; those that begin with `dockertest.` are refused."""
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f"{field} must be a mapping: got {format_value(value)}")
    for name, text in value.items():
        if not parse_str(f"{field}: name of a label", name):
            raise InvalidOptionError(f"{field}: the name of a label is empty")
        if name.startswith(RESERVED_LABELS):
            raise InvalidOptionError(
                f"{field}: {name!r} is reserved: labels beginning with 'dockertest.' are set by dockertest itself"
            )
        parse_str(f"{field}[{name!r}]", text)
    return dict(value)


def parse_name(field: str, value: object) -> str:
    """
    Return the name of a container, network or volume.

    `None` and `""` leave the choice to the engine and return `""`.
    """
    if _is_default(value):
        return ""
    if isinstance(value, str) and _CONTAINER_NAME.fullmatch(value):
        return value
    raise InvalidOptionError(
        f"{field}: invalid name {format_value(value)}: expected two or more of a-z A-Z 0-9 _ . -, "
        "beginning with a letter or a digit"
    )


@dataclass(frozen=True, slots=True)
class Mount:
    """
    A host folder or a named volume, mounted in a container.

    Attributes:
        source: An absolute path on the engine's host, or the name of a volume.
        target: An absolute path in the container.
        modes: Modes such as `"ro"`.
    """

    source: str
    target: str
    modes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ":".join([self.source, self.target, *([",".join(self.modes)] if self.modes else [])])

    @property
    def is_bind(self) -> bool:
        """Whether the source is a path on the engine's host, not the name of a volume."""
        return self.source.startswith("/") or bool(_DRIVE.match(self.source))


def parse_mount(field: str, value: MountSpec | Mount) -> Mount:
    """
    Return the mount that a string or a tuple describes.

    The forms are `"source:target[:mode,…]"` and `(source, target[, mode])`, where the source is a volume or a local path. A
    source may be a path on Windows.
    """
    if isinstance(value, Mount):
        return value
    if isinstance(value, tuple):
        return _parse_mount_tuple(field, value)
    text = parse_str(field, value)
    drive = 2 if _DRIVE.match(text) else 0
    source, *rest = text[drive:].split(":")
    source = text[:drive] + source
    modes = tuple(rest[1].split(",")) if len(rest) == 2 else ()
    if len(rest) not in (1, 2) or not _is_mounted_at(rest[0], modes):
        raise InvalidOptionError(
            f"{field}: invalid mount {text!r}: expected '/host/path:/container/path', or with ':ro' at its end"
        )
    mount = Mount(source, rest[0], modes)
    if not mount.is_bind and not _CONTAINER_NAME.fullmatch(source):
        raise InvalidOptionError(
            f"{field}: invalid source of a mount {source!r}: neither an absolute path nor the name of a volume",
            hint="use an absolute path",
        )
    return mount


def _parse_mount_tuple(field: str, value: tuple[object, ...]) -> Mount:
    words = [word for word in value[1:] if isinstance(word, str) and word and not unsendable(word)]
    if len(value) - 1 == len(words) in (1, 2):
        modes = tuple(words[1].split(",")) if len(words) == 2 else ()
        source = _mount_source(field, value)
        if source and ":" not in words[0] and _is_mounted_at(words[0], modes):
            return Mount(source, words[0], modes)
    raise InvalidOptionError(
        f"{field}: invalid mount {format_value(value)}: expected (volume, '/container/path') or "
        "(pathlib.Path('/host/path'), '/container/path'), or with 'ro' at its end"
    )


def _mount_source(field: str, value: tuple[object, ...]) -> str:
    """Return the path or the volume's name at the beginning of a tuple, else `""`."""
    if isinstance(value[0], os.PathLike):
        parse_local_path(field, value[0])
        path = parse_str(field, os.fspath(value[0]))  # as written: the engine's host may have another system
        if not path.startswith("/") and not _DRIVE.match(path):
            raise InvalidOptionError(
                f"{field}: invalid source of a mount {format_value(value[0])}: expected an absolute path",
                hint="use Path.absolute(), or the name of a volume in a string such as 'data:/data'",
            )
        return "" if ":" in path[2 if _DRIVE.match(path) else 0 :] else path
    name = getattr(value[0], "name", None)
    if getattr(value[0], "id", name) != name:  # The id of a volume is its name.
        raise InvalidOptionError(
            f"{field}: {format_value(value[0])} is not a volume", hint="use Pool.create_volume()"
        )
    return name if isinstance(name, str) and _CONTAINER_NAME.fullmatch(name) else ""


def _is_mounted_at(target: str, modes: Sequence[str]) -> bool:
    is_known = all(_MOUNT_MODE.fullmatch(mode) for mode in modes)
    return target.startswith("/") and is_known and not {"ro", "rw"} <= set(modes)


def parse_mounts(field: str, values: object) -> tuple[Mount, ...]:
    """Return mounts as a tuple."""
    if values is None:
        return ()
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        hint = f"use [{format_value(values)}]" if isinstance(values, str) else ""
        raise InvalidOptionError(
            f"{field} must be a sequence of strings and tuples: got {format_value(values)}", hint=hint
        )
    return tuple(parse_mount(f"{field}[{index}]", value) for index, value in enumerate(values))


def parse_size(field: str, value: int | str | None) -> int | None:
    """
    Return a size such as `67108864`, `"64m"` or `"1.5g"` in bytes.

    The units `b`, `k`, `m` and `g` are powers of 1024. A fraction of a byte is dropped.
    """
    if value is None:
        return None
    match = _SIZE.fullmatch(_number(value))
    size = 0
    if match:
        whole, _, fraction = match[1].partition(".")
        size = (int(whole + fraction) << 10 * "bkmg".index(match[2].lower() or "b")) // 10 ** len(fraction)
    if not 0 < size < _MAX_BYTES:
        raise InvalidOptionError(
            f'{field}: invalid size {format_value(value)}: expected bytes, or a string such as "64m" or "1.5g"'
        )
    return size


def parse_cpus(field: str, value: float | str | None) -> float | None:
    """Return a number of processors, at least 0.01: `1.5` or `"1.5"`."""
    if value is None:
        return None
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number or (isinstance(value, str) and _CPUS.fullmatch(value)):
        with suppress(OverflowError):
            cpus = float(value)
            if 0.01 <= cpus <= 10**6:
                return cpus
    raise InvalidOptionError(
        f"{field}: invalid number of processors {format_value(value)}: expected one from 0.01, such as 1.5"
    )


def parse_gpus(field: str, value: int | str | None) -> int | str | None:
    """Return `"all"` or a number of GPUs."""
    if value is None:
        return None
    count = _number(value)
    if count == "all":
        return "all"
    if count.isascii() and count.isdigit() and 0 < len(count) < 5 and int(count):
        return int(count)
    raise InvalidOptionError(
        f"{field}: invalid number of GPUs {format_value(value)}: expected 'all' or 1 or more"
    )


def parse_ulimits(field: str, value: object) -> dict[str, tuple[int, int]]:
    """
    Return the soft and hard limit of each resource.

    The limits are written as a mapping or as `"name=soft:hard"` strings.
    """
    return {
        name: _parse_ulimit(f"{field}[{name!r}]", name, limits)
        for name, limits in _parse_settings(field, value).items()
    }


def _parse_ulimit(field: str, name: str, value: object) -> tuple[int, int]:
    if name not in _ULIMITS:
        raise InvalidOptionError(f"{field}: unknown limit {name!r}: expected one of {', '.join(_ULIMITS)}")
    limits: Sequence[Any] = ()
    if isinstance(value, str):
        limits = value.split(":")
    elif isinstance(value, int):
        limits = (value,)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        limits = value
    numbers = [int(text) for text in map(_limit, limits) if text]
    if 0 < len(numbers) == len(limits) <= 2:
        soft, hard = numbers[0], numbers[-1]
        if hard == -1 or 0 <= soft <= hard:
            return soft, hard
    raise InvalidOptionError(
        f"{field}: invalid limit {format_value(value)}: expected a number, -1 for none, or (soft, hard)"
    )


def _limit(value: object) -> str:
    """Return the text of a limit; `""` if it is not one."""
    if value == "-1" if isinstance(value, str) else isinstance(value, int) and value == -1:
        return "-1"
    number = _number(value)
    return number if number.isascii() and number.isdigit() and len(number) < 19 else ""


def parse_sysctls(field: str, value: object) -> dict[str, str]:
    """
    Return kernel parameters as a new dict.

    The parameters are written as a mapping or as `"name=value"` strings.
    """
    parsed = {}
    for name, setting in _parse_settings(field, value).items():
        is_number = isinstance(setting, int) and not isinstance(setting, bool)
        parsed[name] = parse_str(f"{field}[{name!r}]", _number(setting) if is_number else setting)
        if not parsed[name]:
            raise InvalidOptionError(
                f"{field}[{name!r}]: invalid value {format_value(setting)}: expected a text"
            )
    return parsed


def _parse_settings(field: str, value: object) -> dict[str, object]:
    """Return names and values, written as a mapping or as `"name=value"` strings."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        pairs = []
        for index, text in enumerate(parse_strings(field, value)):
            name, equals, setting = text.partition("=")
            if not equals:
                raise InvalidOptionError(
                    f"{field}[{index}] must have the form 'name=value': got {format_value(text)}"
                )
            pairs.append((name, setting))
    for name, _ in pairs:
        if not parse_str(f"{field}: a name", name):
            raise InvalidOptionError(f"{field}: a name is empty: got {format_value(value)}")
    return dict(pairs)


@dataclass(frozen=True, slots=True)
class Device:
    """
    A device of the engine's host in a container.

    Attributes:
        source: Its path on the engine's host.
        target: Its path in the container.
        mode: Whether the container may read (`r`), write (`w`) and make (`m`) it.
    """

    source: str
    target: str
    mode: str = "rwm"

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{self.mode}"


def parse_device(field: str, text: str) -> Device:
    """Return the device that `"source[:target][:mode]"` describes."""
    source, *rest = text.split(":")
    mode = rest.pop() if rest and rest[-1] and _DEVICE_MODE.fullmatch(rest[-1]) else "rwm"
    target = rest[0] if rest else source
    if len(rest) > 1 or not (source.startswith("/") and target.startswith("/")):
        raise InvalidOptionError(
            f"{field}: invalid device {text!r}: expected '/dev/host', '/dev/host:/dev/container' or with ':r' at its end"
        )
    return Device(source, target, mode)


def parse_devices(field: str, values: object) -> tuple[Device, ...]:
    """Return devices as a tuple."""
    return tuple(
        parse_device(f"{field}[{index}]", value) for index, value in enumerate(parse_strings(field, values))
    )


def parse_pid_mode(field: str, value: object) -> str:
    """
    Return the PID namespace of a container.

    It determines whose processes the container sees. `None` and `""` mean its own and return `""`.
    """
    return _parse_namespace(field, value, ("host",))


def parse_ipc_mode(field: str, value: object) -> str:
    """
    Return the IPC namespace of a container.

    It determines whose shared memory the container uses. `None` and `""` mean the engine's default and return `""`.
    """
    return _parse_namespace(field, value, ("host", "private", "shareable", "none"))


def _parse_namespace(field: str, value: object, modes: Sequence[str]) -> str:
    if _is_default(value):
        return ""
    mode = parse_str(field, value)
    if mode in modes or (mode.startswith("container:") and mode != "container:"):
        return mode
    raise InvalidOptionError(
        f"{field}: invalid mode {mode!r}: expected {', '.join(map(repr, modes))} or 'container:NAME'"
    )


def parse_restart(field: str, value: object) -> str:
    """
    Return the restart policy of a container.

    It is `"no"`, `"always"`, `"on-failure"`, or one with a limit such as `"on-failure:3"`.
    """
    if isinstance(value, str) and _RESTART.fullmatch(value):
        return value
    raise InvalidOptionError(
        f"{field}: invalid policy {format_value(value)}: expected 'no', 'on-failure', 'on-failure:3' or 'always'"
    )


def parse_signal(field: str, value: str | int) -> str:
    """Return the name of a signal without `SIG`, or its number if it has no name."""
    name = value.upper().removeprefix("SIG") if isinstance(value, str) else ""
    if name in _SIGNALS[1:] or _REAL_TIME_SIGNAL.fullmatch(name):
        return name
    number = _number(value)
    if number.isascii() and number.isdigit() and len(number) < 3 and 1 <= int(number) <= 64:
        return _SIGNALS[int(number)] if int(number) < len(_SIGNALS) else number
    raise InvalidOptionError(
        f"{field}: invalid signal {format_value(value)}: expected a name such as 'TERM' or a number from 1 to 64"
    )


def parse_seconds(field: str, value: object) -> float:
    """Return a duration in seconds; it is neither negative nor infinite."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MAX_SECONDS:
        return float(value)
    raise InvalidOptionError(
        f"{field} must be a number of seconds from 0 to 1,000,000,000: got {format_value(value)}"
    )


def check_callable(field: str, value: object, argument: str) -> None:
    """Check that *value* can be called with *argument*, such as "a URL"."""
    if not callable(value):
        raise InvalidOptionError(
            f"invalid {field} {format_value(value)}: expected a callable that takes {argument}"
        )
    for function in (value, type(value).__call__):
        _check_kind(
            field,
            is_coroutine=inspect.iscoroutinefunction(function),
            is_generator=inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function),
        )


def check_has_run(field: str, result: object) -> None:
    """
    Check by its result that calling a function has run it.

    `check_callable` does not recognize a lambda that calls a coroutine function, for example.
    """
    if isinstance(result, Coroutine):
        result.close()  # Else Python warns that it was never awaited.
    _check_kind(
        field,
        is_coroutine=isinstance(result, Awaitable),
        is_generator=isinstance(result, (Generator, AsyncGenerator)),
    )


def _check_kind(field: str, *, is_coroutine: bool, is_generator: bool) -> None:
    if is_coroutine:
        raise InvalidOptionError(
            f"{field} is a coroutine function: expected a regular one",
            hint=f"wrap it: lambda argument: asyncio.run({field}(argument))",
        )
    if is_generator:
        raise InvalidOptionError(
            f"{field} is a generator function: expected a regular one", hint="write it without yield"
        )


def parse_statuses(field: str, value: object) -> Container[int]:
    """Return the expected statuses of an HTTP response, from one or several."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, Container) and not isinstance(value, (str, bytes)):
        return value
    raise InvalidOptionError(
        f"{field} must be a status such as 200, or several: got {format_value(value)}",
        hint="use a list or a range",
    )


def parse_url_path(field: str, value: object) -> str:
    """Return a path, with its query, that can be sent in an HTTP request."""
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value):
        raise InvalidOptionError(
            f"{field} must begin with '/' and consist of printable ASCII characters: got {format_value(value)}",
            hint="encode others with urllib.parse.quote()",
        )
    return value


def parse_headers(field: str, value: object) -> SecretDict[str]:
    """
    Return headers that can be sent in an HTTP request.

    Errors do not show the values of headers, which may be secret.
    """
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f"{field} must be a mapping of strings: got {_describe_type(value)}")
    headers: SecretDict[str] = SecretDict()
    for name, content in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise InvalidOptionError(f"{field}: {format_value(name)} is not the name of a header")
        if not isinstance(content, str) or not re.fullmatch(r"[\t -~\x80-\xff]*", content):
            raise InvalidOptionError(f"{field}: the value of {name!r} cannot be sent ({_UNSHOWN})")
        headers[name] = content
    return headers


def parse_duration(field: str, value: str | float) -> float:
    """
    Return a duration such as `90`, `"90"` or `"2h"` in seconds.

    The value comes from an environment variable or an argument.
    """
    if not isinstance(value, str):
        return parse_seconds(field, value)
    match = _DURATION.fullmatch(value.strip())
    seconds = float(match[1]) * _SECONDS[match[2] or "s"] if match else -1.0
    if not 0 <= seconds <= _MAX_SECONDS:
        raise InvalidOptionError(
            f"{field}: invalid duration {format_value(value)}: expected seconds, or '90s', '30m', '2h' or '1d'"
        )
    return seconds


def parse_tmpfs(field: str, value: Mapping[str, str] | Sequence[str]) -> dict[str, str]:
    """
    Return in-memory folders as a new dict of path to mount options.

    In a sequence, the options follow the path after a colon, as in `docker run --tmpfs`.
    """
    if isinstance(value, Mapping):
        folders = dict(value)
    else:
        parts = (text.partition(":") for text in parse_strings(field, value))
        folders = {path: options for path, _, options in parts}
    for path, options in folders.items():
        if not parse_str(f"{field}: a path", path).startswith("/"):
            raise InvalidOptionError(f"{field}: invalid path {path!r}: expected an absolute path")
        parse_str(f"{field}[{path!r}]", options)
    return folders


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthcheckSpec:
    """
    A health check; the image's own setting applies where one is `None`.

    Attributes:
        test: The engine's form of the command, such as `("CMD-SHELL", "pg_isready")`.
        interval: Seconds between two runs.
        timeout: Seconds that one run may take.
        start_period: Seconds during which a failure does not count.
        retries: Failures in a row that make the container unhealthy.
    """

    test: tuple[str, ...] | None = None
    interval: float | None = None
    timeout: float | None = None
    start_period: float | None = None
    retries: int | None = None


_TEST_KINDS = ("NONE", "CMD", "CMD-SHELL")
_HEALTHCHECK_KEYS = ("test", "interval", "timeout", "start_period", "retries")


def parse_healthcheck(value: Healthcheck) -> HealthcheckSpec:
    """
    Return the health check that a shell command or a mapping describes.

    The mapping contains the test, times in seconds and the number of retries.
    """
    given = {"test": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not set(given) <= set(_HEALTHCHECK_KEYS):
        raise InvalidOptionError(
            f"healthcheck must be a command or a mapping of {', '.join(_HEALTHCHECK_KEYS)}: got {format_value(value)}"
        )
    parsed: dict[str, Any] = {}
    for key, setting in given.items():
        if key == "test":
            parsed[key] = _parse_test(setting)
        elif key == "retries":
            parsed[key] = _parse_retries(setting)
        else:
            parsed[key] = parse_seconds(f"healthcheck: {key}", setting)
    return HealthcheckSpec(**parsed)


def _parse_test(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return ("CMD-SHELL", parse_str("healthcheck: test", value))
    test = parse_strings("healthcheck: test", value)
    # Docker 20.10 crashes on ["CMD"], and ignores other unknown forms. An empty test stands for the image's own.
    if test and (test[0] not in _TEST_KINDS or test in (("CMD",), ("CMD-SHELL",))):
        raise InvalidOptionError(
            f"healthcheck: invalid test {format_value(value)}: expected ['CMD', 'program', 'argument', …], "
            "['CMD-SHELL', 'command line'] or ['NONE']",
            hint="a string is a shell command line",
        )
    return test


def _parse_retries(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_RETRIES:
        raise InvalidOptionError(
            f"healthcheck: retries must be a whole number from 0: got {format_value(value)}"
        )
    return value


class Content(bytes):
    """The content of a file; its `repr` shows the length alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"

    __str__ = __repr__


def parse_content(field: str, value: object) -> Content:
    """Return the content of a file as bytes; text is encoded as UTF-8."""
    try:
        return _parse_content(field, value)
    except InvalidOptionError as error:
        raise error.with_traceback(None) from None  # See parse_environment.
    finally:
        del value


def _parse_content(field: str, value: object) -> Content:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value if isinstance(value, Content) else Content(value)
    if not isinstance(value, str):
        raise InvalidOptionError(f"{field} must be bytes or text: got {_describe_type(value)}")
    try:
        return Content(value.encode())
    except UnicodeEncodeError:
        raise InvalidOptionError(
            f"{field}: the text contains a lone surrogate, which UTF-8 cannot encode ({_UNSHOWN})",
            hint="pass bytes",
        ) from None


def parse_mode(field: str, value: int) -> int:
    """Return the permissions of a file."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o7777:
        return value
    raise InvalidOptionError(
        f"{field}: invalid mode {format_value(value)}: expected file permissions such as 0o644"
    )


def parse_owner(field: str, value: str) -> str:
    """Return the numeric user and group that own a file."""
    match = _OWNER.fullmatch(value) if isinstance(value, str) else None
    if match and all(int(number) < _MAX_ID for number in match.groups()):
        return f"{int(match[1])}:{int(match[2])}"
    raise InvalidOptionError(
        f"{field}: invalid owner {format_value(value)}: expected the numbers of user and group, such as '999:999'"
    )


def parse_engine_config(field: str, value: object) -> SecretDict[Any]:
    """
    Return settings in the engine's own words as a deep copy.

    Messages do not show values, which may be secrets.
    """
    try:
        return _parse_engine_config(field, value)
    except InvalidOptionError as error:
        raise error.with_traceback(None) from None  # See parse_environment.
    finally:
        del value


def _parse_engine_config(field: str, value: object) -> SecretDict[Any]:
    if value is None:
        return SecretDict()
    if not isinstance(value, Mapping):
        raise InvalidOptionError(f"{field} must be a mapping: got {_describe_type(value)}")
    copied: SecretDict[Any] = SecretDict()
    for key, setting in value.items():
        if not isinstance(key, str) or not _ENGINE_KEY.fullmatch(key):  # Engines accept "env" for "Env".
            shown = format_value(key) if isinstance(key, str) else _describe_type(key)
            raise InvalidOptionError(
                f"{field}: invalid key {shown}: expected one of the engine's, such as 'OomScoreAdj'"
            )
        if key.lower() in {known.lower() for known in copied}:
            raise InvalidOptionError(f"{field}: {key!r} is listed twice")
        text = ""
        with suppress(Exception):  # A chained exception might show the value.
            text = json.dumps(setting, allow_nan=False, ensure_ascii=False).encode().decode()
        if not text:
            raise InvalidOptionError(f"{field}[{key!r}] cannot be sent as JSON ({_UNSHOWN})")
        copied[key] = json.loads(text)
    return copied


def parse_local_path(field: str, value: object) -> Path:
    """
    Return the absolute form of a local path, a string or a path object.

    It is used later, when the current directory may be another one. Links are not followed.
    """
    with suppress(TypeError):  # of a __fspath__ that returns something else
        if isinstance(value, (str, os.PathLike)) and isinstance(path := os.fspath(value), str):
            # Without a current directory, the caller will not find the path either.
            with suppress(OSError):
                return Path(path).absolute()
            return Path(path)
    raise InvalidOptionError(f"{field} must be a string or a pathlib.Path: got {format_value(value)}")


def parse_container_path(field: str, value: object) -> str:
    """Return an absolute path in a container, normalized: `"//b/./c/"` is `"/b/c"`."""
    path = parse_str(field, value)
    if not path.startswith("/"):
        raise InvalidOptionError(
            f"{field}: invalid path {format_value(value)}: expected an absolute path in the container"
        )
    return "/" + posixpath.normpath(path).lstrip("/")


def is_below(path: str, folder: str) -> bool:
    """Return whether *path* is *folder* or inside it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def parse_networks(field: str, value: Sequence[NetworkSpec]) -> tuple[NetworkSpec, ...]:
    """Return networks, unchanged, as a tuple; `parse_network` parses each of them."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidOptionError(
            f"{field} must be a sequence of networks, names or ids: got {format_value(value)}",
            hint=f"use [{format_value(value)}]" if isinstance(value, str) else "",
        )
    return tuple(value)


def parse_network(field: str, value: NetworkSpec) -> str:
    """Return the name or id of a network, or of an object that has an id."""
    network = getattr(value, "id", value)
    if hasattr(value, "logs"):  # a container of dockertest or of the docker SDK, which has an id too
        raise InvalidOptionError(
            f"{field}: {format_value(value)} is a container, not a network",
            hint="use Pool.create_network(), and put both containers on that network",
        )
    if not isinstance(network, str) or not parse_str(field, network):
        raise InvalidOptionError(f"{field} must be a Network, a name or an id: got {format_value(value)}")
    return network


def format_value(value: object) -> str:
    """Return the `repr` of a value for a message, at most 80 characters of it."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print whole numbers of more than 4,300 digits.
        return "a number of thousands of digits"
    except Exception:  # noqa: BLE001 - a failing __repr__ must not replace the error that is being reported
        return _describe_type(value)
    return text if len(text) <= 80 else text[:77] + "..."


Parser = Callable[[str, Any], Any]
"""Takes the name of a field and its value; returns the value's canonical form, or raises `InvalidOptionError`."""


def parse_fields(
    options: object, parsers: Mapping[str, Parser], defaults: Mapping[str, object]
) -> dict[str, Any]:
    """
    Return the parsed values of those fields of *options* that have a parser.

    Args:
        defaults: Values that are canonical already. Most fields of most options have them.
    """
    values = {}
    for name, parse in parsers.items():
        value = getattr(options, name)
        values[name] = value if name in defaults and value is defaults[name] else parse(name, value)
    return values


def set_fields(value: object, **changes: object) -> None:
    """Set fields of a frozen dataclass to their canonical form in `__post_init__`."""
    for name, new in changes.items():
        object.__setattr__(value, name, new)


def _is_default(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value)


def _number(value: object) -> str:
    """Return the text of what may be a number or a string; `""` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if 0 <= value < 10**18 else ""
    return value if isinstance(value, str) else ""


def _describe_type(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"
