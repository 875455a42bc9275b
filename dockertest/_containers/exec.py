"""Commands run in a container."""

from __future__ import annotations

import errno
import io
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, AnyStr, Generic, Protocol, TypedDict, Unpack, cast

from dockertest import _clock, _report, _validation
from dockertest._containers.duplex import Deadline, DeadlineExceeded, Duplex, Feed, Reader
from dockertest._engine import streams
from dockertest._engine.client import EngineClient
from dockertest._engine.sdk import translate_errors
from dockertest._interruption import is_of_handler
from dockertest._options import EnvSpec
from dockertest._public import public
from dockertest._secret import SecretStr
from dockertest.errors import EngineError, ExecError, ExecTimeoutError, InvalidOptionError

EXIT_CODE_SECONDS = 5.0  # that an engine may take to report the exit code once the output has ended
_SHORTEST_PAUSE_SECONDS = 0.005
_LONGEST_PAUSE_SECONDS = 0.5
_SHOWN_COMMAND_LENGTH = 200  # characters of a command in messages

# Ctrl-D, which ends the input of a terminal: the first one submits an unfinished line, the second one is the end.
_TYPED_END_OF_INPUT = b"\x04\x04"

# What the engine takes for the end of an interactive session, by default the two bytes of Ctrl-P Ctrl-Q: something that no
# input contains.
_DETACH_KEYS = "ctrl-_,ctrl-^,ctrl-_,ctrl-^,ctrl-_,ctrl-^,ctrl-]"


class Writer(Protocol):
    """A binary stream to write to."""

    def write(self, data: bytes, /) -> object:
        """
        Write *data*; an unbuffered stream returns how many bytes of it were written.

        If an unbuffered stream that must not block is full, `exec` raises `BlockingIOError`.
        """
        ...


class ExecOptions(TypedDict, total=False):
    """The options of `Resource.exec`, all optional."""

    env: EnvSpec
    """Environment variables in addition to the container's own: a mapping, or `"K=V"` strings."""

    stdin: bytes | str | Reader | None
    """
    The command's input: bytes, text (sent as UTF-8) or a binary stream; no input by default.

    A thread reads the stream. If `read` blocks, that thread stays until it returns.
    """

    stdout: Writer | None
    """A binary stream that the output is written to as it arrives. By default, the result contains the output."""

    stderr: Writer | None
    """The same for the error output."""

    tty: bool
    """
    Whether the command gets a terminal. It has one stream of output, and its input ends with a typed Ctrl-D.

    A terminal cuts lines of its input after 4,095 bytes.
    """

    user: str
    """The user that runs the command: `"name"`, `"name:group"` or numeric ids; the container's user by default."""

    working_dir: str
    """The folder that the command starts in; the container's working directory by default."""

    timeout: float | None
    """Seconds that the command may take; no limit by default, even if it is silent."""

    max_bytes: int | None
    """
    How many bytes of each stream of output the result keeps; 64 MiB by default, `None` for all of it.

    If there is more, the result has the last bytes, after a line with the number of omitted ones.
    """

    check: bool
    """Whether an exit code other than 0 raises `ExecError`; false by default."""


@public
@dataclass(frozen=True, slots=True)
class ExecResult(Generic[AnyStr]):
    """
    The result of a command.

    Attributes:
        exit_code: The command's exit code; -1 in the result of an `ExecTimeoutError`, whose command has not ended.
        stdout: Its output; empty if it was written to a stream.
        stderr: Its error output; empty if it was written to a stream, and with a tty, which has one stream only.
    """

    exit_code: int
    stdout: AnyStr
    stderr: AnyStr


def hide_secrets(options: ExecOptions) -> None:
    """
    Parse the options that may be secret, and replace their values in place.

    The `repr` of the new values hides them. This is called first of all, on the caller's own dictionary: pytest reports the
    arguments of functions in a traceback, and with `--showlocals` all variables.

    Raises:
        InvalidOptionError: One of them is invalid.
    """
    options["env"] = _validation.parse_environment("env", options.pop("env", ()))
    options["stdin"] = _parse_stdin(options.pop("stdin", None))


