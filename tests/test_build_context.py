"""
The registries of a Dockerfile's images, and the archive of a build context.

No engine is needed.
"""

import io
import os
import re
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from dockertest import BuildOptions, ImageBuildError
from dockertest._images import build_context
from dockertest._images.build_context import Dockerfile

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM busybox:1.35", {""}),
        ("from busybox", {""}),
        ("FROM team/app", {""}),
        ("FROM localhost/app", {"localhost"}),
        ("FROM registry.test:5000/team/app:1 AS base\nFROM base\nFROM BASE AS last", {"registry.test:5000"}),
        (f"FROM --platform=$BUILDPLATFORM registry.test/app@{DIGEST}", {"registry.test"}),
        ("FROM scratch\nCOPY --chown=1 --from=registry.test/a /a /b\nCOPY --from=0 /a /b", {"registry.test"}),
        ("FROM a.test/a\nRUN --mount=type=bind,from=b.test/b,target=/b true", {"a.test", "b.test"}),
        ("ARG HOST=a.test\nFROM ${HOST}/a", {"a.test"}),
        ("ARG HOST='a.test'\nFROM $HOST/a", {"a.test"}),
        ("ARG GIVEN=a.test\nFROM ${GIVEN}/a", {"given.test"}),
        ("FROM ${NEVER:-a.test}/a", {"a.test"}),
        ("FROM $NEVER/a", set()),
        ("FROM ${NEVER:?words}/a", set()),
        ("# FROM a.test/a\n\tFROM b.test/b", {"b.test"}),
        ("", set()),
        ("ARG PREFIX=\nFROM ${PREFIX}busybox:1.35", {""}),
        ("ARG GIVEN_NOTHING=a.test/\nFROM ${GIVEN_NOTHING}busybox", {""}),
        ("ARG HOST=a.test:5000\nARG BASE=${HOST}/app:1\nFROM ${BASE}", {"a.test:5000"}),
        ("ARG TAG=1 HOST='a.test' OTHER\nFROM ${HOST}/app:${TAG}", {"a.test"}),
        ("ARG HOST=a.test\nARG HOST=b.test\nFROM $HOST/a", {"b.test"}),
        ("ARG HOST=a.test\nFROM $HOST/a\nARG HOST=b.test\nFROM $HOST/b", {"a.test"}),
        ("FROM a.test/app:1-${TARGETARCH}", {"a.test"}),
        ("FROM busybox:$TAG\nFROM a.test/app@$DIGEST", {"", "a.test"}),
        ("FROM base-$NEVER", set()),
        ("FROM a.test:$PORT/app", set()),
        ("FROM ${NEVER-a.test}/app\nFROM ${NEVER:-${GIVEN-b.test}}/app", {"a.test", "b.test"}),
        ("ARG NONE=\nFROM ${NONE-a.test/}app\nFROM ${NONE:-b.test/}app", {"", "b.test"}),
        (
            "ARG V=1\nFROM a.test/app${V:+:$V}\nFROM ${V:+b.test/}app\nFROM c.test/app${N:+:$N}",
            {"a.test", "b.test", "c.test"},
        ),
        ("ARG V=a.test\nFROM ${V:?missing}/app\nFROM ${V/a/b}/app", {"a.test"}),
        ("FROM \\\n  a.test/app:1", {"a.test"}),
        ("FROM \\  \r\n\r\n# a comment\r\n  a.test/app:1 AS one\r\nFROM one", {"a.test"}),
        ("# a comment \\\nFROM a.test/app", {"a.test"}),
        ("# escape=`\nFROM `\n a.test/app\nCOPY . C:\\\nFROM b.test/app", {"a.test", "b.test"}),
        (
            (
                "FROM scratch\nRUN --mount=type=cache,target=/c \\\n  --mount=from=a.test/a,target=/a \\\n"
                "  --mount=type=bind,from=b.test/b,target=/b \\\n  tool --from=c.test/c from=d.test/d"
            ),
            {"a.test", "b.test"},
        ),
        ("\ufeffFROM a.test/app AS one\nFROM one", {"a.test"}),
    ],
)
def test_registries_of_the_images_in_a_dockerfile(dockerfile: str, expected: set[str]) -> None:
    """
    Arguments are substituted.

    Stages and names that cannot be determined are omitted.
    """
    parsed = Dockerfile(Path(), Path("Dockerfile"), Path("Dockerfile"), dockerfile.encode())
    assert parsed.registries({"GIVEN": "given.test", "GIVEN_NOTHING": ""}) == expected


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("# syntax=a.test/dockerfile:1\nFROM b.test/b", {"a.test"}),
        ("# escape=\\\n# Syntax = docker/dockerfile:1\nFROM b.test/b", {""}),
        ("FROM b.test/b\n# syntax=a.test/dockerfile:1", set()),
        ("FROM b.test/b", set()),
    ],
)
def test_the_registry_of_the_image_that_reads_the_dockerfile(dockerfile: str, expected: set[str]) -> None:
    """The first lines or a build argument name it."""
    parsed = Dockerfile(Path(), Path("Dockerfile"), Path("Dockerfile"), dockerfile.encode())
    assert parsed.frontend_registry({}) == expected
    assert parsed.frontend_registry({"BUILDKIT_SYNTAX": "c.test/dockerfile"}) == {"c.test"}


