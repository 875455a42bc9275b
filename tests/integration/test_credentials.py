"""
Registry credentials of the docker CLI, without an engine.

They are in files, in the variable, and in real credential helpers.
"""

import base64
import json
import logging
import os
import shlex
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

import dockertest
from dockertest._images import credentials as _credentials
from dockertest._images.credentials import Credentials
from dockertest._options import AuthConfig
from dockertest.errors import InvalidOptionError

PASSWORD = "s3cret-of-the-test"
REGISTRY = "registry.test:5000"
NO_FILE = {"DOCKER_CONFIG": os.devnull}


def encoded(user: str = "ann", password: str = PASSWORD) -> str:
    """Return a user and a password in the form that `auths` contains."""
    return base64.b64encode(f"{user}:{password}".encode()).decode()


class Home:
    """A home folder with a docker CLI configuration and credential helpers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / ".docker" / "config.json"
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.environ = {"HOME": str(folder), "PATH": f"{self.programs}{os.pathsep}{os.defpath}"}

    def write(self, config: object) -> None:
        """Write the configuration; text and bytes are written unchanged."""
        self.file.parent.mkdir(exist_ok=True)
        content = config if isinstance(config, (str, bytes)) else json.dumps(config)
        self.file.write_bytes(content.encode() if isinstance(content, str) else content)

    def helper(self, name: str, script: str) -> Path:
        """
        Write a shell helper, and return the file that records its requests.

        Each line of the file has the action and the server that the helper is asked for.
        """
        log = self.folder / f"{name}.log"
        program = self.programs / f"docker-credential-{name}"
        program.write_text(
            f'#!/bin/sh\nread server\necho "$1 $server" >> {shlex.quote(str(log))}\n{script}\n'
        )
        program.chmod(0o755)
        return log

    def find(self, registry: str = REGISTRY, **more: str) -> AuthConfig | None:
        """Return the credentials for a registry."""
        login = Credentials(self.environ | more).find(registry)
        return login.auth if login else None


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home folder for this test."""
    return Home(tmp_path)


def answer(user: str = "ann", secret: str = PASSWORD) -> str:
    """Return the shell command that prints a helper's answer."""
    return f"echo {shlex.quote(json.dumps({'ServerURL': 'x', 'Username': user, 'Secret': secret}))}"


