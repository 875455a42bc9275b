"""The public surface is what was promised: the names, copied from its description, against what there is."""

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dockertest
from dockertest._containers.exec import ExecOptions

POOL = """
    run run_with_options run_all build_and_run build_and_run_with_options build_and_run_with_build_options
    container_by_name remove_container_by_name purge retry retry_async current_container create_network
    networks_by_name remove_network prune close timeline
""".split()
POOL_FIELDS = """
    endpoint cert_path client max_wait timeout image_prefix publish_ip pull_progress reaper keep
""".split()
RESOURCE = """
    id name container get_port get_bound_ip get_host_port exec get_ip_in_network connect_to_network
    disconnect_from_network expire close retry status health wait_healthy logs stream_logs wait_for_log read_file
    write_file copy_in copy_out stop start restart wait refresh
""".split()
NETWORK = ["id", "name", "network", "close"]
GO_FIELDS = """
    hostname name repository tag env entrypoint cmd mounts links exposed_ports extra_hosts cap_add security_opt dns
    working_dir network_id networks labels auth port_bindings privileged user tty platform
""".split()
NEW_FIELDS = (
    "network_aliases tmpfs shm_size init stop_timeout healthcheck pull publish_ip files reuse".split()
)
BUILD_FIELDS = """
    context_dir dockerfile build_args platform version auth target no_cache labels remove_image
""".split()
AUTH_FIELDS = ["username", "password", "server_address", "identity_token"]
PROGRESS_FIELDS = ["image", "layers_done", "layers", "bytes_done", "bytes"]
ERRORS = {
    "DockertestError": [],
    "DockerUnavailableError": [],
    "InvalidOptionError": [],
    "ImagePullError": [],
    "ImageBuildError": [],
    "ContainerCreateError": [],
    "ContainerStartError": ["report"],
    "ContainerExitedError": ["exit_code", "oom_killed", "logs", "report"],
    "PortNotPublishedError": ["port", "published"],
    "NotInNetworkError": [],
    "NotInContainerError": [],
    "RetryTimeoutError": ["attempts", "elapsed", "report", "reports"],
    "ExecError": ["result"],
    "ExecTimeoutError": ["result"],
    "ResourceClosedError": [],
    "CleanupError": ["failures"],
    "EngineError": ["status"],
}
OTHERS = """
    AuthConfig BuildOptions ExecResult Network Pool PortBinding PullProgress Resource RunOptions require_docker
    retry retry_async
""".split()
MORE = {"Report", "Step"}  # what an error or a timeline is made of, and nobody has to name


def fields(of: type) -> list[str]:
    """Give the public fields of a dataclass."""
    assert dataclasses.is_dataclass(of)
    return [each.name for each in dataclasses.fields(of) if not each.name.startswith("_")]


def test_what_is_exported_is_what_was_promised() -> None:
    """No name is missing, and none is there that nobody promised."""
    assert set(dockertest.__all__) == {*ERRORS, *OTHERS, *MORE}


@pytest.mark.parametrize(
    ("of", "promised"),
    [(dockertest.Pool, POOL + POOL_FIELDS), (dockertest.Resource, RESOURCE), (dockertest.Network, NETWORK)],
)
def test_a_handle_has_the_members_that_were_promised(of: type, promised: list[str]) -> None:
    """Its public names are just those."""
    there = {name for name in [*dir(of), *fields(of)] if not name.startswith("_")}
    assert there == set(promised)


def test_the_reference_has_every_method(tmp_path: Path) -> None:
    """Those, too, that a class has from the private ones that it is made of; as `make docs` makes it."""
    pytest.importorskip("pdoc")
    root = Path(__file__).parents[1]
    (options,) = re.findall(r"-m pdoc (.*)", (root / "Makefile").read_text(encoding="utf-8"))
    command = [sys.executable, "-W", "ignore", "-m", "pdoc", *options.split()]
    command[command.index("-o") + 1] = str(tmp_path)
    subprocess.run(command, cwd=root, check=True)
    page = (tmp_path / "dockertest.html").read_text(encoding="utf-8")
    methods = {
        f"{of.__name__}.{name}"
        for of in (dockertest.Pool, dockertest.Resource, dockertest.Network)
        for name in dir(of)
        if not name.startswith("_") and callable(getattr(of, name))
    }
    assert [each for each in sorted(methods) if f'id="{each}"' not in page] == []


@pytest.mark.parametrize(
    ("of", "promised"),
    [
        (dockertest.RunOptions, GO_FIELDS + NEW_FIELDS),
        (dockertest.BuildOptions, BUILD_FIELDS),
        (dockertest.AuthConfig, AUTH_FIELDS),
        (dockertest.PortBinding, ["host_ip", "host_port"]),
        (dockertest.PullProgress, PROGRESS_FIELDS),
        (dockertest.ExecResult, ["exit_code", "stdout", "stderr"]),
    ],
)
def test_a_value_has_the_fields_that_were_promised(of: type, promised: list[str]) -> None:
    """Its fields are just those."""
    assert set(fields(of)) == set(promised)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_the_attributes_that_were_promised(name: str) -> None:
    """Made from a message alone, it has them."""
    error = getattr(dockertest, name)("a message")
    assert all(hasattr(error, attribute) for attribute in ERRORS[name])


@pytest.mark.parametrize(
    ("call", "keywords"),
    [
        (dockertest.Pool.retry, "max_wait wait max_attempts on giveup watch"),
        (dockertest.Pool.retry_async, "max_wait wait max_attempts on giveup watch attempt_timeout"),
        (dockertest.retry, "max_wait wait max_attempts on giveup watch"),
        (dockertest.Pool.run_all, "max_workers"),
        (dockertest.Resource.exec, "text"),
        (dockertest.Resource.logs, "tail since stdout stderr"),
        (dockertest.Resource.wait_for_log, "count max_wait"),
        (dockertest.Resource.write_file, "mode"),
        (dockertest.Resource.connect_to_network, "aliases"),
    ],
)
def test_a_call_has_the_keywords_that_were_promised(call: object, keywords: str) -> None:
    """And they are keywords alone."""
    assert callable(call)
    parameters = inspect.signature(call).parameters.values()
    assert {each.name for each in parameters if each.kind is each.KEYWORD_ONLY} == set(keywords.split())


def test_the_keywords_of_exec_are_those_that_were_promised() -> None:
    """They are typed as a whole, since the text or bytes of the result depend on one of them."""
    assert set(ExecOptions.__annotations__) == set(
        "env stdin stdout stderr tty user working_dir timeout check".split()
    )
