"""From `RunOptions` to the engine's create request."""

from typing import Any

import pytest

from dockertest import PortBinding, RunOptions
from dockertest._containers.create import CreateRequest, Modifier, bound_ports, create_request

POSTGRES: "dict[str, Any]" = {"Config": {"ExposedPorts": {"5432/tcp": {}}}}
HOST = "127.0.0.1"


def request(
    *modifiers: Modifier,
    image: "dict[str, Any] | None" = None,
    publish_ip: str = HOST,
    **changes: Any,
) -> CreateRequest:
    """Give the request for these options."""
    return create_request(
        RunOptions(**{"repository": "postgres", **changes}),
        image or {},
        image_name="registry:5000/postgres:15",
        labels={},
        publish_ip=publish_ip,
        modifiers=modifiers,
    )


def host_config(*modifiers: Modifier, **changes: Any) -> "dict[str, Any]":
    """Give the host config for these options."""
    found: dict[str, Any] = request(*modifiers, **changes).body["HostConfig"]
    return found


def waited_for(made: CreateRequest) -> "tuple[str, ...]":
    """Give the ports that will be bound."""
    return bound_ports(made.body["HostConfig"])


def bound(ip: str = HOST, port: str = "") -> "dict[str, str]":
    """Give a binding as the engine writes it."""
    return {"HostIp": ip, "HostPort": port}


def test_what_is_not_asked_for_is_left_to_the_image() -> None:
    """No entrypoint, command, health check, stop time or network is sent."""
    body = request().body
    assert body["Image"] == "registry:5000/postgres:15"
    assert not {"Entrypoint", "Cmd", "Healthcheck", "StopTimeout", "NetworkingConfig"} & set(body)
    assert not {"ShmSize", "Tmpfs", "Init", "NetworkMode"} & set(body["HostConfig"])


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"hostname": "db"}, "Hostname", "db"),
        ({"user": "postgres"}, "User", "postgres"),
        ({"tty": True}, "Tty", True),
        ({"env": {"A": 1, "B": "x=y"}}, "Env", ["A=1", "B=x=y"]),
        ({"working_dir": "/srv"}, "WorkingDir", "/srv"),
        ({"entrypoint": ["/entry"]}, "Entrypoint", ["/entry"]),
        ({"cmd": ("sleep", "1")}, "Cmd", ["sleep", "1"]),
        ({"stop_timeout": 0}, "StopTimeout", 0),
        ({"stop_timeout": 0.4}, "StopTimeout", 1),
        ({"labels": {"a": "b"}}, "Labels", {"a": "b"}),
        ({"healthcheck": "pg_isready"}, "Healthcheck", {"Test": ["CMD-SHELL", "pg_isready"]}),
        ({"healthcheck": {"test": "true"}}, "Healthcheck", {"Test": ["CMD-SHELL", "true"]}),
        (
            {"healthcheck": {"test": ["CMD", "true"], "interval": 0.5, "timeout": 2, "start_period": 1, "retries": 3}},
            "Healthcheck",
            {
                "Test": ["CMD", "true"],
                "Interval": 500_000_000,
                "Timeout": 2_000_000_000,
                "StartPeriod": 1_000_000_000,
                "Retries": 3,
            },
        ),
    ],
)  # fmt: skip
def test_an_option_has_its_place_in_the_request(changes: "dict[str, Any]", key: str, value: object) -> None:
    """Under the engine's key, in the engine's units."""
    assert request(**changes).body[key] == value


@pytest.mark.parametrize(
    ("changes", "key", "value"),
    [
        ({"links": ["a:b"]}, "Links", ["a:b"]),
        ({"extra_hosts": ["a:10.0.0.1"]}, "ExtraHosts", ["a:10.0.0.1"]),
        ({"cap_add": ["NET_ADMIN"]}, "CapAdd", ["NET_ADMIN"]),
        ({"security_opt": ["label=disable"]}, "SecurityOpt", ["label=disable"]),
        ({"dns": ["10.0.0.2"]}, "Dns", ["10.0.0.2"]),
        ({"privileged": True}, "Privileged", True),
        ({"shm_size": "64m"}, "ShmSize", 64 << 20),
        ({"init": False}, "Init", False),
        ({"init": True}, "Init", True),
        ({"tmpfs": ["/run", "/tmp"]}, "Tmpfs", {"/run": "", "/tmp": ""}),
        ({"tmpfs": {"/run": "size=64m"}}, "Tmpfs", {"/run": "size=64m"}),
    ],
)
def test_an_option_has_its_place_in_the_host_config(
    changes: "dict[str, Any]", key: str, value: object
) -> None:
    """Under the engine's key."""
    assert host_config(**changes)[key] == value


