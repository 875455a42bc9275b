"""Write `RunOptions` as the engine's create request."""

import sys
from types import FrameType
from typing import Any

import pytest

from dockertest import InvalidOptionError, PortBinding, RunOptions
from dockertest._containers.create import CreateRequest, Modifier, adapt_to_podman, create_request
from dockertest._engine.inspection import Image, parse_image
from dockertest._engine.networks import is_special_mode

POSTGRES = parse_image({"Config": {"ExposedPorts": {"5432/tcp": {}}}})
NOTHING = parse_image({})
HOST = "127.0.0.1"


def request(
    *modifiers: Modifier,
    image: Image = NOTHING,
    publish_ip: str = HOST,
    network: str = "",
    **changes: Any,
) -> CreateRequest:
    """Return the request for these options."""
    return create_request(
        RunOptions(**{"repository": "postgres", **changes}),
        image,
        image_name="registry:5000/postgres:15",
        labels={},
        publish_ip=publish_ip,
        network=network,
        modifiers=modifiers,
    )


def host_config(*modifiers: Modifier, **changes: Any) -> "dict[str, Any]":
    """Return the host configuration for these options."""
    config: dict[str, Any] = request(*modifiers, **changes).body["HostConfig"]
    return config


def ports_of(made: CreateRequest) -> "tuple[str, ...]":
    """Return the ports that will be bound."""
    config = made.body["HostConfig"]
    if is_special_mode(str(config.get("NetworkMode") or "")):
        return ()
    return tuple(config.get("PortBindings") or ())


def bound(ip: str = HOST, port: str = "") -> "dict[str, str]":
    """Return the engine's form of a binding."""
    return {"HostIp": ip, "HostPort": port}


def test_unset_options_are_left_to_the_image() -> None:
    """No entrypoint, command, health check, stop time or network is sent."""
    body = request().body
    assert body["Image"] == "registry:5000/postgres:15"
    assert not {"Entrypoint", "Cmd", "Healthcheck", "StopTimeout", "NetworkingConfig"} & set(body)
    assert not {"ShmSize", "Tmpfs", "Init", "NetworkMode", "Memory", "RestartPolicy"} & set(
        body["HostConfig"]
    )


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
def test_option_is_written_to_the_request(changes: "dict[str, Any]", key: str, value: object) -> None:
    """It has the engine's key and unit."""
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
        ({"memory": "64m"}, "Memory", 64 << 20),
        ({"cpus": 0.29}, "NanoCpus", 290_000_000),
        ({"gpus": "all"}, "DeviceRequests", [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}]),
        ({"gpus": 2}, "DeviceRequests", [{"Driver": "", "Count": 2, "Capabilities": [["gpu"]]}]),
        ({"ulimits": {"nofile": (1, 2)}}, "Ulimits", [{"Name": "nofile", "Soft": 1, "Hard": 2}]),
        ({"cap_drop": ["ALL"]}, "CapDrop", ["ALL"]),
        ({"sysctls": {"net.core.somaxconn": 9}}, "Sysctls", {"net.core.somaxconn": "9"}),
        ({"devices": ["/dev/a:/dev/b:r"]}, "Devices",
         [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}]),
        ({"read_only": True}, "ReadonlyRootfs", True),
        ({"pid_mode": "host"}, "PidMode", "host"),
        ({"ipc_mode": "private"}, "IpcMode", "private"),
        ({"restart": "always"}, "RestartPolicy", {"Name": "always", "MaximumRetryCount": 0}),
        ({"restart": "on-failure:2"}, "RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 2}),
    ],
)  # fmt: skip
def test_option_is_written_to_the_host_config(changes: "dict[str, Any]", key: str, value: object) -> None:
    """It has the engine's key."""
    assert host_config(**changes)[key] == value


def test_the_order_is_fields_then_mappings_then_modifiers() -> None:
    """Each sees and may replace what came before, and nothing changes the options."""
    made = RunOptions(
        repository="postgres",
        privileged=False,
        host_config={"Privileged": True, "OomScoreAdj": 1, "Ulimits": [{"Name": "core"}]},
        container_config={"StopSignal": "SIGINT", "ExposedPorts": {"9/udp": {}}, "Hostname": "db"},
    )
    seen: list[Any] = []

    def modify(config: dict[str, Any]) -> None:
        seen.append((config["Privileged"], config["OomScoreAdj"], config.get("ShmSize")))
        config["OomScoreAdj"] = 2
        config["Ulimits"].append({})

    for _ in range(2):
        body = create_request(
            made, POSTGRES, image_name="x", labels={"ours": "1"}, publish_ip=HOST, modifiers=(modify,)
        ).body
    assert seen == [(True, 1, None)] * 2
    assert body["HostConfig"]["OomScoreAdj"] == 2
    assert body["HostConfig"]["Ulimits"] == [{"Name": "core"}, {}]
    assert (body["StopSignal"], body["Hostname"]) == ("SIGINT", "db")
    assert body["ExposedPorts"] == {"9/udp": {}, "5432/tcp": {}}
    assert body["Labels"] == {"ours": "1"}


