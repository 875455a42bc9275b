"""Parse options: accepted values, rejected values and their messages."""

import ipaddress
import string
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockertest import InvalidOptionError, _image_name, _validation
from dockertest._image_name import ImageName
from dockertest._validation import Mount

HUGE = 10**5000  # more digits than Python and pytest convert to text
huge = pytest.param(HUGE, id="huge")
minus_huge = pytest.param(-HUGE, id="minus-huge")
SHA256 = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8


def rejected(parse: Callable[..., object], *value: object) -> str:
    """Return the error message for an invalid value, which begins with the field."""
    with pytest.raises(InvalidOptionError) as error:
        parse("the field", *value)
    assert str(error.value).startswith("the field")
    return str(error.value)


@pytest.mark.parametrize(
    ("value", "port"),
    [
        ("5432/tcp", "5432/tcp"),
        ("5432", "5432/tcp"),
        (5432, "5432/tcp"),
        ("53/udp", "53/udp"),
        ("53/UDP", "53/udp"),
        ("9/sctp", "9/sctp"),
        ("00080", "80/tcp"),
        (1, "1/tcp"),
        ("65535", "65535/tcp"),
    ],
)
def test_container_ports_have_one_canonical_form(value: "str | int", port: str) -> None:
    """Every spelling of a port is parsed to the engine's form."""
    assert _validation.parse_port("the field", value) == port


@pytest.mark.parametrize(
    "value",
    [
        "", 0, "0", -1, 65536, "65536", "5432/", "/tcp", "5432/icmp", "5432/tcp/tcp", " 5432", "5432\n", "5432\0",
        "8080:80", "80-90", "http", "5432 /tcp", "+80", "8_0", "٨٠", "\uff11", b"80", None, 80.0, True, [], huge, minus_huge,
    ],
)  # fmt: skip
def test_invalid_container_port_is_rejected(value: Any) -> None:
    """The message shows the value and the expected forms."""
    text = rejected(_validation.parse_port, value)
    assert _validation.format_value(value) in text
    assert 'expected "5432/tcp", "5432" or 5432' in text


def test_container_ports_keep_their_order_without_duplicates() -> None:
    """`80` and `"80/tcp"` are the same port."""
    assert _validation.parse_ports("the field", ["90/udp", 80, "80/tcp", "80"]) == ("90/udp", "80/tcp")


@pytest.mark.parametrize("value", ["80", b"80", 80, None, huge])
def test_single_port_is_rejected_as_sequence(value: Any) -> None:
    """A string would be split into characters."""
    assert "sequence of ports" in rejected(_validation.parse_ports, value)


def test_message_has_the_index_of_an_invalid_port() -> None:
    """The index is the position in the sequence."""
    assert "the field[1]" in rejected(_validation.parse_ports, ["80", "http"])


@pytest.mark.parametrize(
    ("value", "port"),
    [("", ""), (0, ""), ("0", ""), ("000", ""), (15432, "15432"), ("15432", "15432"), ("08080", "8080")],
)
def test_host_ports_have_one_canonical_form(value: "str | int", port: str) -> None:
    """An empty string and zero mean any free port."""
    assert _validation.parse_host_port("the field", value) == port


@pytest.mark.parametrize(
    "value",
    [
        "80/tcp",
        -1,
        65536,
        "65536",
        " ",
        "a",
        None,
        True,
        False,
        b"",
        0.0,
        "8090-8080",
        "0-5",
        "1-2/tcp",
        huge,
        "1\0",
    ],
)
def test_invalid_host_port_is_rejected(value: Any) -> None:
    """A protocol is only valid in a container port."""
    assert _validation.format_value(value) in rejected(_validation.parse_host_port, value)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("", ""),
        (None, ""),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("0:0::1", "::1"),
        ("0.0.0.0", "0.0.0.0"),
        (ipaddress.ip_address("10.1.2.3"), "10.1.2.3"),
    ],
)
def test_ip_addresses_have_one_canonical_form(value: object, address: str) -> None:
    """An empty string and `None` mean the default."""
    assert _validation.parse_ip_address("the field", value) == address