def test_labels_are_the_users_and_ours() -> None:
    """They cannot meet, since the user's do not begin as ours do."""
    made = create_request(
        RunOptions(repository="postgres", labels={"mine": "1"}),
        {},
        image_name="postgres",
        labels={"dockertest.session": "s"},
        publish_ip=HOST,
    )
    assert made.body["Labels"] == {"mine": "1", "dockertest.session": "s"}


@pytest.mark.parametrize(
    ("changes", "published"),
    [
        ({}, {}),
        ({"image": POSTGRES}, {"5432/tcp": [bound()]}),
        ({"exposed_ports": [80, "53/udp"]}, {"80/tcp": [bound()], "53/udp": [bound()]}),
        ({"image": POSTGRES, "exposed_ports": ["5432", 80]}, {"5432/tcp": [bound()], "80/tcp": [bound()]}),
        ({"port_bindings": {5432: 15432}}, {"5432/tcp": [bound(port="15432")]}),
        ({"image": POSTGRES, "port_bindings": {"5432": "15432"}}, {"5432/tcp": [bound(port="15432")]}),
        ({"port_bindings": {80: 0}}, {"80/tcp": [bound()]}),
        ({"port_bindings": {80: ""}}, {"80/tcp": [bound()]}),
        ({"port_bindings": {80: []}}, {"80/tcp": [bound()]}),
        ({"port_bindings": {80: PortBinding("10.0.0.1", "0")}}, {"80/tcp": [bound("10.0.0.1")]}),
        ({"port_bindings": {80: PortBinding("", 8080)}}, {"80/tcp": [bound(port="8080")]}),
        ({"port_bindings": {80: PortBinding("::1", 8080)}}, {"80/tcp": [bound("::1", "8080")]}),
        (
            {"port_bindings": {80: [8080, "8081", PortBinding("0.0.0.0", 8082)]}},
            {"80/tcp": [bound(port="8080"), bound(port="8081"), bound("0.0.0.0", "8082")]},
        ),
        ({"exposed_ports": [80], "publish_ip": "10.0.0.1"}, {"80/tcp": [bound("10.0.0.1")]}),
        (
            {"publish_ip": "10.0.0.1", "port_bindings": {80: PortBinding("::1"), 81: 8081}},
            {"80/tcp": [bound("::1")], "81/tcp": [bound("10.0.0.1", "8081")]},
        ),
    ],
)
def test_every_exposed_port_is_published(
    changes: "dict[str, Any]", published: "dict[str, list[dict[str, str]]]"
) -> None:
    """The image's, those asked for and those bound, on the binding's address, the options' or the pool's."""
    made = request(**changes)
    assert made.body["HostConfig"]["PortBindings"] == published
    assert made.body["ExposedPorts"] == {port: {} for port in published}
    assert waited_for(made) == tuple(published)


@pytest.mark.parametrize(
    "image", [{}, {"Config": None}, {"Config": {}}, {"Config": {"ExposedPorts": None}}], ids=str
)
def test_an_image_may_expose_nothing(image: "dict[str, Any]") -> None:
    """Engines say so in several ways."""
    assert waited_for(request(image=image)) == ()


def test_a_port_that_a_modifier_binds_is_exposed_and_waited_for() -> None:
    """Engines leave out a bound port that is not exposed, without a word."""

    def bind(config: "dict[str, Any]") -> None:
        config["PortBindings"]["9/tcp"] = [bound()]

    made = request(bind, image=POSTGRES)
    assert made.body["ExposedPorts"] == {"5432/tcp": {}, "9/tcp": {}}
    assert waited_for(made) == ("5432/tcp", "9/tcp")


@pytest.mark.parametrize("bindings", [None, {}])
def test_a_modifier_may_publish_nothing(bindings: "dict[str, Any] | None") -> None:
    """Then nothing is waited for."""
    made = request(lambda config: config.update(PortBindings=bindings), image=POSTGRES)
    assert waited_for(made) == ()
    assert made.body["ExposedPorts"] == {}


