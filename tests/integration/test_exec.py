"""Commands in a running container: what goes in, what comes out, how they end, over every kind of connection."""

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

SLEEP = ("sleep", "600")


@pytest.fixture(scope="module")
def box(pool: dockertest.Pool) -> Iterator[dockertest.Resource]:
    """A container in which commands are run."""
    with pool.run("busybox:1.35", cmd=SLEEP) as box:
        yield box


def through(front: Front, certificates: Path | None = None) -> dockertest.Pool:
    """Connect through a front, whose TLS, if any, is not the engine's own, which the environment may speak of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DOCKER_CERT_PATH", raising=False)
        patch.delenv("DOCKER_TLS_VERIFY", raising=False)
        return dockertest.Pool(front.url, cert_path=certificates)


@pytest.fixture(scope="module", params=["unix", "tcp", "tls"])
def anywhere(
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
        found = pool.container_by_name(box.name)
        assert found
        yield found


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Whatever became of a command, the thread that read its stdin is gone when its call is."""
    yield
    assert _no_reading_thread()


def _no_reading_thread() -> bool:
    return not [each for each in threading.enumerate() if each.name == "dockertest-stdin"]


class Source:
    """A stream of random bytes that remembers what it gave."""

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
    """A stream that remembers what it got."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self.digest.update(data)
        self.size += len(data)


# What comes out.


def test_the_two_streams_and_the_exit_code_come_apart(anywhere: dockertest.Resource) -> None:
    """Standard output, standard error and exit code are each their own."""
    result = anywhere.exec(["sh", "-c", "echo out; echo err >&2; exit 42"])
    assert result == ExecResult(42, "out\n", "err\n")


def test_the_exit_code_of_a_command_that_takes_a_while_is_its_own(box: dockertest.Resource) -> None:
    """The code is asked for when the command has ended."""
    assert box.exec(["sh", "-c", "sleep 0.5; exit 42"]).exit_code == 42


def test_a_command_that_closes_its_output_is_waited_for(anywhere: dockertest.Resource) -> None:
    """The end of the output is not the end of the command."""
    result = anywhere.exec(["sh", "-c", "exec >/dev/null 2>&1; sleep 1; exit 7"])
    assert result.exit_code == 7


def test_no_output_is_lost_however_soon_it_comes(anywhere: dockertest.Resource) -> None:
    """Output that arrives together with the answer's header is there, with stdin and without."""
    for _ in range(10):
        assert anywhere.exec(["echo", "early"]).stdout == "early\n"
        assert anywhere.exec(["echo", "early"], stdin="").stdout == "early\n"


def test_a_large_output_is_complete(anywhere: dockertest.Resource) -> None:
    """Every byte of many frames, on both streams."""
    script = "head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2"
    result = anywhere.exec(["sh", "-c", script], text=False)
    assert (len(result.stdout), len(result.stderr)) == (5_000_000, 3_000_000)


def test_bytes_stay_bytes_and_text_is_utf_8(box: dockertest.Resource) -> None:
    """`text=False` changes nothing; as text, what is no UTF-8 is marked."""
    command = ["printf", r"gr\303\274n \377"]
    assert box.exec(command, text=False).stdout == b"gr\303\274n \377"
    assert box.exec(command).stdout == "grün \N{REPLACEMENT CHARACTER}"


def test_writers_get_the_bytes_and_the_result_is_empty(box: dockertest.Resource) -> None:
    """Each stream goes to its own writer, both may go to one."""
    out, err, both = io.BytesIO(), io.BytesIO(), io.BytesIO()
    script = ["sh", "-c", "echo out; echo err >&2"]
    assert box.exec(script, stdout=out, stderr=err) == ExecResult(0, "", "")
    assert (out.getvalue(), err.getvalue()) == (b"out\n", b"err\n")
    assert box.exec(script, stdout=both, stderr=both).stdout == ""
    assert sorted(both.getvalue().splitlines()) == [b"err", b"out"]


