"""Progress of a pull, read from what engines say; no engine."""

import contextlib
import logging
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from dockertest._images import progress as _progress
from dockertest._images.progress import Layers, PullProgress

# What Docker 20.10 says, shortened.
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


def followed(*events: dict[str, Any]) -> Layers:
    """Give layers that have seen these lines."""
    layers = Layers("app")
    for event in events:
        layers.follow(event)
    return layers


def test_layers_and_bytes_are_summed() -> None:
    """Layers that are there already count as done; extracting counts no bytes a second time."""
    assert followed(*DOCKER[:7]).progress() == PullProgress("app", 1, 3, 45, 150)
    assert followed(*DOCKER).progress() == PullProgress("app", 2, 3, 105, 150)


def test_lines_about_no_layer_say_so() -> None:
    """The image's tag stands where a layer's id does."""
    layers = Layers("app")
    assert [layers.follow(event) for event in DOCKER] == [False, *[True] * 10, False, False]
    assert not layers.follow({"status": "Downloading"})
    assert not layers.follow({})


def test_an_engine_that_leaves_out_totals() -> None:
    """The sum is never less than what has come."""
    layers = followed({"status": "Downloading", "progressDetail": {"current": 7}, "id": "one"})
    assert layers.progress() == PullProgress("app", 0, 1, 7, 7)
    layers.follow({"status": "Downloading", "progressDetail": {}, "id": "one"})
    layers.follow({"status": "Downloading", "id": "two"})
    assert layers.progress() == PullProgress("app", 0, 2, 7, 7)


def test_a_layer_that_begins_again() -> None:
    """After a broken connection the engine starts a layer anew."""
    layers = followed(*DOCKER[:6])
    layers.follow({"status": "Downloading", "progressDetail": {"current": 1, "total": 100}, "id": "one"})
    assert layers.progress() == PullProgress("app", 1, 3, 1, 100)


def test_the_end_completes_what_the_engine_did_not() -> None:
    """Podman tells of no layer that it is complete."""
    layers = followed(*DOCKER[:7])
    assert layers.finish()
    assert layers.progress() == PullProgress("app", 3, 3, 150, 150)
    assert not Layers("nothing").finish()


def test_progress_in_words() -> None:
    """Nothing is divided by, so that nothing known is no error."""
    assert str(PullProgress("app", 0, 0, 0, 0)) == "0 of 0 layers, 0.0 MB"
    assert str(PullProgress("app", 1, 3, 1_500_000, 2_000_000)) == "1 of 3 layers, 1.5 of 2.0 MB"


class Terminal:
    """A terminal that keeps what is written to it, until it is gone."""

    def __init__(self) -> None:
        self.written = ""
        self.gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError(5, "Input/output error")
        self.written += text
        return len(text)

    def flush(self) -> None:
        if self.gone:
            raise OSError(5, "Input/output error")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as stderr, with no pause between two lines."""
    found = Terminal()
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=found))
    monkeypatch.setattr(_progress, "SECONDS", 0)
    return found


def show() -> None:
    """Show the progress of a whole pull."""
    layers = Layers("app")
    with _progress.shown("app") as shown:
        for event in DOCKER:
            if layers.follow(event):
                shown(layers.progress())


def test_no_terminal_gets_log_lines_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed into a file or a CI log."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(_progress, "SECONDS", 0)
    show()
    assert caplog.messages[-1] == "pulling app: 2 of 3 layers, 0.0 of 0.0 MB"
    assert capfd.readouterr() == ("", "")


def test_log_lines_come_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """A quick pull has none."""
    caplog.set_level(logging.INFO)
    show()
    assert not caplog.messages


def test_a_terminal_gets_a_bar(terminal: Terminal) -> None:
    """It has bytes and layers, and is gone at the end."""
    show()
    assert "pulling app" in terminal.written
    assert "B/s" in terminal.written
    assert terminal.written.endswith("\r")


def test_the_bar_is_closed_on_errors(terminal: Terminal) -> None:
    """What comes after a failed pull does not stand behind half a bar."""
    with contextlib.suppress(ZeroDivisionError), _progress.shown("app") as shown:
        shown(followed(*DOCKER[:6]).progress())
        assert "pulling app" in terminal.written
        raise ZeroDivisionError
    assert terminal.written.endswith("\r")


def test_a_terminal_without_tqdm_gets_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra `progress` is optional."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    show()
    lines = terminal.written.splitlines()
    assert lines[0] == "pulling app"
    assert "pulling app: 2 of 3 layers, 0.0 of 0.0 MB" in lines
    assert lines[-1] == "pulled app"


@pytest.mark.parametrize("installed", [True, False])
def test_a_terminal_that_goes_away_stops_no_pull(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    """A closed window is no reason for a test to fail."""
    if not installed:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    with _progress.shown("app") as shown:
        terminal.gone = True
        shown(followed(*DOCKER[:6]).progress())


@pytest.mark.parametrize("stderr", [None, object()])
def test_a_process_without_stderr(monkeypatch: pytest.MonkeyPatch, stderr: object) -> None:
    """Such as one under pythonw."""
    monkeypatch.setattr(_progress, "sys", SimpleNamespace(stderr=stderr))
    show()


def test_the_bar_leaves_no_thread_behind(terminal: Terminal) -> None:
    """A second thread would make every later fork of the program warn."""
    before = threading.active_count()
    show()
    assert threading.active_count() == before
