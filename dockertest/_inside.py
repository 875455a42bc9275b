"""What can be done inside a container that one holds: run commands, read its log, carry files."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Literal, overload

from typing_extensions import Unpack

from dockertest import _validation as _specs
from dockertest._containers import exec as _exec
from dockertest._containers import files as _files
from dockertest._containers import logs as _logs
from dockertest._containers.exec import ExecOptions, ExecResult
from dockertest._handle import Handle
from dockertest.errors import EngineError


class Inside(Handle):
    """A container with its commands, its log and its files."""

    @overload
    def exec(
        self, cmd: Sequence[str], *, text: Literal[True] = True, **options: Unpack[ExecOptions]
    ) -> ExecResult[str]: ...

    @overload
    def exec(
        self, cmd: Sequence[str], *, text: Literal[False], **options: Unpack[ExecOptions]
    ) -> ExecResult[bytes]: ...

    @overload
    def exec(
        self, cmd: Sequence[str], *, text: bool, **options: Unpack[ExecOptions]
    ) -> ExecResult[str] | ExecResult[bytes]: ...

    def exec(
        self, cmd: Sequence[str], *, text: bool = True, **options: Unpack[ExecOptions]
    ) -> ExecResult[str] | ExecResult[bytes]:
        """
        Run a command in the container, and give its exit code and output.

        Args:
            cmd: The program and its arguments; `["sh", "-c", "…"]` for what a shell is to take apart.
            text: Whether the result's output is text, read as UTF-8, or bytes.
            options: All by keyword, none needed:

                - `env`: more environment, a mapping or `"K=V"` strings.
                - `stdin`: what the command reads: bytes, text or a binary stream, which is read by a thread. A
                  stream whose `read` blocks keeps that thread until it returns.
                - `stdout`, `stderr`: binary writers that get the bytes as they come; the result's are empty then.
                - `tty`: give the command a terminal: one stream of output, and stdin ends with a typed Ctrl-D.
                - `user`: who runs it, `"name"`, `"name:group"` or numbers; the container's own user by default.
                - `working_dir`: the folder it starts in; the container's own by default.
                - `timeout`: seconds that it may take; for ever by default, however silent it is.
                - `check`: raise an error for an exit code other than 0.

        Raises:
            ExecError: The exit code is not 0, and *check* is set.
            ExecTimeoutError: The command did not end in time. It goes on inside the container: no engine can end it.
            InvalidOptionError: An option has a value that cannot work; the engine was not asked.
            ContainerExitedError: The container has ended.
        """
        self._check_open()
        try:
            return _exec.run(self._engine, self.id, self._label, cmd, text=text, **options)
        except EngineError as error:
            if error.status is not None:  # refused: most likely it does not run
                self._check_open()
                self._check_alive(self._engine.timeout)
            raise

    def logs(
        self, *, tail: int | None = None, since: float | None = None, stdout: bool = True, stderr: bool = True
    ) -> str:
        """
        Give what the container has written so far, standard output and error as they came.

        Args:
            tail: Only the last so many lines.
            since: Only what was written after that time, in seconds since 1970 (`time.time()`).
            stdout: Whether standard output is among it.
            stderr: Whether standard error is among it.

        Raises:
            InvalidOptionError: *tail* or *since* is no such number.
        """
        tty = self._config("Tty")
        return _logs.read(
            self._engine, self.id, tty=tty, tail=tail, since=since, stdout=stdout, stderr=stderr
        )

    def stream_logs(self) -> _logs.LogStream:
        """
        Give the lines of the log as they come, from the first on.

        The iterator ends with the container, or on its `close()` from any thread.
        """
        return _logs.LogStream(self._engine, self.id, tty=self._config("Tty"))

    def wait_for_log(
        self, pattern: str | re.Pattern[str], *, count: int = 1, max_wait: float | None = None
    ) -> re.Match[str]:
        """
        Wait until the log has a match of *pattern*, and give it.

        A line in a log is no proof that a service answers; where it can be asked, `retry` asks it.

        Args:
            pattern: A regular expression, searched for in each line.
            count: The match to wait for: the second one, say.
            max_wait: Seconds after which to give up, the pool's `max_wait` by default.

        Raises:
            InvalidOptionError: *count* or *max_wait* is no such number.
            RetryTimeoutError: There is no such match in time.
            ContainerExitedError: The container has ended without.
        """
        limit = self._owner.max_wait if max_wait is None else _specs.seconds("max_wait", max_wait)
        with self._waited_for():
            return _logs.wait_for(self.stream_logs, re.compile(pattern), count, limit, self)

    def read_file(self, path: str) -> bytes:
        """
        Give what is in a file of the container, which may have ended meanwhile.

        Args:
            path: The file's absolute path. A link is followed, within the container.

        Raises:
            EngineError: There is no such file (its `status` is 404), or it is a folder, device, pipe or socket.
            InvalidOptionError: The path is not absolute, or lies in a tmpfs or another folder in memory, where engines
                copy nothing.
        """
        self._check_open()
        return _files.read(self._engine, self.container.attrs, path)

    def write_file(self, path: str, data: bytes | str, *, mode: int = 0o644) -> None:
        """
        Make a file in the container, root's own, in place of one that is there.

        A new file takes the place of the old one: what has the old one open still sees that.

        Args:
            path: The file's absolute path. A link is followed, within the container; missing folders are made, with mode
                0755.
            data: What shall be in it; text is written in UTF-8.
            mode: Its mode.

        Raises:
            EngineError: The engine refused, such as where all files are read-only; or *path* is a folder.
            InvalidOptionError: The path is not absolute, or lies in a tmpfs or another folder in memory, where engines
                copy nothing; or *data* or *mode* cannot be.
        """
        self._check_open()
        _files.write(self._engine, self.container.attrs, path, data, mode)

    def copy_in(self, src: str | os.PathLike[str], path: str) -> None:
        """
        Copy a local file or folder into the container, as `docker cp` and `cp -a` do; all in it becomes root's own.

        - Where *path* is a folder, or ends in `/`, the copy goes into it, under the name of *src*.
        - Otherwise *path* is the name of the copy; a file that is there is replaced.
        - Where *src* is written with `/.` at its end, what is in it goes into *path*, a folder that is made where it is
          missing and keeps its mode where it is not.

        Modes, links and empty folders survive. A link in a folder is copied as a link and never followed; *src* itself
        is, if it is one. Devices, pipes and sockets are left out, with a warning.

        Args:
            src: A local file or folder.
            path: An absolute path in the container. Missing folders are made, with mode 0755; what is in folders that
                are there already stays.

        Raises:
            EngineError: The engine refused, such as to put a folder where a file is, or where all files are read-only.
            InvalidOptionError: The path is not absolute, or lies in a tmpfs or another folder in memory, where engines
                copy nothing; or *src* is neither file nor folder.
            OSError: A local file cannot be read.
        """
        self._check_open()
        _files.copy_in(self._engine, self.container.attrs, src, path)

    def copy_out(self, path: str, dst: str | os.PathLike[str]) -> None:
        """
        Copy a file or folder out of the container, as `docker cp` does.

        - Where *dst* is a folder, or ends in `/`, the copy goes into it, under the name of *path*.
        - Otherwise *dst* is the name of the copy; a file that is there is replaced.
        - Where *path* has `/.` at its end, what is in it goes into *dst*, a folder that is made where it is missing.

        Nothing is written anywhere else, whatever the container says. Modes survive but for bits such as set-uid, owners
        and times do not. So do links that lead to somewhere in the copied folder, written without `..` behind a name.
        Other links, and whatever else would lead out, are refused: the rest is copied, and then an error names them.
        Devices and pipes are left out, with a warning. What was copied before an error stays.

        Args:
            path: An absolute path in the container, which may have ended meanwhile. It is followed if it is a link.
            dst: A local path. Missing folders are made; what is in folders that are there already stays.

        Raises:
            EngineError: There is no such file or folder (its `status` is 404), or something in it was refused.
            InvalidOptionError: The path is not absolute, or lies in a tmpfs or another folder in memory, where engines
                copy nothing.
            OSError: A local file cannot be written.
        """
        self._check_open()
        _files.copy_out(self._engine, self.container.attrs, path, dst)
