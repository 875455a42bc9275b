"""
Choosing and connecting to an engine.

The tests use real engines, sockets, certificates and the docker CLI.
"""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import docker
import pytest
import requests

import dockertest
from dockertest._cleanup import reaper as _reaper
from dockertest._engine import endpoint
from dockertest._engine.connect import adopt, find
from dockertest._engine.endpoint import Endpoint

from ..engines.fault_proxy import FaultProxy, answer  # noqa: TID252 - `tests` is on no path
from ..engines.tls_front import Front, certificates  # noqa: TID252 - `tests` is on no path
from ..engines.versions import OtherVersions  # noqa: TID252 - `tests` is on no path
from .conftest import Engine, dead_port

SLEEP = ("sleep", "600")
VARIABLES = ("DOCKER_HOST", "DOCKER_URL", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")


@pytest.fixture
def no_endpoint_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """
    An environment without an endpoint or configuration of the docker CLI.

    The fixture is the path of the CLI's configuration folder, which does not exist yet.
    """
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"


def check_works(pool: dockertest.Pool) -> None:
    """Check that a container can be started and reached."""
    with pool.run("busybox:1.35", cmd=SLEEP, stop_timeout=0) as resource:
        assert resource.exec(["cat"], stdin="in and out", check=True).stdout == "in and out"


def test_the_default_socket(local: str, no_endpoint_named: Path) -> None:
    """It is tried first if no endpoint is named."""
    if local != "/var/run/docker.sock":
        pytest.skip("engine: it has another socket")
    with dockertest.Pool() as pool:
        assert pool.endpoint == "unix:///var/run/docker.sock"
        assert pool._runtime.engine.endpoint.why == "default socket"
        assert pool._runtime.engine.passed_over == ()


def test_failed_attempts_are_recorded(local: str, no_endpoint_named: Path, tmp_path: Path) -> None:
    """Each one has a reason, which `dockertest doctor` prints."""
    engine = find([Endpoint(f"unix://{tmp_path}/x", "a test"), Endpoint(f"unix://{local}", "another")], 10)
    engine.close()
    assert [str(attempt) for attempt in engine.passed_over] == [
        f"unix://{tmp_path}/x (a test): no such file or directory"
    ]


def test_a_busy_engine_is_not_passed_over_in_silence(
    local: str,
    no_endpoint_named: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The tests would run with another engine than usual."""
    busy, path = socket.socket(socket.AF_UNIX), f"{tmp_path}/x"
    with busy:
        busy.bind(path)
        busy.listen()
        usual = [Endpoint(f"unix://{path}", "a test"), Endpoint(f"unix://{local}", "another")]
        monkeypatch.setattr(endpoint, "_usual", lambda *_: usual)
        with dockertest.Pool() as pool:
            assert pool.endpoint == f"unix://{local}"
    assert f"skipping the engine at unix://{path} (a test): the engine did not answer within" in caplog.text


@pytest.fixture
def cli(no_endpoint_named: Path) -> str:
    """The docker CLI."""
    program = shutil.which("docker")
    if program is None:
        pytest.skip("machine: there is no docker CLI here")
    return program


@pytest.mark.parametrize("skip_verify", [False, True])
def test_a_context_with_tls(
    local: str,
    cli: str,
    no_endpoint_named: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    skip_verify: bool,
) -> None:
    """
    A context is created and selected with the docker CLI.

    Without verification it has no CA certificate.
    """
    context = certificates(tmp_path, host="elsewhere.example" if skip_verify else "127.0.0.1")
    with Front(local, context) as front:
        how = f"host={front.url},cert={tmp_path}/cert.pem,key={tmp_path}/key.pem,"
        how += "skip-tls-verify=true" if skip_verify else f"ca={tmp_path}/ca.pem"
        subprocess.run([cli, "context", "create", "secure", "--docker", how], check=True, capture_output=True)
        monkeypatch.setenv("DOCKER_CONTEXT", "secure")
        with dockertest.Pool() as pool:
            assert pool._runtime.engine.endpoint.why == "docker context 'secure', DOCKER_CONTEXT"
            check_works(pool)
            address = pool._runtime.engine.address()
            assert address is not None
            assert _reaper.Engine(address).request("GET", "/containers/json")[0] == 200
        monkeypatch.delenv("DOCKER_CONTEXT")
        subprocess.run([cli, "context", "use", "secure"], check=True, capture_output=True)
        with dockertest.Pool() as pool:
            assert pool.endpoint == front.url
            assert pool._runtime.engine.endpoint.why.startswith(
                "docker context 'secure', current context in "
            )


def test_an_unknown_context_is_an_error_that_lists_those_of_the_docker_cli(
    cli: str, no_endpoint_named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default context never replaces it."""
    how = "host=ssh://me@build.example"
    subprocess.run([cli, "context", "create", "farm", "--docker", how], check=True, capture_output=True)
    monkeypatch.setenv("DOCKER_CONTEXT", "frm")
    with pytest.raises(
        dockertest.InvalidOptionError, match=r"context 'frm' does not exist; use one of: default, farm$"
    ):
        dockertest.Pool()


@pytest.fixture
def dead_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that name a proxy that does not listen and CAs that do not exist."""
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
def test_proxies_of_the_environment_are_ignored(local: str, tmp_path: Path, tls: bool) -> None:
    """CA variables are ignored as well, since the engine has its own CA."""
    context = certificates(tmp_path) if tls else None
    with (
        Front(local, context) as front,
        dockertest.Pool(front.url, cert_path=tmp_path if tls else None) as pool,
    ):
        check_works(pool)


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
def test_connections_have_keepalive(local: str, tmp_path: Path, tls: bool) -> None:
    """So firewalls do not forget them while they are silent."""
    context = certificates(tmp_path) if tls else None
    with (
        Front(local, context) as front,
        dockertest.Pool(front.url, cert_path=tmp_path if tls else None) as pool,
    ):
        adapter: Any = pool.client.api.get_adapter("https://" if tls else "http://")
        manager = adapter.poolmanager
        idle = [one for key in list(manager.pools.keys()) for one in manager.pools[key].pool.queue if one]
        assert idle
        assert all(one.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for one in idle)


def test_certificates_are_found_from_any_folder(
    local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test may change the working directory."""
    with Front(local, certificates(tmp_path)) as front:
        monkeypatch.chdir(tmp_path)
        with dockertest.Pool(front.url, cert_path=".") as pool:
            monkeypatch.chdir("/")
            check_works(pool)


def test_certificates_may_vanish(local: str, tmp_path: Path) -> None:
    """A CI job may write them for one step only; new connections need them, too."""
    with (
        Front(local, certificates(tmp_path)) as front,
        dockertest.Pool(front.url, cert_path=tmp_path) as pool,
    ):
        resource = pool.run("busybox:1.35", cmd=SLEEP, stop_timeout=0)
        for file in tmp_path.glob("*.pem"):
            file.unlink()
        front.cut()
        assert resource.exec(["cat"], stdin="in and out", check=True).stdout == "in and out"


UNREADABLE = """
import os, sys, dockertest
dockertest.Pool(sys.argv[1], cert_path=sys.argv[2]).close()  # imports everything that only root may read
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
dockertest.Pool(sys.argv[1], cert_path=sys.argv[2])
"""


@pytest.mark.parametrize("unreadable", ["ca.pem", "cert.pem", "key.pem", "."])
def test_an_unreadable_certificate_is_named(local: str, unreadable: str) -> None:
    """The error is about the local file, not about the engine."""
    with tempfile.TemporaryDirectory() as temporary:  # pytest's temporary folder is closed to other users
        folder = Path(temporary) / "certificates"
        folder.mkdir()
        Path(temporary).chmod(0o755)
        context = certificates(folder)
        for file in folder.iterdir():
            file.chmod(0o644)
        (folder / unreadable).chmod(0o600)
        with Front(local, context) as front:
            ended = subprocess.run(
                [sys.executable, "-W", "error", "-c", UNREADABLE, front.url, folder],
                capture_output=True,
                text=True,
            )
    last = ended.stderr.splitlines()[-1]
    assert "InvalidOptionError" in last
    assert f"{folder / unreadable}" in last
    assert "permission denied; make " in last


def test_a_local_error_is_not_reported_as_an_engine_error(pool: dockertest.Pool, tmp_path: Path) -> None:
    """An `OSError` during the upload of a request body propagates unchanged."""

    def content() -> Iterator[bytes]:
        yield b"x" * 100_000
        yield (tmp_path / "missing").read_bytes()

    with pytest.raises(FileNotFoundError) as failure:
        pool._runtime.engine.send("post", "/build", what="build", body=content(), stream=True)
    assert failure.value.filename == str(tmp_path / "missing")


def test_a_host_that_stops_responding_is_detected_quickly(local: str) -> None:
    """A new connection has 4 s, although a response may take 60 s."""
    with Front(local) as front, dockertest.Pool(front.url) as pool:
        port = int(front.url.rpartition(":")[2])
        front.__exit__()
        with dead_port(port):
            start = time.monotonic()
            with pytest.raises(dockertest.DockerUnavailableError, match="no connection within 4 s"):
                pool.container_by_name("any")
            assert time.monotonic() - start < 40


NO_THREADS = """
import sys, threading, dockertest
threading.stack_size(1 << 46)  # more than any machine has
dockertest.Pool(sys.argv[1]).close()
"""


def test_connecting_needs_no_thread(local: str) -> None:
    """
    A pool connects even if no thread can be started.

    No thread can be started at the interpreter's exit or when a job has reached its limit of threads.
    """
    with Front(local) as front:
        subprocess.run([sys.executable, "-X", "dev", "-W", "error", "-c", NO_THREADS, front.url], check=True)


class ReverseProxy(FaultProxy):
    """An engine behind a reverse proxy that adds a path and requires a header."""

    rejected: ClassVar[list[bytes]] = []

    def passed_on(self, head: bytes) -> bytes:
        is_allowed = b"\r\nX-Key: 5\r\n" in head and b" /engine/" in head
        self.rejected.extend([] if is_allowed else [head])
        path, replacement = (b" /engine/", b" /") if is_allowed else (b" /", b" /nowhere/")
        return head.replace(path, replacement, 1)


def test_an_engine_behind_a_reverse_proxy(local: str, no_endpoint_named: Path, tmp_path: Path) -> None:
    """The reaper also sends the headers from the docker CLI's configuration."""
    no_endpoint_named.mkdir()
    (no_endpoint_named / "config.json").write_text('{"HttpHeaders": {"X-Key": "5"}}')
    behind = ReverseProxy(tmp_path / "x", local)
    with (
        behind.running(),
        Front(str(behind.path)) as front,
        dockertest.Pool(f"{front.url}/engine") as pool,
    ):
        check_works(pool)
        with pool.run("busybox:1.35", cmd=SLEEP, stop_timeout=0) as resource:
            resource.write_file("/tmp/file", b"content")
            assert resource.read_file("/tmp/file") == b"content"
        address = pool._runtime.engine.address()
        assert address is not None
        assert _reaper.Engine(address).request("GET", "/containers/json")[0] == 200
        assert ReverseProxy.rejected == []


class LoginProxy(FaultProxy):
    """An engine behind a proxy that requires a login."""

    def passed_on(self, head: bytes) -> bytes:
        return head if b"\r\nAuthorization: Basic YTpi\r\n" in head else head.replace(b" /", b" /nowhere/", 1)


def test_the_login_of_a_custom_client_is_sent_with_every_request(local: str, tmp_path: Path) -> None:
    """
    The login is also sent with requests that have headers of their own.

    Examples are downloads and commands with input.
    """
    guarded = LoginProxy(tmp_path / "x", local)
    with guarded.running():
        client = docker.DockerClient(base_url=guarded.endpoint, version="1.41")
        client.api.auth = ("a", "b")
        with dockertest.Pool(client=client, reaper=False) as pool:
            box = pool.run("busybox:1.35", cmd=["sleep", "600"], files={"/given": "x"})
            assert box.read_file("/given") == b"x"
            assert box.exec(["cat"], stdin="y").stdout == "y"
        client.close()


class StrictProxy(FaultProxy):
    """An engine behind a proxy that requires a login, a cookie and a header."""

    accepted: ClassVar[list[bytes]] = []
    REQUIRED = (b"Authorization: Basic YTpi", b"Cookie: session=5", b"X-Team: green")

    def passed_on(self, head: bytes) -> bytes:
        may_pass = all(b"\r\n" + line + b"\r\n" in head for line in self.REQUIRED)
        self.accepted.extend([head] if may_pass else [])
        return head if may_pass else head.replace(b" /", b" /nowhere/", 1)


KILLED = """
import os, signal, sys, docker, dockertest
client = docker.DockerClient(base_url=sys.argv[1], version="1.41")
client.api.auth = ("a", "b")
client.api.cookies.set("session", "5")
client.api.headers["X-Team"] = "green"
pool = dockertest.Pool(client=client)
pool.run("busybox:1.35", cmd=["sleep", "600"], labels={sys.argv[2]: "1"})
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_reaper_uses_the_credentials_of_a_custom_client(
    local: str, engine: Engine, tmp_path: Path, name: str
) -> None:
    """
    The reaper sends the client's login, cookies and headers.

    They do not appear on its command line.
    """
    strict = StrictProxy(tmp_path / "x", local)
    with strict.running():
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", KILLED, strict.endpoint, name], text=True
        )
        assert ended.returncode == -signal.SIGKILL
        # The reaper of another session may remove the container first.
        dockertest.retry(
            lambda: any(b"dockertest.session%3D" in head for head in strict.accepted), max_wait=15
        )
        dockertest.retry(lambda: not engine.labelled(name), max_wait=15)


class Ticket(requests.auth.AuthBase):
    """A login with a header that is the same for all requests, or different for each."""

    def __init__(self, *, is_signature: bool) -> None:
        self._is_signature = is_signature

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["X-Ticket"] = str(request.url) if self._is_signature else "5"
        return request


def test_a_custom_login_class_is_passed_to_the_reaper(local: str) -> None:
    """This works if the login is the same for every request."""
    client = docker.DockerClient(base_url=f"unix://{local}", version="1.41")
    client.api.auth = Ticket(is_signature=False)
    known = adopt(client, 10).address()
    client.close()
    assert known is not None
    assert known["headers"] == {"X-Ticket": "5"}


@pytest.mark.parametrize(
    ("settings", "obstacle"),
    [
        ({"auth": Ticket(is_signature=True)}, "its authentication differs from request to request"),
        (
            {"auth": requests.auth.HTTPDigestAuth("a", "b")},
            "its authentication differs from request to request",
        ),
        ({"params": {"key": "5"}}, "it adds parameters to every request"),
        ({"proxies": {"http": "http://proxy.example:3128"}}, "it goes through an HTTP proxy"),
    ],
    ids=["signature", "digest", "parameters", "proxy"],
)
def test_the_reaper_detects_unsupported_clients(settings: "dict[str, object]", obstacle: str) -> None:
    """The pool can then warn immediately."""
    client = docker.DockerClient(base_url="tcp://127.0.0.1:2375", version="1.41")  # connects to nothing
    vars(client.api).update(settings)
    adopted = adopt(client, 10)
    client.close()
    assert adopted.address_obstacle() == obstacle
    assert adopted.address() is None


def test_a_custom_transport_is_not_supported_by_the_reaper(local: str) -> None:
    """Only the transport itself can create its connections."""
    client = docker.DockerClient(base_url="tcp://127.0.0.1:2375", version="1.41")  # connects to nothing
    client.api.mount("http://", type("Tunnel", (requests.adapters.HTTPAdapter,), {})())
    assert adopt(client, 10).address_obstacle() == "it has a transport adapter of its own (Tunnel)"
    client.close()


def test_a_pool_warns_at_once_that_its_client_has_no_reaper(
    local: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has the reason and is not repeated; without a reaper there is none."""
    client = docker.DockerClient(base_url=f"unix://{local}", version="1.41")
    client.api.auth = Ticket(is_signature=True)
    with dockertest.Pool(client=client, reaper=False):
        assert not caplog.records
    with dockertest.Pool(client=client) as pool:
        (warning,) = caplog.messages
        assert warning == (
            f"the reaper does not work: it cannot reach unix://{local} as the client does: its authentication differs from "
            "request to request; containers may be left behind if this process is killed"
        )
        box = pool.run("busybox:1.35", cmd=["sleep", "600"])
        with pytest.raises(dockertest.InvalidOptionError, match="request to request"):
            box.expire(60)
        assert caplog.messages == [warning]
    client.close()


SECRET = "hunter2"


@pytest.mark.parametrize(
    "value", [f"Bearer {SECRET}\n", f" Bearer {SECRET}", f"Bearer {SECRET}\r\nX: y", f"{SECRET}€"]
)
def test_an_invalid_header_is_an_error_without_its_value(
    local: str, no_endpoint_named: Path, value: str
) -> None:
    """
    Neither the message nor the traceback contains the value.

    The value may be a token that was copied with its line end.
    """
    no_endpoint_named.mkdir()
    config = no_endpoint_named / "config.json"
    config.write_text(json.dumps({"HttpHeaders": {"Authorization": value}}))
    with pytest.raises(
        dockertest.InvalidOptionError, match=r"HttpHeaders in .*: the value of 'Auth"
    ) as failure:
        dockertest.Pool(f"unix://{local}")
    assert str(config) in str(failure.value)
    assert SECRET not in "".join(traceback.format_exception(failure.value))


def test_an_invalid_header_of_a_custom_client_is_not_shown(local: str) -> None:
    """The error of requests contains its value."""
    client = docker.DockerClient(base_url=f"unix://{local}", version="1.41")
    client.api.headers["Authorization"] = f"{SECRET}\n"
    with dockertest.Pool(client=client, reaper=False) as pool:
        with pytest.raises(dockertest.EngineError, match="a header of the client cannot be sent") as failure:
            pool.container_by_name("any")
        client.api.headers.pop("Authorization")
    client.close()
    assert failure.value.reason == "header"
    assert SECRET not in "".join(traceback.format_exception(failure.value))


@pytest.mark.parametrize(
    ("oldest", "newest", "version"),
    [("1.44", "1.56", "1.55"), ("1.57", "1.60", "1.57"), ("1.24", "1.55", "1.55"), ("1.12", "1.30", "1.30")],
)
def test_the_newest_common_api_version_is_used(
    local: str, pool: dockertest.Pool, tmp_path: Path, oldest: str, newest: str, version: str
) -> None:
    """If the engine has dropped our version, its oldest one is used."""
    real = str(pool.client.api.api_version)
    front = OtherVersions(tmp_path / "x", local, oldest=oldest, newest=newest, real=real)
    with front.running(), dockertest.Pool(front.endpoint) as other:
        assert other.client.api.api_version == version
        check_works(other)
    version_requests = [line for line in front.requests if "/version " in line]
    assert len(version_requests) == (newest > "1.55")  # only if it is needed


def test_a_proxy_may_forbid_the_request_for_the_oldest_version(
    local: str, pool: dockertest.Pool, tmp_path: Path
) -> None:
    """Some proxies allow only a few requests. Our own version is used then."""
    real = str(pool.client.api.api_version)
    proxy = FaultProxy(tmp_path / "y", local)
    proxy.next("GET /version ", answer(403, "forbidden"))
    front = OtherVersions(tmp_path / "x", str(proxy.path), oldest="1.44", newest="1.56", real=real)
    with proxy.running(), front.running(), dockertest.Pool(front.endpoint) as other:
        assert other.client.api.api_version == "1.55"
        check_works(other)


@pytest.fixture
def remote(local: str, pool: dockertest.Pool) -> "Iterator[str]":
    """
    The engine on plain TCP at a non-loopback address of this machine.

    The address is the gateway of a network.
    """
    # Podman assigns the address to this machine when the first container joins the network.
    with pool.create_network() as network, pool.run("busybox:1.35", cmd=["sleep", "600"], networks=[network]):
        address = pool.client.networks.get(network.id).attrs["IPAM"]["Config"][0]["Gateway"]
        with Front(local, host=address) as front:
            yield front.url


def test_an_engine_without_tls_causes_one_warning(remote: str, caplog: pytest.LogCaptureFixture) -> None:
    """The warning is logged once per process and endpoint."""
    with caplog.at_level(logging.WARNING, "dockertest"):
        for _ in range(2):
            dockertest.Pool(remote).close()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(
        f"{remote} (endpoint=) does not use TLS: anyone who can reach this port controls the host"
    )


def test_the_ports_of_a_remote_engine_are_reached_at_its_host(remote: str) -> None:
    """They are published on all addresses, and all getters agree."""
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
def test_the_host_can_be_overridden(
    monkeypatch: pytest.MonkeyPatch, override: str, host: str, host_port: str
) -> None:
    """`DOCKERTEST_HOST_OVERRIDE` replaces the host; the port stays the published one."""
    monkeypatch.setenv("DOCKERTEST_HOST_OVERRIDE", override)
    with dockertest.Pool() as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[80], stop_timeout=0)
        bound = resource.container.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
        assert resource.get_bound_ip(80) == host
        assert resource.get_host_port(80) == f"{host_port}{bound}"
        assert resource.get_port(80) == int(bound)


@pytest.mark.parametrize("override", ["http://x", "x:80", "[::1", "a b", "x/y"])
def test_an_invalid_host_override_is_rejected(monkeypatch: pytest.MonkeyPatch, override: str) -> None:
    """The error is raised when the pool is created."""
    monkeypatch.setenv("DOCKERTEST_HOST_OVERRIDE", override)
    with pytest.raises(dockertest.InvalidOptionError, match=r"^DOCKERTEST_HOST_OVERRIDE: invalid host"):
        dockertest.Pool()


def test_the_endpoint_of_a_custom_client_is_known(local: str) -> None:
    """It is the client's socket or address."""
    client = docker.DockerClient(base_url=f"unix://{local}", version="auto")
    with dockertest.Pool(client=client) as pool:
        assert pool.endpoint == f"unix://{local}"
    client.close()


@pytest.mark.parametrize(
    ("host", "address"),
    [("10.0.0.1", "0.0.0.0"), ("[2001:db8::1]", "::"), ("127.0.0.1", "127.0.0.1"), ("[::1]", "127.0.0.1")],
)
def test_ports_are_published_where_they_can_be_reached(
    host: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A remote engine publishes on all addresses of its family.

    IPv4 ports are unreachable at the IPv6 address of an engine.
    """
    monkeypatch.delenv("DOCKERTEST_PUBLISH_IP", raising=False)
    client = docker.DockerClient(base_url=f"tcp://{host}:2375", version="1.41")  # connects to nothing
    with dockertest.Pool(client=client) as pool:
        assert pool.publish_ip == address
    client.close()


NAMED = """
import socket, sys, dockertest
server = ["sh", "-c", "while echo hello | nc -l -p 8080; do :; done"]
with dockertest.Pool(sys.argv[1]) as pool:
    resource = pool.run("busybox:1.35", cmd=server, exposed_ports=[8080], stop_timeout=0)
    def greet():
        with socket.create_connection(resource.get_address(8080), timeout=5) as connection:
            assert connection.makefile().readline() == "hello\\n"
    resource.retry(greet)
    print(resource.get_host_port(8080))
"""


@pytest.mark.differs("ports at IPv6 addresses")
def test_the_name_of_a_host_with_ipv6_only(local: str, tmp_path: Path) -> None:
    """
    Ports are published and reached by IPv6.

    The endpoint does not show that the host has only IPv6.
    """
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("machine: only root on Linux may put another file in the place of the system's")
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("machine: no IPv6")
    hosts = tmp_path / "hosts"
    hosts.write_text("::1 build.example\n")
    replaced = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
    with Front(local, host="::1") as front:
        named = f"tcp://build.example:{front.port}"
        done = subprocess.run(
            [*replaced, sys.executable, "-X", "dev", "-c", NAMED, named],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.startswith("build.example:"), done.stderr
