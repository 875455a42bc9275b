"""What a container may use and do, and which of its ports are published."""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import dockertest
from dockertest import BuildOptions, RunOptions

from .conftest import Engine

SLEEP = ["sleep", "600"]
EXPOSED_PORTS = 300


def first_free(count: int) -> int:
    """
    Return the first port of a range that probably no process uses.

    The range is outside of the ephemeral ports.
    """
    return 10_000 + secrets.randbelow(2_000) * count


@pytest.mark.differs("limits of memory")
def test_limits_have_an_effect_in_the_container(pool: dockertest.Pool, engine: Engine) -> None:
    """The kernel reports them to the container's own processes."""
    with pool.run(
        "busybox:1.35",
        cmd=SLEEP,
        memory="64m",
        cpus=0.5,
        cap_drop=["NET_RAW"],
        sysctls={"net.core.somaxconn": 77},
        devices=["/dev/zero:/dev/nothing:r"],
        ipc_mode="private",
    ) as resource:
        host_config = engine.inspect(resource.id)["HostConfig"]
        assert host_config["Memory"] == 64 << 20
        script = (
            "cat /proc/sys/net/core/somaxconn; head -c 2 /dev/nothing | wc -c; grep CapBnd /proc/1/status"
        )
        backlog, size, capabilities = resource.exec(["sh", "-c", script]).stdout.splitlines()
        assert (backlog, size) == ("77", "2")
        assert not int(capabilities.split()[1], 16) & 1 << 13  # CAP_NET_RAW
        quota = host_config.get("NanoCpus") or host_config["CpuQuota"] * 10**9 // host_config["CpuPeriod"]
        assert quota == 500_000_000


@pytest.mark.differs("limits of processes")
def test_limits_of_processes(pool: dockertest.Pool) -> None:
    """A process may raise the soft limit up to the hard one."""
    with pool.run("busybox:1.35", cmd=SLEEP, ulimits={"nofile": (512, 1024), "core": 0}) as resource:
        limits = resource.exec(["cat", "/proc/1/limits"]).stdout
        (files,) = (line.split()[3:5] for line in limits.splitlines() if line.startswith("Max open files"))
        assert files == ["512", "1024"]


def test_a_container_may_share_the_processes_of_another(pool: dockertest.Pool) -> None:
    """It sees them, and can therefore signal them."""
    with (
        pool.run("busybox:1.35", cmd=["sleep", "601"]) as first,
        pool.run("busybox:1.35", cmd=SLEEP, pid_mode=f"container:{first.id}") as second,
    ):
        assert "sleep 601" in second.exec(["ps"]).stdout


def test_files_of_a_read_only_container(pool: dockertest.Pool, name: str) -> None:
    """
    A volume can be written to, but its own file system cannot.

    This also applies before the start.
    """
    mounts = [f"{name}:/data"]
    files = {"/data/a": "1", "/data/deep/b": "2"}
    try:
        with pool.run("busybox:1.35", cmd=SLEEP, read_only=True, mounts=mounts, files=files) as resource:
            assert "Read-only" in resource.exec(["touch", "/here"]).stderr
            assert resource.exec(["cat", "/data/a", "/data/deep/b"]).stdout == "12"
        with pytest.raises(
            dockertest.InvalidOptionError, match="'/etc/a' is on the read-only file system"
        ) as error:
            pool.run("busybox:1.35", cmd=SLEEP, read_only=True, mounts=mounts, files={**files, "/etc/a": ""})
        assert "volume" in error.value.hint
    finally:
        pool.client.volumes.get(name).remove()


def test_a_gpu_is_requested(pool: dockertest.Pool, engine: Engine) -> None:
    """An engine without GPUs reports that; Podman 4 would ignore them."""
    failure = ""
    try:
        with pool.run("busybox:1.35", cmd=SLEEP, gpus="all") as resource:
            requests = engine.inspect(resource.id)["HostConfig"].get("DeviceRequests")
            assert engine.is_podman or requests[0]["Count"] == -1
    except (
        dockertest.ContainerStartError,
        dockertest.ContainerCreateError,
        dockertest.InvalidOptionError,
    ) as error:
        failure = str(error)
    assert not failure or "gpu" in failure
    assert failure or Path("/dev/nvidiactl").exists() or not engine.is_podman


class TestRestart:
    """The engine restarts a container whose command has ended."""

    def test_a_container_that_is_restarted_is_not_dead(self, pool: dockertest.Pool) -> None:
        """A wait continues until the service is up, even if its first attempt fails."""
        command = "test -f /once || { touch /once; exit 1; }; exec sleep 600"
        with pool.run(
            "busybox:1.35", cmd=["sh", "-c", command], exposed_ports=[8080], restart="always"
        ) as resource:
            pool.retry(lambda: resource.exec(["test", "-f", "/once"], check=True), max_wait=30)
            assert pool.retry(lambda: resource.get_port(8080), max_wait=30) > 0
            resource.check_alive()

    def test_a_container_that_is_not_restarted_any_more_is_dead(
        self, pool: dockertest.Pool, engine: Engine
    ) -> None:
        """After the last of the attempts, waits end with its exit code and its log."""
        with pool.run(
            "busybox:1.35", cmd=["sh", "-c", "echo attempt; exit 3"], restart="on-failure:2"
        ) as resource:
            with pytest.raises(dockertest.ContainerExitedError) as error:
                pool.retry(lambda: False, max_wait=30)
            assert error.value.exit_code == 3
            assert error.value.logs.count("attempt") == 3
            assert engine.inspect(resource.id)["RestartCount"] == 2


