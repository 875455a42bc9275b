"""The timeline of a pool as data, as a table and as a drawing."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import dockertest
from dockertest import Step
from dockertest._timeline import KINDS, Timeline, picture, table


def step(kind: str, began: float, seconds: float, name: str = "pg", image: str = "postgres:15") -> Step:
    """Return a step of a container."""
    return Step(kind=kind, image=image, container=f"id of {name}", name=name, began=began, seconds=seconds)


def test_steps_are_recorded() -> None:
    """They are ordered by their start; all steps of a container have its latest name."""
    timeline = Timeline()
    with timeline.step("create", "postgres:15") as known:
        known["container"] = "1"
    with timeline.step("start", "postgres:15") as known:
        known |= {"container": "1", "name": "pg"}
    first, second = timeline.steps()
    assert (first.kind, first.name, first.failed) == ("create", "pg", False)
    assert (second.kind, second.name) == ("start", "pg")
    assert first.began <= second.began
    assert 0 <= first.seconds < 5


def test_a_failed_step_is_recorded() -> None:
    """The error is raised."""
    timeline = Timeline()
    with pytest.raises(ZeroDivisionError), timeline.step("pull", "postgres:15"):
        raise ZeroDivisionError
    assert [(step.kind, step.failed) for step in timeline.steps()] == [("pull", True)]


def test_the_table_has_a_row_for_each_container() -> None:
    """The slowest row is first, and empty columns are left out."""
    steps = [
        step("create", 0, 0.01),
        step("start", 0.01, 0.25),
        step("ready", 0.3, 1.5),
        step("create", 0, 0.02, name="cache", image="redis:7"),
        step("ready", 1, 0.1, name="cache", image="redis:7"),
        step("ready", 2, 0.2, name="cache", image="redis:7"),
    ]
    assert table(steps) == [
        "                 create    start    ready      all",
        "postgres:15 pg     0.01     0.25     1.50     1.76",
        "redis:7 cache      0.02              0.30     0.32",
    ]
    assert table([]) == []
    assert table([step("start", 0, 1, name="a\x1b[2J\nb")])[1].startswith("postgres:15 a b ")


def test_all_kinds_of_steps_are_shown() -> None:
    """The table and the drawing know every kind that the package records."""
    sources = [path.read_text(encoding="utf-8") for path in Path(dockertest.__file__).parent.rglob("*.py")]
    recorded = {kind for source in sources for kind in re.findall(r'timeline\.step\("(\w+)"', source)}
    assert recorded == set(KINDS)


def test_the_drawing_is_svg() -> None:
    """It has a bar for each step and a row for each container; names are escaped."""
    steps = [step(kind, index, 1, name="<&\x1b[2J>") for index, kind in enumerate(KINDS)]
    root = ElementTree.fromstring(picture(steps))
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == [f"{kind} 1.00 s" for kind in KINDS]
    assert "postgres:15 <&>" in [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    ElementTree.fromstring(picture([]))
