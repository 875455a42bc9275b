"""Where a port is reached from where this process stands; the container's inspection is given, nothing is asked."""

from typing import Any, cast

import pytest

from dockertest import NotInNetworkError
from dockertest._engine.client import Engine
from dockertest._engine.endpoint import Endpoint
from dockertest._engine.reachability import Standpoint

IPV4, IPV6 = {"HostIp": "0.0.0.0", "HostPort": "49153"}, {"HostIp": "::", "HostPort": "49154"}
LOOPBACK = {"HostIp": "127.0.0.1", "HostPort": "49153"}
OURS = {"jobs": {"NetworkID": "n1", "IPAddress": "172.20.0.2", "Gateway": "172.20.0.1"}}
THEIRS = {"other": {"NetworkID": "n2", "IPAddress": "172.21.0.5"}}
BOTH = {"renamed": {"NetworkID": "n1", "IPAddress": "172.20.0.5"}, **THEIRS}
ONLY_IPV6 = {"jobs": {"NetworkID": "n1", "IPAddress": "", "GlobalIPv6Address": "fd00::5"}}


class Placed(Standpoint):
    """One that knows what it would ask."""

    own: "dict[str, Any] | None"

    def _asked(self) -> "dict[str, Any] | None":
        return self.own


def standing(url: str, own: "dict[str, Any] | None" = None, override: str = "", **named: Any) -> Standpoint:
    """Give a standpoint that has asked already: in no container, or in one of these networks."""
    engine = Engine(cast(Any, None), Endpoint(url, "a test", **named), 10, owned=False)
    standpoint = Placed(engine, override)
    standpoint.own = own
    return standpoint


def container(*bound: "dict[str, str]", networks: "dict[str, Any] | None" = None) -> "dict[str, Any]":
    """Give what an engine says of a container with port 5432 exposed and bound so."""
    return {
        "Name": "/pg",
        "Config": {"ExposedPorts": {"5432/tcp": {}}},
        "NetworkSettings": {"Ports": {"5432/tcp": list(bound) or None}, "Networks": networks or THEIRS},
    }


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
        ("ssh://me@build.corp:22", [IPV4], ("build.corp", 49153)),
        ("unix:///x", [], None),
    ],
)
def test_beside_the_engine_and_far_from_it(
    url: str, bound: "list[dict[str, str]]", address: "tuple[str, int] | None"
) -> None:
    """Loopback and the published port, or the endpoint's host."""
    assert standing(url).address(container(*bound), "5432/tcp") == address
    assert standing(url).network() == ""


@pytest.mark.parametrize("url", ["unix:///x", "tcp://docker:2375", "tcp://localhost:2375"])
def test_an_override_goes_before_everything(url: str) -> None:
    """With the published port, in a container as well."""
    standpoint = standing(url, OURS, "gateway.corp")
    assert standpoint.address(container(LOOPBACK, networks=BOTH), "5432/tcp") == ("gateway.corp", 49153)
    assert standpoint.network() == ""


def test_an_endpoint_goes_before_the_container() -> None:
    """What is named by an address is reached by it: it may be another engine than the one we run in."""
    standpoint = standing("tcp://docker:2375", OURS)
    assert standpoint.address(container(IPV4, networks=BOTH), "5432/tcp") == ("docker", 49153)
    assert standpoint.network() == ""


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
def test_from_inside_a_container(
    bound: "list[dict[str, str]]", networks: "dict[str, Any]", address: "tuple[str, int] | None"
) -> None:
    """On a shared network, published or not; else by the gateway."""
    attrs = container(*bound, networks=networks)
    assert standing("unix:///x", OURS).address(attrs, "5432/tcp") == address


@pytest.mark.parametrize(
    ("own", "remedy"),
    [
        (OURS, "connect it to: jobs"),
        ({"none": {"NetworkID": "n", "IPAddress": ""}, **OURS}, "connect it to: jobs$"),
        (
            {"none": {"NetworkID": "n", "IPAddress": ""}},
            "say in DOCKERTEST_HOST_OVERRIDE where its ports are",
        ),
        ({}, "say in DOCKERTEST_HOST_OVERRIDE where its ports are"),
    ],
)
def test_from_inside_a_port_on_the_hosts_loopback_is_not_reached(own: "dict[str, Any]", remedy: str) -> None:
    """And that is told, with the networks to connect to."""
    with pytest.raises(NotInNetworkError, match=rf"^container 'pg' shares no network with .*; {remedy}"):
        standing("unix:///x", own).address(container(LOOPBACK), "5432/tcp")


@pytest.mark.parametrize(
    ("own", "network"),
    [
        (None, ""),
        ({}, ""),
        (OURS, "jobs"),
        ({"bridge": {"NetworkID": "b", "IPAddress": "172.17.0.2"}, **OURS}, ""),
        ({"podman": {"NetworkID": "podman", "IPAddress": "10.88.0.2"}}, ""),
        ({"none": {"NetworkID": "n", "IPAddress": ""}}, ""),
    ],
)
def test_what_is_started_joins_our_network(own: "dict[str, Any] | None", network: str) -> None:
    """Unless we are where the engine puts containers anyway."""
    assert standing("unix:///x", own).network() == network
