"""Building images from Dockerfiles, and starting containers from them."""

import base64
import contextlib
import dataclasses
import json
import logging
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, cast

import docker
import pytest

import dockertest
from dockertest._images import build as _build
from tests.engines.fault_proxy import FaultProxy, edit, freeze, refuse
from tests.engines.tls_front import Front, certificates

from .conftest import Engine, skip_if_unsupported

SLEEP = ["sleep", "600"]
Version = Literal["1", "2"]


def has_buildx() -> bool:
    """Return whether the docker CLI has the plugin buildx."""
    docker = shutil.which("docker")
    command = [docker or "", "buildx", "version"]
    return docker is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(params=["1", pytest.param("2", marks=pytest.mark.differs("BuildKit"))])
def version(request: pytest.FixtureRequest) -> Version:
    """Each of the two builders, if it is available."""
    if request.param == "2" and not has_buildx():
        pytest.skip("machine: the docker CLI has no buildx, and `make engine` could not install it")
    return cast("Version", request.param)


@pytest.fixture
def context(pool: dockertest.Pool, tmp_path: Path) -> Path:
    """A folder with a Dockerfile that has two stages and a local base image."""
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
    """A name for an image, which is removed after the test."""

    def remove() -> None:
        for built in pool.client.images.list(name=name):
            for tag in built.tags:
                if tag.startswith(f"{name}:"):  # the image may also have names from other sources
                    pool.client.images.remove(tag, force=True)

    yield name
    # Other tests build from the same layers meanwhile, and Podman cannot list images while one is being removed.
    dockertest.retry(remove, on=docker.errors.APIError)


def test_a_dockerfile_is_built_and_run(
    pool: dockertest.Pool, context: Path, image: str, engine: Engine
) -> None:
    """The image and the container have the name, and the image is kept."""
    with pool.build_and_run(image, context / "Dockerfile", env={"A": "1"}) as resource:
        assert resource.name == image
        assert resource.exec(["sh", "-c", "cat /stage; echo $A"]).stdout == "second\n1\n"
        assert repr(resource).startswith(f"<Resource {image}:latest '{image}'")
    assert not engine.has(image)
    kept = pool.client.images.get(image)
    assert kept.labels["purpose"] == "test"
    ours = [label for label in kept.labels if label.startswith("dockertest.")]
    assert ours == [], "containers inherit labels, so that other containers of the image would look like ours"


def test_a_built_image_can_be_run_by_its_name(context: Path, image: str) -> None:
    """There is no pull, and the prefix for images of a mirror is not added."""
    with dockertest.Pool(image_prefix="mirror.invalid/") as pool:
        options = dockertest.RunOptions(repository=image, tag="v2", cmd=SLEEP)
        built = pool.build_and_run_with_options(context / "Dockerfile", options)
        again = pool.run(f"{image}:v2", cmd=SLEEP, pull="never")
        assert again.container.image == built.container.image
        with pytest.raises(dockertest.ImagePullError, match=f"mirror.invalid/{image}:v1"):
            pool.run(image, "v1", pull="never")


def test_a_committed_image_can_be_run_by_its_name(pool: dockertest.Pool, context: Path, image: str) -> None:
    """The prefix for images of a mirror is not added, as after a build."""
    with dockertest.Pool(image_prefix="mirror.invalid/") as prefixed:
        built = prefixed.build_and_run(f"{image}-base", context / "Dockerfile")
        image_id = built.commit(image)
        try:
            again = prefixed.run(image, cmd=SLEEP, pull="never")
            assert again.container.attrs["Image"].removeprefix("sha256:") == image_id.removeprefix("sha256:")
        finally:
            prefixed.close()
            pool.client.images.remove(f"{image}-base", force=True)


def test_a_build_argument_reaches_the_dockerfile(
    pool: dockertest.Pool, context: Path, image: str, version: Version
) -> None:
    """Go's Dockertest has the same test."""
    build = dockertest.BuildOptions(context, build_args={"GREETING": "hello"}, version=version)
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
        assert resource.exec(["cat", "/greeting"]).stdout == "hello\n"


def test_values_of_build_arguments_are_hidden(
    pool: dockertest.Pool, context: Path, image: str, caplog: pytest.LogCaptureFixture, version: Version
) -> None:
    """They are neither in the log nor in the error."""
    caplog.set_level(logging.DEBUG, logger="dockertest")
    (context / "Dockerfile").write_text(
        (context / "Dockerfile").read_text() + 'RUN echo "$SECRET hunter2" && false\n'
    )
    build = dockertest.BuildOptions(context, build_args={"SECRET": "hunter2"}, version=version)
    with pytest.raises(dockertest.ImageBuildError) as caught:
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image))
    assert "hunter2" not in str(caught.value) + repr(build) + caplog.text
    assert "second > /stage" in caplog.text


