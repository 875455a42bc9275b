"""
The error for an unreachable engine has one sentence and a hint.

It is raised much earlier than after the 60 s that a response may take.
"""

import datetime
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import dockertest

from ..engines.fault_proxy import engine_socket  # noqa: TID252 - `tests` is on no path
from ..engines.tls_front import Front, certificates  # noqa: TID252 - `tests` is on no path
from ..engines.versions import OtherVersions  # noqa: TID252 - `tests` is on no path

LIMIT = 20.0  # seconds; the words of the error have the real one


def failure(endpoint: "str | None" = None, cert_path: "Path | None" = None) -> dockertest.DockertestError:
    """
    Return the error of a connection that fails in time.

    The error has one sentence and a hint.
    """
    start = time.monotonic()
    with pytest.raises((dockertest.DockerUnavailableError, dockertest.InvalidOptionError)) as raised:
        dockertest.Pool(endpoint, cert_path=cert_path)
    assert time.monotonic() - start < LIMIT
    error = raised.value
    assert "\n" not in str(error)
    assert error.hint
    assert str(error) == f"{error.args[0]}; {error.hint}"
    assert not str(error).endswith(".")
    return error


def message(endpoint: "str | None" = None, cert_path: "Path | None" = None) -> str:
    """Return the text of that error."""
    return str(failure(endpoint, cert_path))


def test_a_wrong_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable and suggests a valid value."""
    monkeypatch.setenv("DOCKER_HOST", "build.example:2375")
    assert message() == (
        "DOCKER_HOST: invalid endpoint 'build.example:2375': expected an address that begins with unix://, tcp://, http://, "
        "https://, ssh:// or npipe://; write for example tcp://build.example:2375"
    )


def test_a_dead_host(black_hole: str) -> None:
    """The message contains the time limit."""
    assert message(black_hole) == (
        f"cannot connect to a container engine at {black_hole} (endpoint=): no connection within 4 s; "
        "start the engine, or check its address and the firewall"
    )


# The time for the import of the docker SDK does not count.
CONNECT = """
import docker, dockertest, sys, time
began = time.monotonic()
try:
    dockertest.Pool(sys.argv[1])
finally:
    print(time.monotonic() - began)
"""


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "resolv.conf",
            "nameserver {address}\n",
            "no answer within 4.5 s, including the resolution of its name",
        ),
        ("hosts", "{address} build.example\n127.0.0.1 build.example\n", "no connection within 4 s"),
    ],
    ids=["silent resolver", "two dead addresses"],
)
def test_a_name_whose_addresses_are_dead(
    black_hole: str, tmp_path: Path, file: str, content: str, words: str
) -> None:
    """Neither the resolver nor the list of addresses has its own total time limit."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("machine: only root on Linux may put another file in the place of the system's")
    address = "127.0.0.1"
    named = black_hole.replace(address, "build.example")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        if file == "resolv.conf":
            address = "127.0.0.77"
            silent.bind((address, 53))
        (tmp_path / file).write_text(content.format(address=address))
        script = f'mount --bind "$0" /etc/{file} && exec "$@"'
        replaced = ["unshare", "--mount", "sh", "-c", script, str(tmp_path / file)]
        done = subprocess.run(
            [*replaced, sys.executable, "-X", "dev", "-W", "error", "-c", CONNECT, named],
            capture_output=True,
            text=True,
            check=False,
        )
    assert float(done.stdout) < LIMIT
    assert done.stderr.splitlines()[-1].endswith(
        f"cannot connect to a container engine at {named} (endpoint=): {words}; "
        "start the engine, or check its address and the firewall"
    )


def test_an_unused_address(local: str, pool: dockertest.Pool) -> None:
    """It belongs to a network that the test has created."""
    with pool.create_network() as network:
        subnet = pool.client.networks.get(network.id).attrs["IPAM"]["Config"][0]["Subnet"]
        text = message(f"tcp://{subnet.rpartition('.')[0]}.77:2375")
    # The last one is the error on a machine without a route.
    words = ("no route to host", "no connection within 4 s", "network is unreachable")
    assert any(f"{reason}; start the engine, or check its address" in text for reason in words)


