"""Images built from a Dockerfile, and containers made from them."""

import contextlib
import dataclasses
import logging
import os
import shutil
import socket
import subprocess
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import docker
import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, refuse
from tests.engines.tls_front import Front, certificates

from .conftest import Engine, skip_where_it_differs

SLEEP = ["sleep", "600"]
Version = Literal["1", "2"]


def has_buildx() -> bool:
    """Whether the docker command line here has buildx."""
    docker = shutil.which("docker")
    asked = [docker or "", "buildx", "version"]
    return docker is not None and subprocess.run(asked, capture_output=True, check=False).returncode == 0


@pytest.fixture(params=["1", pytest.param("2", marks=pytest.mark.differs("BuildKit"))])
def version(request: pytest.FixtureRequest) -> Version:
    """Each of the two builders; one that cannot be had here is told."""
    if request.param == "2" and not has_buildx():
        pytest.skip("machine: the docker command line here has no buildx, and `make engine` could not get it")
    return cast("Version", request.param)


@pytest.fixture
def context(pool: dockertest.Pool, tmp_path: Path) -> Path:
    """A folder with a Dockerfile of two stages, of an image that is at hand."""
    (tmp_path / "Dockerfile").write_text(
        f"""
FROM {pool.image_prefix}busybox:1.35 AS first
ARG GREETING=none
ARG SECRET=none
LABEL purpose=test
COPY . /context
RUN echo "$GREETING" > /greeting && echo $SECRET > /dev/null
FROM first AS second
RUN echo second > /stage
CMD ["sleep", "600"]
"""
    )
    (tmp_path / "kept.txt").write_text("kept")
    return tmp_path


@pytest.fixture
def image(pool: dockertest.Pool, name: str) -> Iterator[str]:
    """A name for an image, which is removed afterwards."""
    yield name
    for found in pool.client.images.list(name=name):
        for tag in found.tags:
            if tag.startswith(f"{name}:"):  # the same image may have a name that is not ours
                pool.client.images.remove(tag, force=True)


def test_a_dockerfile_is_built_and_run(
    pool: dockertest.Pool, context: Path, image: str, engine: Engine
) -> None:
    """Image and container have the name, the environment is the container's, and the image is kept."""
    with pool.build_and_run(image, context / "Dockerfile", env={"A": "1"}) as resource:
        assert resource.name == image
        assert resource.exec(["sh", "-c", "cat /stage; echo $A"]).stdout == "second\n1\n"
        assert repr(resource).startswith(f"<Resource {image}:latest '{image}'")
    assert not engine.has(image)
    kept = pool.client.images.get(image)
    assert kept.labels["purpose"] == "test"
    ours = [label for label in kept.labels if label.startswith("dockertest.")]
    assert ours == [], "containers inherit labels: ours would make theirs look like ours"


def test_an_image_that_was_built_is_run_again_by_its_name(context: Path, image: str) -> None:
    """Without a prefix, which is for the images of a mirror, and without a pull."""
    with dockertest.Pool(image_prefix="mirror.invalid/") as pool:
        options = dockertest.RunOptions(repository=image, tag="v2", cmd=SLEEP)
        built = pool.build_and_run_with_options(context / "Dockerfile", options)
        again = pool.run(f"{image}:v2", cmd=SLEEP, pull="never")
        assert again.container.image == built.container.image
        with pytest.raises(dockertest.ImagePullError, match=f"mirror.invalid/{image}:v1"):
            pool.run(image, "v1", pull="never")


def test_a_build_argument_is_seen_through_exec(
    pool: dockertest.Pool, context: Path, image: str, version: Version
) -> None:
    """As in Go's own tests."""
    build = dockertest.BuildOptions(context, build_args={"GREETING": "hello"}, version=version)
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
        assert resource.exec(["cat", "/greeting"]).stdout == "hello\n"


