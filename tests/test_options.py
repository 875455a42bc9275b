"""What a user asks for: checked when it is made, never changed, and shown without its secrets."""

import ast
import copy
import dataclasses
import inspect
import itertools
import pickle
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from dockertest import AuthConfig, InvalidOptionError, PortBinding, RunOptions
from dockertest import _validation as _specs
from dockertest._options import RunFields

HUGE = 10**5000  # more digits than Python prints
SECRET = "hunter2"

NO_TEXT = [5, 0, False, b"x", ["x"], "a\0b", HUGE]
NO_TEXTS = ["one string", b"bytes", 5, 0, {"a": "b"}, [None], [5], ["a\0b"], HUGE, [HUGE]]
NO_BOOLEAN = [None, 1, 0, "yes", "", HUGE]

BAD: "dict[str, list[Any]]" = {
    "repository": ["Postgres", "postgres:", "a//b", None, 5, b"postgres", HUGE],
    "tag": [":15", "a b", 15, 0, b"15", HUGE],
    "name": ["a", "-pg", "p g", "/pg", 5, 0, HUGE],
    "hostname": NO_TEXT,
    "env": ["A=1", ["A"], {"": "x"}, {"A": None}, {"A=B": "x"}, 5, [b"A=1"], HUGE, {"A": HUGE}],
    "entrypoint": NO_TEXTS,
    "cmd": NO_TEXTS,
    "mounts": [*NO_TEXTS, ["/data"], ["data:data"], ["./a:/b"], ["/a:/b:readonly"]],
    "links": NO_TEXTS,
    "exposed_ports": ["80", 80, None, ["http"], [0], [65536], ["80/icmp"], [None], HUGE, [HUGE]],
    "extra_hosts": NO_TEXTS,
    "cap_add": NO_TEXTS,
    "security_opt": NO_TEXTS,
    "dns": [*NO_TEXTS, ["nameserver"], [""], ["fe80::1%eth0"]],
    "working_dir": NO_TEXT,
    "network_id": NO_TEXT,
    "networks": ["net", b"net", 5, None, {"net": 1}, [None], [5], [""], ["a\0b"], HUGE, [HUGE]],
    "network_aliases": [*NO_TEXTS, ["db"]],
    "labels": [None, [], "a=b", {"": "x"}, {"a": 1}, {"a": "\0"}, {"dockertest.mine": "1"}, {HUGE: HUGE}],
    "auth": ["user:password", ("user", "password"), {"username": "me"}, True, HUGE],
    "port_bindings": [
        None, "80:80", [80], HUGE, {"http": 1}, {0: 1}, {HUGE: 1}, {80: None}, {80: "http"}, {80: -1}, {80: 65536},
        {80: "80/tcp"}, {80: True}, {80: 1.5}, {80: b"80"}, {80: {"80": 1}}, {80: [None]}, {80: HUGE}, {80: [HUGE]},
        {80: 1, "80/tcp": 2},
    ],
    "privileged": NO_BOOLEAN,
    "user": [*NO_TEXT, 1000],
    "tty": NO_BOOLEAN,
    "platform": NO_TEXT,
    "tmpfs": ["/run", {"run": ""}, ["run"], {"/run": None}, {"/run": "\0"}, {"/a\0": ""}, {5: ""}, 5, HUGE, {HUGE: HUGE}],
    "shm_size": ["", "0", 0, -1, "1t", "x", 1.5, True, b"1", HUGE],
    "init": [1, 0, "yes", "", HUGE],
    "stop_timeout": [-1, "10", float("nan"), float("inf"), True, HUGE],
    "healthcheck": [
        5, HUGE, [], b"true", "a\0b", {"command": "true"}, {5: 5}, {"test": 5}, {"test": "a\0b"}, {"test": [5]},
        {"interval": -1}, {"timeout": "1s"}, {"start_period": HUGE}, {"retries": 1.5}, {"retries": -1},
        {"retries": "3"}, {"retries": True}, {"retries": HUGE},
    ],
    "pull": ["", "Always", None, True, HUGE, ["missing"]],
    "reuse": ["", 5, None, b"group", ["group"]],
    "files": [
        None, "x", [], 5, HUGE, {"relative": b""}, {"/": b""}, {"/a/": b""}, {"/a": 5}, {"/a": None}, {"/a": HUGE},
        {"/a": "\ud800"}, {"/a": Path("/no/such/file")}, {"/a": Path("a\0b")}, {"/a\0": b""}, {5: b""}, {HUGE: b""},
        {b"/a": b""}, {"/a": b"", "//a/.": b""},
    ],
    "publish_ip": ["localhost", "127.0.0.1:80", 5, b"::1", "fe80::1%eth0", HUGE],
}  # fmt: skip
EVERY_BAD = [
    pytest.param(field, value, id=f"{field}-{number}")
    for field, values in BAD.items()
    for number, value in enumerate(values)
]