def test_a_refused_connection(tmp_path: Path) -> None:
    """There is no server on a port or at the path of a socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert message(f"tcp://127.0.0.1:{port}").startswith(
        f"cannot connect to a container engine at tcp://127.0.0.1:{port} (endpoint=): connection refused; start the engine, "
    )
    assert message(f"unix://{tmp_path}/x") == (
        f"cannot connect to a container engine at unix://{tmp_path}/x (endpoint=): no such file or directory; "
        "start the engine, or use another endpoint"
    )


def test_a_wrong_ca(local: str, tmp_path: Path) -> None:
    """The hint names the file."""
    (tmp_path / "other").mkdir()
    certificates(tmp_path / "other")
    with Front(local, certificates(tmp_path)) as front:
        text = message(front.url, tmp_path / "other")
    assert "cannot verify its certificate: " in text
    assert text.endswith(f"; replace {tmp_path}/other/ca.pem with the CA that signed it")


def test_an_expired_certificate(local: str, tmp_path: Path) -> None:
    """The engine's certificate has to be renewed, not the client's."""
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    with Front(local, certificates(tmp_path, not_after=yesterday)) as front:
        text = message(front.url, tmp_path)
    assert text.endswith(
        "cannot verify its certificate: certificate has expired; renew the engine's certificate"
    )


def test_a_certificate_for_another_name(local: str, tmp_path: Path) -> None:
    """The endpoint may use an address while the certificate contains a host name."""
    with Front(local, certificates(tmp_path, host="engine.example")) as front:
        text = message(front.url, tmp_path)
    assert text.endswith(
        "; use the host name of the certificate in the endpoint, or issue a certificate for 127.0.0.1"
    )


def test_a_client_certificate_that_the_engine_rejects(local: str, tmp_path: Path) -> None:
    """It was signed by another CA."""
    other = tmp_path / "other"
    other.mkdir()
    certificates(other)
    with Front(local, certificates(tmp_path)) as front:
        (other / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
        text = message(front.url, other)
    assert text.endswith(f"; an engine that closes the connection does not accept the certificate in {other}")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("ca.pem", "it is not in PEM format"),
        ("cert.pem", "it is not in PEM format"),
        ("key.pem", "it is encrypted, is not in PEM format or does not belong to the certificate"),
    ],
)
def test_an_invalid_certificate_file(local: str, tmp_path: Path, file: str, words: str) -> None:
    """The message names the file."""
    context = certificates(tmp_path)
    (tmp_path / file).write_text("something else")
    with Front(local, context) as front:
        error = failure(front.url, tmp_path)
    assert isinstance(error, dockertest.InvalidOptionError)
    assert str(error) == (
        f"cannot use the certificate file {tmp_path}/{file}: {words}; "
        "replace it with the file that was issued for this engine"
    )


def test_tls_on_one_side_only(local: str, tmp_path: Path) -> None:
    """Only the client or only the engine uses TLS."""
    context = certificates(tmp_path)
    with Front(local) as front:
        assert message(front.url, tmp_path).endswith(
            "; this port does not use TLS: remove the certificates, or use the port that does"
        )
    with Front(local, context) as front:
        assert message(front.url).endswith(
            "; use the port of a container engine; if it uses TLS, set cert_path= or DOCKER_CERT_PATH"
        )


WITHOUT_ROOT = """
import os, sys, dockertest
dockertest.Pool(sys.argv[1]).close()  # imports everything that only root may read
os.chmod(sys.argv[2], 0)
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
dockertest.Pool(f"unix://{sys.argv[2]}")
"""


def test_a_socket_without_permission(local: str, tmp_path: Path) -> None:
    """The hint is a command that adds the user to the group."""
    path = tmp_path / "closed.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
        closed.listen()
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", WITHOUT_ROOT, f"unix://{local}", path],
            capture_output=True,
            text=True,
        )
    assert result.stderr.splitlines()[-1].endswith(
        f"cannot connect to a container engine at unix://{path} (endpoint=): permission denied; add this user to the group: "
        'sudo usermod -aG docker "$USER", then log in again; or run this as root'
    )


def test_a_socket_that_root_may_not_open(local: str, tmp_path: Path) -> None:
    """
    The hint is for containers, in which root may lack access to the socket.

    Their root is not the host's if users are remapped, or it is confined by SELinux.
    """
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("machine: only root on Linux can drop its capabilities")
    path = tmp_path / "closed.sock"
    connect = "import os, sys, dockertest; dockertest.Pool(f'unix://{sys.argv[1]}')"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
        closed.listen()
        path.chmod(0)
        result = subprocess.run(
            ["setpriv", "--bounding-set=-dac_override", sys.executable, "-W", "error", "-c", connect, path],
            capture_output=True,
            text=True,
        )
    assert result.stderr.splitlines()[-1].endswith(
        f"cannot connect to a container engine at unix://{path} (endpoint=): permission denied; if this is a container, "
        "start it with --userns=host if the engine remaps users, or with --security-opt label=disable if SELinux denies it"
    )


@contextmanager
def listening(path: Path, answer: "bytes | None") -> "Iterator[str]":
    """Listen on a socket, and send *answer* to each client unless it is `None`."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with ExitStack() as clients:
                while True:
                    try:
                        connection = clients.enter_context(server.accept()[0])
                    except OSError:
                        return
                    if answer is not None and connection.recv(65536):
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_RDWR)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_proxy_that_forbids_the_request(tmp_path: Path) -> None:
    """
    The proxy answers with a web page, as HAProxy does.

    The hint names the request to allow.
    """
    page = b"<html><body>\n<h1>403 Forbidden</h1>\n</body></html>\n"
    head = b"HTTP/1.0 403 Forbidden\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
    with listening(tmp_path / "x", head + page) as endpoint:
        assert message(endpoint) == (
            f"cannot connect to a container engine at {endpoint} (endpoint=): 403 Forbidden and a web page, which is not an "
            "answer of a container engine; if there is a proxy in front of the engine, allow GET /_ping in it"
        )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "the server there is not a container engine"),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            "the engine closed the connection: BadStatusLine: SSH-2.0-OpenSSH_9.2",
        ),
        (b"", "the engine closed the connection: RemoteDisconnected"),
        (None, "the engine did not answer within 4 s"),
    ],
    ids=["web", "ssh", "closed", "silent"],
)
def test_the_socket_of_another_program(tmp_path: Path, answer: "bytes | None", words: str) -> None:
    """It may send any response."""
    with listening(tmp_path / "x", answer) as endpoint:
        text = message(endpoint)
    assert words in text
    silent = "restart the engine, or use another endpoint"
    assert text.endswith(f"; {silent if answer is None else 'use the socket of a container engine'}")