def test_the_values_of_build_arguments_are_shown_nowhere(
    pool: dockertest.Pool, context: Path, image: str, caplog: pytest.LogCaptureFixture, version: Version
) -> None:
    """Neither in the log, nor in a label, nor in an error."""
    caplog.set_level(logging.DEBUG, logger="dockertest")
    (context / "Dockerfile").write_text(
        (context / "Dockerfile").read_text() + 'RUN echo "$SECRET hunter2" && false\n'
    )
    build = dockertest.BuildOptions(context, build_args={"SECRET": "hunter2"}, version=version)
    with pytest.raises(dockertest.ImageBuildError) as caught:
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image))
    assert "hunter2" not in str(caught.value) + repr(build) + caplog.text
    assert "second > /stage" in caplog.text


def test_no_traceback_and_no_log_of_the_transport_has_a_build_argument(
    pool: dockertest.Pool, context: Path, image: str, caplog: pytest.LogCaptureFixture, version: Version
) -> None:
    """The classic builder takes them in the request's URL, which urllib3 logs and requests puts into its errors."""
    caplog.set_level(logging.DEBUG)
    arguments = {"SECRET": "hunter2\nsecond secret", "GREETING": "hello"}
    build = dockertest.BuildOptions(context, build_args=arguments, version=version)
    pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)).close()
    refused = dataclasses.replace(build, platform="no/such/platform")
    (context / "Dockerfile").write_text(
        (context / "Dockerfile").read_text() + 'RUN printf "$SECRET"; false\n'
    )
    for failing in (refused, build):
        with pytest.raises(dockertest.ImageBuildError) as caught:
            pool.build_and_run_with_build_options(failing, dockertest.RunOptions(name=image))
        told = "".join(traceback.format_exception(caught.value)) + caplog.text
        for secret in ("hunter2", "second secret", "second+secret", "second%20secret"):
            assert secret not in told
    with FaultProxy(context / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as front:
        proxy.next("POST .*/build", refuse)
        with pytest.raises(dockertest.DockertestError) as broken:
            front.build_and_run_with_build_options(
                dataclasses.replace(build, version="1"), dockertest.RunOptions(name=image)
            )
        assert "hunter2" not in "".join(traceback.format_exception(broken.value)) + caplog.text
    assert "GET /" in caplog.text  # all else that urllib3 logs is still there


def test_options_of_the_build_reach_the_builder(
    pool: dockertest.Pool, context: Path, image: str, version: Version
) -> None:
    """Target, labels, platform and no-cache; the repository and tag of the options are the image's name."""
    build = dockertest.BuildOptions(
        context,
        target="first",
        labels={"team": "storage"},
        no_cache=True,
        platform="linux/amd64",
        version=version,
    )
    options = dockertest.RunOptions(repository=image, tag="9", cmd=SLEEP)
    with pool.build_and_run_with_build_options(build, options) as resource:
        assert resource.exec(["cat", "/stage"]).exit_code == 1
        assert pool.client.images.get(f"{image}:9").labels["team"] == "storage"
        assert not pool.client.images.list(name=f"{image}:latest")
        first = resource.container.attrs["Image"]
    with pool.build_and_run_with_build_options(build, options) as resource:
        assert resource.container.attrs["Image"] != first, "every step is built anew"


def test_dockerignore_is_heeded(pool: dockertest.Pool, context: Path, image: str, version: Version) -> None:
    """What it names is not in the context, but for what it takes back."""
    (context / ".dockerignore").write_text("# a comment\n*.log\n!important.log\n")
    for file in ("noise.log", "important.log"):
        (context / file).write_text(file)
    (context / "link").symlink_to("kept.txt")
    with pool.build_and_run_with_build_options(
        dockertest.BuildOptions(context, version=version), dockertest.RunOptions(name=image, cmd=SLEEP)
    ) as resource:
        listed = set(resource.exec(["ls", "/context"]).stdout.split())
        assert {"important.log", "kept.txt", "link"} <= listed
        assert "noise.log" not in listed
        assert resource.exec(["cat", "/context/link"]).stdout == "kept"


FILES = (
    "Read.me", "read.me", "a/Read.me", "a/b/c.log", "a/b/d.txt", "x.log", "important.log", "#hash", "1", "2", "^", "[q]",
    "q", "*", "-", "sub/one", "sub/two", "sub/deep/one", "vendor/lib/keep", "vendor/lib/drop", "caf\u00e9", "sp ace",
    "dots..", "back\\slash", "end/", "z/end/f",
)  # fmt: skip


@pytest.mark.parametrize(
    "ignored",
    [
        "README.md\nREAD.ME\n**/Read.me",
        "\ufeffx.log\n  #hash\n#1\n",
        "[^a-z#]\n",
        "\\*\n\\[q]\n[\\^\\-]\n",
        "*\n!sub/deep\n!vendor/lib/keep\n",
        "**/*.log\n!important.log\n!**/c.log",
        "/sub/../a/./b/\nvendor/*\n!vendor/lib/k?ep\n",
        "**/b\n**/end/**\n**wo\n",
        "*.*\r\n! a/b/d.txt \r\nsp ace\r\n.dockerignore\nDockerfile\n",
        "caf\u00e9\nr[!a]w\n./q\n.\n",
        "back\\\\slash\ndots..\n",
        "1\x0b\n2\u2028\n",
    ],
)
def test_both_builders_leave_out_the_same(
    pool: dockertest.Pool, context: Path, image: str, build_2: dockertest.BuildOptions, ignored: str
) -> None:
    """The docker command line is the judge of what the lines mean: case, sets, escapes, what is taken back."""
    for file in FILES:
        (context / file).parent.mkdir(parents=True, exist_ok=True)
        (context / file).mkdir() if file.endswith("/") else (context / file).touch()
    (context / ".dockerignore").write_bytes(ignored.encode(errors="surrogateescape"))
    (context / "Dockerfile").write_text(f"FROM {pool.image_prefix}busybox:1.35\nCOPY . /context\n")
    found = []
    for version in ("1", "2"):
        build = dataclasses.replace(build_2, version=version, build_args={})
        options = dockertest.RunOptions(name=image, cmd=SLEEP)
        with pool.build_and_run_with_build_options(build, options) as resource:
            listed = resource.exec(["find", "/context", "-print0"], text=False).stdout
            found.append(sorted(listed.split(b"\0")))
    assert found[0] == found[1]
    assert found[0] != [b"", b"/context"]


@pytest.mark.differs("names that are no text")
def test_a_name_that_is_no_text_is_left_out_too(pool: dockertest.Pool, context: Path, image: str) -> None:
    """A file's name is bytes; BuildKit loses such a line on its way."""
    for file in (b"raw\xff", b"raw\xfe"):
        (context / os.fsdecode(file)).touch()
    (context / ".dockerignore").write_bytes(b"raw\xff\n")
    with pool.build_and_run(image, context / "Dockerfile") as resource:
        listed = resource.exec(["find", "/context", "-print0"], text=False).stdout
    assert b"raw\xfe" in listed
    assert b"raw\xff" not in listed


@pytest.mark.parametrize("line", ["[a", "!", "a\\", "[z-a]"])
def test_a_line_that_is_no_pattern_is_told(
    pool: dockertest.Pool, context: Path, name: str, version: Version, line: str
) -> None:
    """Instead of a context that has more in it than was meant."""
    (context / ".dockerignore").write_text(f"{line}\n")
    build = dockertest.BuildOptions(context, version=version)
    with pytest.raises(dockertest.ImageBuildError):
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))