def options(**changes: Any) -> RunOptions:
    """Make options of what has any type."""
    return RunOptions(**{"repository": "postgres", **changes})


def test_the_table_of_bad_values_has_every_field() -> None:
    """A field that is added gets its bad values here."""
    assert set(BAD) == {field.name for field in dataclasses.fields(RunOptions)}


@pytest.mark.parametrize(("field", "value"), EVERY_BAD)
def test_a_bad_value_is_refused_by_the_name_of_its_field(field: str, value: Any) -> None:
    """Never with another exception; with the value, or the part of it that is bad, unless it may be a secret."""
    with pytest.raises(InvalidOptionError) as caught:
        options(**{field: value})
    text = str(caught.value)
    assert text.startswith(field)
    assert len(text) < 400
    assert caught.value.__cause__ is None
    if field not in ("env", "auth", "files"):
        said = [
            "NUL",
            "is empty",
            "80/tcp is there twice",
            "networks too",
            *map(_specs.shown, parts_of(value)),
        ]
        assert any(each in text for each in said)


def parts_of(value: Any) -> "list[Any]":
    """Give a value, and all that is in it."""
    parts = [value]
    for part in parts:
        if isinstance(part, dict):
            parts += [*part.keys(), *part.values()]
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, str) and ":" in part:
            parts += part.split(":")
    return parts


def test_an_invalid_option_is_a_value_error() -> None:
    """Who catches `ValueError` catches it."""
    with pytest.raises(ValueError, match="shm_size"):
        options(shm_size="much")


def test_values_take_their_canonical_form() -> None:
    """However they were written, the value has them in one way."""
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
    "files": {"/etc/token": SECRET, "/etc/key": SECRET.encode(), "/etc/here": Path(__file__)},
    "publish_ip": "127.0.0.1",
    "reuse": "group",
}


@pytest.mark.parametrize("changes", [{}, FULL], ids=["few", "full"])
def test_options_made_of_options_are_the_same(changes: "dict[str, Any]") -> None:
    """Canonical values are taken as they are: `dataclasses.replace` works, and so do copies."""
    made = options(**changes)
    assert dataclasses.replace(made) == made
    assert dataclasses.replace(made, hostname="other").hostname == "other"
    assert copy.deepcopy(made) == made


@pytest.mark.parametrize(
    "value", [options(), options(**FULL), PortBinding("::1", 80), AuthConfig("me", SECRET, None, SECRET)]
)
def test_values_pickle(value: object) -> None:
    """Test runners send them between processes."""
    assert pickle.loads(pickle.dumps(value)) == value


@pytest.mark.parametrize("value", [options(), PortBinding(), AuthConfig()])
def test_values_are_frozen(value: Any) -> None:
    """And have no room for a misspelt field."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "other")
    assert not hasattr(value, "__dict__")


def test_a_value_does_not_change_with_what_it_was_made_of() -> None:
    """A list or mapping that is changed later is another's business."""
    cmd, labels, bindings, tmpfs = ["a"], {"a": "b"}, {80: 1}, {"/run": ""}
    made = options(cmd=cmd, labels=labels, port_bindings=bindings, tmpfs=tmpfs)
    for each in (labels, bindings, tmpfs, cmd):
        each.clear()
    assert made == options(cmd=["a"], labels={"a": "b"}, port_bindings={80: 1}, tmpfs={"/run": ""})


def test_options_are_given_by_name() -> None:
    """There are too many for an order."""
    with pytest.raises(TypeError):
        RunOptions("postgres")  # type: ignore[call-arg]


def test_a_misspelt_option_is_pythons_own_error() -> None:
    """It names the word."""
    with pytest.raises(TypeError, match="privilegd"):
        options(privilegd=True)


def test_no_secret_is_in_a_repr() -> None:
    """Names of environment variables are there, values are not; nor password, token and contents of files."""
    for shown in (repr(options(**FULL)), str(options(**FULL)), f"{FULL['auth']}", repr([options(**FULL)])):
        assert SECRET not in shown
    assert "'POSTGRES_PASSWORD=***'" in repr(options(**FULL))
    assert "AuthConfig(username='me', server_address='registry:5000')" in repr(options(**FULL))


def test_a_repr_has_what_was_set_and_nothing_else() -> None:
    """What is left at its default is left out."""
    assert repr(options(tag="15")) == "RunOptions(repository='postgres', tag='15', pull='missing')"