@pytest.mark.parametrize("mode", ["host", "none", "container:abc"])
def test_without_a_network_of_its_own_a_container_binds_nothing(mode: str) -> None:
    """Whether an option or a modifier says so: no port is waited for."""
    assert waited_for(request(image=POSTGRES, network_id=mode)) == ()
    assert waited_for(request(lambda config: config.update(NetworkMode=mode), image=POSTGRES)) == ()


def test_what_shares_anothers_network_exposes_nothing_by_itself() -> None:
    """Engines would refuse it for the ports of the image alone."""
    made = request(image=POSTGRES, network_id="container:abc")
    assert made.body["ExposedPorts"] == {}
    assert made.body["HostConfig"]["PortBindings"] == {}


@pytest.mark.parametrize(
    ("written", "mount"),
    [
        ("/a:/b", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": False}),
        ("/a:/b:rw", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": False}),
        ("/a:/b:ro", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}),
        ("C:\\a:/b", {"Type": "bind", "Source": "C:\\a", "Target": "/b", "ReadOnly": False}),
    ],
)
def test_a_plain_path_is_a_mount(written: str, mount: "dict[str, Any]") -> None:
    """So that the engine refuses one that is not there, and makes no empty folder owned by root."""
    config = host_config(mounts=[written])
    assert config["Mounts"] == [mount]
    assert config["Binds"] == []


@pytest.mark.parametrize("written", ["volume:/b", "volume:/b:ro", "/a:/b:z", "/a:/b:ro,Z", "/a:/b:rslave"])
def test_volumes_and_other_modes_are_binds(written: str) -> None:
    """`Mounts` does not know them."""
    config = host_config(mounts=[written])
    assert config["Binds"] == [written]
    assert config["Mounts"] == []


def test_the_first_network_is_in_the_request_and_the_rest_come_after() -> None:
    """An engine takes one at the creation; each is named once."""

    class Net:
        id = "0123"

    made = request(
        network_id="front", networks=["back", Net(), "front", "0123"], network_aliases=["db", "pg"]
    )
    assert made.body["HostConfig"]["NetworkMode"] == "front"
    assert made.body["NetworkingConfig"] == {"EndpointsConfig": {"front": {"Aliases": ["db", "pg"]}}}
    assert made.networks == ("back", "0123")


def test_a_network_without_aliases_has_an_empty_end() -> None:
    """`networks` alone is enough."""
    made = request(networks=["back"])
    assert made.body["NetworkingConfig"] == {"EndpointsConfig": {"back": {}}}
    assert made.networks == ()


def test_modifiers_run_last_and_in_their_order() -> None:
    """Each sees what the options and those before it made of the host config."""
    seen = []

    def first(config: "dict[str, Any]") -> None:
        seen.append((config["ShmSize"], config["NetworkMode"], config["PortBindings"]))
        config["ShmSize"] = 1

    def second(config: "dict[str, Any]") -> str:
        seen.append(config["ShmSize"])
        config["Memory"] = 64 << 20
        return "ignored"

    config = host_config(first, second, image=POSTGRES, shm_size="64m", networks=["back"])
    assert seen == [(64 << 20, "back", {"5432/tcp": [bound()]}), 1]
    assert config["ShmSize"] == 1
    assert config["Memory"] == 64 << 20


def test_a_request_is_the_same_every_time() -> None:
    """The options are not changed by it, so that they can be used again."""
    options = RunOptions(repository="postgres", labels={"a": "b"}, port_bindings={80: 1}, tmpfs=["/run"])

    def spoil(config: "dict[str, Any]") -> None:
        config["PortBindings"].clear()
        config["Tmpfs"].clear()

    def make(*modifiers: Modifier) -> CreateRequest:
        return create_request(
            options, POSTGRES, image_name="x", labels={}, publish_ip=HOST, modifiers=modifiers
        )

    before = make()
    make(spoil).body["Labels"].clear()
    assert make() == before
    assert POSTGRES == {"Config": {"ExposedPorts": {"5432/tcp": {}}}}


def test_no_environment_is_in_the_repr_of_a_request() -> None:
    """It holds passwords."""
    assert "hunter2" not in repr(request(env={"PASSWORD": "hunter2"}))