def test_tracebacks_and_logs_of_the_transport_have_no_build_arguments(
    pool: dockertest.Pool, context: Path, image: str, caplog: pytest.LogCaptureFixture, version: Version
) -> None:
    """
    Build arguments appear neither in tracebacks nor in logs of the transport.

    The classic builder expects them in the URL, which urllib3 logs and requests puts into its errors.
    """
    caplog.set_level(logging.DEBUG)
    arguments = {"SECRET": "hunter2\nsecond secret", "GREETING": "hello"}
    build = dockertest.BuildOptions(context, build_args=arguments, version=version)
    pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)).close()
    rejected = dataclasses.replace(build, platform="no/such/platform")
    (context / "Dockerfile").write_text(
        (context / "Dockerfile").read_text() + 'RUN printf "$SECRET"; false\n'
    )
    for failing in (rejected, build):
        with pytest.raises(dockertest.ImageBuildError) as caught:
            pool.build_and_run_with_build_options(failing, dockertest.RunOptions(name=image))
        shown = "".join(traceback.format_exception(caught.value)) + caplog.text
        for secret in ("hunter2", "second secret", "second+secret", "second%20secret"):
            assert secret not in shown
    with FaultProxy(context / "front.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as front:
        proxy.next("POST .*/build", refuse)
        with pytest.raises(dockertest.DockertestError) as broken:
            front.build_and_run_with_build_options(
                dataclasses.replace(build, version="1"), dockertest.RunOptions(name=image)
            )
        assert "hunter2" not in "".join(traceback.format_exception(broken.value)) + caplog.text
    assert "GET /" in caplog.text  # urllib3 still logs all other requests


def test_build_options_reach_the_builder(
    pool: dockertest.Pool,
    engine: Engine,
    context: Path,
    image: str,
    version: Version,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The builder receives target, labels, platform and no-cache.

    The run options name the image. By default, `DOCKER_DEFAULT_PLATFORM` is requested.
    """
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
        assert not engine.has_image(f"{image}:latest")
        first = resource.container.attrs["Image"]
    with pool.build_and_run_with_build_options(build, options) as resource:
        assert resource.container.attrs["Image"] != first, "no_cache builds every step again"
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "no/such/platform")
    with dockertest.Pool() as other:
        other.build_and_run_with_build_options(
            build, dataclasses.replace(options, platform="linux/amd64")
        ).close()
        with pytest.raises(dockertest.ImageBuildError):
            other.build_and_run_with_build_options(dataclasses.replace(build, platform=None), options)


def test_dockerignore_is_respected(
    pool: dockertest.Pool, context: Path, image: str, version: Version
) -> None:
    """Matching files are not in the context, apart from exceptions."""
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
        "*\n!sub/**/one\n!ven*/lib/drop\n!a\n",
    ],
)
def test_both_builders_ignore_the_same_files(
    pool: dockertest.Pool, context: Path, image: str, build_2: dockertest.BuildOptions, ignored: str
) -> None:
    """The docker CLI defines what the patterns mean: case, sets, escapes, exceptions."""
    for file in FILES:
        (context / file).parent.mkdir(parents=True, exist_ok=True)
        (context / file).mkdir() if file.endswith("/") else (context / file).touch()
    (context / ".dockerignore").write_bytes(ignored.encode(errors="surrogateescape"))
    (context / "Dockerfile").write_text(f"FROM {pool.image_prefix}busybox:1.35\nCOPY . /context\n")
    contents = []
    for version in ("1", "2"):
        build = dataclasses.replace(build_2, version=version, build_args={})
        options = dockertest.RunOptions(name=image, cmd=SLEEP)
        with pool.build_and_run_with_build_options(build, options) as resource:
            listed = resource.exec(["find", "/context", "-print0"], text=False).stdout
            contents.append(sorted(listed.split(b"\0")))
    assert contents[0] == contents[1]
    assert contents[0] != [b"", b"/context"]


@pytest.mark.parametrize(
    ("dockerfile", "own", "general", "included"),
    [
        ("c/Dockerfile", "*.log", "1\nDockerfile\n.dockerignore", ". .dockerignore Dockerfile Dockerfile.dockerignore 1 2"),
        ("c/Dockerfile", "Dockerfile\n*.dockerignore\n1", "*.log", ". 2 x.log"),
        ("c/Dockerfile", "*\n!1", None, ". 1"),
        ("c/Dockerfile", "", "1", ". .dockerignore Dockerfile Dockerfile.dockerignore 1 2 x.log"),
        ("c/sub/d", "*.log", "sub\n1", ". .dockerignore sub sub/d sub/d.dockerignore 1 2"),
        ("c/sub/d", "sub/*\n1", None, ". sub 2 x.log"),
        ("outside/Dockerfile", "*.log", "1", ". .dockerignore 1 2"),
        ("outside/Dockerfile", "1", None, ". 2 x.log"),
    ],
)  # fmt: skip
def test_the_ignore_file_beside_the_dockerfile_takes_precedence(
    pool: dockertest.Pool, tmp_path: Path, name: str, version: Version, dockerfile: str, own: str, general: str | None,
    included: str,
) -> None:  # fmt: skip
    """It replaces the one of the context, as with the docker CLI."""
    context, file = tmp_path / "c", tmp_path / dockerfile
    for folder in (context, file.parent):
        folder.mkdir(exist_ok=True)
    for other in ("1", "2", "x.log"):
        (context / other).touch()
    file.write_text(f"FROM {pool.image_prefix}busybox:1.35\nCOPY . /context\n")
    Path(f"{file}.dockerignore").write_text(own)
    if general is not None:
        (context / ".dockerignore").write_text(general)
    build = dockertest.BuildOptions(context, dockerfile=str(file), version=version, remove_image=True)
    with pool.build_and_run_with_build_options(
        build, dockertest.RunOptions(name=name, cmd=SLEEP)
    ) as resource:
        listed = resource.exec(["sh", "-c", "cd /context; find ."]).stdout.split()
    assert {path.removeprefix("./") for path in listed} == set(included.split())


@pytest.mark.differs("undecodable file names")
def test_an_undecodable_file_name_can_be_ignored(pool: dockertest.Pool, context: Path, image: str) -> None:
    """File names are bytes; BuildKit does not support such a pattern."""
    for file in (b"raw\xff", b"raw\xfe"):
        (context / os.fsdecode(file)).touch()
    (context / ".dockerignore").write_bytes(b"raw\xff\n")
    with pool.build_and_run(image, context / "Dockerfile") as resource:
        listed = resource.exec(["find", "/context", "-print0"], text=False).stdout
    assert b"raw\xfe" in listed
    assert b"raw\xff" not in listed


@pytest.mark.parametrize("line", ["[a", "!", "a\\", "[z-a]"])
def test_an_invalid_pattern_is_rejected(
    pool: dockertest.Pool, context: Path, name: str, version: Version, line: str
) -> None:
    """Otherwise the context would contain more than intended."""
    (context / ".dockerignore").write_text(f"{line}\n")
    build = dockertest.BuildOptions(context, version=version)
    with pytest.raises(dockertest.ImageBuildError):
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))


def test_a_dockerfile_may_be_outside_of_its_context(
    pool: dockertest.Pool, context: Path, image: str, version: Version
) -> None:
    """An absolute path may be anywhere."""
    folder = context / "folder"
    folder.mkdir()
    (folder / "inside").touch()
    build = dockertest.BuildOptions(folder, dockerfile=str(context / "Dockerfile"), version=version)
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
        assert resource.exec(["ls", "/context"]).stdout.split() == ["inside"]


@pytest.mark.parametrize("target", ["../outside", "ABSOLUTE/outside", "ignored/Dockerfile"])
def test_a_dockerfile_may_be_a_symbolic_link(
    pool: dockertest.Pool, context: Path, image: str, version: Version, target: str
) -> None:
    """The target may be outside of the context or ignored, as in the docker CLI."""
    folder = context / "folder"
    (folder / "ignored").mkdir(parents=True)
    (folder / ".dockerignore").write_text("ignored\n")
    link = folder / "Dockerfile"
    link.symlink_to(target.replace("ABSOLUTE", str(context)))
    (folder / link.readlink()).write_bytes((context / "Dockerfile").read_bytes())
    build = dockertest.BuildOptions(folder, version=version)
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
        assert resource.exec(["ls", "/context/ignored"]).stdout == ""
        assert resource.exec(["cat", "/stage"]).stdout == "second\n"


def test_a_link_that_leads_out_of_the_context(
    pool: dockertest.Pool, engine: Engine, context: Path, image: str
) -> None:
    """
    It is packed as a link.

    Podman 4 rejects the archive without a reason; the hint names the link.
    """
    (context / "folder").mkdir()
    (context / "folder" / "outer").symlink_to("../../elsewhere")
    with contextlib.ExitStack() as rejected:
        if engine.is_podman and engine.version < (5,):
            rejected.enter_context(
                pytest.raises(
                    dockertest.ImageBuildError,
                    match=r"out with \.dockerignore: folder/outer -> \.\./\.\./else",
                )
            )
        with pool.build_and_run(image, context / "Dockerfile") as resource:
            links = resource.exec(["readlink", "/context/folder/outer"], check=True)
            assert links.stdout == "../../elsewhere\n"


_ID = 32 * "1f"


@pytest.mark.parametrize(
    "words",
    [
        "committing container: creating image: layer not known",
        f"creating build container: {_ID}: image not known",
        f"failed to get digest sha256:{_ID}: open /var/lib/docker/{_ID}: no such file or directory",
        f"failed to export image: failed to set parent sha256:{_ID}: unknown parent image ID sha256:{_ID}",
        f"No such image: sha256:{_ID}",
        f'unable to find image "sha256:{_ID}"',
    ],
)
def test_a_build_is_repeated_after_the_removal_of_another_image(
    tmp_path_factory: pytest.TempPathFactory, context: Path, image: str, words: str
) -> None:
    """The build had found that image in the cache."""
    with (context / "Dockerfile").open("a") as file:
        file.write(f"LABEL long={300 * 'x'}\n")
    path = tmp_path_factory.mktemp("front") / "x"
    with FaultProxy(path).running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        error = json.dumps({"error": words}).encode()
        proxy.next("POST .*/build", edit(rb'\{"stream":"[^"\n]*LABEL long[^\n]*\}', error))
        pool.build_and_run(image, context / "Dockerfile").close()
    assert len([line for line in proxy.requests if "/build?" in line]) > 1


def test_a_build_is_not_repeated_for_words_in_its_output(tmp_path: Path, context: Path, image: str) -> None:
    """A program of the build may write about images that were removed, too."""
    with (context / "Dockerfile").open("a") as file:
        file.write(f"RUN echo 'No such' 'image: sha256:{_ID}' >&2; exit 1\n")
    with (
        FaultProxy(tmp_path / "x").running() as proxy,
        dockertest.Pool(proxy.endpoint) as pool,
        pytest.raises(dockertest.ImageBuildError, match="No such image"),
    ):
        pool.build_and_run(image, context / "Dockerfile")
    assert len([line for line in proxy.requests if "/build?" in line]) == 1


@pytest.mark.soak
def test_builds_beside_removals_of_images(pool: dockertest.Pool, context: Path, name: str) -> None:
    """
    They succeed.

    Podman 4 and Docker's classic builder fail at times if an image is removed whose layers the build finds in the cache.
    """
    (context / "Dockerfile").write_text(
        f"FROM {pool.image_prefix}busybox:1.35\nARG TEXT\nRUN echo $TEXT > /text\nLABEL last=\nCMD sleep 600"
    )

    def build(number: int) -> str:
        arguments = {"TEXT": f"{name} {number}"}
        build = dockertest.BuildOptions(context, build_args=arguments, remove_image=True)
        options = dockertest.RunOptions(name=f"{name}-{number}")
        with pool.build_and_run_with_build_options(build, options) as resource:
            return resource.exec(["cat", "/text"]).stdout

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(build, range(16))) == [f"{name} {number}\n" for number in range(16)]


# Root without the permission to read every file, as in many containers; other users never have it.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


@pytest.mark.skipif(bool(UNPRIVILEGED) and not shutil.which("setpriv"), reason="machine: setpriv is missing")
def test_an_unreadable_file_in_the_context_is_named(context: Path, name: str) -> None:
    """The error is about the file, not about the engine."""
    (context / "secret.txt").touch(mode=0)
    program = """
import sys, dockertest
with dockertest.Pool() as pool:
    try:
        pool.build_and_run(sys.argv[1], sys.argv[2])
    except dockertest.ImageBuildError as error:
        print(error)
"""
    command = [*UNPRIVILEGED, sys.executable, "-c", program, name, str(context / "Dockerfile")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert f"cannot read '{context}/secret.txt' for the build: permission denied" in ended.stdout, (
        ended.stderr
    )


def test_a_second_build_is_a_cache_hit(
    pool: dockertest.Pool, context: Path, image: str, caplog: pytest.LogCaptureFixture, version: Version
) -> None:
    """The image is the same, and the builder reports it."""
    dockerfile = context / "Dockerfile"
    # No other test removes these layers in between.
    dockerfile.write_text(dockerfile.read_text().replace("LABEL", f"LABEL test={image}"))
    caplog.set_level(logging.INFO, logger="dockertest")
    ids = set()
    build = dockertest.BuildOptions(context, version=version)
    for _ in range(2):
        caplog.clear()
        with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
            ids.add(resource.container.attrs["Image"])
    assert len(ids) == 1
    assert {"1": "Using cache", "2": "CACHED"}[version] in caplog.text


def test_the_container_is_made_from_the_image_just_built(
    pool: dockertest.Pool, context: Path, image: str, version: Version
) -> None:
    """Its tag may refer to another image by then, and nothing is pulled."""

    def move_the_tag(_host_config: object) -> None:
        pool.client.images.get(f"{pool.image_prefix}busybox:1.35").tag(image, "latest")

    options = dockertest.RunOptions(name=image, cmd=SLEEP, pull="always")
    build = dockertest.BuildOptions(context, version=version)
    with pool.build_and_run_with_build_options(build, options, move_the_tag) as resource:
        assert resource.exec(["cat", "/stage"]).stdout == "second\n"
        assert pool.client.images.get(image).id != resource.container.attrs["Image"]


def test_remove_image_removes_it_with_the_container(
    pool: dockertest.Pool, engine: Engine, context: Path, name: str, version: Version
) -> None:
    """It is removed by name, as other images may share its id."""
    build = dockertest.BuildOptions(context, remove_image=True, version=version)
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name)):
        assert engine.has_image(name)
    assert not engine.has_image(name)
    with pytest.raises(dockertest.ContainerStartError):
        pool.build_and_run_with_build_options(
            build, dockertest.RunOptions(name=name, cmd=["no-such-command"])
        )
    assert not engine.has_image(name)


@pytest.mark.parametrize("is_removed", [True, False])
def test_remove_image_removes_it_after_a_kill(
    engine: Engine, context: Path, image: str, version: Version, is_removed: bool
) -> None:
    """The reaper removes the container first; without `remove_image` the image stays."""
    program = f"""
import os, signal
import dockertest
build = dockertest.BuildOptions({str(context)!r}, version={version!r}, remove_image={is_removed})
resource = dockertest.Pool().build_and_run_with_build_options(build, dockertest.RunOptions(name={image!r}))
print(resource.id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    dockertest.retry(
        lambda: not engine.has(ended.stdout.strip()) and engine.has_image(image) is not is_removed,
        max_wait=60,
    )


def test_sessions_that_build_the_same_image_do_not_share_it(
    engine: Engine, context: Path, name: str, version: Version
) -> None:
    """Each image is removed with its container, also the one that lost its name."""
    build = dockertest.BuildOptions(context, version=version, remove_image=True)
    options = dockertest.RunOptions(repository=name)
    with dockertest.Pool() as first, dockertest.Pool() as second:
        one = first.build_and_run_with_build_options(build, options)
        other = second.build_and_run_with_build_options(build, options)
        images = [resource.container.attrs["Image"] for resource in (one, other)]
        assert images[0] != images[1]
        one.close()
        assert [engine.has_image(image) for image in images] == [False, True]
        assert engine.has_image(name)
        other.close()
        assert not engine.has_image(images[1])
        assert not engine.has_image(name)


def test_a_container_for_reuse_is_found_although_its_image_is_to_be_removed(
    context: Path, name: str, version: Version
) -> None:
    """Its image belongs to no session, since it may outlive the one that built it."""
    build = dockertest.BuildOptions(context, version=version, remove_image=True)
    options = dockertest.RunOptions(name=name, reuse=True)
    with dockertest.Pool() as first, dockertest.Pool() as second:
        one = first.build_and_run_with_build_options(build, options)
        try:
            assert second.build_and_run_with_build_options(build, options).id == one.id
        finally:
            first.purge(one)


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("RUN echo started; echo the last line; exit 7", "the last line"),
        ("NONSENSE", "NONSENSE"),
        ("COPY --from=localhost:1/no-such-image:1 / /", "localhost:1"),
    ],
)
def test_a_build_that_fails_shows_its_last_lines(
    pool: dockertest.Pool,
    engine: Engine,
    context: Path,
    name: str,
    added: str,
    expected: str,
    version: Version,
) -> None:
    """The error has the engine's message and the end of the output."""
    dockerfile = context / "Dockerfile"
    dockerfile.write_text(f"{dockerfile.read_text()}\n{added}\n")
    build = dockertest.BuildOptions(context, version=version)
    with pytest.raises(dockertest.ImageBuildError, match=expected):
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))
    assert not engine.has_image(name)


