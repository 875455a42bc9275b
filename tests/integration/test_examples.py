"""The examples run as documented and leave nothing, and their index is correct."""

import importlib.metadata
import os
import re
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors
import pytest

import dockertest
from tests.images.make import NEEDED
from tests.images.standins import PREFIX
from tests.integration.conftest import Engine, without_tls_warning

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVICES = sorted(path.stem for path in EXAMPLES.glob("run_*.py"))
WARNINGS = (
    "-W",
    "ignore::DeprecationWarning",
    "-W",
    "ignore::FutureWarning",
    "-W",
    "error::DeprecationWarning:__main__",
)


@dataclass(frozen=True)
class Row:
    """An example's row in the index."""

    images: list[str]
    clients: list[str]
    here: bool  # whether it runs without a registry


def index() -> dict[str, Row]:
    """Read the table in the index."""
    rows = {}
    for line in (EXAMPLES / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| [`"):
            example, _, images, clients, where = (cell.strip() for cell in line.strip("| ").split("|"))
            name, link = re.findall(r"`(.+?)`\]\((.+?)\)", example)[0]
            assert name == link
            assert where in ("here", "needs a registry")
            rows[name] = Row(re.findall(r"`(.+?)`", images), re.findall(r"`(.+?)`", clients), where == "here")
    return rows


INDEX = index()


def run(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """
    Run Python with warnings as errors.

    Deprecation warnings of client libraries are exempt.
    """
    return subprocess.run(
        [sys.executable, "-W", "error", *WARNINGS, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )


def has_image(engine: Engine, image: str) -> bool:
    """Return whether the engine has an image."""
    try:
        engine.client.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True


class MarkedRun:
    """The objects that a process created, recognized by a unique time to live."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.began = int(time.time())
        self.ttl = 10_000_000 + 1000 * secrets.randbelow(900_000)

    def is_marked(self, labels: dict[str, str]) -> bool:
        """Return whether the expiry time results from this run's time to live."""
        expires = labels.get("dockertest.expires", "")  # other tests write other texts than times into it
        return expires.isdecimal() and len(expires) < 20 and 0 <= int(expires) - self.began - self.ttl < 1000

    def leftovers(self) -> list[str]:
        """Return the names of the existing containers and networks."""
        api: Any = self.engine.client.api
        label = {"label": "dockertest.expires"}
        things = [*api.containers(all=True, filters=label), *api.networks(filters=label)]
        return [item.get("Name") or item["Names"][0] for item in things if self.is_marked(item["Labels"])]


@pytest.mark.parametrize("name", SERVICES)
def test_an_example_runs_and_leaves_nothing(name: str, engine: Engine, tmp_path: Path) -> None:
    """
    An example prints one line with the image and the answer.

    A remote engine causes a warning.
    """
    row, prefix = INDEX[f"{name}.py"], os.environ.get("DOCKERTEST_IMAGE_PREFIX", "")
    missing = [prefix + image for image in row.images if not has_image(engine, prefix + image)]
    if not row.here and missing and prefix == PREFIX:
        pytest.skip(
            f"machine: {missing[0]} is not available: it has no stand-in, and no registry is reachable"
        )
    marked = MarkedRun(engine)
    ended = run(str(EXAMPLES / f"{name}.py"), cwd=tmp_path, DOCKERTEST_TTL=str(marked.ttl))
    warning = "" if engine.is_local else rf"ports are published on all addresses of .*{engine.host}.*;.*\n"
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(warning, without_tls_warning(ended.stderr))
    assert re.fullmatch(rf".*{re.escape(row.images[0])}.* gave back .+\n", ended.stdout)
    assert marked.leftovers() == []
    assert [image for image in re.findall(r"greeting-\w+", ended.stdout) if has_image(engine, image)] == []
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_an_example_are_recognized(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the test above could never find any."""
    marked = MarkedRun(engine)
    monkeypatch.setenv("DOCKERTEST_TTL", str(marked.ttl))
    with dockertest.Pool() as pool:
        network = pool.create_network()
        container = pool.run("busybox:1.35", cmd=["sleep", "60"])
        assert sorted(marked.leftovers()) == sorted([network.name, f"/{container.name}"])
    assert marked.leftovers() == []


def test_the_index_is_complete() -> None:
    """It has one row for each file and for each folder that is an example."""
    folders = [f"{path.name}/" for path in EXAMPLES.glob("with_*") if path.is_dir()]
    assert sorted(INDEX) == sorted([*(path.name for path in EXAMPLES.glob("*.py")), *folders])


@pytest.mark.parametrize("name", sorted(INDEX))
def test_the_index_names_the_images(name: str) -> None:
    """
    Each image is used by its example.

    The tests create the images of examples that need no registry.
    """
    row, path = INDEX[name], EXAMPLES / name
    files = [*path.rglob("*.py")] if path.is_dir() else [path]
    if name == "run_dockerfile.py":
        files += [EXAMPLES / "dockerfile" / "Dockerfile"]
    source = " ".join(" ".join(file.read_text(encoding="utf-8") for file in files).split())
    for image in row.images:
        repository, _, tag = image.rpartition(":")
        assert image in source or f'"{repository}", "{tag}"' in source or f'tag="{tag}"' in source
        assert (image in NEEDED) == row.here


def test_the_index_lists_the_clients_of_the_extra() -> None:
    """The extra `examples` installs exactly the libraries that the examples use."""
    required = importlib.metadata.requires("dockertest-py") or []
    extra = {
        re.split(r"[^\w-]", requirement)[0]
        for requirement in required
        if re.search(r"""extra == ['"]examples['"]""", requirement)
    }
    named = {client for name, row in INDEX.items() if name.startswith("run_") for client in row.clients}
    assert named == extra


def test_exposure_notifications(engine: Engine) -> None:
    """The example prints the start, address, durations, answer and removal."""
    ended = run(str(EXAMPLES / "exposure_notifications.py"))
    assert ended.returncode == 0, ended.stderr
    for text in (
        "started in",
        f"listens on {engine.host}:",
        "ready in",
        "answers: PostgreSQL 15",
        "read back",
        "gone in",
    ):
        assert text in ended.stdout


@pytest.mark.parametrize("value", ["1", "true", "TRUE"])
def test_exposure_notifications_can_be_skipped(value: str) -> None:
    """As in Go, a variable turns off the tests with a database."""
    ended = run(str(EXAMPLES / "exposure_notifications.py"), SKIP_DATABASE_TESTS=value)
    assert "SKIP_DATABASE_TESTS is set" in ended.stderr
    assert "started" not in ended.stdout
