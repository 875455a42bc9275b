"""The view from inside a container that has the host's socket: this package and a Python are in it."""

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
from .test_reaper import gone

# What the package needs at run time.
PACKAGES = (
    "dockertest docker requests urllib3 idna certifi charset_normalizer backoff typing_extensions".split()
)

# What runs inside: it starts a server, reaches it where the library says, and tells where that was.
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
        print(json.dumps({"error": str(error), "session": pool._session_id}))
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
        "where": where, "answer": answer.decode(), "networks": networks, "session": pool._session_id,
        "endpoint": pool.endpoint, "why": pool._engine.endpoint.why, "name": pool.current_container().name,
        "passed over": [str(each) for each in pool._engine.passed_over],
    }))
"""
POSTGRES = {
    "run": {"repository": "postgres", "tag": "15", "env": {"POSTGRES_PASSWORD": "secret"}, "stop_timeout": 0},
    "port": "5432/tcp",
    "sent": "0000000804d2162f",  # does it speak TLS?
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

Ask = Callable[..., "dict[str, Any]"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this package and what it needs, in Python alone: the other Python may be of another version."""
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
def inside(pool: dockertest.Pool, packages: Path) -> Ask:
    """Runs the program in a container that is started with more options, and gives what it tells."""
    if not str(pool.endpoint).startswith("unix://"):
        pytest.skip("engine: it is remote, and has no socket here")

    def ask(
        says: "dict[str, Any]", env: "dict[str, str] | None" = None, at: str = "/var/run", **options: Any
    ) -> "dict[str, Any]":
        socket = f"{str(pool.endpoint).removeprefix('unix://')}:{at}/docker.sock"
        prefix = os.environ.get("DOCKERTEST_IMAGE_PREFIX", "")
        with pool.run("python:3.11", cmd=["sleep", "600"], mounts=[socket], **options) as python:
            python.copy_in(packages, "/")
            said = python.exec(
                ["python3", "-W", "error", "-c", PROGRAM, json.dumps(says)],
                env={"PYTHONPATH": "/packages", "DOCKERTEST_IMAGE_PREFIX": prefix, **(env or {})},
            )
        assert said.exit_code == 0, said.stderr
        return {"own": python.name, "log": said.stderr, **json.loads(said.stdout)}

    return ask


def test_a_postgres_is_reached_where_the_library_says(inside: Ask, engine: Engine) -> None:
    """At its own address and port, on the network that both are in."""
    found = inside(POSTGRES)
    (address,) = found["networks"].values()
    assert found["where"] == f"{address}:5432"
    assert found["answer"] in ("N", "S")
    assert found["name"] == found["own"]
    gone(engine, found["session"])


def test_what_is_started_joins_the_network_of_who_starts_it(inside: Ask, pool: dockertest.Pool) -> None:
    """As in a Compose project or a job of a CI service, whose containers are not in the engine's own network."""
    with pool.create_network() as network:
        found = inside(WEB, networks=[network])
        assert list(found["networks"]) == [network.name]
        assert found["where"] == f"{found['networks'][network.name]}:80"
        assert found["answer"].startswith("HTTP/1.")


def test_a_network_that_is_joined_later_counts(inside: Ask, pool: dockertest.Pool) -> None:
    """As Go's programs do it: whoever runs in a container connects that to the network of what it has started."""
    with pool.create_network() as ours, pool.create_network() as theirs:
        says = {**WEB, "run": {**WEB["run"], "networks": [theirs.id]}, "joined": theirs.id}
        found = inside(says, networks=[ours])
        assert found["where"] == f"{found['networks'][theirs.name]}:80"


def test_an_internal_network_will_do(inside: Ask, pool: dockertest.Pool) -> None:
    """Nothing is published there, and nothing has to be."""
    with pool.create_network(internal=True) as network:
        found = inside(WEB, networks=[network])
        assert found["where"] == f"{found['networks'][network.name]}:80"


def test_the_hosts_network_is_the_view_from_the_host(inside: Ask) -> None:
    """Loopback, and the published port."""
    found = inside(WEB, network_id="host")
    assert found["where"].startswith("127.0.0.1:")
    assert found["where"] != "127.0.0.1:80"
    assert found["name"] == found["own"]


def test_another_containers_network_is_ours(inside: Ask, pool: dockertest.Pool) -> None:
    """Who shares it reaches what it reaches."""
    with (
        pool.create_network() as network,
        pool.run("busybox:1.35", cmd=["sleep", "600"], networks=[network], stop_timeout=0) as other,
    ):
        found = inside(WEB, network_id=f"container:{other.id}")
        assert found["where"] == f"{found['networks'][network.name]}:80"


def test_without_a_shared_network_it_is_told_what_to_do(inside: Ask, pool: dockertest.Pool) -> None:
    """A port on the host's loopback is refused from inside."""
    with pool.create_network() as ours, pool.create_network() as theirs:
        elsewhere = {**WEB, "run": {**WEB["run"], "networks": [theirs.id]}}
        found = inside(elsewhere, networks=[ours])
        assert found["error"].endswith(
            f"and a port published on 127.0.0.1 is not reached from there; connect it to: {ours.name}"
        )


def test_a_port_on_all_addresses_is_reached_at_the_gateway(
    inside: Ask, pool: dockertest.Pool, engine: Engine
) -> None:
    """Without a shared network, that is the way to the host; but not on Podman, which keeps networks apart."""
    with pool.create_network() as ours, pool.create_network() as theirs:
        everywhere = {**WEB, "run": {**WEB["run"], "networks": [theirs.id], "publish_ip": "0.0.0.0"}}
        found = inside(everywhere, networks=[ours])
        if engine.is_podman:
            assert found["error"].endswith(f"is not reached from there; connect it to: {ours.name}")
        else:
            gateway = pool.client.networks.get(ours.id).attrs["IPAM"]["Config"][0]["Gateway"]
            assert found["where"].startswith(f"{gateway}:")


def test_a_socket_elsewhere_is_found(inside: Ask) -> None:
    """As rootless engines have it: in the runtime folder, and none at the default place."""
    found = inside(WEB, {"XDG_RUNTIME_DIR": "/run/user/1000"}, "/run/user/1000")
    assert found["endpoint"] == "unix:///run/user/1000/docker.sock"
    assert found["why"] == "rootless Docker"
    assert found["passed over"] == [
        "unix:///var/run/docker.sock (the default socket): no such file or directory"
    ]
