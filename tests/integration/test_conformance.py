"""
The behaviour that the tests of Go's Dockertest 3 and 4 cover.

The tests use a real engine. `make soak` runs this file twenty times.
"""

import threading
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, answer

from .conftest import Engine

SLEEP = ("sleep", "600")
SERVE = ("sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")


def fetch(address: str) -> bytes:
    """Return the response of a web server in a container."""
    with urllib.request.urlopen(f"http://{address}/", timeout=5) as response:
        return bytes(response.read())


def connect(postgres: dockertest.Resource) -> psycopg.Connection:
    """Connect to the PostgreSQL server in a container."""
    url = f"postgresql://postgres:secret@{postgres.get_host_port('5432/tcp')}/postgres"
    return postgres.retry(lambda: psycopg.connect(url, autocommit=True))


def test_postgres(pool: dockertest.Pool, engine: Engine) -> None:
    """A server has a port and an address, gets ready in `retry`, and is purged."""
    postgres = pool.run("postgres", "15", env=["POSTGRES_PASSWORD=secret"])
    assert postgres.get_port("5432/tcp") > 0
    assert postgres.get_bound_ip("5432/tcp") == engine.host
    with connect(postgres) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    pool.purge(postgres)
    assert not engine.has(postgres.id)


def test_a_command_with_an_extra_exposed_port_answers_http(pool: dockertest.Pool) -> None:
    """A port that only the options expose is published."""
    options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=SERVE, exposed_ports=["8080"])
    with pool.run_with_options(options) as resource:
        assert resource.retry(lambda: fetch(resource.get_host_port("8080/tcp")), on=OSError) == b"hello\n"


def test_the_platform_may_be_empty(pool: dockertest.Pool) -> None:
    """An empty platform means the engine's default."""
    with pool.run("busybox:1.35", cmd=SLEEP, platform="") as resource:
        assert resource.status == "running"


def test_name_labels_user_and_tty(pool: dockertest.Pool, name: str) -> None:
    """The options reach the container; dockertest may add labels of its own."""
    with pool.run(
        "busybox:1.35", cmd=SLEEP, name=name, labels={"my": "label"}, user="nobody", tty=True
    ) as resource:
        config = resource.container.attrs["Config"]
        assert resource.name == name == resource.container.name
        assert config["Labels"]["my"] == "label"
        assert (config["User"], config["Tty"]) == ("nobody", True)


def test_a_fixed_host_port(pool: dockertest.Pool, engine: Engine) -> None:
    """A binding with a port number uses exactly that port."""
    with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[8080]) as first:
        free = first.get_port(8080)
    with pool.run("busybox:1.35", cmd=SERVE, port_bindings={"8080/tcp": [str(free)]}) as resource:
        assert resource.get_host_port("8080/tcp") == f"{engine.host}:{free}"


def test_a_host_ip_with_port_zero(pool: dockertest.Pool, engine: Engine) -> None:
    """An address with port 0 gets any free port of that address."""
    binding = dockertest.PortBinding(host_ip="127.0.0.1", host_port="0")
    with pool.run("busybox:1.35", cmd=SLEEP, port_bindings={"8080/tcp": [binding]}) as resource:
        assert resource.get_bound_ip("8080/tcp") == engine.host
        assert resource.get_port("8080/tcp") > 0


def test_a_host_config_modifier(pool: dockertest.Pool) -> None:
    """A modifier changes the engine's host config."""
    options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=SLEEP)
    with pool.run_with_options(options, lambda host_config: host_config.update(ShmSize=64 << 20)) as resource:
        assert resource.container.attrs["HostConfig"]["ShmSize"] == 64 << 20


def test_expire_removes_the_container(pool: dockertest.Pool, engine: Engine) -> None:
    """A new deadline replaces the previous one, and `None` cancels it."""
    expiring = pool.run("busybox:1.35", cmd=SLEEP)
    kept = pool.run("busybox:1.35", cmd=SLEEP)
    kept.expire(6)
    expiring.expire(600)
    expiring.expire(7)
    kept.expire(None)
    dockertest.retry(lambda: not engine.has(expiring.id), max_wait=60)
    assert engine.has(kept.id)
    kept.close()


