"""The strings people write: what is read, what is refused, and in which words."""

import ipaddress
import string
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockertest import InvalidOptionError
from dockertest import _image_name as _reference
from dockertest import _validation as _specs
from dockertest._image_name import Reference
from dockertest._validation import Mount

HUGE = 10**5000  # more digits than Python prints, and pytest
huge = pytest.param(HUGE, id="huge")
minus_huge = pytest.param(-HUGE, id="minus-huge")
SHA256 = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8


def refused(parse: Callable[..., object], *value: object) -> str:
    """Give the text of the refusal, which names the field."""
    with pytest.raises(InvalidOptionError) as caught:
        parse("the field", *value)
    assert str(caught.value).startswith("the field")
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "port"),
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
def test_a_container_port_has_one_form(written: "str | int", port: str) -> None:
    """However it was written, it comes out as the engine writes it."""
    assert _specs.container_port("the field", written) == port


@pytest.mark.parametrize(
    "written",
    [
        "", 0, "0", -1, 65536, "65536", "5432/", "/tcp", "5432/icmp", "5432/tcp/tcp", " 5432", "5432\n", "5432\0",
        "8080:80", "80-90", "http", "5432 /tcp", "+80", "8_0", "٨٠", "\uff11", b"80", None, 80.0, True, [], huge, minus_huge,
    ],
)  # fmt: skip
def test_what_is_no_container_port_is_refused(written: Any) -> None:
    """The text shows what was given, and what to write."""
    text = refused(_specs.container_port, written)
    assert _specs.shown(written) in text
    assert "write '5432/tcp'" in text


def test_container_ports_keep_their_order_and_appear_once() -> None:
    """`80` and `"80/tcp"` are the same port."""
    assert _specs.container_ports("the field", ["90/udp", 80, "80/tcp", "80"]) == ("90/udp", "80/tcp")


@pytest.mark.parametrize("written", ["80", b"80", 80, None, huge])
def test_one_port_is_no_sequence_of_ports(written: Any) -> None:
    """A string would be taken apart; the text says what to write."""
    assert "sequence of ports" in refused(_specs.container_ports, written)


def test_a_bad_port_among_good_ones_is_named_by_its_place() -> None:
    """The text has the index."""
    assert "the field[1]" in refused(_specs.container_ports, ["80", "http"])


@pytest.mark.parametrize(
    ("written", "port"),
    [("", ""), (0, ""), ("0", ""), ("000", ""), (15432, "15432"), ("15432", "15432"), ("08080", "8080")],
)
def test_a_port_of_the_host_has_one_form(written: "str | int", port: str) -> None:
    """Empty and zero are any free one."""
    assert _specs.host_port("the field", written) == port


@pytest.mark.parametrize(
    "written", ["80/tcp", -1, 65536, "65536", " ", "a", None, True, False, b"", 0.0, "8080-8090", huge, "1\0"]
)
def test_what_is_no_port_of_the_host_is_refused(written: Any) -> None:
    """A protocol belongs to the container's port."""
    assert _specs.shown(written) in refused(_specs.host_port, written)


