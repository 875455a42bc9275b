"""The exceptions: one tree, and every one of them can be sent between processes."""

import base64
import copy
import inspect
import pickle
import re
from typing import Any

import pytest

import dockertest
from dockertest import errors

REPORT = dockertest.Report(name="pg", id="3f" * 32, image="postgres:15", status="exited", exit_code=137)

# The documented tree: each error, its other base class, and its attributes in addition to the message.
TREE: "dict[str, tuple[type[Exception], dict[str, Any]]]" = {
    "DockerUnavailableError": (Exception, {}),
    "InvalidOptionError": (ValueError, {}),
    "ImagePullError": (Exception, {}),
    "ImageBuildError": (Exception, {}),
    "ContainerCreateError": (Exception, {}),
    "ContainerStartError": (Exception, {"report": REPORT}),
    "PrepareError": (Exception, {"report": REPORT}),
    "ContainerExitedError": (
        Exception,
        {"exit_code": 137, "oom_killed": True, "logs": "one\ntwo", "report": REPORT},
    ),
    "PortNotPublishedError": (LookupError, {"port": "5433/tcp", "published": ("5432/tcp",)}),
    "PortNotBoundError": (LookupError, {"port": "5433/tcp"}),
    "NotInNetworkError": (LookupError, {}),
    "NotInContainerError": (Exception, {}),
    "RetryTimeoutError": (TimeoutError, {"attempts": 3, "elapsed": 1.5, "reports": (REPORT,)}),
    "HostAccessError": (Exception, {}),
    "ComposeError": (Exception, {"output": "yaml: line 1", "reports": (REPORT,)}),
    "LogFailureError": (Exception, {"line": "FATAL: no space", "report": REPORT}),
    "ExecError": (Exception, {"result": ("exit", 1)}),
    "ExecTimeoutError": (Exception, {"result": ("exit", 1)}),
    "ResourceClosedError": (Exception, {}),
    "CleanupError": (Exception, {"failures": (errors.EngineError("left", status=500),)}),
    "EngineError": (Exception, {"status": 404}),
}
every_error = pytest.mark.parametrize("name", TREE)

