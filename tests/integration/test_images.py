"""Images: pulled when needed, from registries of the tests' own, with whatever goes wrong there."""

import base64
import contextlib
import fcntl
import hashlib
import http.client
import http.server
import json
import logging
import os
import pty
import re
import secrets
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import termios
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Literal

import docker
import docker.errors
import pytest

import dockertest
from dockertest import AuthConfig, PullProgress
from dockertest._images import progress as _progress
from tests.engines.fault_proxy import FaultProxy, answer

from .conftest import Engine, besides_plain_tcp

SLEEP = ("sleep", "600")
USER, PASSWORD, WRONG = "tester", "s3cret-of-the-test", "wr0ng-of-the-test"
HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuujsWknM8pfBPdRxoOJt8hu.sWw2vTXTq\n"  # bcrypt of the password
BUSYBOX = "busybox:1.35"


class Images:
    """Makes images, as the plain docker SDK does, and removes whatever names they got on the engine."""

    def __init__(self, client: docker.DockerClient, base: str) -> None:
        self.client = client
        self.base = base
        self.mine: list[str] = []
        self.ids: list[str] = []

    def make(self, name: str, *, layers: int = 2, size: int = 200_000) -> str:
        """Make an image from BusyBox with layers that no other has, and give its id."""
        below = self.base
        for number in range(layers):
            container = self.client.containers.create(below, ["true"])
            try:
                container.put_archive("/", _tar(f"layer-{number}", secrets.token_bytes(size)))
                found = container.commit(*name.rsplit(":", 1))
                below = str(found.id)
            finally:
                container.remove(v=True)
        self.mine.append(name)
        self.ids.append(below)
        return below

    def push(self, name: str, *, private: bool = False, **made: int) -> str:
        """Make an image, push it to the registry that its name says, leave it nowhere else, and give its digest."""
        self.make(name, **made)
        digest = self.push_made(name, private=private)
        self.remove(name)
        return digest

    def push_made(self, name: str, *, private: bool = False) -> str:
        """Push an image that is there."""
        auth = {"username": USER, "password": PASSWORD} if private else {}
        for line in self.client.api.push(name, auth_config=auth, stream=True, decode=True):
            assert "error" not in line, line
            if said := re.search(r"digest: (sha256:[0-9a-f]+)", line.get("status", "")):
                digest = said[1]
        return digest

    def has(self, name: str) -> bool:
        """Whether the engine has an image of that name."""
        with contextlib.suppress(docker.errors.NotFound):
            return bool(self.client.images.get(name))
        return False

    def remove(self, name: str) -> None:
        """Remove an image's name, and the image with its last one."""
        with contextlib.suppress(docker.errors.NotFound):
            self.client.images.remove(name, force=True)

    def clean(self) -> None:
        """Remove every name that an image of these tests has got."""
        for image in self.client.api.images():
            for name in [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]:
                if any(name.startswith(mine.rsplit(":", 1)[0]) for mine in self.mine):
                    with contextlib.suppress(
                        docker.errors.APIError
                    ):  # Podman lists digests that it cannot find
                        self.remove(name)
        for image_id in self.ids:
            self.remove(image_id)
            assert not self.has(image_id)