SYSTEMD = """
import sys, threading
from pathlib import Path
from tests.engines.fault_proxy import FaultProxy, relay

def start(client, forward):
    started.wait(7)
    relay(client, forward())

started = threading.Event()
proxy = FaultProxy(Path(sys.argv[1]), sys.argv[2])
proxy.always = start
proxy.start()
Path("/proc/self/comm").write_text("systemd")
print("listening", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="system: only Linux names the listener of a socket")
def test_an_engine_that_systemd_starts_has_more_time(tmp_path: Path) -> None:
    """
    The first connection starts it.

    The test above has the limit for other programs.
    """
    path = tmp_path / "engine.sock"
    command = [sys.executable, "-c", SYSTEMD, str(path), engine_socket()]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True
    ) as listener:
        try:
            assert listener.stdout
            assert listener.stdout.readline() == "listening\n"
            dockertest.Pool(f"unix://{path}", reaper=False).close()
        finally:
            listener.kill()


def test_an_engine_too_old(local: str, pool: dockertest.Pool, tmp_path: Path) -> None:
    """The message has the engine's version and the oldest supported one."""
    real = str(pool.client.api.api_version)
    front = OtherVersions(tmp_path / "x", local, oldest="1.12", newest="1.18", real=real)
    with front.running():
        assert message(front.endpoint).endswith(
            "its API version 1.18 is older than 1.24, the oldest supported one; update the engine"
        )


def test_an_unknown_context(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hint lists the known contexts."""
    for name in ("DOCKER_HOST", "DOCKER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "farm")
    assert message() == "DOCKER_CONTEXT: docker context 'farm' does not exist; use one of: default"


def test_certificates_for_a_socket(local: str, tmp_path: Path) -> None:
    """They would have no effect."""
    certificates(tmp_path)
    assert message(f"unix://{local}", tmp_path) == (
        f"cert_path: unix://{local} does not use TLS; remove the certificates, or use a tcp:// endpoint"
    )