# Pickled by the code of commit ed1eea0. Errors had no hints and their `__module__` was `dockertest.errors`, and results of
# commands were defined in `dockertest._exec`.
PICKLES: dict[str, str] = {
    "DockertestError": (
        "gASVQwAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwPRG9ja2VydGVzdEVycm9ylJOUjBN3aGF0IHdlbnQgd3Jvbmc6IGl0lIWU"
        "UpQu"
    ),
    "DockerUnavailableError": (
        "gASVSgAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwWRG9ja2VyVW5hdmFpbGFibGVFcnJvcpSTlIwTd2hhdCB3ZW50IHdyb25n"
        "OiBpdJSFlFKULg=="
    ),
    "InvalidOptionError": (
        "gASVRgAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwSSW52YWxpZE9wdGlvbkVycm9ylJOUjBN3aGF0IHdlbnQgd3Jvbmc6IGl0"
        "lIWUUpQu"
    ),
    "ImagePullError": (
        "gASVQgAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwOSW1hZ2VQdWxsRXJyb3KUk5SME3doYXQgd2VudCB3cm9uZzogaXSUhZRS"
        "lC4="
    ),
    "ImageBuildError": (
        "gASVQwAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwPSW1hZ2VCdWlsZEVycm9ylJOUjBN3aGF0IHdlbnQgd3Jvbmc6IGl0lIWU"
        "UpQu"
    ),
    "ContainerCreateError": (
        "gASVSAAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwUQ29udGFpbmVyQ3JlYXRlRXJyb3KUk5SME3doYXQgd2VudCB3cm9uZzog"
        "aXSUhZRSlC4="
    ),
    "ContainerStartError": (
        "gASVHwEAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwTQ29udGFpbmVyU3RhcnRFcnJvcpSTlIwTd2hhdCB3ZW50IHdyb25nOiBp"
        "dJSFlFKUfZSMBnJlcG9ydJSMEmRvY2tlcnRlc3QuX3JlcG9ydJSMBlJlcG9ydJSTlCmBlF2UKIwCcGeUjEAzZjNmM2YzZjNmM2Yz"
        "ZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmlIwLcG9zdGdyZXM6MTWUjAZleGl0ZWSU"
        "S4mIjAJub5SMBHNpY2uUjBs1NDMyL3RjcCAtPiAxMjcuMC4wLjE6NDkxNTOUhZSMB29uZQp0d2+USwNHP/gAAAAAAABlYnNiLg=="
    ),
    "ContainerExitedError": (
        "gASVRgEAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwUQ29udGFpbmVyRXhpdGVkRXJyb3KUk5SME3doYXQgd2VudCB3cm9uZzog"
        "aXSUhZRSlH2UKIwJZXhpdF9jb2RllEuJjApvb21fa2lsbGVklIiMBGxvZ3OUjAdvbmUKdHdvlIwGcmVwb3J0lIwSZG9ja2VydGVz"
        "dC5fcmVwb3J0lIwGUmVwb3J0lJOUKYGUXZQojAJwZ5SMQDNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2Yz"
        "ZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2aUjAtwb3N0Z3JlczoxNZSMBmV4aXRlZJRLiYiMAm5vlIwEc2lja5SMGzU0MzIvdGNwIC0+"
        "IDEyNy4wLjAuMTo0OTE1M5SFlGgKSwNHP/gAAAAAAABlYnViLg=="
    ),
    "PortNotPublishedError": (
        "gASVeQAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwVUG9ydE5vdFB1Ymxpc2hlZEVycm9ylJOUjBN3aGF0IHdlbnQgd3Jvbmc6"
        "IGl0lIWUUpR9lCiMBHBvcnSUjAg1NDMzL3RjcJSMCXB1Ymxpc2hlZJSMCDU0MzIvdGNwlIWUdWIu"
    ),
    "NotInNetworkError": (
        "gASVRQAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwRTm90SW5OZXR3b3JrRXJyb3KUk5SME3doYXQgd2VudCB3cm9uZzogaXSU"
        "hZRSlC4="
    ),
    "NotInContainerError": (
        "gASVRwAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwTTm90SW5Db250YWluZXJFcnJvcpSTlIwTd2hhdCB3ZW50IHdyb25nOiBp"
        "dJSFlFKULg=="
    ),
    "RetryTimeoutError": (
        "gASVQQEAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwRUmV0cnlUaW1lb3V0RXJyb3KUk5SME3doYXQgd2VudCB3cm9uZzogaXSU"
        "hZRSlH2UKIwIYXR0ZW1wdHOUSwOMB2VsYXBzZWSURz/4AAAAAAAAjAdyZXBvcnRzlIwSZG9ja2VydGVzdC5fcmVwb3J0lIwGUmVw"
        "b3J0lJOUKYGUXZQojAJwZ5SMQDNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNmM2YzZjNm"
        "M2YzZjNmM2aUjAtwb3N0Z3JlczoxNZSMBmV4aXRlZJRLiYiMAm5vlIwEc2lja5SMGzU0MzIvdGNwIC0+IDEyNy4wLjAuMTo0OTE1"
        "M5SFlIwHb25lCnR3b5RLA0c/+AAAAAAAAGVihZR1Yi4="
    ),
    "ExecError": (
        "gASVggAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwJRXhlY0Vycm9ylJOUjBN3aGF0IHdlbnQgd3Jvbmc6IGl0lIWUUpR9lIwG"
        "cmVzdWx0lIwQZG9ja2VydGVzdC5fZXhlY5SMCkV4ZWNSZXN1bHSUk5QpgZRdlChLAYwDb3V0lIwDZXJylGVic2Iu"
    ),
    "ExecTimeoutError": (
        "gASVjAAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwQRXhlY1RpbWVvdXRFcnJvcpSTlIwTd2hhdCB3ZW50IHdyb25nOiBpdJSF"
        "lFKUfZSMBnJlc3VsdJSMEGRvY2tlcnRlc3QuX2V4ZWOUjApFeGVjUmVzdWx0lJOUKYGUXZQoSv////9DA291dJRDA2VycpRlYnNi"
        "Lg=="
    ),
    "ResourceClosedError": (
        "gASVRwAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwTUmVzb3VyY2VDbG9zZWRFcnJvcpSTlIwTd2hhdCB3ZW50IHdyb25nOiBp"
        "dJSFlFKULg=="
    ),
    "CleanupError": (
        "gASVfgAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwMQ2xlYW51cEVycm9ylJOUjBN3aGF0IHdlbnQgd3Jvbmc6IGl0lIWUUpR9"
        "lIwIZmFpbHVyZXOUaACMC0VuZ2luZUVycm9ylJOUjARsZWZ0lIWUUpR9lIwGc3RhdHVzlE30AXNihZRzYi4="
    ),
    "EngineError": (
        "gASVTwAAAAAAAACMEWRvY2tlcnRlc3QuZXJyb3JzlIwLRW5naW5lRXJyb3KUk5SME3doYXQgd2VudCB3cm9uZzogaXSUhZRSlH2U"
        "jAZzdGF0dXOUTZQBc2Iu"
    ),
}