@pytest.mark.parametrize(
    "value",
    [
        "localhost",
        "127.0.0.1:80",
        "[::1]",
        "256.1.1.1",
        "fe80::1%eth0",
        "fe80::1%\0",
        " 127.0.0.1",
        5,
        b"::1",
        huge,
        True,
    ],
)
def test_invalid_ip_address_is_rejected(value: Any) -> None:
    """Engines publish on addresses, not on names, and do not support zones."""
    assert _validation.format_value(value) in rejected(_validation.parse_ip_address, value)


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        (None, ()),
        ((), ()),
        ({}, ()),
        ({"A": "1", "B": ""}, ("A=1", "B=")),
        ({"A": 1, "B": 1.5, "C": True}, ("A=1", "B=1.5", "C=True")),
        (["A=1", "B=x=y", "C="], ("A=1", "B=x=y", "C=")),
        (("A=line\nline",), ("A=line\nline",)),
        ((pair for pair in ["A=1"]), ("A=1",)),
        ({"with space": "é"}, ("with space=é",)),
    ],
)
def test_environment_becomes_assignments(value: object, pairs: "tuple[str, ...]") -> None:
    """The values of a mapping are converted to strings."""
    assert _validation.parse_environment("the field", value) == pairs


SECRET = "hunter2"


@pytest.mark.parametrize(
    "value",
    [
        SECRET,
        f"PASSWORD={SECRET}",
        f"PASSWORD={SECRET}".encode(),
        [SECRET],
        [f"={SECRET}"],
        [f"PASSWORD={SECRET}\0"],
        [f"PASSWORD={SECRET}\udcff"],
        [f"PASSWORD={SECRET}".encode()],
        [("PASSWORD", SECRET)],
        [None],
        {"PASSWORD": f"{SECRET}\0"},
        {"PASSWORD": None},
        {"PASSWORD": SECRET.encode()},
        {"PASSWORD": bytearray(SECRET, "ascii")},
        {f"PASSWORD={SECRET}": ""},
        {f"PASSWORD={SECRET}".encode(): ""},
        {"": SECRET},
        {"A\0": SECRET},
        {"A\ud800": SECRET},
        {None: SECRET},
        {1: SECRET},
        {"PASSWORD": HUGE},
        {HUGE: SECRET},
        5,
        huge,
        object(),
    ],
)
def test_invalid_environment_is_rejected_without_showing_it(value: Any) -> None:
    """Environments contain passwords."""
    assert SECRET not in rejected(_validation.parse_environment, value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/data:/var/lib/data", Mount("/data", "/var/lib/data")),
        ("/data:/d:ro", Mount("/data", "/d", ("ro",))),
        ("volume:/d:rw,z", Mount("volume", "/d", ("rw", "z"))),
        ("C:\\data:/d", Mount("C:\\data", "/d")),
        ("c:/data:/d:ro", Mount("c:/data", "/d", ("ro",))),
        ("/with space:/d", Mount("/with space", "/d")),
        ("/:/host:rslave", Mount("/", "/host", ("rslave",))),
    ],
)
def test_mount_is_parsed(value: str, expected: Mount) -> None:
    """
    It has a source, a target and modes.

    The colon of a drive letter does not separate them.
    """
    assert _validation.parse_mount("the field", value) == expected
    assert str(expected) == value


def test_bind_mount_and_volume_are_distinguished() -> None:
    """A path with a Windows drive is a bind mount."""
    assert _validation.parse_mount("the field", "/a:/d").is_bind
    assert _validation.parse_mount("the field", "C:\\a:/d").is_bind
    assert not _validation.parse_mount("the field", "data:/d").is_bind


@pytest.mark.parametrize(
    "value",
    [
        "", ":", "/data", "/data:", ":/d", "/data:d", "./data:/d", "data/x:/d", "~/data:/d", "/a:/b:/c", "/a:/b:ro:z",
        "/a:/b:", "/a:/b:readonly", "/a:/b:ro,", "/a:/b:ro,rw", "/a:/b:RO", "v:/d", "a b:/d", "/a\0:/b", "C:\\a", "C:/a:b",
    ],
)  # fmt: skip
def test_invalid_mount_is_rejected(value: str) -> None:
    """The message contains the name of the field."""
    rejected(_validation.parse_mount, value)


