"""Options: parsed when they are created, frozen, and shown without their secrets."""

import copy
import dataclasses
import inspect
import json
import logging
import pickle
import pprint
import re
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any, NoReturn, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockertest import (
    AuthConfig,
    BuildOptions,
    File,
    InvalidOptionError,
    PortBinding,
    Reuse,
    RunOptions,
    _options,
    _validation,
)
from dockertest._image_name import ImageName
from dockertest._options import RunFields, image_to_build, image_to_run
from dockertest._validation import HealthcheckSpec, Mount
from tests import run_fields

HUGE = 10**5000  # more digits than Python converts to text
SECRET = "hunter2"
VOLUME = SimpleNamespace(name="data")

NOT_STRINGS = [5, 0, False, b"x", ["x"], "a\0b", "\ud800", HUGE]
NOT_SEQUENCES = ["one string", b"bytes", 5, 0, {"a": "b"}, [None], [5], ["a\0b"], ["\udcff"], HUGE, [HUGE]]
NOT_BOOLEANS = [None, 1, 0, "yes", "", HUGE]

NOT_ENGINE_CONFIG: "list[Any]" = [
    5, "A=b", [], HUGE, {"": 1}, {"shmSize": 1}, {"A b": 1}, {5: 1}, {"A": object()}, {"A": float("nan")}, {"A": {1, 2}},
    {"A": b"x"}, {"A": "\ud800"}, {"A": HUGE}, {"Aa": 1, "AA": 1}, {"Env": ["A=1"]}, {"ENV": []}, {"Labels": {}}, {"LABELS": {}},
]  # fmt: skip

INVALID: "dict[str, list[Any]]" = {
    "repository": ["Postgres", "postgres:", "a//b", None, 5, b"postgres", HUGE],
    "tag": [":15", "a b", 15, 0, b"15", HUGE],
    "name": ["a", "-pg", "p g", "/pg", 5, 0, HUGE],
    "hostname": [*NOT_STRINGS, "h" * 65, "\u00e9" * 33],
    "env": ["A=\udcff", ["A=\udcff"], {"A": "\ud800"}, {"\ud800": ""}, "A=1", ["A"], {"": "x"}, {"A": None}, {"A=B": "x"}, 5, [b"A=1"], HUGE, {"A": HUGE}],
    "entrypoint": NOT_SEQUENCES,
    "cmd": NOT_SEQUENCES,
    "mounts": [
        *NOT_SEQUENCES, ["/data"], ["data:data"], ["./a:/b"], ["/a:/b:readonly"], [()], [("volume", "/b")], [(VOLUME,)],
        [(VOLUME, "b")], [(VOLUME, "/b:ro")], [(VOLUME, "/b", "readonly")], [(VOLUME, "/b", "ro", "z")], [(VOLUME, 5)],
        [(VOLUME, "/b\0")], [("/a", "/b")], [(Path("data"), "/b")], [(Path("/a:b"), "/b")], [(Path("/a"),)], [(Path("/a"), "b")],
        [(SimpleNamespace(name="net", id="0123"), "/b")],
    ],
    "links": NOT_SEQUENCES,
    "exposed_ports": [["80-"], ["81-80"], ["0-5"], ["80-65536"], ["80-81/icmp"], "80", 80, None, {80: 8080}, ["http"], [0], [65536], ["80/icmp"], [None], HUGE, [HUGE]],
    "extra_hosts": NOT_SEQUENCES,
    "cap_add": NOT_SEQUENCES,
    "security_opt": NOT_SEQUENCES,
    "dns": [*NOT_SEQUENCES, ["nameserver"], [""], ["fe80::1%eth0"]],
    "working_dir": NOT_STRINGS,
    "network_id": NOT_STRINGS,
    "networks": ["net", b"net", 5, None, {"net": 1}, [None], [5], [""], ["a\0b"], HUGE, [HUGE]],
    "network_aliases": [*NOT_SEQUENCES, ["db"]],
    "labels": [None, [], "a=b", {"": "x"}, {"a": 1}, {"a": "\0"}, {"a": "\ud800"}, {"\ud800": ""}, {"dockertest.mine": "1"}, {HUGE: HUGE}],
    "auth": ["user:password", ("user", "password"), {"username": "me"}, True, HUGE],
    "port_bindings": [
        None, "80:80", [80], HUGE, {"http": 1}, {0: 1}, {HUGE: 1}, {80: None}, {80: "http"}, {80: -1}, {80: 65536},
        {80: "80/tcp"}, {80: True}, {80: 1.5}, {80: b"80"}, {80: {"80": 1}}, {80: [None]}, {80: HUGE}, {80: [HUGE]},
        {80: 1, "80/tcp": 2}, {80: "90-80"}, {80: "80-65536"}, {80: "80-81/tcp"}, {"80-82": 80}, {"80-82": "80-81"},
        {"81-80": ""}, {"79-80": "", 80: ""}, {"80-82": [80]},
    ],
    "privileged": NOT_BOOLEANS,
    "user": [*NOT_STRINGS, 1000],
    "tty": NOT_BOOLEANS,
    "platform": NOT_STRINGS,
    "tmpfs": ["/run", {"run": ""}, ["run"], ["run:size=1m"], ["/run:\0"], {"/run": None}, {"/run": "\0"}, {"/a\0": ""}, {5: ""}, 5, HUGE, {HUGE: HUGE}],
    "shm_size": ["", "0", 0, -1, "1t", "x", 1.5, True, b"1", HUGE],
    "init": [1, 0, "yes", "", HUGE],
    "stop_timeout": [-1, "10", float("nan"), float("inf"), True, HUGE],
    "healthcheck": [
        5, HUGE, [], b"true", "a\0b", {"command": "true"}, {5: 5}, {"test": 5}, {"test": "a\0b"}, {"test": [5]},
        {"interval": -1}, {"timeout": "1s"}, {"start_period": HUGE}, {"retries": 1.5}, {"retries": -1},
        {"retries": "3"}, {"retries": True}, {"retries": HUGE}, {"test": ["CMD"]}, {"test": ["CMD-SHELL"]}, {"test": ["true"]},
        {"test": ["cmd", "true"]}, {"test": ["pg_isready", "-U", "x"]},
    ],
    "service": NOT_STRINGS,
    "wait_for": ["", "Ready", "http", 5, True, b"ready", ["ready"], HUGE],
    "pull": ["", "Always", None, True, HUGE, ["missing"]],
    "reuse": ["", 5, None, b"group", ["group"]],
    "shared": ["", 1, None, "true"],
    "files": [
        None, "x", [], 5, HUGE, {"relative": b""}, {"/": b""}, {"/a/": b""}, {"/a": 5}, {"/a": None}, {"/a": HUGE},
        {"/a": "\ud800"}, {"/a": Path("/no/such/file")}, {"/a": Path("a\0b")}, {"/a\0": b""}, {5: b""}, {HUGE: b""},
        {b"/a": b""}, {"/a": b"", "//a/.": b""},
    ],
    "publish_ip": ["localhost", "127.0.0.1:80", 5, b"::1", "fe80::1%eth0", HUGE],
    "memory": ["", "0", 0, -1, "1t", "x", 1.5, True, b"1", HUGE],
    "cpus": ["", "0", 0, 0.001, -1, "x", "1e3", True, b"1", float("nan"), float("inf"), HUGE],
    "gpus": ["", "0", 0, -1, "none", "²", True, 1.5, b"all", HUGE],
    "ulimits": [
        5, "nofile=5", b"nofile=5", HUGE, ["nofile"], [5], {"files": 5}, {5: 5}, {"nofile": None}, {"nofile": -2},
        {"nofile": True}, {"nofile": 1.5}, {"nofile": (2, 1)}, {"nofile": (-1, 1)}, {"nofile": (1, 2, 3)},
        {"nofile": ()}, {"nofile": "x"}, {"nofile": "1:"}, {"nofile": HUGE}, {"nofile": "²"},
    ],
    "cap_drop": NOT_SEQUENCES,
    "sysctls": [5, "a=b", b"a=b", HUGE, ["a"], [5], {"": "x"}, {5: "x"}, {"a": ""}, {"a": None}, {"a": 1.5}, {"a": "\0"}, {"a": HUGE}],
    "devices": [*NOT_SEQUENCES, ["fuse"], ["/dev/a:b"], ["/dev/a:/dev/b:rx"], ["/dev/a:/dev/b:r:w"], [""]],
    "read_only": NOT_BOOLEANS,
    "pid_mode": [*NOT_STRINGS, "private", "container:", "Host"],
    "ipc_mode": [*NOT_STRINGS, "container", "container:", "Host"],
    "restart": [None, "", 5, "never", "unless-stopped", "on-failure:", "on-failure:0", "on-failure:x", "always:1", HUGE],
    "publish_all_ports": NOT_BOOLEANS,
    "host_access_ports": ["80", 80, {80: 80}, [None], [0], [65536], ["80/udp"], ["x"], [True], [1.5], ["7000-"], HUGE, [HUGE]],
    "log_to": [5, "", b"x", "/", "/no/such/folder/file", ["x"], HUGE],
    "host_config": NOT_ENGINE_CONFIG,
    "container_config": [*NOT_ENGINE_CONFIG, {"Image": "x"}, {"HostConfig": {}}, {"NetworkingConfig": {}}],
}  # fmt: skip
EVERY_INVALID = [
    pytest.param(field, value, id=f"{field}-{number}")
    for field, values in INVALID.items()
    for number, value in enumerate(values)
]