def test_a_dockerfile_outside_of_its_context(
    pool: dockertest.Pool, context: Path, image: str, version: Version
) -> None:
    """An absolute path may lead anywhere."""
    folder = context / "folder"
    folder.mkdir()
    (folder / "inside").touch()
    build = dockertest.BuildOptions(folder, dockerfile=str(context / "Dockerfile"), version=version)
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
        assert resource.exec(["ls", "/context"]).stdout.split() == ["inside"]


def test_a_second_build_is_a_cache_hit(
    pool: dockertest.Pool, context: Path, image: str, caplog: pytest.LogCaptureFixture, version: Version
) -> None:
    """The image is the same, and the builder says so."""
    caplog.set_level(logging.INFO, logger="dockertest")
    ids = set()
    build = dockertest.BuildOptions(context, version=version)
    for _ in range(2):
        caplog.clear()
        with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
            ids.add(resource.container.attrs["Image"])
    assert len(ids) == 1
    assert {"1": "Using cache", "2": "CACHED"}[version] in caplog.text


def test_the_container_is_of_the_image_just_built(
    pool: dockertest.Pool, context: Path, image: str, version: Version
) -> None:
    """Its name has come to mean another image meanwhile, and nothing is pulled."""

    def move_the_name(_host_config: object) -> None:
        pool.client.images.get(f"{pool.image_prefix}busybox:1.35").tag(image, "latest")

    options = dockertest.RunOptions(name=image, cmd=SLEEP, pull="always")
    build = dockertest.BuildOptions(context, version=version)
    with pool.build_and_run_with_build_options(build, options, move_the_name) as resource:
        assert resource.exec(["cat", "/stage"]).stdout == "second\n"
        assert pool.client.images.get(image).id != resource.container.attrs["Image"]