def test_a_writer_that_takes_a_part_at_a_time_gets_it_all(box: dockertest.Resource) -> None:
    """An unbuffered file may take less than it was given, and says so."""

    class Slow(io.RawIOBase):
        got = b""

        def write(self, data: Any, /) -> int:
            self.got += bytes(data[:3])
            return min(3, len(data))

    slow = Slow()
    box.exec(["echo", "0123456789"], stdout=slow)
    assert slow.got == b"0123456789\n"


def test_with_a_tty_there_is_one_stream(anywhere: dockertest.Resource) -> None:
    """The terminal takes both streams, and nothing of its framing is left in it."""
    result = anywhere.exec(["sh", "-c", "echo out; echo err >&2; test -t 1"], tty=True)
    assert result == ExecResult(0, "out\r\nerr\r\n", "")


def test_a_container_is_closed_at_once_while_a_command_runs(pool: dockertest.Pool) -> None:
    """What an engine answers to a command does not say which one it is, and Podman has to be told to kill."""
    resource = pool.run("busybox:1.35", cmd=SLEEP)
    started = threading.Event()

    class Told(io.BytesIO):
        def write(self, data: Any) -> int:
            started.set()
            return super().write(data)

    with ThreadPoolExecutor(1) as threads:
        command = ["sh", "-c", "echo started; exec sleep 600"]
        running = threads.submit(lambda: resource.exec(command, stdout=Told()))
        assert started.wait(30)
        began = time.monotonic()
        resource.close()
        assert time.monotonic() - began < 8
        # Whether the command's exit code can still be asked for, or the container is gone before, is up to the engine.
        assert isinstance(running.exception(30), (ContainerExitedError, type(None)))


def test_a_missing_program_is_an_exit_code_and_the_engine_says_why(box: dockertest.Resource) -> None:
    """The engine's own code and words are kept."""
    result = box.exec(["no-such-program"])
    assert result.exit_code in (126, 127)
    assert "no-such-program" in result.stdout + result.stderr


# What goes in.


def test_the_command_has_its_environment_user_and_folder(box: dockertest.Resource) -> None:
    """Each option reaches the command."""
    result = box.exec(
        ["sh", "-c", 'echo "$A-$B" $(id -u):$(id -g) $PWD'],
        env={"A": 1, "B": "x=y z"},
        user="1000:1001",
        working_dir="/tmp",
    )
    assert result.stdout == "1-x=y z 1000:1001 /tmp\n"


def test_stdin_is_text_bytes_or_a_stream(anywhere: dockertest.Resource, tmp_path: Path) -> None:
    """What the command reads is what was given, and then its input ends."""
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
            assert anywhere.exec(["cat"], stdin=stdin, text=False).stdout == expected


def test_without_stdin_the_command_reads_nothing(box: dockertest.Resource) -> None:
    """A command that reads does not wait for what nobody sends."""
    assert box.exec(["cat"], timeout=20) == ExecResult(0, "", "")


def test_a_hundred_megabytes_go_both_ways_at_once_in_constant_memory(anywhere: dockertest.Resource) -> None:
    """Byte for byte, though neither side could hold what is on the way."""
    source, sink = Source(100_000_000), Sink()
    tracemalloc.start()
    try:
        result = anywhere.exec(["cat"], stdin=source, stdout=sink)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.exit_code == 0
    assert sink.size == 100_000_000
    assert sink.digest.digest() == source.digest.digest()
    assert peak < 4_000_000


def test_the_end_of_stdin_arrives_with_output_in_flight(anywhere: dockertest.Resource) -> None:
    """To end one direction costs not a byte of the other: this output ends only because stdin did, in its midst."""
    for _ in range(10):
        output = _numbers_until_stdin_ends(anywhere)
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


def test_both_directions_are_complete_to_their_ends(anywhere: dockertest.Resource) -> None:
    """Not a byte is missing, whichever direction ends first."""
    script = "head -c 3000000 /dev/zero & wc -c >&2; wait"
    for size in (0, 1, 40_000, 3_000_000, 10_000_000):
        result = anywhere.exec(["sh", "-c", script], stdin=bytes(size), text=False)
        assert (len(result.stdout), int(result.stderr)) == (3_000_000, size)