def options(**changes: Any) -> RunOptions:
    """Return options with values of any type."""
    return RunOptions(**{"repository": "postgres", **changes})


def test_table_of_invalid_values_has_every_field() -> None:
    """Each new field needs its invalid values here."""
    assert set(INVALID) == {field.name for field in dataclasses.fields(RunOptions)}


@pytest.mark.parametrize(("field", "value"), EVERY_INVALID)
def test_invalid_value_is_rejected_by_the_name_of_its_field(field: str, value: Any) -> None:
    """
    No other exception is raised.

    The message shows the value or its invalid part, unless it may be secret.
    """
    with pytest.raises(InvalidOptionError) as error:
        options(**{field: value})
    text = str(error.value)
    assert text.startswith(field)
    assert len(text) < 400
    assert error.value.__cause__ is None
    if field not in ("env", "auth", "files", "host_config", "container_config"):
        fragments = [
            "NUL",
            "surrogate",
            "is empty",
            "80/tcp is listed twice",
            "set networks=",
            "need a range of as many host ports",
            *map(_validation.format_value, parts_of(value)),
        ]
        assert any(fragment in text for fragment in fragments)


def parts_of(value: Any) -> "list[Any]":
    """Return a value and all values that it contains."""
    parts = [value]
    for part in parts:
        if isinstance(part, dict):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, (list, tuple)):
            parts += part
        elif isinstance(part, str) and ":" in part:
            parts += part.split(":")
    return parts


def test_invalid_option_is_a_value_error() -> None:
    """Code that catches `ValueError` also catches it."""
    with pytest.raises(ValueError, match="shm_size"):
        options(shm_size="much")