def test_an_image_goes_with_its_container_where_asked(
    pool: dockertest.Pool, context: Path, name: str, version: Version
) -> None:
    """By its name: the cache may be shared by others."""
    build = dockertest.BuildOptions(context, remove_image=True, version=version)
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name)):
        assert pool.client.images.list(name=name)
    assert not pool.client.images.list(name=name)
    with pytest.raises(dockertest.ContainerStartError):
        pool.build_and_run_with_build_options(
            build, dockertest.RunOptions(name=name, cmd=["no-such-command"])
        )
    assert not pool.client.images.list(name=name)


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("RUN echo on its way; echo the disk is full; exit 7", "the disk is full"),
        ("NONSENSE", "NONSENSE"),
        ("COPY --from=localhost:1/no-such-image:1 / /", "localhost:1"),
    ],
)
def test_a_build_that_fails_shows_its_last_lines(
    pool: dockertest.Pool, context: Path, name: str, added: str, told: str, version: Version
) -> None:
    """In the engine's own words, with what was printed last."""
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(f"{dockerfile.read_text()}\n{added}\n")
    build = dockertest.BuildOptions(context, version=version)
    with pytest.raises(dockertest.ImageBuildError, match=told):
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))
    assert not pool.client.images.list(name=name)


def test_wrong_options_are_refused(pool: dockertest.Pool, context: Path) -> None:
    """Before the engine sees them."""
    for field, options in {
        "context_dir": {"context_dir": context / "missing"},
        "dockerfile": {"context_dir": context, "dockerfile": "missing"},
        "version": {"context_dir": context, "version": "3"},
        "labels": {"context_dir": context, "labels": {"dockertest.x": "1"}},
        "build_args": {"context_dir": context, "build_args": ["NO_EQUALS_SIGN"]},
        "auth": {"context_dir": context, "auth": "hunter2"},
        "auth .*mapping": {"context_dir": context, "auth": {5: dockertest.AuthConfig("ann", "hunter2")}},
        "context_dir: None": {"context_dir": None},
        "remove_image": {"context_dir": context, "remove_image": "yes"},
    }.items():
        with pytest.raises(dockertest.InvalidOptionError, match=field) as caught:
            dockertest.BuildOptions(**options)  # type: ignore[arg-type]
        assert "hunter2" not in str(caught.value)
    with pytest.raises(dockertest.InvalidOptionError, match="dockerfile_path: None is no path"):
        pool.build_and_run("nothing", None)  # type: ignore[arg-type]
    for name in (f"sha256:{'a' * 64}", f"nothing@sha256:{'a' * 64}"):
        with pytest.raises(dockertest.InvalidOptionError, match="cannot name an image to be built"):
            pool.build_and_run_with_options(context / "Dockerfile", dockertest.RunOptions(repository=name))
    with pytest.raises(dockertest.InvalidOptionError, match="repository or name"):
        pool.build_and_run_with_options(context / "Dockerfile", dockertest.RunOptions())
    with pytest.raises(dockertest.InvalidOptionError, match="repository"):
        pool.run_with_options(dockertest.RunOptions(name="nothing-to-run"))


