"""What a pool did and when: as data, as a table, as a picture."""

from xml.etree import ElementTree

import pytest

from dockertest import Step
from dockertest._timeline import KINDS, Timeline, picture, table


def step(kind: str, began: float, seconds: float, name: str = "pg", image: str = "postgres:15") -> Step:
    """Make a step of a container that is called as its id is."""
    return Step(kind=kind, image=image, container=f"id of {name}", name=name, began=began, seconds=seconds)


def test_steps_are_noted_with_what_the_body_found_out() -> None:
    """In the order of their beginnings; an earlier step learns the name that came later."""
    timeline = Timeline()
    with timeline.step("create", "postgres:15") as said:
        said["container"] = "1"
    with timeline.step("start", "postgres:15") as said:
        said |= {"container": "1", "name": "pg"}
    first, second = timeline.steps()
    assert (first.kind, first.name, first.failed) == ("create", "pg", False)
    assert (second.kind, second.name) == ("start", "pg")
    assert first.began <= second.began
    assert 0 <= first.seconds < 5


def test_a_step_that_fails_is_noted_as_well() -> None:
    """It took its time, too; the error goes on."""
    timeline = Timeline()
    with pytest.raises(ZeroDivisionError), timeline.step("pull", "postgres:15"):
        raise ZeroDivisionError
    assert [(each.kind, each.failed) for each in timeline.steps()] == [("pull", True)]


def test_the_table_has_a_line_for_each_container() -> None:
    """The slowest first; what nobody did has no column."""
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


def test_the_picture_is_svg() -> None:
    """With a bar for each step, a line for each container, and nothing of a name that would be markup."""
    steps = [step(kind, index, 1, name="<&>") for index, kind in enumerate(KINDS)]
    root = ElementTree.fromstring(picture(steps))
    titles = [each.text for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == [f"{kind} 1.00 s" for kind in KINDS]
    assert "postgres:15 <&>" in [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    ElementTree.fromstring(picture([]))