IGNORED = pytest.mark.differs("features of BuildKit that the classic builder ignores")


@pytest.mark.differs("BuildKit")
@pytest.mark.parametrize(
    "line",
    [
        "RUN --mount=type=cache,target=/x true",
        "RUN --network=none true",
        pytest.param("COPY --link Dockerfile /", marks=IGNORED),
        "COPY --chmod=600 Dockerfile /",
        "COPY --parents Dockerfile /",
        pytest.param("ADD --checksum=sha256:aa http://a.test/ /", marks=IGNORED),
        pytest.param("RUN <<EOF\necho hi\nEOF", marks=IGNORED),
        "COPY <<-'EOF' /file\nhello\nEOF",
        "FROM --platform=$BUILDPLATFORM scratch",
    ],
)
def test_a_dockerfile_that_needs_buildkit(pool: dockertest.Pool, context: Path, name: str, line: str) -> None:
    """With the classic builder, the error names the version that can build it."""
    (context / "Dockerfile").write_text(f"FROM {pool.image_prefix}busybox:1.35\n{line}\n")
    with pytest.raises(dockertest.ImageBuildError) as caught:
        pool.build_and_run(name, context / "Dockerfile")
    assert caught.value.hint == "the Dockerfile needs BuildKit; set version='2' in BuildOptions"
    assert caught.value.hint in str(caught.value)


