"""A fingerprint changes if and only if the migration does."""

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dockertest import InvalidOptionError
from dockertest._fingerprint import describe_origin, fingerprint
from dockertest._template import template_name
from dockertest._validation import check_has_run


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


class Derived(Migration):
    """Has the same method under another name."""


@dataclass
class Configured:
    """An object with a value, which its `repr` shows."""

    table: str

    def __call__(self, url: str) -> None:
        print(url, self.table)

    def run(self, url: str) -> None:
        """Migrate."""
        print(url, self.table)


def enclosed(value: object) -> "Callable[..., None]":
    """Return a function with a value in its closure."""

    def run(*urls: str) -> None:
        print(urls, value)

    return run


def decorated(run: "Callable[[str], object]") -> "Callable[[str], object]":
    """Return a function that calls another one."""

    def wrapped(url: str) -> object:
        return run(url)

    return wrapped


SETS = functools.partial(enclosed(frozenset({"a", "b", "c"})), {"x", "y", "z"})


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


@pytest.mark.parametrize(
    "bind",
    [
        enclosed,
        lambda value: enclosed((1, value)),
        lambda value: enclosed(frozenset({value})),
        lambda value: enclosed(Path(value)),
        lambda value: decorated(decorated(enclosed(value))),
        lambda value: functools.partial(print, enclosed(value)),
        lambda value: functools.partial(dict, run={"first": [enclosed(value)]}),
        lambda value: decorated(functools.partial(migrate, value)),
        lambda value: Configured(value).run,
        Configured,
    ],
)
def test_functions_with_other_values_differ(bind: "Callable[[str], Any]") -> None:
    """One must not get the data of the other."""
    assert fingerprint(bind("a"), "") == fingerprint(bind("a"), "") != fingerprint(bind("b"), "")


@pytest.mark.parametrize(
    "bind",
    [
        enclosed,
        Configured,
        lambda value: Configured(value).run,
        lambda value: functools.partial(print, value),
    ],
)
def test_functions_with_other_values_do_not_replace_each_other(bind: "Callable[[str], Any]") -> None:
    """They are not versions of one function."""
    origins = [describe_origin(bind(value), "") for value in ("a", "a", "b")]
    assert origins[0] == origins[1] != origins[2]


def test_a_function_with_another_path_replaces_the_one_before() -> None:
    """The path may be that of a temporary folder, which is another one in each run."""
    functions = [enclosed(Path(value)) for value in ("a", "b")]
    assert len({fingerprint(function, "") for function in functions}) == 2
    assert len({describe_origin(function, "") for function in functions}) == 1


def test_an_inherited_method_is_part_of_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The object's own class does not have its code."""
    first = fingerprint(Derived(), "")
    monkeypatch.setattr(Migration, "__call__", lambda _self, url: print(url, "changed"))
    assert fingerprint(Derived(), "") != first


def test_a_variable_that_the_function_assigns_is_ignored() -> None:
    """It may count the calls, also in a function inside of it."""
    count = total = 0

    def counting(url: str) -> None:
        nonlocal count

        def add() -> None:
            nonlocal total
            total += 1

        count += 1
        add()
        print(url)

    first = fingerprint(counting, "")
    counting("")
    assert (count, total) == (1, 1)
    assert fingerprint(counting, "") == first


def test_a_function_may_refer_to_itself() -> None:
    """Its closure contains the function, and one that calls it."""

    def first(url: str) -> None:
        second(url)
        first(url)

    def second(url: str) -> None:
        first(url)

    values: list[object] = [first]
    values.append(values)
    assert fingerprint(first, "") == fingerprint(first, "") != fingerprint(second, "")
    assert fingerprint(functools.partial(print, values), "") != fingerprint(print, "")


def test_functions_may_refer_to_each_other() -> None:
    """Each is described once, since many ways lead from one to another."""
    names = [f"step_{number}" for number in range(20)]
    lines = ["def enclosing():"]
    for name in names:
        lines += [f"    def {name}(url):", f"        return [{', '.join(names)}]"]
    namespace: dict[str, Any] = {}
    exec("\n".join([*lines, f"    return [{', '.join(names)}]"]), namespace)
    steps = namespace["enclosing"]()
    assert len({fingerprint(step, "") for step in steps}) == len(steps)


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
    code = (
        "from tests.test_fingerprint import SETS, describe_origin, fingerprint, migrate\n"
        "print(fingerprint(migrate, ''), fingerprint(SETS, ''), describe_origin(SETS, ''))"
    )
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


def test_compiled_files_and_modes_are_ignored(tmp_path: Path) -> None:
    """Python compiles the migrations that it imports, and modes depend on the user."""
    package = tmp_path / "migrations"
    (package / "inner").mkdir(parents=True)
    (package / "first.py").write_text("SQL = 'CREATE TABLE a ()'")
    first = fingerprint(migrate, package)
    for compiled in ("__pycache__/first.pyc", "inner/__pycache__/x.pyc.123", "old.pyc", "old.pyo"):
        (package / compiled).parent.mkdir(exist_ok=True)
        (package / compiled).write_text("compiled")
    (package / "first.py").chmod(0o600)
    assert fingerprint(migrate, package) == first
    (package / "inner" / "second.py").write_text("")
    assert fingerprint(migrate, package) != first
    assert fingerprint(migrate, package / "old.pyc") != fingerprint(migrate, package / "first.py")


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


async def coroutine(url: str) -> None:
    """Would run only if it was awaited."""
    print(url)


def generator(url: str) -> "Iterator[None]":
    """Would run only if something iterated over it."""
    yield print(url)


async def async_generator(url: str) -> "AsyncIterator[None]":
    """Would run only if something iterated over it."""
    yield print(url)


class AsyncMigration:
    """An object whose call has to be awaited."""

    async def __call__(self, url: str) -> None:
        print(url)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (coroutine, "coroutine"),
        (AsyncMigration(), "coroutine"),
        (functools.partial(coroutine, "x"), "coroutine"),
        (generator, "generator"),
        (async_generator, "generator"),
    ],
)
def test_a_function_that_a_call_does_not_run_is_rejected(function: Any, kind: str) -> None:
    """Nothing would be migrated, and the empty result kept."""
    with pytest.raises(InvalidOptionError, match=rf"^migrate is a {kind} function: ") as raised:
        template_name(function, "")
    assert ("asyncio.run" in raised.value.hint) == (kind == "coroutine")
    for result in (function("x"),) if not isinstance(function, functools.partial) else ():
        with pytest.raises(InvalidOptionError, match=rf"^migrate is a {kind} function: "):
            check_has_run("migrate", result)


def test_a_future_is_not_the_result_of_a_migration() -> None:
    """The task would run later, if at all."""

    async def main() -> None:
        task = asyncio.ensure_future(coroutine("x"))
        with pytest.raises(InvalidOptionError, match=r"^fill is a coroutine function: "):
            check_has_run("fill", task)
        await task

    asyncio.run(main())
    for result in (None, [1], iter([1]), "x"):
        check_has_run("fill", result)