def test_a_container_is_found_by_name(pool: dockertest.Pool, name: str) -> None:
    """Only the exact name matches."""
    with pool.run("busybox:1.35", name=name, cmd=SLEEP) as resource:
        other = pool.container_by_name(name)
        assert other is not None
        assert (other.id, other.name) == (resource.id, resource.name)
        assert pool.container_by_name(name[:-1]) is None
        assert pool.container_by_name(resource.id[:12]) is None
        with pytest.raises(dockertest.InvalidOptionError, match="name is empty"):
            pool.container_by_name("")


def test_a_container_is_removed_by_name(pool: dockertest.Pool, name: str) -> None:
    """Only the exact name matches, and the name is available again after the removal."""
    pool.run("busybox:1.35", name=name, cmd=SLEEP)
    assert not pool.remove_container_by_name(name[:-1])
    assert pool.remove_container_by_name(name)
    assert not pool.remove_container_by_name(name)
    pool.run("busybox:1.35", name=name, cmd=SLEEP).close()


def test_exec_and_a_client_get_the_same_answer(pool: dockertest.Pool) -> None:
    """A command in the container and a client outside return the same server version."""
    with (
        pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"}) as postgres,
        connect(postgres) as connection,
    ):
        row = connection.execute("SELECT version()").fetchone()
        result = postgres.exec(["psql", "-qtAX", "-U", "postgres", "-c", "SELECT version()"])
        assert row is not None
        assert (result.exit_code, result.stdout.strip()) == (0, row[0])


def test_exec_exit_codes(pool: dockertest.Pool) -> None:
    """The exit code is returned for short and for longer commands."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        assert resource.exec(["false"]).exit_code == 1
        assert resource.exec(["sh", "-c", "sleep 1; exit 42"]).exit_code == 42


def test_networks_are_joined_at_the_start(pool: dockertest.Pool) -> None:
    """A container has an address in each of its networks."""
    first, second = pool.create_network(), pool.create_network()
    with first, second, pool.run("busybox:1.35", cmd=SLEEP, networks=[first, second]) as resource:
        assert resource.get_ip_in_network(first) != resource.get_ip_in_network(second)


def test_networks_can_be_joined_and_left_later(pool: dockertest.Pool) -> None:
    """
    One container reaches another by its address in their network.

    The address is passed in the environment of an exec.
    """
    network = pool.create_network()
    with (
        network,
        pool.run("busybox:1.35", cmd=SERVE) as server,
        pool.run("busybox:1.35", cmd=SLEEP) as client,
    ):
        with pytest.raises(dockertest.NotInNetworkError):
            server.get_ip_in_network(network)
        server.connect_to_network(network)
        client.connect_to_network(network)
        env = {"ADDRESS": server.get_ip_in_network(network)}
        command = ["sh", "-c", "wget -q -O - http://$ADDRESS:8080/"]
        assert client.retry(lambda: client.exec(command, env=env, check=True).stdout) == "hello\n"
        server.disconnect_from_network(network)
        with pytest.raises(dockertest.NotInNetworkError):
            server.get_ip_in_network(network)


def test_ten_parallel_runs_on_a_new_pool() -> None:
    """Each run gets its own container."""
    with dockertest.Pool() as pool:
        options = [dockertest.RunOptions(repository="busybox", tag="1.35", cmd=SLEEP)] * 10
        resources = pool.run_all(options, max_workers=10)
        assert len({resource.id for resource in resources}) == 10


def test_standard_output_and_error_can_be_read_separately(pool: dockertest.Pool) -> None:
    """By default, `logs` returns both."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo out; echo err >&2"]) as resource:
        assert resource.wait(30) == 0
        assert resource.logs(stderr=False) == "out\n"
        assert resource.logs(stdout=False) == "err\n"
        assert sorted(resource.logs().splitlines()) == ["err", "out"]