def test_an_invalid_dockerfile_gets_no_hint(pool: dockertest.Pool, context: Path, name: str) -> None:
    """BuildKit could not build it either."""
    (context / "Dockerfile").write_text(f"FROM {pool.image_prefix}busybox:1.35\nRUN --nonsense true\n")
    with pytest.raises(dockertest.ImageBuildError) as caught:
        pool.build_and_run(name, context / "Dockerfile")
    assert not caught.value.hint


@pytest.mark.parametrize("line", ["", "NONSENSE"])
def test_buildx_where_sigchld_is_ignored(
    build_2: dockertest.BuildOptions, pool: dockertest.Pool, context: Path, image: str, line: str
) -> None:
    """The system then discards the exit codes of programs."""
    (context / "Dockerfile").write_text(f"FROM {pool.image_prefix}busybox:1.35\n{line}\n")
    program = """
import signal, sys, dockertest
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
build = dockertest.BuildOptions(sys.argv[1], version="2")
with dockertest.Pool() as pool:
    try:
        with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=sys.argv[2], cmd=["true"])):
            print("built")
    except dockertest.ImageBuildError as error:
        print("cannot build:", error)
"""
    command = [sys.executable, "-c", program, str(context), image]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.startswith("cannot build" if line else "built"), ended.stderr
    assert ("`docker buildx build` failed" in ended.stdout) is bool(line)


