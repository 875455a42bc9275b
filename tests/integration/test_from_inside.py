"""
Ports are reached from inside a container that has the engine's socket.

The container also has Python and this package.
"""

import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dockertest

from .conftest import Engine
from .test_reaper import wait_until_removed

# The run-time dependencies of the package.
PACKAGES = (
    "dockertest docker requests urllib3 idna certifi charset_normalizer backoff typing_extensions".split()
)

# This program runs inside. It starts a server, connects to it at its reported address, and prints the results.
PROGRAM = """
import dockertest, json, socket, sys
says = json.loads(sys.argv[1])
with dockertest.Pool() as pool:
    server = pool.run(**says["run"])
    if "joined" in says:
        pool.current_container().connect_to_network(says["joined"])
    try:
        where = server.get_host_port(says["port"])
    except dockertest.DockertestError as error:
        print(json.dumps({"error": str(error), "session": pool._runtime.session.id}))
        sys.exit()

    def ask():
        with socket.create_connection((server.get_bound_ip(says["port"]), server.get_port(says["port"])), 1) as asking:
            asking.settimeout(1)
            asking.sendall(bytes.fromhex(says["sent"]))
            answer = asking.recv(10)
            return answer or False

    answer = server.retry(ask)
    networks = {name: end["IPAddress"] for name, end in server.container.attrs["NetworkSettings"]["Networks"].items()}
    print(json.dumps({
        "where": where, "answer": answer.decode(), "networks": networks, "session": pool._runtime.session.id,
        "endpoint": pool.endpoint, "why": pool._runtime.engine.endpoint.why, "name": pool.current_container().name,
        "passed over": [str(each) for each in pool._runtime.engine.passed_over],
    }))
"""
POSTGRES = {
    "run": {"repository": "postgres", "tag": "15", "env": {"POSTGRES_PASSWORD": "secret"}, "stop_timeout": 0},
    "port": "5432/tcp",
    "sent": "0000000804d2162f",  # PostgreSQL's request for TLS
}
WEB: "dict[str, Any]" = {
    "run": {
        "repository": "busybox:1.35",
        "cmd": ["httpd", "-f", "-p", "80", "-h", "/etc"],
        "exposed_ports": [80],
        "stop_timeout": 0,
    },
    "port": 80,
    "sent": b"GET / HTTP/1.0\r\n\r\n".hex(),
}