def test_a_followed_log_ends_with_the_container(pool: dockertest.Pool) -> None:
    """The stream ends when the container exits."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo one; sleep 0.5; echo two"]) as resource:
        assert list(resource.stream_logs()) == ["one", "two"]


def test_a_followed_log_can_be_closed(pool: dockertest.Pool) -> None:
    """Calling `close` in another thread ends the stream of a silent container."""
    with pool.run("busybox:1.35", cmd=["sh", "-c", "echo one; sleep 600"]) as resource:
        stream = resource.stream_logs()
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(stream))
        thread.start()
        dockertest.retry(lambda: bool(lines), max_wait=10)
        stream.close()
        thread.join(10)
        assert not thread.is_alive()


def test_a_container_is_reused_by_its_configuration(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """Not only the image counts; closing keeps the container, and purging removes it."""
    first = pool.run("busybox:1.35", env={"KEY": name}, cmd=SLEEP, reuse=True)
    first.close()
    second = pool.run("busybox:1.35", env={"KEY": name}, cmd=SLEEP, reuse=True)
    other = pool.run("busybox:1.35", env={"KEY": f"{name} 2"}, cmd=SLEEP, reuse=True)
    assert (second.id == first.id, other.id == first.id) == (True, False)
    pool.purge(second)
    pool.purge(other)
    assert not engine.has(first.id)


def test_a_hundred_concurrent_runs_reuse_one_container(name: str) -> None:
    """All of them start at the same time, on a new pool."""
    options = dockertest.RunOptions(repository="busybox:1.35", name=name, cmd=SLEEP, reuse=True)
    ids: list[str] = []
    with dockertest.Pool() as pool:
        threads = [
            threading.Thread(target=lambda: ids.append(pool.run_with_options(options).id)) for _ in range(100)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 100
        assert len(set(ids)) == 1
        assert pool.remove_container_by_name(name)
        assert not pool.remove_container_by_name(name)


def test_eight_concurrent_closes_remove_once(tmp_path: Path) -> None:
    """The engine receives one request to remove the container."""
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        threads = [threading.Thread(target=resource.close) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # The session's reaper may remove leftovers of other sessions through the same proxy.
        deletions = [line for line in proxy.requests if line.startswith("DELETE") and resource.id in line]
        assert len(deletions) == 1


def test_a_start_failure_is_rolled_back(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """The container that was created but could not be started is removed."""
    with pytest.raises(dockertest.ContainerStartError):
        pool.run("busybox:1.35", name=name, cmd=["no-such-command"])
    assert not engine.has(name)


def test_a_cleanup_failure_is_reported_and_retried(tmp_path: Path, engine: Engine) -> None:
    """The error names the remaining container, and a second close removes it."""
    with FaultProxy(tmp_path / "engine.sock").running() as proxy:
        pool = dockertest.Pool(proxy.endpoint)
        resources = [pool.run("busybox:1.35", cmd=SLEEP) for _ in range(3)]
        for _ in range(2):  # with the other containers, and once more after them
            proxy.next(rf"^DELETE .*{resources[1].id}", answer(500, "device is busy"))
        with pytest.raises(dockertest.CleanupError, match="device is busy") as caught:
            pool.close()
        assert len(caught.value.failures) == 1
        assert f"docker -H {proxy.endpoint} rm -f -v" in str(caught.value)
        assert sum(engine.has(resource.id) for resource in resources) == 1
        pool.close()
        assert not any(engine.has(resource.id) for resource in resources)


def test_a_network_is_found_by_name(pool: dockertest.Pool, name: str) -> None:
    """Only the exact name matches, and closing the result keeps the network."""
    with pool.create_network(name) as network:
        (borrowed,) = pool.networks_by_name(name)
        assert borrowed.id == network.id
        assert pool.networks_by_name(name[:-1]) == []
        borrowed.close()
        assert len(pool.networks_by_name(name)) == 1
    assert pool.networks_by_name(name) == []


def test_two_containers_get_different_addresses(pool: dockertest.Pool) -> None:
    """The same container port is published at different host ports."""
    options: dict[str, Any] = {"cmd": SLEEP, "exposed_ports": [8080]}
    with pool.run("busybox:1.35", **options) as first, pool.run("busybox:1.35", **options) as second:
        assert first.get_host_port(8080) != second.get_host_port(8080)


def test_a_dockerfile_with_a_build_argument(pool: dockertest.Pool, name: str, tmp_path: Path) -> None:
    """
    The build argument is visible through exec.

    The built image is run without a pull.
    """
    dockerfile = f'FROM {pool.image_prefix}busybox:1.35\nARG WORD=none\nRUN echo "$WORD" > /word\n'
    (tmp_path / "Dockerfile").write_text(dockerfile)
    build = dockertest.BuildOptions(tmp_path, build_args={"WORD": "hello"}, remove_image=True)
    options = dockertest.RunOptions(name=name, cmd=SLEEP, pull="always")
    with pool.build_and_run_with_build_options(build, options) as resource:
        assert resource.exec(["cat", "/word"]).stdout == "hello\n"
    with pool.build_and_run_with_options(tmp_path / "Dockerfile", options) as resource:
        assert resource.exec(["cat", "/word"]).stdout == "none\n"
    pool.client.images.remove(name)