def test_a_conversation_goes_to_and_fro(anywhere: dockertest.Resource) -> None:
    """Output comes when it is written, and input goes when it is there: each answer here waits for the other side."""
    said: queue.Queue[bytes] = queue.Queue()

    class Answers:
        left = 3

        def read(self, size: int, /) -> bytes:
            self.left -= 1
            return b"and " + said.get(timeout=20) if self.left >= 0 else b""

    class Heard:
        def write(self, data: bytes, /) -> None:
            said.put(data)

    result = anywhere.exec(
        ["sh", "-c", "echo 1; read x; echo $x 2; read x; echo $x 3; read x; echo $x >&2; cat"],
        stdin=Answers(),
        stdout=Heard(),
        timeout=20,
    )
    assert result.stderr == "and and and 1 2 3\n"


@pytest.mark.differs("unread stdin")
def test_a_command_need_not_read_its_stdin(anywhere: dockertest.Resource) -> None:
    """Not an error, and nothing of the output is lost."""
    for _ in range(5):
        result = anywhere.exec(["sh", "-c", "head -c 1000000 /dev/zero; exit 5"], stdin=bytes(5_000_000))
        assert (result.exit_code, len(result.stdout)) == (5, 1_000_000)


def test_a_command_that_ends_does_not_wait_for_a_silent_stdin(anywhere: dockertest.Resource) -> None:
    """A pipe that nobody writes to holds up nothing, and its reader's thread is gone."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as silent, os.fdopen(writing, "wb"):
        assert anywhere.exec(["echo", "done"], stdin=silent, timeout=20).stdout == "done\n"
        with pytest.raises(ExecTimeoutError):
            anywhere.exec(["cat"], stdin=silent, timeout=0.3)


def test_what_a_stream_has_read_ahead_is_not_held_back(box: dockertest.Resource) -> None:
    """A pipe whose first line was read has the second in memory: there is nothing to wait for."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb", buffering=0) as sink:
        sink.write(b"mine\nthe command's\n")
        assert source.readline() == b"mine\n"
        assert box.exec(["head", "-n", "1"], stdin=source, timeout=20).stdout == "the command's\n"
        assert os.get_blocking(reading)


def test_a_read_that_does_not_return_holds_up_nothing(box: dockertest.Resource) -> None:
    """Nothing can end a stream's `read`; the command's end does not wait for it, and its thread ends when it does."""
    released = threading.Event()

    class Blocks:
        def read(self, size: int, /) -> bytes:
            released.wait(20)
            return b"too late"

    began = time.monotonic()
    assert box.exec(["echo", "done"], stdin=Blocks()).stdout == "done\n"
    assert time.monotonic() - began < 5
    released.set()
    dockertest.retry(_no_reading_thread, max_wait=5)


def test_with_a_tty_the_end_of_stdin_is_typed(anywhere: dockertest.Resource) -> None:
    """A terminal cannot be closed in one direction: its end is what a user types, after an unfinished line too."""
    assert anywhere.exec(["cat"], stdin="line\n", tty=True, timeout=20).stdout == "line\r\nline\r\n"
    assert anywhere.exec(["cat"], stdin="part", tty=True, timeout=20).stdout == "partpart"
    assert anywhere.exec(["sh", "-c", "cat; echo end"], stdin="", tty=True, timeout=20).stdout == "end\r\n"