def run(
    engine: EngineClient,
    container: str,
    label: str,
    cmd: Sequence[str],
    *,
    text: bool = True,
    **options: Unpack[ExecOptions],
) -> ExecResult[str] | ExecResult[bytes]:
    """
    Run *cmd* in *container*; `Resource.exec` describes the options.

    Error messages call the container *label*.
    """
    hide_secrets(options)
    source = cast("Reader | None", options.get("stdin"))
    max_bytes = _validation.parse_size("max_bytes", options.get("max_bytes", streams.MAX_OUTPUT_BYTES))
    outputs = (
        _Output("stdout", options.get("stdout"), max_bytes),
        _Output("stderr", options.get("stderr"), max_bytes),
    )
    words = _parse_command(cmd)
    body = {
        "Cmd": words,
        "Env": options.get("env"),
        "User": _validation.parse_str("user", options.get("user", "")),
        "WorkingDir": _validation.parse_str("working_dir", options.get("working_dir", "")),
        "Tty": _validation.parse_bool("tty", options.get("tty", False)),
        "AttachStdin": source is not None,
        "DetachKeys": _DETACH_KEYS,
        "AttachStdout": True,
        "AttachStderr": True,
    }
    timeout = options.get("timeout")
    limit = None if timeout is None else _validation.parse_seconds("timeout", timeout)
    command = _Command(engine, container, f"{_display(words)} in {label}", body)
    try:
        code = command.run(source, outputs, Deadline(limit))
    except DeadlineExceeded:
        raise ExecTimeoutError(
            f"{command.name} did not end within {limit:g} s; it keeps running inside the container{_evidence(outputs)}",
            result=_result(-1, outputs, text=text),
        ) from None
    result = _result(code, outputs, text=text)
    if code and options.get("check", False):
        raise ExecError(f"{command.name} ended with exit code {code}{_evidence(outputs)}", result=result)
    return result


class _Output:
    """One stream of output, passed to the user's writer as it arrives, or kept."""

    def __init__(self, field: str, writer: Writer | None, max_bytes: int | None) -> None:
        if isinstance(writer, io.TextIOBase) or not (writer is None or hasattr(writer, "write")):
            raise InvalidOptionError(
                f"invalid {field}: expected a binary writer, got a {type(writer).__name__}",
                hint="pass .buffer of a text stream",
            )
        self._field = field
        self._kept = streams.TailBuffer(max_bytes)
        self._writer: Writer = self._kept if writer is None else writer

    def write(self, data: bytes) -> None:
        """
        Pass on all of *data*, even if the writer takes only part of it at a time.

        Raises:
            BlockingIOError: The writer accepts no data. For other writers than raw streams, `None` means that all was written.
        """
        while data:
            count = self._writer.write(data)
            if count == 0 or (count is None and isinstance(self._writer, io.RawIOBase)):
                raise BlockingIOError(
                    errno.EAGAIN, f"{self._field}: the stream accepted no data; pass one whose write() blocks"
                )
            data = data[count:] if isinstance(count, int) and 0 < count < len(data) else b""

    def kept(self) -> bytes:
        """
        Return the output that was not passed to a writer.

        If it is longer than *max_bytes*, return the last part of it.
        """
        return self._kept.getvalue()


