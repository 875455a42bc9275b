"""Images built from a Dockerfile, and containers made from them."""

import contextlib
import logging
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, cast

import docker
import pytest

import dockertest
from tests.engines.tls_front import Front, certificates

from .conftest import Engine

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
        "remove_image": {"context_dir": context, "remove_image": "yes"},
    }.items():
        with pytest.raises(dockertest.InvalidOptionError, match=field) as caught:
            dockertest.BuildOptions(**options)  # type: ignore[arg-type]
        assert "hunter2" not in str(caught.value)
    with pytest.raises(dockertest.InvalidOptionError, match="repository or name"):
        pool.build_and_run_with_options(context / "Dockerfile", dockertest.RunOptions())
    with pytest.raises(dockertest.InvalidOptionError, match="repository"):
        pool.run_with_options(dockertest.RunOptions(name="nothing-to-run"))


@pytest.fixture
def build_2(context: Path) -> dockertest.BuildOptions:
    """A build with BuildKit."""
    if not has_buildx():
        pytest.skip("machine: the docker command line here has no buildx, and `make engine` could not get it")
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


@pytest.mark.differs("BuildKit")
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


@pytest.mark.differs("BuildKit")
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
        Front(context=certificates(folder)) as front,
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


@pytest.mark.parametrize("argument", ["DOCKER_HOST", "BUILDX_BUILDER", "PATH", "LD_PRELOAD"])
def test_a_build_argument_cannot_steer_buildx(
    pool: dockertest.Pool, context: Path, name: str, argument: str
) -> None:
    """Its values go by the environment, where some names mean something to the docker command line itself."""
    build = dockertest.BuildOptions(context, version="2", build_args={argument: "hunter2"})
    with pytest.raises(dockertest.InvalidOptionError, match=argument) as caught:
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))
    assert "hunter2" not in str(caught.value)
