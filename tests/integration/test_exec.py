"""
Commands in a running container, over every kind of connection.

The tests cover input, output, exit codes and errors.
"""

import gc
import gzip
import hashlib
import io
import os
import pickle
import queue
import random
import secrets
import signal
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import dockertest
from dockertest._containers.exec import ExecResult
from dockertest.errors import (
    ContainerExitedError,
    EngineError,
    ExecError,
    ExecTimeoutError,
    InvalidOptionError,
    ResourceClosedError,
)

from ..engines.tls_front import Front, certificates  # noqa: TID252 - `tests` is on no path
from .conftest import Suite

SLEEP = ("sleep", "600")


@pytest.fixture(scope="module")
def box(pool: dockertest.Pool) -> Iterator[dockertest.Resource]:
    """A container in which commands are run."""
    with pool.run("busybox:1.35", cmd=SLEEP) as box:
        yield box


def through(front: Front, certificates: Path | None = None) -> dockertest.Pool:
    """
    Return a pool that connects through a front.

    It ignores the TLS settings of the environment.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DOCKER_CERT_PATH", raising=False)
        patch.delenv("DOCKER_TLS_VERIFY", raising=False)
        return dockertest.Pool(front.url, cert_path=certificates)


@pytest.fixture(scope="module", params=["unix", "tcp", "tls"])
def connected_box(
    request: pytest.FixtureRequest, box: dockertest.Resource, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dockertest.Resource]:
    """The same container over each kind of connection."""
    if request.param == "unix":
        yield box
        return
    folder = tmp_path_factory.mktemp("certificates") if request.param == "tls" else None
    with (
        Front(context=certificates(folder) if folder else None) as front,
        through(front, folder) as pool,
    ):
        resource = pool.container_by_name(box.name)
        assert resource
        yield resource


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """The thread that reads a command's stdin ends with the call."""
    yield
    assert _no_reading_thread()


def _no_reading_thread() -> bool:
    return not [thread for thread in threading.enumerate() if thread.name == "dockertest-stdin"]


class Source:
    """A stream of random bytes that computes their digest."""

    def __init__(self, size: int) -> None:
        self.digest = hashlib.sha256()
        self._left = size
        self._random = random.Random(size)
        self._block = self._random.randbytes(1 << 20)

    def read(self, size: int, /) -> bytes:
        start = self._random.randrange(len(self._block) - size)
        data = self._block[start : start + min(size, self._left)]
        self._left -= len(data)
        self.digest.update(data)
        return data