def test_registries_of_caches() -> None:
    """A cache is an image, or has the type in its value."""
    caches = ["a.test/app:cache", "type=registry,ref=b.test/app", "app", "type=local,src=/x", "type=registry"]
    assert build_context.cache_registries(caches) == {"a.test", "b.test", ""}
    assert build_context.cache_registries(caches[3:]) == set()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A build context with a Dockerfile."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    return tmp_path


def members(folder: Path) -> dict[str, tarfile.TarInfo]:
    """Return the members of the archive of a build context."""
    dockerfile = Dockerfile.read(BuildOptions(folder))
    with build_context.packed(dockerfile) as file, tarfile.open(fileobj=file) as archive:
        return {member.name: member for member in archive}


@pytest.mark.parametrize(
    ("exception", "expected"),
    [
        ("src/**/*.py", {"src/top.py", "src/a/b/y.py"}),
        ("**/y.py", {"src/a/b/y.py"}),
        ("s*/a/b", {"src/a/b", "src/a/b/y.py"}),
        ("src/a", {"src/a", "src/a/b", "src/a/b/y.py", "src/a/n.txt"}),
        ("src/[ab]/n.txt", {"src/a/n.txt"}),
    ],
)
def test_exceptions_below_an_ignored_folder(folder: Path, exception: str, expected: set[str]) -> None:
    """Their patterns may match at any depth."""
    for name in ("src/top.py", "src/a/b/y.py", "src/a/n.txt", "other/z.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / ".dockerignore").write_text(f"*\n!{exception}\n")
    assert set(members(folder)) - {"Dockerfile", ".dockerignore"} == expected


def test_folders_without_exceptions_are_not_read(folder: Path) -> None:
    """They may be large."""
    (folder / "source").mkdir()
    (folder / "src").mkdir()
    rules = build_context.parse_rules(["*", "!src/*.py", "!source.py"])
    read: list[str] = []
    original = build_context._children

    def children(context: Path, path: str) -> list[str]:
        read.append(path)
        return original(context, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_context, "_children", children)
        list(build_context.included(folder, rules, set()))
    assert read == ["", "src"]


@contextmanager
def unprivileged() -> Iterator[None]:
    """Obey the permissions of files, as root does not."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="Windows has no such permissions")
def test_a_folder_that_cannot_be_read() -> None:
    """It is skipped if it is left out, even if an exception could match in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "data").mkdir(mode=0)
        (folder / "a.py").touch()
        with unprivileged():
            rules = build_context.parse_rules(["*", "!**/*.py"])
            assert list(build_context.included(folder, rules, set())) == ["a.py"]
            with pytest.raises(ImageBuildError, match="data' for the build: permission denied"):
                list(build_context.included(folder, [], set()))


