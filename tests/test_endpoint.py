"""Selection of the endpoint from arguments, environment variables and files."""

import json
import pickle
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dockertest import InvalidOptionError
from dockertest._engine.endpoint import CERTIFICATE_FILES, SCHEMES, Endpoint, candidates

SECRET = "hunter2"


def endpoints(
    endpoint: Any = None,
    cert_path: Any = None,
    *,
    platform: str = "linux",
    home: str = "/no/home",
    **environ: str,
) -> "list[Endpoint]":
    """Return the endpoints to try."""
    return candidates(endpoint, cert_path, environ, home=home, platform=platform)


def only(*args: Any, home: str = "/no/home", **environ: str) -> Endpoint:
    """Return the only endpoint to try."""
    (endpoint,) = endpoints(*args, home=home, **environ)
    return endpoint


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with the three certificate files."""
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("endpoint", "environ", "url", "why"),
    [
        ("tcp://a:1", {"DOCKER_HOST": "tcp://b:1", "DOCKER_URL": "tcp://c:1"}, "tcp://a:1", "endpoint="),
        (None, {"DOCKER_HOST": "tcp://b:1", "DOCKER_URL": "tcp://c:1"}, "tcp://b:1", "DOCKER_HOST"),
        ("", {"DOCKER_HOST": "tcp://b:1"}, "tcp://b:1", "DOCKER_HOST"),
        (None, {"DOCKER_HOST": "", "DOCKER_URL": "tcp://c:1"}, "tcp://c:1", "DOCKER_URL"),
    ],
)
def test_an_explicit_endpoint_is_the_only_candidate(
    endpoint: "str | None", environ: "dict[str, str]", url: str, why: str
) -> None:
    """
    The argument comes before `DOCKER_HOST`, and that before `DOCKER_URL`.

    There is no fallback.
    """
    named = only(endpoint, **environ)
    assert (named.url, named.why) == (url, why)


LINUX = [
    ("unix:///var/run/docker.sock", "default socket"),
    ("unix:///run/user/5/docker.sock", "rootless Docker"),
    ("unix:///home/me/.docker/run/docker.sock", "Docker Desktop"),
    ("unix:///home/me/.docker/desktop/docker.sock", "Docker Desktop"),
    ("unix:///home/me/.colima/default/docker.sock", "Colima"),
    ("unix:///home/me/.config/colima/default/docker.sock", "Colima"),
    ("unix:///home/me/.rd/docker.sock", "Rancher Desktop"),
    ("unix:///run/user/5/podman/podman.sock", "rootless Podman"),
    ("unix:///run/podman/podman.sock", "Podman"),
]
MAC = [
    ("unix:///var/run/docker.sock", "default socket"),
    ("unix:///Users/me/.docker/run/docker.sock", "Docker Desktop"),
    ("unix:///Users/me/.docker/desktop/docker.sock", "Docker Desktop"),
    ("unix:///Users/me/.colima/default/docker.sock", "Colima"),
    ("unix:///Users/me/.config/colima/default/docker.sock", "Colima"),
    ("unix:///Users/me/.orbstack/run/docker.sock", "OrbStack"),
    ("unix:///Users/me/.rd/docker.sock", "Rancher Desktop"),
    ("unix:///Users/me/.local/share/containers/podman/machine/podman.sock", "Podman"),
    ("unix:///var/folders/x/T/podman/podman-machine-default-api.sock", "Podman"),
]
WINDOWS = [
    ("npipe:////./pipe/docker_engine", "default pipe"),
    ("npipe:////./pipe/dockerDesktopLinuxEngine", "Docker Desktop"),
    ("npipe:////./pipe/podman-machine-default", "Podman"),
]


@pytest.mark.parametrize(
    ("platform", "home", "environ", "expected"),
    [
        ("linux", "/home/me", {"XDG_RUNTIME_DIR": "/run/user/5"}, LINUX),
        ("darwin", "/Users/me", {"TMPDIR": "/var/folders/x/T/"}, MAC),
        ("win32", "C:/Users/me", {}, WINDOWS),
    ],
)
def test_default_locations_are_tried_in_order(
    platform: str, home: str, environ: "dict[str, str]", expected: "list[tuple[str, str]]"
) -> None:
    """Each is described by the product that listens there."""
    places = endpoints(platform=platform, home=home, **environ)
    assert [(place.url, place.why) for place in places] == expected
    assert not any(place.remark for place in places)


@pytest.mark.parametrize(
    ("platform", "user", "count"), [("linux", 1000, 2), ("linux", 0, 0), ("darwin", 501, 0)]
)
def test_the_usual_runtime_folder_of_a_user_is_tried(
    monkeypatch: pytest.MonkeyPatch, platform: str, user: int, count: int
) -> None:
    """Programs that cron or sudo starts have no `XDG_RUNTIME_DIR`."""
    monkeypatch.setattr("os.getuid", lambda: user)
    urls = [place.url for place in endpoints(platform=platform)]
    both = ["unix:///run/user/1000/docker.sock", "unix:///run/user/1000/podman/podman.sock"]
    assert [url for url in urls if url.startswith("unix:///run/user")] == both[:count]


def test_default_locations_depend_on_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rootless sockets need a runtime folder; two variables set the folder of Colima."""
    monkeypatch.setattr("os.getuid", lambda: 0)
    urls = [place.url for place in endpoints(home="/h", COLIMA_HOME="/c", XDG_CONFIG_HOME="/x")]
    assert "unix:///c/default/docker.sock" in urls
    assert "unix:///x/colima/default/docker.sock" in urls
    assert not any("None" in url or "False" in url or url.startswith("unix:///run/user") for url in urls)