# What is refused.


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cmd": "ls -l"}, "['sh', '-c', 'ls -l']"),
        ({"cmd": []}, "cmd is empty"),
        ({"cmd": ["cat", 1]}, "cmd[1] must be a string"),
        ({"cmd": ["cat"], "env": ["SECRET"]}, "env[0]"),
        ({"cmd": ["cat"], "env": {"A": None}}, "'A'"),
        (
            {"cmd": ["cat"], "stdin": io.StringIO("text")},
            "got a StringIO; a text stream has a binary one as .buffer",
        ),
        ({"cmd": ["cat"], "stdin": 5}, "stdin must be bytes, a str or a binary stream: got a int"),
        ({"cmd": ["cat"], "stdin": "\ud800"}, "UTF-8"),
        ({"cmd": ["cat"], "stdout": io.StringIO()}, "stdout must be a binary writer"),
        ({"cmd": ["cat"], "stderr": "path"}, "stderr must be a binary writer"),
        ({"cmd": ["cat"], "tty": "yes"}, "tty must be True or False"),
        ({"cmd": ["cat"], "user": 0}, "user must be a string"),
        ({"cmd": ["cat"], "working_dir": 0}, "working_dir must be a string"),
        ({"cmd": ["cat"], "timeout": -1}, "timeout must be a number of seconds"),
    ],
)
def test_bad_options_are_refused(box: dockertest.Resource, options: dict[str, Any], said: str) -> None:
    """Before the engine is asked, with the option's name and the remedy."""
    with pytest.raises(InvalidOptionError) as caught:
        box.exec(options.pop("cmd"), **options)
    assert said in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_stream_that_turns_out_to_give_text_is_refused(box: dockertest.Resource) -> None:
    """Not every text stream can be told beforehand."""

    class Text:
        def read(self, size: int) -> str:
            return "text"

    with pytest.raises(InvalidOptionError, match=r"its read\(\) gave a str"):
        box.exec(["cat"], stdin=Text())  # type: ignore[call-overload]


def test_values_of_the_environment_are_shown_nowhere(box: dockertest.Resource) -> None:
    """Not in an error, its result, its cause or its traceback."""
    secret = secrets.token_hex()
    ways: list[Any] = [{"check": True}, {"timeout": 0.2}, {"user": "no-such-user", "check": True}]
    for options in ways:
        with pytest.raises((ExecError, ExecTimeoutError, EngineError)) as caught:
            box.exec(["sh", "-c", "sleep 1; exit 1"], env={"TOKEN": secret}, **options)
        assert secret not in f"{caught.getrepr()} {caught.value!r} {vars(caught.value)}"


# How it ends badly.


def test_check_makes_an_error_of_an_exit_code(box: dockertest.Resource) -> None:
    """The text has the command, its code and the last lines it wrote, the result has everything."""
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


def test_check_shows_the_output_where_there_is_no_error_output(box: dockertest.Resource) -> None:
    """Some commands say on standard output what is wrong; bytes are shown as text."""
    with pytest.raises(ExecError, match=r"\n    what is wrong$"):
        box.exec(["sh", "-c", "echo what is wrong; exit 1"], check=True, text=False)


def test_check_is_content_with_success(box: dockertest.Resource) -> None:
    """Error output alone is no failure."""
    assert box.exec(["sh", "-c", "echo warning >&2"], check=True).stderr == "warning\n"


@pytest.mark.parametrize("stdin", [None, b"x" * 10_000_000], ids=["no stdin", "unread stdin"])
@pytest.mark.parametrize(
    "script",
    ["echo before; exec sleep 8", "while true; do echo before; usleep 10000; done"],
    ids=["silent", "talking"],
)
def test_a_time_out_ends_the_call_with_the_output_until_then(
    anywhere: dockertest.Resource, script: str, stdin: bytes | None
) -> None:
    """One deadline for the whole command, whether it is silent, or talks and talks."""
    began = time.monotonic()
    with pytest.raises(ExecTimeoutError) as caught:
        anywhere.exec(["timeout", "8", "sh", "-c", script], timeout=1, stdin=stdin)
    assert 1 <= time.monotonic() - began < 4
    assert isinstance(caught.value.result, ExecResult)
    assert caught.value.result.stdout.startswith("before\n")
    assert caught.value.result.exit_code == -1
    assert "did not end within 1 s; it goes on inside the container\n    before" in str(caught.value)


def test_a_time_out_counts_after_the_output_has_ended_too(box: dockertest.Resource) -> None:
    """A command that closes its output and goes on has the same deadline."""
    with pytest.raises(ExecTimeoutError):
        box.exec(["sh", "-c", "exec >/dev/null 2>&1; sleep 3"], timeout=0.5)


def test_a_command_that_timed_out_goes_on_inside_the_container(box: dockertest.Resource) -> None:
    """As the error says: no engine can end it."""
    with pytest.raises(ExecTimeoutError):
        box.exec(["sh", "-c", "sleep 1; echo still here > /tmp/went-on"], timeout=0.2)
    dockertest.retry(lambda: box.exec(["cat", "/tmp/went-on"], check=True), max_wait=10)


