"""Credentials as the docker CLI has them: files, the variable, and real helper programs; no engine."""

import base64
import json
import logging
import os
import shlex
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from dockertest._images import credentials as _credentials
from dockertest._images.credentials import Credentials
from dockertest._values import AuthConfig
from dockertest.errors import InvalidOptionError

PASSWORD = "s3cret-of-the-test"
REGISTRY = "registry.test:5000"


def encoded(user: str = "ann", password: str = PASSWORD) -> str:
    """Write a user and a password as `auths` has them."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


class Home:
    """A home folder with a configuration of the docker CLI, and a folder for helper programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / ".docker" / "config.json"
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.environ = {"HOME": str(folder), "PATH": f"{self.programs}{os.pathsep}{os.defpath}"}

    def write(self, config: object) -> None:
        """Write the configuration; text and bytes as they are."""
        self.file.parent.mkdir(exist_ok=True)
        content = config if isinstance(config, (str, bytes)) else json.dumps(config)
        self.file.write_bytes(content.encode() if isinstance(content, str) else content)

    def helper(self, name: str, script: str) -> Path:
        """Write a helper program in shell; it notes each server that it is asked for in a file, which is given."""
        asked = self.folder / f"{name}.asked"
        program = self.programs / f"docker-credential-{name}"
        program.write_text(
            f'#!/bin/sh\nread server\necho "$1 $server" >> {shlex.quote(str(asked))}\n{script}\n'
        )
        program.chmod(0o755)
        return asked

    def find(self, registry: str = REGISTRY, **more: str) -> AuthConfig | None:
        """Ask for the credentials of a registry."""
        login = Credentials(self.environ | more).find(registry)
        return login.auth if login else None


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home folder of the test's own."""
    return Home(tmp_path)


def answer(user: str = "ann", secret: str = PASSWORD) -> str:
    """Give the shell command by which a helper answers."""
    return f"echo {shlex.quote(json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret}))}"


