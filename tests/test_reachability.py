"""The address of a port, computed from the inspection of a container; no engine."""

from typing import Any, cast

import pytest

from dockertest import NotInNetworkError
from dockertest._engine.client import EngineClient
from dockertest._engine.endpoint import Endpoint
from dockertest._engine.inspection import Inspection
from dockertest._engine.reachability import Networks, Reachability

IPV4, IPV6 = {"HostIp": "0.0.0.0", "HostPort": "49153"}, {"HostIp": "::", "HostPort": "49154"}
LOOPBACK = {"HostIp": "127.0.0.1", "HostPort": "49153"}
LOOPBACK_IPV6 = {"HostIp": "::1", "HostPort": "49154"}
NIC = {"HostIp": "10.0.0.9", "HostPort": "49155"}
OURS = {"jobs": {"NetworkID": "n1", "IPAddress": "172.20.0.2", "Gateway": "172.20.0.1"}}
THEIRS = {"other": {"NetworkID": "n2", "IPAddress": "172.21.0.5"}}
BOTH = {"renamed": {"NetworkID": "n1", "IPAddress": "172.20.0.5"}, **THEIRS}
ONLY_IPV6 = {"jobs": {"NetworkID": "n1", "IPAddress": "", "GlobalIPv6Address": "fd00::5"}}
NO_ADDRESS = {"none": {"NetworkID": "n", "IPAddress": ""}}


class KnownReachability(Reachability):
    """A reachability with known networks of this process's container."""

    networks: "Networks | None"

    def _lookup(self) -> "Networks | None":
        return self.networks


def reachability(
    url: str, own: "dict[str, Any] | None" = None, override: str = "", **options: Any
) -> Reachability:
    """
    Return the reachability of an engine for a process.

    The process is in no container, or in one with these networks.
    """
    engine = EngineClient(cast(Any, None), Endpoint(url, "a test", **options), 10, owned=False)
    known = KnownReachability(engine, override)
    known.networks = None if own is None else container(networks=own).networks
    return known


def container(*bound: "dict[str, str]", networks: "dict[str, Any] | None" = None) -> Inspection:
    """
    Return the inspection of a container that exposes port 5432.

    The port has these bindings.
    """
    return Inspection.parse(
        {
            "Name": "/pg",
            "Config": {"ExposedPorts": {"5432/tcp": {}}},
            "NetworkSettings": {
                "Ports": {"5432/tcp": list(bound) or None},
                "Networks": THEIRS if networks is None else networks,
            },
        }
    )


@pytest.mark.parametrize(
    ("url", "bound", "address"),
    [
        ("unix:///x", [LOOPBACK], ("127.0.0.1", 49153)),
        ("unix:///x", [IPV6, IPV4], ("127.0.0.1", 49153)),
        ("unix:///x", [IPV6], ("::1", 49154)),
        ("unix:///x", [{"HostIp": "", "HostPort": "49153"}], ("127.0.0.1", 49153)),
        ("npipe:////./pipe/x", [IPV4], ("127.0.0.1", 49153)),
        ("unix:///x", [{"HostIp": "10.0.0.9", "HostPort": "1"}], ("10.0.0.9", 1)),
        ("tcp://localhost:2375", [IPV4], ("127.0.0.1", 49153)),
        ("tcp://docker:2375", [IPV4], ("docker", 49153)),
        ("tcp://[2001:db8::1]:2375", [IPV4], ("2001:db8::1", 49153)),
        ("tcp://docker:2375", [IPV6, IPV4], ("docker", 49153)),
        ("tcp://[2001:db8::1]:2375", [IPV4, IPV6], ("2001:db8::1", 49154)),
        ("ssh://me@build.corp:22", [IPV4], ("build.corp", 49153)),
        ("unix:///x", [], None),
    ],
)
def test_outside_a_container_a_port_is_on_the_engines_host(
    url: str, bound: "list[dict[str, str]]", address: "tuple[str, int] | None"
) -> None:
    """This is loopback for a local engine, and the endpoint's host for a remote one."""
    assert reachability(url).address(container(*bound), "5432/tcp") == address
    assert reachability(url).network() == ""


