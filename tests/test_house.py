"""How the code is laid out: floors, single doors, the paper. Read from the source; nothing is run."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dockertest
from dockertest import errors
from tests.images.make import NEEDED
from tests.images.standins import HERE, folder

PACKAGE = Path(dockertest.__file__).parent
ROOT = Path(__file__).parent.parent
TREES = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.glob("**/*.py"))}

# From the ground up: a module imports only what stands above it. `__init__` is only the face.
FLOORS = [
    "_report", "_timeline", "errors", "_specs", "_reference", "_values", "_options", "_retry", "_contexts", "_endpoint", "_ssh", "_dockerfile", "_sdk", "_engine", "_connect", "_create", "_keychain", "_credentials", "_progress", "_image", "_build", "_duplex", "_exec",
    "_logs", "_archive", "_mounts", "_files", "_session", "_address", "_process", "_watch", "_reaper", "_lifeline", "_reuse", "_network", "_handle", "_inside", "_resource", "_connection", "_upkeep", "_launch", "_pool",
    "_requirement", "_clones", "postgres", "testcase", "pytest_plugin",
    "_probes", "_services", "_screen", "_sandbox", "_inventory", "_doctor", "__main__",
]  # fmt: skip

# Libraries that one module alone may import; the others go through it.
DOORS = {
    "docker": {"_sdk"},
    "requests": {"_sdk"},
    "urllib3": {"_sdk"},
    "backoff": {"_retry"},
    "psycopg": {"_clones"},
    "pytest": {"pytest_plugin"},
}

# What may be imported within a function: what makes `import dockertest` or the reaper's start slow, and what not every
# system has.
LATE = {
    "docker",
    "requests",
    "urllib3",
    "backoff",
    "asyncio",
    "http.client",
    "ssl",
    "tqdm",
    "importlib.metadata",
    "fcntl",
    "msvcrt",
    "dockertest._requirement",  # and all below it: pytest imports its plugins in every run, of every project
    "dockertest._timeline",
}

# Who may import the face: what is handed on there loads when it is first used.
LIGHT = {"pytest_plugin"}

# Who may read the environment.
READERS = {"_connection", "_reaper", "_requirement", "__main__"}


def imports(tree: ast.AST) -> "Iterator[tuple[str, ast.Import | ast.ImportFrom]]":
    """Give every module that is imported, in full, with its statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "dockertest" if node.level else node.module or ""
            if node.level and node.module:
                origin += f".{node.module}"
            if origin == "dockertest":
                yield from ((f"dockertest.{alias.name}", node) for alias in node.names)
            else:
                yield origin, node


def functions(tree: ast.AST) -> "Iterator[ast.FunctionDef | ast.AsyncFunctionDef]":
    """Give every function and method."""
    yield from (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def under_type_checking(tree: ast.AST) -> "Iterator[ast.If]":
    """Give every block that only type checkers read."""
    yield from (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    )


def test_every_module_has_its_floor() -> None:
    """And no name that says nothing."""
    assert set(TREES) <= {*FLOORS, "__init__"}
    assert [module for module in TREES if re.search("util|helper|common|base|manager|misc", module)] == []


def test_a_module_imports_only_what_stands_below_it() -> None:
    """So that the package is read from the ground up; nobody imports the face."""
    wrong = {
        (module, name)
        for module, tree in TREES.items()
        for name, _ in imports(tree)
        if name.split(".")[0] == "dockertest"
        and module != "__init__"
        and name.removeprefix("dockertest.")
        not in (["dockertest", *below(module)] if module in LIGHT else below(module))
    }
    assert wrong == set()


def below(module: str) -> "list[str]":
    """Give what stands below a module."""
    return FLOORS[: FLOORS.index(module)]


def test_a_library_has_one_door() -> None:
    """Types included: what the rest needs of them is handed on there."""
    wrong = {
        (module, name)
        for module, tree in TREES.items()
        for name, _ in imports(tree)
        if module not in DOORS.get(name.split(".")[0], {module})
    }
    assert wrong == set()


def test_imports_stand_at_the_top() -> None:
    """But for those that would make the import of the package slow, or impossible on some systems."""
    late = {
        (module, name)
        for module, tree in TREES.items()
        for function in functions(tree)
        for name, _ in imports(function)
        if name not in LATE and name.split(".")[0] not in LATE
    }
    assert late == set()


def test_types_need_no_imports_of_their_own() -> None:
    """Of our modules, that is: who needs a type from above stands on the wrong floor."""
    ours = {
        (module, name)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and module != "__init__"
        for name, _ in imports(node)
        if name.startswith("dockertest")
    }
    assert ours == set()


def test_the_environment_is_read_in_one_place() -> None:
    """The rest is told what it says."""
    readings = {
        (module, ast.unparse(node))
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"))
        or (isinstance(node, ast.alias) and node.name in ("environ", "environb", "getenv"))
    }
    assert {module for module, _ in readings} <= READERS


def done_at_import(tree: ast.Module) -> "Iterator[ast.AST]":
    """Give what is done while a module is imported, functions left out."""
    todo: list[ast.AST] = list(tree.body)
    while todo:
        node = todo.pop()
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            todo += ast.iter_child_nodes(node)


def test_nothing_is_read_while_a_module_is_imported() -> None:
    """Neither the environment nor a file: tests change them."""
    done = {
        (module, ast.unparse(node))
        for module, tree in TREES.items()
        for node in done_at_import(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "read_text", "read_bytes"))
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "open")
    }
    assert {(module, what) for module, what in done if module != "__main__"} == set()


