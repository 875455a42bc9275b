"""What a user reads whose engine is not reached: one sentence with the remedy, in less than five seconds."""

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

from ..engines.tls_front import Front, certificates  # noqa: TID252 - `tests` is on no path
from ..engines.versions import OtherVersions  # noqa: TID252 - `tests` is on no path

LIMIT = 5.0  # seconds


def said(endpoint: "str | None" = None, cert_path: "Path | None" = None) -> str:
    """Give what a pool that cannot be made says, in time and in one sentence."""
    began = time.monotonic()
    with pytest.raises((dockertest.DockerUnavailableError, dockertest.InvalidOptionError)) as caught:
        dockertest.Pool(endpoint, cert_path=cert_path)
    assert time.monotonic() - began < LIMIT
    text = str(caught.value)
    assert "\n" not in text
    assert text.count("; ") == 1
    assert not text.endswith(".")
    return text


def test_a_wrong_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named, and what to write instead."""
    monkeypatch.setenv("DOCKER_HOST", "build.example:2375")
    assert said() == (
        "DOCKER_HOST: 'build.example:2375' is no endpoint; write a scheme of unix://, tcp://, http://, https://, ssh://, "
        "npipe://, such as tcp://build.example:2375"
    )


def test_a_dead_host(black_hole: str) -> None:
    """It is not waited for long, and the limit is told."""
    assert said(black_hole) == (
        f"no container engine answers at {black_hole} (endpoint=): no connection within 4 s; "
        "start the engine, or see whether its address is right and no firewall is in the way"
    )


LOST = """
import sys, dockertest
dockertest.Pool(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("resolv.conf", "nameserver {address}\n"),
        ("hosts", "{address} build.example\n127.0.0.1 build.example\n"),
    ],
    ids=["a resolver that is silent", "two addresses that are dead"],
)
def test_a_name_that_leads_nowhere(black_hole: str, tmp_path: Path, file: str, content: str) -> None:
    """Neither the system's resolver nor a list of addresses knows a limit of its own for it all."""
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
        began = time.monotonic()
        found = subprocess.run(
            [*replaced, sys.executable, "-X", "dev", "-W", "error", "-c", LOST, named],
            capture_output=True,
            text=True,
        )
    assert time.monotonic() - began < LIMIT + 3  # Python and the docker SDK are loaded first
    assert found.stderr.splitlines()[-1].endswith(
        f"no container engine answers at {named} (endpoint=): no answer within 4.5 s, the resolution of its name included; "
        "start the engine, or see whether its address is right and no firewall is in the way"
    )


def test_a_host_that_is_not_there(local: str, pool: dockertest.Pool) -> None:
    """An address that nobody has, in a network of our own."""
    with pool.create_network() as network:
        subnet = pool.client.networks.get(network.id).attrs["IPAM"]["Config"][0]["Subnet"]
        text = said(f"tcp://{subnet.rpartition('.')[0]}.77:2375")
    # The last is said where there is no way out at all.
    words = ("no route to host", "no connection within 4 s", "network is unreachable")
    assert any(f"{each}; start the engine, or see" in text for each in words)


def test_nobody_listens(tmp_path: Path) -> None:
    """On a port, and where a socket should be."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert said(f"tcp://127.0.0.1:{port}").startswith(
        f"no container engine answers at tcp://127.0.0.1:{port} (endpoint=): connection refused; start the engine, or "
    )
    assert said(f"unix://{tmp_path}/x") == (
        f"no container engine answers at unix://{tmp_path}/x (endpoint=): no such file or directory; "
        "start it, or name another engine"
    )


def test_a_wrong_ca(local: str, tmp_path: Path) -> None:
    """The file is named."""
    (tmp_path / "other").mkdir()
    certificates(tmp_path / "other")
    with Front(local, certificates(tmp_path)) as front:
        text = said(front.url, tmp_path / "other")
    assert "its certificate cannot be verified: " in text
    assert text.endswith(f"; the CA that signed it belongs into {tmp_path}/other/ca.pem")


def test_an_expired_certificate(local: str, tmp_path: Path) -> None:
    """It is the engine's that has to be renewed."""
    yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
    with Front(local, certificates(tmp_path, not_after=yesterday)) as front:
        text = said(front.url, tmp_path)
    assert text.endswith(
        "its certificate cannot be verified: certificate has expired; renew the engine's certificate"
    )


def test_a_certificate_for_another_name(local: str, tmp_path: Path) -> None:
    """As when an engine is reached by its address, and its certificate has its name."""
    with Front(local, certificates(tmp_path, host="engine.example")) as front:
        text = said(front.url, tmp_path)
    assert text.endswith("; name the engine as its certificate does, or make one for 127.0.0.1")