@pytest.mark.parametrize(
    ("written", "address"),
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
def test_an_address_has_one_form(written: object, address: str) -> None:
    """Nothing stands for the default."""
    assert _specs.address("the field", written) == address


@pytest.mark.parametrize(
    "written",
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
def test_what_is_no_address_is_refused(written: Any) -> None:
    """Engines publish on addresses, not on names, and know no zones."""
    assert _specs.shown(written) in refused(_specs.address, written)


@pytest.mark.parametrize(
    ("written", "pairs"),
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
def test_an_environment_becomes_assignments(written: object, pairs: "tuple[str, ...]") -> None:
    """Mapping values are turned into strings."""
    assert _specs.environment("the field", written) == pairs


SECRET = "hunter2"


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        f"PASSWORD={SECRET}",
        f"PASSWORD={SECRET}".encode(),
        [SECRET],
        [f"={SECRET}"],
        [f"PASSWORD={SECRET}\0"],
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
        {None: SECRET},
        {1: SECRET},
        {"PASSWORD": HUGE},
        {HUGE: SECRET},
        5,
        huge,
        object(),
    ],
)
def test_a_bad_environment_is_refused_without_its_values(written: Any) -> None:
    """Environments hold passwords: what went wrong is said, what was given is not."""
    assert SECRET not in refused(_specs.environment, written)


@pytest.mark.parametrize(
    ("written", "found"),
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
def test_a_mount_is_read(written: str, found: Mount) -> None:
    """Source, target and modes; a drive letter is no separator."""
    assert _specs.mount("the field", written) == found
    assert str(found) == written


def test_a_mount_of_a_path_is_told_from_one_of_a_volume() -> None:
    """Windows drives are paths as well."""
    assert _specs.mount("the field", "/a:/d").is_bind
    assert _specs.mount("the field", "C:\\a:/d").is_bind
    assert not _specs.mount("the field", "data:/d").is_bind


@pytest.mark.parametrize(
    "written",
    [
        "", ":", "/data", "/data:", ":/d", "/data:d", "./data:/d", "data/x:/d", "~/data:/d", "/a:/b:/c", "/a:/b:ro:z",
        "/a:/b:", "/a:/b:readonly", "/a:/b:ro,", "/a:/b:ro,rw", "/a:/b:RO", "v:/d", "a b:/d", "/a\0:/b", "C:\\a", "C:/a:b",
    ],
)  # fmt: skip
def test_what_is_no_mount_is_refused(written: str) -> None:
    """The text has what was written."""
    refused(_specs.mount, written)


@pytest.mark.parametrize("written", [None, 5, b"/a:/b", ["/a", "/b"], {"/a": "/b"}, huge])
def test_a_mount_that_is_no_string_is_refused(written: Any) -> None:
    """The text says that a string is wanted."""
    assert "must be a string" in refused(_specs.mount, written)


@pytest.mark.parametrize(
    ("repository", "tag", "found"),
    [
        ("postgres", None, Reference("postgres", "latest")),
        ("postgres", "", Reference("postgres", "latest")),
        ("postgres", "15", Reference("postgres", "15")),
        ("postgres:15", None, Reference("postgres", "15")),
        ("team/app", None, Reference("team/app", "latest")),
        ("host:5000/team/app", None, Reference("host:5000/team/app", "latest")),
        ("host:5000/team/app:1.2-rc_1", None, Reference("host:5000/team/app", "1.2-rc_1")),
        ("LOCAL/app", None, Reference("LOCAL/app", "latest")),
        ("localhost/app", None, Reference("localhost/app", "latest")),
        ("[::1]:5000/app", "1", Reference("[::1]:5000/app", "1")),
        ("ghcr.io/a_b/c-d.e__f", None, Reference("ghcr.io/a_b/c-d.e__f", "latest")),
        (f"postgres@{SHA256}", None, Reference("postgres", "", SHA256)),
        (f"postgres@{SHA512}", None, Reference("postgres", "", SHA512)),
        (f"host:5000/pg:15@{SHA256}", None, Reference("host:5000/pg", "15", SHA256)),
        (SHA256, None, Reference(SHA256)),
    ],
)
def test_an_image_name_is_read(repository: str, tag: "str | None", found: Reference) -> None:
    """A port is no tag, and where neither tag nor digest is written it is the latest."""
    assert _reference.reference("the field", repository, tag) == found


@pytest.mark.parametrize(
    "written",
    [
        "", " ", "Postgres", "postgres:", ":15", "postgres:15:16", "postgres:-1", "postgres:" + "x" * 129, "/postgres",
        "postgres/", "a//b", "a___b", "-a", "a-", "a..b", "postgres@", "postgres@sha256:abc", f"@{SHA256}",
        "postgres@sha256:" + "A" * 64, "postgres@sha256:" + "a" * 32, "http://host/app", "host:port/app", "postgres 15",
        "postgres\0", "postgres\n", "pöstgres", "[::1:5000/app", "-host.a/app", None, 5, b"postgres", huge, ["postgres"],
    ],
)  # fmt: skip
def test_what_is_no_image_name_is_refused(written: Any) -> None:
    """Nothing reaches an engine that would only answer 'invalid reference format'."""
    refused(_reference.reference, written)


@pytest.mark.parametrize("tag", [":15", "a b", "-1", "x" * 129, "15\n", 15, 0, False, b"", huge, ["15"]])
def test_what_is_no_tag_is_refused(tag: Any) -> None:
    """The text names the tag; `15` the number is refused, and `0` is not taken for none."""
    with pytest.raises(InvalidOptionError, match=r"^tag: "):
        _reference.reference("repository", "postgres", tag)


@pytest.mark.parametrize(
    "environment", [{"PGPASSWORD": "hunter2"}, ["PGPASSWORD=hunter2"], "PGPASSWORD=hunter2"]
)
def test_an_environment_in_the_tags_place_is_not_shown(environment: Any) -> None:
    """As in `run("postgres:15", {…})`: it is easily written there, and holds passwords."""
    with pytest.raises(InvalidOptionError, match=r"^tag: .* env=") as caught:
        _reference.reference("repository", "postgres:15", environment)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("repository", ["postgres:14", f"postgres@{SHA256}", SHA256])
def test_a_second_tag_is_refused(repository: str) -> None:
    """Even the same one: the text has both."""
    with pytest.raises(InvalidOptionError, match=r"tag: '14' is a second tag.*give one of them"):
        _reference.reference("repository", repository, "14")


@pytest.mark.parametrize(
    ("written", "registry"),
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
def test_the_registry_is_what_the_name_says(written: str, registry: str) -> None:
    """A first part is a registry if it has a dot, a port or capitals, or is localhost."""
    assert _reference.reference("the field", written).registry == registry


@pytest.mark.parametrize(
    ("written", "prefix", "prefixed"),
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
def test_a_prefix_is_put_before_names_without_registry(written: str, prefix: str, prefixed: str) -> None:
    """Ids and names with a registry stay."""
    assert str(_reference.reference("the field", written).prefixed(prefix)) == prefixed


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (None, None), (1, 1), ("1", 1), ("64m", 64 << 20), ("64MB", 64 << 20), ("1k", 1024), ("1g", 1 << 30),
        ("7b", 7), ("007", 7),
    ],
)  # fmt: skip
def test_a_size_is_read_in_bytes(written: "str | int | None", size: "int | None") -> None:
    """Units are powers of 1024."""
    assert _specs.size("the field", written) == size


@pytest.mark.parametrize(
    "written",
    [
        "",
        0,
        "0",
        "0g",
        -1,
        "-1",
        "1.5g",
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
def test_what_is_no_size_is_refused(written: Any) -> None:
    """Nor is one that no machine has."""
    assert _specs.shown(written) in refused(_specs.size, written)


@pytest.mark.parametrize("written", [0, 1, 1.5, 10**9])
def test_seconds_are_numbers(written: float) -> None:
    """Whole or not, they come out as a float."""
    assert _specs.seconds("the field", written) == written
    assert isinstance(_specs.seconds("the field", written), float)


@pytest.mark.parametrize(
    "written",
    [-1, -0.1, float("nan"), float("inf"), 1e300, 10**400, huge, minus_huge, "1", b"1", None, True, [1]],
)
def test_what_is_no_length_of_time_is_refused(written: Any) -> None:
    """Nor what no clock can count."""
    assert _specs.shown(written) in refused(_specs.seconds, written)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400), (" 5 ", 5), ("0", 0), (90.0, 90)],
)
def test_a_duration_is_read_in_seconds(written: "str | float", seconds: float) -> None:
    """Plain numbers are seconds."""
    assert _specs.duration("the field", written) == seconds


@pytest.mark.parametrize(
    "written",
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
def test_what_is_no_duration_is_refused(written: Any) -> None:
    """The text shows it."""
    assert _specs.shown(written) in refused(_specs.duration, written)


@pytest.mark.parametrize("written", [{"dockertest.x": "1"}, {"dockertest.": ""}])
def test_our_own_labels_are_refused(written: "dict[str, str]") -> None:
    """They decide what is removed."""
    assert "is reserved" in refused(_specs.labels, written)


@pytest.mark.parametrize(
    "written",
    [None, [], "a=b", {"": "x"}, {None: "x"}, {"a": 1}, {"a": None}, {"a": "\0"}, {"a\0": "x"}, {HUGE: HUGE}],
)
def test_what_are_no_labels_is_refused(written: Any) -> None:
    """Keys and values are strings."""
    refused(_specs.labels, written)


def test_labels_are_given_as_they_are() -> None:
    """Only what begins with our prefix, dot included, is ours."""
    written = {"dockertest": "a", "com.example/x": "", "my dockertest.": "b"}
    assert _specs.labels("the field", written) == written
    assert _specs.labels("the field", written) is not written


@pytest.mark.parametrize("written", ["pg", "PG-1_a.b", "00"])
def test_a_container_name_is_given_as_it_is(written: str) -> None:
    """Letters, digits and `_ . -` behind the first."""
    assert _specs.container_name("the field", written) == written


@pytest.mark.parametrize("written", ["", None])
def test_no_container_name_leaves_the_choice_to_the_engine(written: "str | None") -> None:
    """Empty and `None` are the same."""
    assert _specs.container_name("the field", written) == ""


@pytest.mark.parametrize(
    "written", ["a", "-pg", "/pg", "p g", "pg\n", "pg\0", "pögs", 5, b"pg", 0, False, [], huge]
)
def test_what_is_no_container_name_is_refused(written: Any) -> None:
    """The text says which characters engines accept."""
    assert "a-z A-Z 0-9" in refused(_specs.container_name, written)


@pytest.mark.parametrize("written", ["a string", b"bytes", {"a": "b"}, 5, huge, object()])
def test_what_is_no_sequence_of_strings_is_refused(written: Any) -> None:
    """One string alone would be taken apart."""
    assert "sequence of strings" in refused(_specs.texts, written)


@pytest.mark.parametrize("bad", [None, 5, b"x", "a\0b", huge])
def test_a_bad_string_among_good_ones_is_named_by_its_place(bad: Any) -> None:
    """The text has the index."""
    assert "the field[1]" in refused(_specs.texts, ["a", bad])


def test_whatever_is_shown_is_short_and_no_error() -> None:
    """Numbers that Python does not print as well."""
    assert len(_specs.shown("x" * 1000)) == 80
    assert _specs.shown("x") == "'x'"
    assert "digits" in _specs.shown(HUGE)
    assert "digits" in _specs.shown([-HUGE])


# What follows draws inputs: from the grammars, with a few characters changed. Whatever is written gives a value that
# prints back to the same meaning, or `InvalidOptionError`; never another exception.

ODD = sorted({*string.printable} - {*string.ascii_letters} | {*"aAzZ0é٣\0\ud800\u2028"})


def one_of(*choices: str) -> "st.SearchStrategy[str]":
    """Draw one of *choices*."""
    return st.sampled_from(choices)


def joined(*parts: "st.SearchStrategy[str]") -> "st.SearchStrategy[str]":
    """Draw one string of each of *parts* and put them together."""
    return st.tuples(*parts).map("".join)


def nearly(grammar: "st.SearchStrategy[str]") -> "st.SearchStrategy[str]":
    """Draw from *grammar*, and change nothing, or a character, or two."""

    def changed(written: str, *edits: "tuple[int, int, str]") -> str:
        for place, drop, new in edits:
            at = place % (len(written) + 1)
            written = written[:at] + new + written[at + drop :]
        return written

    edit = st.tuples(st.integers(0, 60), st.integers(0, 2), st.sampled_from(["", *ODD]))
    return grammar | st.builds(changed, grammar, edit) | st.builds(changed, grammar, edit, edit)


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
    "", "", *("@" + each for each in (SHA256, SHA512, "md5:" + "0" * 32, SHA256[:-1], "x+y:" + "F" * 40))
)
references = nearly(joined(registry, word, one_of("", "/b", "/c/d", "//"), tag, digest) | one_of(SHA256))
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


def reference_holds(written: object) -> None:
    found = _reference.reference("f", written)
    assert _reference.reference("f", str(found)) == found


def container_port_holds(written: "str | int") -> None:
    found = _specs.container_port("f", written)
    assert _specs.container_port("f", found) == found


def host_port_holds(written: "str | int") -> None:
    found = _specs.host_port("f", written)
    assert _specs.host_port("f", found) == found


def mount_holds(written: str) -> None:
    found = _specs.mount("f", written)
    assert _specs.mount("f", str(found)) == _specs.mount("f", found) == found


def environment_holds(written: object) -> None:
    found = _specs.environment("f", written)
    assert _specs.environment("f", found) == found
    assert _specs.environment("f", dict(pair.split("=", 1) for pair in dict.fromkeys(found))) or not found


def size_holds(written: "str | int | None") -> None:
    found = _specs.size("f", written)
    assert _specs.size("f", found) == found
    assert found is None or _specs.size("f", str(found)) == found


def duration_holds(written: str) -> None:
    found = _specs.duration("f", written)
    assert _specs.duration("f", found) == found
    assert _specs.duration("f", f"{found:.6f}") == pytest.approx(found, abs=1e-6)


def address_holds(written: object) -> None:
    found = _specs.address("f", written)
    assert _specs.address("f", found) == found


PROPERTIES: "list[tuple[st.SearchStrategy[Any], Callable[[Any], None]]]" = [
    (references | scalar, reference_holds),
    (ports | scalar, container_port_holds),
    (ports | scalar, host_port_holds),
    (mounts | scalar, mount_holds),
    (environments, environment_holds),
    (sizes | scalar, size_holds),
    (durations | scalar, duration_holds),
    (addresses | scalar, address_holds),
]


def draw(examples: int, **profile: Any) -> "Counter[tuple[str, bool]]":
    """Try so many inputs for each; give how many of them were taken and refused."""
    outcomes: Counter[tuple[str, bool]] = Counter()

    @settings(max_examples=examples, **profile)
    @given(st.tuples(*[inputs for inputs, _ in PROPERTIES]))  # in one go: four times as fast
    def attempt(written: "tuple[Any, ...]") -> None:
        for each, (_, holds) in zip(written, PROPERTIES, strict=True):
            try:
                holds(each)
            except InvalidOptionError:
                outcomes[holds.__name__, False] += 1
            else:
                outcomes[holds.__name__, True] += 1

    attempt()
    return outcomes


def test_any_input_prints_back_or_is_refused() -> None:
    """Both happen often: the inputs are neither all good nor all bad."""
    outcomes = draw(200)
    assert sum(outcomes.values()) >= 200 * len(PROPERTIES)
    assert len(outcomes) == 2 * len(PROPERTIES)
    assert min(outcomes.values()) > 5


@pytest.mark.soak
def test_ten_thousand_inputs_print_back_or_are_refused() -> None:
    """The same, with new inputs in every run."""
    assert sum(draw(10_000, derandomize=False).values()) >= 10_000 * len(PROPERTIES)