def test_without_any_configuration_there_are_no_credentials(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """There is no warning on a machine without any `docker login`."""
    assert home.find() is None
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
    """A host or a URL, in upper or lower case, and each name of Docker Hub."""
    home.write({"auths": {"other.test": {"auth": encoded("bob")}, key: {"auth": encoded()}}})
    login = home.find(registry)
    assert login
    assert (login.username, login.password) == ("ann", PASSWORD)
    assert login.server_address == ("https://index.docker.io/v1/" if "docker.io" in key else registry)


@pytest.mark.parametrize(
    "other", ["registry.test", "registry.test:5001", "sub.registry.test:5000", "docker.io"]
)
def test_credentials_are_not_used_for_another_registry(home: Home, other: str) -> None:
    """A host with another port or a subdomain is another registry."""
    home.write({"auths": {REGISTRY: {"auth": encoded()}}})
    assert home.find(other) is None


@pytest.mark.parametrize("other", ["docker.io", "index.docker.io", "https://index.docker.io/v1/access-token"])
def test_the_server_of_docker_hub_takes_precedence(home: Home, other: str) -> None:
    """`docker login` writes this name, and leaves older entries of other names."""
    server = "https://index.docker.io/v1/"
    home.write({"auths": {other: {"auth": encoded("old")}, server: {"auth": encoded("new")}}})
    login = home.find("docker.io")
    assert login
    assert login.username == "new"


def test_keys_in_another_case(home: Home) -> None:
    """The docker CLI accepts them."""
    home.write({"Auths": {REGISTRY: {"Auth": encoded("ann", ""), "identityToken": "token"}}})
    login = home.find()
    assert login
    assert (login.username, login.identity_token) == ("ann", "token")
    assert "Auths" not in Credentials(home.environ).config.for_buildx()


def test_the_home_folder_without_a_variable(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Services and cron jobs may run without the variable."""
    home.write({"auths": {REGISTRY: {"auth": encoded()}}})
    monkeypatch.setenv("HOME", str(home.folder))
    assert Credentials({}).find(REGISTRY)


def test_a_plain_host_name_takes_precedence_over_a_url(home: Home) -> None:
    """As in the docker CLI, an exact match comes first."""
    home.write(
        {"auths": {f"https://{REGISTRY}/v1/": {"auth": encoded("old")}, REGISTRY: {"auth": encoded("new")}}}
    )
    login = home.find()
    assert login
    assert login.username == "new"


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
def test_the_forms_of_an_entry(home: Home, entry: object, expected: AuthConfig | None) -> None:
    """An entry has `auth`, user name and password, a token, or no credentials."""
    home.write({"auths": {REGISTRY: entry}})
    login = home.find()
    actual = login and (login.username, login.password, login.identity_token)
    assert actual == (expected and (expected.username, expected.password, expected.identity_token))


def test_docker_config_names_the_folder(home: Home, tmp_path: Path) -> None:
    """`DOCKER_CONFIG` replaces the configuration in the home folder entirely."""
    home.write({"auths": {REGISTRY: {"auth": encoded("home")}}})
    other = tmp_path / "other"
    other.mkdir()
    assert home.find(DOCKER_CONFIG=str(other)) is None
    (other / "config.json").write_text(json.dumps({"auths": {REGISTRY: {"auth": encoded("other")}}}))
    login = home.find(DOCKER_CONFIG=str(other))
    assert login
    assert login.username == "other"


def test_a_file_with_a_byte_order_mark(home: Home) -> None:
    """Some editors on Windows write one."""
    home.write(b"\xef\xbb\xbf" + json.dumps({"auths": {REGISTRY: {"auth": encoded()}}}).encode())
    assert home.find()


def test_docker_auth_config_comes_first(home: Home) -> None:
    """
    The file is used if the variable has no credentials for the registry.

    A CI job sets the variable, while the file may be left from an earlier login. A helper is not asked in vain.
    """
    log = home.helper("store", answer("store"))
    variable = json.dumps(
        {"auths": {REGISTRY: {"auth": encoded("variable")}, "b.test": {"auth": encoded("b")}}}
    )
    home.write({"auths": {"c.test": {"auth": encoded("file")}}, "credHelpers": {REGISTRY: "store"}})
    logins = [home.find(registry, DOCKER_AUTH_CONFIG=variable) for registry in (REGISTRY, "b.test", "c.test")]
    assert [login and login.username for login in logins] == ["variable", "b", "file"]
    assert not log.exists()


def test_docker_auth_config_may_name_helpers(home: Home) -> None:
    """GitLab's variable has the form of the file, which includes helpers."""
    home.helper("ci", answer("ci"))
    login = home.find(DOCKER_AUTH_CONFIG=json.dumps({"credHelpers": {REGISTRY: "ci"}}))
    assert login
    assert login.username == "ci"


def test_the_order_of_helper_store_and_entries(home: Home) -> None:
    """The order is that of the docker CLI, and a login names its source."""
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
    logins = {registry: credentials.find(registry) for registry in (REGISTRY, "b.test")}
    assert [login and (login.auth.username, login.source) for login in logins.values()] == [
        ("own", "docker-credential-own"),
        ("store", "docker-credential-store"),
    ]


def test_an_empty_helper_means_the_file_itself(home: Home) -> None:
    """As for the docker CLI, the helper for all registries is not asked then."""
    log = home.helper("store", answer("store"))
    home.write(
        {
            "credHelpers": {REGISTRY: ""},
            "credsStore": "store",
            "auths": {REGISTRY: {"auth": encoded("entry")}},
        }
    )
    login = home.find()
    assert login
    assert login.username == "entry"
    assert not log.exists()


def test_a_helper_gets_the_server_on_stdin(home: Home) -> None:
    """The command is `get`, and Docker Hub has the docker CLI's name."""
    log = home.helper("store", answer())
    home.write({"credsStore": "store"})
    home.find(REGISTRY)
    home.find("")
    assert log.read_text().splitlines() == [f"get {REGISTRY}", "get https://index.docker.io/v1/"]


def test_a_helper_that_returns_a_token(home: Home) -> None:
    """The user name `<token>` means that the secret is an identity token."""
    home.helper("store", answer("<token>", "the-token"))
    home.write({"credsStore": "store"})
    login = home.find()
    assert login
    assert (login.username, login.password, login.identity_token) == ("", "", "the-token")


def test_a_helper_with_invalid_characters(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """JSON may contain half of a surrogate pair, which has no encoding in UTF-8."""
    home.helper("store", """echo '{"Username": "\\ud800", "Secret": "\\udfff"}'""")
    home.write({"credsStore": "store", "auths": {REGISTRY: {"username": "\ud800", "password": "x"}}})
    assert home.find() is None
    assert [record.message.rpartition(": ")[2] for record in caplog.records] == [
        f"its answer for {REGISTRY} is not credentials",
        f"its entry for {REGISTRY} is invalid",
    ]


def test_a_helper_without_credentials_for_a_registry(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """An entry of the file is used instead, without a warning."""
    caplog.set_level(logging.DEBUG)
    home.helper("store", "echo 'credentials not found in native keychain'; exit 1")
    home.write({"credsStore": "store", "auths": {REGISTRY: {"auth": encoded()}}})
    assert home.find()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            f"echo {PASSWORD}; echo {PASSWORD} >&2; exit 3",
            f"it failed with exit code 3 when asked for {REGISTRY}",
        ),
        (f"echo {PASSWORD}", "is not credentials"),
        (f"echo '[\"{PASSWORD}\"]'", "is not credentials"),
        ('echo \'{"Username": 1, "Secret": null}\'', "is not credentials"),
        ("printf '\\377\\376\\000'", "is not credentials"),
        ("", "is not credentials"),
        ("exec yes '['", "printed more than 1048576 bytes"),
        ("kill -9 $$", "failed with exit code -9"),
    ],
)
def test_a_failing_helper_is_only_a_warning(
    home: Home, caplog: pytest.LogCaptureFixture, script: str, words: str
) -> None:
    """
    One warning is logged, and the next source is used.

    The warning does not contain the helper's output.
    """
    caplog.set_level(logging.DEBUG)
    home.helper("broken", script)
    home.write({"credsStore": "broken", "auths": {REGISTRY: {"auth": encoded("entry")}}})
    credentials = Credentials(home.environ)
    for _ in range(2):
        login = credentials.find(REGISTRY)
        assert login
        assert login.auth.username == "entry"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "docker-credential-broken" in record.message
    assert words in record.message
    assert PASSWORD not in caplog.text


def test_a_missing_helper(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """Docker Desktop leaves its helper in the configuration when it is removed."""
    home.write({"credsStore": "desktop"})
    assert home.find() is None
    assert "docker-credential-desktop: it was not found on PATH" in caplog.text


def test_a_helper_that_cannot_be_started(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """An example is a program for another platform."""
    home.helper("alien", "")
    (home.programs / "docker-credential-alien").write_bytes(b"\x7fELF of another world")
    home.write({"credsStore": "alien"})
    assert home.find() is None
    assert "docker-credential-alien: it cannot be started: exec format error" in caplog.text


@pytest.mark.parametrize("name", ["../evil", "a/b", "a b", "$(id)", "Upper", "", 5, ["x"], "a\nb", "x;y"])
def test_an_invalid_name_of_a_helper_is_rejected(
    home: Home, caplog: pytest.LogCaptureFixture, name: object
) -> None:
    """It is rejected before a program is looked up, and not shown in the warning."""
    evil = home.helper("evil", answer("evil"))
    (
        home.programs / "docker-credential-.."
    ).mkdir()  # so that the path of the first name would lead to the program
    (home.programs / "docker-credential-../evil").write_text("")
    (home.programs / "evil").write_bytes((home.programs / "docker-credential-evil").read_bytes())
    (home.programs / "evil").chmod(0o755)
    home.write({"credsStore": name, "auths": {REGISTRY: {"auth": encoded("entry")}}})
    login = home.find()
    assert login
    assert login.username == "entry"
    assert not evil.exists()
    assert len(caplog.records) == (1 if name else 0)
    assert "evil" not in caplog.text


def test_a_hanging_helper_is_killed_with_its_children(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """It is killed after a time limit, and is not started again."""
    log = home.helper("slow", f"sleep 600 & echo $! > {home.folder}/child; wait")
    home.write({"credsStore": "slow"})
    credentials = Credentials(home.environ, helper_timeout=2)
    began = time.monotonic()
    assert credentials.find(REGISTRY) is None
    assert credentials.find(REGISTRY) is None
    assert time.monotonic() - began < 40
    assert len(log.read_text().splitlines()) == 1
    assert "did not answer within 2 s" in caplog.text
    child = int((home.folder / "child").read_text())
    status = Path(f"/proc/{child}/status")
    dockertest.retry(lambda: not status.exists() or "Z (zombie)" in status.read_text(), max_wait=30)


def test_a_helper_that_leaves_a_daemon_behind(home: Home) -> None:
    """Its answer is used although the daemon keeps the output open."""
    home.helper("daemon", f"{answer()}; setsid sleep 30 & exit 0")
    home.write({"credsStore": "daemon"})
    began = time.monotonic()
    assert home.find()
    assert time.monotonic() - began < 20


def test_a_helper_that_does_not_read(home: Home) -> None:
    """A helper may close its input without reading it."""
    program = home.programs / "docker-credential-deaf"
    program.write_text(f"#!/bin/sh\nexec <&-\n{answer()}\n")
    program.chmod(0o755)
    home.write({"credsStore": "deaf"})
    assert home.find()


def test_concurrent_pulls_call_a_helper_once(home: Home) -> None:
    """A dozen threads start one process."""
    log = home.helper("store", answer())
    home.write({"credsStore": "store"})
    credentials = Credentials(home.environ)
    logins: list[object] = []
    threads = [threading.Thread(target=lambda: logins.append(credentials.find(REGISTRY))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(logins) == 12
    assert all(logins)
    assert len(log.read_text().splitlines()) == 1


def wait_for(file: Path) -> None:
    """Wait until a file exists."""
    while not file.exists():
        time.sleep(0.01)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="system: there is no fork")
@pytest.mark.filterwarnings(
    "ignore:.*fork:DeprecationWarning"
)  # forking with a second thread is the point here
def test_a_child_forked_during_a_helper_call(home: Home) -> None:
    """The child does not wait for its parent's thread, which it does not have."""
    log = home.helper("store", f"[ -e {home.folder}/forked ] || sleep 600; {answer()}")
    home.write({"credsStore": "store"})
    credentials = Credentials(home.environ, helper_timeout=5)
    thread = threading.Thread(target=credentials.find, args=(REGISTRY,))
    thread.start()
    wait_for(log)
    (home.folder / "forked").touch()
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(0 if credentials.find(REGISTRY) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    thread.join()


def test_a_signal_handler_during_a_helper_call(home: Home) -> None:
    """The handler does not wait for the call that it interrupts."""
    log = home.helper("store", f"[ -e {home.folder}/signalled ] || sleep 600; {answer()}")
    home.write({"credsStore": "store"})
    credentials = Credentials(home.environ, helper_timeout=5)
    logins: list[object] = []

    def handle(*_: object) -> None:
        (home.folder / "signalled").touch()
        logins.append(credentials.find(REGISTRY))

    def interrupt() -> None:
        wait_for(log)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        credentials.find(REGISTRY)
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert logins[0]


def test_a_login_after_the_creation_of_the_pool_is_used(home: Home) -> None:
    """The files are read whenever they are needed."""
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
    """The warning names the file without quoting it."""
    caplog.set_level(logging.DEBUG)
    home.write(content)
    credentials = Credentials(home.environ)
    for _ in range(2):
        assert credentials.find(REGISTRY) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(home.file) in record.message
    assert PASSWORD not in caplog.text


def test_the_file_is_used_if_the_variable_is_broken(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """One warning names the variable without quoting it."""
    home.write({"auths": {REGISTRY: {"auth": encoded("file")}}})
    credentials = Credentials({**home.environ, "DOCKER_AUTH_CONFIG": f"not json, but {PASSWORD}"})
    for _ in range(2):
        login = credentials.find(REGISTRY)
        assert login
        assert login.auth.username == "file"
    (record,) = caplog.records
    assert "DOCKER_AUTH_CONFIG" in record.message
    assert PASSWORD not in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="machine: root may read every file")
def test_a_configuration_without_read_permission(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """`sudo docker login` may create one."""
    home.write({})
    home.file.chmod(0)
    assert home.find() is None
    assert f"{home.file}: permission denied" in caplog.text


def test_a_configuration_that_is_a_folder(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    """A bind mount of a missing file creates a folder."""
    home.file.mkdir(parents=True)
    assert home.find() is None
    assert f"{home.file}: is a directory" in caplog.text


def test_an_invalid_entry_of_another_registry_is_ignored(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the entry of the requested registry is parsed."""
    home.write({"auths": {"b.test": {"auth": "%"}, REGISTRY: {"auth": encoded()}}})
    assert home.find()
    assert not caplog.records


def test_credentials_for_a_build(home: Home) -> None:
    """
    All entries with credentials are sent.

    Helpers are only asked about the registries of the base images.
    """
    log = home.helper("store", answer("store"))
    home.write(
        {
            "credsStore": "store",
            "credHelpers": {"never.test": "missing"},
            "auths": {"https://a.test/v1/": {"auth": encoded("a")}, "b.test": {}, "c.test": {"auth": "%"}},
        }
    )
    variable = json.dumps({"auths": {"a.test": {"auth": encoded("x")}, "d.test": {"auth": encoded("d")}}})
    logins = Credentials({**home.environ, "DOCKER_AUTH_CONFIG": variable}).for_build({"b.test", ""})
    assert {key: auth.username for key, auth in logins.items()} == {
        "a.test": "x",
        "b.test": "store",
        "d.test": "d",
        "https://index.docker.io/v1/": "store",
    }
    assert len(log.read_text().splitlines()) == 2


def test_auth_of_a_build_takes_precedence(home: Home) -> None:
    """
    The login applies to the server that it names.

    Without a server, it applies to the registry of the base images.
    """
    home.write({"auths": {"a.test": {"auth": encoded("a")}, "b.test": {"auth": encoded("b")}}})
    credentials = Credentials(home.environ)

    def users(auth: AuthConfig) -> Mapping[str, str]:
        return {key: login.username for key, login in credentials.for_build({"a.test"}, auth).items()}

    assert users(AuthConfig("own", PASSWORD)) == {"a.test": "own", "b.test": "b"}
    assert users(AuthConfig("own", PASSWORD, server_address="https://b.test/")) == {
        "a.test": "a",
        "b.test": "own",
    }


def test_helpers_are_asked_for_other_images_of_a_build(home: Home) -> None:
    """`auth` without a server is not for their registries."""
    home.helper("store", answer("store"))
    home.write({"credsStore": "store"})
    logins = Credentials(home.environ).for_build(
        {"a.test"}, AuthConfig("own", PASSWORD), more={"cache.test", ""}
    )
    assert {server: login.username for server, login in logins.items()} == {
        "a.test": "own",
        "cache.test": "store",
        "https://index.docker.io/v1/": "store",
    }


@pytest.mark.parametrize("server", [None, "https://a.test/v2/"])
def test_auth_of_a_build_names_its_server(server: str | None) -> None:
    """Docker's containerd image store would take it for one of Docker Hub."""
    auths = Credentials(NO_FILE).for_build({"a.test"}, AuthConfig("own", PASSWORD, server_address=server))
    header = json.loads(base64.urlsafe_b64decode(_credentials.build_header(auths)))
    assert header == {"a.test": {"username": "own", "password": PASSWORD, "serveraddress": "a.test"}}


@pytest.mark.parametrize(
    ("registries", "expected"),
    [
        ({"a.test"}, "a.test"),
        ({"a.test", ""}, "a.test"),
        ({""}, "https://index.docker.io/v1/"),
        ({"a.test", "b.test", ""}, r"names several registries \(a.test, b.test\); set server_address="),
        (set(), "names no registry; set server_address="),
    ],
)
def test_auth_is_sent_to_one_registry_only(registries: set[str], expected: str) -> None:
    """
    It is sent to the registry that the Dockerfile names.

    If the registry is ambiguous or missing, an error is raised.
    """
    auth = AuthConfig("own", PASSWORD)
    if "names" in expected:
        with pytest.raises(InvalidOptionError, match=expected):
            Credentials(NO_FILE).for_build(registries, auth)
    else:
        assert list(Credentials(NO_FILE).for_build(registries, auth)) == [expected]


def test_the_configuration_for_buildx_has_no_credentials(home: Home) -> None:
    """It has proxies and plug-ins, but no credentials and no current context."""
    home.write(
        {"auths": {}, "credsStore": "x", "credHelpers": {}, "currentContext": "y", "proxies": {"z": 1}}
    )
    plugins = str(home.file.parent / "cli-plugins")
    assert Credentials(home.environ).config.for_buildx() == {
        "proxies": {"z": 1},
        "cliPluginsExtraDirs": [plugins],
    }
    home.write("no JSON")
    assert Credentials(home.environ).config.for_buildx() == {"cliPluginsExtraDirs": [plugins]}


PROXY = {"httpProxy": "http://p:1", "httpsProxy": "http://p:2", "ftpProxy": "http://p:3", "noProxy": "a.test"}


def test_proxies_of_the_configuration(home: Home) -> None:
    """There may be proxies for one engine only."""
    home.write(
        {"proxies": {"default": PROXY | {"allProxy": ""}, "tcp://a.test:2375": {"allProxy": "http://q"}}}
    )
    config = Credentials(home.environ).config
    assert config.proxies("unix:///x.sock") == PROXY
    assert config.proxies("tcp://a.test:2375") == {"allProxy": "http://q"}
    assert "p:1" not in repr(config.proxies(""))


@pytest.mark.parametrize("proxies", [5, {"default": 5}, {"default": {"httpProxy": 5, "noProxy": ["a"]}}, {}])
def test_invalid_proxies_are_ignored(home: Home, proxies: object) -> None:
    """They do not stop a build."""
    home.write({"proxies": proxies})
    assert Credentials(home.environ).config.proxies("") == {}


def test_headers_with_credentials_are_hidden() -> None:
    """
    The repr of a header shows only asterisks.

    The values have the engine's format, base64 for URLs.
    """
    auth = AuthConfig("ann", "p?>~ä", server_address="a.test", identity_token="t")
    pull, build = _credentials.pull_header(auth), _credentials.build_header({"a.test": auth})
    expected = {"username": "ann", "password": "p?>~ä", "serveraddress": "a.test", "identitytoken": "t"}
    assert json.loads(base64.urlsafe_b64decode(pull)) == expected
    assert json.loads(base64.urlsafe_b64decode(build)) == {"a.test": expected}
    assert repr({"X-Registry-Auth": pull, "X-Registry-Config": build}).count("***") == 2
    assert "ann" not in repr([pull, build])


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
def test_no_configuration_causes_an_exception(config: object) -> None:
    """For any JSON, the result is credentials or `None`."""
    credentials = Credentials({**NO_FILE, "DOCKER_AUTH_CONFIG": json.dumps(config)})
    login = credentials.find(REGISTRY)
    assert login is None or isinstance(login.auth, AuthConfig)
    for auth in credentials.for_build({REGISTRY, ""}).values():
        assert _credentials.config_entry(auth)