@pytest.mark.parametrize("bound", [[LOOPBACK, NIC], [NIC, LOOPBACK], [LOOPBACK_IPV6, NIC]])
def test_a_binding_of_the_engines_loopback_is_the_last_choice(bound: "list[dict[str, str]]") -> None:
    """Neither another host nor a container can reach it."""
    inspection = container(*bound)
    assert reachability("tcp://docker:2375").address(inspection, "5432/tcp") == ("docker", 49155)
    assert reachability("unix:///x", OURS).address(inspection, "5432/tcp") == ("10.0.0.9", 49155)


def test_a_host_with_ipv6_only_has_the_port_of_the_ipv6_binding() -> None:
    """Engines may choose different ports for the two families."""
    known = reachability("tcp://docker:2375", has_only_ipv6=True)
    assert known.address(container(IPV4, IPV6), "5432/tcp") == ("docker", 49154)


@pytest.mark.parametrize("url", ["unix:///x", "tcp://docker:2375", "tcp://localhost:2375"])
def test_an_override_takes_precedence(url: str) -> None:
    """It is used with the published port, even inside a container."""
    known = reachability(url, OURS, "gateway.corp")
    assert known.address(container(LOOPBACK, networks=BOTH), "5432/tcp") == ("gateway.corp", 49153)
    assert known.network() == ""


def test_a_tcp_endpoint_takes_precedence_over_the_own_container() -> None:
    """The engine at that address may not be the one that runs this process."""
    known = reachability("tcp://docker:2375", OURS)
    assert known.address(container(IPV4, networks=BOTH), "5432/tcp") == ("docker", 49153)
    assert known.network() == ""


@pytest.mark.parametrize(
    ("bound", "networks", "address"),
    [
        ([LOOPBACK], BOTH, ("172.20.0.5", 5432)),
        ([], BOTH, ("172.20.0.5", 5432)),
        ([LOOPBACK], ONLY_IPV6, ("fd00::5", 5432)),
        ([IPV4], THEIRS, ("172.20.0.1", 49153)),
        ([{"HostIp": "10.0.0.9", "HostPort": "1"}], THEIRS, ("10.0.0.9", 1)),
        ([], THEIRS, None),
    ],
)
def test_inside_a_container_a_port_is_reached_in_a_shared_network(
    bound: "list[dict[str, str]]", networks: "dict[str, Any]", address: "tuple[str, int] | None"
) -> None:
    """
    It need not be published.

    Without a shared network, it is reached at the gateway.
    """
    inspection = container(*bound, networks=networks)
    assert reachability("unix:///x", OURS).address(inspection, "5432/tcp") == address


@pytest.mark.parametrize(
    ("own", "hint"),
    [
        (OURS, "connect it to one of: jobs"),
        ({**NO_ADDRESS, **OURS}, "connect it to one of: jobs"),
        (NO_ADDRESS, "set DOCKERTEST_PUBLISH_IP to an address that this process can connect to, and"),
        ({}, "set DOCKERTEST_PUBLISH_IP to an address that this process can connect to, and"),
    ],
)
def test_inside_a_container_the_hosts_loopback_is_unreachable(own: "dict[str, Any]", hint: str) -> None:
    """The error lists the networks to connect to."""
    with pytest.raises(
        NotInNetworkError, match=r"^cannot reach container 'pg': it shares no network"
    ) as failure:
        reachability("unix:///x", own).address(container(LOOPBACK), "5432/tcp")
    assert failure.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("own", "network"),
    [
        (None, ""),
        ({}, ""),
        (OURS, "n1"),
        ({"jobs": {"NetworkID": "", "IPAddress": "172.20.0.2"}}, "jobs"),
        ({"bridge": {"NetworkID": "b", "IPAddress": "172.17.0.2"}, **OURS}, ""),
        ({"podman": {"NetworkID": "podman", "IPAddress": "10.88.0.2"}}, ""),
        (NO_ADDRESS, ""),
    ],
)
def test_new_containers_join_the_network_of_this_process(own: "dict[str, Any] | None", network: str) -> None:
    """The default network of the engine needs no option."""
    assert reachability("unix:///x", own).network() == network