def test_the_error_of_a_health_check_lists_the_forms() -> None:
    """Docker would ignore other forms. An empty test stands for the image's own."""
    with pytest.raises(
        InvalidOptionError, match=r"\['pg_isready'\]: expected \['CMD', .*'CMD-SHELL', .*'NONE'"
    ):
        options(healthcheck={"test": ["pg_isready"]})
    for test in (["NONE"], ["CMD", "true"], ["CMD-SHELL", "true"], []):
        assert options(healthcheck={"test": test}).parsed.healthcheck == HealthcheckSpec(test=tuple(test))


def test_values_are_stored_in_canonical_form() -> None:
    """All spellings of a value are stored in the same form."""
    made = options(
        env={"A": 1},
        cmd=["postgres", "-c", "fsync=off"],
        exposed_ports=[80, "81", "80/tcp"],
        port_bindings={5432: 15432, "53/UDP": ["", PortBinding("127.0.0.1", 5353)]},
        tmpfs=["/run"],
        shm_size="64m",
        publish_ip="",
        networks=(name for name in ["front", "back"]),
        labels={"a": "b"},
        hostname=None,
    )
    assert made.env == ("A=1",)
    assert made.cmd == ("postgres", "-c", "fsync=off")
    assert made.exposed_ports == ("80/tcp", "81/tcp")
    assert made.port_bindings == {
        "5432/tcp": (PortBinding("", "15432"),),
        "53/udp": (PortBinding(), PortBinding("127.0.0.1", "5353")),
    }
    assert made.tmpfs == {"/run": ""}
    assert made.shm_size == 64 << 20
    assert made.publish_ip is None
    assert made.networks == ("front", "back")
    assert made.hostname == ""


@pytest.mark.parametrize(
    ("field", "value", "canonical"),
    [
        ("memory", "512m", 512 << 20),
        ("memory", "1.5g", 3 << 29),
        ("cpus", "1.50", 1.5),
        ("cpus", 2, 2.0),
        ("cpus", ".5", 0.5),
        ("tmpfs", ["/run", "/tmp:size=1m,mode=1777", "/a:"], {"/run": "", "/tmp": "size=1m,mode=1777", "/a": ""}),
        ("tmpfs", {"/a:b": "size=1m"}, {"/a:b": "size=1m"}),
        ("gpus", "2", 2),
        ("ulimits", {"nofile": 5, "core": "0:-1", "nproc": (1, 2)}, {"nofile": (5, 5), "core": (0, -1), "nproc": (1, 2)}),
        ("ulimits", ["nofile=5:6", "memlock=-1"], {"nofile": (5, 6), "memlock": (-1, -1)}),
        ("sysctls", {"a": 1, "b": "2 3"}, {"a": "1", "b": "2 3"}),
        ("sysctls", ["a=b=c"], {"a": "b=c"}),
        ("devices", ["/a", "/a:/b", "/a:r", "/a:/b:rw"], ("/a:/a:rwm", "/a:/b:rwm", "/a:/a:r", "/a:/b:rw")),
        ("mounts", [(VOLUME, "/b"), (VOLUME, "/c", "ro")], ("data:/b", "data:/c:ro")),
        ("mounts", [(Path("/a/b"), "/c"), (PureWindowsPath("C:/a"), "/d", "ro")], ("/a/b:/c", "C:\\a:/d:ro")),
        ("mounts", [(SimpleNamespace(name="data", id="data"), "/b")], ("data:/b",)),
        ("hostname", "h" * 64, "h" * 64),
        ("exposed_ports", ["80-82", 81, "53-54/UDP"], ("80/tcp", "81/tcp", "82/tcp", "53/udp", "54/udp")),
        ("port_bindings", {80: "90-92"}, {"80/tcp": (PortBinding("", "90-92"),)}),
        ("port_bindings", {"80-81/udp": "90-91"}, {"80/udp": (PortBinding("", "90"),), "81/udp": (PortBinding("", "91"),)}),
        ("port_bindings", {"80-81": ["", PortBinding("::1", "90-91")]},
         {"80/tcp": (PortBinding(), PortBinding("::1", "90")), "81/tcp": (PortBinding(), PortBinding("::1", "91"))}),
    ],
)  # fmt: skip
def test_a_value_has_one_canonical_form(field: str, value: Any, canonical: object) -> None:
    """It is accepted again, so that options can be made from options."""
    made = options(**{field: value})
    assert getattr(made, field) == canonical
    assert dataclasses.replace(made) == made


FULL: "dict[str, Any]" = {
    "repository": "postgres",
    "tag": "15",
    "name": "pg",
    "hostname": "db",
    "env": {"POSTGRES_PASSWORD": SECRET, "TOKEN": f"x={SECRET}"},
    "entrypoint": ["/entry"],
    "cmd": ["postgres"],
    "mounts": ["/data:/d:ro", "volume:/v"],
    "links": ["other:alias"],
    "exposed_ports": [80],
    "extra_hosts": ["host:10.0.0.1"],
    "cap_add": ["NET_ADMIN"],
    "security_opt": ["seccomp=unconfined"],
    "dns": ["10.0.0.2"],
    "working_dir": "/d",
    "network_id": "front",
    "networks": ["back"],
    "network_aliases": ["alias"],
    "labels": {"a": "b"},
    "auth": AuthConfig("me", SECRET, "registry:5000", SECRET),
    "port_bindings": {5432: [15432, PortBinding("::1", "")]},
    "privileged": True,
    "user": "postgres",
    "tty": True,
    "platform": "linux/amd64",
    "tmpfs": {"/run": "size=64m"},
    "shm_size": "64m",
    "init": True,
    "stop_timeout": 1.5,
    "healthcheck": {"test": ["CMD", "true"], "interval": 1},
    "pull": "never",
    "files": {
        "/etc/token": SECRET,
        "/etc/key": SECRET.encode(),
        "/etc/here": Path(__file__),
        "/etc/owned": File(SECRET, 0o600, "70:70"),
    },
    "publish_ip": "127.0.0.1",
    "memory": "512m",
    "cpus": "1.5",
    "gpus": "all",
    "ulimits": {"nofile": (1024, 4096), "core": -1},
    "cap_drop": ["ALL"],
    "sysctls": {"net.core.somaxconn": 1024},
    "devices": ["/dev/fuse", "/dev/null:/dev/nothing:r"],
    "read_only": True,
    "pid_mode": "host",
    "ipc_mode": "container:other",
    "restart": "on-failure:3",
    "publish_all_ports": False,
    "log_to": print,
    "host_config": {"OomScoreAdj": 500, "LogConfig": {"Type": "local", "Config": {"token": SECRET}}},
    "container_config": {"StopSignal": "SIGINT", "OnBuild": [SECRET]},
    "reuse": Reuse(idle=60, replaces=True),
}