class Sink:
    """A stream that computes the digest of the data written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self.digest.update(data)
        self.size += len(data)


# Output.


def test_output_error_output_and_exit_code_are_separate(connected_box: dockertest.Resource) -> None:
    """The result has one attribute for each."""
    result = connected_box.exec(["sh", "-c", "echo out; echo err >&2; exit 42"])
    assert result == ExecResult(42, "out\n", "err\n")


def test_a_slow_command_has_its_own_exit_code(box: dockertest.Resource) -> None:
    """The code is requested after the command has ended."""
    assert box.exec(["sh", "-c", "sleep 0.5; exit 42"]).exit_code == 42


def test_a_command_that_closes_its_output_is_waited_for(connected_box: dockertest.Resource) -> None:
    """The end of the output is not the end of the command."""
    result = connected_box.exec(["sh", "-c", "exec >/dev/null 2>&1; sleep 1; exit 7"])
    assert result.exit_code == 7


def test_early_output_is_not_lost(connected_box: dockertest.Resource) -> None:
    """Output may arrive together with the headers of the response."""
    for _ in range(10):
        assert connected_box.exec(["echo", "early"]).stdout == "early\n"
        assert connected_box.exec(["echo", "early"], stdin="").stdout == "early\n"


def test_a_large_output_is_complete(connected_box: dockertest.Resource) -> None:
    """Both streams arrive in many frames."""
    script = "head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2"
    result = connected_box.exec(["sh", "-c", script], text=False)
    assert (len(result.stdout), len(result.stderr)) == (5_000_000, 3_000_000)


def test_output_is_text_or_bytes(box: dockertest.Resource) -> None:
    """Text is decoded as UTF-8, with replacement characters for invalid bytes."""
    command = ["printf", r"gr\303\274n \377"]
    assert box.exec(command, text=False).stdout == b"gr\303\274n \377"
    assert box.exec(command).stdout == "grün \N{REPLACEMENT CHARACTER}"


def test_output_is_written_to_writers(box: dockertest.Resource) -> None:
    """
    Each stream has its own writer, or both have the same one.

    The attributes of the result are empty.
    """
    out, err, both = io.BytesIO(), io.BytesIO(), io.BytesIO()
    script = ["sh", "-c", "echo out; echo err >&2"]
    assert box.exec(script, stdout=out, stderr=err) == ExecResult(0, "", "")
    assert (out.getvalue(), err.getvalue()) == (b"out\n", b"err\n")
    assert box.exec(script, stdout=both, stderr=both).stdout == ""
    assert sorted(both.getvalue().splitlines()) == [b"err", b"out"]


def test_a_writer_may_accept_part_of_the_data(box: dockertest.Resource) -> None:
    """
    A writer that writes only part of the data gets the rest in further calls.

    An unbuffered file is such a writer.
    """

    class Slow(io.RawIOBase):
        received = b""

        def write(self, data: Any, /) -> int:
            self.received += bytes(data[:3])
            return min(3, len(data))

    slow = Slow()
    box.exec(["echo", "0123456789"], stdout=slow)
    assert slow.received == b"0123456789\n"


def test_a_writer_that_takes_nothing_is_an_error(box: dockertest.Resource) -> None:
    """
    The rest of the output would be lost without notice.

    A full pipe that must not block is such a writer.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with (
        os.fdopen(reading, "rb"),
        os.fdopen(writing, "wb", buffering=0) as pipe,
        pytest.raises(BlockingIOError, match="stdout: the stream accepted no data; pass one whose"),
    ):
        box.exec(["head", "-c", "3000000", "/dev/zero"], stdout=pipe)

    class Full:
        def write(self, _data: bytes) -> int:
            return 0

    with pytest.raises(BlockingIOError, match="stderr: the stream accepted no data"):
        box.exec(["sh", "-c", "echo x >&2"], stderr=Full())


def test_a_large_output_does_not_exhaust_memory(box: dockertest.Resource) -> None:
    """
    By default the last 64 MiB of each stream are kept.

    A line at the beginning reports the omission.
    """
    script = "head -c 100000000 /dev/zero | tr '\\0' x; echo the end"
    tracemalloc.start()
    try:
        result = box.exec(["sh", "-c", script])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3.2 * (64 << 20)
    note, _, end = result.stdout.partition("\n")
    assert note == f"[dockertest omitted {100_000_008 - (64 << 20)} bytes here; max_bytes is 67108864]"
    assert len(end) == 64 << 20
    assert end.endswith("xthe end\n")


def test_max_bytes_limits_each_stream(box: dockertest.Resource) -> None:
    """
    The end of each stream is kept, as text or bytes.

    With `None` everything is kept. Writers get everything.
    """
    script = ["sh", "-c", "echo 0123456789; echo short >&2"]
    result = box.exec(script, max_bytes=6)
    assert result == ExecResult(0, "[dockertest omitted 5 bytes here; max_bytes is 6]\n56789\n", "short\n")
    assert box.exec(script, max_bytes=6, text=False).stdout.endswith(b"]\n56789\n")
    assert box.exec(script, max_bytes=None).stdout == "0123456789\n"
    out = io.BytesIO()
    box.exec(script, max_bytes=6, stdout=out)
    assert out.getvalue() == b"0123456789\n"
    with pytest.raises(InvalidOptionError, match="max_bytes"):
        box.exec(script, max_bytes=0)


def test_with_a_tty_there_is_one_stream(connected_box: dockertest.Resource) -> None:
    """A terminal combines both streams, and its output has no frames."""
    result = connected_box.exec(["sh", "-c", "echo out; echo err >&2; test -t 1"], tty=True)
    assert result == ExecResult(0, "out\r\nerr\r\n", "")


def test_a_container_is_closed_promptly_while_a_command_runs(pool: dockertest.Pool) -> None:
    """
    Removal does not wait for running commands.

    Podman needs an explicit kill for that.
    """
    resource = pool.run("busybox:1.35", cmd=SLEEP)
    started = threading.Event()

    class Signals(io.BytesIO):
        def write(self, data: Any) -> int:
            started.set()
            return super().write(data)

    with ThreadPoolExecutor(1) as threads:
        command = ["sh", "-c", "echo started; exec sleep 600"]
        running = threads.submit(lambda: resource.exec(command, stdout=Signals()))
        assert started.wait(30)
        began = time.monotonic()
        resource.close()
        assert time.monotonic() - began < 60
        # Some engines still report the command's exit code, others have already removed the container.
        expected = (ContainerExitedError, ResourceClosedError, type(None))
        assert isinstance(running.exception(30), expected)