@pytest.fixture(scope="module")
def image_with_many_ports(pool: dockertest.Pool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image that exposes hundreds of UDP ports, as SIP and WebRTC servers do."""
    name = f"dockertest-{secrets.token_hex(6)}"
    folder = tmp_path_factory.mktemp("ports")
    dockerfile = (
        f"FROM {pool.image_prefix}busybox:1.35\nEXPOSE 20000-{20000 + EXPOSED_PORTS - 1}/udp\nEXPOSE 8080\n"
    )
    (folder / "Dockerfile").write_text(dockerfile)
    options = RunOptions(repository=name, cmd=SLEEP, publish_all_ports=False)
    with pool.build_and_run_with_build_options(BuildOptions(folder, remove_image=True), options):
        yield name


class TestPorts:
    """Ports that are published or not."""

    def test_exposed_ports_need_not_be_published(
        self, pool: dockertest.Pool, image_with_many_ports: str
    ) -> None:
        """Only the listed ports are published, and the start takes no longer than usual."""
        began = time.monotonic()
        with pool.run(
            image_with_many_ports, cmd=SLEEP, publish_all_ports=False, exposed_ports=[8080, "20000/udp"]
        ) as resource:
            assert resource.get_port(8080)
            assert resource.get_port("20000/udp")
            with pytest.raises(dockertest.PortNotPublishedError):
                resource.get_port("20001/udp")
            assert sorted(port for port, bound in resource.container.ports.items() if bound) == [
                "20000/udp",
                "8080/tcp",
            ]
        assert time.monotonic() - began < 25  # Published, they take more than 30 s.

    def test_a_range_of_ports(self, pool: dockertest.Pool) -> None:
        """Each of them is published on its own."""
        first = first_free(4)
        with pool.run(
            "busybox:1.35",
            cmd=SLEEP,
            exposed_ports=["7000-7003"],
            port_bindings={"8000-8003/udp": f"{first}-{first + 3}"},
        ) as resource:
            assert len({resource.get_port(port) for port in range(7000, 7004)}) == 4
            assert [resource.get_port(f"{port}/udp") for port in range(8000, 8004)] == list(
                range(first, first + 4)
            )

    def test_a_free_port_of_a_range_of_the_host(self, pool: dockertest.Pool, engine: Engine) -> None:
        """
        Two containers get different ones.

        Podman cannot choose one, and the error names Podman.
        """
        first = first_free(11)
        allowed = range(first, first + 11)
        bindings = {8080: f"{first}-{first + 10}"}
        if engine.is_podman:
            with pytest.raises(dockertest.InvalidOptionError, match="Podman"):
                pool.run("busybox:1.35", cmd=SLEEP, port_bindings=bindings)
            return
        with (
            pool.run("busybox:1.35", cmd=SLEEP, port_bindings=bindings) as one,
            pool.run("busybox:1.35", cmd=SLEEP, port_bindings=bindings) as other,
        ):
            assert {one.get_port(8080), other.get_port(8080)} < set(allowed)
            assert one.get_port(8080) != other.get_port(8080)


def test_a_file_has_its_mode_and_owner(pool: dockertest.Pool) -> None:
    """Servers refuse keys and passwords with another owner or readable by others."""
    files: dict[str, bytes | str | dockertest.File] = {
        "/etc/keys/server.key": dockertest.File("secret", mode=0o600, owner="70:80"),
        "/etc/keys/server.crt": b"public",
    }
    with pool.run("busybox:1.35", cmd=SLEEP, files=files) as resource:
        listed = resource.exec(["ls", "-ln", "/etc/keys"]).stdout.splitlines()
        owners = {
            words[-1]: (words[0], words[2], words[3]) for words in map(str.split, listed) if len(words) > 3
        }
        assert owners["server.key"] == ("-rw-------", "70", "80")
        assert owners["server.crt"] == ("-rw-r--r--", "0", "0")
        assert resource.read_file("/etc/keys/server.key") == b"secret"


def test_settings_in_the_words_of_the_engine(pool: dockertest.Pool, engine: Engine) -> None:
    """They reach the engine, and a modifier is applied after them."""
    options = RunOptions(
        repository="busybox",
        tag="1.35",
        cmd=SLEEP,
        host_config={"OomScoreAdj": 300, "ShmSize": 32 << 20},
        container_config={"StopSignal": "SIGINT"},
    )
    with pool.run_with_options(options, lambda config: config.update(ShmSize=16 << 20)) as resource:
        attrs = engine.inspect(resource.id)
        assert attrs["HostConfig"]["OomScoreAdj"] == 300
        assert attrs["HostConfig"]["ShmSize"] == 16 << 20
        assert attrs["Config"]["StopSignal"] in ("SIGINT", "2")


@pytest.mark.differs("limits of memory")
def test_settings_of_the_engine_belong_to_the_key_of_reuse(pool: dockertest.Pool, name: str) -> None:
    """A container with others is not taken, but where its log goes does not matter."""
    with pool.run("busybox:1.35", cmd=SLEEP, memory="64m", name=name, reuse=True) as first:
        try:
            same = pool.run("busybox:1.35", cmd=SLEEP, memory=64 << 20, name=name, reuse=True, log_to=print)
            assert same.id == first.id
            same.close()
            for changes in ({"memory": "65m"}, {"memory": "64m", "host_config": {"OomScoreAdj": 5}}):
                with pytest.raises(dockertest.ContainerCreateError, match="other options"):
                    pool.run("busybox:1.35", cmd=SLEEP, name=name, reuse=True, **changes)
        finally:
            pool.purge(first)