@pytest.mark.parametrize(
    ("data", "mode", "owner"),
    [
        (None, 0o644, "0:0"), (5, 0o644, "0:0"), ("\ud800", 0o644, "0:0"), ("x", -1, "0:0"), ("x", 0o10000, "0:0"),
        ("x", "644", "0:0"), ("x", True, "0:0"), ("x", 0o644, "root:root"), ("x", 0o644, "0"), ("x", 0o644, ""),
        ("x", 0o644, 0), ("x", 0o644, "0:4294967295"), ("x", 0o644, "²:0"), ("x", 0o644, None),
    ],
)  # fmt: skip
def test_an_invalid_file_is_rejected(data: Any, mode: Any, owner: Any) -> None:
    """The message names the attribute."""
    with pytest.raises(InvalidOptionError, match=r"File: (data|mode|owner)"):
        File(data, mode, owner)


def test_a_file_hides_its_content() -> None:
    """Its repr has everything else, and it is stored in canonical form."""
    file = File(SECRET, 0o600, "070:0")
    assert repr(file) == "File(<7 bytes>, mode=0o600, owner='70:0')"
    assert file == File(SECRET.encode(), 0o600, "70:0") == dataclasses.replace(file)
    assert file != File(SECRET, 0o644, "70:0")
    assert File("").mode == 0o644


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory": "64m", "host_config": {"Memory": 5}}, "host_config: 'Memory' is set by memory= too"),
        ({"memory": "64m", "host_config": {"MEMORY": 5}}, "host_config: 'MEMORY' is set by memory= too"),
        ({"exposed_ports": [80], "host_config": {"PortBindings": {}}}, "set by exposed_ports= too"),
        ({"network_id": "x", "host_config": {"NetworkMode": "host"}}, "set by network_id= too"),
        ({"init": False, "host_config": {"Init": True}}, "set by init= too"),
        ({"restart": "always", "host_config": {"RestartPolicy": {}}}, "set by restart= too"),
        (
            {"host_access_ports": [80], "extra_hosts": ["host.docker.internal:10.0.0.1"]},
            "cannot be combined with host_access",
        ),
        ({"host_access_ports": [80], "reuse": True}, "host_access_ports cannot be combined with reuse"),
        ({"host_access_ports": [80], "shared": True}, "host_access_ports cannot be combined with shared"),
        ({"stop_timeout": 0, "container_config": {"StopTimeout": 5}}, "set by stop_timeout= too"),
        ({"cmd": ["x"], "container_config": {"Cmd": ["y"]}}, "container_config: 'Cmd' is set by cmd= too"),
    ],
)
def test_a_key_that_a_field_sets_too_is_rejected(changes: "dict[str, Any]", message: str) -> None:
    """Otherwise it would depend on the order which of the two is used."""
    with pytest.raises(InvalidOptionError, match=re.escape(message)):
        options(**changes)


def test_settings_of_the_engine_are_copied_and_hidden() -> None:
    """A later change of the mapping has no effect."""
    given = {"Devices": [{"PathOnHost": SECRET}], "Memory": 5, "Init": True}
    made = options(host_config=given)
    given["Devices"][0]["PathOnHost"] = ""  # type: ignore[index]
    assert made.host_config == {"Devices": [{"PathOnHost": SECRET}], "Memory": 5, "Init": True}
    assert "host_config={'Devices': ***, 'Memory': ***, 'Init': ***}" in repr(made)


def test_a_path_for_the_log_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of the working directory has no effect."""
    monkeypatch.chdir(tmp_path)
    assert options(log_to="server.log").log_to == tmp_path / "server.log"
    logger = logging.getLogger("server")
    assert options(log_to=logger).log_to is logger


def test_a_default_that_is_not_parsed_is_canonical() -> None:
    """A parser would return the same value."""
    for field, parse in _options._PARSERS.items():
        if field in _options._DEFAULTS:
            assert parse(field, _options._DEFAULTS[field]) == _options._DEFAULTS[field], field


@pytest.mark.parametrize("changes", [{}, FULL], ids=["few", "full"])
def test_options_made_from_options_are_equal(changes: "dict[str, Any]") -> None:
    """Canonical values are accepted, so that `dataclasses.replace` and copies work."""
    made = options(**changes)
    assert dataclasses.replace(made) == made
    assert dataclasses.replace(made, hostname="other").hostname == "other"
    assert copy.deepcopy(made) == made


@pytest.mark.parametrize(
    "value", [options(), options(**FULL), PortBinding("::1", 80), AuthConfig("me", SECRET, None, SECRET)]
)
def test_values_can_be_pickled(value: object) -> None:
    """Test runners send them between processes."""
    assert pickle.loads(pickle.dumps(value)) == value


@pytest.mark.parametrize("value", [options(), PortBinding(), AuthConfig()])
def test_values_are_frozen(value: Any) -> None:
    """A misspelled field cannot be set either."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "other")
    assert not hasattr(value, "__dict__")