def test_a_client_that_the_engine_does_not_know(local: str, tmp_path: Path) -> None:
    """Its certificate is of another CA."""
    other = tmp_path / "other"
    other.mkdir()
    certificates(other)
    with Front(local, certificates(tmp_path)) as front:
        (other / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
        text = said(front.url, other)
    assert text.endswith(f"; an engine that hangs up does not know the certificate in {other}")


def test_certificates_that_are_none(local: str, tmp_path: Path) -> None:
    """Three files with something else in them."""
    context = certificates(tmp_path)
    (tmp_path / "key.pem").write_text("something else")
    with Front(local, context) as front:
        assert said(front.url, tmp_path).endswith(f"; look at ca.pem, cert.pem and key.pem in {tmp_path}")


def test_tls_to_an_engine_without(local: str, tmp_path: Path) -> None:
    """And the other way round."""
    context = certificates(tmp_path)
    with Front(local) as front:
        assert said(front.url, tmp_path).endswith(
            "; no TLS is spoken there: leave out the certificates, or name the port that speaks it"
        )
    with Front(local, context) as front:
        assert said(front.url).endswith(
            "; name an engine's port, or if it speaks TLS give cert_path= or DOCKER_CERT_PATH"
        )


NOBODY = """
import os, sys, dockertest
dockertest.Pool(sys.argv[1]).close()  # loads all that only root may read
os.chmod(sys.argv[2], 0)
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
dockertest.Pool(f"unix://{sys.argv[2]}")
"""


def test_a_socket_without_permission(local: str, tmp_path: Path) -> None:
    """The group is named, and how to join it."""
    path = tmp_path / "closed.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
        closed.listen()
        found = subprocess.run(
            [sys.executable, "-W", "error", "-c", NOBODY, f"unix://{local}", path],
            capture_output=True,
            text=True,
        )
    assert found.stderr.splitlines()[-1].endswith(
        f"no container engine answers at unix://{path} (endpoint=): permission denied; let this user in: "
        'sudo usermod -aG docker "$USER", then log in again, or run this as root'
    )


@contextmanager
def listening(path: Path, answer: "bytes | None") -> "Iterator[str]":
    """Listen on a socket, and answer whoever comes with these bytes; with `None` they are left to wait."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with ExitStack() as held:
                while True:
                    try:
                        connection = held.enter_context(server.accept()[0])
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


def test_a_proxy_that_refuses(tmp_path: Path) -> None:
    """It answers with a web page, as HAProxy does: what it has to let pass is told instead."""
    page = b"<html><body>\n<h1>403 Forbidden</h1>\n</body></html>\n"
    head = b"HTTP/1.0 403 Forbidden\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
    with listening(tmp_path / "x", head + page) as endpoint:
        assert said(endpoint) == (
            f"no container engine answers at {endpoint} (endpoint=): 403 Forbidden and a web page, which is no engine's "
            "answer; if a proxy stands before the engine, have it let GET /_ping pass"
        )


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "what answers there is no container engine"),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            "the engine broke off the connection: BadStatusLine: SSH-2.0-OpenSSH_9.2",
        ),
        (b"", "the engine broke off the connection: RemoteDisconnected"),
        (None, "the engine did not answer within 4 s"),
    ],
    ids=["web", "ssh", "silent end", "silent"],
)
def test_a_socket_that_is_no_engine(tmp_path: Path, answer: "bytes | None", words: str) -> None:
    """Whatever it says, or does not."""
    with listening(tmp_path / "x", answer) as endpoint:
        text = said(endpoint)
    assert words in text
    silent = "see whether the engine is well, or name another"
    assert text.endswith(f"; {silent if answer is None else 'name the socket of a container engine'}")


def test_an_engine_too_old(local: str, pool: dockertest.Pool, tmp_path: Path) -> None:
    """Its version and the oldest one are told."""
    real = str(pool.client.api.api_version)
    front = OtherVersions(tmp_path / "x", local, oldest="1.12", newest="1.18", real=real)
    with front.running():
        assert said(front.endpoint).endswith(
            "the engine is too old: it speaks API 1.18, and 1.24 is the oldest that is spoken here; update the engine"
        )


def test_an_unknown_context(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The known ones are told."""
    for name in ("DOCKER_HOST", "DOCKER_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONTEXT", "farm")
    assert said() == "DOCKER_CONTEXT: there is no docker context 'farm'; known are: default"


def test_certificates_for_a_socket(local: str, tmp_path: Path) -> None:
    """They would do nothing, and that is told."""
    certificates(tmp_path)
    assert said(f"unix://{local}", tmp_path) == (
        f"cert_path: no TLS is spoken over unix://{local}; leave it out, or write tcp://…"
    )