@pytest.mark.parametrize("value", [None, 5, b"/a:/b", ["/a", "/b"], {"/a": "/b"}, huge])
def test_mount_of_another_type_is_rejected(value: Any) -> None:
    """A string is expected."""
    assert "must be a string" in rejected(_validation.parse_mount, value)


@pytest.mark.parametrize(
    ("repository", "tag", "expected"),
    [
        ("postgres", None, ImageName("postgres", "latest")),
        ("postgres", "", ImageName("postgres", "latest")),
        ("postgres", "15", ImageName("postgres", "15")),
        ("postgres:15", None, ImageName("postgres", "15")),
        ("team/app", None, ImageName("team/app", "latest")),
        ("host:5000/team/app", None, ImageName("host:5000/team/app", "latest")),
        ("host:5000/team/app:1.2-rc_1", None, ImageName("host:5000/team/app", "1.2-rc_1")),
        ("LOCAL/app", None, ImageName("LOCAL/app", "latest")),
        ("localhost/app", None, ImageName("localhost/app", "latest")),
        ("[::1]:5000/app", "1", ImageName("[::1]:5000/app", "1")),
        ("ghcr.io/a_b/c-d.e__f", None, ImageName("ghcr.io/a_b/c-d.e__f", "latest")),
        (f"postgres@{SHA256}", None, ImageName("postgres", "", SHA256)),
        (f"postgres@{SHA512}", None, ImageName("postgres", "", SHA512)),
        (f"host:5000/pg:15@{SHA256}", None, ImageName("host:5000/pg", "15", SHA256)),
        (SHA256, None, ImageName(SHA256)),
    ],
)
def test_image_name_is_parsed(repository: str, tag: "str | None", expected: ImageName) -> None:
    """A port is not a tag; without a tag and a digest the tag is `latest`."""
    assert _image_name.parse_image_name("the field", repository, tag) == expected


@pytest.mark.parametrize(
    "value",
    [
        "", " ", "Postgres", "postgres:", ":15", "postgres:15:16", "postgres:-1", "postgres:" + "x" * 129, "/postgres",
        "postgres/", "a//b", "a___b", "-a", "a-", "a..b", "postgres@", "postgres@sha256:abc", f"@{SHA256}",
        "postgres@sha256:" + "A" * 64, "postgres@sha256:" + "a" * 32, "http://host/app", "host:port/app", "postgres 15",
        "postgres\0", "postgres\n", "pöstgres", "[::1:5000/app", "-host.a/app", None, 5, b"postgres", huge, ["postgres"],
    ],
)  # fmt: skip
def test_invalid_image_name_is_rejected(value: Any) -> None:
    """The engine would only report 'invalid reference format'."""
    rejected(_image_name.parse_image_name, value)


@pytest.mark.parametrize("tag", [":15", "a b", "-1", "x" * 129, "15\n", 15, 0, False, b"", huge, ["15"]])
def test_invalid_tag_is_rejected(tag: Any) -> None:
    """The message begins with `tag`. Numbers are rejected, including 0."""
    with pytest.raises(InvalidOptionError, match=r"^tag: "):
        _image_name.parse_image_name("repository", "postgres", tag)


@pytest.mark.parametrize(
    "environment", [{"PGPASSWORD": "hunter2"}, ["PGPASSWORD=hunter2"], "PGPASSWORD=hunter2"]
)
def test_environment_passed_as_tag_is_rejected_without_showing_it(environment: Any) -> None:
    """This is an easy mistake in `run("postgres:15", {…})`."""
    with pytest.raises(InvalidOptionError, match=r"^tag: .* env=") as error:
        _image_name.parse_image_name("repository", "postgres:15", environment)
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("repository", ["postgres:14", f"postgres@{SHA256}", SHA256])
def test_second_tag_is_rejected(repository: str) -> None:
    """It is rejected even if both are the same."""
    with pytest.raises(InvalidOptionError, match=r"tag: '14' is a second tag.*; set only one of the two"):
        _image_name.parse_image_name("repository", repository, "14")