def test_invalid_options_are_rejected(pool: dockertest.Pool, context: Path) -> None:
    """They are rejected before anything is sent to the engine."""
    for field, options in {
        "context_dir": {"context_dir": context / "missing"},
        "dockerfile": {"context_dir": context, "dockerfile": "missing"},
        "version": {"context_dir": context, "version": "3"},
        "labels": {"context_dir": context, "labels": {"dockertest.x": "1"}},
        "build_args": {"context_dir": context, "build_args": ["NO_EQUALS_SIGN"]},
        "auth": {"context_dir": context, "auth": "hunter2"},
        "auth .*mapping": {"context_dir": context, "auth": {5: dockertest.AuthConfig("ann", "hunter2")}},
        "context_dir must be a string": {"context_dir": None},
        "remove_image": {"context_dir": context, "remove_image": "yes"},
    }.items():
        with pytest.raises(dockertest.InvalidOptionError, match=field) as caught:
            dockertest.BuildOptions(**options)  # type: ignore[arg-type]
        assert "hunter2" not in str(caught.value)
    with pytest.raises(dockertest.InvalidOptionError, match=r"dockerfile_path must be a .*: got None"):
        pool.build_and_run("nothing", None)  # type: ignore[arg-type]
    for name in (f"sha256:{'a' * 64}", f"nothing@sha256:{'a' * 64}"):
        with pytest.raises(dockertest.InvalidOptionError, match="cannot be the name of an image to build"):
            pool.build_and_run_with_options(context / "Dockerfile", dockertest.RunOptions(repository=name))
    with pytest.raises(dockertest.InvalidOptionError, match="repository or name"):
        pool.build_and_run_with_options(context / "Dockerfile", dockertest.RunOptions())
    with pytest.raises(dockertest.InvalidOptionError, match="repository"):
        pool.run_with_options(dockertest.RunOptions(name="nothing-to-run"))