@pytest.fixture
def build_2(context: Path, engine: Engine) -> dockertest.BuildOptions:
    """A build with BuildKit."""
    if not has_buildx():
        pytest.skip("machine: the docker command line here has no buildx, and `make engine` could not get it")
    skip_where_it_differs("BuildKit", engine)
    return dockertest.BuildOptions(context, version="2", build_args={"SECRET": "hunter2", "GREETING": "hi"})


def test_without_buildx_the_error_says_how_to_get_it(
    context: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the docker command line is missing, or has no buildx, or cannot be started."""
    build = dockertest.BuildOptions(context, version="2")
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def refused() -> str:
        with dockertest.Pool() as pool, pytest.raises(dockertest.ImageBuildError) as caught:
            pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))
        return str(caught.value)

    assert "the docker command line, which is not there; install docker-buildx-plugin" in refused()
    (folder / "docker").write_text("#!/bin/sh\necho what is that >&2\nexit 1\n")
    (folder / "docker").chmod(0o755)
    assert "`docker buildx`, which is not there; install docker-buildx-plugin" in refused()
    (folder / "docker").write_text("#!/no/such/interpreter\n")
    assert "cannot be started: no such file or directory" in refused()


def test_no_argument_list_has_a_secret(
    pool: dockertest.Pool, context: Path, image: str, build_2: dockertest.BuildOptions
) -> None:
    """Whoever lists the processes sees names of build arguments, and no values."""
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text() + "RUN sleep 1\n")
    seen: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    seen.add(file.read_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        pool.build_and_run_with_build_options(build_2, dockertest.RunOptions(name=image)).close()
    finally:
        done.set()
        thread.join()
    ours = [each for each in seen if b"buildx" in each and str(context).encode() in each]
    assert any(b"SECRET" in each for each in ours)
    assert not any(b"hunter2" in each for each in ours)


def test_buildx_builds_on_the_engine_of_the_pool(
    local: str,
    context: Path,
    tmp_path: Path,
    image: str,
    build_2: dockertest.BuildOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By TLS or with a client of the user's own, whatever the environment and the CLI's configuration say."""
    home = tmp_path / "home"
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text('{"currentContext": "gone", "credsStore": "gone"}')
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BUILDX_BUILDER", "gone")
    monkeypatch.setenv("DOCKER_HOST", "unix:///no.sock")
    folder = tmp_path / "certificates"
    folder.mkdir()
    options = dockertest.RunOptions(name=image, cmd=SLEEP)
    with (
        Front(local, certificates(folder)) as front,
        dockertest.Pool(front.url, cert_path=folder) as pool,
    ):
        with pool.build_and_run_with_build_options(build_2, options) as resource:
            assert resource.exec(["cat", "/greeting"]).stdout == "hi\n"
        with dockertest.Pool(client=pool.client) as other:
            other.build_and_run_with_build_options(build_2, options).close()
    client = docker.DockerClient(f"unix://{local}")
    try:
        with dockertest.Pool(client=client) as pool:
            pool.build_and_run_with_build_options(build_2, options).close()
    finally:
        client.close()


def test_no_proxy_gets_between_buildx_and_the_engine(
    local: str,
    pool: dockertest.Pool,
    image: str,
    build_2: dockertest.BuildOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As between the pool and the engine; what else is exempt from the proxy stays so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")  # where nobody listens
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "else.where")
    with pool.create_network() as network:
        address = pool.client.networks.get(network.id).attrs["IPAM"]["Config"][0]["Gateway"]
        with Front(local, host=address) as front, dockertest.Pool(front.url) as remote:
            options = dockertest.RunOptions(name=image, cmd=SLEEP)
            remote.build_and_run_with_build_options(build_2, options).close()


@pytest.mark.parametrize("argument", ["DOCKER_HOST", "BUILDX_BUILDER", "PATH", "LD_PRELOAD"])
def test_a_build_argument_cannot_steer_buildx(
    pool: dockertest.Pool, context: Path, name: str, argument: str
) -> None:
    """Its values go by the environment, where some names mean something to the docker command line itself."""
    build = dockertest.BuildOptions(context, version="2", build_args={argument: "hunter2"})
    with pytest.raises(dockertest.InvalidOptionError, match=argument) as caught:
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))
    assert "hunter2" not in str(caught.value)