class Cli:
    """A home folder with the docker CLI's configuration."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / ".docker"
        self.config.mkdir(parents=True)

    def use(self, name: object, *, key: str = "currentContext") -> None:
        """Set the current context."""
        (self.config / "config.json").write_text(json.dumps({key: name, "auths": {}}))

    def add(self, name: str, host: str, *files: str, **docker: object) -> Path:
        """Add a context, and return the folder for its certificates."""
        meta = self.meta(name)
        meta.parent.mkdir(parents=True)
        meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host, **docker}}}))
        tls = self.config / "contexts" / "tls" / meta.parent.name / "docker"
        for file in files:
            tls.mkdir(parents=True, exist_ok=True)
            (tls / file).touch()
        return tls

    def meta(self, name: str) -> Path:
        """Return the file of a context."""
        return self.config / "contexts" / "meta" / sha256(name.encode()).hexdigest() / "meta.json"

    def endpoints(self, *args: Any, **environ: str) -> "list[Endpoint]":
        """Return the endpoints to try for the user of this home."""
        return endpoints(*args, home=str(self.home), **environ)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """A docker CLI with three contexts."""
    cli = Cli(tmp_path / "home")
    cli.add("colima", "unix:///x/colima.sock")
    cli.add("büro 1", "tcp://10.0.0.5:2376", "ca.pem", "cert.pem", "key.pem")
    cli.add("farm", "ssh://me@farm")
    return cli


@pytest.mark.parametrize(
    ("current", "environ", "url", "why"),
    [
        ("colima", {}, "unix:///x/colima.sock", "docker context 'colima', current context in "),
        ("colima", {"DOCKER_CONTEXT": ""}, "unix:///x/colima.sock", "docker context 'colima', current"),
        ("colima", {"DOCKER_CONTEXT": "farm"}, "ssh://me@farm", "docker context 'farm', DOCKER_CONTEXT"),
        ("colima", {"DOCKER_CONTEXT": "büro 1"}, "tcp://10.0.0.5:2376", "docker context 'büro 1', DOCKER_CONTEXT"),
        ("colima", {"DOCKER_CONTEXT": "default"}, "unix:///var/run/docker.sock", "default socket, DOCKER_CONTEXT=default"),
        ("colima", {"DOCKER_HOST": "tcp://localhost:1"}, "tcp://localhost:1", "DOCKER_HOST"),
        ("gone", {"DOCKER_URL": "tcp://localhost:1", "DOCKER_CONTEXT": "gone"}, "tcp://localhost:1", "DOCKER_URL"),
    ],
)  # fmt: skip
def test_a_context_is_the_only_candidate(
    cli: Cli, current: str, environ: "dict[str, str]", url: str, why: str
) -> None:
    """An endpoint comes before `DOCKER_CONTEXT`, and that before the current context."""
    cli.use(current)
    (endpoint,) = cli.endpoints(**environ)
    assert endpoint.url == url
    assert endpoint.why.startswith(why)


@pytest.mark.parametrize(
    ("named", "environ", "command"),
    [
        (None, {"DOCKER_HOST": "tcp://build:2375"}, "docker"),
        (None, {"DOCKER_CONTEXT": "default"}, "docker"),
        (None, {"DOCKER_CONTEXT": "farm"}, "docker"),
        (None, {"DOCKERTEST_ENDPOINTS": "tcp://one:2375"}, "docker -H tcp://one:2375"),
        ("ssh://me@farm", {}, "docker -H ssh://me@farm"),
        ("http://build:2375", {}, "docker -H tcp://build:2375"),
        ("unix:///x y/docker.sock", {}, "docker -H 'unix:///x y/docker.sock'"),
    ],
)
def test_a_command_for_people_reaches_the_same_engine(
    cli: Cli, named: "str | None", environ: "dict[str, str]", command: str
) -> None:
    """It names the endpoint unless docker's own program finds it as well."""
    assert cli.endpoints(named, **environ)[0].cli == command