@pytest.mark.parametrize("field", ["username", "password", "server_address", "identity_token"])
@pytest.mark.parametrize("value", [SECRET.encode(), [SECRET], {"a": SECRET}, 5])
def test_bad_credentials_are_refused_unseen(field: str, value: Any) -> None:
    """The text names the field and shows nothing."""
    with pytest.raises(InvalidOptionError, match=f"auth: {field}") as caught:
        AuthConfig(**{field: value})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("auth", [SECRET, ("me", SECRET), {"password": SECRET}])
def test_what_are_no_credentials_is_refused_unseen(auth: Any) -> None:
    """A tuple or mapping with a password in it is not shown."""
    with pytest.raises(InvalidOptionError, match="auth must be an AuthConfig") as caught:
        options(auth=auth)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("files", [SECRET, [SECRET], {"a": SECRET}, {"/a/": SECRET}, {"/a": [SECRET]}])
def test_no_content_of_a_file_is_in_an_error(files: Any) -> None:
    """It may be a key."""
    with pytest.raises(InvalidOptionError, match="files") as caught:
        options(files=files)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "env", [SECRET, [SECRET], {"A": f"{SECRET}\0"}, {f"A={SECRET}": "x"}, [("A", SECRET)]]
)
def test_no_value_of_the_environment_is_in_an_error(env: Any) -> None:
    """Nor in the chain of errors that a test runner prints."""
    with pytest.raises(InvalidOptionError) as caught:
        options(env=env)
    failure: BaseException | None = caught.value
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
def test_a_port_binding_has_one_form(ip: Any, port: "str | int", binding: "tuple[str, str]") -> None:
    """An empty address is the pool's, an empty or zero port a free one."""
    made = PortBinding(ip, port)
    assert (made.host_ip, made.host_port) == binding


@pytest.mark.parametrize(
    ("ip", "port"), [("localhost", 80), ("::1", "http"), ("", 65536), ("", None), ("::1", 1.5)], ids=str
)
def test_a_bad_port_binding_is_refused(ip: Any, port: Any) -> None:
    """The text names the part."""
    with pytest.raises(InvalidOptionError, match=r"^host_(ip|port): "):
        PortBinding(ip, port)


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("cmd", "sleep 60", "write each word apart, or ['sh', '-c', 'sleep 60'] for a shell to do that"),
        ("entrypoint", "sh", "write each word apart, or ['sh', '-c', 'sh'] for a shell to do that"),
        ("mounts", "/a:/b", "write ['/a:/b']"),
        ("mounts", {"/a": "/b"}, "got {'/a': '/b'}"),
    ],
)
def test_what_is_no_sequence_is_told_what_to_write(field: str, value: Any, remedy: str) -> None:
    """And it works when it is written so: a command in one word would be the name of a program."""
    with pytest.raises(InvalidOptionError) as caught:
        options(**{field: value})
    assert str(caught.value).endswith(remedy)


def test_tags_may_be_said_once() -> None:
    """In the repository or beside it, but not in both."""
    assert options(repository="postgres:15").tag is None
    with pytest.raises(InvalidOptionError, match=r"tag: '15' is a second tag"):
        options(repository="postgres:15", tag="15")


def test_aliases_want_a_network() -> None:
    """The engine's default network knows no names."""
    with pytest.raises(InvalidOptionError, match="give networks too"):
        options(network_aliases=["db"])
    assert options(network_aliases=["db"], network_id="back").network_aliases == ("db",)


def test_what_has_an_id_is_a_network() -> None:
    """Our own `Network`, or the docker SDK's."""

    class Net:
        id = "abc"

    net = Net()
    assert options(networks=[net, "back"]).networks == (net, "back")


def test_run_takes_the_fields_of_the_options() -> None:
    """As keywords, each with the same annotation; the first three are `run`'s own arguments."""
    fields = get_type_hints(RunOptions)
    assert list(fields)[:2] == ["repository", "tag"]
    assert get_type_hints(RunFields) == {
        k: v for k, v in fields.items() if k not in ("repository", "tag", "env")
    }


def test_every_field_is_explained() -> None:
    """In the order in which it is declared."""
    explained = re.findall(r"^ {4}(\w+): ", inspect.getdoc(RunOptions) or "", re.MULTILINE)
    assert explained == [field.name for field in dataclasses.fields(RunOptions)]


def test_editors_show_what_a_keyword_of_run_means() -> None:
    """In the words of `RunOptions`, which editors do not look up for a keyword."""
    tree = ast.parse(inspect.getsource(RunFields))
    (found,) = tree.body
    assert isinstance(found, ast.ClassDef)
    told = {
        field.target.id: str(text.value.value)
        for field, text in itertools.pairwise(found.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    meant = " ".join((RunOptions.__doc__ or "").split())
    assert told.keys() == get_type_hints(RunFields).keys()
    assert [name for name, words in told.items() if f"{name}: {words}" not in meant] == []