def test_a_missing_program_results_in_an_exit_code_and_the_reason(box: dockertest.Resource) -> None:
    """Exit code and output are those of the engine."""
    result = box.exec(["no-such-program"])
    assert result.exit_code in (126, 127)
    assert "no-such-program" in result.stdout + result.stderr


# Input.


def test_the_command_has_its_environment_user_and_working_directory(box: dockertest.Resource) -> None:
    """Each option reaches the command."""
    result = box.exec(
        ["sh", "-c", 'echo "$A-$B" $(id -u):$(id -g) $PWD'],
        env={"A": 1, "B": "x=y z"},
        user="1000:1001",
        working_dir="/tmp",
    )
    assert result.stdout == "1-x=y z 1000:1001 /tmp\n"


def test_stdin_is_text_bytes_or_a_stream(connected_box: dockertest.Resource, tmp_path: Path) -> None:
    """The command reads exactly that, and then end-of-file."""
    (tmp_path / "file").write_bytes(b"from a file")
    with (tmp_path / "file").open("rb") as file, (tmp_path / "file").open("rb", buffering=0) as raw:
        cases: list[tuple[Any, bytes]] = [
            ("grün", "grün".encode()),
            (b"\0\xff", b"\0\xff"),
            ("", b""),
            (io.BytesIO(b"stream"), b"stream"),
            (file, b"from a file"),
            (raw, b"from a file"),
            (gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(b"unpacked"))), b"unpacked"),
        ]
        for stdin, expected in cases:
            assert connected_box.exec(["cat"], stdin=stdin, text=False).stdout == expected


def test_without_stdin_the_input_is_empty(box: dockertest.Resource) -> None:
    """A command that reads from stdin does not block."""
    assert box.exec(["cat"], timeout=20) == ExecResult(0, "", "")


def test_a_hundred_megabytes_in_both_directions_need_constant_memory(
    connected_box: dockertest.Resource,
) -> None:
    """Input and output are transferred at the same time, and every byte is the same."""
    source, sink = Source(100_000_000), Sink()
    tracemalloc.start()
    try:
        result = connected_box.exec(["cat"], stdin=source, stdout=sink)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.exit_code == 0
    assert sink.size == 100_000_000
    assert sink.digest.digest() == source.digest.digest()
    assert peak < 4_000_000


def test_closing_stdin_loses_no_pending_output(connected_box: dockertest.Resource) -> None:
    """The command ends only because stdin is closed while it writes."""
    for _ in range(10):
        output = _numbers_until_stdin_ends(connected_box)
        numbers = output.split(b"\n")[:-1]
        assert numbers == [b"%d" % number for number in range(1, len(numbers) + 1)]


def _numbers_until_stdin_ends(box: dockertest.Resource) -> bytes:
    flowing, output = threading.Event(), io.BytesIO()

    class Ends:
        def read(self, size: int, /) -> bytes:
            assert flowing.wait(20)
            return b""

    class Flows:
        def write(self, data: bytes, /) -> None:
            output.write(data)
            flowing.set()

    box.exec(["sh", "-c", "seq 100000000 & cat; kill $!"], stdin=Ends(), stdout=Flows(), timeout=20)
    return output.getvalue()


def test_both_directions_are_complete(connected_box: dockertest.Resource) -> None:
    """No byte is missing, no matter which direction ends first."""
    script = "head -c 3000000 /dev/zero & wc -c >&2; wait"
    for size in (0, 1, 40_000, 3_000_000, 10_000_000):
        result = connected_box.exec(["sh", "-c", script], stdin=bytes(size), text=False)
        assert (len(result.stdout), int(result.stderr)) == (3_000_000, size)


