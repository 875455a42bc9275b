"""Which engine to talk to: from arguments, an environment and files."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from dockertest import InvalidOptionError
from dockertest._endpoint import SCHEMES, Endpoint, candidates

SECRET = "hunter2"


def found(
    endpoint: Any = None, cert_path: Any = None, platform: str = "linux", **environ: str
) -> "list[Endpoint]":
    """Give the endpoints to try."""
    return candidates(endpoint, cert_path, environ, platform=platform)


def only(*args: Any, **environ: str) -> Endpoint:
    """Give the one endpoint to try."""
    (endpoint,) = found(*args, **environ)
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


@pytest.mark.parametrize(
    ("platform", "url"),
    [
        ("linux", "unix:///var/run/docker.sock"),
        ("darwin", "unix:///var/run/docker.sock"),
        ("win32", "npipe:////./pipe/docker_engine"),
    ],
)
def test_the_default_socket_comes_first(platform: str, url: str) -> None:
    """Where nothing is named."""
    assert found(platform=platform)[0].url == url


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes(scheme: str) -> None:
    """All that the docker SDK knows are taken."""
    assert only(f"{scheme}://host/x").url == f"{scheme}://host/x"


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
        ("tcp://0.0.0.0:2375", False, "0.0.0.0"),
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


def test_verification_asks_for_the_usual_certificates(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`DOCKER_TLS_VERIFY` alone means `~/.docker`."""
    home = certificates.parent / "home"
    home.mkdir()
    certificates.rename(home / ".docker")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    endpoint = only(DOCKER_HOST="tcp://host:2376", DOCKER_TLS_VERIFY="1")
    assert Path(endpoint.cert_path) == home / ".docker"


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
