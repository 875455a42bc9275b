"""The examples run, as a user would run them, and leave nothing behind; their index tells the truth."""

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
from tests.integration.conftest import Engine, besides_plain_tcp

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
RAN: dict[str, bool] = {}  # which of them were run; `False` for one whose image cannot be had


@dataclass(frozen=True)
class Row:
    """What the index says of an example."""

    images: list[str]
    clients: list[str]
    here: bool  # whether it runs where no registry is reached


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
    """Run Python with warnings as errors, but for what clients say of the Python they meet; give what it said."""
    return subprocess.run(
        [sys.executable, "-W", "error", *WARNINGS, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
    )


def is_there(engine: Engine, image: str) -> bool:
    """Whether the engine has an image."""
    try:
        engine.client.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True


class Marked:
    """What was made by a process, known by a time limit that nobody else gives."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.began = int(time.time())
        self.ttl = 10_000_000 + 1000 * secrets.randbelow(900_000)

    def is_ours(self, labels: dict[str, str]) -> bool:
        """Whether the time limit is ours, the run's own length given."""
        return 0 <= int(labels.get("dockertest.expires", 0)) - self.began - self.ttl < 1000

    def left(self) -> list[str]:
        """Give the names of the containers and networks that are there."""
        api: Any = self.engine.client.api
        label = {"label": "dockertest.expires"}
        things = [*api.containers(all=True, filters=label), *api.networks(filters=label)]
        return [each.get("Name") or each["Names"][0] for each in things if self.is_ours(each["Labels"])]


@pytest.mark.parametrize("name", SERVICES)
def test_it_runs_alone_and_leaves_nothing(name: str, engine: Engine, tmp_path: Path) -> None:
    """One line tells what came back from which image, and nothing is left; a remote engine's addresses are warned of."""
    row, prefix = INDEX[f"{name}.py"], os.environ.get("DOCKERTEST_IMAGE_PREFIX", "")
    missing = [prefix + image for image in row.images if not is_there(engine, prefix + image)]
    if not row.here and missing and prefix == PREFIX:
        RAN[name] = False
        pytest.skip(
            f"machine: {missing[0]} cannot be had here: it has no stand-in, and no registry is reached"
        )
    marked = Marked(engine)
    ended = run(str(EXAMPLES / f"{name}.py"), cwd=tmp_path, DOCKERTEST_TTL=str(marked.ttl))
    told = "" if engine.is_local else rf"ports are published on all addresses of .*{engine.host}.*;.*\n"
    assert ended.returncode == 0, ended.stderr
    assert re.fullmatch(told, besides_plain_tcp(ended.stderr))
    assert re.fullmatch(rf".*{re.escape(row.images[0])}.* gave back .+\n", ended.stdout)
    assert marked.left() == []
    assert [image for image in re.findall(r"greeting-\w+", ended.stdout) if is_there(engine, image)] == []
    assert list(tmp_path.iterdir()) == []
    RAN[name] = True


def test_what_an_example_makes_is_known(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its mark, as long as it is there: else nothing would ever be found to be left."""
    marked = Marked(engine)
    monkeypatch.setenv("DOCKERTEST_TTL", str(marked.ttl))
    with dockertest.Pool() as pool:
        network = pool.create_network()
        container = pool.run("busybox:1.35", cmd=["sleep", "60"])
        assert sorted(marked.left()) == sorted([network.name, f"/{container.name}"])
    assert marked.left() == []


def test_every_example_was_run(request: pytest.FixtureRequest) -> None:
    """None of those chosen for this run is forgotten, and only what needs a registry may be skipped."""
    chosen = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_it_runs_alone_and_leaves_nothing"
    ]
    assert sorted(RAN) == sorted(chosen)
    assert [name for name, ran in RAN.items() if not ran and INDEX[f"{name}.py"].here] == []


def test_the_index_tells_of_every_example() -> None:
    """A row for each file, and each folder that is an example by itself; and one of them for each row."""
    folders = [f"{path.name}/" for path in EXAMPLES.glob("with_*") if path.is_dir()]
    assert sorted(INDEX) == sorted([*(path.name for path in EXAMPLES.glob("*.py")), *folders])


@pytest.mark.parametrize("name", sorted(INDEX))
def test_the_index_names_the_images(name: str) -> None:
    """Those that the example runs; what runs here has images that are made for the tests, and the rest has none."""
    row, path = INDEX[name], EXAMPLES / name
    files = [*path.rglob("*.py")] if path.is_dir() else [path]
    if name == "run_dockerfile.py":
        files += [EXAMPLES / "dockerfile" / "Dockerfile"]
    source = "".join(each.read_text(encoding="utf-8") for each in files)
    for image in row.images:
        repository, _, tag = image.rpartition(":")
        assert image in source or f'"{repository}", "{tag}"' in source or f'tag="{tag}"' in source
        assert (image in NEEDED) == row.here


def test_the_clients_are_those_of_the_index() -> None:
    """Nothing is installed for the examples that none of them is written with."""
    required = importlib.metadata.requires("dockertest-py") or []
    extra = {
        re.split(r"[^\w-]", each)[0] for each in required if re.search(r"""extra == ['"]examples['"]""", each)
    }
    named = {client for name, row in INDEX.items() if name.startswith("run_") for client in row.clients}
    assert named == extra


def test_exposure_notifications(engine: Engine) -> None:
    """It tells what it started, where, how long it took, what the server answered, and that it is gone."""
    ended = run(str(EXAMPLES / "exposure_notifications.py"))
    assert ended.returncode == 0, ended.stderr
    for told in (
        "started in",
        f"listens on {engine.host}:",
        "ready in",
        "answers: PostgreSQL 15",
        "read back",
        "gone in",
    ):
        assert told in ended.stdout


@pytest.mark.parametrize("value", ["1", "true", "TRUE"])
def test_exposure_notifications_is_skipped_when_told_to(value: str) -> None:
    """As in Go, a variable turns the tests with a database off."""
    ended = run(str(EXAMPLES / "exposure_notifications.py"), SKIP_DATABASE_TESTS=value)
    assert "SKIP_DATABASE_TESTS is set" in ended.stderr
    assert "started" not in ended.stdout
