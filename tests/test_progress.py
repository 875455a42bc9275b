"""The progress of a pull, from messages of engines; no engine."""

import contextlib
import logging
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from dockertest._images import progress as _progress
from dockertest._images.progress import Layers, PullProgress

# The messages of Docker 20.10, shortened.
DOCKER: list[dict[str, Any]] = [
    {"status": "Pulling from team/app", "id": "1.0"},
    {"status": "Already exists", "progressDetail": {}, "id": "base"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "one"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "two"},
    {"status": "Waiting", "progressDetail": {}, "id": "two"},
    {"status": "Downloading", "progressDetail": {"current": 40, "total": 100}, "id": "one"},
    {"status": "Downloading", "progressDetail": {"current": 5, "total": 50}, "id": "two"},
    {"status": "Verifying Checksum", "progressDetail": {}, "id": "one"},
    {"status": "Download complete", "progressDetail": {}, "id": "one"},
    {"status": "Extracting", "progressDetail": {"current": 10, "total": 100}, "id": "one"},
    {"status": "Pull complete", "progressDetail": {}, "id": "one"},
    {"status": "Digest: sha256:0123"},
    {"status": "Status: Downloaded newer image for team/app:1.0"},
]


def layers_after(*events: dict[str, Any]) -> Layers:
    """Return layers after these messages."""
    layers = Layers("app")
    for event in events:
        layers.update(event)
    return layers


def test_layers_and_bytes_are_summed() -> None:
    """
    Layers that already exist count as done.

    Extracting does not count bytes twice.
    """
    assert layers_after(*DOCKER[:7]).progress() == PullProgress("app", 1, 3, 45, 150)
    assert layers_after(*DOCKER).progress() == PullProgress("app", 2, 3, 105, 150)


def test_messages_without_a_layer_are_ignored() -> None:
    """Some of them have the image's tag instead of a layer's id."""
    layers = Layers("app")
    assert [layers.update(event) for event in DOCKER] == [False, *[True] * 10, False, False]
    assert not layers.update({"status": "Downloading"})
    assert not layers.update({})


def test_missing_totals_are_accepted() -> None:
    """The total is never less than the bytes downloaded so far."""
    layers = layers_after({"status": "Downloading", "progressDetail": {"current": 7}, "id": "one"})
    assert layers.progress() == PullProgress("app", 0, 1, 7, 7)
    layers.update({"status": "Downloading", "progressDetail": {}, "id": "one"})
    layers.update({"status": "Downloading", "id": "two"})
    assert layers.progress() == PullProgress("app", 0, 2, 7, 7)


@pytest.mark.parametrize(
    "detail", [5, "x", [], {"current": "x", "total": [1]}, {"current": -1, "total": None}]
)
def test_invalid_numbers_are_ignored(detail: object) -> None:
    """They must not stop a pull."""
    layers = layers_after({"status": "Downloading", "progressDetail": detail, "id": "one"})
    assert layers.progress() == PullProgress("app", 0, 1, 0, 0)


def test_a_layer_may_start_over() -> None:
    """After a broken connection the engine downloads a layer from the beginning."""
    layers = layers_after(*DOCKER[:6])
    layers.update({"status": "Downloading", "progressDetail": {"current": 1, "total": 100}, "id": "one"})
    assert layers.progress() == PullProgress("app", 1, 3, 1, 100)


def test_finish_completes_all_layers() -> None:
    """Podman does not report that layers are complete."""
    layers = layers_after(*DOCKER[:7])
    assert layers.finish()
    assert layers.progress() == PullProgress("app", 3, 3, 150, 150)
    assert not Layers("nothing").finish()


def test_progress_as_text() -> None:
    """This includes a total of zero."""
    assert str(PullProgress("app", 0, 0, 0, 0)) == "0 of 0 layers, 0.0 MB"
    assert str(PullProgress("app", 1, 3, 1_500_000, 2_000_000)) == "1 of 3 layers, 1.5 of 2.0 MB"


class Terminal:
    """A terminal that records its output, until it is closed."""

    def __init__(self) -> None:
        self.written = ""
        self.closed = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.closed:
            raise OSError(5, "Input/output error")
        self.written += text
        return len(text)

    def flush(self) -> None:
        if self.closed:
            raise OSError(5, "Input/output error")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as stderr, with no pause between two lines."""
    fake = Terminal()
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=fake))
    monkeypatch.setattr(_progress, "INTERVAL_SECONDS", 0)
    return fake


def show() -> None:
    """Display the progress of a whole pull."""
    layers = Layers("app")
    with _progress.default_display("app") as display:
        for event in DOCKER:
            if layers.update(event):
                display(layers.progress())


def test_without_a_terminal_there_are_only_log_lines(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed to a file or a CI log."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(_progress, "INTERVAL_SECONDS", 0)
    show()
    assert caplog.messages[-1] == "pulling app: 2 of 3 layers, 0.0 of 0.0 MB"
    assert capfd.readouterr() == ("", "")


def test_a_quick_pull_has_no_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    """The first line is logged after a few seconds."""
    caplog.set_level(logging.INFO)
    show()
    assert not caplog.messages


def test_a_bar_on_a_terminal(terminal: Terminal) -> None:
    """It shows bytes and layers, and is erased at the end."""
    show()
    assert "pulling app" in terminal.written
    assert "B/s" in terminal.written
    assert terminal.written.endswith("\r")


def test_the_bar_is_erased_after_an_error(terminal: Terminal) -> None:
    """Later output does not continue the line of an unfinished bar."""
    with contextlib.suppress(ZeroDivisionError), _progress.default_display("app") as display:
        display(layers_after(*DOCKER[:6]).progress())
        assert "pulling app" in terminal.written
        raise ZeroDivisionError
    assert terminal.written.endswith("\r")


def test_lines_on_a_terminal_without_tqdm(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `progress`, which installs tqdm, is optional."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    show()
    lines = terminal.written.splitlines()
    assert lines[0] == "pulling app"
    assert "pulling app: 2 of 3 layers, 0.0 of 0.0 MB" in lines
    assert lines[-1] == "pulled app"


@pytest.mark.parametrize("installed", [True, False])
def test_a_closed_terminal_does_not_stop_a_pull(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """Closing a window must not make a test fail."""
    if not installed:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    with _progress.default_display("app") as display:
        terminal.closed = True
        display(layers_after(*DOCKER[:6]).progress())


@pytest.mark.parametrize("stderr", [None, object()])
def test_a_process_may_have_no_stderr(monkeypatch: pytest.MonkeyPatch, stderr: object) -> None:
    """pythonw.exe has none."""
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=stderr))
    show()


def test_the_bar_leaves_no_thread_behind(terminal: Terminal) -> None:
    """With another thread, Python would warn about every later fork."""
    before = threading.active_count()
    show()
    assert threading.active_count() == before
