"""
Start a real database, or any other server, in a container.

It is ready in a second or two, and always cleaned up.

    import psycopg
    import dockertest

    with dockertest.Pool() as pool:
        postgres = pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"}, wait_for="ready")
        with psycopg.connect(postgres.url()) as connection:
            print(connection.execute("SELECT version()").fetchone())

`dockertest.services` lists the services that it knows how to wait for, `dockertest.postgres` and `dockertest.mysql` provide
a database for every test, `dockertest.testcase` a base class for `unittest`, `dockertest.errors` the exceptions, and the
pytest plugin the fixture `dockertest_pool`.
"""

from importlib import import_module
from sys import modules
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names as in `_HOMES`, for type checkers and editors
    from dockertest._cleanup.inventory import InventoryItem as InventoryItem
    from dockertest._compose import Compose as Compose
    from dockertest._containers.exec import ExecResult as ExecResult
    from dockertest._engine.inspection import Image as Image
    from dockertest._images.progress import PullProgress as PullProgress
    from dockertest._network import Network as Network
    from dockertest._options import AuthConfig as AuthConfig
    from dockertest._options import BuildOptions as BuildOptions
    from dockertest._options import File as File
    from dockertest._options import PortBinding as PortBinding
    from dockertest._options import Reuse as Reuse
    from dockertest._options import RunOptions as RunOptions
    from dockertest._pool import Pool as Pool
    from dockertest._prepared import PreparedImage as PreparedImage
    from dockertest._proxy import Proxy as Proxy
    from dockertest._report import Report as Report
    from dockertest._resource import Resource as Resource
    from dockertest._retry import retry as retry
    from dockertest._retry import retry_async as retry_async
    from dockertest._standby import Standby as Standby
    from dockertest._timeline import Step as Step
    from dockertest._volume import Volume as Volume
    from dockertest.errors import CleanupError as CleanupError
    from dockertest.errors import ComposeError as ComposeError
    from dockertest.errors import ContainerCreateError as ContainerCreateError
    from dockertest.errors import ContainerExitedError as ContainerExitedError
    from dockertest.errors import ContainerStartError as ContainerStartError
    from dockertest.errors import DockertestError as DockertestError
    from dockertest.errors import DockerUnavailableError as DockerUnavailableError
    from dockertest.errors import EngineError as EngineError
    from dockertest.errors import ExecError as ExecError
    from dockertest.errors import ExecTimeoutError as ExecTimeoutError
    from dockertest.errors import HostAccessError as HostAccessError
    from dockertest.errors import ImageBuildError as ImageBuildError
    from dockertest.errors import ImagePullError as ImagePullError
    from dockertest.errors import InvalidOptionError as InvalidOptionError
    from dockertest.errors import LogFailureError as LogFailureError
    from dockertest.errors import NotInContainerError as NotInContainerError
    from dockertest.errors import NotInNetworkError as NotInNetworkError
    from dockertest.errors import PortNotBoundError as PortNotBoundError
    from dockertest.errors import PortNotPublishedError as PortNotPublishedError
    from dockertest.errors import PrepareError as PrepareError
    from dockertest.errors import ResourceClosedError as ResourceClosedError
    from dockertest.errors import RetryTimeoutError as RetryTimeoutError
    from dockertest.services import Connection as Connection
    from dockertest.testcase import require_docker as require_docker

    __version__: str

__all__ = [
    "AuthConfig",
    "BuildOptions",
    "CleanupError",
    "Compose",
    "ComposeError",
    "Connection",
    "ContainerCreateError",
    "ContainerExitedError",
    "ContainerStartError",
    "DockerUnavailableError",
    "DockertestError",
    "EngineError",
    "ExecError",
    "ExecResult",
    "ExecTimeoutError",
    "File",
    "HostAccessError",
    "Image",
    "ImageBuildError",
    "ImagePullError",
    "InvalidOptionError",
    "InventoryItem",
    "LogFailureError",
    "Network",
    "NotInContainerError",
    "NotInNetworkError",
    "Pool",
    "PortBinding",
    "PortNotBoundError",
    "PortNotPublishedError",
    "PrepareError",
    "PreparedImage",
    "Proxy",
    "PullProgress",
    "Report",
    "Resource",
    "ResourceClosedError",
    "RetryTimeoutError",
    "Reuse",
    "RunOptions",
    "Standby",
    "Step",
    "Volume",
    "require_docker",
    "retry",
    "retry_async",
]

# Names are handed on when they are first used, so that importing this package costs next to nothing.
_HOMES = {
    "_cleanup.inventory": ("InventoryItem",),
    "_compose": ("Compose",),
    "_containers.exec": ("ExecResult",),
    "_engine.inspection": ("Image",),
    "_images.progress": ("PullProgress",),
    "_options": ("AuthConfig", "BuildOptions", "File", "PortBinding", "Reuse", "RunOptions"),
    "_pool": ("Pool",),
    "_prepared": ("PreparedImage",),
    "_proxy": ("Proxy",),
    "_report": ("Report",),
    "_resource": ("Resource",),
    "_network": ("Network",),
    "_retry": ("retry", "retry_async"),
    "_standby": ("Standby",),
    "_timeline": ("Step",),
    "_volume": ("Volume",),
    "errors": (
        "CleanupError",
        "ComposeError",
        "ContainerCreateError",
        "ContainerExitedError",
        "ContainerStartError",
        "DockertestError",
        "DockerUnavailableError",
        "EngineError",
        "ExecError",
        "ExecTimeoutError",
        "HostAccessError",
        "ImageBuildError",
        "ImagePullError",
        "InvalidOptionError",
        "LogFailureError",
        "NotInContainerError",
        "NotInNetworkError",
        "PortNotBoundError",
        "PortNotPublishedError",
        "PrepareError",
        "ResourceClosedError",
        "RetryTimeoutError",
    ),
    "services": ("Connection",),
    "testcase": ("require_docker",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would take every misspelt name for an object

    def __getattr__(name: str) -> object:
        if name in _HOME_OF:
            return getattr(_import(f"dockertest.{_HOME_OF[name]}"), name)
        if name in (
            "errors",
            "services",
        ):  # `except dockertest.errors.EngineError`, without an import of its own
            return _import(f"dockertest.{name}")
        if name == "__version__":
            from importlib.metadata import version

            return version("dockertest-py")
        raise AttributeError(f"module 'dockertest' has no attribute {name!r}")


def _import(name: str) -> ModuleType:
    """
    Return one of our modules.

    pyfakefs discards the modules that were imported while it replaced the file system, since they keep its fakes. Neither
    classes nor modules of that time may be left in here.
    """
    if name not in modules:
        for attribute, value in list(globals().items()):
            is_ours = isinstance(value, ModuleType) and value.__name__.startswith("dockertest.")
            if is_ours and modules.get(value.__name__) is not value:
                del globals()[attribute]
    return import_module(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
