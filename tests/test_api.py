"""The public API has exactly the documented names."""

import dataclasses
import inspect
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import dockertest
from dockertest import embedding
from dockertest._containers.exec import ExecOptions

POOL = """
    run run_with_options run_all build_and_run build_and_run_with_options build_and_run_with_build_options
    prepare standby container_by_name remove_container_by_name purge retry retry_async current_container create_network
    networks_by_name remove_network prune close timeline pull
    inventory create_volume compose
""".split()
POOL_FIELDS = """
    endpoint cert_path client max_wait timeout image_prefix publish_ip pull_progress reaper keep ttl
""".split()
RESOURCE = """
    id name container get_port get_bound_ip get_host_port exec get_ip_in_network connect_to_network
    disconnect_from_network expire close retry status health wait_healthy logs stream_logs wait_for_log read_file
    write_file copy_in copy_out stop start restart wait refresh image report check_alive retry_async keep pause unpause kill commit
    proxy wait_ready wait_for_http wait_for_port url connection
    get_address
""".split()
PROXY = "port get_address get_host_port url delay bandwidth cut freeze restore close".split()
NETWORK = ["id", "name", "network", "close"]
VOLUME = ["name", "close"]
COMPOSE = ["project", "services", "containers", "close"]
GO_FIELDS = """
    hostname name repository tag env entrypoint cmd mounts links exposed_ports extra_hosts cap_add security_opt dns
    working_dir network_id networks labels auth port_bindings privileged user tty platform
""".split()
NEW_FIELDS = """
    network_aliases tmpfs shm_size init stop_timeout healthcheck pull publish_ip files reuse shared memory cpus gpus ulimits
    cap_drop sysctls devices read_only pid_mode ipc_mode restart publish_all_ports host_access_ports log_to host_config container_config
    service wait_for
""".split()
BUILD_FIELDS = """
    context_dir dockerfile build_args platform version auth target no_cache labels remove_image secrets cache_from
""".split()
AUTH_FIELDS = ["username", "password", "server_address", "identity_token"]
PROGRESS_FIELDS = ["image", "layers_done", "layers", "bytes_done", "bytes"]
IMAGE_FIELDS = """
    id platform exposed_ports env entrypoint command labels volumes stop_signal has_healthcheck attrs
""".split()
ITEM_FIELDS = [
    "kind",
    "id",
    "name",
    "image",
    "state",
    "ports",
    "session",
    "standing",
    "expires",
    "size",
    "last_used",
]
ERRORS = {
    "DockertestError": [],
    "DockerUnavailableError": [],
    "InvalidOptionError": [],
    "ImagePullError": [],
    "ImageBuildError": [],
    "ContainerCreateError": [],
    "ContainerStartError": ["report"],
    "PrepareError": ["report"],
    "ContainerExitedError": ["exit_code", "oom_killed", "logs", "report"],
    "PortNotPublishedError": ["port", "published"],
    "PortNotBoundError": ["port"],
    "NotInNetworkError": [],
    "NotInContainerError": [],
    "RetryTimeoutError": ["attempts", "elapsed", "report", "reports"],
    "LogFailureError": ["line", "report"],
    "HostAccessError": [],
    "ComposeError": ["output", "reports"],
    "ExecError": ["result"],
    "ExecTimeoutError": ["result"],
    "ResourceClosedError": [],
    "CleanupError": ["failures"],
    "EngineError": ["status"],
}
OTHERS = """
    AuthConfig BuildOptions Compose ExecResult File Network Pool PortBinding PreparedImage Proxy PullProgress Resource Reuse RunOptions
    Standby require_docker Volume
    retry retry_async
""".split()
MORE = {
    "Connection",
    "Image",
    "InventoryItem",
    "Report",
    "Step",
}  # the types of attributes and return values


def fields(of: type) -> list[str]:
    """Return the names of the public fields of a dataclass."""
    assert dataclasses.is_dataclass(of)
    return [field.name for field in dataclasses.fields(of) if not field.name.startswith("_")]


def test_all_lists_exactly_the_documented_names() -> None:
    """No documented name is missing, and no undocumented name is exported."""
    assert set(dockertest.__all__) == {*ERRORS, *OTHERS, *MORE}


def test_embedding_has_exactly_the_documented_functions() -> None:
    """The module for integrations defines no others."""
    defined = {name for name, value in vars(embedding).items() if inspect.isfunction(value)}
    names = {name for name in defined if vars(embedding)[name].__module__ == "dockertest.embedding"}
    assert names == set("pool_or_skip reports timeline kept timeline_table timeline_svg".split())


