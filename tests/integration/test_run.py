"""Starting containers: what is asked for is what the engine makes."""

import urllib.request
from typing import Any

import psycopg
import pytest

import dockertest

from .conftest import Engine

SLEEP = ("sleep", "600")
SERVE = ("sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp")


def test_a_real_postgres_is_started_used_and_removed(engine: Engine) -> None:
    """The main job: a server, a connection by `retry`, an answer, and nothing left, its anonymous volume included."""
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


def test_the_tag_may_stand_in_the_name(pool: dockertest.Pool) -> None:
    """`run("busybox:1.35")` and `run("busybox", "1.35")` start the same image."""
    with pool.run("busybox:1.35", cmd=SLEEP) as one, pool.run("busybox", "1.35", cmd=SLEEP) as two:
        assert one.container.attrs["Image"] == two.container.attrs["Image"]


def test_options_reach_the_engine(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """Each of Go's options ends where the engine keeps it."""
    options = dockertest.RunOptions(
        repository="busybox",
        tag="1.35",
        name=name,
        hostname="inside",
        env=["A=1", "B=x=y"],
        entrypoint=["sh", "-c"],
        cmd=["sleep 600"],
        mounts=["/etc:/outside:ro", f"{name}:/kept"],
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
        found: Any = engine.inspect(name)
    pool.client.volumes.get(name).remove()
    config, host_config = found["Config"], found["HostConfig"]
    assert resource.id == found["Id"]
    assert config["Hostname"] == "inside"
    assert {"A=1", "B=x=y"} <= set(config["Env"])
    assert (config["Entrypoint"], config["Cmd"]) == (["sh", "-c"], ["sleep 600"])
    assert {mount["Destination"]: mount["RW"] for mount in found["Mounts"]} == {
        "/outside": False,
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


def test_privileged_is_asked_for(pool: dockertest.Pool) -> None:
    """It is in what the engine is sent, which may lack the right to grant it where these tests run."""
    asked: list[dict[str, Any]] = []
    options = dockertest.RunOptions(repository="busybox", tag="1.35", cmd=["true"], privileged=True)
    with pytest.raises(
        dockertest.DockertestError
    ):  # stopped before the engine sees it: what it would see is looked at
        pool.run_with_options(
            options, asked.append, lambda host_config: host_config.update(NetworkMode="no-such-net")
        )
    assert asked[0]["Privileged"] is True


def test_an_extra_port_answers_http(pool: dockertest.Pool, engine: Engine) -> None:
    """A port that only the options expose is published and reached."""
    with pool.run("busybox:1.35", cmd=SERVE, exposed_ports=["8080"]) as resource:
        url = f"http://{resource.get_host_port(8080)}/"

        def answer() -> bytes:
            with urllib.request.urlopen(url, timeout=5) as response:
                return bytes(response.read())

        assert resource.retry(answer, on=OSError) == b"hello\n"
        assert resource.get_host_port("8080/tcp") == f"{engine.host}:{resource.get_port('8080')}"


@pytest.mark.parametrize("binding", ["0", "", 0, dockertest.PortBinding("127.0.0.1", "0")])
def test_a_port_binding_may_leave_the_port_free(pool: dockertest.Pool, engine: Engine, binding: Any) -> None:
    """An empty or zero host port is any free one, and a bound port need not be exposed."""
    with pool.run("busybox:1.35", cmd=SLEEP, port_bindings={"8080/tcp": binding}) as resource:
        assert resource.get_port("8080/tcp") > 0
        assert resource.get_bound_ip("8080/tcp") == engine.host


def test_a_fixed_host_port_is_used(pool: dockertest.Pool) -> None:
    """A number binds just that port, and it is free again after the close."""
    with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[8080]) as first:
        free = first.get_port(8080)
    for _ in range(2):
        with pool.run("busybox:1.35", cmd=SLEEP, port_bindings={8080: free}) as resource:
            assert resource.get_port(8080) == free


def test_several_bindings_of_one_port(pool: dockertest.Pool) -> None:
    """A list publishes a port more than once."""
    bindings = [dockertest.PortBinding("127.0.0.1"), dockertest.PortBinding("127.0.0.2")]
    with pool.run("busybox:1.35", cmd=SLEEP, port_bindings={8080: bindings}) as resource:
        bound = resource.container.attrs["NetworkSettings"]["Ports"]["8080/tcp"]
        assert sorted(each["HostIp"] for each in bound) == ["127.0.0.1", "127.0.0.2"]


@pytest.mark.parametrize(("publish_ip", "reached_at"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.3", "127.0.0.3")])
def test_publish_ip_says_where(
    pool: dockertest.Pool, engine: Engine, publish_ip: str, reached_at: str
) -> None:
    """Ports are published on the address asked for; all addresses are reached at loopback, or at a remote engine's host."""
    with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[8080], publish_ip=publish_ip) as resource:
        assert resource.container.attrs["HostConfig"]["PortBindings"]["8080/tcp"][0]["HostIp"] == publish_ip
        assert resource.get_bound_ip(8080) == (reached_at if engine.is_local else engine.host)


def test_a_port_that_is_not_published_is_an_error(pool: dockertest.Pool, name: str) -> None:
    """Never an empty string, which would end as "cannot connect to localhost:"."""
    with pool.run("busybox:1.35", name=name, cmd=SLEEP, exposed_ports=[8080]) as resource:
        with pytest.raises(dockertest.PortNotPublishedError) as caught:
            resource.get_port(5433)
        expected = f"container '{name}' ({resource.id[:12]}) does not publish 5433/tcp; published: 8080/tcp"
        assert str(caught.value) == expected
        assert (caught.value.port, caught.value.published) == ("5433/tcp", ("8080/tcp",))


@pytest.mark.parametrize(
    ("network", "remedy"), [("", "; start it with exposed_ports=['80/tcp']"), ("host", "")]
)
def test_a_container_that_publishes_nothing_says_how_it_would(
    pool: dockertest.Pool, network: str, remedy: str
) -> None:
    """Where the image names no port, as busybox; in the host's network nothing is published in any case."""
    with (
        pool.run("busybox:1.35", cmd=SLEEP, network_id=network) as resource,
        pytest.raises(dockertest.PortNotPublishedError) as caught,
    ):
        resource.get_port(80)
    assert str(caught.value).endswith(f" does not publish 80/tcp; published: nothing{remedy}")


def test_a_port_of_an_ended_container_says_so(pool: dockertest.Pool, engine: Engine) -> None:
    """Asked for the port of a dead container, its death is the answer."""
    with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[8080]) as resource:
        engine.client.api.kill(resource.id)
        with pytest.raises(dockertest.ContainerExitedError, match="137"):
            resource.get_port(8080)


def test_networks_by_name_and_id(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """A container is in all networks that were named, under its aliases."""
    made = [engine.client.networks.create(f"{name}-{index}") for index in range(2)]
    try:
        with pool.run(
            "busybox:1.35",
            cmd=SLEEP,
            network_id=str(made[0].id),
            networks=[f"{name}-1"],
            network_aliases=["db"],
        ) as resource:
            networks = resource.container.attrs["NetworkSettings"]["Networks"]
            assert set(networks) == {f"{name}-0", f"{name}-1"}
            assert all("db" in network["Aliases"] for network in networks.values())
    finally:
        for network in made:
            network.remove()


def test_the_container_repr_tells_what_it_is(pool: dockertest.Pool, name: str) -> None:
    """One line: image, name and short id."""
    resource = pool.run("busybox:1.35", name=name, cmd=SLEEP)
    with resource:
        assert repr(resource).endswith(f"busybox:1.35 '{name}' {resource.id[:12]}>")
        assert repr(resource).startswith("<Resource ")
    assert repr(resource).endswith("(closed)>")