def test_input_may_depend_on_output(connected_box: dockertest.Resource) -> None:
    """Both are transferred immediately, so that each can depend on the other."""
    lines: queue.Queue[bytes] = queue.Queue()

    class Answers:
        remaining = 3

        def read(self, size: int, /) -> bytes:
            self.remaining -= 1
            return b"and " + lines.get(timeout=20) if self.remaining >= 0 else b""

    class Listens:
        def write(self, data: bytes, /) -> None:
            lines.put(data)

    result = connected_box.exec(
        ["sh", "-c", "echo 1; read x; echo $x 2; read x; echo $x 3; read x; echo $x >&2; cat"],
        stdin=Answers(),
        stdout=Listens(),
        timeout=20,
    )
    assert result.stderr == "and and and 1 2 3\n"


@pytest.mark.differs("unread stdin")
def test_a_command_may_ignore_its_stdin(connected_box: dockertest.Resource) -> None:
    """This is not an error, and no output is lost."""
    for _ in range(5):
        result = connected_box.exec(["sh", "-c", "head -c 1000000 /dev/zero; exit 5"], stdin=bytes(5_000_000))
        assert (result.exit_code, len(result.stdout)) == (5, 1_000_000)


def test_an_idle_stdin_does_not_delay_the_end(connected_box: dockertest.Resource) -> None:
    """The thread that reads from an idle pipe ends with the command."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as silent, os.fdopen(writing, "wb"):
        assert connected_box.exec(["echo", "done"], stdin=silent, timeout=20).stdout == "done\n"
        with pytest.raises(ExecTimeoutError):
            connected_box.exec(["cat"], stdin=silent, timeout=0.3)


def test_input_buffered_by_its_stream_is_sent(box: dockertest.Resource) -> None:
    """
    The lines in the stream's buffer are sent, although polling cannot detect them.

    Once the first line is read, the second one is in that buffer.
    """
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as sink:
        sink.write(b"mine\nthe command's\n")
        assert source.readline() == b"mine\n"
        assert box.exec(["head", "-n", "1"], stdin=source, timeout=20).stdout == "the command's\n"
        assert os.get_blocking(reading)


def test_a_blocking_read_does_not_delay_the_end(box: dockertest.Resource) -> None:
    """Nothing can interrupt a stream's `read`; its thread ends when it returns."""
    released = threading.Event()

    class Blocks:
        def read(self, size: int, /) -> bytes:
            released.wait(60)
            return b"too late"

    began = time.monotonic()
    assert box.exec(["echo", "done"], stdin=Blocks()).stdout == "done\n"
    assert time.monotonic() - began < 40
    released.set()
    dockertest.retry(_no_reading_thread, max_wait=5)


def test_with_a_tty_the_end_of_input_is_ctrl_d(connected_box: dockertest.Resource) -> None:
    """
    Ctrl-D ends the input, even after an unfinished line.

    A terminal cannot be closed in one direction.
    """
    assert connected_box.exec(["cat"], stdin="line\n", tty=True, timeout=20).stdout == "line\r\nline\r\n"
    assert connected_box.exec(["cat"], stdin="part", tty=True, timeout=20).stdout == "partpart"
    assert (
        connected_box.exec(["sh", "-c", "cat; echo end"], stdin="", tty=True, timeout=20).stdout == "end\r\n"
    )


def test_a_tty_is_not_detached_from(connected_box: dockertest.Resource) -> None:
    """By default, Ctrl-P Ctrl-Q in the input would end the session."""
    result = connected_box.exec(["cat"], stdin=b"abc\x10\x11def\n", tty=True, timeout=20)
    assert result.exit_code == 0
    assert result.stdout.endswith("abc\x10def\r\n")