def test_a_silent_command_may_outlast_the_engines_limit_of_time(box: dockertest.Resource) -> None:
    """The pool's `timeout` is for an engine that does not answer, not for a command that works."""
    with dockertest.Pool(timeout=2) as hasty:
        impatient = hasty.container_by_name(box.name)
        assert impatient
        assert impatient.exec(["sh", "-c", "sleep 3; echo done"]).stdout == "done\n"
        assert impatient.exec(["sh", "-c", "sleep 3; cat"], stdin="done").stdout == "done"


def test_a_container_that_dies_ends_its_commands(pool: dockertest.Pool) -> None:
    """Exit code 137, as the engine says, and no hang; the next command is told that the container has ended."""
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


def test_a_container_that_is_removed_meanwhile_is_told(pool: dockertest.Pool) -> None:
    """There is nobody left to ask for an exit code."""
    with pool.run("busybox:1.35", cmd=SLEEP) as box:

        class Remove:
            def write(self, data: bytes, /) -> None:
                box.container.remove(force=True)

        with pytest.raises(ContainerExitedError, match="is gone"):
            box.exec(["sh", "-c", "echo ready; exec sleep 60"], stdout=Remove(), timeout=20)


def test_a_closed_container_runs_no_commands(pool: dockertest.Pool) -> None:
    """Used after it was closed, also if that happens while a command runs."""
    box = pool.run("busybox:1.35", cmd=SLEEP)

    class Close:
        def write(self, data: bytes, /) -> None:
            box.close()

    with pytest.raises(ResourceClosedError):
        box.exec(["sh", "-c", "echo ready; exec sleep 60"], stdout=Close(), timeout=20)
    with pytest.raises(ResourceClosedError):
        box.exec(["true"])


@pytest.mark.parametrize("stdin", [None, "x"])
def test_a_connection_that_is_cut_is_told(box: dockertest.Resource, stdin: str | None) -> None:
    """An end of the connection that is not the command's is no result: what the command writes then is lost."""
    with Front() as front, through(front) as pool:
        found = pool.container_by_name(box.name)
        assert found

        class Cut:
            def write(self, data: bytes, /) -> None:
                front.cut()

        with pytest.raises(EngineError, match="the connection ended, and the command goes on"):
            found.exec(["sh", "-c", "echo ready; sleep 8; echo lost"], stdin=stdin, stdout=Cut())


@pytest.mark.parametrize("error", [ValueError("mine"), ConnectionResetError("mine"), KeyboardInterrupt()])
def test_errors_of_the_users_own_streams_come_out_unchanged(
    anywhere: dockertest.Resource, error: BaseException
) -> None:
    """Even one that looks like the engine's; and the connection is closed."""

    class Fails:
        def read(self, size: int, /) -> bytes:
            raise error

        def write(self, data: bytes, /) -> None:
            raise error

    ways: list[Any] = [{"stdout": Fails()}, {"stdout": Fails(), "stdin": b"x"}, {"stdin": Fails()}]
    for options in ways:
        with pytest.raises(type(error)) as caught:
            anywhere.exec(["sh", "-c", "echo ready; cat"], timeout=20, **options)
        assert caught.value is error


@pytest.mark.parametrize("stdin", [None, "x"])
def test_ctrl_c_ends_a_silent_command(anywhere: dockertest.Resource, stdin: str | None) -> None:
    """A command that says nothing can be left, and leaves nothing behind."""
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            anywhere.exec(["sleep", "2"], stdin=stdin)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_no_descriptor_is_left_open(box: dockertest.Resource) -> None:
    """However a command ends; but for the connections that the client keeps for its next requests, ten at most."""

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


def test_many_commands_run_side_by_side(anywhere: dockertest.Resource) -> None:
    """One container and one pool serve many threads."""

    def command(number: int) -> str:
        return anywhere.exec(["cat"], stdin=f"{number} " * 10_000).stdout

    with ThreadPoolExecutor(16) as executor:
        assert list(executor.map(command, range(32))) == [f"{number} " * 10_000 for number in range(32)]
