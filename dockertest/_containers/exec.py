"""A command run in a container: what goes in, what comes out, how it ended. Keeps nothing of it."""

from __future__ import annotations

import io
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, AnyStr, Generic, Protocol, TypedDict

from dockertest import _report
from dockertest import _validation as _specs
from dockertest._containers.duplex import CHUNK, Clock, Duplex, Feed, Reader, TimeUp
from dockertest._engine.client import Engine
from dockertest._engine.sdk import border
from dockertest._values import EnvSpec
from dockertest.errors import EngineError, ExecError, ExecTimeoutError, InvalidOptionError

TAIL = 20  # lines of output as evidence in an error
SETTLING = 5.0  # seconds that the engine may take to know how a command ended

# A terminal has no end that could be closed: this is what its user types, once to send an unfinished line off.
END_OF_TYPING = b"\x04\x04"


class Writer(Protocol):
    """A binary stream to write to."""

    def write(self, data: bytes, /) -> object:
        """Take *data*."""
        ...


class ExecOptions(TypedDict, total=False):
    """How a command is run; `Resource.exec` says what each means."""

    env: EnvSpec
    stdin: bytes | str | Reader | None
    stdout: Writer | None
    stderr: Writer | None
    tty: bool
    user: str
    working_dir: str
    timeout: float | None
    check: bool


@dataclass(frozen=True, slots=True)
class ExecResult(Generic[AnyStr]):
    """
    What became of a command.

    Attributes:
        exit_code: Its exit code; -1 in the result of an `ExecTimeoutError`, whose command had not ended.
        stdout: Its output; empty if a writer got it.
        stderr: Its error output; empty if a writer got it, and with a tty, which has but one stream.
    """

    exit_code: int
    stdout: AnyStr
    stderr: AnyStr


def run(
    engine: Engine,
    container: str,
    where: str,
    cmd: Sequence[str],
    *,
    env: EnvSpec = (),
    stdin: bytes | str | Reader | None = None,
    stdout: Writer | None = None,
    stderr: Writer | None = None,
    tty: bool = False,
    user: str = "",
    working_dir: str = "",
    timeout: float | None = None,
    check: bool = False,
    text: bool = True,
) -> ExecResult[str] | ExecResult[bytes]:
    """Run *cmd* in *container*, which is called *where* in errors."""
    source, outputs = _source(stdin), (_Output("stdout", stdout), _Output("stderr", stderr))
    words = _words(cmd)
    body = {
        "Cmd": words,
        "Env": _specs.environment("env", env),
        "User": _specs.text("user", user),
        "WorkingDir": _specs.text("working_dir", working_dir),
        "Tty": _specs.boolean("tty", tty),
        "AttachStdin": source is not None,
        "AttachStdout": True,
        "AttachStderr": True,
    }
    limit = None if timeout is None else _specs.seconds("timeout", timeout)
    command = _Command(engine, container, f"{_shown(words)} in {where}", body)
    try:
        code = command.run(source, outputs, Clock(limit))
    except TimeUp:
        raise ExecTimeoutError(
            f"{command.name} did not end within {limit:g} s; it goes on inside the container{_tail(outputs)}",
            result=_result(-1, outputs, text=text),
        ) from None
    result = _result(code, outputs, text=text)
    if check and code:
        raise ExecError(f"{command.name} ended with exit code {code}{_tail(outputs)}", result=result)
    return result


class _Output:
    """One stream of a command's output: handed to the user's writer as it comes, else kept."""

    def __init__(self, field: str, writer: Writer | None) -> None:
        if isinstance(writer, io.TextIOBase) or not (writer is None or hasattr(writer, "write")):
            raise InvalidOptionError(
                f"{field} must be a binary writer: got a {type(writer).__name__}; a text stream has one as .buffer"
            )
        self._kept = io.BytesIO()
        self._writer = self._kept if writer is None else writer

    def write(self, data: bytes) -> None:
        """Hand on all of *data*: an unbuffered file may take a part of it at a time."""
        while data:
            taken = self._writer.write(data)
            data = data[taken:] if isinstance(taken, int) and 0 < taken < len(data) else b""

    def kept(self) -> bytes:
        """Give what was kept."""
        return self._kept.getvalue()


