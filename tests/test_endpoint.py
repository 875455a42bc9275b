"""Which engine to talk to: from arguments, an environment and files."""

import json
import pickle
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dockertest import InvalidOptionError
from dockertest._engine.endpoint import SCHEMES, Endpoint, candidates

SECRET = "hunter2"


def found(
    endpoint: Any = None,
    cert_path: Any = None,
    *,
    platform: str = "linux",
    home: str = "/no/home",
    **environ: str,
) -> "list[Endpoint]":
    """Give the endpoints to try."""
    return candidates(endpoint, cert_path, environ, home=home, platform=platform)


def only(*args: Any, home: str = "/no/home", **environ: str) -> Endpoint:
    """Give the one endpoint to try."""
    (endpoint,) = found(*args, home=home, **environ)
    return endpoint


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A folder with the three files."""
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
def test_what_a_user_named_is_the_only_one(
    endpoint: "str | None", environ: "dict[str, str]", url: str, why: str
) -> None:
    """The argument before `DOCKER_HOST` before `DOCKER_URL`; it is never replaced by another."""
    named = only(endpoint, **environ)
    assert (named.url, named.why) == (url, why)


LINUX = [
    ("unix:///var/run/docker.sock", "the default socket"),
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
    ("unix:///var/run/docker.sock", "the default socket"),
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
    ("npipe:////./pipe/docker_engine", "the default pipe"),
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
def test_where_engines_usually_listen(
    platform: str, home: str, environ: "dict[str, str]", expected: "list[tuple[str, str]]"
) -> None:
    """In this order, and each says what it is the place of."""
    endpoints = found(platform=platform, home=home, **environ)
    assert [(each.url, each.why) for each in endpoints] == expected
    assert not any(each.remark for each in endpoints)


def test_a_place_is_where_its_variable_says() -> None:
    """Without a runtime folder there are no rootless sockets; Colima has two variables for its own."""
    urls = [each.url for each in found(home="/h", COLIMA_HOME="/c", XDG_CONFIG_HOME="/x")]
    assert "unix:///c/default/docker.sock" in urls
    assert "unix:///x/colima/default/docker.sock" in urls
    assert not any("None" in url or "False" in url or url.startswith("unix:///run/user") for url in urls)


class Cli:
    """A home with the docker CLI's folder of configuration."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / ".docker"
        self.config.mkdir(parents=True)

    def use(self, name: object) -> None:
        """Write down the current context."""
        (self.config / "config.json").write_text(json.dumps({"currentContext": name, "auths": {}}))

    def add(self, name: str, host: str, *files: str, **docker: object) -> Path:
        """Add a context, and give the folder for its certificates."""
        meta = self.meta(name)
        meta.parent.mkdir(parents=True)
        meta.write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host, **docker}}}))
        tls = self.config / "contexts" / "tls" / meta.parent.name / "docker"
        for file in files:
            tls.mkdir(parents=True, exist_ok=True)
            (tls / file).touch()
        return tls

    def meta(self, name: str) -> Path:
        """Give the file of a context."""
        return self.config / "contexts" / "meta" / sha256(name.encode()).hexdigest() / "meta.json"

    def found(self, *args: Any, **environ: str) -> "list[Endpoint]":
        """Give the endpoints to try for who lives here."""
        return found(*args, home=str(self.home), **environ)


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
        ("colima", {}, "unix:///x/colima.sock", "docker context 'colima', the current docker context in "),
        ("colima", {"DOCKER_CONTEXT": ""}, "unix:///x/colima.sock", "docker context 'colima', the current"),
        ("colima", {"DOCKER_CONTEXT": "farm"}, "ssh://me@farm", "docker context 'farm', DOCKER_CONTEXT"),
        ("colima", {"DOCKER_CONTEXT": "büro 1"}, "tcp://10.0.0.5:2376", "docker context 'büro 1', DOCKER_CONTEXT"),
        ("colima", {"DOCKER_CONTEXT": "default"}, "unix:///var/run/docker.sock", "the default socket, since DOCKER_CONTEXT"),
        ("colima", {"DOCKER_HOST": "tcp://localhost:1"}, "tcp://localhost:1", "DOCKER_HOST"),
        ("gone", {"DOCKER_URL": "tcp://localhost:1", "DOCKER_CONTEXT": "gone"}, "tcp://localhost:1", "DOCKER_URL"),
    ],
)  # fmt: skip
def test_a_context_is_what_a_user_named(
    cli: Cli, current: str, environ: "dict[str, str]", url: str, why: str
) -> None:
    """The variable before the configuration, both behind an endpoint; it is the only one to try."""
    cli.use(current)
    (endpoint,) = cli.found(**environ)
    assert endpoint.url == url
    assert endpoint.why.startswith(why)