@pytest.mark.parametrize(
    ("value", "registry"),
    [
        ("postgres", ""),
        ("team/app", ""),
        ("host:5000/app", "host:5000"),
        ("host.corp/app", "host.corp"),
        ("localhost/app", "localhost"),
        ("UPPER/app", "UPPER"),
        ("[::1]:5000/app", "[::1]:5000"),
        (SHA256, ""),
    ],
)
def test_registry_is_parsed_from_the_name(value: str, registry: str) -> None:
    """
    The first component is a registry if it has a dot, a port or capitals.

    `localhost` is a registry too.
    """
    assert _image_name.parse_image_name("the field", value).registry == registry


@pytest.mark.parametrize(
    ("value", "may_be_id"),
    [
        ("005af9e2d763", True),
        ("0" * 64, True),
        ("005af9e2d76", False),
        ("0" * 65, False),
        ("005af9e2d76g", False),
        ("005af9e2d763:1", False),
        ("team/005af9e2d763", False),
        (f"005af9e2d763@{SHA256}", False),
        (SHA256, False),
        ("postgres", False),
    ],
)
def test_hexadecimal_name_may_be_the_id_of_an_image(value: str, may_be_id: bool) -> None:
    """
    `docker images` prints ids of twelve digits.

    A whole id with its prefix is not a name.
    """
    assert _image_name.parse_image_name("the field", value).may_be_id is may_be_id


@pytest.mark.parametrize(
    ("value", "prefix", "prefixed"),
    [
        ("postgres:15", "", "postgres:15"),
        ("postgres:15", "host:5000/", "host:5000/postgres:15"),
        ("postgres:15", "host:5000", "host:5000/postgres:15"),
        ("team/app:1", "host:5000/mirror/", "host:5000/mirror/team/app:1"),
        ("other:5000/app:1", "host:5000/", "other:5000/app:1"),
        (f"postgres@{SHA256}", "host:5000/", f"host:5000/postgres@{SHA256}"),
        (SHA256, "host:5000/", SHA256),
    ],
)
def test_prefix_is_added_to_names_without_registry(value: str, prefix: str, prefixed: str) -> None:
    """Ids and names with a registry are not changed."""
    assert str(_image_name.parse_image_name("the field", value).prefixed(prefix)) == prefixed


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (None, None), (1, 1), ("1", 1), ("64m", 64 << 20), ("64MB", 64 << 20), ("1k", 1024), ("1g", 1 << 30),
        ("7b", 7), ("007", 7), ("1.5g", 3 << 29), ("1.5GB", 3 << 29), (".5k", 512), ("1.0009k", 1024),
    ],
)  # fmt: skip
def test_size_is_parsed_to_bytes(value: "str | int | None", size: "int | None") -> None:
    """Units are powers of 1024."""
    assert _validation.parse_size("the field", value) == size


@pytest.mark.parametrize(
    "value",
    [
        "",
        0,
        "0",
        "0g",
        -1,
        "-1",
        "1.5",
        "1.5b",
        "1.g",
        "1.5.5g",
        "0.0001k",
        "1 g",
        "1t",
        "g",
        "1gib",
        1.0,
        True,
        b"1",
        10**18,
        "999999999g",
        huge,
        [],
    ],
)
def test_invalid_size_is_rejected(value: Any) -> None:
    """An unrealistically large size is also invalid."""
    assert _validation.format_value(value) in rejected(_validation.parse_size, value)


@pytest.mark.parametrize("value", [0, 1, 1.5, 10**9])
def test_seconds_are_returned_as_float(value: float) -> None:
    """Whole numbers are accepted."""
    assert _validation.parse_seconds("the field", value) == value
    assert isinstance(_validation.parse_seconds("the field", value), float)


@pytest.mark.parametrize(
    "value",
    [-1, -0.1, float("nan"), float("inf"), 1e300, 10**400, huge, minus_huge, "1", b"1", None, True, [1]],
)
def test_invalid_seconds_are_rejected(value: Any) -> None:
    """This includes durations that overflow the clocks."""
    assert _validation.format_value(value) in rejected(_validation.parse_seconds, value)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (" 5 ", 5), ("0", 0), (90.0, 90)],
)
def test_duration_is_parsed_to_seconds(value: "str | float", seconds: float) -> None:
    """A number without a unit is in seconds."""
    assert _validation.parse_duration("the field", value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        "h",
        "2 h",
        "2H",
        "-1",
        "1e3",
        ".5",
        "5.",
        "1h30m",
        "2w",
        "inf",
        "nan",
        "1\0",
        None,
        b"2h",
        "999999999999d",
        huge,
    ],
)
def test_invalid_duration_is_rejected(value: Any) -> None:
    """The message shows the value."""
    assert _validation.format_value(value) in rejected(_validation.parse_duration, value)