def test_without_any_configuration_there_are_no_credentials(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine where nobody has logged in is nothing to warn of."""
    assert home.find() is None
    assert Credentials({}).find(REGISTRY) is None
    assert not caplog.records


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        (REGISTRY, REGISTRY),
        (f"https://{REGISTRY}", REGISTRY),
        (f"http://{REGISTRY}/v2/", REGISTRY),
        ("Registry.TEST:5000", REGISTRY),
        ("https://index.docker.io/v1/", ""),
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", ""),
        ("registry-1.docker.io", "index.docker.io"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_the_ways_to_write_a_registry(home: Home, key: str, registry: str) -> None:
    """Host or URL, in any case; and Docker Hub by each of its names."""
    home.write({"auths": {"other.test": {"auth": encoded("bob")}, key: {"auth": encoded()}}})
    found = home.find(registry)
    assert found
    assert (found.username, found.password) == ("ann", PASSWORD)
    assert found.server_address == ("https://index.docker.io/v1/" if "docker.io" in key else registry)


@pytest.mark.parametrize(
    "other", ["registry.test", "registry.test:5001", "sub.registry.test:5000", "docker.io"]
)
def test_credentials_go_to_no_other_registry(home: Home, other: str) -> None:
    """Neither another port nor a part of the name is the same registry."""
    home.write({"auths": {REGISTRY: {"auth": encoded()}}})
    assert home.find(other) is None


def test_the_name_itself_goes_before_a_url_of_the_same_host(home: Home) -> None:
    """The docker CLI takes an exact match first, too."""
    home.write(
        {"auths": {f"https://{REGISTRY}/v1/": {"auth": encoded("old")}, REGISTRY: {"auth": encoded("new")}}}
    )
    found = home.find()
    assert found
    assert found.username == "new"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"auth": encoded("ann", "with:colons:in")}, AuthConfig("ann", "with:colons:in")),
        ({"auth": encoded("ann", "padded\0\0")}, AuthConfig("ann", "padded")),
        ({"auth": f"{encoded()[:8]}\n{encoded()[8:]}\n"}, AuthConfig("ann", PASSWORD)),
        ({"auth": encoded("zoë", "пароль")}, AuthConfig("zoë", "пароль")),
        ({"username": "ann", "password": PASSWORD}, AuthConfig("ann", PASSWORD)),
        ({"identitytoken": "token"}, AuthConfig(identity_token="token")),
        ({"auth": encoded("0000", ""), "identitytoken": "t"}, AuthConfig("0000", identity_token="t")),
        ({"auth": "", "email": "a@b.test"}, None),
        ({}, None),
        ({"auth": encoded("ann", "")}, None),
    ],
)
def test_what_an_entry_says(home: Home, entry: object, expected: AuthConfig | None) -> None:
    """`auth`, the plain pair and the token; an entry without any of them says nothing."""
    home.write({"auths": {REGISTRY: entry}})
    found = home.find()
    said = found and (found.username, found.password, found.identity_token)
    assert said == (expected and (expected.username, expected.password, expected.identity_token))


def test_docker_config_names_the_folder(home: Home, tmp_path: Path) -> None:
    """`DOCKER_CONFIG` replaces the home folder's configuration altogether."""
    home.write({"auths": {REGISTRY: {"auth": encoded("home")}}})
    other = tmp_path / "other"
    other.mkdir()
    assert home.find(DOCKER_CONFIG=str(other)) is None
    (other / "config.json").write_text(json.dumps({"auths": {REGISTRY: {"auth": encoded("other")}}}))
    found = home.find(DOCKER_CONFIG=str(other))
    assert found
    assert found.username == "other"


def test_a_file_with_a_mark_of_byte_order(home: Home) -> None:
    """Editors on Windows write one."""
    home.write(b"\xef\xbb\xbf" + json.dumps({"auths": {REGISTRY: {"auth": encoded()}}}).encode())
    assert home.find()


def test_docker_auth_config_comes_last(home: Home) -> None:
    """The variable serves where the file knows nothing of the registry."""
    variable = json.dumps(
        {"auths": {REGISTRY: {"auth": encoded("variable")}, "b.test": {"auth": encoded("b")}}}
    )
    home.write({"auths": {REGISTRY: {"auth": encoded("file")}}})
    found = [home.find(each, DOCKER_AUTH_CONFIG=variable) for each in (REGISTRY, "b.test", "c.test")]
    assert [each and each.username for each in found] == ["file", "b", None]


def test_docker_auth_config_may_name_helpers(home: Home) -> None:
    """GitLab's variable has the form of the file, helpers included."""
    home.helper("ci", answer("ci"))
    found = home.find(DOCKER_AUTH_CONFIG=json.dumps({"credHelpers": {REGISTRY: "ci"}}))
    assert found
    assert found.username == "ci"


def test_a_helper_of_the_registry_goes_before_the_store_and_both_before_entries(home: Home) -> None:
    """The order of the docker CLI; and a login shows where it came from."""
    home.helper("own", answer("own"))
    home.helper("store", answer("store"))
    home.write(
        {
            "credHelpers": {REGISTRY: "own"},
            "credsStore": "store",
            "auths": {REGISTRY: {"auth": encoded("entry")}, "b.test": {"auth": encoded("entry")}},
        }
    )
    credentials = Credentials(home.environ)
    found = {each: credentials.find(each) for each in (REGISTRY, "b.test")}
    assert [each and (each.auth.username, each.source) for each in found.values()] == [
        ("own", "docker-credential-own"),
        ("store", "docker-credential-store"),
    ]


def test_a_helper_gets_the_server_on_stdin(home: Home) -> None:
    """It is asked to `get`; Docker Hub has the name that the docker CLI has for it."""
    asked = home.helper("store", answer())
    home.write({"credsStore": "store"})
    home.find(REGISTRY)
    home.find("")
    assert asked.read_text().splitlines() == [f"get {REGISTRY}", "get https://index.docker.io/v1/"]


def test_a_helper_that_gives_a_token(home: Home) -> None:
    """The user name `<token>` means that the secret is an identity token."""
    home.helper("store", answer("<token>", "the-token"))
    home.write({"credsStore": "store"})
    found = home.find()
    assert found
    assert (found.username, found.password, found.identity_token) == ("", "", "the-token")


def test_a_helper_that_knows_nothing_is_nothing_special(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """Then an entry serves, and nothing is warned of."""
    caplog.set_level(logging.DEBUG)
    home.helper("store", "echo 'credentials not found in native keychain'; exit 1")
    home.write({"credsStore": "store", "auths": {REGISTRY: {"auth": encoded()}}})
    assert home.find()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"echo {PASSWORD}; echo {PASSWORD} >&2; exit 3", f"asked for {REGISTRY} it failed with exit code 3"),
        (f"echo {PASSWORD}", "are no credentials"),
        (f"echo '[\"{PASSWORD}\"]'", "are no credentials"),
        ('echo \'{"Username": 1, "Secret": null}\'', "are no credentials"),
        ("printf '\\377\\376\\000'", "are no credentials"),
        ("", "are no credentials"),
        ("exec yes '['", "failed with exit code -13"),
        ("kill -9 $$", "failed with exit code -9"),
    ],
)
def test_a_helper_that_fails_is_logged_and_no_more(
    home: Home, caplog: pytest.LogCaptureFixture, script: str, words: str
) -> None:
    """Whatever it does, there is one warning without what it printed, and the next source serves."""
    caplog.set_level(logging.DEBUG)
    home.helper("broken", script)
    home.write({"credsStore": "broken", "auths": {REGISTRY: {"auth": encoded("entry")}}})
    credentials = Credentials(home.environ)
    for _ in range(2):
        found = credentials.find(REGISTRY)
        assert found
        assert found.auth.username == "entry"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "docker-credential-broken" in record.message
    assert words in record.message
    assert PASSWORD not in caplog.text