@pytest.mark.parametrize("current", ["", "default", None, 5])
def test_the_default_context_is_none(cli: Cli, current: object) -> None:
    """Then the usual places are looked at."""
    cli.use(current)
    assert len(cli.found()) == 7
    assert cli.found()[0].why == "the default socket"


def test_the_configuration_may_be_elsewhere(cli: Cli, tmp_path: Path) -> None:
    """Where `DOCKER_CONFIG` says."""
    cli.use("farm")
    assert len(found(home=str(tmp_path), DOCKER_CONFIG=str(cli.config))) == 1
    assert len(cli.found(DOCKER_CONFIG=str(tmp_path))) == 7


def test_a_context_has_its_own_certificates(cli: Cli, certificates: Path) -> None:
    """Those of the environment are not for it; an argument goes before."""
    tls = cli.config / "contexts" / "tls" / cli.meta("büro 1").parent.name / "docker"
    environ = {"DOCKER_CONTEXT": "büro 1", "DOCKER_CERT_PATH": "/nowhere", "DOCKER_TLS_VERIFY": "1"}
    (endpoint,) = cli.found(**environ)
    assert (endpoint.cert_path, endpoint.verify, endpoint.speaks_tls) == (str(tls), True, True)
    assert cli.found(None, str(certificates), **environ)[0].cert_path == str(certificates)
    with pytest.raises(InvalidOptionError, match=r"^cert_path: no TLS is spoken over unix:///x/colima\.sock"):
        cli.found(None, str(certificates), DOCKER_CONTEXT="colima")
    cli.add("open", "http://10.0.0.5:2375", "ca.pem")
    with pytest.raises(
        InvalidOptionError, match=r"context 'open', DOCKER_CONTEXT: no TLS is spoken over http://"
    ):
        cli.found(DOCKER_CONTEXT="open")


