"""A fingerprint changes if and only if the migration does."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dockertest import InvalidOptionError
from dockertest._fingerprint import fingerprint
from dockertest._template import template_name


def migrate(url: str) -> None:
    """Fill a database."""
    print(url, "CREATE TABLE a", {"x", "y"} & {url})


def other(url: str) -> None:
    """Fill a database in another way."""
    print(url, "CREATE TABLE b", {"x", "y"} & {url})


class Migration:
    """An object that can be called."""

    def __call__(self, url: str) -> None:
        print(url)

    def run(self, url: str) -> None:
        """Migrate."""
        print(url)


def test_each_function_and_version_has_its_own_fingerprint() -> None:
    """
    Functions, methods and callable objects are distinguished.

    So are partial functions and versions.
    """
    prints = [
        fingerprint(migrate, ""),
        fingerprint(other, ""),
        fingerprint(migrate, "1"),
        fingerprint(migrate, ["1", "2"]),
        fingerprint(Migration(), ""),
        fingerprint(Migration().run, ""),
        fingerprint(functools.partial(migrate, "x"), ""),
        fingerprint(functools.partial(migrate, "y"), ""),
        fingerprint(lambda _url: None, ""),
        fingerprint(print, ""),
    ]
    assert len(set(prints)) == len(prints)
    assert prints[0] == fingerprint(migrate, "") == fingerprint(migrate, [""])
    assert prints[4] == fingerprint(Migration(), "")


def test_a_template_has_a_name_that_postgresql_accepts() -> None:
    """Names have at most 63 bytes."""
    name = template_name(migrate, "")
    assert name.startswith("dockertest_template_")
    assert len(name) < 64


def test_the_code_is_part_of_the_fingerprint() -> None:
    """An edited migration has another fingerprint even with the same version."""
    prints = []
    for statement in ("CREATE TABLE a", "CREATE TABLE b"):
        namespace: dict[str, object] = {}
        exec(f"def migrate(url):\n    return [url, {statement!r}]", namespace)
        prints.append(fingerprint(namespace["migrate"], ""))
    assert prints[0] != prints[1]


def test_bound_values_are_part_of_the_fingerprint() -> None:
    """
    These are default arguments and wrapped functions.

    The mutable state of a decorator is not part of it.
    """
    calls: list[str] = []

    def wrap(run: "Callable[[str], object]", folder: str = "a") -> "Callable[[str], object]":
        def wrapped(url: str, _folder: str = folder) -> object:
            calls.append(url)
            return run(url)

        return wrapped

    def prints() -> "list[str]":
        migrations = [wrap(migrate), wrap(other), wrap(migrate, "b")]
        return [fingerprint(migration, "") for migration in migrations]

    first = prints()
    assert len(set(first)) == len(first)
    wrap(migrate)("")
    assert prints() == first


def test_the_address_of_a_bound_object_is_ignored() -> None:
    """Otherwise every process would create another template."""

    def run(_migration: Migration, url: str) -> None:
        print(url)

    bound = [Migration(), Migration()]
    assert len({fingerprint(functools.partial(run, migration), "") for migration in bound}) == 1
    assert fingerprint(functools.partial(run, bound[0]), "1") != fingerprint(run, "1")


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    """
    Workers of a test runner share one template.

    The order of sets differs between processes, but the fingerprint does not.
    """
    code = "from tests.test_fingerprint import fingerprint, migrate; print(fingerprint(migrate, ''))"
    prints = {
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
    assert len(prints) == 1


def test_the_contents_of_files_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    """A folder includes all its files, but not their times."""
    (tmp_path / "1.sql").write_text("CREATE TABLE a ()")
    first = fingerprint(migrate, tmp_path)
    os.utime(tmp_path / "1.sql", (1, 1))
    assert fingerprint(migrate, tmp_path) == fingerprint(migrate, [tmp_path]) == first
    (tmp_path / "1.sql").write_text("CREATE TABLE b ()")
    second = fingerprint(migrate, tmp_path)
    (tmp_path / "2.sql").write_text("CREATE TABLE c ()")
    third = fingerprint(migrate, tmp_path)
    assert len({first, second, third, fingerprint(migrate, [tmp_path, "word"])}) == 4


@pytest.mark.parametrize("version", [5, None, [5], b"1", ["1", None]])
def test_an_invalid_version_is_rejected(version: object) -> None:
    """A version is a string, a path, or a sequence of them."""
    with pytest.raises(
        InvalidOptionError, match=r"^invalid version .*: expected a string, a path, or a sequence of them$"
    ):
        fingerprint(migrate, version)


def test_a_missing_path_is_rejected(tmp_path: Path) -> None:
    """Otherwise a typo would hide every change of the files."""
    with pytest.raises(
        InvalidOptionError,
        match=r"^version: .*no\.sql' does not exist; pass text that is not a path as a str$",
    ):
        fingerprint(migrate, tmp_path / "no.sql")


def test_a_migration_must_be_callable() -> None:
    """The name of a file is rejected."""
    with pytest.raises(
        InvalidOptionError, match=r"^invalid migrate 'a\.sql': expected a callable that takes a URL$"
    ):
        template_name("a.sql", "")
