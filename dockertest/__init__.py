"""
A real database, or any other server, in a container: ready in a second or two, gone afterwards whatever happens.

    import psycopg
    import dockertest

    with dockertest.Pool() as pool:
        pg = pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        url = f"postgresql://postgres:secret@{pg.get_host_port('5432/tcp')}/postgres"
        with pool.retry(lambda: psycopg.connect(url)) as connection:
            print(connection.execute("SELECT version()").fetchone())

`dockertest.postgres` has a database for every test, `dockertest.testcase` a base class for `unittest`, and
`dockertest.errors` the family of errors; pytest has the fixture `dockertest_pool`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names as in `_HOMES`, for type checkers and editors
    from dockertest._containers.exec import ExecResult as ExecResult
    from dockertest._images.progress import PullProgress as PullProgress
    from dockertest._network import Network as Network
    from dockertest._options import BuildOptions as BuildOptions
    from dockertest._options import RunOptions as RunOptions
    from dockertest._pool import Pool as Pool
    from dockertest._report import Report as Report
    from dockertest._requirement import require_docker as require_docker
    from dockertest._resource import Resource as Resource
    from dockertest._retry import retry as retry
    from dockertest._retry import retry_async as retry_async
    from dockertest._timeline import Step as Step
    from dockertest._values import AuthConfig as AuthConfig
    from dockertest._values import PortBinding as PortBinding
    from dockertest.errors import CleanupError as CleanupError
    from dockertest.errors import ContainerCreateError as ContainerCreateError
    from dockertest.errors import ContainerExitedError as ContainerExitedError
    from dockertest.errors import ContainerStartError as ContainerStartError
    from dockertest.errors import DockertestError as DockertestError
    from dockertest.errors import DockerUnavailableError as DockerUnavailableError
    from dockertest.errors import EngineError as EngineError
    from dockertest.errors import ExecError as ExecError
    from dockertest.errors import ExecTimeoutError as ExecTimeoutError
    from dockertest.errors import ImageBuildError as ImageBuildError
    from dockertest.errors import ImagePullError as ImagePullError
    from dockertest.errors import InvalidOptionError as InvalidOptionError
    from dockertest.errors import NotInContainerError as NotInContainerError
    from dockertest.errors import NotInNetworkError as NotInNetworkError
    from dockertest.errors import PortNotPublishedError as PortNotPublishedError
    from dockertest.errors import ResourceClosedError as ResourceClosedError
    from dockertest.errors import RetryTimeoutError as RetryTimeoutError

    __version__: str

__all__ = [
    "AuthConfig",
    "BuildOptions",
    "CleanupError",
    "ContainerCreateError",
    "ContainerExitedError",
    "ContainerStartError",
    "DockerUnavailableError",
    "DockertestError",
    "EngineError",
    "ExecError",
    "ExecResult",
    "ExecTimeoutError",
    "ImageBuildError",
    "ImagePullError",
    "InvalidOptionError",
    "Network",
    "NotInContainerError",
    "NotInNetworkError",
    "Pool",
    "PortBinding",
    "PortNotPublishedError",
    "PullProgress",
    "Report",
    "Resource",
    "ResourceClosedError",
    "RetryTimeoutError",
    "RunOptions",
    "Step",
    "require_docker",
    "retry",
    "retry_async",
]

# Names are handed on when they are first used, so that importing this package costs next to nothing.
_HOMES = {
    "_containers.exec": ("ExecResult",),
    "_images.progress": ("PullProgress",),
    "_options": ("BuildOptions", "RunOptions"),
    "_pool": ("Pool",),
    "_values": ("AuthConfig", "PortBinding"),
    "_report": ("Report",),
    "_requirement": ("require_docker",),
    "_resource": ("Resource",),
    "_network": ("Network",),
    "_retry": ("retry", "retry_async"),
    "_timeline": ("Step",),
    "errors": (
        "CleanupError",
        "ContainerCreateError",
        "ContainerExitedError",
        "ContainerStartError",
        "DockertestError",
        "DockerUnavailableError",
        "EngineError",
        "ExecError",
        "ExecTimeoutError",
        "ImageBuildError",
        "ImagePullError",
        "InvalidOptionError",
        "NotInContainerError",
        "NotInNetworkError",
        "PortNotPublishedError",
        "ResourceClosedError",
        "RetryTimeoutError",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would take every misspelt name for an object

    def __getattr__(name: str) -> object:
        if name in _HOME_OF:
            value = getattr(import_module(f"dockertest.{_HOME_OF[name]}"), name)
            globals()[name] = value
            return value
        if name == "errors":  # `except dockertest.errors.EngineError`, without an import of its own
            return import_module("dockertest.errors")
        if name == "__version__":
            from importlib.metadata import version

            return version("dockertest-py")
        raise AttributeError(f"module 'dockertest' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
