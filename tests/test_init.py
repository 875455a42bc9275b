"""The public API: one flat list of names, which are imported lazily."""

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
    """
    Run a program in a new interpreter, and return the words that it prints.

    It runs outside the working tree.
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=60
    )
    return done.stdout.split()


def names_for_type_checkers() -> "dict[str, str]":
    """Return the names imported under TYPE_CHECKING, and the module of each."""
    blocks = {ast.unparse(node.test): node for node in ast.parse(SOURCE).body if isinstance(node, ast.If)}
    names = {}
    for node in blocks["TYPE_CHECKING"].body:
        for alias in node.names if isinstance(node, ast.ImportFrom) else ():
            assert isinstance(node, ast.ImportFrom)
            assert alias.asname == alias.name, "type checkers would treat it as private"
            names[alias.name] = node.module or ""
    return names


def test_the_names_are_sorted_and_unique() -> None:
    """This avoids merge conflicts between new names."""
    assert list(dockertest.__all__) == sorted(set(dockertest.__all__))


def test_every_name_is_imported_from_exactly_one_module() -> None:
    """The lazily imported names are those in `__all__`."""
    homes = [name for names in dockertest._HOMES.values() for name in names]
    assert sorted(homes) == dockertest.__all__


def test_type_checkers_see_the_same_names() -> None:
    """They are imported from the same modules."""
    imported = names_for_type_checkers()
    lazy = {name: f"dockertest.{home}" for home, names in dockertest._HOMES.items() for name in names}
    assert imported == lazy


@pytest.mark.parametrize("name", dockertest.__all__)
def test_a_name_is_the_object_in_its_module(name: str) -> None:
    """Every access returns the same object."""
    value = getattr(dockertest, name)
    assert value is getattr(import_module(f"dockertest.{dockertest._HOME_OF[name]}"), name)
    assert getattr(dockertest, name) is value
    assert value.__doc__


def test_every_error_is_exported() -> None:
    """Users do not have to import errors from `dockertest.errors`."""
    errors = {name for name in vars(dockertest.errors) if name.endswith("Error")}
    assert errors <= set(dockertest.__all__)


def test_an_unknown_name_raises_the_usual_error() -> None:
    """The message is the one that Python uses for other modules."""
    with pytest.raises(AttributeError, match=r"^module 'dockertest' has no attribute 'Poool'$"):
        dockertest.Poool  # type: ignore[attr-defined] # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Poool'"):
        from dockertest import Poool  # type: ignore[attr-defined] # noqa: F401


def test_dir_lists_every_name_once() -> None:
    """This holds both before and after the name is first used."""
    listed = dir(dockertest)
    assert set(dockertest.__all__) <= set(listed)
    assert len(listed) == len(set(listed))


def test_the_version_is_that_of_the_distribution() -> None:
    """It is defined in one place only."""
    from importlib.metadata import version

    assert dockertest.__version__ == version("dockertest-py")


def test_the_errors_module_needs_no_separate_import(tmp_path: Path) -> None:
    """`except dockertest.errors.EngineError` works after `import dockertest`."""
    program = "import dockertest; print(dockertest.errors.EngineError is dockertest.EngineError)"
    assert run(program, tmp_path) == ["True"]


def test_importing_the_package_loads_nothing_else(tmp_path: Path) -> None:
    """It loads neither a heavy library nor another of our own modules."""
    program = """
import sys
before = set(sys.modules)
import dockertest
print(*sorted(set(sys.modules) - before))
"""
    loaded = run(program, tmp_path)
    assert [module for module in loaded if module.split(".")[0] in HEAVY] == []
    assert [module for module in loaded if module.startswith("dockertest")] == ["dockertest"]


def test_importing_every_name_does_not_load_the_docker_sdk(tmp_path: Path) -> None:
    """After `from dockertest import *`, backoff and asyncio are not loaded either."""
    program = """
import sys
from dockertest import *
import dockertest
print(*[name for name in dockertest.__all__ if name not in globals()])
print("|")
print(*sorted({module.split(".")[0] for module in sys.modules}))
"""
    words = run(program, tmp_path)
    missing, loaded = words[: words.index("|")], words[words.index("|") + 1 :]
    assert missing == []
    assert {"docker", "requests", "urllib3", "backoff", "asyncio", "tqdm"} & set(loaded) == set()