class _Command:
    """A command that the engine has accepted."""

    def __init__(self, engine: EngineClient, container: str, name: str, body: dict[str, Any]) -> None:
        self.name = name
        self._what = f"run {name}"
        self._engine = engine
        self._guard = partial(translate_errors, engine.timeout, self._what)
        self._tty: bool = body["Tty"]
        response = engine.send("post", f"/containers/{container}/exec", what=self._what, body=body)
        with self._guard():
            self._id = response.json()["Id"]

    def run(self, source: Reader | None, outputs: Sequence[_Output], deadline: Deadline) -> int:
        """Start the command, pass on its output until the end, and return its exit code."""
        if source is None:
            with self._start({}) as response:
                self._pass_on(self._receive(response, deadline), outputs)
        else:
            with self._start({"Connection": "Upgrade", "Upgrade": "tcp"}) as response, Feed(source) as feed:
                early = streams.buffered_reader(response)
                self._pass_on(
                    self._duplex(response, feed).chunks(early, deadline, self._engine.timeout), outputs
                )
        return self._exit_code(deadline)

    def _start(self, headers: dict[str, str]) -> Any:
        body = {"Detach": False, "Tty": self._tty}
        response = self._engine.send(
            "post", f"/exec/{self._id}/start", what=self._what, body=body, headers=headers, stream=True
        )
        if not streams.can_read_available(response):
            response.close()
            raise EngineError(
                f"cannot {self._what}: the docker SDK's own ssh connections lose output",
                hint="use Pool(endpoint='ssh://…') instead of Pool(client=…)",
            )
        return response

    def _receive(self, response: Any, deadline: Deadline) -> Iterator[bytes]:
        """
        Yield output as it arrives.

        A command may be silent for any time, but the engine has to answer.
        """
        connection = self._connection(response)
        while True:
            seconds = deadline.next_check(self._engine.timeout)
            with self._guard():
                connection.settimeout(seconds)
                try:
                    chunk: bytes | None = streams.read_available(response)
                except TimeoutError as error:
                    # The system's time-out: the engine's host is unreachable. Or that of a signal handler.
                    if error.errno is not None or is_of_handler(error):
                        raise
                    chunk = None
            if chunk is None:
                self._check_engine(deadline)
                streams.continue_after_timeout(response)
                continue
            if not chunk:
                return
            yield chunk

    def _check_engine(self, deadline: Deadline) -> None:
        """Raise an error if the engine does not answer, or no longer knows the command."""
        self._engine.get(f"/exec/{self._id}/json", what=self._what, timeout=deadline.remaining())

    def _duplex(self, response: Any, feed: Feed) -> Duplex:
        connection = self._connection(response)
        if not isinstance(connection, socket.socket):
            raise EngineError(
                f"cannot {self._what}: stdin is not supported over a named pipe of Windows",
                hint="write the input to a file in the container with write_file",
            )
        end = _TYPED_END_OF_INPUT if self._tty else b""
        return Duplex(connection, feed, self._guard, self._check_engine, end_of_input=end)

    def _connection(self, response: Any) -> Any:
        connection = streams.connection(response)
        streams.enable_keepalive(connection)  # a command may be silent for hours
        return connection

    def _pass_on(self, chunks: Iterator[bytes], outputs: Sequence[_Output]) -> None:
        if self._tty:
            for chunk in chunks:
                outputs[0].write(chunk)
            return
        decoder = streams.FrameDecoder(self._what)
        for chunk in chunks:
            for stream, data in decoder.feed(chunk):
                outputs[stream > streams.STDOUT].write(data)
        decoder.finish()

    def _exit_code(self, deadline: Deadline) -> int:
        latest, pause = _clock.monotonic() + EXIT_CODE_SECONDS, _SHORTEST_PAUSE_SECONDS
        while True:
            state = self._engine.get(f"/exec/{self._id}/json", what=self._what)
            if not state["Running"] and state["ExitCode"] is not None:
                return int(state["ExitCode"])
            # An engine keeps the connection open while the command runs, even if the command closes its output. So
            # something in between has closed it, and the rest of the output is lost.
            if _clock.monotonic() > latest:
                raise EngineError(
                    f"cannot {self._what}: the connection was closed while the command was running",
                    hint="a proxy in front of the engine may close connections that are silent for long",
                )
            remaining = deadline.remaining()
            _clock.sleep(pause if remaining is None else min(pause, remaining))
            pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)


def _parse_command(cmd: object) -> tuple[str, ...]:
    words = _validation.parse_strings("cmd", cmd)
    if not words:
        raise InvalidOptionError("invalid cmd: expected a program and its arguments, got nothing")
    return words


def _display(cmd: Sequence[str]) -> str:
    text = repr(list(cmd))
    return text if len(text) <= _SHOWN_COMMAND_LENGTH else f"{text[: _SHOWN_COMMAND_LENGTH - 3]}..."


def _parse_stdin(stdin: bytes | str | Reader | None) -> Reader | None:
    if isinstance(stdin, str):
        stdin = SecretStr(stdin)
        try:
            return io.BytesIO(stdin.encode())
        except UnicodeEncodeError:
            raise InvalidOptionError(
                "invalid stdin: it contains surrogate characters, which UTF-8 cannot encode",
                hint="pass bytes",
            ) from None
    if stdin is None:
        return None
    if isinstance(stdin, (bytes, bytearray, memoryview)):
        return io.BytesIO(stdin)
    if isinstance(stdin, io.TextIOBase) or not hasattr(stdin, "read"):
        raise InvalidOptionError(
            f"invalid stdin: expected bytes, a str or a binary stream, got a {type(stdin).__name__}",
            hint="pass .buffer of a text stream",
        )
    return stdin


def _result(code: int, outputs: Sequence[_Output], *, text: bool) -> ExecResult[str] | ExecResult[bytes]:
    out, err = (output.kept() for output in outputs)
    if text:
        return ExecResult(code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
    return ExecResult(code, out, err)


def _evidence(outputs: Sequence[_Output]) -> str:
    """Return the last lines of stderr, or else of stdout, for an error message."""
    out, err = (
        output.kept()[-streams.CHUNK_BYTES :].decode("utf-8", "replace").strip("\r\n") for output in outputs
    )
    return _report.indented("\n".join((err or out).splitlines()[-streams.EVIDENCE_LINES :]))