def test_options_do_not_change_with_the_values_they_were_made_from() -> None:
    """A later change of a list or mapping has no effect."""
    cmd, labels, bindings, tmpfs = ["a"], {"a": "b"}, {80: 1}, {"/run": ""}
    made = options(cmd=cmd, labels=labels, port_bindings=bindings, tmpfs=tmpfs)
    for source in (labels, bindings, tmpfs, cmd):
        source.clear()
    assert made == options(cmd=["a"], labels={"a": "b"}, port_bindings={80: 1}, tmpfs={"/run": ""})


def test_options_are_keyword_only() -> None:
    """There are too many fields for positional arguments."""
    with pytest.raises(TypeError):
        RunOptions("postgres")  # type: ignore[call-arg]


def test_misspelled_option_raises_type_error() -> None:
    """Python's message contains its name."""
    with pytest.raises(TypeError, match="privilegd"):
        options(privilegd=True)


def test_repr_hides_secrets() -> None:
    """
    It shows the names of environment variables, but no values.

    It shows no passwords, tokens or file contents either.
    """
    for shown in (repr(options(**FULL)), str(options(**FULL)), f"{FULL['auth']}", repr([options(**FULL)])):
        assert SECRET not in shown
    assert "'POSTGRES_PASSWORD=***'" in repr(options(**FULL))
    assert "AuthConfig(username='me', server_address='registry:5000')" in repr(options(**FULL))


def test_repr_shows_only_fields_that_were_set() -> None:
    """Fields with their default value are left out."""
    assert repr(options(tag="15")) == "RunOptions(repository='postgres', tag='15', pull='missing')"


@pytest.mark.parametrize("field", ["username", "password", "server_address", "identity_token"])
@pytest.mark.parametrize(
    "value", [SECRET.encode(), [SECRET], {"a": SECRET}, 5, f"{SECRET}\0", f"{SECRET}\ud800"]
)
def test_invalid_credentials_are_rejected_without_leaking_them(field: str, value: Any) -> None:
    """The message contains only the name of the field."""
    with pytest.raises(InvalidOptionError, match=f"auth: {field}") as error:
        AuthConfig(**{field: value})
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("auth", [SECRET, ("me", SECRET), {"password": SECRET}])
def test_invalid_auth_is_rejected_without_leaking_it(auth: Any) -> None:
    """A tuple or mapping may contain a password."""
    with pytest.raises(InvalidOptionError, match="auth must be an AuthConfig") as error:
        options(auth=auth)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("files", [SECRET, [SECRET], {"a": SECRET}, {"/a/": SECRET}, {"/a": [SECRET]}])
def test_invalid_files_are_rejected_without_leaking_them(files: Any) -> None:
    """The content may be a key."""
    with pytest.raises(InvalidOptionError, match="files") as error:
        options(files=files)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    "env", [SECRET, [SECRET], {"A": f"{SECRET}\0"}, {f"A={SECRET}": "x"}, [("A", SECRET)]]
)
def test_invalid_environment_is_rejected_without_leaking_it(env: Any) -> None:
    """The chain of exceptions, which test runners print, does not contain it either."""
    with pytest.raises(InvalidOptionError) as error:
        options(env=env)
    failure: BaseException | None = error.value
    while failure is not None:
        assert SECRET not in repr(failure)
        failure = failure.__cause__ or failure.__context__


@pytest.mark.parametrize(
    ("ip", "port", "binding"),
    [
        ("", "", ("", "")),
        ("", 0, ("", "")),
        ("127.0.0.1", "0", ("127.0.0.1", "")),
        ("0:0::1", 8080, ("::1", "8080")),
        (None, "08080", ("", "8080")),
    ],
)
def test_port_bindings_have_one_canonical_form(
    ip: Any, port: "str | int", binding: "tuple[str, str]"
) -> None:
    """
    An empty address means the default of the pool.

    An empty or zero port means any free port.
    """
    made = PortBinding(ip, port)
    assert (made.host_ip, made.host_port) == binding


@pytest.mark.parametrize(
    ("ip", "port"), [("localhost", 80), ("::1", "http"), ("", 65536), ("", None), ("::1", 1.5)], ids=str
)
def test_invalid_port_binding_is_rejected(ip: Any, port: Any) -> None:
    """The message contains the name of the field."""
    with pytest.raises(InvalidOptionError, match=r"^host_(ip|port): "):
        PortBinding(ip, port)


@pytest.mark.parametrize(
    ("field", "value", "ending"),
    [
        ("cmd", "sleep 60", "use one string per word, or ['sh', '-c', 'sleep 60'] to run it in a shell"),
        ("entrypoint", "sh", "use one string per word, or ['sh', '-c', 'sh'] to run it in a shell"),
        ("mounts", "/a:/b", "use ['/a:/b']"),
        ("mounts", {"/a": "/b"}, "got {'/a': '/b'}"),
        (
            "mounts",
            [(Path("a/data"), "/b")],
            "use Path.absolute(), or the name of a volume in a string such as 'data:/data'",
        ),
        ("mounts", [(SimpleNamespace(name="net", id="0123"), "/b")], "use Pool.create_volume()"),
        (
            "networks",
            [SimpleNamespace(id="0123", logs=print)],
            "use Pool.create_network(), and put both containers on that network",
        ),
    ],
)
def test_hint_for_a_value_of_another_type(field: str, value: Any, ending: str) -> None:
    """
    Otherwise it would be used in another way.

    A command in a single string would be the name of a program, the last part of a path that of a volume.
    """
    with pytest.raises(InvalidOptionError) as error:
        options(**{field: value})
    assert str(error.value).endswith(ending)