def test_exposed_ports_are_published_only_if_wanted() -> None:
    """
    An image may expose hundreds of ports.

    Each port that is published takes the engine time.
    """
    changes: dict[str, Any] = {"exposed_ports": [80], "port_bindings": {"90": 9090}}
    assert ports_of(request(image=POSTGRES, **changes)) == ("5432/tcp", "80/tcp", "90/tcp")
    assert ports_of(request(image=POSTGRES, publish_all_ports=False, **changes)) == ("80/tcp", "90/tcp")


def test_labels_are_merged_with_ours() -> None:
    """They do not collide, since users cannot set labels with our prefix."""
    made = create_request(
        RunOptions(repository="postgres", labels={"mine": "1"}),
        NOTHING,
        image_name="postgres",
        labels={"dockertest.session": "s"},
        publish_ip=HOST,
    )
    assert made.body["Labels"] == {"mine": "1", "dockertest.session": "s"}


def test_our_labels_on_the_image_are_overwritten() -> None:
    """
    Engines add an image's labels to those of the container.

    Our own labels count as absent if they are empty.
    """
    inherited = {
        "dockertest.expires": "1",
        "dockertest.session": "old",
        "dockertest": "a",
        "com.example/x": "y",
    }
    made = create_request(
        RunOptions(repository="postgres", labels={"mine": "1"}),
        parse_image({"Config": {"Labels": inherited}}),
        image_name="postgres",
        labels={"dockertest.session": "new"},
        publish_ip=HOST,
    )
    assert made.body["Labels"] == {"dockertest.expires": "", "dockertest.session": "new", "mine": "1"}


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
    """
    Ports come from the image, the options and the bindings.

    Addresses come from the binding, the options or the pool.
    """
    made = request(**changes)
    assert made.body["HostConfig"]["PortBindings"] == published
    assert made.body["ExposedPorts"] == {port: {} for port in published}
    assert ports_of(made) == tuple(published)


@pytest.mark.parametrize(
    "image", [{}, {"Config": None}, {"Config": {}}, {"Config": {"ExposedPorts": None}}], ids=str
)
def test_image_may_expose_nothing(image: "dict[str, Any]") -> None:
    """Engines express this in several ways."""
    assert ports_of(request(image=parse_image(image))) == ()


def test_port_bound_by_a_modifier_is_exposed() -> None:
    """Engines silently ignore a bound port that is not exposed."""

    def bind(config: "dict[str, Any]") -> None:
        config["PortBindings"]["9/tcp"] = [bound()]

    made = request(bind, image=POSTGRES)
    assert made.body["ExposedPorts"] == {"5432/tcp": {}, "9/tcp": {}}
    assert ports_of(made) == ("5432/tcp", "9/tcp")


@pytest.mark.parametrize("bindings", [None, {}])
def test_modifier_may_publish_nothing(bindings: "dict[str, Any] | None") -> None:
    """No port is bound then."""
    made = request(lambda config: config.update(PortBindings=bindings), image=POSTGRES)
    assert ports_of(made) == ()
    assert made.body["ExposedPorts"] == {}


@pytest.mark.parametrize("mode", ["host", "none", "container:abc"])
def test_container_without_its_own_network_binds_nothing(mode: str) -> None:
    """Either an option or a modifier may set the network mode."""
    assert ports_of(request(image=POSTGRES, network_id=mode)) == ()
    assert ports_of(request(lambda config: config.update(NetworkMode=mode), image=POSTGRES)) == ()


def test_container_in_the_network_of_another_exposes_nothing() -> None:
    """Engines would reject the ports of the image."""
    made = request(image=POSTGRES, network_id="container:abc")
    assert made.body["ExposedPorts"] == {}
    assert made.body["HostConfig"]["PortBindings"] == {}


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/a:/b", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": False}),
        ("/a:/b:rw", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": False}),
        ("/a:/b:ro", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}),
        ("C:\\a:/b", {"Type": "bind", "Source": "C:\\a", "Target": "/b", "ReadOnly": False}),
    ],
)
def test_host_path_is_sent_as_mount(text: str, mount: "dict[str, Any]") -> None:
    """
    The engine rejects a mount of a path that does not exist.

    A bind would create a directory owned by root.
    """
    config = host_config(mounts=[text])
    assert config["Mounts"] == [mount]
    assert config["Binds"] == []


@pytest.mark.parametrize("text", ["volume:/b", "volume:/b:ro", "/a:/b:z", "/a:/b:ro,Z", "/a:/b:rslave"])
def test_volumes_and_other_modes_are_sent_as_binds(text: str) -> None:
    """`Mounts` does not support them."""
    config = host_config(mounts=[text])
    assert config["Binds"] == [text]
    assert config["Mounts"] == []


