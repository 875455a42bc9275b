"""Containers are started as requested."""

import urllib.request
from pathlib import PurePosixPath
from typing import Any

import psycopg
import pytest

import dockertest

from .conftest import Engine

SLEEP = ("sleep", "600")
SERVE = ("sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")


def test_a_real_postgres_is_started_used_and_removed(engine: Engine) -> None:
    """
    Connect by `retry`, query the server, and check that nothing is left.

    The check includes the anonymous volume of the container.
    """
    with dockertest.Pool() as pool:
        postgres = pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        assert postgres.get_bound_ip("5432/tcp") == engine.host
        url = f"postgresql://postgres:secret@{postgres.get_host_port('5432/tcp')}/postgres"
        with pool.retry(lambda: psycopg.connect(url)) as connection:
            assert connection.execute("SELECT 1 + 1").fetchone() == (2,)
        volumes = [mount["Name"] for mount in postgres.container.attrs["Mounts"]]
        assert volumes
        pool.purge(postgres)
        pool.purge(postgres)
        assert not engine.has(postgres.id)
    assert not any(engine.has_volume(volume) for volume in volumes)


def test_the_name_may_contain_the_tag(pool: dockertest.Pool) -> None:
    """`run("busybox:1.35")` and `run("busybox", "1.35")` start the same image."""
    with pool.run("busybox:1.35", cmd=SLEEP) as first, pool.run("busybox", "1.35", cmd=SLEEP) as second:
        assert first.container.attrs["Image"] == second.container.attrs["Image"]


def test_options_reach_the_engine(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """Each of Go's options has its counterpart in the engine's attributes."""
    options = dockertest.RunOptions(
        repository="busybox",
        tag="1.35",
        name=name,
        hostname="inside",
        env=["A=1", "B=x=y"],
        entrypoint=["sh", "-c"],
        cmd=["sleep 600"],
        mounts=["/etc:/outside:ro", (PurePosixPath("/usr"), "/programs", "ro"), f"{name}:/kept"],
        exposed_ports=["9000", "53/udp"],
        extra_hosts=["db.test:10.0.0.1"],
        cap_add=["NET_ADMIN"],
        security_opt=["no-new-privileges"],
        dns=["10.0.0.53"],
        working_dir="/tmp",
        labels={"team": "storage"},
        user="nobody",
        tty=True,
        platform="",
        tmpfs=["/scratch"],
        shm_size="32m",
        stop_timeout=3,
        healthcheck={"test": "true", "interval": 1},
    )
    with pool.run_with_options(options, lambda host_config: host_config.update(ShmSize=48 << 20)) as resource:
        attrs: Any = engine.inspect(name)
    pool.client.volumes.get(name).remove()
    config, host_config = attrs["Config"], attrs["HostConfig"]
    assert resource.id == attrs["Id"]
    assert config["Hostname"] == "inside"
    assert {"A=1", "B=x=y"} <= set(config["Env"])
    assert (config["Entrypoint"], config["Cmd"]) == (["sh", "-c"], ["sleep 600"])
    assert {mount["Destination"]: mount["RW"] for mount in attrs["Mounts"]} == {
        "/outside": False,
        "/programs": False,
        "/kept": True,
    }
    assert host_config["ExtraHosts"] == ["db.test:10.0.0.1"]
    assert host_config["CapAdd"] in (["NET_ADMIN"], ["CAP_NET_ADMIN"])
    assert host_config["SecurityOpt"] == ["no-new-privileges"]
    assert host_config["Dns"] == ["10.0.0.53"]
    assert config["WorkingDir"] == "/tmp"
    assert config["Labels"]["team"] == "storage"
    assert (config["User"], config["Tty"]) == ("nobody", True)
    assert list(host_config["Tmpfs"]) == ["/scratch"]
    assert host_config["ShmSize"] == 48 << 20, "a modifier has the last word"
    assert config["StopTimeout"] == 3
    assert config["Healthcheck"].items() >= {"Test": ["CMD-SHELL", "true"], "Interval": 10**9}.items()


def test_privileged_is_requested(pool: dockertest.Pool) -> None:
    """Only the request is checked, since the engine may not be able to grant it."""
    requests: list[dict[str, Any]] = []
    options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=["true"], privileged=True)
    with pytest.raises(
        dockertest.DockertestError
    ):  # fails before the start, because only the request matters
        pool.run_with_options(
            options, requests.append, lambda host_config: host_config.update(NetworkMode="no-such-net")
        )
    assert requests[0]["Privileged"] is True


def test_an_extra_port_answers_http(pool: dockertest.Pool, engine: Engine) -> None:
    """A port that only the options expose is published and reachable."""
    with pool.run("busybox:1.35", cmd=SERVE, exposed_ports=["8080"]) as resource:
        url = f"http://{resource.get_host_port(8080)}/"

        def answer() -> bytes:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bytes(response.read())

        assert resource.retry(answer, on=OSError) == b"hello\n"
        assert resource.get_host_port("8080/tcp") == f"{engine.host}:{resource.get_port('8080')}"