def test_second_tag_is_rejected() -> None:
    """The tag may be in the repository or in `tag`, but not in both."""
    assert options(repository="postgres:15").tag is None
    with pytest.raises(InvalidOptionError, match=r"tag: '15' is a second tag"):
        options(repository="postgres:15", tag="15")


def test_aliases_require_a_network() -> None:
    """The engine's default network does not support them."""
    with pytest.raises(InvalidOptionError, match="set networks="):
        options(network_aliases=["db"])
    assert options(network_aliases=["db"], network_id="back").network_aliases == ("db",)


def test_object_with_an_id_is_a_network() -> None:
    """It may be a `Network` of this package or of the docker SDK."""

    class Net:
        id = "abc"

    net = Net()
    assert options(networks=[net, "back"]).networks == (net, "back")


def test_run_accepts_the_fields_as_keywords() -> None:
    """
    Each keyword has the type of the field.

    The first three fields are arguments of `run` itself.
    """
    types = get_type_hints(RunOptions)
    own_arguments = ("repository", "tag", "env")
    assert get_type_hints(RunFields) == {
        name: kind for name, kind in types.items() if name not in own_arguments
    }


def test_every_field_is_described() -> None:
    """The docstring has them in the order of their declaration."""
    described = run_fields.descriptions(inspect.getdoc(RunOptions) or "")
    assert list(described) == [field.name for field in dataclasses.fields(RunOptions)]


def test_keywords_of_run_are_up_to_date() -> None:
    """`RunFields`, whose docstrings editors show, is generated from `RunOptions`."""
    source = run_fields.PATH.read_text(encoding="utf-8")
    assert run_fields.updated(source) == source, "run: python -m tests.run_fields"


def test_typed_values_are_stored_in_addition_to_the_fields() -> None:
    """The rest of the package uses these and does not parse the fields again."""

    class Net:
        id = "0123"

    parsed = options(**{**FULL, "networks": [Net(), "back", "front"]}).parsed
    assert parsed.image == ImageName("postgres", "15")
    assert (parsed.env[0].name, parsed.env[0].value) == ("POSTGRES_PASSWORD", SECRET)
    assert parsed.mounts == (Mount("/data", "/d", ("ro",)), Mount("volume", "/v"))
    assert parsed.exposed_ports == ("80/tcp",)
    assert parsed.networks == ("front", "0123", "back")
    assert parsed.port_bindings == {"5432/tcp": (PortBinding("", "15432"), PortBinding("::1", ""))}
    assert parsed.tmpfs == {"/run": "size=64m"}
    assert parsed.shm_size == 64 << 20
    assert parsed.healthcheck == HealthcheckSpec(test=("CMD", "true"), interval=1.0)
    assert parsed.files["/etc/token"] == SECRET.encode()
    assert parsed.files["/etc/here"] == Path(__file__)


def test_typed_values_are_not_a_field() -> None:
    """They are ignored by comparisons and by code that copies or prints the fields."""
    made = options(**FULL)
    assert "parsed" not in {field.name for field in dataclasses.fields(made)}
    assert "parsed" not in repr(made)
    assert made == options(**{**FULL, "shm_size": 64 << 20})
    with pytest.raises(TypeError, match="parsed"):
        options(parsed=made.parsed)
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError)):  # TypeError: slots and super()
        made.parsed = None  # type: ignore[misc, assignment]


@pytest.mark.parametrize(
    "transfer", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))]
)
def test_typed_values_are_copied_and_pickled(transfer: Callable[[Any], Any], tmp_path: Path) -> None:
    """
    They are not parsed again.

    A local file need not exist in the other process.
    """
    source = tmp_path / "file"
    source.touch()
    made = options(**{**FULL, "files": {"/etc/here": source}})
    source.unlink()
    assert transfer(made) == made
    assert transfer(made).parsed == made.parsed


def test_replacing_a_field_replaces_its_typed_value() -> None:
    """The others are not changed."""
    made = options(**FULL)
    assert dataclasses.replace(made, shm_size="1m").parsed.shm_size == 1 << 20
    assert dataclasses.replace(made).parsed == made.parsed


def test_later_changes_do_not_affect_the_typed_values() -> None:
    """The public mappings are mutable, but the validated values are used."""
    made = options(labels={"a": "b"}, tmpfs={"/run": ""}, healthcheck={"retries": 1})
    made.labels["dockertest.mine"] = "1"  # type: ignore[index]
    assert made.parsed.labels == {"a": "b"}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "postgres:latest"),
        ({"tag": "15"}, "postgres:15"),
        ({"repository": "", "name": "app"}, "app:latest"),
        ({"repository": "", "name": "app", "tag": "1"}, "app:1"),
    ],
)
def test_image_to_build_is_named_after_the_repository_or_the_container(
    changes: "dict[str, Any]", name: str
) -> None:
    """The repository takes precedence."""
    assert str(image_to_build(options(**changes))) == name


@pytest.mark.parametrize(
    "changes",
    [{"repository": ""}, {"repository": "", "name": "Upper"}, {"repository": f"a@sha256:{'0' * 64}"}],
)
def test_image_to_build_needs_a_valid_name(changes: "dict[str, Any]") -> None:
    """
    A container may have a name that an image cannot have.

    A digest is the result of a build.
    """
    with pytest.raises(InvalidOptionError, match=r"^repository"):
        image_to_build(options(**changes))