def make(name: str, **texts: str) -> "errors.DockertestError":
    """Make an error with all its attributes."""
    error: errors.DockertestError = getattr(errors, name)("what failed: why", **TREE[name][1], **texts)
    return error


def test_the_table_above_lists_every_error() -> None:
    """A new error has to be added to the documentation and to this table."""
    classes = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    assert classes == {*TREE, "DockertestError"}


def test_the_docstring_of_the_module_has_the_tree() -> None:
    """It contains every error and every other base class."""
    names = set(re.findall(r"\b(\w+Error)\b", errors.__doc__ or ""))
    assert names - {"ValueError", "LookupError", "TimeoutError"} == {*TREE, "DockertestError"}


@every_error
def test_an_error_belongs_to_the_tree(name: str) -> None:
    """
    It has one other base class at most.

    It is exported under the name that tracebacks show.
    """
    cls = getattr(errors, name)
    assert cls.__bases__ in [(errors.DockertestError,), (errors.DockertestError, TREE[name][0])]
    assert issubclass(cls, TREE[name][0])
    assert getattr(dockertest, name) is cls
    assert (cls.__module__, cls.__qualname__) == ("dockertest", name)


@every_error
def test_an_error_can_be_pickled_with_its_attributes(name: str) -> None:
    """Test runners send errors between processes."""
    error = make(name, hint="try this", reason="refused")
    pickled = [pickle.dumps(error, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    for copied in (*map(pickle.loads, pickled), copy.copy(error)):
        assert type(copied) is type(error)
        assert str(copied) == str(error) == "what failed: why; try this"
        assert (copied.hint, copied.reason) == ("try this", "refused")
        for attribute, value in TREE[name][1].items():
            assert repr(getattr(copied, attribute)) == repr(value)


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_of_an_earlier_version_loads(name: str) -> None:
    """
    A test report may outlive the version that wrote it.

    The new attributes are then empty.
    """
    error = pickle.loads(base64.b64decode(PICKLES[name]))
    assert type(error) is getattr(errors, name)
    assert str(error) == "what went wrong: it"
    assert (error.hint, error.reason) == ("", "")
    for attribute, value in TREE.get(name, (Exception, {}))[1].items():
        assert type(getattr(error, attribute)) is type(value) or attribute == "result"


def test_a_pickle_of_an_earlier_version_keeps_its_attributes() -> None:
    """They include reports, results and failures."""
    exited = pickle.loads(base64.b64decode(PICKLES["ContainerExitedError"]))
    assert (exited.exit_code, exited.logs, exited.report.name) == (137, "one\ntwo", "pg")
    assert pickle.loads(base64.b64decode(PICKLES["RetryTimeoutError"])).report == exited.report
    failed = pickle.loads(base64.b64decode(PICKLES["ExecError"]))
    assert failed.result == dockertest.ExecResult(1, "out", "err")
    (failure,) = pickle.loads(base64.b64decode(PICKLES["CleanupError"])).failures
    assert (str(failure), failure.status) == ("left", 500)


@every_error
def test_an_error_needs_only_a_message(name: str) -> None:
    """Every attribute has a default."""
    error = getattr(errors, name)("what failed")
    assert str(error) == "what failed"
    assert set(vars(error)) == {*TREE[name][1], "hint", "reason"}


def test_a_hint_follows_the_message() -> None:
    """It is on the same line, or on a separate line if the message has several."""
    assert str(errors.EngineError("cannot x: y", hint="do z")) == "cannot x: y; do z"
    assert str(errors.EngineError("cannot x: y\n  log", hint="do z")) == "cannot x: y\n  log\ndo z"


@every_error
def test_the_attributes_of_an_error_are_documented(name: str) -> None:
    """The docstring describes each of them."""
    for attribute in TREE[name][1]:
        assert f"\n    {attribute}: " in (inspect.getdoc(getattr(errors, name)) or "")


def test_attributes_are_keyword_only() -> None:
    """The message is the only positional argument."""
    with pytest.raises(TypeError):
        errors.EngineError("x", 404)  # type: ignore[call-arg]