@pytest.mark.parametrize("binding", ["0", "", 0, dockertest.PortBinding("127.0.0.1", "0")])
def test_a_port_binding_without_a_port(pool: dockertest.Pool, engine: Engine, binding: Any) -> None:
    """
    An empty or zero host port selects any free one.

    A bound port need not be exposed.
    """
    with pool.run("busybox:1.35", cmd=SLEEP, port_bindings={"8080/tcp": binding}) as resource:
        assert resource.get_port("8080/tcp") > 0
        assert resource.get_bound_ip("8080/tcp") == engine.host


def test_a_fixed_host_port_is_used(pool: dockertest.Pool) -> None:
    """Exactly that port is bound, and is free again after the close."""
    with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[8080]) as first:
        free = first.get_port(8080)
    for _ in range(2):
        with pool.run("busybox:1.35", cmd=SLEEP, port_bindings={8080: free}) as resource:
            assert resource.get_port(8080) == free


def test_several_bindings_of_one_port(pool: dockertest.Pool) -> None:
    """A list publishes a port several times."""
    bindings = [dockertest.PortBinding("127.0.0.1"), dockertest.PortBinding("127.0.0.2")]
    with pool.run("busybox:1.35", cmd=SLEEP, port_bindings={8080: bindings}) as resource:
        bound = resource.container.attrs["NetworkSettings"]["Ports"]["8080/tcp"]
        assert sorted(binding["HostIp"] for binding in bound) == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.parametrize(("publish_ip", "reached_at"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.3", "127.0.0.3")])
def test_publish_ip_sets_the_address(
    pool: dockertest.Pool, engine: Engine, publish_ip: str, reached_at: str
) -> None:
    """
    A port that is published on all addresses is reached at loopback.

    With a remote engine, it is reached at the host of the engine.
    """
    with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[8080], publish_ip=publish_ip) as resource:
        assert resource.container.attrs["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostIp"] == publish_ip
        assert resource.get_bound_ip(8080) == (reached_at if engine.is_local else engine.host)


def test_an_unpublished_port_is_an_error(pool: dockertest.Pool, name: str) -> None:
    """An empty string would result in "cannot connect to localhost:"."""
    with pool.run("busybox:1.35", name=name, cmd=SLEEP, exposed_ports=[8080]) as resource:
        with pytest.raises(dockertest.PortNotPublishedError) as caught:
            resource.get_port(5433)
        expected = f"container '{name}' ({resource.id[:12]}) does not publish 5433/tcp; published: 8080/tcp"
        assert str(caught.value) == expected
        assert (caught.value.port, caught.value.published) == ("5433/tcp", ("8080/tcp",))


@pytest.mark.parametrize(
    ("network", "remedy"),
    [
        ("", "; start it with exposed_ports=['80/tcp']"),
        (
            "host",
            "; a container in the host's network publishes no ports: connect to the server's own port on that host",
        ),
        ("none", ""),
    ],
)
def test_a_container_without_published_ports_is_reported_with_a_hint(
    pool: dockertest.Pool, network: str, remedy: str
) -> None:
    """The image may expose no port, or the container may use the host's network."""
    with (
        pool.run("busybox:1.35", cmd=SLEEP, network_id=network) as resource,
        pytest.raises(dockertest.PortNotPublishedError) as caught,
    ):
        resource.get_port(80)
    assert str(caught.value).endswith(f" does not publish 80/tcp; published: nothing{remedy}")


def test_the_port_of_an_exited_container(pool: dockertest.Pool, engine: Engine) -> None:
    """The error reports the exit."""
    with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[8080]) as resource:
        engine.client.api.kill(resource.id)
        with pytest.raises(dockertest.ContainerExitedError, match="137"):
            resource.get_port(8080)


def test_networks_by_name_and_id(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """The container is in all of the networks, with its aliases."""
    created = [engine.client.networks.create(f"{name}-{index}") for index in range(2)]
    try:
        with pool.run(
            "busybox:1.35",
            cmd=SLEEP,
            network_id=str(created[0].id),
            networks=[f"{name}-1"],
            network_aliases=["db"],
        ) as resource:
            networks = resource.container.attrs["NetworkSettings"]["Networks"]
            assert set(networks) == {f"{name}-0", f"{name}-1"}
            assert all("db" in network["Aliases"] for network in networks.values())
    finally:
        for network in created:
            network.remove()


def test_the_repr_of_a_resource(pool: dockertest.Pool, name: str) -> None:
    """It has image, name and short id in one line."""
    resource = pool.run("busybox:1.35", name=name, cmd=SLEEP)
    with resource:
        assert repr(resource).endswith(f"busybox:1.35 '{name}' {resource.id[:12]}>")
        assert repr(resource).startswith("<Resource ")
    assert repr(resource).endswith("(closed)>")