# Invalid options.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cmd": "ls -l"}, "['sh', '-c', 'ls -l']"),
        ({"cmd": []}, "invalid cmd"),
        ({"cmd": ["cat", 1]}, "cmd[1] must be a string"),
        ({"cmd": ["cat"], "env": ["SECRET"]}, "env[0]"),
        ({"cmd": ["cat"], "env": {"A": None}}, "'A'"),
        (
            {"cmd": ["cat"], "stdin": io.StringIO("text")},
            "got a StringIO; pass .buffer of a text stream",
        ),
        ({"cmd": ["cat"], "stdin": 5}, "invalid stdin: expected bytes, a str or a binary stream, got a int"),
        ({"cmd": ["cat"], "stdin": "\ud800"}, "UTF-8"),
        ({"cmd": ["cat", "\udcff"]}, "cmd[1]"),
        ({"cmd": ["cat"], "env": {"A": "SECRET\udcff"}}, "'A'"),
        ({"cmd": ["cat"], "env": ["A\udcff=1"]}, "env"),
        ({"cmd": ["cat"], "user": "\udcff"}, "user"),
        ({"cmd": ["cat"], "working_dir": "/\udcff"}, "working_dir"),
        ({"cmd": ["cat"], "stdout": io.StringIO()}, "invalid stdout: expected a binary writer"),
        ({"cmd": ["cat"], "stderr": "path"}, "invalid stderr: expected a binary writer"),
        ({"cmd": ["cat"], "tty": "yes"}, "tty must be True or False"),
        ({"cmd": ["cat"], "user": 0}, "user must be a string"),
        ({"cmd": ["cat"], "working_dir": 0}, "working_dir must be a string"),
        ({"cmd": ["cat"], "timeout": -1}, "timeout must be a number of seconds"),
    ],
)
def test_invalid_options_are_rejected(
    box: dockertest.Resource, options: dict[str, Any], message: str
) -> None:
    """The error names the option and the remedy; nothing is sent to the engine."""
    with pytest.raises(InvalidOptionError) as caught:
        box.exec(options.pop("cmd"), **options)
    assert message in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_text_stream_is_rejected(box: dockertest.Resource) -> None:
    """Some text streams are recognized only when they are read."""

    class Text:
        def read(self, size: int) -> str:
            return "text"

    with pytest.raises(InvalidOptionError, match=r"its read\(\) returned a str"):
        box.exec(["cat"], stdin=Text())  # type: ignore[call-overload]


SECRETIVE = """
    import io
    import pytest
    import dockertest

    @pytest.fixture(scope="module")
    def box(dockertest_pool):
        with dockertest_pool.run("busybox:1.35", cmd=["sleep", "600"], stop_timeout=0) as box:
            yield box

    def env():
        return {"TOKEN": "s3cr3t-" + "env"}

    def test_check(box):
        box.exec(["sh", "-c", "cat > /dev/null; exit 3"], env=env(), stdin="s3cr3t-" + "stdin", check=True)

    def test_timeout(box):
        box.exec(["sleep", "1"], env=env(), stdin=b"s3cr3t-" + b"stdin", timeout=0.1)

    def test_invalid_option(box):
        box.exec(["true"], env=env(), stdin="s3cr3t-" + "stdin", timeout=-1)

    def test_invalid_stdin(box):
        box.exec(["true"], env=env(), stdin="s3cr3t-" + "stdin" + chr(0xD800))

    def test_text_stream(box):
        class Text:
            def read(self, size):
                return "s3cr3t-" + "stdin"
        box.exec(["cat"], env=env(), stdin=Text())

    def test_failing_stream(box):
        class Fails:
            blocks = iter([b"s3cr3t-" + b"stdin"])
            def read(self, size):
                return next(Fails.blocks)
        box.exec(["sh", "-c", "cat > /dev/null"], env=env(), stdin=Fails())

    def test_refused(box):
        box.stop(timeout=0)
        box.exec(["true"], env=env(), stdin="s3cr3t-" + "stdin")

    def test_closed(box):
        box.close()
        box.exec(["true"], env=env(), stdin="s3cr3t-" + "stdin")
"""


@pytest.mark.parametrize("options", [(), ("--showlocals", "--full-trace"), ("-vv", "--showlocals")])
def test_secrets_are_not_in_pytest_reports(suite: Suite, options: tuple[str, ...]) -> None:
    """They are not in tracebacks, local variables or the JUnit file."""
    suite.write("test_secretive.py", SECRETIVE)
    code, report = suite.run("pytest", "-p", "no:cacheprovider", *options, "--junitxml=junit.xml")
    junit = (suite.folder / "junit.xml").read_text()
    assert code == 1
    assert "8 failed" in report
    for text in (report, junit):
        assert "s3cr3t-env" not in text
        assert "s3cr3t-stdin" not in text


def test_environment_values_are_not_shown(box: dockertest.Resource) -> None:
    """They are not in an error, its result, its cause or its traceback."""
    secret = secrets.token_hex()
    ways: list[Any] = [{"check": True}, {"timeout": 0.2}, {"user": "no-such-user", "check": True}]
    for options in ways:
        with pytest.raises((ExecError, ExecTimeoutError, EngineError)) as caught:
            box.exec(["sh", "-c", "sleep 1; exit 1"], env={"TOKEN": secret}, **options)
        assert secret not in f"{caught.getrepr()} {caught.value!r} {vars(caught.value)}"


