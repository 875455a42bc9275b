"""Pulling images from registries that the tests start, and the possible errors."""

import base64
import contextlib
import fcntl
import gc
import hashlib
import http.client
import http.server
import itertools
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
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import ClassVar, Literal

import docker
import docker.errors
import pytest

import dockertest
from dockertest import AuthConfig, PullProgress
from dockertest._images import progress as _progress
from tests.engines.fault_proxy import Fault, FaultProxy, answer, freeze, refuse

from .conftest import Engine, without_tls_warning

SLEEP = ("sleep", "600")
USER, PASSWORD, WRONG = "tester", "s3cret-of-the-test", "wr0ng-of-the-test"
HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuujsWknM8pfBPdRxoOJt8hu.sWw2vTXTq\n"  # bcrypt of the password
BUSYBOX = "busybox:1.35"


class Images:
    """Creates images with the plain docker SDK, and removes all their names."""

    def __init__(self, client: docker.DockerClient, base: str) -> None:
        self.client = client
        self.base = base
        self.mine: list[str] = []
        self.ids: list[str] = []

    def make(self, name: str, *, layers: int = 2, size: int = 200_000) -> str:
        """Create an image from BusyBox with unique layers, and return its id."""
        parent = self.base
        for number in range(layers):
            container = self.client.containers.create(parent, ["true"])
            try:
                container.put_archive("/", _tar(f"layer-{number}", secrets.token_bytes(size)))
                committed = container.commit(*name.rsplit(":", 1))
                parent = str(committed.id)
            finally:
                container.remove(v=True)
        self.mine.append(name)
        self.ids.append(parent)
        return parent

    def push(self, name: str, *, private: bool = False, **layout: int) -> str:
        """
        Create an image, push it to the registry in its name, and return its digest.

        The image is removed locally.
        """
        self.make(name, **layout)
        digest = self.push_made(name, private=private)
        self.remove(name)
        return digest

    def push_made(self, name: str, *, private: bool = False) -> str:
        """Push a local image, and return its digest."""
        auth = {"username": USER, "password": PASSWORD} if private else {}
        for line in self.client.api.push(name, auth_config=auth, stream=True, decode=True):
            assert "error" not in line, line
            if match := re.search(r"digest: (sha256:[0-9a-f]+)", line.get("status", "")):
                digest = match[1]
        return digest

    def has(self, name: str) -> bool:
        """Return whether the engine has an image of that name."""
        with contextlib.suppress(docker.errors.NotFound):
            return bool(self.client.images.get(name))
        return False

    def remove(self, name: str) -> None:
        """Remove an image's name; the image is removed with its last name."""
        with contextlib.suppress(docker.errors.NotFound):
            self.client.images.remove(name, force=True)

    def clean(self) -> None:
        """Remove every name of the images."""
        # Podman cannot list images while another one is being removed.
        for image in dockertest.retry(self.client.api.images, max_wait=10):
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
    # The padding is omitted: Podman does not wait for it, and then reports an error.
    return packed.getvalue()[: 512 + -(-len(content) // 512) * 512 + 1024]


@pytest.fixture
def images(pool: dockertest.Pool) -> Iterator[Images]:
    """Images for this test, which are removed afterwards."""
    images = Images(pool.client, f"{pool.image_prefix}{BUSYBOX}")
    yield images
    images.clean()


def serve(pool: dockertest.Pool, **options: object) -> str:
    """Start a registry and return its host."""
    registry = pool.run("registry:2", **options)  # type: ignore[arg-type]

    def answers() -> bool:
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{registry.get_host_port(5000)}/v2/", timeout=5).close()
        return True

    registry.retry(answers)
    return f"localhost:{registry.get_port(5000)}"  # engines use plain HTTP only for loopback registries


def direct(registry: str, engine: Engine) -> str:
    """
    Return the address at which this process reaches a registry.

    The registry listens on the engine's loopback interface.
    """
    return registry.replace("localhost", engine.host)


@pytest.fixture(scope="module")
def registry(pool: dockertest.Pool) -> str:
    """The host of a registry without authentication."""
    return serve(pool)


@pytest.fixture(scope="module")
def private(pool: dockertest.Pool) -> str:
    """The host of a registry that requires a password."""
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
    images = Images(pool.client, f"{pool.image_prefix}{BUSYBOX}")
    yield images
    images.clean()


@pytest.fixture(scope="module")
def pushed(stock: Images, registry: str) -> str:
    """An image in the registry without authentication."""
    image = f"{registry}/dockertest-{secrets.token_hex(6)}:1"
    stock.push(image, layers=1)
    return image


@pytest.fixture(scope="module")
def pushed_private(stock: Images, private: str) -> str:
    """An image in the registry that requires a password."""
    image = f"{private}/dockertest-{secrets.token_hex(6)}:1"
    stock.push(image, private=True, layers=1)
    return image


@pytest.fixture
def public_image(images: Images, pushed: str) -> str:
    """
    An image that can be pulled without a password.

    It is not on the engine before or after the test.
    """
    images.mine.append(pushed)
    return pushed


@pytest.fixture
def private_image(images: Images, pushed_private: str) -> str:
    """
    An image that can be pulled only with the password.

    It is not on the engine before or after the test.
    """
    images.mine.append(pushed_private)
    return pushed_private


def pull(pool: dockertest.Pool, image: str, **options: object) -> None:
    """Start a container from an image, and remove the container."""
    pool.run(image, cmd=SLEEP, **options).close()  # type: ignore[arg-type]


def failure(pool: dockertest.Pool, image: str, **options: object) -> str:
    """Return the message of the error for a pull that fails."""
    with pytest.raises(dockertest.ImagePullError) as caught:
        pull(pool, image, **options)
    return str(caught.value)


# Which images are pulled


def test_a_missing_image_is_pulled_once(
    pool: dockertest.Pool, images: Images, registry: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A later run does not contact the registry."""
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
    """`always` uses the registry's image, and the other policies use the local one."""
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
    """The name may also have a tag. The second run needs no pull."""
    repository = f"{registry}/team/{name}"
    image = form.format(repository, images.push(f"{repository}:1", layers=1))
    pull(pool, image)
    pull(pool, image, pull="never")
    assert not images.has(f"{repository}:1")


def test_a_local_image_that_the_prefix_hides_is_mentioned(pool: dockertest.Pool, name: str) -> None:
    """
    The error suggests a tag to which the prefix does not apply.

    With a mirror of a registry as the prefix, the names of local images are looked up there, too.
    """
    pool.client.images.get(f"{pool.image_prefix}{BUSYBOX}").tag(name, "1")
    try:
        with dockertest.Pool(image_prefix="registry.invalid/") as prefixed:
            with pytest.raises(dockertest.ImagePullError, match=f"tag it 'localhost/{name}:1'"):
                prefixed.run(name, "1", pull="never")
            with pytest.raises(dockertest.ImagePullError, match="pull or build it first"):
                prefixed.run(name, "2", pull="never")
    finally:
        pool.client.images.remove(f"{name}:1")


@pytest.mark.parametrize("length", [12, 20, 64])
def test_an_image_by_its_id(images: Images, name: str, length: int) -> None:
    """
    An id is used without a pull and without the prefix.

    It may be short, because `docker images` prints the first twelve digits.
    """
    image_id = images.make(f"{name}:1", layers=1)
    with dockertest.Pool(image_prefix="registry.invalid/") as pool:
        bare = image_id.removeprefix("sha256:")[:length]
        with pool.run(bare, cmd=SLEEP) as resource:
            assert resource.container.attrs["Image"] == image_id
        assert pool.pull(bare).id == image_id
        # A name that looks like an id is used as a name if there is no image with that id.
        assert "registry.invalid/" in failure(pool, secrets.token_hex(length // 2))


def test_a_name_that_looks_like_an_id(pool: dockertest.Pool, images: Images, registry: str) -> None:
    """It is pulled like other names."""
    name = secrets.token_hex(6)
    images.push(f"{registry}/{name}:latest", layers=1)
    with dockertest.Pool(image_prefix=registry) as mirrored:
        pull(mirrored, name)


def test_the_prefix_is_for_names_without_a_registry(
    pool: dockertest.Pool, images: Images, registry: str, name: str
) -> None:
    """Only a name without a registry is pulled from the registry in the prefix."""
    images.push(f"{registry}/mirror/{name}:1", layers=1)
    with dockertest.Pool(image_prefix=f"{registry}/mirror/") as mirrored:
        pull(mirrored, f"{name}:1")
        assert f"localhost:1/{name}:1" in failure(mirrored, f"localhost:1/{name}:1")


def test_the_requested_platform_is_pulled(
    pool: dockertest.Pool,
    engine: Engine,
    images: Images,
    registry: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A local image of another platform is not used.

    By default, `DOCKER_DEFAULT_PLATFORM` is requested.
    """
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
            pulled = images.client.images.get(resource.container.attrs["Image"])
            images.ids.append(str(pulled.id))  # the next image takes over its name
            assert pulled.attrs["Architecture"] == architecture
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    with dockertest.Pool() as other:
        for platform, architecture in (("", "arm64"), ("linux/amd64", "amd64")):
            with other.run(f"{repository}:all", cmd=SLEEP, platform=platform) as resource:
                pulled = images.client.images.get(resource.container.attrs["Image"])
                images.ids.append(str(pulled.id))
                assert pulled.attrs["Architecture"] == architecture
        assert other.pull(f"{repository}:all").platform[1] == "arm64"
    text = failure(pool, f"{repository}:all", platform="linux/s390x")
    assert "s390x" in text
    assert text.endswith("; the image does not exist for this platform; choose another one with platform=")


_KIND = "application/vnd.docker.distribution.manifest"


def _publish_for(registry: str, name: str, architectures: tuple[str, ...]) -> None:
    """
    Publish the image `name:1` as `name:all` for several architectures.

    The images differ only in the name of the architecture.
    """
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
    request = urllib.request.Request(url, data, headers or {}, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        content: bytes = answer.read()
    return content


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_threads_share_the_pull_of_a_missing_image(
    images: Images, registry: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Eight runs at the same time cause one pull."""
    caplog.set_level(logging.INFO, logger="dockertest")
    image = f"{registry}/{name}:1"
    images.push(image, size=1_000_000)
    options = [dockertest.RunOptions(repository=image, cmd=SLEEP) for _ in range(8)]
    with dockertest.Pool() as pool:
        assert len(pool.run_all(options)) == 8
    assert caplog.messages.count(f"pulling {image}") == 1


def test_an_image_that_another_thread_has_just_pulled(
    images: Images, registry: str, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run that did not find the image checks again before it pulls."""
    caplog.set_level(logging.INFO, logger="dockertest")
    image = f"{registry}/{name}:1"
    images.push(image, size=1000)
    with FaultProxy(tmp_path / "x").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        pool.run(image, cmd=SLEEP)
        proxy.next("GET .*/images/.*/json", answer(404, "No such image"))
        pool.run(image, cmd=SLEEP)
    assert caplog.messages.count(f"pulling {image}") == 1


# Failures


def set_auth(registry: str) -> str:
    """Return the hint for a registry that requires a password if none was configured."""
    return f"; set auth=AuthConfig(username, password), or log in with: docker login {registry}"


def test_a_valid_password(pool: dockertest.Pool, private_image: str) -> None:
    """`auth` grants access to a private registry."""
    pull(pool, private_image, auth=AuthConfig(USER, PASSWORD))


class RecordingProxy(FaultProxy):
    """An engine behind a proxy that records the credentials for registries."""

    credentials: ClassVar[list[object]] = []

    def passed_on(self, head: bytes) -> bytes:
        for value in re.findall(rb"\r\nX-Registry-(?:Auth|Config): (\S+)", head):
            self.credentials.append(json.loads(base64.urlsafe_b64decode(value)))
        return head


def test_credentials_are_sent_with_their_server(tmp_path: Path, name: str) -> None:
    """Docker's containerd image store takes those without a server for Docker Hub's."""
    RecordingProxy.credentials.clear()
    host = "localhost:1"
    (tmp_path / "Dockerfile").write_text(f"FROM {host}/{name}\n")
    with RecordingProxy(tmp_path / "x").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        for server in (None, f"https://{host}/v2/"):
            auth = AuthConfig(USER, PASSWORD, server_address=server)
            with pytest.raises(dockertest.ImagePullError):
                pool.pull(f"{host}/{name}", auth=auth)
            with pytest.raises(dockertest.ImageBuildError):
                pool.build_and_run_with_build_options(
                    dockertest.BuildOptions(tmp_path, auth=auth), dockertest.RunOptions(name=name)
                )
        # Podman would not use its own logins if it got an empty list.
        with pytest.raises(dockertest.ImageBuildError):
            pool.build_and_run(name, tmp_path / "Dockerfile")
    expected = {"username": USER, "password": PASSWORD, "serveraddress": host}
    assert RecordingProxy.credentials == [expected, {host: expected}] * 2


def test_an_invalid_password(pool: dockertest.Pool, private: str, private_image: str) -> None:
    """The error names the source of the rejected credentials."""
    text = failure(pool, private_image, auth=AuthConfig(USER, WRONG))
    assert text.startswith(f"cannot pull image '{private_image}': ")
    assert text.endswith(
        f"unauthorized: authentication required; {private} rejected the credentials from auth=; "
        f"correct them, or log in again with: docker login {private}"
    )


def test_no_password(pool: dockertest.Pool, private: str, private_image: str) -> None:
    """The error explains how to set one."""
    assert failure(pool, private_image).endswith(set_auth(private))


def test_credentials_for_another_registry_are_not_sent(
    pool: dockertest.Pool, images: Images, private: str, caplog: pytest.LogCaptureFixture, private_image: str
) -> None:
    """
    A password is sent only to its own registry.

    This also applies if a prefix changes the image's registry.
    """
    own = {"server_address": f"http://{private}/v2/"}
    pull(pool, private_image, auth=AuthConfig(USER, PASSWORD, **own))
    images.remove(private_image)
    elsewhere = AuthConfig(USER, PASSWORD, server_address="registry.test")
    assert failure(pool, private_image, auth=elsewhere).endswith(set_auth(private))
    assert f"auth= is for registry.test and is not sent to {private}" in caplog.text


@pytest.mark.parametrize(
    ("path", "part"), [("{0}:nope", "tag"), ("{0}/nope:1", "tag"), ("{0}@{1}", "digest")]
)
def test_an_image_that_is_missing_from_the_registry(
    pool: dockertest.Pool, registry: str, public_image: str, path: str, part: str
) -> None:
    """
    The error names each possible cause.

    Engines report a missing tag, repository or digest alike.
    """
    image = path.format(public_image.removesuffix(":1"), f"sha256:{secrets.token_hex(32)}")
    text = failure(pool, image)
    assert "manifest unknown" in text
    repository = image.partition("/")[2].partition("@")[0].partition(":")[0]
    assert text.endswith(
        f"; the registry {registry} has no repository '{repository}', or the repository has no such {part}; check the name"
    )


def test_an_unreachable_registry(pool: dockertest.Pool, name: str) -> None:
    """The error has the engine's message and an explanation."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        host = f"localhost:{unused.getsockname()[1]}"
        text = failure(pool, f"{host}/{name}:1")
    assert "connection refused" in text
    assert f"; the engine cannot reach the registry {host}: nothing listens at this address" in text


def test_a_registry_whose_name_does_not_resolve(pool: dockertest.Pool, name: str) -> None:
    """
    The error names the host.

    An engine in a network of its own may have no name server.
    """
    text = failure(pool, f"registry.invalid/{name}:1")
    assert "lookup registry.invalid" in text
    reason = "(host not found|no name server answers)"
    assert re.search(f"; the engine cannot reach the registry registry.invalid: {reason}; ", text)


def test_an_unresponsive_registry(engine: Engine, name: str) -> None:
    """A pull from a registry that accepts connections and never responds times out."""
    with socket.socket() as silent, dockertest.Pool(timeout=5) as pool:
        silent.bind((engine.here, 0))
        silent.listen()
        host = f"{engine.here}:{silent.getsockname()[1]}"
        began = time.monotonic()
        text = failure(pool, f"{host}/{name}:1")
        assert 5 <= time.monotonic() - began < 30
    assert text == (
        f"cannot pull image '{host}/{name}:1': the engine did not answer within 5 s; most likely it waits for the "
        f"registry {host}; check that the engine can reach it, or set a longer timeout for the pool"
    )


def test_an_error_in_the_middle_of_a_pull(
    engine: Engine, images: Images, registry: str, public_image: str
) -> None:
    """An error in the stream is raised, although the response began as a success."""
    with Front(registry, engine, "spoil").running() as front, dockertest.Pool() as pool:
        text = failure(pool, front.behind(public_image))
    assert re.search("verification failed for digest sha256:|expected sha256:", text)
    assert not images.has(front.behind(public_image))


def stream(text: str) -> Fault:
    """Return a fault that responds with messages instead of contacting the engine."""

    def fault(client: socket.socket, _forward: Callable[[], socket.socket]) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
        client.sendall(f"{head}{text}".encode())

    return fault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('5\nnull\n[]\n"error"\n{"errorDetail": "broken"}', "cannot pull image .*: broken"),
        ('{"errorDetail": {"message": 5}, "error": "broken"}', "cannot pull image .*: 5"),
        ('{"status": "Downloading", "id": 1, "progressDetail": "x"}\n{"error": "broken"}', ": broken"),
        ("[" * 100_000, "cannot pull image"),
        ("<html>", "cannot pull image"),
        (r'{"error": "\u001b]0;title\u0007bro\u001b[31mken\nlines\r"}', ": broken lines$"),
    ],
    ids=["types", "number", "progress", "deep", "html", "escapes"],
)
def test_unexpected_messages_in_a_pull(tmp_path: Path, name: str, text: str, expected: str) -> None:
    """An engine or a proxy may send anything; the exception is a `DockertestError`."""
    with FaultProxy(tmp_path / "x").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        proxy.next("POST .*/images/create", stream(text))
        with pytest.raises(dockertest.DockertestError, match=expected):
            pull(pool, f"registry.invalid/{name}:1")


# In the middle of a layer


@dataclass
class Front:
    """
    An HTTP server in front of a registry that corrupts or delays long blobs.

    Attributes:
        registry: The host of the registry.
        engine: The engine that pulls.
        fault: "stop" in the middle of a blob, "trickle" its second half, or "spoil" all of its bytes.
        reached: Set in the middle of a blob.
        hung_up: Set when the engine has closed the connection there.
    """

    registry: str
    engine: Engine
    fault: Literal["stop", "trickle", "spoil"]
    host: str = ""
    reached: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    def behind(self, image: str) -> str:
        """Return the name under which this server offers the registry's image."""
        return f"{self.host}/{image.partition('/')[2]}"

    @contextlib.contextmanager
    def running(self) -> Iterator["Front"]:
        """Serve requests until the end of the block."""
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

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Forward a request, and corrupt or delay a long response."""
        upstream = http.client.HTTPConnection(direct(self.registry, self.engine), timeout=10)
        # A header may occur several times: there is an `Accept` for each kind of manifest.
        headers = {
            key: ", ".join(request.headers.get_all(key, ()))
            for key in request.headers
            if key.lower() != "host"
        }
        upstream.request(request.command, request.path, headers=headers)
        answer = upstream.getresponse()
        body = answer.read()
        upstream.close()
        request.send_response_only(answer.status)
        for key, value in answer.getheaders():
            request.send_header(key, value)
        request.send_header("Connection", "close")
        request.end_headers()
        if len(body) < 50_000:
            request.wfile.write(body)
        elif self.fault == "spoil":
            request.wfile.write(bytes(len(body)))
        else:
            request.wfile.write(body[: len(body) // 2])
            self._stall(request.connection, body[len(body) // 2 :])

    def _stall(self, connection: socket.socket, rest: bytes) -> None:
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
    """It fails after the pool's timeout."""
    with Front(registry, engine, "stop").running() as front, dockertest.Pool(timeout=5) as pool:
        began = time.monotonic()
        text = failure(pool, front.behind(public_image))
        assert time.monotonic() - began < 30
        assert "the engine did not answer within 5 s; most likely it waits for the registry" in text
    assert not images.has(front.behind(public_image))


def test_threads_that_wait_for_a_pull_share_its_failure(
    engine: Engine, registry: str, public_image: str
) -> None:
    """Four threads do not wait for one timeout after another."""
    with Front(registry, engine, "stop").running() as front, dockertest.Pool(timeout=5) as pool:
        failures: list[str] = []
        threads = [
            threading.Thread(target=lambda: failures.append(failure(pool, front.behind(public_image))))
            for _ in range(4)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 4 * 5
    assert len(failures) == 4
    assert len(set(failures)) == 1


def test_an_exception_of_the_callback_propagates_unchanged(
    engine: Engine, images: Images, registry: str, public_image: str
) -> None:
    """It may even be an exception of this library. The engine stops the pull."""
    mine = dockertest.EngineError("from the callback")

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
    """The engine stops the pull."""
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
def test_the_callback_gets_the_progress(images: Images, registry: str, name: str) -> None:
    """The numbers of bytes and layers never decrease, and are complete at the end."""
    image = f"{registry}/{name}:1"
    images.push(image, layers=3, size=300_000)
    updates: list[PullProgress] = []
    with dockertest.Pool(pull_progress=updates.append) as pool:
        pull(pool, image)
    assert {progress.image for progress in updates} == {image}
    assert [progress.layers_done for progress in updates] == sorted(
        progress.layers_done for progress in updates
    )
    assert all(progress.bytes_done <= progress.bytes for progress in updates)
    last = updates[-1]
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
    """
    There is a line every few seconds.

    In this test, there is one for each message of the engine.
    """
    monkeypatch.setattr(_progress, "INTERVAL_SECONDS", 0)
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
    """There is a bar with bytes and layers, or lines if tqdm is not installed."""
    image = f"{registry}/{name}:1"
    images.push(image, layers=4, size=3_000_000)
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
    program = before + PROGRAM.replace("['sleep', '600']", "['true']")
    environment = {**os.environ, "TQDM_MININTERVAL": "0"}  # the pull may end before a second update
    process = subprocess.Popen([sys.executable, "-c", program, image], env=environment, stderr=writer)
    os.close(writer)
    written = b""
    with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error
        while data := os.read(reader, 65536):
            written += data
    os.close(reader)
    assert process.wait(20) == 0
    missing = [text for text in [*expected, image] if text not in written.decode()]
    assert not missing, written


def test_nothing_is_printed_without_a_terminal(images: Images, registry: str, name: str) -> None:
    """The log of a CI job contains no progress messages."""
    image = f"{registry}/{name}:1"
    images.push(image)
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, image], capture_output=True, text=True, check=True, timeout=60
    )
    assert (ended.stdout, without_tls_warning(ended.stderr)) == ("", "")


# Credentials of the docker CLI


class Cli:
    """A configuration of the docker CLI, and a folder on PATH for credential helpers."""

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
        """Write a credential helper in shell."""
        program = self.programs / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\ncat > /dev/null\n{script}\n")
        program.chmod(0o755)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A configuration of the docker CLI for this test."""
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
def test_docker_cli_credentials_grant_access_to_a_private_registry(
    private: str,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    log_in: Callable[[Cli, str, pytest.MonkeyPatch], None],
    private_image: str,
) -> None:
    """
    Each source of credentials that the docker CLI supports is read.

    The source is the file, a store for all registries, a helper for one, or the variable of CI systems.
    """
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
    """
    They come from `auth` or the configuration.

    A failing helper does not stop the build.
    """
    if version == "2" and subprocess.run(["docker", "buildx", "version"], check=False).returncode:
        pytest.skip("machine: the docker CLI has no buildx, and `make engine` could not install it")
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


@pytest.mark.differs("BuildKit")
@pytest.mark.parametrize("what", ["cache", "syntax"])
def test_buildkit_gets_credentials_for_its_other_images(
    pool: dockertest.Pool, cli: Cli, name: str, images: Images, tmp_path: Path, what: str
) -> None:
    """The images are those of caches, and the one that reads the Dockerfile."""
    if subprocess.run(["docker", "buildx", "version"], check=False).returncode:
        pytest.skip("machine: the docker CLI has no buildx, and `make engine` could not install it")
    images.mine.append(f"{name}:latest")
    program = cli.programs / "docker-credential-test"
    program.write_text(f"#!/bin/sh\ncat >> {cli.folder}/asked; echo >> {cli.folder}/asked; {ANSWER}\n")
    program.chmod(0o755)
    cli.write({"credsStore": "test"})
    context = tmp_path / "context"
    context.mkdir()
    syntax = "# syntax=localhost:1/dockerfile:1\n" if what == "syntax" else ""
    (context / "Dockerfile").write_text(f"{syntax}FROM {pool.image_prefix}{BUSYBOX}\n")
    options = dockertest.BuildOptions(
        context, version="2", cache_from=["localhost:1/app:cache"] if what == "cache" else ()
    )
    with contextlib.suppress(dockertest.ImageBuildError), dockertest.Pool() as fresh:
        fresh.build_and_run_with_build_options(options, dockertest.RunOptions(name=name, cmd=SLEEP)).close()
    assert "localhost:1" in (cli.folder / "asked").read_text().splitlines()


def test_rejected_credentials_of_the_docker_cli(private: str, cli: Cli, private_image: str) -> None:
    """The error names the file or helper that provided them."""
    wrong = base64.b64encode(f"{USER}:{WRONG}".encode()).decode()
    cli.write({"auths": {private: {"auth": wrong}}})
    with dockertest.Pool() as pool:
        text = failure(pool, private_image)
        assert f"rejected the credentials from {cli.file}; correct them" in text
        cli.helper("test", ANSWER.replace(PASSWORD, WRONG))
        cli.write({"credsStore": "test"})
        text = failure(pool, private_image)
        assert "rejected the credentials from docker-credential-test; correct them" in text


@pytest.mark.parametrize(
    "script", [f"echo {PASSWORD}; exit 1", f"echo {PASSWORD}", None], ids=["fails", "nonsense", "missing"]
)
def test_a_broken_helper_does_not_affect_a_public_pull(
    cli: Cli, caplog: pytest.LogCaptureFixture, script: str | None, public_image: str
) -> None:
    """There is a warning without the helper's output."""
    if script:
        cli.helper("test", script)
    cli.write({"credsStore": "test"})
    with dockertest.Pool() as pool:
        pull(pool, public_image)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
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
def test_a_broken_configuration_is_only_a_warning(
    registry: str, cli: Cli, caplog: pytest.LogCaptureFixture, content: object, public_image: str
) -> None:
    """There are warnings that name the file, where the docker SDK itself would fail."""
    cli.write(json.loads(json.dumps(content).replace("HOST", registry)))
    with dockertest.Pool() as pool:
        pull(pool, public_image)
        assert pool.client.ping()
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [warning.split()[:2] for warning in warnings] in (
        [],
        [["ignoring", "registry"]],
        [["cannot", "read"], ["ignoring", "registry"]],  # the first one is about the current docker context
    )
    assert all(str(cli.file) in warning and "%%%" not in warning for warning in warnings)


def test_the_client_of_the_docker_sdk_uses_a_valid_configuration(cli: Cli) -> None:
    """Requests through `pool.client` have the user's headers and credentials."""
    cli.write({"auths": {"registry.test": ENTRY}, "HttpHeaders": {"X-Test": "1"}})
    with dockertest.Pool() as pool:
        assert pool.client.api._general_configs["HttpHeaders"] == {"X-Test": "1"}  # type: ignore[attr-defined]


# Secrets


def with_variables(error: BaseException) -> str:
    """Return a traceback with the variables of all frames, including those of causes."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize("fault", [refuse, freeze, answer(500, "no"), None])
def test_frames_of_the_transport_show_no_password(
    tmp_path: Path, cli: Cli, name: str, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> None:
    """
    The variables of http.client's frames contain the headers.

    Without a fault, the engine cannot be reached.
    """
    _plain(cli, "registry.test", monkeypatch)
    with FaultProxy(tmp_path / "x").running() as proxy:
        pool = dockertest.Pool(proxy.endpoint, timeout=2)
        if fault:
            proxy.next("POST .*/images/create", fault)
            with pytest.raises(dockertest.DockertestError) as caught:
                pull(pool, f"registry.test/{name}:1", pull="always")
    if not fault:
        with pytest.raises(dockertest.DockertestError) as caught:
            pull(pool, f"registry.test/{name}:1", pull="always")
    pool.close()
    text = with_variables(caught.value)
    with warnings.catch_warnings():  # the docker SDK does not close a socket that failed to connect
        warnings.simplefilter("ignore", ResourceWarning)
        del caught
        gc.collect()
    assert "eyJ" not in text  # every such header starts with these characters
    assert PASSWORD not in text


def test_no_password_is_shown(
    engine: Engine,
    private: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    cli: Cli,
    caplog: pytest.LogCaptureFixture,
    private_image: str,
) -> None:
    """
    Errors, debug logs and tracebacks with variables contain no password.

    This applies to all kinds of failures.
    """
    caplog.set_level(logging.DEBUG)
    _plain(cli, private, monkeypatch)

    def traceback_of(image: str, auth: AuthConfig) -> str:
        with pytest.raises(dockertest.ImagePullError) as caught:
            pull(hasty, image, auth=auth)
        return with_variables(caught.value)

    with socket.socket() as silent, dockertest.Pool(timeout=5) as hasty, ThreadPoolExecutor(9) as threads:
        silent.bind((engine.here, 0))
        silent.listen()
        stalled = f"{engine.here}:{silent.getsockname()[1]}"
        images = (f"{private}/{name}:nope", f"{stalled}/{name}:1", f"localhost:1/{name}:1")
        auths = (AuthConfig(USER, PASSWORD), AuthConfig(USER, WRONG), AuthConfig(identity_token=WRONG))
        # They run concurrently, so the test waits for only one timeout.
        shown = list(threads.map(traceback_of, *zip(*itertools.product(images, auths), strict=True)))
    with dockertest.Pool() as pool:
        pull(pool, private_image)
    text = "".join(shown) + caplog.text
    for secret in (PASSWORD, WRONG):
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode()[:16] not in text
    assert "eyJ" not in text  # every such header starts with these characters
