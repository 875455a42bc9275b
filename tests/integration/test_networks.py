"""Creating, joining, leaving and removing networks."""

import io
import ipaddress
import json
import os
import re
import secrets
import socket
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, answer

from .conftest import Engine

SLEEP = ("sleep", "600")


def test_a_network_is_removed_with_its_pool(engine: Engine, name: str) -> None:
    """Networks are removed after the containers in them."""
    with dockertest.Pool() as pool:
        network = pool.create_network(
            name, labels={"team": "storage"}, internal=True, subnet="198.19.77.0/24"
        )
        pool.run("busybox:1.35", cmd=SLEEP, networks=[network])
        attrs = engine.client.api.inspect_network(network.id)
        assert attrs["Internal"] is True
        assert attrs["Labels"]["team"] == "storage"
        assert attrs["IPAM"]["Config"][0]["Subnet"] == "198.19.77.0/24"
        assert repr(network) == f"<Network '{name}' {network.id[:12]}>"
    assert not engine.client.networks.list(names=[name])
    with pytest.raises(dockertest.ResourceClosedError), network:
        pass


def test_generated_names_are_unique(pool: dockertest.Pool) -> None:
    """Networks without a name do not conflict."""
    with pool.create_network() as first, pool.create_network() as second:
        assert first.name != second.name


def test_a_network_name_in_use(pool: dockertest.Pool, name: str) -> None:
    """Older engines would create another network with the same name."""
    with pool.create_network(name), pytest.raises(dockertest.EngineError, match=name):
        pool.create_network(name)


def test_containers_are_disconnected_before_a_network_is_removed(
    pool: dockertest.Pool, engine: Engine
) -> None:
    """The containers keep running. Removing a network again has no effect."""
    network = pool.create_network()
    with pool.run("busybox:1.35", cmd=SLEEP, networks=[network]) as resource:
        pool.remove_network(network)
        pool.remove_network(network)
        network.close()
        assert not engine.client.networks.list(names=[network.name])
        assert resource.status == "running"


@pytest.mark.parametrize(
    "message",
    [
        "container 123 is marked for removal and cannot be connected or disconnected",
        "container 123 is not connected to the network",
    ],
)
def test_a_network_is_removed_while_its_container_is_being_removed(
    tmp_path: Path, engine: Engine, message: str
) -> None:
    """Docker refuses to disconnect such a container."""
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        network = pool.create_network()
        pool.run("busybox:1.35", cmd=SLEEP, networks=[network])
        proxy.next("/disconnect", answer(409, message))
        network.close()
        assert not engine.client.networks.list(names=[network.name])


def test_a_network_that_stays_in_use(tmp_path: Path) -> None:
    """The engine's error is raised when the pool's `timeout` is over."""
    with (
        FaultProxy(tmp_path / "engine.sock").running() as proxy,
        dockertest.Pool(proxy.endpoint) as patient,
        dockertest.Pool(proxy.endpoint, timeout=3) as hasty,
    ):
        (network,) = hasty.networks_by_name(patient.create_network().name)
        proxy.always = answer(403, "network has active endpoints")
        try:
            with pytest.raises(dockertest.EngineError, match="active endpoints"):
                hasty.remove_network(network)
        finally:
            proxy.always = None


def test_an_ipv6_subnet(pool: dockertest.Pool) -> None:
    """Containers have an address in it."""
    subnet = ipaddress.IPv6Network((b"\xfd" + secrets.token_bytes(7) + bytes(8), 64))
    with (
        pool.create_network(subnet=str(subnet)) as network,
        pool.run("busybox:1.35", cmd=SLEEP, networks=[network]) as resource,
    ):
        endpoint = resource.container.attrs["NetworkSettings"]["Networks"][network.name]
        assert ipaddress.ip_address(endpoint["GlobalIPv6Address"]) in subnet


def test_a_borrowed_network_can_be_removed(pool: dockertest.Pool, name: str) -> None:
    """
    An explicit removal works.

    `networks_by_name` does not make the pool the owner of the network.
    """
    pool.create_network(name)
    (borrowed,) = pool.networks_by_name(name)
    pool.remove_network(borrowed)
    assert pool.networks_by_name(name) == []


