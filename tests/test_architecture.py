"""
Rules about the source that neither ruff nor import-linter can check.

The sources are parsed, not executed.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import dockertest
from dockertest import errors
from tests import layers
from tests.images.make import NEEDED
from tests.images.standins import HERE, folder

PACKAGE = Path(dockertest.__file__).parent
ROOT = Path(__file__).parent.parent
TREES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.glob("**/*.py"))
}

Definition = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def read(name: str) -> str:
    """
    Return a file of the repository, or skip the test.

    The test is skipped if only the tests were copied, as when a wheel is tested.
    """
    if not (ROOT / name).is_file():
        pytest.skip(f"{name} was not copied with the tests")
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_diagram_of_the_layers_is_up_to_date() -> None:
    """
    CONTRIBUTING.md shows the layers that import-linter checks.

    `python -m tests.layers` redraws them.
    """
    assert layers.draw(read("pyproject.toml")) in read("CONTRIBUTING.md")


def test_the_guide_describes_every_package() -> None:
    """Each private package has a row in the table below the diagram."""
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert packages <= set(re.findall(r"^\| `(\w+)`", read("CONTRIBUTING.md"), re.MULTILINE))


def test_no_module_has_a_meaningless_name() -> None:
    """A module is named after its topic."""
    assert [module for module in TREES if re.search("util|common|base|manager|misc|helper$", module)] == []


def test_the_package_is_typed() -> None:
    """Type checkers use the annotations of a package only if it has this marker."""
    assert (PACKAGE / "py.typed").is_file()


def test_type_checking_blocks_import_other_packages_only() -> None:
    """
    A module that needs a type from a layer above it belongs in another layer.

    These are in the same layer or one below, and imported on first use, since few programs need them.
    """
    internal = {
        (module, ast.unparse(node))
        for module, tree in TREES.items()
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test) and module != "__init__"
        for statement in block.body
        for node in ast.walk(statement)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "dockertest" in ast.unparse(node)
    }
    assert internal == {
        ("_containers.container", "from dockertest._containers.forward import LogForwarder"),
        ("_containers.launch", "from dockertest._containers.host_access import HostAccess"),
        ("_pool", "from dockertest._compose import Compose"),
        ("_pool", "from dockertest._prepared import PreparedImage"),
        ("_pool", "from dockertest._standby import Standby"),
        ("_resource", "from dockertest._proxy import Proxy"),
        ("_resource", "from dockertest.services import Connection, Service, Settings"),
    }


def executed_at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """
    Yield the nodes that run while a module is imported.

    The bodies of functions are excluded.
    """
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield node
            pending += ast.iter_child_nodes(node)


def test_no_import_reads_the_environment_or_a_file() -> None:
    """Tests change both after importing the package."""
    reads = {
        (module, ast.unparse(node))
        for module, tree in TREES.items()
        for node in executed_at_import(tree)
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "read_text", "read_bytes"))
        or (isinstance(node, ast.Call) and ast.unparse(node.func) == "open")
    }
    assert {(module, expression) for module, expression in reads if module != "_cli.main"} == set()


def public_definitions(parent: ast.AST, path: str) -> Iterator[tuple[str, str | None]]:
    """
    Yield the public classes, functions and methods with their docstrings.

    Overloads and the methods of protocols are excluded.
    """
    for node in ast.iter_child_nodes(parent):
        if not isinstance(node, Definition) or node.name.startswith("_"):
            continue
        if "overload" not in [ast.unparse(decorator) for decorator in node.decorator_list]:
            yield f"{path}.{node.name}", ast.get_docstring(node)
        if isinstance(node, ast.ClassDef) and "Protocol" not in [ast.unparse(base) for base in node.bases]:
            yield from public_definitions(node, f"{path}.{node.name}")


def test_public_names_have_docstrings() -> None:
    """This includes private modules, which ruff does not check."""
    assert [module for module, tree in TREES.items() if not ast.get_docstring(tree)] == []
    definitions = [entry for module, tree in TREES.items() for entry in public_definitions(tree, module)]
    assert [path for path, docstring in definitions if not docstring] == []


def test_docstrings_begin_with_a_short_summary() -> None:
    """The first line has fewer than 80 characters, in tests and examples too."""
    files = [path for name in ("tests", "examples", "docs") for path in sorted((ROOT / name).glob("**/*.py"))]
    trees = TREES | {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in files}
    summaries = [
        (name, (ast.get_docstring(node) or "").partition("\n")[0])
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, (*Definition, ast.Module))
    ]
    assert [(name, summary) for name, summary in summaries if len(summary) >= 80] == []


def test_docstrings_list_existing_errors() -> None:
    """
    `Raises:` lists errors of this package, and a few built-in ones.

    `OSError` stands for local files, and `BlockingIOError` for locked ones.
    """
    raised = {
        name
        for module, tree in TREES.items()
        for _, docstring in public_definitions(tree, module)
        for block in re.findall(r"Raises:\n((?: {4}.*\n?)+)", docstring or "")
        for name in re.findall(r"^ {4}(\w+):", block, re.MULTILINE)
    }
    assert raised <= {
        "OSError",
        "BlockingIOError",
        "KeyError",
        *(name for name in vars(errors) if name.endswith("Error")),
    }


def test_every_test_has_a_sentence_as_its_docstring() -> None:
    """The docstring states what must hold, and ends with a full stop."""
    missing = [
        (path.name, node.name)
        for path in sorted((ROOT / "tests").glob("**/test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, Definition) and node.name.lower().startswith("test")
        if not (ast.get_docstring(node) or "").endswith(".")
    ]
    assert missing == []


def test_changelog_and_readme_have_the_version_of_the_package() -> None:
    """
    The newest release of the changelog is this version.

    The README's wheel has the same number.
    """
    (version,) = re.findall(r'^version = "(.+)"$', read("pyproject.toml"), re.MULTILINE)
    releases = re.findall(r"^## \[(.+?)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert releases[0] == version
    assert len(releases) == len(set(releases))
    assert f"dist/dockertest_py-{version}-py3-none-any.whl[postgres]" in read("README.md")


def test_the_reference_lists_every_environment_variable() -> None:
    """One table explains all variables that the package reads, and no others."""
    read_by_package = {
        name
        for path in PACKAGE.glob("**/*.py")
        for name in re.findall(r"DOCKERTEST_\w+", path.read_text(encoding="utf-8"))
    }
    table = read("docs/reference/environment.md")
    assert set(re.findall(r"^\| `(DOCKERTEST_\w+)` \|", table, re.MULTILINE)) == read_by_package


def test_every_stand_in_names_its_image() -> None:
    """
    Each image that the tests need has a folder whose Dockerfile names it.

    There are no other folders.
    """
    first_lines = {
        name: (folder(name) / "Dockerfile").read_text(encoding="utf-8").splitlines()[0] for name in NEEDED
    }
    assert [name for name, line in first_lines.items() if name not in line] == []
    assert {folder(name) for name in NEEDED} == {path.parent for path in HERE.glob("*/Dockerfile")}