def test_a_command_for_people_has_the_certificates(certificates: Path) -> None:
    """As variables, since the options are too long to be read."""
    variables = f"DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH={certificates}"
    assert only("tcp://build:2376", str(certificates)).cli == f"{variables} docker -H tcp://build:2376"


def test_a_command_for_people_uses_the_programs_of_the_places(cli: Cli) -> None:
    """Podman's own program finds Podman; docker's does not find Colima by itself."""
    commands = {place.why: place.cli for place in cli.endpoints(XDG_RUNTIME_DIR="/run/user/5")}
    assert commands["default socket"] == "docker"
    assert commands["rootless Podman"] == commands["Podman"] == "podman"
    assert commands["Colima"].startswith("docker -H unix:///")


@pytest.mark.parametrize("current", ["", "default", None, 5])
def test_the_default_context_means_the_default_locations(cli: Cli, current: object) -> None:
    """A value that is not a name is ignored."""
    cli.use(current)
    assert len(cli.endpoints()) == 7
    assert cli.endpoints()[0].why == "default socket"


def test_the_keys_of_the_configuration_may_be_in_any_case(cli: Cli) -> None:
    """The docker CLI reads them so."""
    cli.use("farm", key="CurrentContext")
    assert len(cli.endpoints()) == 1


def test_docker_config_sets_the_configuration_folder(cli: Cli, tmp_path: Path) -> None:
    """It replaces `~/.docker`."""
    cli.use("farm")
    assert len(endpoints(home=str(tmp_path), DOCKER_CONFIG=str(cli.config))) == 1
    assert len(cli.endpoints(DOCKER_CONFIG=str(tmp_path))) == 7


def test_a_context_has_its_own_certificates(cli: Cli, certificates: Path) -> None:
    """
    The certificates of the environment do not apply to it.

    An argument overrides them.
    """
    tls = cli.config / "contexts" / "tls" / cli.meta("büro 1").parent.name / "docker"
    environ = {"DOCKER_CONTEXT": "büro 1", "DOCKER_CERT_PATH": "/nowhere", "DOCKER_TLS_VERIFY": "1"}
    (endpoint,) = cli.endpoints(**environ)
    assert (endpoint.cert_path, endpoint.verify, endpoint.speaks_tls) == (str(tls), True, True)
    assert cli.endpoints(None, str(certificates), **environ)[0].cert_path == str(certificates)
    with pytest.raises(InvalidOptionError, match=r"^cert_path: unix:///x/colima\.sock does not use TLS"):
        cli.endpoints(None, str(certificates), DOCKER_CONTEXT="colima")
    cli.add("open", "http://10.0.0.5:2375", "ca.pem")
    with pytest.raises(
        InvalidOptionError, match=r"context 'open', DOCKER_CONTEXT: http://10\.0\.0\.5:2375 does not use TLS"
    ):
        cli.endpoints(DOCKER_CONTEXT="open")