def test_certificates_stay_where_they_are(
    cli: Cli, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder is the one that is seen from here, wherever the process goes later."""
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
def test_what_a_context_says_about_tls(
    cli: Cli, files: "tuple[str, ...]", skip: bool, cert_path: bool, verify: bool, tls: bool
) -> None:
    """Any of the three files, or that nothing is to be verified, means TLS."""
    folder = cli.add("it", "tcp://10.0.0.6:2376", *files, SkipTLSVerify=skip)
    (endpoint,) = cli.found(DOCKER_CONTEXT="it")
    assert (endpoint.cert_path, endpoint.verify, endpoint.speaks_tls) == (
        str(folder) if cert_path else "",
        verify,
        tls,
    )
    assert bool(endpoint.remark) is not tls


def test_an_unknown_context_is_told_with_the_known_ones(cli: Cli) -> None:
    """It is never silently replaced by the default one."""
    with pytest.raises(InvalidOptionError) as caught:
        cli.found(DOCKER_CONTEXT="frm")
    assert str(caught.value) == (
        "DOCKER_CONTEXT: there is no docker context 'frm'; known are: default, büro 1, colima, farm"
    )
    cli.use("gone")
    with pytest.raises(InvalidOptionError, match=r"config\.json: there is no docker context 'gone'; known"):
        cli.found()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{", "it is no JSON;"),
        ("[" * 100_000, "it is no JSON;"),
        ("[]", "it is no JSON object;"),
        ("{}", "it names no endpoint for docker;"),
        ('{"Endpoints": {"docker": null}}', "it names no endpoint for docker;"),
        ('{"Endpoints": {"docker": {"Host": 5}}}', "it names no endpoint for docker;"),
        ('{"Endpoints": {"kubernetes": {"Host": "tcp://a"}}}', "it names no endpoint for docker;"),
    ],
    ids=lambda each: each[:40],
)
def test_a_broken_context_is_told(cli: Cli, written: str, said: str) -> None:
    """With its file, what is wrong with it and what to do; other contexts are not touched by that."""
    cli.meta("farm").write_text(written)
    with pytest.raises(InvalidOptionError, match="docker context 'farm' cannot be read from ") as caught:
        cli.found(DOCKER_CONTEXT="farm")
    assert said in str(caught.value)
    assert str(cli.meta("farm")) in str(caught.value)
    assert len(cli.found(DOCKER_CONTEXT="colima")) == 1
    with pytest.raises(InvalidOptionError, match=r"known are: default, .*colima"):
        cli.found(DOCKER_CONTEXT="gone")


def test_a_context_without_a_host_means_the_default_socket(cli: Cli) -> None:
    """And one whose host is no endpoint is refused with its name."""
    cli.add("empty", "")
    assert [each.url for each in cli.found(DOCKER_CONTEXT="empty")] == ["unix:///var/run/docker.sock"]
    cli.add("wrong", "farm:2375")
    with pytest.raises(
        InvalidOptionError, match=r"docker context 'wrong', DOCKER_CONTEXT: 'farm:2375' is no endpoint"
    ):
        cli.found(DOCKER_CONTEXT="wrong")


@pytest.mark.parametrize("written", [b"{", b"\xff\xfe", b"[]"])
def test_a_broken_configuration_is_remarked(cli: Cli, written: bytes) -> None:
    """As with the docker CLI, whoever has one goes on with the usual places; but knows it."""
    (cli.config / "config.json").write_bytes(written)
    endpoint, *_ = cli.found()
    assert endpoint.remark.startswith(
        f"cannot read the current docker context from {cli.config}/config.json: it is no"
    )
    assert endpoint.remark.endswith("; going on with the default socket at unix:///var/run/docker.sock")


@pytest.mark.parametrize(
    ("url", "remarked"),
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
def test_an_open_engine_is_remarked(url: str, remarked: bool) -> None:
    """Plain TCP to another host: whoever reaches that engine has its host."""
    assert bool(only(url).remark) is remarked
    assert ("speaks no TLS" in only(url).remark) is remarked


@pytest.mark.parametrize(
    "url", ["unix:///x", "http://127.0.0.1:2375", "ssh://host", "npipe:////./pipe/x", ""]
)
def test_certificates_are_never_silently_left_out(certificates: Path, url: str) -> None:
    """An argument that would do nothing is a mistake, and so is `DOCKER_TLS_VERIFY` for an endpoint without TLS."""
    with pytest.raises(InvalidOptionError, match=r"^cert_path: no TLS is spoken over"):
        found(url, str(certificates))
    with pytest.raises(InvalidOptionError, match=r"^DOCKER_TLS_VERIFY: no TLS is spoken over http://127"):
        found("http://127.0.0.1:2375", DOCKER_TLS_VERIFY="1")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes(scheme: str) -> None:
    """All that the docker SDK knows are taken."""
    assert only(f"{scheme}://host:2375/x").url == f"{scheme}://host:2375/x"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("tcp://docker", "tcp://docker:2375"),
        ("tcp://docker:/", "tcp://docker:2375/"),
        ("tcp://:2380", "tcp://127.0.0.1:2380"),
        ("tcp://[::1]", "tcp://[::1]:2375"),
        ("tcp://[fd00::1]:2380", "tcp://[fd00::1]:2380"),
    ],
)
def test_what_tcp_means_without_a_host_or_a_port(written: str, meant: str, certificates: Path) -> None:
    """The same as to the docker CLI; with TLS it is another port."""
    assert only(written).url == meant
    assert only(written, str(certificates)).url == meant.replace("2375", "2376")


@pytest.mark.parametrize(
    ("written", "lack"),
    [
        ("https://host", "name the engine's port"),
        ("http://[::1]/x", "name the engine's port"),
        ("unix:///run/a#b.sock", "may have no # or \\?"),
        ("unix:///run/a?b.sock", "may have no # or \\?"),
    ],
)
def test_what_leads_nowhere_is_refused(written: str, lack: str) -> None:
    """What the docker SDK would read otherwise than it is meant."""
    with pytest.raises(InvalidOptionError, match=lack):
        only(written)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("localhost:2375", "such as tcp://localhost:2375"),
        ("/var/run/docker.sock", "such as unix:///var/run/docker.sock"),
        ("ftp://host", "such as tcp://…"),
        ("tcp://", "such as tcp://…"),
        ("unix:/var/run/docker.sock", ""),
        ("://host", ""),
        ("tcp://[::1", ""),
        ("tcp://host:port", ""),
        ("tcp://host:99999", ""),
        ("default", ""),
    ],
)
def test_what_is_no_endpoint_is_refused(written: str, hint: str) -> None:
    """The text says where it was found, what it was and what to write."""
    with pytest.raises(InvalidOptionError) as caught:
        found(written)
    assert str(caught.value).startswith(f"endpoint=: {written!r} is no endpoint; write a scheme of unix://, ")
    assert hint in str(caught.value)
    with pytest.raises(InvalidOptionError, match=r"^DOCKER_HOST: "):
        found(DOCKER_HOST=written)


@pytest.mark.parametrize("written", ["unix:///x\r", "unix:///x\n", "tcp://host:2375 ", "tcp://ho\tst:2375"])
def test_what_nobody_sees_is_shown(written: str) -> None:
    """As from a file with the line ends of Windows: 'no such file' would be a riddle."""
    with pytest.raises(InvalidOptionError) as caught:
        found(DOCKER_HOST=written)
    assert str(caught.value).startswith(f"DOCKER_HOST: {written!r} ")
    assert only("unix:///Users/J Doe/docker.sock").url == "unix:///Users/J Doe/docker.sock"


@pytest.mark.parametrize("written", [5, b"unix:///x", ["tcp://a"], Path("/var/run/docker.sock"), "tcp://a\0"])
def test_what_is_no_text_is_refused(written: Any) -> None:
    """With an error of ours."""
    with pytest.raises(InvalidOptionError, match=r"^endpoint="):
        found(written)


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
def test_an_engine_is_local_when_its_loopback_is_ours(url: str, local: bool, host: str) -> None:
    """Sockets and loopback addresses; the host is what ports are reached at otherwise."""
    endpoint = only(url)
    assert endpoint.is_local is local
    assert endpoint.host == host


@pytest.mark.parametrize("url", [f"tcp://me:{SECRET}@host:2375", f"ssh://:{SECRET}@host"])
def test_a_password_is_shown_nowhere(url: str) -> None:
    """Neither in an error nor in a log line; engines ask for none, and the docker SDK would show it in its refusal."""
    with pytest.raises(InvalidOptionError, match="has a password in it") as caught:
        only(url)
    assert SECRET not in str(caught.value)
    endpoint = Endpoint(url, "a test")
    for shown in (str(endpoint), repr(endpoint), f"{[endpoint]}"):
        assert SECRET not in shown
        assert "***" in shown


@pytest.mark.parametrize(
    "written",
    [
        f"ftp://me:{SECRET}@host",
        f"me:{SECRET}@host",
        f"ftp://:{SECRET}@host",
        f"ftp://me:x@{SECRET}@host",
        f"/me:{SECRET}@x",
        f"tcp://me:{SECRET}@host:99999",
    ],
)
def test_a_refused_endpoint_is_shown_without_its_password(written: str) -> None:
    """What is wrong with it is elsewhere."""
    with pytest.raises(InvalidOptionError) as caught:
        found(written)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("scheme", ["tcp", "https"])
def test_certificates_are_those_of_the_argument(certificates: Path, scheme: str) -> None:
    """Before `DOCKER_CERT_PATH`."""
    endpoint = only(f"{scheme}://host:2376", str(certificates), DOCKER_CERT_PATH="/nowhere")
    assert endpoint.cert_path == str(certificates)


def test_certificates_may_be_named_by_the_environment(certificates: Path) -> None:
    """As the docker command has it."""
    endpoint = only(DOCKER_HOST="tcp://host:2376", DOCKER_CERT_PATH=str(certificates))
    assert endpoint.cert_path == str(certificates)


def test_verification_asks_for_the_usual_certificates(certificates: Path) -> None:
    """`DOCKER_TLS_VERIFY` alone means the docker CLI's own folder; `~` may be written."""
    home = certificates.parent / "home"
    home.mkdir()
    usual = certificates.rename(home / ".docker")
    tls = {"DOCKER_HOST": "tcp://host:2376", "DOCKER_TLS_VERIFY": "1"}
    assert Path(only(home=str(home), **tls).cert_path) == usual
    assert Path(only(DOCKER_CONFIG=str(usual), **tls).cert_path) == usual
    assert Path(only("tcp://host:2376", "~/.docker", home=str(home)).cert_path) == usual


@pytest.mark.parametrize("environ", [{}, {"DOCKER_TLS_VERIFY": ""}, {"DOCKER_CERT_PATH": ""}], ids=str)
def test_without_a_word_about_it_there_is_no_tls(environ: "dict[str, str]") -> None:
    """Empty is not set."""
    assert only("tcp://host:2375", **environ).cert_path == ""


@pytest.mark.parametrize(
    "url", ["unix:///var/run/docker.sock", "npipe:////./pipe/docker_engine", "ssh://host"]
)
def test_a_socket_needs_no_certificates(url: str) -> None:
    """Those of the environment are for other endpoints."""
    assert only(url, DOCKER_CERT_PATH="/nowhere", DOCKER_TLS_VERIFY="1").cert_path == ""


def test_a_folder_alone_asks_for_nothing(certificates: Path, tmp_path: Path) -> None:
    """Some CI services set the variable anyway; but where there are some of the files, all are missed."""
    assert only("tcp://host:2375", DOCKER_CERT_PATH=str(tmp_path / "none")).cert_path == ""
    (certificates / "key.pem").unlink()
    for more in ({}, {"DOCKER_TLS_VERIFY": "1"}):
        with pytest.raises(InvalidOptionError, match=r"^DOCKER_CERT_PATH: .* has no key\.pem; TLS needs"):
            only("tcp://host:2376", DOCKER_CERT_PATH=str(certificates), **more)


def test_missing_certificates_are_named(certificates: Path) -> None:
    """Each file that is missing, and the folder."""
    (certificates / "key.pem").unlink()
    (certificates / "ca.pem").unlink()
    with pytest.raises(InvalidOptionError, match=r"has no ca\.pem, key\.pem; TLS needs") as caught:
        found("tcp://host:2376", str(certificates))
    assert repr(str(certificates)) in str(caught.value)


@pytest.mark.parametrize("folder", ["/no/such/folder", "~no-such-user-here/certs", "a\0b"])
def test_a_missing_folder_is_named(folder: str) -> None:
    """With all that is missing."""
    with pytest.raises(InvalidOptionError, match=r"has no ca\.pem, cert\.pem, key\.pem"):
        found("tcp://host:2376", folder)


def test_an_endpoint_pickles() -> None:
    """It is a value like any other."""
    endpoint = only("tcp://host:2375")
    assert pickle.loads(pickle.dumps(endpoint)) == endpoint