def test_image_to_run_needs_a_name() -> None:
    """Options without a repository are for a build."""
    with pytest.raises(InvalidOptionError, match=r"^repository.*empty; set repository="):
        image_to_run(options(repository="", name="app"))


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """Return a directory with a Dockerfile."""
    (tmp_path / "Dockerfile").touch()
    return tmp_path


INVALID_BUILD: "dict[str, list[Any]]" = {
    "context_dir": [None, 5, b"x", "/no/such/directory", __file__, ["x"]],
    "dockerfile": [None, 5, b"x", "Missing", "..", "a\0b"],
    "build_args": ["A=1", ["A"], {"": "x"}, {"A": None}, 5],
    "platform": [5, b"x", ["x"], "a\0b"],
    "version": [1, "3", None, ["1"]],
    "auth": ["x", {"a": "b"}, {5: AuthConfig()}, ["x"]],
    "target": [5, b"x", ["x"], "a\0b"],
    "no_cache": NOT_BOOLEANS,
    "labels": [None, [], {"": "x"}, {"a": 1}, {"dockertest.mine": "1"}],
    "remove_image": NOT_BOOLEANS,
    "secrets": [
        "x",
        ["x"],
        None,
        {"": b"x"},
        {"a,b": b"x"},
        {5: b"x"},
        {"a": 5},
        {"a": ["x"]},
        {"a": "/no/such/file"},
        {"a": ""},
        {"a": b"x"},
    ],
    "cache_from": [*NOT_SEQUENCES, ["app:cache"]],
}


def test_table_of_invalid_build_options_has_every_field() -> None:
    """Each new field needs its invalid values here."""
    assert set(INVALID_BUILD) == {field.name for field in dataclasses.fields(BuildOptions)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}-{number}")
        for field, values in INVALID_BUILD.items()
        for number, value in enumerate(values)
    ],
)
def test_invalid_build_option_is_rejected_by_its_name(context: Path, field: str, value: Any) -> None:
    """No other exception is raised."""
    with pytest.raises(InvalidOptionError) as error:
        BuildOptions(**{"context_dir": context, field: value})
    assert str(error.value).startswith(field)


def test_build_options_keep_typed_values(context: Path) -> None:
    """They are parsed once, like those of `RunOptions`."""
    auth = AuthConfig("me", SECRET)
    made = BuildOptions(str(context), build_args={"TOKEN": SECRET}, auth=auth)
    assert made.build_args == (f"TOKEN={SECRET}",)
    assert made.parsed.context_dir == context
    assert made.parsed.dockerfile == context / "Dockerfile"
    assert {argument.name: argument.value for argument in made.parsed.build_args} == {"TOKEN": SECRET}
    assert made.parsed.auth == {"": auth}
    assert (made.parsed.platform, made.parsed.target) == ("", "")
    assert pickle.loads(pickle.dumps(made)) == made == dataclasses.replace(made)
    assert SECRET not in repr(made)


def test_a_label_that_the_docker_cli_would_split_is_rejected(context: Path) -> None:
    """
    The argument `--label a=b=c` sets the label `a`.

    The engine's own builder gets names and values as they are.
    """
    assert BuildOptions(context, labels={"a=b": "c"}).labels == {"a=b": "c"}
    assert BuildOptions(context, version="2", labels={"a": "b=c"}).labels == {"a": "b=c"}
    with pytest.raises(
        InvalidOptionError, match=r"^labels: 'a=b' contains '='.*; use another name, or version="
    ):
        BuildOptions(context, version="2", labels={"a=b": "c"})


def test_relative_paths_are_those_of_the_directory_where_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A later change of the current directory changes nothing.

    Links and `..` are kept for the system to follow.
    """
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").touch()
    monkeypatch.chdir(tmp_path)
    files = options(files={"/a": Path("app"), "/b": Path("app/../app/Dockerfile")})
    build = BuildOptions("app", version="2", secrets={"token": "app/Dockerfile"})
    monkeypatch.chdir("/")
    assert files.files == {"/a": tmp_path / "app", "/b": tmp_path / "app/../app/Dockerfile"}
    assert build.context_dir == build.parsed.context_dir == tmp_path / "app"
    assert build.parsed.dockerfile == tmp_path / "app" / "Dockerfile"
    assert build.secrets == {"token": tmp_path / "app" / "Dockerfile"}
    assert dataclasses.replace(build) == build


def test_secrets_of_a_build_are_hidden(context: Path) -> None:
    """A path is not shown either, since a secret may have been passed in its place."""
    made = BuildOptions(
        context, version="2", secrets={"a": SECRET.encode(), "b": str(context / "Dockerfile")}
    )
    assert made.parsed.secrets == {"a": SECRET.encode(), "b": context / "Dockerfile"}
    assert pickle.loads(pickle.dumps(made)) == made == dataclasses.replace(made)
    assert SECRET not in repr(made)
    assert SECRET not in repr(made.parsed)
    with pytest.raises(InvalidOptionError, match="secrets") as error:
        BuildOptions(context, version="2", secrets={"a": SECRET})
    assert SECRET not in str(error.value)


def shown_below(error: BaseException) -> str:
    """Return a traceback with all local variables of the frames below the caller's."""
    below = error.__traceback__.tb_next if error.__traceback__ else None
    report = traceback.TracebackException(type(error), error, below, capture_locals=True)
    return "".join(report.format())


