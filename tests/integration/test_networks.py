"""Networks: made, joined, left and removed."""

import ipaddress
import re
from pathlib import Path

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy, answer

from .conftest import Engine

SLEEP = ("sleep", "600")


def test_a_network_goes_with_its_pool(engine: Engine, name: str) -> None:
    """Networks are removed after the containers that were in them."""
    with dockertest.Pool() as pool:
        network = pool.create_network(
            name, labels={"team": "storage"}, internal=True, subnet="198.19.77.0/24"
        )
        pool.run("busybox:1.35", cmd=SLEEP, networks=[network])
        found = engine.client.api.inspect_network(network.id)
        assert found["Internal"] is True
        assert found["Labels"]["team"] == "storage"
        assert found["IPAM"]["Config"][0]["Subnet"] == "198.19.77.0/24"
        assert repr(network) == f"<Network '{name}' {network.id[:12]}>"
    assert not engine.client.networks.list(names=[name])
    with pytest.raises(dockertest.ResourceClosedError), network:
        pass


def test_a_random_name_is_unique(pool: dockertest.Pool) -> None:
    """Two networks without a name do not meet."""
    with pool.create_network() as one, pool.create_network() as two:
        assert one.name != two.name


def test_a_name_that_is_taken_is_an_error(pool: dockertest.Pool, name: str) -> None:
    """Older engines would make a second network of the same name."""
    with pool.create_network(name), pytest.raises(dockertest.EngineError, match=name):
        pool.create_network(name)


def test_what_is_still_attached_is_disconnected_first(pool: dockertest.Pool, engine: Engine) -> None:
    """Removing a network in use succeeds, and the containers stay; removing it twice is nothing."""
    network = pool.create_network()
    with pool.run("busybox:1.35", cmd=SLEEP, networks=[network]) as resource:
        pool.remove_network(network)
        pool.remove_network(network)
        network.close()
        assert not engine.client.networks.list(names=[network.name])
        assert resource.status == "running"


def test_a_found_network_can_be_removed(pool: dockertest.Pool, name: str) -> None:
    """What was found is borrowed, until it is asked to go."""
    pool.create_network(name)
    (found,) = pool.networks_by_name(name)
    pool.remove_network(found)
    assert pool.networks_by_name(name) == []


def test_what_the_engine_never_removes_keeps_its_containers(tmp_path: Path) -> None:
    """Its own bridge: asked to go by mistake, it is left alone, and so are everybody's containers in it."""
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        (bridge,) = pool.networks_by_name("bridge") or pool.networks_by_name("podman")
        proxy.next("/disconnect", answer(500, "this would have cut others off"))
        with pytest.raises(dockertest.EngineError, match=r"pre-defined|default network"):
            pool.remove_network(bridge)
        assert resource.get_ip_in_network(bridge)
        assert not [line for line in proxy.requests if "/disconnect" in line]


def test_no_port_is_waited_for_in_an_internal_network(tmp_path: Path, name: str) -> None:
    """None is published there: neither a start nor a reuse asks again and again."""
    with FaultProxy(tmp_path / "engine.sock").running() as proxy, dockertest.Pool(proxy.endpoint) as pool:
        network = pool.client.networks.create(name, internal=True)
        try:
            for _ in range(2):
                proxy.requests.clear()
                shared = pool.run(
                    "busybox:1.35", cmd=SLEEP, name=name, networks=[name], exposed_ports=[80], reuse=True
                )
                assert sum("/containers/" in each and "/json" in each for each in proxy.requests) <= 3
            pool.purge(shared)
        finally:
            network.remove()


def resolved(client: dockertest.Resource, alias: str) -> str:
    """Give the address that a name has within a container; what Podman's name server loses, the resolver asks 40 s for."""

    def ask() -> str:
        said = client.exec(["ping", "-c", "1", "-W", "1", alias])
        found = re.match(rf"PING {alias} \(([0-9.]+)\)", said.stdout)  # said before it may send anything
        assert found, said
        return found[1]

    return client.retry(ask, max_wait=100)


def test_aliases_are_resolved(pool: dockertest.Pool) -> None:
    """Another container finds this one by its alias, from the start or from a later connection."""
    with pool.create_network() as network, pool.run("busybox:1.35", cmd=SLEEP, networks=[network]) as client:
        with pool.run("busybox:1.35", cmd=SLEEP, networks=[network], network_aliases=["early"]) as server:
            server.disconnect_from_network(network)
            server.connect_to_network(network, aliases=["late"])
            assert resolved(client, "late") == server.get_ip_in_network(network)
        with pool.run("busybox:1.35", cmd=SLEEP, networks=[network], network_aliases=["early"]) as server:
            assert resolved(client, "early") == server.get_ip_in_network(network)


def test_an_address_by_network_name_id_or_handle(pool: dockertest.Pool, name: str) -> None:
    """All three name the same network."""
    with (
        pool.create_network(name) as network,
        pool.run("busybox:1.35", cmd=SLEEP, networks=[name]) as resource,
    ):
        found = {resource.get_ip_in_network(each) for each in (network, network.name, network.id)}
        assert len(found) == 1
        assert ipaddress.ip_address(found.pop())


def test_a_network_that_one_is_not_in(pool: dockertest.Pool, name: str) -> None:
    """The error names the network and those that the container is in."""
    with pool.create_network(name) as network, pool.run("busybox:1.35", cmd=SLEEP) as resource:
        with pytest.raises(dockertest.NotInNetworkError, match="it is in: "):
            resource.get_ip_in_network(network)
        with pytest.raises(dockertest.NotInNetworkError, match=name):
            resource.disconnect_from_network(network)


def test_exhausted_address_pools_are_got_around(tmp_path: Path) -> None:
    """Where the engine has no addresses left, a subnet of ours is tried, and another where that one is in use."""
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


def test_bad_options_are_refused(pool: dockertest.Pool) -> None:
    """Before the engine sees them, and by name."""
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
