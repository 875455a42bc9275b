"""Images built from a Dockerfile, and containers made from them."""

import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import dockertest

from .conftest import Engine

SLEEP = ["sleep", "600"]


def has_buildx() -> bool:
    """Whether the docker command line here has buildx."""
    docker = shutil.which("docker")
    asked = [docker or "", "buildx", "version"]
    return docker is not None and subprocess.run(asked, capture_output=True, check=False).returncode == 0


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


def test_a_build_argument_is_seen_through_exec(pool: dockertest.Pool, context: Path, image: str) -> None:
    """As in Go's own tests."""
    build = dockertest.BuildOptions(context, build_args={"GREETING": "hello"})
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
        assert resource.exec(["cat", "/greeting"]).stdout == "hello\n"


def test_the_values_of_build_arguments_are_shown_nowhere(
    pool: dockertest.Pool, context: Path, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither in the log, nor in a label, nor in an error."""
    caplog.set_level(logging.DEBUG, logger="dockertest")
    (context / "Dockerfile").write_text(
        (context / "Dockerfile").read_text() + 'RUN echo "$SECRET hunter2" && false\n'
    )
    build = dockertest.BuildOptions(context, build_args={"SECRET": "hunter2"})
    with pytest.raises(dockertest.ImageBuildError) as caught:
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image))
    assert "hunter2" not in str(caught.value) + repr(build) + caplog.text
    assert "step 1" in caplog.text.lower()


def test_options_of_the_build_reach_the_builder(pool: dockertest.Pool, context: Path, image: str) -> None:
    """Target, labels, platform and no-cache; the repository and tag of the options are the image's name."""
    build = dockertest.BuildOptions(
        context, target="first", labels={"team": "storage"}, no_cache=True, platform="linux/amd64"
    )
    options = dockertest.RunOptions(repository=image, tag="9", cmd=SLEEP)
    with pool.build_and_run_with_build_options(build, options) as resource:
        assert resource.exec(["cat", "/stage"]).exit_code == 1
        assert pool.client.images.get(f"{image}:9").labels["team"] == "storage"
        assert not pool.client.images.list(name=f"{image}:latest")


def test_dockerignore_is_heeded(pool: dockertest.Pool, context: Path, image: str) -> None:
    """What it names is not in the context, but for what it takes back."""
    (context / ".dockerignore").write_text("# a comment\n*.log\n!important.log\n")
    for file in ("noise.log", "important.log"):
        (context / file).write_text(file)
    (context / "link").symlink_to("kept.txt")
    with pool.build_and_run_with_options(
        context / "Dockerfile", dockertest.RunOptions(name=image, cmd=SLEEP)
    ) as resource:
        listed = set(resource.exec(["ls", "/context"]).stdout.split())
        assert {"important.log", "kept.txt", "link"} <= listed
        assert "noise.log" not in listed
        assert resource.exec(["cat", "/context/link"]).stdout == "kept"


def test_a_dockerfile_outside_of_its_context(pool: dockertest.Pool, context: Path, image: str) -> None:
    """An absolute path may lead anywhere."""
    folder = context / "folder"
    folder.mkdir()
    (folder / "inside").touch()
    build = dockertest.BuildOptions(folder, dockerfile=str(context / "Dockerfile"))
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
        assert resource.exec(["ls", "/context"]).stdout.split() == ["inside"]


def test_a_second_build_is_a_cache_hit(
    pool: dockertest.Pool, context: Path, image: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The image is the same, and the builder says so."""
    caplog.set_level(logging.INFO, logger="dockertest")
    ids = set()
    for _ in range(2):
        with pool.build_and_run(image, context / "Dockerfile") as resource:
            ids.add(resource.container.attrs["Image"])
    assert len(ids) == 1
    assert "Using cache" in caplog.text


def test_the_container_is_of_the_image_just_built(pool: dockertest.Pool, context: Path, image: str) -> None:
    """Its name has come to mean another image meanwhile, and nothing is pulled."""

    def move_the_name(_host_config: object) -> None:
        pool.client.images.get(f"{pool.image_prefix}busybox:1.35").tag(image, "latest")

    options = dockertest.RunOptions(name=image, cmd=SLEEP, pull="always")
    with pool.build_and_run_with_options(context / "Dockerfile", options, move_the_name) as resource:
        assert resource.exec(["cat", "/stage"]).stdout == "second\n"
        assert pool.client.images.get(image).id != resource.container.attrs["Image"]


def test_an_image_goes_with_its_container_where_asked(
    pool: dockertest.Pool, context: Path, name: str
) -> None:
    """By its name: the cache may be shared by others."""
    build = dockertest.BuildOptions(context, remove_image=True)
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
    pool: dockertest.Pool, context: Path, name: str, added: str, told: str
) -> None:
    """In the engine's own words, with what was printed last."""
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(f"{dockerfile.read_text()}\n{added}\n")
    with pytest.raises(dockertest.ImageBuildError, match=told):
        pool.build_and_run(name, dockerfile)
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


@pytest.mark.differs("BuildKit")
def test_version_2_is_built_by_buildx_or_says_how_to_get_it(
    pool: dockertest.Pool, context: Path, image: str
) -> None:
    """Where the docker command line has it the image is built with it, else the error names it."""
    build = dockertest.BuildOptions(context, version="2", build_args={"GREETING": "hello"})
    if has_buildx():
        with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
            assert resource.exec(["cat", "/greeting"]).stdout == "hello\n"
    else:
        with pytest.raises(dockertest.ImageBuildError, match="docker-buildx-plugin"):
            pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image))