@pytest.fixture
def build_2(context: Path, engine: Engine) -> dockertest.BuildOptions:
    """Options for a build with BuildKit."""
    if not has_buildx():
        pytest.skip("machine: the docker CLI has no buildx, and `make engine` could not install it")
    skip_if_unsupported("BuildKit", engine)
    return dockertest.BuildOptions(context, version="2", build_args={"SECRET": "hunter2", "GREETING": "hi"})


def test_the_error_without_buildx_explains_how_to_install_it(
    context: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The docker CLI may be missing, have no buildx, or fail to start."""
    build = dockertest.BuildOptions(context, version="2")
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def failure() -> str:
        with dockertest.Pool() as pool, pytest.raises(dockertest.ImageBuildError) as caught:
            pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))
        return str(caught.value)

    assert "needs the docker CLI, which was not found on PATH; install docker-buildx-plugin" in failure()
    (folder / "docker").write_text("#!/bin/sh\necho what is that >&2\nexit 1\n")
    (folder / "docker").chmod(0o755)
    assert "needs the docker CLI's plugin buildx\n    what is that\ninstall docker-buildx-plugin" in failure()
    (folder / "docker").write_text("#!/no/such/interpreter\n")
    assert "cannot be started: no such file or directory" in failure()


def test_secrets_reach_only_the_steps_that_mount_them(
    pool: dockertest.Pool,
    context: Path,
    image: str,
    build_2: dockertest.BuildOptions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither the image, its history nor the log of the build has them."""
    caplog.set_level(logging.INFO, "dockertest")
    step = "RUN --mount=type=secret,id=token --mount=type=secret,id=file"
    with (context / "Dockerfile").open("a") as file:
        file.write(f"{step} cat /run/secrets/token /run/secrets/file | tee /dev/stderr | wc -c > /size\n")
        file.write("RUN cat /run/secrets/* > /left || true\n")
    path = context.parent / "secret.txt"
    path.write_bytes(b"in-a-file")
    build = dataclasses.replace(
        build_2, secrets={"token": b"correct-horse\0\xff", "file": path}, no_cache=True
    )
    with pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)) as resource:
        assert resource.read_file("/size") == b"24\n"
        assert resource.read_file("/left") == b""
        built = pool.client.images.get(image)
        assert "correct-horse" not in repr(built.history()) + repr(built.attrs)
    assert "***" in caplog.text
    assert "correct-horse" not in caplog.text
    assert "in-a-file" not in caplog.text


def test_a_cache_is_used(
    pool: dockertest.Pool, image: str, build_2: dockertest.BuildOptions, caplog: pytest.LogCaptureFixture
) -> None:
    """BuildKit looks for it, and continues without a cache that does not exist."""
    caplog.set_level(logging.INFO, "dockertest")
    build = dataclasses.replace(build_2, cache_from=["127.0.0.1:9/no/such:cache"])
    pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=image)).close()
    assert "importing cache manifest from 127.0.0.1:9/no/such:cache" in caplog.text