Explained = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def public(node: ast.AST, where: str) -> "Iterator[tuple[str, str | None]]":
    """Give the public classes, functions and methods, and what explains each; overloads are explained once."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, Explained) and each.name[0] != "_":
            if "overload" not in [ast.unparse(decorator) for decorator in each.decorator_list]:
                yield f"{where}.{each.name}", ast.get_docstring(each)
            if isinstance(each, ast.ClassDef) and "Protocol" not in [
                ast.unparse(base) for base in each.bases
            ]:
                yield from public(each, f"{where}.{each.name}")


def test_public_names_are_explained() -> None:
    """Modules, classes, functions and methods; those of a protocol are explained where they are done."""
    assert [module for module, tree in TREES.items() if not ast.get_docstring(tree)] == []
    unexplained = [
        where for module, tree in TREES.items() for where, text in public(tree, module) if not text
    ]
    assert unexplained == []


def test_what_raises_is_told_of_our_own_errors_alone() -> None:
    """`Raises:` lists errors that exist, and the system's own for a local file."""
    told = {
        name
        for module, tree in TREES.items()
        for _, text in public(tree, module)
        for block in re.findall(r"Raises:\n((?: {4}.*\n?)+)", text or "")
        for name in re.findall(r"^ {4}(\w+):", block, re.MULTILINE)
    }
    assert told <= {"OSError", *(name for name in vars(errors) if name.endswith("Error"))}


# A program of its own, in one file since it is started without this package.
LONG = {"reaper.py"}


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_module_is_longer_than_three_hundred_lines() -> None:
    """What grows beyond has two things in it."""
    lengths = {path.name: length(path) for path in sorted(PACKAGE.glob("**/*.py"))}
    assert {name for name, lines in lengths.items() if lines > 300} == LONG


def body(function: "ast.FunctionDef | ast.AsyncFunctionDef") -> int:
    """Give a function's length in lines, without decorators and docstring."""
    first = function.body[0]
    explained = ast.get_docstring(function) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if explained else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def test_nine_functions_of_ten_are_shorter_than_twenty_five_lines() -> None:
    """Their docstrings not counted."""
    lengths = [body(each) for tree in TREES.values() for each in functions(tree)]
    long = [each for each in lengths if each >= 25]
    assert len(long) <= len(lengths) / 10


def test_every_test_says_in_a_sentence_what_it_holds() -> None:
    """Tests, and what groups them; a sentence ends with a full stop; no test hides another of the same name."""
    silent, hidden = [], []
    for path in sorted((ROOT / "tests").glob("**/test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tests = [
            each for each in ast.walk(tree) if isinstance(each, Explained) and each.name[:4].lower() == "test"
        ]
        silent += [
            (path.name, each.name) for each in tests if not (ast.get_docstring(each) or "").endswith(".")
        ]
        names = [each.name for each in tree.body if isinstance(each, Explained)]
        hidden += [(path.name, name) for name in set(names) if names.count(name) > 1]
    assert silent == []
    assert hidden == []


def paper(name: str) -> str:
    """Give a text of the source tree; the tests may have been copied elsewhere, to be run on a wheel."""
    if not (ROOT / name).is_file():
        pytest.skip(f"there is no {name} beside these tests")
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_changelogs_newest_version_is_the_packages() -> None:
    """A release is named in both, and the README names its wheel."""
    (version,) = re.findall(r'^version = "(.+)"$', paper("pyproject.toml"), re.MULTILINE)
    newest = re.findall(r"^## \[(.+?)\]", paper("CHANGELOG.md"), re.MULTILINE)
    assert newest[0] == version
    assert f"dist/dockertest_py-{version}-py3-none-any.whl[postgres]" in paper("README.md")
    assert len(newest) == len(set(newest))


def test_the_readme_explains_every_variable_of_ours() -> None:
    """In one table, where somebody looks who met one in a pipeline's settings."""
    read = {
        name
        for path in PACKAGE.glob("*.py")
        for name in re.findall(r"DOCKERTEST_\w+", path.read_text("utf-8"))
    }
    assert set(re.findall(r"^\| `(DOCKERTEST_\w+)` \|", paper("README.md"), re.MULTILINE)) == read


def test_the_rooms_are_there() -> None:
    """What is neither on a floor nor the face would be held by no test."""
    assert {path.name for path in PACKAGE.iterdir() if path.suffix != ".py"} <= {"__pycache__", "py.typed"}
    assert (PACKAGE / "py.typed").is_file()


def test_every_stand_in_says_what_it_stands_for() -> None:
    """Each image that the tests need has a folder of its own, which names it, and there is no other."""
    first = {
        name: (folder(name) / "Dockerfile").read_text(encoding="utf-8").splitlines()[0] for name in NEEDED
    }
    assert [name for name, line in first.items() if name not in line] == []
    assert {folder(name) for name in NEEDED} == {path.parent for path in HERE.glob("*/Dockerfile")}