@pytest.mark.parametrize("value", [{"dockertest.x": "1"}, {"dockertest.": ""}])
def test_reserved_labels_are_rejected(value: "dict[str, str]") -> None:
    """Cleanup relies on them."""
    assert "is reserved" in rejected(_validation.parse_labels, value)


@pytest.mark.parametrize(
    "value",
    [None, [], "a=b", {"": "x"}, {None: "x"}, {"a": 1}, {"a": None}, {"a": "\0"}, {"a\0": "x"}, {HUGE: HUGE}],
)
def test_invalid_labels_are_rejected(value: Any) -> None:
    """Names and values are strings."""
    rejected(_validation.parse_labels, value)


def test_labels_are_returned_as_a_copy() -> None:
    """Only the prefix with its dot is reserved."""
    value = {"dockertest": "a", "com.example/x": "", "my dockertest.": "b"}
    assert _validation.parse_labels("the field", value) == value
    assert _validation.parse_labels("the field", value) is not value


@pytest.mark.parametrize("value", ["pg", "PG-1_a.b", "00"])
def test_container_name_is_returned_unchanged(value: str) -> None:
    """It may contain letters, digits, and `_ . -` after the first character."""
    assert _validation.parse_name("the field", value) == value


@pytest.mark.parametrize("value", ["", None])
def test_empty_container_name_leaves_the_choice_to_the_engine(value: "str | None") -> None:
    """An empty string and `None` are equivalent."""
    assert _validation.parse_name("the field", value) == ""


@pytest.mark.parametrize(
    "value", ["a", "-pg", "/pg", "p g", "pg\n", "pg\0", "pögs", 5, b"pg", 0, False, [], huge]
)
def test_invalid_container_name_is_rejected(value: Any) -> None:
    """The message lists the accepted characters."""
    assert "a-z A-Z 0-9" in rejected(_validation.parse_name, value)


@pytest.mark.parametrize("value", ["a string", b"bytes", {"a": "b"}, 5, huge, object()])
def test_value_that_is_not_a_sequence_of_strings_is_rejected(value: Any) -> None:
    """A single string would be split into characters."""
    assert "sequence of strings" in rejected(_validation.parse_strings, value)


@pytest.mark.parametrize("bad", [None, 5, b"x", "a\0b", huge])
def test_message_has_the_index_of_an_invalid_string(bad: Any) -> None:
    """The index is the position in the sequence."""
    assert "the field[1]" in rejected(_validation.parse_strings, ["a", bad])


def test_values_in_messages_are_shortened() -> None:
    """Numbers that Python refuses to convert to text cause no other error."""
    assert len(_validation.format_value("x" * 1000)) == 80
    assert _validation.format_value("x") == "'x'"
    assert "digits" in _validation.format_value(HUGE)
    assert "digits" in _validation.format_value([-HUGE])


# The rest draws random inputs from the grammars and changes a few characters. Each input either is parsed to a value that
# round-trips through its text, or raises `InvalidOptionError`. No other exception is raised.

ODD = sorted({*string.printable} - {*string.ascii_letters} | {*"aAzZ0é٣\0\ud800\u2028"})


def one_of(*choices: str) -> "st.SearchStrategy[str]":
    """Draw one of *choices*."""
    return st.sampled_from(choices)


def joined(*parts: "st.SearchStrategy[str]") -> "st.SearchStrategy[str]":
    """Draw one string from each of *parts* and concatenate them."""
    return st.tuples(*parts).map("".join)


