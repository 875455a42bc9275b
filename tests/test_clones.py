"""When one migrated database can stand for another: by what is known of the migration."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dockertest import InvalidOptionError
from dockertest._template import template_name


def migrate(url: str) -> None:
    """Fill a database."""
    print(url, "CREATE TABLE a", {"x", "y"} & {url})


def other(url: str) -> None:
    """Fill a database in another way."""
    print(url, "CREATE TABLE b", {"x", "y"} & {url})


class Migration:
    """Something that can be called."""

    def __call__(self, url: str) -> None:
        print(url)

    def run(self, url: str) -> None:
        """Do it."""
        print(url)


def test_a_template_is_named_after_what_fills_it() -> None:
    """The same callable and version give the same name; another one, or another version, gives another."""
    names = [
        template_name(migrate, ""),
        template_name(other, ""),
        template_name(migrate, "1"),
        template_name(migrate, ["1", "2"]),
        template_name(Migration(), ""),
        template_name(Migration().run, ""),
        template_name(functools.partial(migrate, "x"), ""),
        template_name(functools.partial(migrate, "y"), ""),
        template_name(lambda _url: None, ""),
        template_name(print, ""),
    ]
    assert len(set(names)) == len(names)
    assert names[0] == template_name(migrate, "") == template_name(migrate, [""])
    assert names[4] == template_name(Migration(), "")
    assert all(name.startswith("dockertest_template_") and len(name) < 64 for name in names)


def test_the_code_of_the_migration_counts() -> None:
    """Who edits it, gets a new template, even without a version."""
    made = []
    for statement in ("CREATE TABLE a", "CREATE TABLE b"):
        namespace: dict[str, object] = {}
        exec(f"def migrate(url):\n    return [url, {statement!r}]", namespace)
        made.append(template_name(namespace["migrate"], ""))
    assert made[0] != made[1]


def test_what_is_bound_to_the_migration_counts() -> None:
    """A default, and what a decorator wraps; but not what it counts its calls with."""
    called: list[str] = []

    def wrap(run: "Callable[[str], object]", folder: str = "a") -> "Callable[[str], object]":
        def wrapped(url: str, _folder: str = folder) -> object:
            called.append(url)
            return run(url)

        return wrapped

    def names() -> "list[str]":
        made = [wrap(migrate), wrap(other), wrap(migrate, "b")]
        return [template_name(each, "") for each in made]

    first = names()
    assert len(set(first)) == len(first)
    wrap(migrate)("")
    assert names() == first


def test_an_object_that_is_bound_to_it_has_no_address() -> None:
    """Each process and run would else migrate anew, and leave one more template."""

    def run(_migration: Migration, url: str) -> None:
        print(url)

    bound = [Migration(), Migration()]
    assert len({template_name(functools.partial(run, each), "") for each in bound}) == 1
    assert template_name(functools.partial(run, bound[0]), "1") != template_name(run, "1")


def test_every_process_gives_the_same_name() -> None:
    """Whatever the order of its sets is: workers of a test runner share one template."""
    code = "from tests.test_clones import migrate; from dockertest._template import template_name; print(template_name(migrate, ''))"
    names = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parent.parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(names) == 1


def test_files_count_by_their_content(tmp_path: Path) -> None:
    """A folder with all that is in it; times do not count."""
    (tmp_path / "1.sql").write_text("CREATE TABLE a ()")
    first = template_name(migrate, tmp_path)
    os.utime(tmp_path / "1.sql", (1, 1))
    assert template_name(migrate, tmp_path) == template_name(migrate, [tmp_path]) == first
    (tmp_path / "1.sql").write_text("CREATE TABLE b ()")
    second = template_name(migrate, tmp_path)
    (tmp_path / "2.sql").write_text("CREATE TABLE c ()")
    third = template_name(migrate, tmp_path)
    assert len({first, second, third, template_name(migrate, [tmp_path, "word"])}) == 4


@pytest.mark.parametrize("version", [5, None, [5], b"1", ["1", None]])
def test_a_version_is_text_or_a_path(version: object) -> None:
    """Anything else is refused by its name."""
    with pytest.raises(InvalidOptionError, match="version must be text, a path, or a sequence of them"):
        template_name(migrate, version)


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    """It would otherwise count as nothing."""
    with pytest.raises(InvalidOptionError, match=r"^version: there is no .*no\.sql'$"):
        template_name(migrate, tmp_path / "no.sql")


def test_what_cannot_be_called_is_no_migration() -> None:
    """Such as the name of a file."""
    with pytest.raises(
        InvalidOptionError, match=r"migrate must be a callable that takes a URL: got 'a\.sql'"
    ):
        template_name("a.sql", "")