def test_the_default_network_keeps_its_containers(tmp_path: Path) -> None:
    """
    No container is disconnected from the engine's own bridge.

    The engine refuses to remove it.
    """
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        (bridge,) = pool.networks_by_name("bridge") or pool.networks_by_name("podman")
        proxy.next("/disconnect", answer(500, "this would have cut others off"))
        with pytest.raises(dockertest.EngineError, match=r"pre-defined|default network"):
            pool.remove_network(bridge)
        assert resource.get_ip_in_network(bridge)
        assert not [line for line in proxy.requests if "/disconnect" in line]


def test_ports_in_an_internal_network_are_not_waited_for(tmp_path: Path, name: str) -> None:
    """They are never published, so neither a start nor a reuse polls for them."""
    proxy = FaultProxy(tmp_path / "engine.sock")
    with proxy.running(), dockertest.Pool(proxy.endpoint, reaper=False) as pool:
        network = pool.client.networks.create(name, internal=True)
        try:
            for _ in range(2):
                proxy.requests.clear()
                shared = pool.run(
                    "busybox:1.35", cmd=SLEEP, name=name, networks=[name], exposed_ports=[80], reuse=True
                )
                assert sum("/containers/" in line and "/json" in line for line in proxy.requests) <= 3
            pool.purge(shared)
        finally:
            network.remove()


@pytest.mark.differs("host ports from a range")
def test_a_host_port_that_a_program_uses(pool: dockertest.Pool) -> None:
    """The engine binds another port of the range."""
    first = secrets.randbelow(10000) + 20000
    program = ("httpd", "-f", "-p", str(first))
    with pool.run("busybox:1.35", cmd=program, networks=["host"], stop_timeout=0) as other:
        other.retry(lambda: other.exec(["sh", "-c", f"nc 127.0.0.1 {first} < /dev/null"]).exit_code == 0)
        with pool.run("busybox:1.35", cmd=SLEEP, port_bindings={8080: f"{first}-{first + 2}"}) as resource:
            assert first < resource.get_port(8080) <= first + 2
        with pytest.raises(dockertest.ContainerStartError, match="in use"):
            pool.run("busybox:1.35", cmd=SLEEP, port_bindings={8080: first})


def test_a_port_without_a_protocol(pool: dockertest.Pool, engine: Engine, name: str) -> None:
    """Some programs write images whose ports have none; it is TCP."""
    busybox = engine.client.images.get(f"{os.environ.get('DOCKERTEST_IMAGE_PREFIX', '')}busybox:1.35")
    saved, changed = io.BytesIO(b"".join(busybox.save(named=True))), io.BytesIO()
    with tarfile.open(fileobj=saved) as source, tarfile.open(fileobj=changed, mode="w") as target:
        manifest = json.loads(_content(source, "manifest.json"))[0]
        config = json.loads(_content(source, manifest["Config"]))
        config["config"] |= {"ExposedPorts": {"8080": {}}, "Cmd": ["httpd", "-f", "-p", "8080"]}
        _add(target, "config.json", json.dumps(config).encode())
        for layer in manifest["Layers"]:
            _add(target, layer, _content(source, layer))
        ours = [{"Config": "config.json", "RepoTags": [f"localhost/{name}:1"], "Layers": manifest["Layers"]}]
        _add(target, "manifest.json", json.dumps(ours).encode())
    engine.client.images.load(changed.getvalue())
    try:
        with dockertest.Pool(image_prefix="") as own:
            resource = own.run(f"localhost/{name}:1", wait_for="port")
            assert set(resource.container.attrs["HostConfig"]["PortBindings"]) == {"8080/tcp"}
            assert resource.get_port(8080) > 0
    finally:
        engine.client.images.remove(f"localhost/{name}:1", force=True)


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def resolve(client: dockertest.Resource, alias: str) -> str:
    """
    Return the address of a name inside a container.

    If Podman's name server loses a query, the resolver repeats it for up to 40 s.
    """

    def ask() -> str:
        result = client.exec(["ping", "-c", "1", "-W", "1", alias])
        match = re.match(rf"PING {alias} \(([0-9.]+)\)", result.stdout)  # printed before a packet is sent
        assert match, result
        return match[1]

    return client.retry(ask, max_wait=100)


def test_aliases_resolve(pool: dockertest.Pool) -> None:
    """Another container resolves the alias from the start or from a later connection."""
    with pool.create_network() as network, pool.run("busybox:1.35", cmd=SLEEP, networks=[network]) as client:
        with pool.run("busybox:1.35", cmd=SLEEP, networks=[network], network_aliases=["early"]) as server:
            server.disconnect_from_network(network)
            server.connect_to_network(network, aliases=["late"])
            assert resolve(client, "late") == server.get_ip_in_network(network)
        with pool.run("busybox:1.35", cmd=SLEEP, networks=[network], network_aliases=["early"]) as server:
            assert resolve(client, "early") == server.get_ip_in_network(network)