RunInside = Callable[..., "dict[str, Any]"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A folder with pure Python copies of this package and its dependencies.

    A Python of another version can import them.
    """
    folder = tmp_path_factory.mktemp("inside") / "packages"
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        path = Path(str(spec.origin))
        if path.name == "__init__.py":
            ignored = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(path.parent, folder / name, ignore=ignored)
        else:
            shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="module")
def inside(pool: dockertest.Pool, packages: Path) -> RunInside:
    """
    Return a function that runs the program in a container.

    The function accepts options of the container, and returns the program's output.
    """
    if not str(pool.endpoint).startswith("unix://"):
        pytest.skip("engine: it is remote and has no local socket")

    def run(
        scenario: "dict[str, Any]", env: "dict[str, str] | None" = None, at: str = "/var/run", **options: Any
    ) -> "dict[str, Any]":
        socket = f"{str(pool.endpoint).removeprefix('unix://')}:{at}/docker.sock"
        prefix = os.environ.get("DOCKERTEST_IMAGE_PREFIX", "")
        with pool.run("python:3.11", cmd=["sleep", "600"], mounts=[socket], **options) as python:
            python.copy_in(packages, "/")
            result = python.exec(
                ["python3", "-W", "error", "-c", PROGRAM, json.dumps(scenario)],
                env={"PYTHONPATH": "/packages", "DOCKERTEST_IMAGE_PREFIX": prefix, **(env or {})},
            )
        assert result.exit_code == 0, result.stderr
        return {"own": python.name, "log": result.stderr, **json.loads(result.stdout)}

    return run


def test_postgres_is_reached_at_the_reported_address(inside: RunInside, engine: Engine) -> None:
    """Its address is that in the shared network, with the container's port."""
    result = inside(POSTGRES)
    (address,) = result["networks"].values()
    assert result["where"] == f"{address}:5432"
    assert result["answer"] in ("N", "S")
    assert result["name"] == result["own"]
    wait_until_removed(engine, result["session"])


def test_a_started_container_joins_the_network_of_its_starter(
    inside: RunInside, pool: dockertest.Pool
) -> None:
    """In a Compose project or a CI job, containers are not in the default network."""
    with pool.create_network() as network:
        result = inside(WEB, networks=[network])
        assert list(result["networks"]) == [network.name]
        assert result["where"] == f"{result['networks'][network.name]}:80"
        assert result["answer"].startswith("HTTP/1.")


def test_a_network_that_is_joined_later_is_used(inside: RunInside, pool: dockertest.Pool) -> None:
    """
    The container connects itself to the network of a container it has started.

    Programs in Go do so.
    """
    with pool.create_network() as ours, pool.create_network() as theirs:
        scenario = {**WEB, "run": {**WEB["run"], "networks": [theirs.id]}, "joined": theirs.id}
        result = inside(scenario, networks=[ours])
        assert result["where"] == f"{result['networks'][theirs.name]}:80"


def test_an_internal_network_is_sufficient(inside: RunInside, pool: dockertest.Pool) -> None:
    """No port has to be published."""
    with pool.create_network(internal=True) as network:
        result = inside(WEB, networks=[network])
        assert result["where"] == f"{result['networks'][network.name]}:80"


def test_a_network_with_a_way_out_is_preferred(inside: RunInside, pool: dockertest.Pool, name: str) -> None:
    """The internal network comes first, in the order of their names."""
    with (
        pool.create_network(f"{name}-a", internal=True) as internal,
        pool.create_network(f"{name}-b") as normal,
    ):
        result = inside(WEB, networks=[internal, normal])
        assert list(result["networks"]) == [normal.name]
        assert result["where"] == f"{result['networks'][normal.name]}:80"


@pytest.mark.differs("networks of the same name")
def test_a_network_whose_name_occurs_twice_is_joined(
    inside: RunInside, pool: dockertest.Pool, name: str
) -> None:
    """The containers of both programs are in the same one of the two networks."""
    with pool.create_network(name) as network:
        other = pool.client.networks.create(name, check_duplicate=False)
        try:
            result = inside(WEB, networks=[network])
        finally:
            other.remove()
        assert result["where"] == f"{result['networks'][name]}:80"


def test_a_container_in_the_host_network_uses_loopback(inside: RunInside) -> None:
    """The port is reached as from outside of a container."""
    result = inside(WEB, network_id="host")
    assert result["where"].startswith("127.0.0.1:")
    assert result["where"] != "127.0.0.1:80"
    assert result["name"] == result["own"]


def test_the_network_of_another_container_is_used(inside: RunInside, pool: dockertest.Pool) -> None:
    """A container has the networks of the container whose network stack it shares."""
    with (
        pool.create_network() as network,
        pool.run("busybox:1.35", cmd=["sleep", "600"], networks=[network], stop_timeout=0) as other,
    ):
        result = inside(WEB, network_id=f"container:{other.id}")
        assert result["where"] == f"{result['networks'][network.name]}:80"


def test_without_a_shared_network_the_error_has_a_hint(inside: RunInside, pool: dockertest.Pool) -> None:
    """A port that is published on the host's loopback is unreachable."""
    with pool.create_network() as ours, pool.create_network() as theirs:
        scenario = {**WEB, "run": {**WEB["run"], "networks": [theirs.id]}}
        result = inside(scenario, networks=[ours])
        assert result["error"].endswith(
            f"cannot connect to a port published on 127.0.0.1; connect it to one of: {ours.name}"
        )


def test_a_port_on_all_addresses_is_reached_at_the_gateway(
    inside: RunInside, pool: dockertest.Pool, engine: Engine
) -> None:
    """
    Without a shared network, the gateway leads to the host, except on Podman.

    Podman isolates networks.
    """
    with pool.create_network() as ours, pool.create_network() as theirs:
        scenario = {**WEB, "run": {**WEB["run"], "networks": [theirs.id], "publish_ip": "0.0.0.0"}}
        result = inside(scenario, networks=[ours])
        if engine.is_podman:
            assert result["error"].endswith(f"published on 0.0.0.0; connect it to one of: {ours.name}")
        else:
            gateway = pool.client.networks.get(ours.id).attrs["IPAM"]["Config"][0]["Gateway"]
            assert result["where"].startswith(f"{gateway}:")


def test_a_rootless_socket_is_found(inside: RunInside) -> None:
    """It is in the runtime folder, and there is none at the default path."""
    result = inside(WEB, {"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000")
    assert result["endpoint"] == "unix:///run/user/1000/docker.sock"
    assert result["why"] == "rootless Docker"
    assert result["passed over"] == [
        "unix:///var/run/docker.sock (default socket): no such file or directory"
    ]