def nearly(grammar: "st.SearchStrategy[str]") -> "st.SearchStrategy[str]":
    """Draw from *grammar*, with up to two characters changed."""

    def changed(value: str, *edits: "tuple[int, int, str]") -> str:
        for place, drop, new in edits:
            at = place % (len(value) + 1)
            value = value[:at] + new + value[at + drop :]
        return value

    edit = st.tuples(st.integers(0, 60), st.integers(0, 2), st.sampled_from(["", *ODD]))
    return grammar | st.builds(changed, grammar, edit) | st.builds(changed, grammar, edit, edit)


def half(valid: "st.SearchStrategy[Any]", rest: "st.SearchStrategy[Any]") -> "st.SearchStrategy[Any]":
    """Draw from both with equal probability."""
    return st.tuples(st.booleans(), valid, rest).map(lambda drawn: drawn[1] if drawn[0] else drawn[2])


word = st.text("ab09._-", min_size=1, max_size=6)
digits = st.integers(-1, 70000).map(str) | one_of("", "0", "00", "007", "65535", "65536", "9" * 12, "9" * 20)
scalar = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**18, -(10**18), 10**400])
    | st.floats()
    | st.binary(max_size=3)
    | st.text(ODD, max_size=12)
)
registry = one_of(
    "", "", "localhost/", "host.corp:5000/", "UPPER/", "[::1]:1/", "10.0.0.1:/", "a/", "/", "a:b/"
)
tag = one_of("", "", ":15", ":1.2-rc_1", ":-", ":" + "x" * 128, ":" + "x" * 129, "::")
digest = one_of(
    "", "", *("@" + value for value in (SHA256, SHA512, "md5:" + "0" * 32, SHA256[:-1], "x+y:" + "F" * 40))
)
valid_references = one_of(SHA256, "postgres", "team/app:15", f"host:5000/app@{SHA256}")
references = nearly(joined(registry, word, one_of("", "/b", "/c/d", "//"), tag, digest) | valid_references)
ports = nearly(joined(digits, one_of("", "/tcp", "/udp", "/SCTP", "/", "/icmp")))
path = one_of("/", "/a", "/a b", "C:\\", "c:/", "C:", "./", "", "vol", "v")
modes = one_of("", "", ":", ":ro", ":rw", ":ro,rw", ":z,ro", ":rslave,Z", ":no", ":ro,", ":ro:ro")
mounts = nearly(joined(path, word, one_of(":/", ":/", ":", ""), path, modes))
pairs = nearly(joined(word, one_of("=", "=", "==", ""), one_of("", "x", "a=b", "\n", "é", "\0")))
environments = (
    st.lists(pairs | scalar, max_size=2) | st.dictionaries(word | scalar, pairs | scalar, max_size=2) | scalar
)
sizes = nearly(joined(digits, one_of("", "k", "m", "g", "b", "MB", "t")))
durations = nearly(
    joined(digits, one_of("", "", ".", ".5", ".000001", ".0000001"), one_of("", "s", "m", "h", "d", "w"))
)
addresses = nearly(
    one_of("127.0.0.1", "::1", "fe80::1", "::ffff:1.2.3.4", "0.0.0.0", "255.255.255.255", "1::2")
)


paths = nearly(joined(one_of("/", "", "//", "/../"), word, one_of("", "/", "/..", "/./x", "/a/../..")))
labels = st.dictionaries(one_of("a", "", "com.example/x", "dockertest.x") | word, word | scalar, max_size=2)
folders = st.dictionaries(paths, one_of("", "size=1m") | scalar, max_size=2) | st.lists(paths, max_size=2)


def reference_round_trips(value: object) -> None:
    parsed = _image_name.parse_image_name("f", value)
    assert _image_name.parse_image_name("f", str(parsed)) == parsed


def container_port_round_trips(value: "str | int") -> None:
    parsed = _validation.parse_port("f", value)
    assert _validation.parse_port("f", parsed) == parsed


def host_port_round_trips(value: "str | int") -> None:
    parsed = _validation.parse_host_port("f", value)
    assert _validation.parse_host_port("f", parsed) == parsed


def mount_round_trips(value: str) -> None:
    parsed = _validation.parse_mount("f", value)
    assert _validation.parse_mount("f", str(parsed)) == _validation.parse_mount("f", parsed) == parsed


