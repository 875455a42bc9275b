"""
The exceptions that dockertest raises.

    DockertestError                       .hint, .reason
    ├── DockerUnavailableError            the engine cannot be reached
    ├── InvalidOptionError                (also ValueError) an invalid value, rejected before the engine sees it
    ├── ImagePullError                    the image is not available locally and could not be pulled
    ├── ImageBuildError                   the build failed; the message ends with its last lines of output
    ├── ContainerCreateError              the engine refused to create the container
    ├── ContainerStartError               the engine could not start the container: .report
    ├── PrepareError                      an image could not be prepared, or is gone: .report
    ├── ContainerExitedError              the container has exited: .exit_code, .oom_killed, .logs, .report
    ├── PortNotPublishedError             (also LookupError) .port, .published
    ├── PortNotBoundError                 (also LookupError) published, but not bound yet: .port
    ├── NotInNetworkError                 (also LookupError) the container is not connected to that network
    ├── NotInContainerError               this process does not run in a container of this engine
    ├── RetryTimeoutError                 (also TimeoutError) .attempts, .elapsed, .report, .reports
    ├── LogFailureError                   a log line matched the fail_on of wait_for_log: .line, .report
    ├── ExecError                         a command exited with another code than 0: .result
    ├── ExecTimeoutError                  a command did not finish in time: .result
    ├── HostAccessError                   a container cannot be given access to a port of this host
    ├── ComposeError                      a Compose project could not be started: .output, .reports
    ├── ResourceClosedError               a pool, container, network or volume was used after it was closed
    ├── CleanupError                      something could not be removed: .failures
    └── EngineError                       the engine answered with an error, or not at all: .status

All of them can be pickled, since test runners send errors between processes.
"""

from __future__ import annotations

from dockertest._report import Report, clean


