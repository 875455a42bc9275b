"""
Detection of signal handlers that interrupt the package.

Ordinary calls are not detected as interruptions.
"""

import contextlib
import signal
import types
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from dockertest._interruption import interrupts_package

Call = Callable[[Callable[[], object]], object]


def calling(module: str) -> Call:
    """Return a function of a module of that name, which calls its argument."""
    scope = types.ModuleType(module).__dict__
    exec("def call(function):\n    return function()\n", scope)
    function: Call = scope["call"]
    return function


def nested(*modules: str) -> object:
    """Return the result of the detection in a chain of calls through these modules."""
    call: Callable[[], object] = interrupts_package
    for module in reversed(modules):
        call = partial(calling(module), call)  # a partial adds no frame of this module
    return call()


@pytest.mark.parametrize(
    "modules",
    [
        ("user", "dockertest._pool", "dockertest._engine.client"),
        ("user", "dockertest._containers.launch", "contextlib", "dockertest._cleanup.session"),
        ("user", "dockertest._engine.client", "docker.api.client", "requests.sessions", "urllib3.connectionpool"),
        ("user", "dockertest._retry", "user", "dockertest._pool", "dockertest._engine.client"),
        ("user", "dockertest.testcase", "unittest.case", "user", "dockertest._containers.container"),
        ("user", "logging"),
    ],
    ids=str,
)  # fmt: skip
def test_an_ordinary_call_interrupts_nothing(modules: "tuple[str, ...]") -> None:
    """This includes user callbacks, which the package calls without holding a lock."""
    assert nested(*modules) is False


@pytest.mark.parametrize(
    "interrupted",
    ["dockertest._engine.client", "dockertest._cleanup.session", "urllib3.connectionpool", "logging", "docker.api.client"],
)  # fmt: skip
def test_a_handler_that_interrupts_the_package_is_detected(interrupted: str) -> None:
    """The package's own frames above the handler do not hide it."""
    assert nested("user", interrupted, "queue", "user", "dockertest._pool", "dockertest._cleanup.session")


def test_a_real_handler_is_detected() -> None:
    """Python runs a handler in the middle of another function."""
    results: list[bool] = []
    before = signal.signal(signal.SIGUSR1, lambda *_: results.append(interrupts_package()))
    try:
        calling("dockertest._engine.client")(lambda: None)
        scope = types.ModuleType("dockertest._engine.client").__dict__
        exec("def work(signal):\n    signal.raise_signal(signal.SIGUSR1)\n    return 1\n", scope)
        scope["work"](signal)
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert results == [True, False]


@contextlib.contextmanager
def generator() -> Iterator[None]:
    """Yield once."""
    yield


def test_a_context_manager_of_the_standard_library_is_not_an_interruption() -> None:
    """Its frame is between two frames of the package."""
    with generator():
        assert not interrupts_package()