def _tar(name: str, content: bytes) -> bytes:
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, BytesIO(content))
    # Without the zeros that fill it up: Podman does not wait for them, and then complains of them.
    return packed.getvalue()[: 512 + -(-len(content) // 512) * 512 + 1024]


@pytest.fixture
def images(pool: dockertest.Pool) -> Iterator[Images]:
    """Images of the test's own, gone afterwards."""
    found = Images(pool.client, f"{pool.image_prefix}{BUSYBOX}")
    yield found
    found.clean()


def serve(pool: dockertest.Pool, **options: object) -> str:
    """Start a registry and give its host."""
    registry = pool.run("registry:2", **options)  # type: ignore[arg-type]

    def answers() -> bool:
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{registry.get_host_port(5000)}/v2/", timeout=5).close()
        return True

    registry.retry(answers)
    return f"localhost:{registry.get_port(5000)}"  # plain HTTP is only for the engine's own loopback


def direct(registry: str, engine: Engine) -> str:
    """Give the address at which this process reaches a registry that is on the engine's loopback."""
    return registry.replace("localhost", engine.host)


@pytest.fixture(scope="module")
def registry(pool: dockertest.Pool) -> str:
    """The host of a registry that is open to all."""
    return serve(pool)


@pytest.fixture(scope="module")
def private(pool: dockertest.Pool) -> str:
    """The host of a registry that wants a password."""
    return serve(
        pool,
        env={
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": "tests",
            "REGISTRY_AUTH_HTPASSWD_PATH": "/htpasswd",
        },
        files={"/htpasswd": HTPASSWD},
    )


@pytest.fixture(scope="module")
def stock(pool: dockertest.Pool) -> Iterator[Images]:
    """Images that several tests pull."""
    found = Images(pool.client, f"{pool.image_prefix}{BUSYBOX}")
    yield found
    found.clean()


@pytest.fixture(scope="module")
def pushed(stock: Images, registry: str) -> str:
    """An image in the open registry."""
    image = f"{registry}/dockertest-{secrets.token_hex(6)}:1"
    stock.push(image, layers=1)
    return image


@pytest.fixture(scope="module")
def pushed_private(stock: Images, private: str) -> str:
    """An image in the registry that wants a password."""
    image = f"{private}/dockertest-{secrets.token_hex(6)}:1"
    stock.push(image, private=True, layers=1)
    return image


@pytest.fixture
def public_image(images: Images, pushed: str) -> str:
    """An image that all may pull, and that is on the engine neither before nor after the test."""
    images.mine.append(pushed)
    return pushed


@pytest.fixture
def private_image(images: Images, pushed_private: str) -> str:
    """An image that only those with the password may pull, and that is on the engine neither before nor after."""
    images.mine.append(pushed_private)
    return pushed_private


def pull(pool: dockertest.Pool, image: str, **options: object) -> None:
    """Start a container of an image, and remove it again."""
    pool.run(image, cmd=SLEEP, **options).close()  # type: ignore[arg-type]


def refused(pool: dockertest.Pool, image: str, **options: object) -> str:
    """Give the words in which a pull is refused."""
    with pytest.raises(dockertest.ImagePullError) as caught:
        pull(pool, image, **options)
    return str(caught.value)


# What is pulled


def test_an_image_that_is_missing_is_pulled_and_then_is_there(
    pool: dockertest.Pool, images: Images, registry: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Once it is there, nothing is asked of the registry."""
    caplog.set_level(logging.INFO, logger="dockertest")
    image = f"{registry}/team/{name}:1.0"
    images.push(image)
    assert not images.has(image)
    pull(pool, image)
    assert images.has(image)
    pull(pool, image)
    assert [line.partition(" in ")[0] for line in caplog.messages if name in line] == [
        f"pulling {image}",
        f"pulled {image}",
    ]


def test_always_follows_a_tag_that_moved(
    pool: dockertest.Pool, images: Images, registry: str, name: str
) -> None:
    """`missing` takes what is there, `always` what the registry has, `never` asks nobody."""
    image = f"{registry}/{name}:1"
    old = images.make(image, layers=1)
    images.push(image.replace(":1", ":2"), layers=1)
    new = images.client.images.pull(image.replace(":1", ":2"))
    new.tag(*image.rsplit(":", 1))
    images.push_made(image)
    images.client.images.get(old).tag(*image.rsplit(":", 1))
    for policy, expected in (("missing", old), ("never", old), ("always", new.id), ("missing", new.id)):
        with pool.run(image, cmd=SLEEP, pull=policy) as resource:  # type: ignore[arg-type]
            assert resource.container.attrs["Image"] == expected


@pytest.mark.parametrize("form", ["{0}@{1}", "{0}:1@{1}"])
def test_an_image_by_its_digest(
    pool: dockertest.Pool, images: Images, registry: str, name: str, form: str
) -> None:
    """With or without a tag before it, from a registry with a port; the second time it is there."""
    repository = f"{registry}/team/{name}"
    image = form.format(repository, images.push(f"{repository}:1", layers=1))
    pull(pool, image)
    pull(pool, image, pull="never")
    assert not images.has(f"{repository}:1")


def test_a_prefix_for_names_without_a_registry(
    pool: dockertest.Pool, images: Images, registry: str, name: str
) -> None:
    """With it a short name comes from the registry that it names, and no other does."""
    images.push(f"{registry}/mirror/{name}:1", layers=1)
    with dockertest.Pool(image_prefix=f"{registry}/mirror/") as mirrored:
        pull(mirrored, f"{name}:1")
        assert f"localhost:1/{name}:1" in refused(mirrored, f"localhost:1/{name}:1")


def test_the_platform_asked_for_is_pulled(
    pool: dockertest.Pool, engine: Engine, images: Images, registry: str, name: str
) -> None:
    """Of a tag with several platforms the one that is asked for, whatever other one is there already."""
    repository = f"{registry}/{name}"
    images.push(f"{repository}:1", layers=1)
    _publish_for(direct(registry, engine), name, ("amd64", "arm64"))
    for platform, architecture in (
        ("linux/arm64", "arm64"),
        ("", "arm64"),
        ("linux/amd64", "amd64"),
        ("linux/x86_64", "amd64"),
        ("linux/aarch64", "arm64"),
    ):
        with pool.run(f"{repository}:all", cmd=SLEEP, platform=platform) as resource:
            found = images.client.images.get(resource.container.attrs["Image"])
            images.ids.append(str(found.id))  # the next one takes its name away
            assert found.attrs["Architecture"] == architecture
    text = refused(pool, f"{repository}:all", platform="linux/s390x")
    assert "s390x" in text
    assert text.endswith("; the image is not there for this platform; choose another with platform=")


_KIND = "application/vnd.docker.distribution.manifest"


def _publish_for(registry: str, name: str, architectures: tuple[str, ...]) -> None:
    """Publish what is `name:1` for several architectures as `name:all`: only what the image says of itself differs."""
    url = f"http://{registry}/v2/{name}"
    manifest = json.loads(_http("GET", f"{url}/manifests/1", headers={"Accept": f"{_KIND}.v2+json"}))
    config = json.loads(_http("GET", f"{url}/blobs/{manifest['config']['digest']}"))
    entries = []
    for architecture in architectures:
        changed = json.dumps(config | {"architecture": architecture}).encode()
        location = urllib.request.urlopen(
            urllib.request.Request(f"{url}/blobs/uploads/", method="POST"), timeout=10
        )
        with location:
            upload = f"{location.headers['Location']}&digest={_digest(changed)}"
        _http("PUT", upload, changed, {"Content-Type": "application/octet-stream"})
        manifest["config"] |= {"size": len(changed), "digest": _digest(changed)}
        written = json.dumps(manifest).encode()
        _http("PUT", f"{url}/manifests/{architecture}", written, {"Content-Type": f"{_KIND}.v2+json"})
        platform = {"os": "linux", "architecture": architecture}
        entries.append(
            {
                "mediaType": f"{_KIND}.v2+json",
                "size": len(written),
                "digest": _digest(written),
                "platform": platform,
            }
        )
    everything = {"schemaVersion": 2, "mediaType": f"{_KIND}.list.v2+json", "manifests": entries}
    _http(
        "PUT",
        f"{url}/manifests/all",
        json.dumps(everything).encode(),
        {"Content-Type": f"{_KIND}.list.v2+json"},
    )


def _http(method: str, url: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> bytes:
    asked = urllib.request.Request(url, data, headers or {}, method=method)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        content: bytes = answer.read()
    return content


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_threads_that_need_the_same_missing_image_share_one_pull(
    images: Images, registry: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Eight at once: one pull, no error."""
    caplog.set_level(logging.INFO, logger="dockertest")
    image = f"{registry}/{name}:1"
    images.push(image, size=1_000_000)
    options = [dockertest.RunOptions(repository=image, cmd=SLEEP) for _ in range(8)]
    with dockertest.Pool() as pool:
        assert len(pool.run_all(options)) == 8
    assert caplog.messages.count(f"pulling {image}") == 1


def test_what_another_thread_has_pulled_meanwhile_is_not_pulled_again(
    images: Images, registry: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who looked before it was there takes it all the same."""
    caplog.set_level(logging.INFO, logger="dockertest")
    image = f"{registry}/{name}:1"
    images.push(image, size=1000)
    with FaultProxy(tmp_path / "x").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        pool.run(image, cmd=SLEEP)
        proxy.next("GET .*/images/.*/json", answer(404, "No such image"))
        pool.run(image, cmd=SLEEP)
    assert caplog.messages.count(f"pulling {image}") == 1


# What goes wrong


def give_auth(registry: str) -> str:
    """Give the remedy where a registry wants a password and got none."""
    return f"; give auth=AuthConfig(username, password), or log in with: docker login {registry}"


def test_the_right_password(pool: dockertest.Pool, private_image: str) -> None:
    """`auth` opens a private registry."""
    pull(pool, private_image, auth=AuthConfig(USER, PASSWORD))


def test_a_wrong_password(pool: dockertest.Pool, private: str, private_image: str) -> None:
    """The error says whose credentials were refused."""
    text = refused(pool, private_image, auth=AuthConfig(USER, WRONG))
    assert text.startswith(f"cannot pull image '{private_image}': ")
    assert text.endswith(
        f"unauthorized: authentication required; {private} refused the credentials from auth=; "
        f"correct them, or log in again with: docker login {private}"
    )


def test_no_password(pool: dockertest.Pool, private: str, private_image: str) -> None:
    """The error says how to give one."""
    assert refused(pool, private_image).endswith(give_auth(private))


def test_credentials_for_another_registry_are_not_sent(
    pool: dockertest.Pool, images: Images, private: str, caplog: pytest.LogCaptureFixture, private_image: str
) -> None:
    """A password goes only where it belongs, whatever prefix an image's name has got."""
    own = {"server_address": f"http://{private}/v2/"}
    pull(pool, private_image, auth=AuthConfig(USER, PASSWORD, **own))
    images.remove(private_image)
    elsewhere = AuthConfig(USER, PASSWORD, server_address="registry.test")
    assert refused(pool, private_image, auth=elsewhere).endswith(give_auth(private))
    assert f"auth= is for registry.test and is not sent to {private}" in caplog.text


@pytest.mark.parametrize(
    ("path", "part"), [("{0}:nope", "tag"), ("{0}/nope:1", "tag"), ("{0}@{1}", "digest")]
)
def test_what_the_registry_does_not_have(
    pool: dockertest.Pool, registry: str, public_image: str, path: str, part: str
) -> None:
    """A missing tag, repository or digest: the engine says the same of each, so the error names what to look at."""
    image = path.format(public_image.removesuffix(":1"), f"sha256:{secrets.token_hex(32)}")
    text = refused(pool, image)
    assert "manifest unknown" in text
    repository = image.partition("/")[2].partition("@")[0].partition(":")[0]
    assert text.endswith(
        f"; the registry {registry} has no repository '{repository}', or no such {part} in it; check the name"
    )


def test_a_registry_that_is_gone(pool: dockertest.Pool, name: str) -> None:
    """Nothing listens: the engine's words, and what they mean."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        host = f"localhost:{taken.getsockname()[1]}"
        text = refused(pool, f"{host}/{name}:1")
    assert "connection refused" in text
    assert f"; the engine does not reach the registry {host}: nothing listens there" in text


def test_a_registry_whose_name_does_not_resolve(pool: dockertest.Pool, name: str) -> None:
    """The name is what to look at."""
    text = refused(pool, f"registry.invalid/{name}:1")
    assert "lookup registry.invalid" in text
    assert "; the engine does not reach the registry registry.invalid: " in text


def test_a_registry_that_stalls(engine: Engine, name: str) -> None:
    """A registry that takes a connection and says nothing ends the pull after the pool's time-out."""
    with socket.socket() as silent, dockertest.Pool(timeout=2) as pool:
        silent.bind((engine.here, 0))
        silent.listen()
        host = f"{engine.here}:{silent.getsockname()[1]}"
        began = time.monotonic()
        text = refused(pool, f"{host}/{name}:1")
        assert 2 <= time.monotonic() - began < 10
    assert text == (
        f"cannot pull image '{host}/{name}:1': the engine did not answer within 2 s; most likely it waits for the "
        f"registry {host}; see that the engine reaches it, or give the pool a longer timeout"
    )


def test_an_error_in_the_middle_of_a_pull(
    engine: Engine, images: Images, registry: str, public_image: str
) -> None:
    """What the engine says in its stream is an error too, although the answer began as a success."""
    with Front(registry, engine, "spoil").running() as front, dockertest.Pool() as pool:
        text = refused(pool, front.behind(public_image))
    assert re.search("verification failed for digest sha256:|expected sha256:", text)
    assert not images.has(front.behind(public_image))


# In the middle of a layer


@dataclass
class Front:
    """
    An HTTP server before a registry that does not send a long blob as it should.

    Attributes:
        registry: The host of the registry.
        engine: The engine that asks.
        fault: What it does: "stop" for ever in the middle, "trickle" from there on, or "spoil" the bytes.
        reached: Set once it is in the middle.
        hung_up: Set once the engine has closed the connection there.
    """

    registry: str
    engine: Engine
    fault: Literal["stop", "trickle", "spoil"]
    host: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    def behind(self, image: str) -> str:
        """Give the name by which an image of the registry is found here."""
        return f"{self.host}/{image.partition('/')[2]}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Front"]:
        """Listen until the end of the block."""
        front = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                front.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer((self.engine.here, 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.host = f"{self.engine.here}:{server.server_address[1]}"
        try:
            yield self
        finally:
            self._ended.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, asked: http.server.BaseHTTPRequestHandler) -> None:
        """Ask the registry, and give half of its answer if it is long."""
        upstream = http.client.HTTPConnection(direct(self.registry, self.engine), timeout=10)
        # Of one name there may be several, such as a line for each kind of manifest that is accepted.
        headers = {
            key: ", ".join(asked.headers.get_all(key, ())) for key in asked.headers if key.lower() != "host"
        }
        upstream.request(asked.command, asked.path, headers=headers)
        answer = upstream.getresponse()
        body = answer.read()
        upstream.close()
        asked.send_response_only(answer.status)
        for key, value in answer.getheaders():
            asked.send_header(key, value)
        asked.send_header("Connection", "close")
        asked.end_headers()
        if len(body) < 50_000:
            asked.wfile.write(body)
        elif self.fault == "spoil":
            asked.wfile.write(bytes(len(body)))
        else:
            asked.wfile.write(body[: len(body) // 2])
            self._go_on(asked.connection, body[len(body) // 2 :])

    def _go_on(self, connection: socket.socket, rest: bytes) -> None:
        self.reached.set()
        while not self._ended.is_set():
            if select.select([connection], [], [], 0.05)[0]:
                self.hung_up.set()
                return
            if self.fault == "trickle":
                connection.sendall(rest[:100])
                rest = rest[100:]


def test_a_pull_that_stalls_in_the_middle_of_a_layer(
    engine: Engine, images: Images, registry: str, public_image: str
) -> None:
    """It is given up after the pool's time-out."""
    with Front(registry, engine, "stop").running() as front, dockertest.Pool(timeout=2) as pool:
        began = time.monotonic()
        text = refused(pool, front.behind(public_image))
        assert time.monotonic() - began < 5
        assert "the engine did not answer within 2 s; most likely it waits for the registry" in text
    assert not images.has(front.behind(public_image))


def test_threads_that_wait_for_a_pull_share_its_failure(
    engine: Engine, registry: str, public_image: str
) -> None:
    """Four threads do not wait four times as long."""
    with Front(registry, engine, "stop").running() as front, dockertest.Pool(timeout=2) as pool:
        failures: list[str] = []
        threads = [
            threading.Thread(target=lambda: failures.append(refused(pool, front.behind(public_image))))
            for _ in range(4)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 7
    assert len(failures) == 4
    assert len(set(failures)) == 1


def test_the_callback_s_own_error_comes_out_as_it_is(
    engine: Engine, images: Images, registry: str, public_image: str
) -> None:
    """Even one that looks like ours; the engine stops pulling."""
    mine = dockertest.EngineError("of my own")

    def fail(progress: PullProgress) -> None:
        if progress.bytes_done:
            raise mine

    with Front(registry, engine, "trickle").running() as front, dockertest.Pool(pull_progress=fail) as pool:
        with pytest.raises(dockertest.EngineError) as caught:
            pull(pool, front.behind(public_image))
        assert caught.value is mine
        assert front.hung_up.wait(10)
    assert not images.has(front.behind(public_image))


def test_ctrl_c_ends_a_pull(engine: Engine, registry: str, public_image: str) -> None:
    """The engine hears of it, and stops pulling."""
    with Front(registry, engine, "trickle").running() as front:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, front.behind(public_image)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert front.reached.wait(20)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert front.hung_up.wait(10)


# Progress

PROGRAM = (
    "import sys, dockertest\nwith dockertest.Pool() as pool: pool.run(sys.argv[1], cmd=['sleep', '600'])"
)


@pytest.mark.differs("bytes of a pull")
def test_progress_is_told_to_the_caller(images: Images, registry: str, name: str) -> None:
    """Bytes and layers only grow, and at the end all of them are there."""
    image = f"{registry}/{name}:1"
    images.push(image, layers=3, size=300_000)
    seen: list[PullProgress] = []
    with dockertest.Pool(pull_progress=seen.append) as pool:
        pull(pool, image)
    assert {each.image for each in seen} == {image}
    assert [each.layers_done for each in seen] == sorted(each.layers_done for each in seen)
    assert all(each.bytes_done <= each.bytes for each in seen)
    last = seen[-1]
    assert last.layers_done == last.layers >= 3
    assert last.bytes_done == last.bytes >= 900_000


@pytest.mark.differs("bytes of a pull")
def test_progress_is_logged(
    pool: dockertest.Pool,
    images: Images,
    registry: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every few seconds a line; here after each of the engine's."""
    monkeypatch.setattr(_progress, "SECONDS", 0)
    caplog.set_level(logging.INFO, logger="dockertest")
    image = f"{registry}/{name}:1"
    images.push(image, size=1_000_000)
    pull(pool, image)
    lines = [line for line in caplog.messages if line.startswith(f"pulling {image}: ")]
    assert lines
    assert lines[-1].endswith(" layers, 2.0 MB")


@pytest.mark.parametrize(
    ("before", "expected"),
    [("", ["pulling", "layers", "B/s"]), ("import sys; sys.modules['tqdm'] = None\n", ["pulling", "pulled"])],
    ids=["tqdm", "plain"],
)
def test_progress_on_a_terminal(
    images: Images, registry: str, name: str, before: str, expected: list[str]
) -> None:
    """A bar of bytes and layers, or plain lines where tqdm is not installed."""
    image = f"{registry}/{name}:1"
    images.push(image, layers=4, size=3_000_000)
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    program = before + PROGRAM.replace("['sleep', '600']", "['true']")
    environment = {**os.environ, "TQDM_MININTERVAL": "0"}  # a pull may be done before the bar is drawn twice
    process = subprocess.Popen([sys.executable, "-c", program, image], env=environment, stderr=writer)
    os.close(writer)
    written = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends on Linux
        while data := os.read(reader, 65536):
            written += data
    os.close(reader)
    assert process.wait(20) == 0
    missing = [each for each in [*expected, image] if each not in written.decode()]
    assert not missing, written


def test_nothing_is_printed_where_there_is_no_terminal(images: Images, registry: str, name: str) -> None:
    """A CI log stays clean."""
    image = f"{registry}/{name}:1"
    images.push(image)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, image], capture_output=True, text=True, check=True, timeout=60
    )
    assert (ended.stdout, besides_plain_tcp(ended.stderr)) == ("", "")


# Credentials of the docker CLI


class Cli:
    """A configuration of the docker CLI, and a folder of helper programs on the PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.file = folder / "config.json"
        self.programs = folder / "bin"
        self.programs.mkdir()
        monkeypatch.setenv("DOCKER_CONFIG", str(folder))
        monkeypatch.setenv("PATH", f"{self.programs}{os.pathsep}{os.environ['PATH']}")

    def write(self, config: object) -> None:
        """Write the configuration."""
        self.file.write_text(config if isinstance(config, str) else json.dumps(config))

    def helper(self, name: str, script: str) -> None:
        """Write a helper program in shell."""
        program = self.programs / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\ncat > /dev/null\n{script}\n")
        program.chmod(0o755)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A docker CLI of the test's own."""
    return Cli(tmp_path, monkeypatch)


ANSWER = f"echo {shlex.quote(json.dumps({'Username': USER, 'Secret': PASSWORD}))}"
ENTRY = {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


def _plain(cli: Cli, host: str, _: pytest.MonkeyPatch) -> None:
    cli.write({"auths": {host: ENTRY}})


def _store(cli: Cli, _: str, __: pytest.MonkeyPatch) -> None:
    cli.helper("test", ANSWER)
    cli.write({"credsStore": "test"})


def _helper(cli: Cli, host: str, _: pytest.MonkeyPatch) -> None:
    cli.helper("test", ANSWER)
    cli.write({"credHelpers": {host: "test"}})


def _variable(_: Cli, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps({"auths": {f"http://{host}/v2/": ENTRY}}))


@pytest.mark.parametrize("log_in", [_plain, _store, _helper, _variable])
def test_the_docker_cli_s_credentials_open_a_private_registry(
    private: str,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    log_in: Callable[[Cli, str, pytest.MonkeyPatch], None],
    private_image: str,
) -> None:
    """An entry of the file, the store for all registries, a helper for this one, and the variable of CI systems."""
    log_in(cli, private, monkeypatch)
    with dockertest.Pool() as pool:
        pull(pool, private_image)


@pytest.mark.parametrize("version", ["1", pytest.param("2", marks=pytest.mark.differs("BuildKit"))])
def test_a_build_gets_credentials_for_its_base_image(
    pool: dockertest.Pool,
    private: str,
    cli: Cli,
    private_image: str,
    name: str,
    images: Images,
    tmp_path: Path,
    version: Literal["1", "2"],
) -> None:
    """Given by `auth`, for one registry or by name, or configured; a helper that fails stops neither builder."""
    if version == "2" and subprocess.run(["docker", "buildx", "version"], check=False).returncode:
        pytest.skip("machine: the docker command line here has no buildx, and `make engine` could not get it")
    images.mine.append(f"{name}:latest")
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {private_image}\nCMD {json.dumps(SLEEP)}\n")

    def build(auth: object = None) -> None:
        options = dockertest.BuildOptions(context, version=version, auth=auth)  # type: ignore[arg-type]
        images.remove(private_image)
        with dockertest.Pool() as fresh:
            fresh.build_and_run_with_build_options(options, dockertest.RunOptions(name=name)).close()

    cli.write({"credsStore": "broken"})
    with pytest.raises(
        dockertest.ImageBuildError,
        match=r"no basic auth credentials|401|unauthorized|denied|authentication required",
    ):
        build()
    build(AuthConfig(USER, PASSWORD))
    build({private: AuthConfig(USER, PASSWORD)})
    with pytest.raises(dockertest.ImageBuildError) as caught:
        build(AuthConfig(USER, WRONG))
    assert WRONG not in str(caught.value)
    cli.write({"auths": {private: ENTRY}})
    build()


def test_credentials_of_the_docker_cli_that_are_refused(private: str, cli: Cli, private_image: str) -> None:
    """The error names the file or program that they came from."""
    wrong = base64.b64encode(f"{USER}:{WRONG}".encode()).decode()
    cli.write({"auths": {private: {"auth": wrong}}})
    with dockertest.Pool() as pool:
        text = refused(pool, private_image)
        assert f"refused the credentials from {cli.file}; correct them" in text
        cli.helper("test", ANSWER.replace(PASSWORD, WRONG))
        cli.write({"credsStore": "test"})
        text = refused(pool, private_image)
        assert "refused the credentials from docker-credential-test; correct them" in text


@pytest.mark.parametrize(
    "script", [f"echo {PASSWORD}; exit 1", f"echo {PASSWORD}", None], ids=["fails", "nonsense", "missing"]
)
def test_a_broken_helper_stops_no_public_pull(
    cli: Cli, caplog: pytest.LogCaptureFixture, script: str | None, public_image: str
) -> None:
    """It is a warning that shows nothing of what the program printed."""
    if script:
        cli.helper("test", script)
    cli.write({"credsStore": "test"})
    with dockertest.Pool() as pool:
        pull(pool, public_image)
    (warning,) = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert "docker-credential-test" in warning
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        {"auths": [1]},
        {"auths": {"HOST": 1}},
        {"auths": {"HOST": {"auth": "%%%"}}},
        {"HttpHeaders": 5},
        {"HttpHeaders": {"X-Test": 5}},
        {"proxies": 5},
    ],
)
def test_a_broken_configuration_stops_nothing(
    registry: str, cli: Cli, caplog: pytest.LogCaptureFixture, content: object, public_image: str
) -> None:
    """Pools are made and images pulled; what is not known for that is warned of, with the file; the docker SDK would fail."""
    cli.write(json.loads(json.dumps(content).replace("HOST", registry)))
    with dockertest.Pool() as pool:
        pull(pool, public_image)
        assert pool.client.ping()
    warnings = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert [each.split()[:2] for each in warnings] in (
        [],
        [["credentials", "for"]],
        [["cannot", "read"], ["credentials", "for"]],  # the current docker context, that is
    )
    assert all(str(cli.file) in each and "%%%" not in each for each in warnings)


def test_the_docker_sdk_s_client_keeps_a_configuration_that_works(cli: Cli) -> None:
    """What a user does with `pool.client` goes with their own headers and credentials."""
    cli.write({"auths": {"registry.test": ENTRY}, "HttpHeaders": {"X-Test": "1"}})
    with dockertest.Pool() as pool:
        assert pool.client.api._general_configs["HttpHeaders"] == {"X-Test": "1"}  # type: ignore[attr-defined]


# Secrets


def test_no_password_is_shown_anywhere(
    engine: Engine,
    private: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,
    caplog: pytest.LogCaptureFixture,
    private_image: str,
) -> None:
    """Not in errors, not in a log at its finest, not in a traceback with variables; the same for each way to fail."""
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    _plain(cli, private, monkeypatch)
    with dockertest.Pool(timeout=2) as pool:
        with socket.socket() as silent:
            silent.bind((engine.here, 0))
            silent.listen()
            stalled = f"{engine.here}:{silent.getsockname()[1]}"
            for image in (f"{private}/{name}:nope", f"{stalled}/{name}:1", f"localhost:1/{name}:1"):
                for auth in (
                    AuthConfig(USER, PASSWORD),
                    AuthConfig(USER, WRONG),
                    AuthConfig(identity_token=WRONG),
                ):
                    try:
                        pull(pool, image, auth=auth)
                    except dockertest.ImagePullError as error:
                        shown += traceback.TracebackException.from_exception(
                            error, capture_locals=True
                        ).format()
        pull(pool, private_image)
    text = "".join(shown) + caplog.text
    # Podman refuses within its stream, where the header is near no traceback.
    assert engine.is_podman or "'X-Registry-Auth': '***'" in text
    for secret in (PASSWORD, WRONG):
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode()[:16] not in text
    assert "eyJ" not in text  # as every header of that kind begins
