"""
Every error that dockertest raises. Knows nothing of the rest of the package.

    DockertestError
    ├── DockerUnavailableError            the engine cannot be reached
    ├── InvalidOptionError                (also ValueError) a bad value, refused before the engine sees it
    ├── ImagePullError                    the image could not be had
    ├── ImageBuildError                   the build failed; its last lines are in the text
    ├── ContainerCreateError              the engine refused to create the container
    ├── ContainerStartError               the engine could not start it; it has been removed again
    ├── ContainerExitedError              the container has ended: .exit_code, .oom_killed, .logs
    ├── PortNotPublishedError             (also LookupError) .port, .published
    ├── NotInNetworkError                 (also LookupError)
    ├── NotInContainerError               this process does not run in a container of this engine
    ├── RetryTimeoutError                 (also TimeoutError) .attempts, .elapsed
    ├── ExecError, ExecTimeoutError       .result
    ├── ResourceClosedError               used after it was closed
    ├── CleanupError                      .failures
    └── EngineError                       any other answer of the engine: .status

All of them can be pickled: test runners send errors between processes. Those about a container have its `Report`.
"""

from __future__ import annotations

from dockertest._report import Report


class DockertestError(Exception):
    """The family: whatever goes wrong in dockertest is one of these."""


class DockerUnavailableError(DockertestError):
    """The container engine cannot be reached."""


class InvalidOptionError(DockertestError, ValueError):
    """An option has a value that cannot work; nothing was sent to the engine."""


class ImagePullError(DockertestError):
    """The image is not on the engine and could not be pulled."""


class ImageBuildError(DockertestError):
    """The image could not be built."""


class ContainerCreateError(DockertestError):
    """The engine refused to create the container."""


class ContainerStartError(DockertestError):
    """
    The engine could not start the container, which has been removed again.

    Attributes:
        report: Its state before it was removed.
    """

    def __init__(self, message: str, *, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


class ContainerExitedError(DockertestError):
    """
    The container has ended.

    Attributes:
        exit_code: The exit code of its first process; `None` where the engine no longer knows it.
        oom_killed: Whether the engine says that it was killed for want of memory.
        logs: The last lines of its log.
        report: All that is known of it.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int | None = None,
        oom_killed: bool = False,
        logs: str = "",
        report: Report | None = None,
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.oom_killed = oom_killed
        self.logs = logs
        self.report = report

    @classmethod
    def of(cls, report: Report) -> ContainerExitedError:
        """Make the error for a container that has ended."""
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
        port: The port asked for, such as `"5433/tcp"`.
        published: The ports that are published.
    """

    def __init__(self, message: str, *, port: str = "", published: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.port = port
        self.published = published


class NotInNetworkError(DockertestError, LookupError):
    """The container is not connected to that network."""


class NotInContainerError(DockertestError):
    """The process does not run in a container of this engine."""


class RetryTimeoutError(DockertestError, TimeoutError):
    """
    What was waited for did not come in time; the last failure is the `__cause__`.

    Attributes:
        attempts: How many times it was tried.
        elapsed: Seconds waited.
        reports: The state of each container that was watched meanwhile.
    """

    def __init__(
        self, message: str, *, attempts: int = 0, elapsed: float = 0.0, reports: tuple[Report, ...] = ()
    ) -> None:
        super().__init__(message)
        self.attempts = attempts
        self.elapsed = elapsed
        self.reports = reports

    @property
    def report(self) -> Report | None:
        """The state of the container that was watched, of the first where there were several."""
        return self.reports[0] if self.reports else None


class ExecError(DockertestError):
    """
    A command run in a container with `check=True` failed.

    Attributes:
        result: The `ExecResult` with exit code and output.
    """

    def __init__(self, message: str, *, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class ExecTimeoutError(DockertestError):
    """
    A command run in a container did not end in time; it goes on inside the container.

    Attributes:
        result: The `ExecResult` with the output until then.
    """

    def __init__(self, message: str, *, result: object = None) -> None:
        super().__init__(message)
        self.result = result


class ResourceClosedError(DockertestError):
    """A pool, container or network was used after it was closed."""


class CleanupError(DockertestError):
    """
    Some things could not be removed; everything was tried.

    Attributes:
        failures: One error for each thing that is left.
    """

    def __init__(self, message: str, *, failures: tuple[Exception, ...] = ()) -> None:
        super().__init__(message)
        self.failures = failures


class EngineError(DockertestError):
    """
    The engine answered with an error, or not at all.

    Attributes:
        status: The HTTP status of its answer; `None` if there was none.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
