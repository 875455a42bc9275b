"""The face of the package: one flat list of names, handed on when they are first used."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import dockertest

SOURCE = Path(dockertest.__file__).read_text(encoding="utf-8")
HEAVY = (
    "docker",
    "requests",
    "urllib3",
    "backoff",
    "asyncio",
    "tqdm",
    "psycopg",
    "typing_extensions",
    "dataclasses",
)


def run(program: str, tmp_path: Path) -> "list[str]":
    """Run a program in a new interpreter, away from the working tree, and give the words that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60
    )
    return done.stdout.split()


def type_checkers_names() -> "dict[str, str]":
    """Give the names that stand under TYPE_CHECKING, with the module that each comes from."""
    blocks = {ast.unparse(node.test): node for node in ast.parse(SOURCE).body if isinstance(node, ast.If)}
    found = {}
    for node in blocks["TYPE_CHECKING"].body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            assert isinstance(node, ast.ImportFrom)
            assert alias.asname == alias.name, "a type checker takes it for private otherwise"
            found[alias.name] = node.module or ""
    return found


def test_the_names_are_sorted_and_there_once() -> None:
    """So that two people who add one do not meet."""
    assert list(dockertest.__all__) == sorted(set(dockertest.__all__))


def test_every_name_has_a_home_and_only_one() -> None:
    """What is handed on and what is in `__all__` are the same."""
    homes = [name for names in dockertest._HOMES.values() for name in names]
    assert sorted(homes) == dockertest.__all__


def test_type_checkers_are_told_the_same_names() -> None:
    """From the same modules."""
    told = type_checkers_names()
    handed_on = {name: f"dockertest.{home}" for home, names in dockertest._HOMES.items() for name in names}
    assert told == handed_on


@pytest.mark.parametrize("name", dockertest.__all__)
def test_a_name_is_what_its_module_says(name: str) -> None:
    """And the same object however it is reached."""
    value = getattr(dockertest, name)
    assert value is getattr(import_module(f"dockertest.{dockertest._HOME_OF[name]}"), name)
    assert getattr(dockertest, name) is value
    assert value.__doc__


def test_every_error_is_handed_on() -> None:
    """Nobody should have to look for one in `dockertest.errors`."""
    errors = {name for name in vars(dockertest.errors) if name.endswith("Error")}
    assert errors <= set(dockertest.__all__)


def test_a_name_that_is_not_there_is_told_as_usual() -> None:
    """As Python itself would say it."""
    with pytest.raises(AttributeError, match=r"^module 'dockertest' has no attribute 'Poool'$"):
        dockertest.Poool  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Poool'"):
        from dockertest import Poool  # type: ignore[attr-defined] # noqa: F401


def test_dir_lists_every_name_once() -> None:
    """Before and after it was first used."""
    listed = dir(dockertest)
    assert set(dockertest.__all__) <= set(listed)
    assert len(listed) == len(set(listed))


def test_the_version_is_the_distributions() -> None:
    """It is written in one place only."""
    from importlib.metadata import version

    assert dockertest.__version__ == version("dockertest-py")


def test_the_errors_are_there_without_an_import_of_their_own(tmp_path: Path) -> None:
    """As in `except dockertest.errors.EngineError`."""
    program = "import dockertest; print(dockertest.errors.EngineError is dockertest.EngineError)"
    assert run(program, tmp_path) == ["True"]


def test_importing_it_loads_next_to_nothing(tmp_path: Path) -> None:
    """Neither a library nor any module of ours but the package itself."""
    program = """
import sys
before = set(sys.modules)
import dockertest
print(*sorted(set(sys.modules) - before))
"""
    loaded = run(program, tmp_path)
    assert [each for each in loaded if each.split(".")[0] in HEAVY] == []
    assert [each for each in loaded if each.startswith("dockertest")] == ["dockertest"]


def test_all_of_its_names_load_no_engine(tmp_path: Path) -> None:
    """`from dockertest import *` gives every name; the docker SDK, backoff and asyncio still wait."""
    program = """
import sys
from dockertest import *
import dockertest
print(*[name for name in dockertest.__all__ if name not in globals()])
print("|")
print(*sorted({each.split(".")[0] for each in sys.modules}))
"""
    words = run(program, tmp_path)
    missing, loaded = words[: words.index("|")], words[words.index("|") + 1 :]
    assert missing == []
    assert {"docker", "requests", "urllib3", "backoff", "asyncio", "tqdm"} & set(loaded) == set()