@pytest.mark.parametrize(
    ("of", "documented"),
    [
        (dockertest.Pool, POOL + POOL_FIELDS),
        (dockertest.Resource, RESOURCE),
        (dockertest.Network, NETWORK),
        (dockertest.Proxy, PROXY),
        (dockertest.Volume, VOLUME),
        (dockertest.Compose, COMPOSE),
        (dockertest.Standby, ["take", "close", "image"]),
    ],
)
def test_a_handle_has_exactly_the_documented_members(of: type, documented: list[str]) -> None:
    """It has no other public names."""
    actual = {name for name in [*dir(of), *fields(of)] if not name.startswith("_")}
    assert actual == set(documented)


def test_the_reference_documents_every_method(tmp_path: Path) -> None:
    """
    The site that `make docs` builds describes every public name.

    This includes every method of pools, resources and networks.
    """
    pytest.importorskip("sphinx")
    docs = Path(__file__).parents[1] / "docs"
    if not docs.is_dir():
        pytest.skip("docs is not next to these tests")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "sphinx",
        "--quiet",
        "--fail-on-warning",
        str(docs),
        str(tmp_path),
    ]
    subprocess.run(command, check=True)
    inventory = zlib.decompress((tmp_path / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode()
    documented = {line.split()[0] for line in inventory.splitlines()}
    methods = {
        f"dockertest.{of.__name__}.{name}"
        for of in (
            dockertest.Pool,
            dockertest.Resource,
            dockertest.Network,
            dockertest.Proxy,
            dockertest.Volume,
            dockertest.Compose,
            dockertest.Standby,
        )
        for name in dir(of)
        if not name.startswith("_") and callable(getattr(of, name))
    }
    names = {f"dockertest.{name}" for name in dockertest.__all__ if name not in ERRORS}
    assert sorted((methods | names) - documented) == []


@pytest.mark.parametrize(
    ("of", "documented"),
    [
        (dockertest.RunOptions, GO_FIELDS + NEW_FIELDS),
        (dockertest.BuildOptions, BUILD_FIELDS),
        (dockertest.AuthConfig, AUTH_FIELDS),
        (dockertest.PortBinding, ["host_ip", "host_port"]),
        (dockertest.File, ["data", "mode", "owner"]),
        (dockertest.PullProgress, PROGRESS_FIELDS),
        (dockertest.ExecResult, ["exit_code", "stdout", "stderr"]),
        (dockertest.Image, IMAGE_FIELDS),
        (dockertest.InventoryItem, ITEM_FIELDS),
    ],
)
def test_a_value_has_exactly_the_documented_fields(of: type, documented: list[str]) -> None:
    """It has no other public fields."""
    assert set(fields(of)) == set(documented)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_the_documented_attributes(name: str) -> None:
    """They have defaults if only a message is passed."""
    error = getattr(dockertest, name)("a message")
    assert all(hasattr(error, attribute) for attribute in ERRORS[name])


@pytest.mark.parametrize(
    ("call", "keywords"),
    [
        (dockertest.Pool.retry, "max_wait wait max_attempts on giveup watch"),
        (dockertest.Pool.retry_async, "max_wait wait max_attempts on giveup watch attempt_timeout"),
        (dockertest.retry, "max_wait wait max_attempts on giveup watch"),
        (dockertest.Pool.run_all, "max_workers"),
        (dockertest.Pool.prepare, "ready version max_age max_wait"),
        (dockertest.Pool.standby, "ready count max_idle"),
        (dockertest.Standby.take, "max_wait"),
        (dockertest.Pool.prune, "reused prepared"),
        (dockertest.Resource.exec, "text"),
        (dockertest.Resource.logs, "tail since stdout stderr max_bytes"),
        (dockertest.Resource.wait_for_log, "count fail_on max_wait"),
        (dockertest.Resource.wait_ready, "max_wait"),
        (dockertest.Resource.wait_for_port, "max_wait"),
        (dockertest.Resource.wait_for_http, "status headers tls max_wait"),
        (dockertest.Resource.url, "driver database network"),
        (dockertest.Resource.write_file, "mode"),
        (dockertest.Resource.connect_to_network, "aliases"),
    ],
)
def test_a_function_has_exactly_the_documented_keywords(call: object, keywords: str) -> None:
    """They are keyword-only parameters."""
    assert callable(call)
    parameters = inspect.signature(call).parameters.values()
    assert {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY} == set(
        keywords.split()
    )


def test_exec_has_exactly_the_documented_keywords() -> None:
    """They are a TypedDict, since the overloads for text and bytes share them."""
    assert set(ExecOptions.__annotations__) == set(
        "env stdin stdout stderr tty user working_dir timeout max_bytes check".split()
    )