def test_the_process_list_has_no_secret(
    pool: dockertest.Pool, context: Path, image: str, build_2: dockertest.BuildOptions
) -> None:
    """It shows the names of build arguments, but not their values."""
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text() + "RUN sleep 1\n")
    command_lines: set[bytes] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    command_lines.add(file.read_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        pool.build_and_run_with_build_options(build_2, dockertest.RunOptions(name=image)).close()
    finally:
        done.set()
        thread.join()
    ours = [line for line in command_lines if b"buildx" in line and str(context).encode() in line]
    assert any(b"SECRET" in line for line in ours)
    assert not any(b"hunter2" in line for line in ours)


def test_buildx_builds_on_the_engine_of_the_pool(
    local: str,
    context: Path,
    tmp_path: Path,
    image: str,
    build_2: dockertest.BuildOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    The build always uses the engine of the pool and its builder.

    Neither the environment nor the CLI's configuration can redirect it to another engine or builder.
    """
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


def test_the_error_of_a_silent_build_has_the_time_waited(
    local: str, context: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is longer than the pool's timeout."""
    monkeypatch.setattr(_build, "SILENCE_SECONDS", 1.5)

    def begin(client: socket.socket, forward: Callable[[], socket.socket]) -> None:
        client.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"stream": "Step 1"}\n')
        freeze(client, forward)

    with (
        FaultProxy(tmp_path / "x", local).running() as proxy,
        dockertest.Pool(proxy.endpoint, timeout=1) as pool,
    ):
        proxy.next("POST .*/build", begin)
        with pytest.raises(dockertest.ImageBuildError, match=r"did not answer within 2\.5 s"):
            pool.build_and_run(name, context / "Dockerfile")


class GuardedProxy(FaultProxy):
    """An engine behind a proxy that requires a login."""

    def passed_on(self, head: bytes) -> bytes:
        return head if b"\r\nAuthorization: Basic YTpi\r\n" in head else head.replace(b" /", b" /nowhere/", 1)


def test_a_login_that_buildx_cannot_send_is_in_the_hint(
    local: str, tmp_path_factory: pytest.TempPathFactory, image: str, build_2: dockertest.BuildOptions
) -> None:
    """
    The hint names the headers that the client adds and buildx cannot send.

    Buildx connects by itself, without the headers of a custom client or of the CLI's configuration.
    """
    guarded = GuardedProxy(tmp_path_factory.mktemp("front") / "x", local)
    client = docker.DockerClient(guarded.endpoint, version="1.41")
    client.api.auth = ("a", "b")
    options = dockertest.RunOptions(name=image, cmd=SLEEP)
    with guarded.running(), dockertest.Pool(client=client, reaper=False) as pool:
        with pytest.raises(dockertest.ImageBuildError, match="page not found") as failure:
            pool.build_and_run_with_build_options(build_2, options)
        pool.build_and_run_with_build_options(dataclasses.replace(build_2, version="1"), options).close()
    client.close()
    assert failure.value.hint == (
        "`docker buildx` does not send requests as the client does: it adds headers (Authorization); use version='1' if the "
        "engine needs that"
    )


KILLED_BUILD = """
import sys, dockertest
auth = dockertest.AuthConfig("user", "hunter2", "registry.example")
build = dockertest.BuildOptions(sys.argv[1], version="2", auth=auth)
dockertest.Pool(sys.argv[2]).build_and_run_with_build_options(build, dockertest.RunOptions(name="never"))
"""


def test_no_credentials_stay_after_a_killed_build(local: str, tmp_path: Path) -> None:
    """A later session removes the docker CLI's folder, but not during the build."""
    state, program, context = tmp_path / "state", tmp_path / "bin" / "docker", tmp_path / "context"
    for folder in (state, program.parent, context):
        folder.mkdir()
    (context / "Dockerfile").write_text("FROM registry.example/x\n")
    environ = {**os.environ, "XDG_STATE_HOME": str(state), "DOCKER_HOST": f"unix://{local}"}
    prune = [sys.executable, "-m", "dockertest", "prune"]
    program.write_text(
        f'#!/bin/sh\n{shlex.join(prune)} && cp "$DOCKER_CONFIG/config.json" {tmp_path} && kill -9 $PPID\n'
    )
    program.chmod(0o755)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED_BUILD, str(context), f"unix://{local}"],
        env={**environ, "PATH": f"{program.parent}:{environ['PATH']}"},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    secret = base64.b64encode(b"user:hunter2")
    assert secret in (tmp_path / "config.json").read_bytes()
    (left,) = state.glob("dockertest/*.temporary/config.json")
    assert left.stat().st_mode & 0o777 == 0o600
    dockertest.retry(
        lambda: (
            not list(state.glob("dockertest/*.temporary"))
            if not subprocess.call(prune, env=environ)
            else False
        ),
        max_wait=15,
    )