def test_a_helper_that_is_not_there(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """Such as one that Docker Desktop left behind in the configuration."""
    home.write({"credsStore": "desktop"})
    assert home.find() is None
    assert "docker-credential-desktop: it is not on the PATH" in caplog.text


def test_a_helper_that_cannot_be_started(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """Such as a program for another system."""
    home.helper("alien", "")
    (home.programs / "docker-credential-alien").write_bytes(b"\x7fELF of another world")
    home.write({"credsStore": "alien"})
    assert home.find() is None
    assert "docker-credential-alien: it cannot be started: exec format error" in caplog.text


@pytest.mark.parametrize("name", ["../evil", "a/b", "a b", "$(id)", "Upper", "", 5, ["x"], "a\nb", "x;y"])
def test_a_helper_is_executed_only_by_a_plain_name(
    home: Home, caplog: pytest.LogCaptureFixture, name: object
) -> None:
    """A name with anything else in it is refused before a program is looked for, and not shown."""
    evil = home.helper("evil", answer("evil"))
    (
        home.programs / "docker-credential-.."
    ).mkdir()  # so that the path of the first name would lead to the program
    (home.programs / "docker-credential-../evil").write_text("")
    (home.programs / "evil").write_bytes((home.programs / "docker-credential-evil").read_bytes())
    (home.programs / "evil").chmod(0o755)
    home.write({"credsStore": name, "auths": {REGISTRY: {"auth": encoded("entry")}}})
    found = home.find()
    assert found
    assert found.username == "entry"
    assert not evil.exists()
    assert len(caplog.records) == (1 if name else 0)
    assert "evil" not in caplog.text


def test_a_helper_that_hangs_is_ended_with_all_that_it_started(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """Its time is limited, its children die with it, and it is not asked again."""
    asked = home.helper("slow", f"sleep 600 & echo $! > {home.folder}/child; wait")
    home.write({"credsStore": "slow"})
    credentials = Credentials(home.environ, patience=0.2)
    began = time.monotonic()
    assert credentials.find(REGISTRY) is None
    assert credentials.find(REGISTRY) is None
    assert time.monotonic() - began < 3
    assert len(asked.read_text().splitlines()) == 1
    assert "did not answer within 0.2 s" in caplog.text
    child = int((home.folder / "child").read_text())
    status = Path(f"/proc/{child}/status")
    assert not status.exists() or "Z (zombie)" in status.read_text()


def test_a_helper_that_leaves_a_daemon_behind(home: Home) -> None:
    """Its answer counts although somebody still holds its output open."""
    home.helper("daemon", f"{answer()}; setsid sleep 5 & exit 0")
    home.write({"credsStore": "daemon"})
    began = time.monotonic()
    assert home.find()
    assert time.monotonic() - began < 4


def test_a_helper_that_does_not_read(home: Home) -> None:
    """A program that closes its input at once is no failure."""
    program = home.programs / "docker-credential-deaf"
    program.write_text(f"#!/bin/sh\nexec <&-\n{answer()}\n")
    program.chmod(0o755)
    home.write({"credsStore": "deaf"})
    assert home.find()


def test_pulls_that_start_together_ask_a_helper_once(home: Home) -> None:
    """A dozen threads, one process."""
    asked = home.helper("store", answer())
    home.write({"credsStore": "store"})
    credentials = Credentials(home.environ)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(credentials.find(REGISTRY))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert all(found)
    assert len(asked.read_text().splitlines()) == 1


def test_a_login_after_the_pool_was_made_is_seen(home: Home) -> None:
    """Files are read when they are needed, each time."""
    credentials = Credentials(home.environ)
    assert credentials.find(REGISTRY) is None
    home.write({"auths": {REGISTRY: {"auth": encoded()}}})
    assert credentials.find(REGISTRY)


@pytest.mark.parametrize(
    "content",
    [
        "not json, but s3cret-of-the-test",
        "[1]",
        '"text"',
        pytest.param("[" * 100_000, id="deep"),
        b"\xff\xfe s3cret-of-the-test",
        {"auths": ["s3cret-of-the-test"]},
        {"auths": {REGISTRY: "s3cret-of-the-test"}},
        {"auths": {REGISTRY: {"auth": "s3cret-of-the-test"}}},
        {"auths": {REGISTRY: {"auth": base64.b64encode(b"s3cret-of-the-test").decode()}}},
        {"auths": {REGISTRY: {"auth": base64.b64encode(b"\xff:\xff").decode()}}},
        {"auths": {REGISTRY: {"auth": ["s3cret-of-the-test"]}}},
        {"auths": {REGISTRY: {"username": 7, "password": "s3cret-of-the-test"}}},
        {"credHelpers": "x", "auths": 3},
        {"credsStore": {"s3cret-of-the-test": 1}},
    ],
)
def test_a_broken_configuration_is_one_warning(
    home: Home, caplog: pytest.LogCaptureFixture, content: object
) -> None:
    """It names the file and shows nothing of it; the variable serves instead."""
    caplog.set_level(logging.DEBUG)
    home.write(content)
    variable = json.dumps({"auths": {REGISTRY: {"auth": encoded("variable")}}})
    credentials = Credentials({**home.environ, "DOCKER_AUTH_CONFIG": variable})
    for _ in range(2):
        found = credentials.find(REGISTRY)
        assert found
        assert found.auth.username == "variable"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(home.file) in record.message
    assert PASSWORD not in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="machine: root may read everything")
def test_a_configuration_that_may_not_be_read(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """Such as one that `sudo docker login` has made."""
    home.write({})
    home.file.chmod(0)
    assert home.find() is None
    assert f"{home.file}: permission denied" in caplog.text


def test_a_configuration_that_is_a_folder(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """Such as one that a bind mount of a missing file has made."""
    home.file.mkdir(parents=True)
    assert home.find() is None
    assert f"{home.file}: is a directory" in caplog.text


def test_a_broken_entry_of_another_registry_is_nobody_s_business(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the entry that is needed is looked at."""
    home.write({"auths": {"b.test": {"auth": "%"}, REGISTRY: {"auth": encoded()}}})
    assert home.find()
    assert not caplog.records


def test_credentials_for_a_build(home: Home) -> None:
    """All plain entries go along; helpers are asked only for the registries of the base images."""
    asked = home.helper("store", answer("store"))
    home.write(
        {
            "credsStore": "store",
            "credHelpers": {"never.test": "missing"},
            "auths": {"https://a.test/v1/": {"auth": encoded("a")}, "b.test": {}, "c.test": {"auth": "%"}},
        }
    )
    variable = json.dumps({"auths": {"a.test": {"auth": encoded("x")}, "d.test": {"auth": encoded("d")}}})
    found = Credentials({**home.environ, "DOCKER_AUTH_CONFIG": variable}).for_build({"b.test", ""})
    assert {key: auth.username for key, auth in found.items()} == {
        "a.test": "a",
        "b.test": "store",
        "d.test": "d",
        "https://index.docker.io/v1/": "store",
    }
    assert len(asked.read_text().splitlines()) == 2


def test_own_credentials_for_a_build_go_first(home: Home) -> None:
    """They are for the server that they name, else for all base images."""
    home.write({"auths": {"a.test": {"auth": encoded("a")}, "b.test": {"auth": encoded("b")}}})
    credentials = Credentials(home.environ)

    def users(auth: AuthConfig) -> Mapping[str, str]:
        return {key: each.username for key, each in credentials.for_build({"a.test"}, auth).items()}

    assert users(AuthConfig("own", PASSWORD)) == {"a.test": "own", "b.test": "b"}
    assert users(AuthConfig("own", PASSWORD, server_address="https://b.test/")) == {
        "a.test": "a",
        "b.test": "own",
    }


@pytest.mark.parametrize(
    ("registries", "expected"),
    [
        ({"a.test"}, "a.test"),
        ({"a.test", ""}, "a.test"),
        ({""}, "https://index.docker.io/v1/"),
        ({"a.test", "b.test", ""}, "names several registries, a.test, b.test; say with server_address="),
        (set(), "names no registry; say with server_address="),
    ],
)
def test_own_credentials_go_to_one_registry_alone(registries: set[str], expected: str) -> None:
    """To the one that the Dockerfile names; where that is not clear they are given to nobody."""
    auth = AuthConfig("own", PASSWORD)
    if "names" in expected:
        with pytest.raises(InvalidOptionError, match=expected):
            Credentials({}).for_build(registries, auth)
    else:
        assert list(Credentials({}).for_build(registries, auth)) == [expected]


def test_the_rest_of_the_configuration_is_handed_on_without_credentials(home: Home) -> None:
    """To a docker CLI that is told credentials another way: its proxies and plug-ins, and not which engine to use."""
    home.write(
        {"auths": {}, "credsStore": "x", "credHelpers": {}, "currentContext": "y", "proxies": {"z": 1}}
    )
    plugins = str(home.file.parent / "cli-plugins")
    assert Credentials(home.environ).settings() == {"proxies": {"z": 1}, "cliPluginsExtraDirs": [plugins]}
    home.write("no JSON")
    assert Credentials(home.environ).settings() == {"cliPluginsExtraDirs": [plugins]}
    assert Credentials({}).settings() == {}


def test_headers_for_the_engine_show_nothing() -> None:
    """They are what the engine reads, in base64 for URLs, and print as stars wherever variables are printed."""
    auth = AuthConfig("ann", "p?>~ä", server_address="a.test", identity_token="t")
    one, several = _credentials.header(auth), _credentials.build_header({"a.test": auth})
    said = {"username": "ann", "password": "p?>~ä", "serveraddress": "a.test", "identitytoken": "t"}
    assert json.loads(base64.urlsafe_b64decode(one)) == said
    assert json.loads(base64.urlsafe_b64decode(several)) == {"a.test": said}
    assert repr({"X-Registry-Auth": one, "X-Registry-Config": several}).count("***") == 2
    assert "ann" not in repr([one, several])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(encoded()),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["auths", "credHelpers", "auth", "username", "password", "identitytoken", REGISTRY, ""]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@hypothesis.settings(max_examples=60)
@hypothesis.given(config=JSON)
def test_no_configuration_raises(config: object) -> None:
    """Whatever stands there, the answer is credentials or none."""
    credentials = Credentials({"DOCKER_AUTH_CONFIG": json.dumps(config)})
    found = credentials.find(REGISTRY)
    assert found is None or isinstance(found.auth, AuthConfig)
    credentials.for_build({REGISTRY, ""})