def test_the_address_by_network_name_id_or_object(pool: dockertest.Pool, name: str) -> None:
    """All three identify the same network."""
    with (
        pool.create_network(name) as network,
        pool.run("busybox:1.35", cmd=SLEEP, networks=[name]) as resource,
    ):
        addresses = {resource.get_ip_in_network(key) for key in (network, network.name, network.id)}
        assert len(addresses) == 1
        assert ipaddress.ip_address(addresses.pop())


def test_a_network_that_the_container_is_not_in(pool: dockertest.Pool, name: str) -> None:
    """The error names the network and the networks of the container."""
    with pool.create_network(name) as network, pool.run("busybox:1.35", cmd=SLEEP) as resource:
        with pytest.raises(dockertest.NotInNetworkError, match="it is in: "):
            resource.get_ip_in_network(network)
        with pytest.raises(dockertest.NotInNetworkError, match=name):
            resource.disconnect_from_network(network)


def test_exhausted_address_pools(tmp_path: Path) -> None:
    """
    If the engine has no free addresses, dockertest selects a subnet.

    If that subnet is in use, it selects another one.
    """
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        create = r"^POST \S*/networks/create"
        proxy.next(
            create,
            answer(404, "could not find an available, non-overlapping IPv4 address pool among the defaults"),
        )
        proxy.next(create, answer(403, "Pool overlaps with other one on this address space"))
        with (
            pool.create_network() as network,
            pool.run("busybox:1.35", cmd=SLEEP, networks=[network]) as resource,
        ):
            address = ipaddress.ip_address(resource.get_ip_in_network(network))
            assert address in ipaddress.ip_network("198.18.0.0/15")
        assert len([line for line in proxy.requests if "/networks/create" in line]) == 3


def test_invalid_options_are_rejected(pool: dockertest.Pool) -> None:
    """The error names the option, and no request is sent."""
    for options in (
        {"subnet": "no subnet"},
        {"internal": "yes"},
        {"labels": {"dockertest.x": "1"}},
        {"drivr": "bridge"},
    ):
        with pytest.raises(dockertest.InvalidOptionError, match=next(iter(options))):
            pool.create_network(**options)
    with pytest.raises(dockertest.InvalidOptionError, match="name"):
        pool.create_network("no/name")


def test_host_gateway_is_the_host_of_the_engine(pool: dockertest.Pool, engine: Engine) -> None:
    """Podman 4 would write the word itself to `/etc/hosts`."""
    hosts = ["first:host-gateway", "second:10.1.2.3"]
    with pool.run("busybox:1.35", cmd=SLEEP, extra_hosts=hosts) as box, pool.create_network() as network:
        lines = [line.split() for line in box.read_file("/etc/hosts").decode().splitlines()]
        addresses = {line[1]: line[0] for line in lines if len(line) > 1}
        assert addresses["second"] == "10.1.2.3"
        assert not ipaddress.ip_address(addresses["first"]).is_loopback
        with pool.run("busybox:1.35", cmd=SLEEP, extra_hosts=hosts, networks=[network]) as other:
            assert b"host-gateway" not in other.read_file("/etc/hosts")
        if not engine.is_local:
            return
        with socket.create_server((addresses["first"], 0)) as server:
            port = server.getsockname()[1]
            server.settimeout(20)
            assert box.exec(["sh", "-c", f"nc first {port} < /dev/null &"]).exit_code == 0
            server.accept()[0].close()


def test_host_gateway_where_there_is_no_gateway(engine: Engine) -> None:
    """
    Docker ignores the option.

    Podman has no address for it, or Podman 5 writes one that leads nowhere.
    """
    options = dockertest.RunOptions(
        repository="busybox:1.35", cmd=SLEEP, networks=["none"], extra_hosts=["first:host-gateway"]
    )
    with dockertest.Pool() as pool:
        if engine.is_podman and engine.version < (5,):
            with pytest.raises(dockertest.InvalidOptionError, match=r"host\.containers\.internal"):
                pool.run_with_options(options)
        else:
            with suppress(*([dockertest.ContainerStartError] if engine.is_podman else [])):
                pool.run_with_options(options)