def test_first_network_is_in_the_request_and_the_others_follow() -> None:
    """Engines accept one network when a container is created; duplicates are dropped."""

    class Net:
        id = "0123"

    made = request(
        network_id="front", networks=["back", Net(), "front", "0123"], network_aliases=["db", "pg"]
    )
    assert made.body["HostConfig"]["NetworkMode"] == "front"
    assert made.body["NetworkingConfig"] == {
        "EndpointsConfig": {"front": {"NetworkID": "front", "Aliases": ["db", "pg"]}}
    }
    assert made.networks == ("back", "0123")


def test_the_network_of_this_process_is_joined_by_its_id() -> None:
    """Its name may occur twice. A modifier may choose another network."""
    made = request(network="0123")
    assert made.body["HostConfig"]["NetworkMode"] == "0123"
    assert made.body["NetworkingConfig"] == {"EndpointsConfig": {"0123": {"NetworkID": "0123"}}}
    other = request(lambda config: config.update(NetworkMode="host"), network="0123")
    assert "NetworkingConfig" not in other.body


def test_ports_of_an_image_without_a_protocol_are_tcp() -> None:
    """Images need not name it, and engines return them as they are."""
    image = parse_image({"Config": {"ExposedPorts": {"8080": {}, "8080/tcp": {}, "53/UDP": {}}}})
    assert image.exposed_ports == ("8080/tcp", "53/udp")
    assert ports_of(request(image=image)) == ("8080/tcp", "53/udp")


def test_network_without_aliases_has_no_aliases() -> None:
    """`networks` alone is enough."""
    made = request(networks=["back"])
    assert made.body["NetworkingConfig"] == {"EndpointsConfig": {"back": {"NetworkID": "back"}}}
    assert made.networks == ()


def test_modifiers_run_last_and_in_order() -> None:
    """Each modifier sees the changes by the options and the previous modifiers."""
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


@pytest.mark.parametrize("modifier", ["ShmSize", None, {"ShmSize": 1}])
def test_modifier_that_cannot_be_called_is_rejected(modifier: Any) -> None:
    """The message contains its index and value."""
    with pytest.raises(InvalidOptionError, match=r"^modifiers\[1\] must be callable: got ") as error:
        request(lambda _: None, modifier)
    assert repr(modifier) in str(error.value)


def test_request_does_not_change_the_options() -> None:
    """They can be used again."""
    options = RunOptions(repository="postgres", labels={"a": "b"}, port_bindings={80: 1}, tmpfs=["/run"])

    def clear(config: "dict[str, Any]") -> None:
        config["PortBindings"].clear()
        config["Tmpfs"].clear()

    def make(*modifiers: Modifier) -> CreateRequest:
        return create_request(
            options, POSTGRES, image_name="x", labels={}, publish_ip=HOST, modifiers=modifiers
        )

    before = make()
    make(clear).body["Labels"].clear()
    assert make() == before
    assert POSTGRES.exposed_ports == ("5432/tcp",)


def test_repr_of_a_request_hides_the_environment() -> None:
    """The environment may contain passwords."""
    assert "hunter2" not in repr(request(env={"PASSWORD": "hunter2"}))


def test_nothing_is_parsed_again() -> None:
    """
    Options are parsed when they are created.

    The request only writes their typed values.
    """
    made = RunOptions(
        repository="postgres",
        env={"A": 1},
        mounts=["/a:/b"],
        exposed_ports=[80],
        networks=["back"],
        port_bindings={81: 8081},
        tmpfs=["/run"],
        shm_size="64m",
        healthcheck="true",
    )
    calls = []

    def record(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and "parse_" in frame.f_code.co_name:
            calls.append(frame.f_code.co_name)

    sys.setprofile(record)
    try:
        create_request(made, POSTGRES, image_name="postgres", labels={}, publish_ip=HOST)
    finally:
        sys.setprofile(None)
    assert calls == []


@pytest.mark.parametrize(
    ("gpus", "names"), [("all", ["nvidia.com/gpu=all"]), (2, ["nvidia.com/gpu=0", "nvidia.com/gpu=1"])]
)
def test_podman_gets_gpus_by_name(gpus: "int | str", names: "list[str]") -> None:
    """Older versions would ignore them."""
    made = request(gpus=gpus)
    adapt_to_podman(made, (5, 4, 0))
    assert made.body["HostConfig"]["DeviceRequests"] == [{"Driver": "cdi", "DeviceIDs": names}]
    with pytest.raises(InvalidOptionError, match=r"gpus: Podman 4\.3\.1 would ignore them"):
        adapt_to_podman(request(gpus=gpus), (4, 3, 1))