# Failures.


def test_check_raises_an_error_for_an_exit_code(box: dockertest.Resource) -> None:
    """
    The message has the command, its exit code and its last lines.

    The result has all output.
    """
    with pytest.raises(ExecError) as caught:
        box.exec(["sh", "-c", "seq 100 >&2; echo out; exit 3"], check=True)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("['sh', '-c', 'seq 100 >&2; echo out; exit 3'] in container ")
    assert lines[0].endswith(f"{box.name!r} ({box.id[:12]}) ended with exit code 3")
    assert lines[1:] == [f"    {number}" for number in range(81, 101)]
    assert isinstance(caught.value.result, ExecResult)
    assert caught.value.result.stdout == "out\n"
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.result) == (str(caught.value), caught.value.result)


def test_check_shows_the_output_without_error_output(box: dockertest.Resource) -> None:
    """Some commands write errors to standard output. Bytes are shown as text."""
    with pytest.raises(ExecError, match=r"\n    what is wrong$"):
        box.exec(["sh", "-c", "echo what is wrong; exit 1"], check=True, text=False)


def test_check_accepts_exit_code_zero(box: dockertest.Resource) -> None:
    """Error output alone is not a failure."""
    assert box.exec(["sh", "-c", "echo warning >&2"], check=True).stderr == "warning\n"


@pytest.mark.parametrize("stdin", [None, b"x" * 10_000_000], ids=["no stdin", "unread stdin"])
@pytest.mark.parametrize(
    "script",
    ["echo before; exec sleep 60", "while true; do echo before; usleep 10000; done"],
    ids=["silent", "talking"],
)
def test_a_timeout_ends_the_call_with_the_output_so_far(
    connected_box: dockertest.Resource, script: str, stdin: bytes | None
) -> None:
    """One deadline applies to the whole command, whether or not it writes output."""
    began = time.monotonic()
    with pytest.raises(ExecTimeoutError) as caught:
        connected_box.exec(["timeout", "60", "sh", "-c", script], timeout=3, stdin=stdin)
    assert 3 <= time.monotonic() - began < 40
    assert isinstance(caught.value.result, ExecResult)
    assert caught.value.result.stdout.startswith("before\n")
    assert caught.value.result.exit_code == -1
    assert "did not end within 3 s; it keeps running inside the container\n    before" in str(caught.value)


def test_the_deadline_applies_after_the_end_of_the_output(box: dockertest.Resource) -> None:
    """A command that closes its output and keeps running times out too."""
    with pytest.raises(ExecTimeoutError):
        box.exec(["sh", "-c", "exec >/dev/null 2>&1; sleep 3"], timeout=0.5)


def test_a_command_that_timed_out_keeps_running(box: dockertest.Resource) -> None:
    """The engine's API cannot stop it."""
    with pytest.raises(ExecTimeoutError):
        box.exec(["sh", "-c", "sleep 1; echo still here > /tmp/went-on"], timeout=0.2)
    dockertest.retry(lambda: box.exec(["cat", "/tmp/went-on"], check=True), max_wait=10)


def test_a_silent_command_may_outlast_the_timeout_of_the_pool(box: dockertest.Resource) -> None:
    """
    The pool's `timeout` applies to the engine, not to a running command.

    It is a limit for an engine that does not respond.
    """
    with dockertest.Pool(timeout=5) as hasty:
        impatient = hasty.container_by_name(box.name)
        assert impatient
        assert impatient.exec(["sh", "-c", "sleep 6; echo done"]).stdout == "done\n"
        assert impatient.exec(["sh", "-c", "sleep 6; cat"], stdin="done").stdout == "done"


def test_an_exiting_container_ends_its_commands(pool: dockertest.Pool) -> None:
    """They end with exit code 137, and the next one raises `ContainerExitedError`."""
    with pool.run("busybox:1.35", cmd=SLEEP) as box:

        class Kill:
            def write(self, data: bytes, /) -> None:
                box.container.kill()

        for stdin in (None, "unread"):
            command = ["sh", "-c", "echo ready; exec sleep 60"]
            assert box.exec(command, stdin=stdin, stdout=Kill(), timeout=20).exit_code == 137
            with pytest.raises(ContainerExitedError, match=r"has ended with exit code 137") as caught:
                box.exec(["true"])
            assert caught.value.exit_code == 137
            box.start()