def test_buildx_reaches_the_engine_without_a_proxy(
    local: str,
    pool: dockertest.Pool,
    image: str,
    build_2: dockertest.BuildOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine is added to the hosts that need no proxy."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")  # nothing listens there
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "else.where")
    build_2 = dataclasses.replace(build_2, build_args={"NO_PROXY": "a.test"})
    with pool.create_network() as network:
        address = pool.client.networks.get(network.id).attrs["IPAM"]["Config"][0]["Gateway"]
        with Front(local, host=address) as front, dockertest.Pool(front.url) as remote:
            options = dockertest.RunOptions(name=image, cmd=SLEEP)
            remote.build_and_run_with_build_options(build_2, options).close()


def test_proxies_of_the_docker_cli_reach_the_build(
    context: Path,
    tmp_path_factory: pytest.TempPathFactory,
    image: str,
    version: Version,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    Both builders set the proxies, as `docker build` does.

    Build arguments take precedence.
    """
    caplog.set_level(logging.INFO, logger="dockertest")
    folder = tmp_path_factory.mktemp("docker")
    proxy = {"httpProxy": "http://user:hunter2@proxy.test:1", "noProxy": "a.test"}
    (folder / "config.json").write_text(json.dumps({"proxies": {"default": proxy}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    dockerfile = (context / "Dockerfile").read_text()
    (context / "Dockerfile").write_text(
        dockerfile + "RUN echo $HTTP_PROXY $http_proxy $NO_PROXY $no_proxy > /proxies\nRUN echo $HTTP_PROXY\n"
    )
    build = dockertest.BuildOptions(
        context, build_args={"no_proxy": "b.test"}, version=version, no_cache=True
    )
    options = dockertest.RunOptions(name=image, cmd=SLEEP)
    with dockertest.Pool() as pool, pool.build_and_run_with_build_options(build, options) as resource:
        url = proxy["httpProxy"]
        assert resource.exec(["cat", "/proxies"]).stdout == f"{url} {url} b.test b.test\n"
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "fault", ["failing", "not found", "not executable", "no buildx", "refused", "ambiguous"]
)
def test_variables_in_tracebacks_have_no_secrets(
    context: Path,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    version: Version,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    """
    Neither the frames of an error nor those of its causes contain secrets.

    pytest's --showlocals and error trackers show the variables of all these frames.
    """
    folder = tmp_path_factory.mktemp("docker")
    entry = {"auth": base64.b64encode(b"ann:hunter2").decode()}
    config = {"auths": {"a.test": entry}, "proxies": {"default": {"httpProxy": "http://hunter2@p"}}}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    monkeypatch.setenv("TOKEN", "hunter2")
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text() + "RUN false\n")
    if fault in ("not found", "not executable", "no buildx"):
        monkeypatch.setenv("PATH", str(folder))
    if fault in ("not executable", "no buildx"):
        (folder / "docker").write_text(
            "#!/bin/false\n" if fault == "no buildx" else "#!/no/such/interpreter\n"
        )
        (folder / "docker").chmod(0o755)
    auth = dockertest.AuthConfig("ann", "hunter2", identity_token="hunter2")
    if fault == "ambiguous":
        (context / "Dockerfile").write_text("FROM a.test/a AS a\nFROM b.test/b\n")
    build = dockertest.BuildOptions(context, build_args={"A": "hunter2"}, version=version, auth=auth)
    with FaultProxy(context / "x.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        if fault == "refused":
            for _ in range(9):
                proxy.next("POST .*/(build|session|grpc)", refuse)
        with pytest.raises(dockertest.DockertestError) as caught:
            pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))
        shown = "".join(
            traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
        )
    _, _, ours = shown.partition("dockertest/_pool.py")  # the variables of this test precede it
    assert "context_dir" in ours or "options" in ours
    for secret in ("hunter2", entry["auth"], entry["auth"].rstrip("=")):
        assert secret not in ours


def test_escape_sequences_of_a_build_are_removed(
    pool: dockertest.Pool, context: Path, name: str, version: Version, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Escape sequences are removed before secrets are masked.

    A terminal would interpret them, and they could prevent a secret from being masked.
    """
    caplog.set_level(logging.INFO, logger="dockertest")
    line = r"RUN printf '\033]0;title\007evil \033[31mhun\033[0mter2\r\n'; false"
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text() + line + "\n")
    build = dockertest.BuildOptions(context, build_args={"SECRET": "hunter2"}, version=version)
    with pytest.raises(dockertest.ImageBuildError) as caught:
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))
    for shown in (caplog.text, str(caught.value)):
        assert "evil ***" in shown
        assert "\x1b" not in shown
        assert "\r" not in shown


@pytest.mark.parametrize("argument", ["DOCKER_HOST", "BUILDX_BUILDER", "PATH", "LD_PRELOAD"])
def test_a_build_argument_cannot_configure_the_docker_cli(
    pool: dockertest.Pool, context: Path, name: str, argument: str
) -> None:
    """
    A name that has a meaning for the docker CLI is rejected.

    Values are passed in the environment, which the docker CLI itself reads.
    """
    build = dockertest.BuildOptions(context, version="2", build_args={argument: "hunter2"})
    with pytest.raises(dockertest.InvalidOptionError, match=argument) as caught:
        pool.build_and_run_with_build_options(build, dockertest.RunOptions(name=name))
    assert "hunter2" not in str(caught.value)
