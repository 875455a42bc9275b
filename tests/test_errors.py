"""The errors: one family, all of which travel between processes."""

import copy
import inspect
import pickle
import re
from typing import Any

import pytest

import dockertest
from dockertest import errors

REPORT = dockertest.Report(name="pg", id="3f" * 32, image="postgres:15", status="exited", exit_code=137)

# The tree of the documentation: each error, what else it is, and what it says besides its text.
TREE: "dict[str, tuple[type[Exception], dict[str, Any]]]" = {
    "DockerUnavailableError": (Exception, {}),
    "InvalidOptionError": (ValueError, {}),
    "ImagePullError": (Exception, {}),
    "ImageBuildError": (Exception, {}),
    "ContainerCreateError": (Exception, {}),
    "ContainerStartError": (Exception, {"report": REPORT}),
    "ContainerExitedError": (
        Exception,
        {"exit_code": 137, "oom_killed": True, "logs": "one\ntwo", "report": REPORT},
    ),
    "PortNotPublishedError": (LookupError, {"port": "5433/tcp", "published": ("5432/tcp",)}),
    "NotInNetworkError": (LookupError, {}),
    "NotInContainerError": (Exception, {}),
    "RetryTimeoutError": (TimeoutError, {"attempts": 3, "elapsed": 1.5, "reports": (REPORT,)}),
    "ExecError": (Exception, {"result": ("exit", 1)}),
    "ExecTimeoutError": (Exception, {"result": ("exit", 1)}),
    "ResourceClosedError": (Exception, {}),
    "CleanupError": (Exception, {"failures": (errors.EngineError("left", status=500),)}),
    "EngineError": (Exception, {"status": 404}),
}
every_error = pytest.mark.parametrize("name", TREE)


def make(name: str) -> "errors.DockertestError":
    """Make one with all that it says."""
    made: errors.DockertestError = getattr(errors, name)("what went wrong: it", **TREE[name][1])
    return made


def test_these_are_all() -> None:
    """Whoever adds one adds it to the documentation, and here."""
    found = {
        name for name, each in vars(errors).items() if inspect.isclass(each) and issubclass(each, Exception)
    }
    assert found == {*TREE, "DockertestError"}


def test_all_of_them_are_drawn_in_the_module() -> None:
    """The tree at its top is the tree."""
    drawn = re.findall(r"\b(\w+Error)\b", errors.__doc__ or "")
    assert {name for name in drawn if hasattr(errors, name)} == {*TREE, "DockertestError"}
    assert set(drawn) - {*TREE, "DockertestError"} == {"ValueError", "LookupError", "TimeoutError"}


@every_error
def test_an_error_is_of_the_family(name: str) -> None:
    """And what it is called by others, where it is that as well."""
    cls = getattr(errors, name)
    assert cls.__bases__ in [(errors.DockertestError,), (errors.DockertestError, TREE[name][0])]
    assert issubclass(cls, TREE[name][0])
    assert getattr(dockertest, name) is cls


@every_error
def test_an_error_pickles_with_all_that_it_says(name: str) -> None:
    """Test runners send errors between processes."""
    error = make(name)
    pickled = [pickle.dumps(error, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for copied in (*map(pickle.loads, pickled), copy.copy(error)):
        assert type(copied) is type(error)
        assert str(copied) == str(error) == "what went wrong: it"
        for attribute, value in TREE[name][1].items():
            assert repr(getattr(copied, attribute)) == repr(value)


@every_error
def test_an_error_needs_no_more_than_its_text(name: str) -> None:
    """What else it says has a value in any case."""
    error = getattr(errors, name)("what went wrong")
    assert str(error) == "what went wrong"
    assert {attribute: getattr(error, attribute) for attribute in TREE[name][1]}.keys() == TREE[name][
        1
    ].keys()
    assert set(vars(error)) == set(TREE[name][1])


@every_error
def test_what_an_error_says_is_explained(name: str) -> None:
    """In its docstring."""
    for attribute in TREE[name][1]:
        assert f"\n    {attribute}: " in (inspect.getdoc(getattr(errors, name)) or "")


def test_the_attributes_are_given_by_name() -> None:
    """A text is all that stands in a row."""
    with pytest.raises(TypeError):
        errors.EngineError("x", 404)  # type: ignore[call-arg]