def test_the_path_of_certificates_is_absolute(
    cli: Cli, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A relative path is resolved immediately.

    The process may change its working directory later.
    """
    monkeypatch.chdir(certificates.parent)
    assert only("tcp://host:2376", certificates.name).cert_path == str(certificates)
    monkeypatch.chdir(cli.home)
    tls = cli.config / "contexts" / "tls" / cli.meta("büro 1").parent.name / "docker"
    assert only(DOCKER_CONFIG=".docker", DOCKER_CONTEXT="büro 1").cert_path == str(tls)


@pytest.mark.parametrize(
    ("files", "skip", "cert_path", "verify", "tls"),
    [
        ((), False, False, True, False),
        ((), True, False, False, True),
        (("ca.pem",), False, True, True, True),
        (("ca.pem", "cert.pem", "key.pem"), True, True, False, True),
    ],
)
def test_a_context_determines_tls(
    cli: Cli, files: "tuple[str, ...]", skip: bool, cert_path: bool, verify: bool, tls: bool
) -> None:
    """
    TLS is used if a file exists or if the context skips the verification.

    Any of the three files is sufficient.
    """
    folder = cli.add("it", "tcp://10.0.0.6:2376", *files, SkipTLSVerify=skip)
    (endpoint,) = cli.endpoints(DOCKER_CONTEXT="it")
    assert (endpoint.cert_path, endpoint.verify, endpoint.speaks_tls) == (
        str(folder) if cert_path else "",
        verify,
        tls,
    )
    assert bool(endpoint.remark) is not tls


def test_the_error_for_an_unknown_context_lists_the_known_ones(cli: Cli) -> None:
    """It never falls back to the default context."""
    with pytest.raises(InvalidOptionError) as failure:
        cli.endpoints(DOCKER_CONTEXT="frm")
    assert str(failure.value) == (
        "DOCKER_CONTEXT: docker context 'frm' does not exist; use one of: default, büro 1, colima, farm"
    )
    cli.use("gone")
    with pytest.raises(InvalidOptionError, match=r"config\.json: docker context 'gone' does not exist; use"):
        cli.endpoints()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{", "invalid JSON;"),
        ("[" * 100_000, "invalid JSON;"),
        ("[]", "not a JSON object;"),
        ("{}", "no docker endpoint in it;"),
        ('{"Endpoints": {"docker": null}}', "no docker endpoint in it;"),
        ('{"Endpoints": {"docker": {"Host": 5}}}', "no docker endpoint in it;"),
        ('{"Endpoints": {"kubernetes": {"Host": "tcp://a"}}}', "no docker endpoint in it;"),
    ],
    ids=lambda value: value[:40],
)
def test_the_error_for_a_broken_context_names_its_file(cli: Cli, value: str, reason: str) -> None:
    """Other contexts are not affected."""
    cli.meta("farm").write_text(value)
    with pytest.raises(InvalidOptionError, match="cannot read docker context 'farm' from ") as failure:
        cli.endpoints(DOCKER_CONTEXT="farm")
    assert reason in str(failure.value)
    assert str(cli.meta("farm")) in str(failure.value)
    assert len(cli.endpoints(DOCKER_CONTEXT="colima")) == 1
    with pytest.raises(InvalidOptionError, match=r"use one of: default, .*colima"):
        cli.endpoints(DOCKER_CONTEXT="gone")


def test_a_context_without_a_host_means_the_default_socket(cli: Cli) -> None:
    """The error for an invalid host names the context."""
    cli.add("empty", "")
    assert [place.url for place in cli.endpoints(DOCKER_CONTEXT="empty")] == ["unix:///var/run/docker.sock"]
    cli.add("wrong", "farm:2375")
    with pytest.raises(
        InvalidOptionError, match=r"docker context 'wrong', DOCKER_CONTEXT: invalid endpoint 'farm:2375'"
    ):
        cli.endpoints(DOCKER_CONTEXT="wrong")


@pytest.mark.parametrize("value", [b"{", b"\xff\xfe", b"[]"])
def test_a_broken_configuration_causes_a_remark(cli: Cli, value: bytes) -> None:
    """
    The default locations are tried, but the user is informed.

    The docker CLI tries them too.
    """
    (cli.config / "config.json").write_bytes(value)
    endpoint, *_ = cli.endpoints()
    assert endpoint.remark.startswith(
        f"cannot read the current docker context from {cli.config}/config.json: "
    )
    assert endpoint.remark.endswith("; using unix:///var/run/docker.sock (default socket)")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("tcp://10.0.0.1:2375", True),
        ("http://docker:2375", True),
        ("tcp://127.0.0.1:2375", False),
        ("http://localhost:2375", False),
        ("https://10.0.0.1:2376", False),
        ("ssh://10.0.0.1", False),
        ("unix:///x", False),
    ],
)
def test_an_unprotected_engine_causes_a_remark(url: str, expected: bool) -> None:
    """Anyone who can reach a plain TCP port of another host controls that host."""
    assert bool(only(url).remark) is expected
    assert ("does not use TLS" in only(url).remark) is expected


@pytest.mark.parametrize(
    "url", ["unix:///x", "http://127.0.0.1:2375", "ssh://host", "npipe:////./pipe/x", ""]
)
def test_certificates_are_never_silently_ignored(certificates: Path, url: str) -> None:
    """
    An argument without effect is an error.

    So is `DOCKER_TLS_VERIFY` for an endpoint without TLS.
    """
    with pytest.raises(InvalidOptionError, match=r"^cert_path: .* does not use TLS"):
        endpoints(url, str(certificates))
    with pytest.raises(
        InvalidOptionError, match=r"^DOCKER_TLS_VERIFY: http://127\.0\.0\.1:2375 does not use TLS"
    ):
        endpoints("http://127.0.0.1:2375", DOCKER_TLS_VERIFY="1")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_that_the_docker_sdk_supports_is_accepted(scheme: str) -> None:
    """The address is not changed."""
    assert only(f"{scheme}://host:2375/x").url == f"{scheme}://host:2375/x"


@pytest.mark.parametrize(
    ("value", "complete"),
    [
        ("tcp://docker", "tcp://docker:2375"),
        ("tcp://docker:/", "tcp://docker:2375/"),
        ("tcp://:2380", "tcp://127.0.0.1:2380"),
        ("tcp://[::1]", "tcp://[::1]:2375"),
        ("tcp://[fd00::1]:2380", "tcp://[fd00::1]:2380"),
    ],
)
def test_a_tcp_address_is_completed(value: str, complete: str, certificates: Path) -> None:
    """The defaults are those of the docker CLI; TLS has a different port."""
    assert only(value).url == complete
    assert only(value, str(certificates)).url == complete.replace("2375", "2376")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("https://host", "it has no port; add the port of the engine"),
        ("http://[::1]/x", "it has no port; add the port of the engine"),
        ("unix:///run/a#b.sock", "cannot contain # or \\?"),
        ("unix:///run/a?b.sock", "cannot contain # or \\?"),
    ],
)
def test_an_ambiguous_endpoint_is_rejected(value: str, reason: str) -> None:
    """The docker SDK would interpret it differently."""
    with pytest.raises(InvalidOptionError, match=reason):
        only(value)


@pytest.mark.parametrize(
    ("value", "suggestion"),
    [
        ("localhost:2375", "tcp://localhost:2375"),
        ("/var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("unix:/var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("unix:var/run/docker.sock", "unix:///var/run/docker.sock"),
        ("tcp:/docker:2375", "tcp://docker:2375"),
        ("ssh:host", "ssh://host"),
        ("default", "tcp://default"),
        ("ftp://host", "tcp://host:2375"),
        ("tcp://", "tcp://host:2375"),
        ("://host", "tcp://host:2375"),
        ("tcp://[::1", "tcp://host:2375"),
        ("tcp://host:port", "tcp://host:2375"),
        ("tcp://host:99999", "tcp://host:2375"),
    ],
)
def test_an_invalid_endpoint_is_rejected_with_a_suggestion(value: str, suggestion: str) -> None:
    """
    The message begins with the option or variable.

    It shows the value and the expected forms.
    """
    with pytest.raises(InvalidOptionError) as failure:
        endpoints(value)
    assert str(failure.value) == (
        f"endpoint=: invalid endpoint {value!r}: expected an address that begins with unix://, tcp://, http://, https://, "
        f"ssh:// or npipe://; write for example {suggestion}"
    )
    with pytest.raises(InvalidOptionError, match=r"^DOCKER_HOST: "):
        endpoints(DOCKER_HOST=value)


@pytest.mark.parametrize(
    ("value", "suggestion"),
    [
        ("tcp://::1:2375", "tcp://[::1]:2375"),
        ("tcp://fd00::2", "tcp://[fd00::2]:2375"),
        ("fd00::2:2376", "tcp://[fd00::2]:2376"),
        ("http://2001:db8::1:12345/", "http://[2001:db8::1]:12345"),
    ],
)
def test_an_ipv6_address_needs_brackets(value: str, suggestion: str) -> None:
    """The message suggests the same address in brackets."""
    with pytest.raises(InvalidOptionError) as failure:
        endpoints(value)
    assert str(failure.value) == (
        f"endpoint=: invalid endpoint {value!r}: an IPv6 address needs brackets; write for example {suggestion}"
    )


@pytest.mark.parametrize("value", ["unix:///x\r", "unix:///x\n", "tcp://host:2375 ", "tcp://ho\tst:2375"])
def test_invisible_characters_are_rejected(value: str) -> None:
    """
    They come from files with Windows line endings.

    "no such file" would not explain the failure.
    """
    with pytest.raises(InvalidOptionError) as failure:
        endpoints(DOCKER_HOST=value)
    assert str(failure.value).startswith(f"DOCKER_HOST: invalid endpoint {value!r}: it contains a line break")
    assert only("unix:///Users/J Doe/docker.sock").url == "unix:///Users/J Doe/docker.sock"


@pytest.mark.parametrize("value", [5, b"unix:///x", ["tcp://a"], Path("/var/run/docker.sock"), "tcp://a\0"])
def test_a_value_of_another_type_is_rejected(value: Any) -> None:
    """So is a string with a NUL character."""
    with pytest.raises(InvalidOptionError, match=r"^endpoint="):
        endpoints(value)


@pytest.mark.parametrize(
    ("url", "local", "host"),
    [
        ("unix:///var/run/docker.sock", True, ""),
        ("npipe:////./pipe/docker_engine", True, ""),
        ("tcp://127.0.0.1:2375", True, "127.0.0.1"),
        ("tcp://127.1.2.3:2375", True, "127.1.2.3"),
        ("tcp://localhost:2375", True, "localhost"),
        ("tcp://LOCALHOST:2375", True, "localhost"),
        ("http://[::1]:2375", True, "::1"),
        ("tcp://docker:2375", False, "docker"),
        ("tcp://10.0.0.1:2375", False, "10.0.0.1"),
        ("https://[2001:db8::1]:2376", False, "2001:db8::1"),
        ("ssh://me@build.corp", False, "build.corp"),
        ("tcp://localhost.corp:2375", False, "localhost.corp"),
        ("tcp://0.0.0.0:2375", True, "0.0.0.0"),
        ("tcp://:2375", True, "127.0.0.1"),
    ],
)
def test_sockets_and_loopback_addresses_are_local(url: str, local: bool, host: str) -> None:
    """The ports of other engines are reached on their host."""
    endpoint = only(url)
    assert endpoint.is_local is local
    assert endpoint.host == host


@pytest.mark.parametrize("url", [f"tcp://me:{SECRET}@host:2375", f"ssh://:{SECRET}@host"])
def test_a_password_is_never_shown(url: str) -> None:
    """
    Engines do not support passwords.

    The docker SDK would include the password in its own error.
    """
    with pytest.raises(InvalidOptionError, match="it contains a password") as failure:
        only(url)
    assert SECRET not in str(failure.value)
    endpoint = Endpoint(url, "a test")
    for shown in (str(endpoint), repr(endpoint), f"{[endpoint]}"):
        assert SECRET not in shown
        assert "***" in shown


@pytest.mark.parametrize(
    "value",
    [
        f"ftp://me:{SECRET}@host",
        f"me:{SECRET}@host",
        f"ftp://:{SECRET}@host",
        f"ftp://me:x@{SECRET}@host",
        f"/me:{SECRET}@x",
        f"tcp://me:{SECRET}@host:99999",
    ],
)
def test_an_invalid_endpoint_is_shown_without_its_password(value: str) -> None:
    """The password is hidden even if the endpoint is invalid for another reason."""
    with pytest.raises(InvalidOptionError) as failure:
        endpoints(value)
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("scheme", ["tcp", "https"])
def test_the_argument_sets_the_certificates(certificates: Path, scheme: str) -> None:
    """It takes precedence over `DOCKER_CERT_PATH`."""
    endpoint = only(f"{scheme}://host:2376", str(certificates), DOCKER_CERT_PATH="/nowhere")
    assert endpoint.cert_path == str(certificates)


def test_the_environment_sets_the_certificates(certificates: Path) -> None:
    """The variables are those of the docker CLI."""
    endpoint = only(DOCKER_HOST="tcp://host:2376", DOCKER_CERT_PATH=str(certificates))
    assert endpoint.cert_path == str(certificates)


def test_docker_tls_verify_alone_uses_the_default_certificates(certificates: Path) -> None:
    """They are in the docker CLI's configuration folder; `~` is expanded."""
    home = certificates.parent / "home"
    home.mkdir()
    usual = certificates.rename(home / ".docker")
    tls = {"DOCKER_HOST": "tcp://host:2376", "DOCKER_TLS_VERIFY": "1"}
    assert Path(only(home=str(home), **tls).cert_path) == usual
    assert Path(only(DOCKER_CONFIG=str(usual), **tls).cert_path) == usual
    assert Path(only("tcp://host:2376", "~/.docker", home=str(home)).cert_path) == usual


@pytest.mark.parametrize("environ", [{}, {"DOCKER_TLS_VERIFY": ""}, {"DOCKER_CERT_PATH": ""}], ids=str)
def test_tls_is_off_by_default(environ: "dict[str, str]") -> None:
    """An empty variable counts as unset."""
    assert only("tcp://host:2375", **environ).cert_path == ""


@pytest.mark.parametrize(
    "url", ["unix:///var/run/docker.sock", "npipe:////./pipe/docker_engine", "ssh://host"]
)
def test_a_socket_needs_no_certificates(url: str) -> None:
    """The certificates of the environment apply only to other endpoints."""
    assert only(url, DOCKER_CERT_PATH="/nowhere", DOCKER_TLS_VERIFY="1").cert_path == ""


def test_a_folder_without_certificates_is_ignored(certificates: Path, tmp_path: Path) -> None:
    """Some CI services always set the variable. An incomplete folder is an error."""
    assert only("tcp://host:2375", DOCKER_CERT_PATH=str(tmp_path / "none")).cert_path == ""
    (certificates / "key.pem").unlink()
    for more in ({}, {"DOCKER_TLS_VERIFY": "1"}):
        with pytest.raises(
            InvalidOptionError, match=r"^DOCKER_CERT_PATH: .* does not contain key\.pem; TLS needs"
        ):
            only("tcp://host:2376", DOCKER_CERT_PATH=str(certificates), **more)


def test_missing_certificates_are_named(certificates: Path) -> None:
    """The message also contains the folder."""
    (certificates / "key.pem").unlink()
    (certificates / "ca.pem").unlink()
    with pytest.raises(InvalidOptionError, match=r"does not contain ca\.pem, key\.pem; TLS needs") as failure:
        endpoints("tcp://host:2376", str(certificates))
    assert repr(str(certificates)) in str(failure.value)


@pytest.mark.parametrize("folder", ["/no/such/folder", "~no-such-user-here/certs", "a\0b"])
def test_a_missing_folder_lists_all_certificates(folder: str) -> None:
    """All its files are listed as missing."""
    with pytest.raises(InvalidOptionError, match=r"does not contain ca\.pem, cert\.pem, key\.pem"):
        endpoints("tcp://host:2376", folder)


def test_an_endpoint_can_be_pickled() -> None:
    """It can be sent to another process."""
    endpoint = only("tcp://host:2375")
    assert pickle.loads(pickle.dumps(endpoint)) == endpoint


def test_certificates_of_one_of_several_engines(tmp_path: Path) -> None:
    """
    The folder of its host comes first, then the one for all.

    Other kinds of endpoints have none.
    """
    for folder in (tmp_path, tmp_path / "a"):
        folder.mkdir(exist_ok=True)
        for name in CERTIFICATE_FILES:
            (folder / name).touch()
    (tmp_path / "b").mkdir()
    environ = {
        "DOCKERTEST_ENDPOINTS": "tcp://a:2376 tcp://b:2376  ssh://c unix:///d",
        "DOCKER_CERT_PATH": str(tmp_path),
        "DOCKER_TLS_VERIFY": "1",
        "PYTEST_XDIST_WORKER": "gw1",
    }
    found = candidates(None, None, environ, home="/home/me", platform="linux")
    assert [(one.url, one.cert_path) for one in found] == [
        ("tcp://b:2376", str(tmp_path)),
        ("ssh://c", ""),
        ("unix:///d", ""),
        ("tcp://a:2376", str(tmp_path / "a")),
    ]