def environment_round_trips(value: object) -> None:
    parsed = _validation.parse_environment("f", value)
    assert _validation.parse_environment("f", parsed) == parsed
    assert (
        _validation.parse_environment("f", dict(pair.split("=", 1) for pair in dict.fromkeys(parsed)))
        or not parsed
    )


def size_round_trips(value: "str | int | None") -> None:
    parsed = _validation.parse_size("f", value)
    assert _validation.parse_size("f", parsed) == parsed
    assert parsed is None or _validation.parse_size("f", str(parsed)) == parsed


def duration_round_trips(value: str) -> None:
    parsed = _validation.parse_duration("f", value)
    assert _validation.parse_duration("f", parsed) == parsed
    assert _validation.parse_duration("f", f"{parsed:.6f}") == pytest.approx(parsed, abs=1e-6)


def address_round_trips(value: object) -> None:
    parsed = _validation.parse_ip_address("f", value)
    assert _validation.parse_ip_address("f", parsed) == parsed


def container_path_round_trips(value: object) -> None:
    parsed = _validation.parse_container_path("f", value)
    assert _validation.parse_container_path("f", parsed) == parsed
    assert _validation.is_below(parsed, "/")
    assert ".." not in parsed.split("/")


def labels_round_trip(value: "dict[str, str]") -> None:
    parsed = _validation.parse_labels("f", value)
    assert _validation.parse_labels("f", parsed) == parsed == value
    assert not any(name.startswith("dockertest.") for name in parsed)


def tmpfs_round_trips(value: "dict[str, str]") -> None:
    parsed = _validation.parse_tmpfs("tmpfs", value)
    assert _validation.parse_tmpfs("tmpfs", parsed) == parsed


def content_round_trips(value: object) -> None:
    parsed = _validation.parse_content("f", value)
    assert _validation.parse_content("f", parsed) is parsed
    assert parsed == (value.encode() if isinstance(value, str) else value)


PROPERTIES: "list[tuple[st.SearchStrategy[Any], Callable[[Any], None]]]" = [
    (half(valid_references, references | scalar), reference_round_trips),
    (half(one_of("1", "5432/tcp", "53/UDP", "065535"), ports | scalar), container_port_round_trips),
    (half(one_of("", "0", "8080", "65535"), ports | scalar), host_port_round_trips),
    (half(one_of("/a:/b", "volume:/b:ro", "C:\\a:/b:z,ro"), mounts | scalar), mount_round_trips),
    (environments, environment_round_trips),
    (sizes | scalar, size_round_trips),
    (durations | scalar, duration_round_trips),
    (addresses | scalar, address_round_trips),
    (paths | scalar, container_path_round_trips),
    (labels, labels_round_trip),
    (folders, tmpfs_round_trips),
    (st.text(ODD, max_size=3) | scalar, content_round_trips),
]


def draw(examples: int, **profile: Any) -> "Counter[tuple[str, bool]]":
    """
    Try random inputs with each property.

    The result is how many were accepted and rejected.
    """
    outcomes: Counter[tuple[str, bool]] = Counter()

    @settings(max_examples=examples, **profile)
    @given(
        st.tuples(*[inputs for inputs, _ in PROPERTIES])
    )  # all properties in one run, which is four times as fast
    def attempt(value: "tuple[Any, ...]") -> None:
        for part, (_, holds) in zip(value, PROPERTIES, strict=True):
            try:
                holds(part)
            except InvalidOptionError:
                outcomes[holds.__name__, False] += 1
            else:
                outcomes[holds.__name__, True] += 1

    attempt()
    return outcomes


def test_random_input_round_trips_or_is_rejected() -> None:
    """Both happen often, so the inputs are neither all valid nor all invalid."""
    outcomes = draw(200)
    assert sum(outcomes.values()) >= 200 * len(PROPERTIES)
    assert len(outcomes) == 2 * len(PROPERTIES)
    assert min(outcomes.values()) > 5


@pytest.mark.soak
def test_ten_thousand_random_inputs_round_trip_or_are_rejected() -> None:
    """Each run draws new inputs."""
    assert sum(draw(10_000, derandomize=False).values()) >= 10_000 * len(PROPERTIES)