class _Command:
    """A command that the engine has been told of."""

    def __init__(self, engine: Engine, container: str, name: str, body: dict[str, Any]) -> None:
        self.name = name
        self._what = f"run {name}"
        self._engine = engine
        self._guard = partial(border, engine.timeout, self._what)
        self._tty: bool = body["Tty"]
        response = engine.send("post", f"/containers/{container}/exec", what=self._what, body=body)
        with self._guard():
            self._id = response.json()["Id"]

    def run(self, source: Reader | None, outputs: Sequence[_Output], clock: Clock) -> int:
        """Start it, hand on what it writes until it writes no more, and give its exit code."""
        if source is None:
            with self._start({}) as response:
                self._hand_on(self._listen(response, clock), outputs)
        else:
            with self._start({"Connection": "Upgrade", "Upgrade": "tcp"}) as response, Feed(source) as feed:
                chunks = self._duplex(response, feed).chunks(response.raw._fp.fp.read1, clock)
                self._hand_on(chunks, outputs)
        return self._exit_code(clock)

    def _start(self, headers: dict[str, str]) -> Any:
        body = {"Detach": False, "Tty": self._tty}
        response = self._engine.send(
            "post", f"/exec/{self._id}/start", what=self._what, body=body, headers=headers, stream=True
        )
        if not hasattr(response.raw._fp.fp, "read1"):
            response.close()
            raise EngineError(
                f"cannot {self._what}: the docker SDK's own ssh loses output; "
                "give the pool the endpoint ssh://… instead of a client"
            )
        return response

    def _listen(self, response: Any, clock: Clock) -> Iterator[bytes]:
        """Give what comes, as it comes; the engine's limit of time is not for a silent command."""
        body = response.raw._fp  # `urllib3` above it reads until it has all that was asked for
        connection = _connection(body)
        while True:
            left = clock.left()
            with self._guard():
                connection.settimeout(left)
                try:
                    chunk: bytes | None = body.read1(CHUNK)
                except TimeoutError as late:
                    if late.errno is not None:
                        raise  # not our limit, but the system's: the engine's host is gone
                    chunk = None
            if chunk is None:
                raise TimeUp
            if not chunk:
                return
            yield chunk

    def _duplex(self, response: Any, feed: Feed) -> Duplex:
        connection = _connection(response.raw._fp)
        if not isinstance(connection, socket.socket):
            raise EngineError(f"cannot {self._what}: stdin does not work over a named pipe of Windows")
        return Duplex(connection, feed, self._guard, farewell=END_OF_TYPING if self._tty else b"")

    def _hand_on(self, chunks: Iterator[bytes], outputs: Sequence[_Output]) -> None:
        framed = ((1, chunk) for chunk in chunks) if self._tty else _frames(chunks)
        for stream, data in framed:
            outputs[stream > 1].write(data)

    def _exit_code(self, clock: Clock) -> int:
        settled, pause = time.monotonic() + SETTLING, 0.005
        while True:
            state = self._engine.get(f"/exec/{self._id}/json", what=self._what)
            if not state["Running"] and state["ExitCode"] is not None:
                return int(state["ExitCode"])
            # Engines keep the conversation up for as long as the command runs, even if it closes its output itself:
            # something in between has cut it, and what was written since is lost.
            if time.monotonic() > settled:
                raise EngineError(f"cannot {self._what}: the connection ended, and the command goes on")
            left = clock.left()
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, 0.5)


def _connection(body: Any) -> Any:
    """Find the socket below a response, or what stands in for one on a named pipe."""
    raw = getattr(body.fp, "raw", body.fp)
    found = next(getattr(raw, each) for each in ("_sock", "sock") if hasattr(raw, each))
    if getattr(found, "family", None) in (socket.AF_INET, socket.AF_INET6):
        # A command may be silent for longer than firewalls remember a silent connection.
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
    return found


def _frames(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Take the engine's frames apart: a header of 8 bytes, first the stream and last the length, then that many bytes."""
    header, stream, left = bytearray(), 0, 0
    for chunk in chunks:
        view = memoryview(chunk)
        while view:
            if left:
                part, view = view[:left], view[left:]
                left -= len(part)
                yield stream, bytes(part)
            else:
                missing = 8 - len(header)
                header += view[:missing]
                view = view[missing:]
                if len(header) == 8:
                    stream, left = struct.unpack(">BxxxL", header)
                    header.clear()
    if left or header:
        raise EngineError("the engine broke off the connection in the midst of a command's output")


def _words(cmd: object) -> tuple[str, ...]:
    words = _specs.texts("cmd", cmd)
    if not words:
        raise InvalidOptionError("cmd is empty; write the program and its arguments")
    return words


def _shown(cmd: Sequence[str]) -> str:
    shown = repr(list(cmd))
    return shown if len(shown) <= 200 else f"{shown[:197]}..."


def _source(stdin: bytes | str | Reader | None) -> Reader | None:
    if isinstance(stdin, str):
        try:
            stdin = stdin.encode()
        except UnicodeEncodeError:
            raise InvalidOptionError("stdin has characters that UTF-8 does not; give bytes") from None
    if stdin is None:
        return None
    if isinstance(stdin, (bytes, bytearray, memoryview)):
        return io.BytesIO(stdin)
    if isinstance(stdin, io.TextIOBase) or not hasattr(stdin, "read"):
        raise InvalidOptionError(
            f"stdin must be bytes, a str or a binary stream: got a {type(stdin).__name__}; "
            "a text stream has a binary one as .buffer"
        )
    return stdin


def _result(code: int, outputs: Sequence[_Output], *, text: bool) -> ExecResult[str] | ExecResult[bytes]:
    out, err = (each.kept() for each in outputs)
    if text:
        return ExecResult(code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))
    return ExecResult(code, out, err)


def _tail(outputs: Sequence[_Output]) -> str:
    """Give the last lines as evidence: of the error output, where there is any."""
    out, err = (each.kept()[-CHUNK:].decode("utf-8", "replace").strip("\r\n") for each in outputs)
    return _report.indented("\n".join((err or out).splitlines()[-TAIL:]))