def test_a_container_removed_during_a_command_is_an_error(pool: dockertest.Pool) -> None:
    """The exit code is no longer available."""
    with pool.run("busybox:1.35", cmd=SLEEP) as box:

        class Remove:
            def write(self, data: bytes, /) -> None:
                box.container.remove(force=True)

        with pytest.raises(ContainerExitedError, match="is gone"):
            box.exec(["sh", "-c", "echo ready; exec sleep 60"], stdout=Remove(), timeout=20)


def test_a_closed_container_cannot_run_commands(pool: dockertest.Pool) -> None:
    """The error is the same if it is closed while a command runs."""
    box = pool.run("busybox:1.35", cmd=SLEEP)

    class Close:
        def write(self, data: bytes, /) -> None:
            box.close()

    with pytest.raises(ResourceClosedError):
        box.exec(["sh", "-c", "echo ready; exec sleep 60"], stdout=Close(), timeout=20)
    with pytest.raises(ResourceClosedError):
        box.exec(["true"])


@pytest.mark.parametrize("stdin", [None, "x"])
def test_a_lost_connection_is_an_error(box: dockertest.Resource, stdin: str | None) -> None:
    """
    If the connection is lost before the command ends, there is no result.

    Output is missing in that case.
    """
    with Front() as front, through(front) as pool:
        resource = pool.container_by_name(box.name)
        assert resource

        class Cut:
            def write(self, data: bytes, /) -> None:
                front.cut()

        with pytest.raises(EngineError, match="the connection was closed while the command was running"):
            resource.exec(["sh", "-c", "echo ready; sleep 8; echo lost"], stdin=stdin, stdout=Cut())


@pytest.mark.parametrize("error", [ValueError("mine"), ConnectionResetError("mine"), KeyboardInterrupt()])
def test_exceptions_of_user_streams_propagate_unchanged(
    connected_box: dockertest.Resource, error: BaseException
) -> None:
    """
    This includes exceptions that look like a lost connection.

    The connection is closed.
    """

    class Fails:
        def read(self, size: int, /) -> bytes:
            raise error

        def write(self, data: bytes, /) -> None:
            raise error

    ways: list[Any] = [{"stdout": Fails()}, {"stdout": Fails(), "stdin": b"x"}, {"stdin": Fails()}]
    for options in ways:
        with pytest.raises(type(error)) as caught:
            connected_box.exec(["sh", "-c", "echo ready; cat"], timeout=20, **options)
        assert caught.value is error


@pytest.mark.parametrize("stdin", [None, "x"])
def test_ctrl_c_interrupts_a_silent_command(connected_box: dockertest.Resource, stdin: str | None) -> None:
    """Ctrl-C interrupts a call that waits for output, and closes its connection."""
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)

    class Interrupts:
        def write(self, data: bytes, /) -> None:
            signal.setitimer(signal.ITIMER_REAL, 0.3)

    try:
        with pytest.raises(KeyboardInterrupt):
            connected_box.exec(["sh", "-c", "echo ready; sleep 5"], stdin=stdin, stdout=Interrupts())
    finally:
        signal.signal(signal.SIGALRM, before)


def test_no_descriptor_is_leaked(box: dockertest.Resource) -> None:
    """
    The connection is closed however a command ends.

    The client keeps at most ten connections for further requests.
    """

    def all_ways() -> int:
        box.exec(["true"])
        box.exec(["cat"], stdin="x")
        box.exec(["no-such-program"], stdin="x")
        for stdin in (None, "x"):
            with pytest.raises(ExecTimeoutError):
                box.exec(["sleep", "1"], timeout=0.05, stdin=stdin)
        gc.collect()
        return len(list(Path("/dev/fd").iterdir()))

    before = all_ways()
    assert max(all_ways() for _ in range(11)) <= before + 10


def test_many_commands_run_in_parallel(
    connected_box: dockertest.Resource, caplog: pytest.LogCaptureFixture
) -> None:
    """Many threads may use one container, without a warning of urllib3."""

    def command(number: int) -> str:
        return connected_box.exec(["cat"], stdin=f"{number} " * 10_000).stdout

    with ThreadPoolExecutor(24) as executor:
        assert list(executor.map(command, range(48))) == [f"{number} " * 10_000 for number in range(48)]
        list(executor.map(lambda _: connected_box.status, range(48)))
    assert "pool is full" not in caplog.text
