"""Where the engine is found and how it is connected to, with real engines, sockets, certificates and the docker CLI."""

import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

import dockertest
from dockertest._cleanup import reaper as _reaper
from dockertest._engine.connect import find
from dockertest._engine.endpoint import Endpoint

from ..engines.fault_proxy import FaultProxy, answer  # noqa: TID252 - `tests` is on no path
from ..engines.tls_front import Front, certificates  # noqa: TID252 - `tests` is on no path
from ..engines.versions import OtherVersions  # noqa: TID252 - `tests` is on no path

SLEEP = ("sleep", "600")
NAMING = ("DOCKER_HOST", "DOCKER_URL", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


@pytest.fixture
def nothing_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that names no engine, and the docker CLI's empty folder of configuration."""
    for name in NAMING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"


def works(pool: dockertest.Pool) -> None:
    """See that it can start something, and hear what it says."""
    with pool.run("busybox:1.35", cmd=SLEEP, stop_timeout=0) as resource:
        assert resource.exec(["cat"], stdin="in and out", check=True).stdout == "in and out"


def test_the_default_socket(local: str, nothing_named: Path) -> None:
    """Where nothing is named, it is tried first."""
    if local != "/var/run/docker.sock":
        pytest.skip("engine: it has another socket")
    with dockertest.Pool() as pool:
        assert pool.endpoint == "unix:///var/run/docker.sock"
        assert pool._engine.endpoint.why == "the default socket"
        assert pool._engine.passed_over == ()


def test_what_was_tried_before_is_known(local: str, nothing_named: Path, tmp_path: Path) -> None:
    """With the reason why it was not taken, for whoever wonders."""
    engine = find([Endpoint(f"unix://{tmp_path}/x", "a test"), Endpoint(f"unix://{local}", "another")], 10)
    engine.close()
    assert [str(each) for each in engine.passed_over] == [
        f"unix://{tmp_path}/x (a test): no such file or directory"
    ]


@pytest.fixture
def cli(nothing_named: Path) -> str:
    """The docker CLI."""
    program = shutil.which("docker")
    if program is None:
        pytest.skip("machine: there is no docker CLI here")
    return program


@pytest.mark.parametrize("skip_verify", [False, True])
def test_a_context_with_tls(
    local: str,
    cli: str,
    nothing_named: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    skip_verify: bool,
) -> None:
    """Made and chosen with the docker CLI, with its certificates; the one that verifies nothing has none of the CA."""
    context = certificates(tmp_path, host="elsewhere.example" if skip_verify else "127.0.0.1")
    with Front(local, context) as front:
        how = f"host={front.url},cert={tmp_path}/cert.pem,key={tmp_path}/key.pem,"
        how += "skip-tls-verify=true" if skip_verify else f"ca={tmp_path}/ca.pem"
        subprocess.run([cli, "context", "create", "secure", "--docker", how], check=True, capture_output=True)
        monkeypatch.setenv("DOCKER_CONTEXT", "secure")
        with dockertest.Pool() as pool:
            assert pool._engine.endpoint.why == "docker context 'secure', DOCKER_CONTEXT"
            works(pool)
            address = pool._engine.address()
            assert address is not None
            assert _reaper.Engine(address).request("GET", "/containers/json")[0] == 200
        monkeypatch.delenv("DOCKER_CONTEXT")
        subprocess.run([cli, "context", "use", "secure"], check=True, capture_output=True)
        with dockertest.Pool() as pool:
            assert pool.endpoint == front.url
            assert pool._engine.endpoint.why.startswith(
                "docker context 'secure', the current docker context in "
            )


def test_an_unknown_context_is_told_with_those_that_the_docker_cli_made(
    cli: str, nothing_named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is never replaced by the default one."""
    how = "host=ssh://me@build.example"
    subprocess.run([cli, "context", "create", "farm", "--docker", how], check=True, capture_output=True)
    monkeypatch.setenv("DOCKER_CONTEXT", "frm")
    with pytest.raises(
        dockertest.InvalidOptionError, match=r"no docker context 'frm'; known are: default, farm$"
    ):
        dockertest.Pool()


@pytest.fixture
def dead_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that lead whoever heeds them to a port on which nobody listens, and to CAs that are not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{port}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, "/nowhere/ca.pem")


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
@pytest.mark.usefixtures("dead_proxies")
def test_no_proxy_of_the_environment_gets_between(local: str, tmp_path: Path, tls: bool) -> None:
    """Nor its CAs: the engine has its own."""
    context = certificates(tmp_path) if tls else None
    with (
        Front(local, context) as front,
        dockertest.Pool(front.url, cert_path=tmp_path if tls else None) as pool,
    ):
        works(pool)


def test_certificates_are_found_from_anywhere(
    local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test may well go to a folder of its own; the docker SDK reads the files anew with every request."""
    with Front(local, certificates(tmp_path)) as front:
        monkeypatch.chdir(tmp_path)
        with dockertest.Pool(front.url, cert_path=".") as pool:
            monkeypatch.chdir("/")
            works(pool)


NO_THREADS = """
import sys, threading, dockertest
threading.stack_size(1 << 46)  # more than any machine has
dockertest.Pool(sys.argv[1]).close()
"""


def test_where_no_thread_can_be_started(local: str) -> None:
    """As while the interpreter ends, or where a job may have only so many: an engine that answers is connected to."""
    with Front(local) as front:
        subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", NO_THREADS, front.url], check=True)


class Behind(FaultProxy):
    """An engine behind a reverse proxy that has a path for it, and a header that says who may come."""

    def passed_on(self, head: bytes) -> bytes:
        may_come = b"\r\nX-Key: 5\r\n" in head and b" /engine/" in head
        asked, instead = (b" /engine/", b" /") if may_come else (b" /", b" /nowhere/")
        return head.replace(asked, instead, 1)


def test_an_engine_may_be_behind_a_proxy(local: str, nothing_named: Path, tmp_path: Path) -> None:
    """What removes the things of a dead process passes it, too, with the headers of the docker CLI's configuration."""
    nothing_named.mkdir()
    (nothing_named / "config.json").write_text('{"HttpHeaders": {"X-Key": "5"}}')
    behind = Behind(tmp_path / "x", local)
    with (
        behind.running(),
        Front(str(behind.path)) as front,
        dockertest.Pool(f"{front.url}/engine") as pool,
    ):
        works(pool)
        address = pool._engine.address()
        assert address is not None
        assert _reaper.Engine(address).request("GET", "/containers/json")[0] == 200


class Guarded(FaultProxy):
    """An engine behind a proxy that asks for a name and a password."""

    def passed_on(self, head: bytes) -> bytes:
        return head if b"\r\nAuthorization: Basic YTpi\r\n" in head else head.replace(b" /", b" /nowhere/", 1)


def test_a_clients_own_login_goes_with_every_request(local: str, tmp_path: Path) -> None:
    """With those that have headers of their own, too, as a download and a command with input do."""
    guarded = Guarded(tmp_path / "x", local)
    with guarded.running():
        client = docker.DockerClient(base_url=guarded.endpoint, version="1.41")
        client.api.auth = ("a", "b")
        with dockertest.Pool(client=client, reaper=False) as pool:
            box = pool.run("busybox:1.35", cmd=["sleep", "600"], files={"/given": "x"})
            assert box.read_file("/given") == b"x"
            assert box.exec(["cat"], stdin="y").stdout == "y"
        client.close()


@pytest.mark.parametrize(
    ("oldest", "newest", "spoken"),
    [("1.44", "1.52", "1.51"), ("1.55", "1.60", "1.55"), ("1.24", "1.51", "1.51"), ("1.12", "1.30", "1.30")],
)
def test_the_newest_version_that_both_know_is_spoken(
    local: str, pool: dockertest.Pool, tmp_path: Path, oldest: str, newest: str, spoken: str
) -> None:
    """An engine that has forgotten ours is spoken to in its oldest one; a container goes from start to end."""
    real = str(pool.client.api.api_version)
    front = OtherVersions(tmp_path / "x", local, oldest=oldest, newest=newest, real=real)
    with front.running(), dockertest.Pool(front.endpoint) as other:
        assert other.client.api.api_version == spoken
        works(other)
    asked = [each for each in front.requests if "/version " in each]
    assert len(asked) == (newest > "1.51")  # it costs a request only where it has to


def test_a_proxy_may_keep_the_oldest_version_to_itself(
    local: str, pool: dockertest.Pool, tmp_path: Path
) -> None:
    """As one before an engine's socket does that lets only some requests pass: then ours is spoken."""
    real = str(pool.client.api.api_version)
    proxy = FaultProxy(tmp_path / "y", local)
    proxy.next("GET /version ", answer(403, "forbidden"))
    front = OtherVersions(tmp_path / "x", str(proxy.path), oldest="1.44", newest="1.52", real=real)
    with proxy.running(), front.running(), dockertest.Pool(front.endpoint) as other:
        assert other.client.api.api_version == "1.51"
        works(other)


@pytest.fixture
def remote(local: str, pool: dockertest.Pool) -> "Iterator[str]":
    """The engine on plain TCP at an address of this machine that is not loopback: the way into a network of its own."""
    # Podman gives the address to this machine when the first container is in the network.
    with pool.create_network() as network, pool.run("busybox:1.35", cmd=["sleep", "600"], networks=[network]):
        address = pool.client.networks.get(network.id).attrs["IPAM"]["Config"][0]["Gateway"]
        with Front(local, host=address) as front:
            yield front.url


def test_an_open_engine_is_warned_about_once(remote: str, caplog: pytest.LogCaptureFixture) -> None:
    """In each process, for each endpoint."""
    with caplog.at_level(logging.WARNING, "dockertest"):
        for _ in range(2):
            dockertest.Pool(remote).close()
    (warning,) = [each.getMessage() for each in caplog.records]
    assert warning.startswith(
        f"{remote} (endpoint=) speaks no TLS: whoever can reach it has the engine's host"
    )


def test_the_ports_of_a_remote_engine_are_reached_at_its_host(remote: str) -> None:
    """They are published on all its addresses, and the three getters agree."""
    with dockertest.Pool(remote) as pool:
        resource = pool.run(
            "busybox:1.35", cmd=["httpd", "-f", "-p", "8080"], exposed_ports=[8080], stop_timeout=0
        )
        host, port = resource.get_bound_ip(8080), resource.get_port(8080)
        assert f"tcp://{host}:" == remote.rpartition(":")[0] + ":"
        assert resource.get_host_port(8080) == f"{host}:{port}"
        dockertest.retry(lambda: socket.create_connection((host, port), 1).close(), on=OSError, max_wait=10)


@pytest.mark.parametrize(
    ("override", "host", "host_port"),
    [
        ("gateway.example", "gateway.example", "gateway.example:"),
        ("[2001:db8::5]", "2001:db8::5", "[2001:db8::5]:"),
        ("10.1.2.3", "10.1.2.3", "10.1.2.3:"),
    ],
)
def test_what_nobody_can_guess_is_said(
    monkeypatch: pytest.MonkeyPatch, override: str, host: str, host_port: str
) -> None:
    """In `DOCKERTEST_HOST_OVERRIDE`; the port is the published one."""
    monkeypatch.setenv("DOCKERTEST_HOST_OVERRIDE", override)
    with dockertest.Pool() as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[80], stop_timeout=0)
        bound = resource.container.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
        assert resource.get_bound_ip(80) == host
        assert resource.get_host_port(80) == f"{host_port}{bound}"
        assert resource.get_port(80) == int(bound)


@pytest.mark.parametrize("override", ["http://x", "x:80", "[::1", "a b", "x/y"])
def test_an_override_that_is_no_host_is_refused(monkeypatch: pytest.MonkeyPatch, override: str) -> None:
    """Before anything is started."""
    monkeypatch.setenv("DOCKERTEST_HOST_OVERRIDE", override)
    with pytest.raises(dockertest.InvalidOptionError, match=r"^DOCKERTEST_HOST_OVERRIDE: .* is no host"):
        dockertest.Pool()


def test_a_client_of_the_users_own_says_where_it_is(local: str) -> None:
    """Its socket, or its address."""
    client = docker.DockerClient(base_url=f"unix://{local}", version="auto")
    with dockertest.Pool(client=client) as pool:
        assert pool.endpoint == f"unix://{local}"
    client.close()


@pytest.mark.parametrize(
    ("host", "address"),
    [("10.0.0.1", "0.0.0.0"), ("[2001:db8::1]", "::"), ("127.0.0.1", "127.0.0.1"), ("[::1]", "127.0.0.1")],
)
def test_ports_are_published_where_the_engine_is_reached(
    host: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On all addresses of a remote engine: at an IPv6 address of its host, its IPv4 ports are refused."""
    monkeypatch.delenv("DOCKERTEST_PUBLISH_IP", raising=False)
    client = docker.DockerClient(base_url=f"tcp://{host}:2375", version="1.41")  # contacts nothing
    with dockertest.Pool(client=client) as pool:
        assert pool.publish_ip == address
    client.close()