@pytest.mark.parametrize(
    "invalid",
    [
        {"env": f"PASSWORD={SECRET}"},
        {"env": [SECRET]},
        {"env": {"PASSWORD": f"{SECRET}\0"}},
        {"env": {"PASSWORD": SECRET}, "tty": "yes"},
        {"tag": {"PASSWORD": SECRET}},
        {"files": {"/a": SECRET}, "tty": "yes"},
        {"files": {"/a": [SECRET]}},
        {"files": {"relative": SECRET.encode()}},
        {"auth": {"password": SECRET}},
    ],
)
def test_traceback_of_an_invalid_option_shows_no_secret(invalid: "dict[str, Any]") -> None:
    """pytest's `--showlocals` and error trackers print the variables of every frame."""
    with pytest.raises(InvalidOptionError) as error:
        RunOptions(**{"repository": "postgres", **invalid})
    assert "InvalidOptionError" in shown_below(error.value)
    assert SECRET not in shown_below(error.value)


def test_traceback_of_other_invalid_options_shows_no_secret(context: Path) -> None:
    """This covers credentials, builds, environments and file contents."""
    calls: list[Callable[[], object]] = [
        lambda: AuthConfig("me", SECRET, 5),  # type: ignore[arg-type]
        lambda: BuildOptions(context, build_args={"TOKEN": SECRET}, version="3"),  # type: ignore[arg-type]
        lambda: BuildOptions(context, build_args=[SECRET]),
        lambda: _validation.parse_environment("env", [SECRET]),
        lambda: _validation.parse_content("data", [SECRET]),
    ]
    for call in calls:
        with pytest.raises(InvalidOptionError) as error:
            call()
        assert SECRET not in shown_below(error.value)


def test_values_show_no_secret() -> None:
    """The same holds for parts of the options in a local variable."""
    made = options(**FULL)
    for value in (made.env, made.env[0], made.files, made.parsed, made.parsed.env[0].value, made.auth):  # type: ignore[index]
        assert SECRET not in repr(value)
        assert SECRET not in pprint.pformat(value)
    assert str(made.parsed.env[0].value) == SECRET
    assert json.loads(json.dumps(made.env)) == [f"POSTGRES_PASSWORD={SECRET}", f"TOKEN=x={SECRET}"]


@pytest.mark.parametrize("field", ["username", "password"])
def test_missing_credentials_are_rejected(field: str) -> None:
    """
    They would be sent as the text "None".

    The usual cause is an unset environment variable.
    """
    with pytest.raises(InvalidOptionError, match=f"auth: {field} must be a string"):
        AuthConfig(**{field: None})  # type: ignore[arg-type]


class Hostile:
    """A value that cannot be shown or compared."""

    def fail(self, *_: object) -> NoReturn:
        """Raise an unrelated error."""
        raise ZeroDivisionError

    __repr__ = __str__ = __eq__ = __bool__ = fail
    __hash__ = object.__hash__


class BytesPath:
    """A path that is not text."""

    def __fspath__(self) -> bytes:
        return b"/tmp"


FIELDS = sorted(field.name for field in dataclasses.fields(RunOptions))
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.sampled_from(["/a", "a:/b", "80/tcp", "A=1", "64m", "\udcff"]),
    st.builds(lambda: HUGE),
    st.builds(Hostile),
    st.builds(BytesPath),
)
keys = st.integers() | st.text(max_size=3) | st.binary(max_size=2) | st.sampled_from(["/a", "test", 80])
anything = st.recursive(
    atoms, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2), max_leaves=3
)


@settings(max_examples=200)
@given(st.sampled_from(FIELDS), anything)
def test_any_value_is_accepted_or_raises_invalid_option_error(field: str, value: Any) -> None:
    """No other exception is raised for any type of value."""
    with suppress(InvalidOptionError):
        options(**{"networks": ["back"], field: value})


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [Hostile(), [Hostile()], {"/a": Hostile()}, {80: Hostile()}, BytesPath()])
def test_value_that_fails_when_it_is_shown_is_rejected(field: str, value: Any) -> None:
    """The message shows its type instead."""
    with suppress(InvalidOptionError):
        options(**{"networks": ["back"], field: value})


class TestSeccompProfiles:
    """A profile is read when the options are created, as by the docker CLI."""

    @pytest.mark.parametrize("separator", ["=", ":"])
    def test_file_is_replaced_by_its_content(self, tmp_path: Path, separator: str) -> None:
        """The public field keeps the path."""
        profile = tmp_path / "profile.json"
        profile.write_text('{\n  "defaultAction": "SCMP_ACT_ALLOW",\n  "syscalls": []\n}')
        option = f"seccomp{separator}{profile}"
        made = options(security_opt=["label=disable", option])
        assert made.security_opt == ("label=disable", option)
        content = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}'
        assert made.parsed.security_opt == ("label=disable", f"seccomp={content}")

    @pytest.mark.parametrize(
        "option",
        [
            "seccomp=unconfined",
            "seccomp:unconfined",
            "seccomp=builtin",
            'seccomp={"a": 1}',
            "no-new-privileges",
        ],
    )
    def test_other_options_are_sent_unchanged(self, option: str) -> None:
        """A profile may also be passed as JSON."""
        assert options(security_opt=[option]).parsed.security_opt == (option,)

    def test_missing_profile_is_rejected(self, tmp_path: Path) -> None:
        """The message contains the path and the reason."""
        path = str(tmp_path / "missing.json")
        with pytest.raises(InvalidOptionError, match=r"^security_opt\[0\]: .*: No such file") as error:
            options(security_opt=[f"seccomp={path}"])
        assert path in str(error.value)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
    def test_invalid_profile_is_rejected(self, tmp_path: Path, content: bytes) -> None:
        """The engine would only report that it cannot decode it."""
        profile = tmp_path / "profile.json"
        profile.write_bytes(content)
        with pytest.raises(InvalidOptionError, match=r"^security_opt\[0\]: .*is not valid JSON"):
            options(security_opt=[f"seccomp={profile}"])