def test_a_file_that_vanishes_is_named(folder: Path) -> None:
    """A file may be removed after its folder was listed."""
    with pytest.raises(
        ImageBuildError, match=f"cannot read '{folder}/gone' for the build: no such file"
    ) as caught:
        list(build_context.pack(folder, ["Dockerfile", "gone"], {}))
    assert ".dockerignore" in caught.value.hint


def test_a_file_that_becomes_shorter_is_named(folder: Path) -> None:
    """The header, which has been written by then, contains its size."""
    file = folder / "log"
    file.write_bytes(bytes(1 << 20))
    blocks = build_context.pack(folder, ["log"], {})
    next(blocks)
    os.truncate(file, 10)
    with pytest.raises(ImageBuildError, match=f"cannot read '{file}' for the build: the file became shorter"):
        list(blocks)


def test_a_file_that_grows_is_truncated(folder: Path) -> None:
    """The archive stays valid."""
    (folder / "log").write_bytes(b"1" * 600)
    blocks = build_context.pack(folder, ["log", "Dockerfile"], {})
    packed = next(blocks)
    with (folder / "log").open("ab") as file:
        file.write(b"2" * 600)
    with tarfile.open(fileobj=io.BytesIO(packed + b"".join(blocks))) as archive:
        assert [(member.name, member.size) for member in archive] == [("log", 600), ("Dockerfile", 13)]


def test_special_files_are_not_opened(folder: Path) -> None:
    """Opening a pipe would wait for its other end; sockets cannot be in an archive."""
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(folder / "socket"))
        packed = members(folder)
    assert packed["pipe"].isfifo()
    assert "socket" not in packed


def test_the_depth_of_folders_is_not_limited(folder: Path) -> None:
    """They may be nested more deeply than Python's recursion limit allows."""
    deepest = folder
    try:
        for _ in range(1100):
            deepest /= "d"
            deepest.mkdir()
        assert len(members(folder)) == 1101
    finally:
        subprocess.run(["rm", "-rf", folder / "d"], check=True)  # shutil.rmtree is recursive


def test_links_and_names_are_preserved(folder: Path) -> None:
    """Links are not followed, and names that are not text keep their bytes."""
    (folder / "link").symlink_to("../nowhere")
    (folder / os.fsdecode(b"raw\xff")).touch()
    (folder / "caf\u00e9").touch()
    packed = members(folder)
    assert packed["link"].linkname == "../nowhere"
    assert {os.fsdecode(b"raw\xff"), "caf\u00e9"} < set(packed)
    assert {member.uid for member in packed.values()} == {0}


@pytest.mark.parametrize(
    ("pattern", "path"),
    [("*a" * 12 + "b", "a" * 250), ("*a?" * 12 + "b", "a" * 250), ("**/" * 40 + "b", "a/" * 100 + "c")],
)
def test_patterns_with_many_stars_are_fast(pattern: str, path: str) -> None:
    """Naive regular expressions for these would take hours."""
    (rule,) = build_context.parse_rules([pattern])
    assert not rule.pattern.fullmatch(path)
    assert rule.pattern.fullmatch(path[:-1] + "b")


@hypothesis.given(
    st.lists(st.sampled_from(["*", "*", "?", "a", "b", "/", "[ab]", "**/"]), min_size=1, max_size=8),
    st.text("ab/", min_size=1, max_size=8),
)
def test_fast_patterns_are_equivalent_to_naive_ones(parts: list[str], path: str) -> None:
    """The optimised expression matches the same paths."""
    expressions = [
        build_context._expression(part) for part in build_context._PATTERN_PART.finditer("".join(parts))
    ]
    naive = re.compile("".join(expressions), re.DOTALL)
    fast = re.compile(build_context._join(expressions), re.DOTALL)
    assert bool(fast.fullmatch(path)) is bool(naive.fullmatch(path))