class DockertestError(Exception):
    """
    Base class of every error that dockertest raises.

    Attributes:
        hint: What to do about it, also shown after the message; empty if nothing is known to help.
        reason: One word for programs, such as `"refused"` or `"timeout"`, where an operation can fail in several ways;
            empty otherwise.
    """

    def __init__(self, message: str = "", *, hint: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.reason = reason

    def __str__(self) -> str:
        # It may contain text of an engine, a registry or a container, which must not reach a terminal as it is.
        message = clean(super().__str__())
        if not self.hint:
            return message
        # After several lines, such as a container's log, a hint in the last of them would be overlooked.
        return f"{message}\n{self.hint}" if "\n" in message else f"{message}; {self.hint}"


class DockerUnavailableError(DockertestError):
    """
    The container engine cannot be reached.

    `reason` is one of:

    - `"refused"`: nothing accepts connections at the address, or the socket does not exist;
    - `"permission"`: this user may not open the socket;
    - `"name"`: the host name cannot be resolved;
    - `"tls"`: no encrypted connection could be established;
    - `"timeout"`: there was no connection or no answer in time;
    - `"ssh"`: ssh failed;
    - `"not-an-engine"`: something else than a container engine answers;
    - `"too-old"`: the engine's API is too old;
    - `"path"`: the path of the socket is too long;
    - `"network"`: there is no route to the host;
    - `"no-engine"`: none of several endpoints answers.
    """


class InvalidOptionError(DockertestError, ValueError):
    """An option has an invalid value; nothing was sent to the engine."""


class ImagePullError(DockertestError):
    """The image is not available locally and could not be pulled."""


class ImageBuildError(DockertestError):
    """The image could not be built."""


class ContainerCreateError(DockertestError):
    """The engine refused to create the container."""


class ContainerStartError(DockertestError):
    """
    The engine could not start the container, which has been removed again.

    Attributes:
        report: The state of the container before it was removed.
    """

    def __init__(
        self, message: str, *, report: Report | None = None, hint: str = "", reason: str = ""
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.report = report


class PrepareError(DockertestError):
    """
    An image could not be prepared, or a prepared image no longer exists.

    Attributes:
        report: The state of the container that it was made from; `None` if there was none.
    """

    def __init__(
        self, message: str, *, report: Report | None = None, hint: str = "", reason: str = ""
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.report = report


class ContainerExitedError(DockertestError):
    """
    The container has exited.

    Attributes:
        exit_code: The exit code of its first process; `None` if the engine no longer knows it.
        oom_killed: Whether the engine reported an out-of-memory kill.
        logs: The last lines of the container's log.
        report: The state of the container.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        oom_killed: bool = False,
        logs: str = "",
        report: Report | None = None,
        hint: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.exit_code = exit_code
        self.oom_killed = oom_killed
        self.logs = logs
        self.report = report

    @classmethod
    def of(cls, report: Report) -> ContainerExitedError:
        """Return the error for the container that *report* describes."""
        return cls(
            str(report),
            exit_code=report.exit_code,
            oom_killed=report.oom_killed,
            logs=report.logs,
            report=report,
        )


class PortNotPublishedError(DockertestError, LookupError):
    """
    The container does not publish that port.

    Attributes:
        port: The requested port, such as `"5433/tcp"`.
        published: The ports that are published.
    """

    def __init__(
        self,
        message: str,
        *,
        port: str = "",
        published: tuple[str, ...] = (),
        hint: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.port = port
        self.published = published


class PortNotBoundError(DockertestError, LookupError):
    """
    The container publishes that port, but the engine has not bound it yet.

    This happens while the container restarts, for example.

    Attributes:
        port: The port asked for, such as `"5432/tcp"`.
    """

    def __init__(self, message: str, *, port: str = "", hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.port = port


class NotInNetworkError(DockertestError, LookupError):
    """The container is not connected to that network."""


class NotInContainerError(DockertestError):
    """The current process does not run in a container of this engine."""


class RetryTimeoutError(DockertestError, TimeoutError):
    """
    An operation still failed when the time or the attempts were used up.

    The last failure is the `__cause__`.

    Attributes:
        attempts: The number of attempts.
        elapsed: The duration of all attempts and pauses in seconds.
        reports: The state of each container that was watched meanwhile.
    """

    def __init__(
        self,
        message: str,
        *,
        attempts: int = 0,
        elapsed: float = 0.0,
        reports: tuple[Report, ...] = (),
        hint: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.attempts = attempts
        self.elapsed = elapsed
        self.reports = reports

    @property
    def report(self) -> Report | None:
        """The state of the watched container; of the first one if there were several."""
        return self.reports[0] if self.reports else None


class LogFailureError(DockertestError):
    """
    A line of the container's log matched the `fail_on` of `Resource.wait_for_log`.

    Attributes:
        line: The line, without its line end.
        report: The state of the container.
    """

    def __init__(
        self, message: str, *, line: str = "", report: Report | None = None, hint: str = "", reason: str = ""
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.line = line
        self.report = report


class ExecError(DockertestError):
    """
    A command that was run in a container with `check=True` failed.

    Attributes:
        result: The `ExecResult` with exit code and output.
    """

    def __init__(self, message: str, *, result: object = None, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.result = result


class ExecTimeoutError(DockertestError):
    """
    A command in a container did not finish in time; it continues to run there.

    Attributes:
        result: The `ExecResult` with the output so far.
    """

    def __init__(self, message: str, *, result: object = None, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.result = result


class HostAccessError(DockertestError):
    """
    A container cannot reach the ports that `host_access_ports` names.

    `reason` is one of:

    - `"blocked"`: the container's packets do not arrive, for example because a firewall drops them;
    - `"in-use"`: another program listens on the port at the address that the container connects to;
    - `"address"`: the address that the container connects to is not one of this machine;
    - `"permission"`: this user may not listen on the port.
    """


class ComposeError(DockertestError):
    """
    A Compose project could not be started; its parts have been removed again.

    `reason` is one of:

    - `"missing"`: docker compose is not installed;
    - `"exists"`: the project, or one of its networks or volumes, existed before;
    - `"config"`: the Compose file is missing or invalid;
    - `"up"`: `docker compose up` failed;
    - `"service"`: a service failed, or is unhealthy;
    - `"timeout"`: a service did not become healthy in time.

    Attributes:
        output: The output of `docker compose`.
        reports: The state of each service that failed, with its last log lines.
    """

    def __init__(
        self,
        message: str,
        *,
        output: str = "",
        reports: tuple[Report, ...] = (),
        hint: str = "",
        reason: str = "",
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.output = output
        self.reports = reports


class ResourceClosedError(DockertestError):
    """A pool, container, network or volume was used after it was closed."""


class CleanupError(DockertestError):
    """
    Some objects could not be removed; removal of all others was attempted.

    Attributes:
        failures: One error for each object that is left.
    """

    def __init__(
        self, message: str, *, failures: tuple[Exception, ...] = (), hint: str = "", reason: str = ""
    ) -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.failures = failures


class EngineError(DockertestError):
    """
    The engine answered with an error, or not at all.

    Without an answer, `reason` is one of:

    - `"timeout"`: the engine did not answer in time;
    - `"disconnected"`: the connection was closed in the middle of an answer;
    - `"log"`: the engine cannot read a container's log;
    - `"files"`: this process or this machine has too many open files;
    - `"blocked"`: a test tool, such as pytest-socket, blocks connections;
    - `"header"`: a header of the client cannot be sent.

    Attributes:
        status: The HTTP status of the answer; `None` if there was none.
    """

    def __init__(self, message: str, *, status: int | None = None, hint: str = "", reason: str = "") -> None:
        super().__init__(message, hint=hint, reason=reason)
        self.status = status


def _set_public_module() -> None:
    """
    Let tracebacks and pickles use the name that users import, as httpx does.

    Older pickles name this module.
    """
    for cls in (DockertestError, *DockertestError.__subclasses__()):
        cls.__module__ = "dockertest"


_set_public_module()
