"""
Use the public API as type checkers see it; this file is never executed.

Each line with a mistake has the codes that mypy and pyright must report in a comment. An unused comment is an error.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

import io
import logging
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import backoff
import docker
from docker.models.containers import Container
from docker.models.networks import Network as SdkNetwork

import dockertest
from dockertest import (
    AuthConfig,
    Compose,
    ContainerExitedError,
    DockerUnavailableError,
    EngineError,
    File,
    Image,
    InventoryItem,
    Network,
    Pool,
    PortBinding,
    PortNotPublishedError,
    PreparedImage,
    Proxy,
    PullProgress,
    Report,
    Resource,
    RetryTimeoutError,
    RunOptions,
    Standby,
    Step,
    Volume,
    embedding,
    retry,
    retry_async,
    services,
)
from dockertest.mysql import TemplateDatabase as MySQLTemplateDatabase
from dockertest.mysql import connect as connect_to_mysql
from dockertest.postgres import Database, TemplateDatabase


class Connection:
    """A connection of a database driver."""

    def ping(self) -> bool:
        return True


def connect() -> Connection:
    return Connection()


async def connect_async() -> Connection:
    return Connection()


def pools(client: docker.DockerClient) -> None:
    assert_type(Pool(), Pool)
    Pool("tcp://localhost:2375", cert_path=Path("certs"), max_wait=10, timeout=5)
    Pool(client=client, image_prefix="registry:5000/", publish_ip="127.0.0.1")
    Pool(pull_progress=lambda progress: assert_type(progress, PullProgress))
    with Pool() as pool:
        assert_type(pool, Pool)
        assert_type(pool.client, docker.DockerClient)
        assert_type(pool.close(), None)

    Pool(max_wait="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Pool("unix:///x", "certs")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Pool(endpiont="unix:///x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def running(pool: Pool, network: Network, sdk_network: SdkNetwork) -> None:
    assert_type(pool.run("postgres"), Resource)
    pool.run("postgres", "15", {"POSTGRES_PASSWORD": "secret", "PORT": 5432})
    pool.run("postgres", "15", ["A=1"])
    pool.run("postgres:15", env=(f"{key}=1" for key in "AB"))
    pool.run("postgres", cmd=["-c", "fsync=off"], mounts=("/a:/b:ro",), labels={"a": "b"}, privileged=True)
    pool.run("postgres", exposed_ports=[80, "53/udp"], port_bindings={"5432/tcp": 15432})
    pool.run("postgres", port_bindings={5432: [PortBinding("127.0.0.1", 0), "15432", 15433], "80": 8080})
    pool.run("postgres", networks=[network, sdk_network, "back"], network_aliases=["db"])
    pool.run("postgres", tmpfs=["/run"], shm_size="64m", init=True, stop_timeout=1.5, pull="never")
    pool.run("postgres", tmpfs={"/run": "size=64m"}, shm_size=64 << 20, healthcheck="pg_isready")
    pool.run("postgres", healthcheck={"test": ["CMD", "true"], "interval": 0.5, "retries": 3})
    pool.run("postgres", auth=AuthConfig("me", "secret"))
    pool.run("corp/db", service="postgres", wait_for="ready")
    pool.run("corp/db", wait_for=ready)
    pool.run("corp/db", wait_for=lambda resource: resource.wait_for_port(80))
    pool.run("corp/db", wait_for="raedy")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    pool.run("postgres", "15", {"A": "1"}, privilegd=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.run("postgres", 15)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.run("postgres", env="A=1", cmd=[1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    pool.run("postgres", env=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.run("postgres", pull="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.run("postgres", port_bindings={"80": 1.5})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    pool.run("postgres", tty="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.run()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def limits(pool: Pool) -> None:
    pool.run("postgres", memory="512m", cpus=1.5, gpus="all", ulimits={"nofile": (1, 2)}, sysctls={"a": 1})
    pool.run("postgres", memory=1 << 30, cpus="2", gpus=1, ulimits=["core=0"], devices=["/dev/fuse"])
    pool.run("postgres", log_to=logging.getLogger("postgres"), host_config={"OomScoreAdj": 5})
    pool.run("postgres", log_to=lambda line: print(line.upper()), container_config={"StopSignal": "SIGINT"})
    pool.run(
        "postgres",
        log_to=Path("postgres.log"),
        files={"/a": File("text", mode=0o600, owner="70:70"), "/b": b""},
    )
    pool.run("postgres", host_access_ports=[8080, "9090"])
    pool.run("postgres", host_access_ports=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.run("postgres", log_to=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    volume = pool.create_volume()
    assert_type(volume, Volume)
    assert_type(volume.name, str)
    pool.run("postgres", mounts=[(volume, "/a"), (volume, "/b", "ro"), "/c:/d", (Path("/e"), "/f", "ro")])
    pool.run("postgres", cap_drop=["ALL"], read_only=True, restart="on-failure:2", publish_all_ports=False)


def known_services() -> None:
    assert_type(services.known(), tuple[services.Service, ...])
    services.register(
        services.Service(
            images=["corp/search"],
            port=9200,
            probe=services.http_probe("/health", [200]),
            url=lambda settings, address: f"http://{settings['USER']}@{address}/",
            dialect="search",
            has_databases=True,
        )
    )
    services.Service(images=("a",), port=1, probe=lambda address: True, url=str)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType]


def options(pool: Pool) -> None:
    made = RunOptions(repository="postgres", tag="15", env={"A": "1"}, networks=["back"])
    assert_type(pool.run_with_options(made), Resource)
    pool.run_with_options(made, lambda config: config.update(ShmSize=1), modify)
    assert_type(pool.run_all([made, made], max_workers=2), list[Resource])
    prepared = pool.prepare(made, lambda resource: resource.get_port(5432), version=[Path("migrations"), "2"])
    assert_type(prepared, PreparedImage)
    assert_type(pool.prepare(made, ready=Resource.wait_healthy, max_age=None, max_wait=5), PreparedImage)
    assert_type(pool.run_with_options(prepared.replace(name="db", networks=["back"], memory="1g")), Resource)
    pool.run_all([prepared, made])
    assert_type(pool.standby(made), Standby)
    with pool.standby(prepared, ready=Resource.wait_healthy, count=2, max_idle=60) as standby:
        assert_type(standby.take(max_wait=5), Resource)
        assert_type(standby.image, str)
    pool.standby("postgres")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    standby.take(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.prepare("postgres")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    prepared.replace(env={"A": "1"})  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    RunOptions("postgres")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    RunOptions(name="built")  # a build uses the container's name for the image
    made.tag = "16"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    PortBinding(80)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    AuthConfig(password=b"secret")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.run_with_options(made, "ShmSize")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def modify(config: dict[str, Any]) -> None:
    config["Memory"] = 64 << 20


def addresses(resource: Resource) -> None:
    assert_type(resource.get_port("5432/tcp"), int)
    assert_type(resource.get_port(5432) + 1, int)
    assert_type(resource.get_address(5432), tuple[str, int])
    assert_type(resource.url(driver="psycopg", database="shop", network="back"), str)
    found = resource.connection()
    assert_type(found, dockertest.Connection)
    assert_type((found.host, found.port, found.user, found.password), tuple[str, int, str, str])
    found.port = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert_type(resource.get_bound_ip("5432"), str)
    assert_type(resource.get_host_port("5432/tcp"), str)
    assert_type(resource.id, str)
    assert_type(resource.name, str)
    assert_type(resource.container, Container)
    with resource as entered:
        assert_type(entered, Resource)

    resource.get_port("5432/tcp") + "x"  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue, reportUnusedExpression]
    resource.get_port(b"5432")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    resource.get_prot(5432)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def commands(resource: Resource, flag: bool) -> None:
    done = resource.exec(["psql", "-c", "select 1"], env={"A": "1"}, timeout=5, check=True)
    assert_type(done.exit_code, int)
    assert_type(done.stdout, str)
    assert_type(done.stderr, str)
    assert_type(resource.exec(("cat",), stdin=b"bytes", text=False).stdout, bytes)
    assert_type(resource.exec(("cat",), stdin=io.BytesIO(), text=flag).stdout, str | bytes)
    resource.exec(["cat"], stdin="text", stdout=io.BytesIO(), stderr=io.BytesIO(), user="me", working_dir="/")

    resource.exec(["cat"], stdout=io.StringIO())  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    resource.exec(["cat"], timout=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    resource.exec([1])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


def ready(resource: Resource) -> None:
    assert_type(resource.wait_healthy(max_wait=5), None)
    assert_type(resource.wait_ready(max_wait=5), None)
    assert_type(resource.wait_for_port("80", max_wait=5), None)
    assert_type(resource.wait_for_http(80, "/health", status=204, headers={"A": "b"}, tls=True), None)
    resource.wait_for_http(80, status=range(200, 500), max_wait=1.5)
    resource.wait_for_http(80, status=[200, 401])
    assert_type(resource.wait_for_log("ready", count=2), re.Match[str])
    resource.wait_for_log("ready", fail_on=re.compile("FATAL"))
    resource.wait_ready(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert_type(resource.wait_for_log(re.compile("ready"), max_wait=5), re.Match[str])


def life(resource: Resource, pool: Pool) -> None:
    assert_type(resource.status, str)
    assert_type(resource.health, str)
    assert_type(resource.logs(tail=5, since=1.5, stdout=False), str)
    assert_type(resource.wait(timeout=5), int)
    assert_type(resource.read_file("/etc/hostname"), bytes)
    resource.write_file("/x", "text", mode=0o600)
    resource.write_file("/x", b"bytes")
    resource.copy_in(Path("folder"), "/srv")
    resource.copy_out("/srv", "folder")
    resource.stop(timeout=1.5)
    resource.start()
    resource.restart()
    resource.refresh()
    resource.expire(60)
    resource.expire(None)
    resource.close()
    pool.purge(resource)
    lines: Iterator[str] = resource.stream_logs()
    for line in lines:
        assert_type(line, str)
    resource.stream_logs().close()

    assert_type(resource.keep(), None)

    resource.status = "running"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    pool.purge("pg")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def life_of_a_service(resource: Resource) -> None:
    assert_type(resource.pause(), None)
    assert_type(resource.unpause(), None)
    assert_type(resource.kill(), None)
    resource.kill("HUP")
    resource.kill(signal.SIGHUP)
    assert_type(resource.commit("image", "tag"), str)
    assert_type(resource.commit("image:tag"), str)


def waiting(pool: Pool, resource: Resource) -> None:
    assert_type(pool.retry(connect), Connection)
    assert_type(resource.retry(connect, max_wait=5), Connection)
    assert_type(retry(connect), Connection)
    assert_type(pool.retry(connect).ping(), bool)
    assert_type(pool.retry(lambda: 3) + 1, int)
    pool.retry(connect, wait=backoff.fibo, on=OSError)
    pool.retry(connect, wait=lambda: backoff.constant(1), on=(OSError, KeyError), max_attempts=3)
    pool.retry(connect, giveup=lambda failure: isinstance(failure, KeyError), watch=[resource])
    pool.retry(connect, watch=())
    assert_type(retry(Pool, on=DockerUnavailableError), Pool)

    pool.retry(connect())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.retry(connect, wait=backoff.fibo())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.retry(connect, on=OSError("x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.retry(connect, max_attempts=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.retry(connect, max_wiat=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    retry(connect, attempt_timeout=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    resource.retry(connect, watch=[resource])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    pool.retry(connect).pnig()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def waiting_async(pool: Pool, resource: Resource) -> None:
    assert_type(await pool.retry_async(connect_async), Connection)
    assert_type(await retry_async(connect_async, attempt_timeout=1.5, watch=[resource]), Connection)

    await pool.retry_async(connect_async, attempt_timeuot=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await pool.retry_async(connect)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def networks(pool: Pool, resource: Resource) -> None:
    with pool.create_network("back", internal=True, labels={"a": "b"}) as network:
        assert_type(network, Network)
        assert_type(network.id, str)
        assert_type(network.network, SdkNetwork)
        resource.connect_to_network(network, aliases=["db"])
        assert_type(resource.get_ip_in_network(network), str)
        resource.disconnect_from_network("back")
        pool.remove_network(network)
    assert_type(pool.networks_by_name("back"), list[Network])

    pool.create_network("back", intrenal=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    resource.get_ip_in_network(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def reusing(pool: Pool) -> None:
    pool.run("postgres:15", reuse=True)
    pool.run("postgres:15", reuse="group")
    pool.run("postgres:15", reuse=dockertest.Reuse(idle=600, replaces=True))
    pool.run("postgres:15", shared=True)
    dockertest.Reuse(group=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(pool.prune(reused=True), list[str])

    pool.run("postgres:15", reuse=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    pool.prune(True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def databases(pool: Pool) -> None:
    with TemplateDatabase(
        pool, print, version=[Path("migrations"), "2"], env={"A": "1"}, reuse=True
    ) as template:
        assert_type(template, TemplateDatabase)
        assert_type(template.resource, Resource)
        with template.clone() as database:
            assert_type(database, Database)
            assert_type(database.url, str)
            assert_type(database.restore(), None)
            database.keep()

    with MySQLTemplateDatabase(
        None, print, version=Path("migrations"), server="mysql://root@host/"
    ) as running:
        assert_type(running, MySQLTemplateDatabase)
        assert_type(running.resource, Resource)
        with running.clone() as database, connect_to_mysql(database.url, autocommit=True) as connection:
            assert_type(database, Database)
            connection.ping()

    MySQLTemplateDatabase(pool, print, repository="mariadb", tag="10.11", fast=False, memory="1g").close()
    TemplateDatabase(None, print, server="postgresql://host/", prepared=False).close()
    TemplateDatabase(pool, "migrate.sql")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    TemplateDatabase(pool, print, verson="2")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def timelines(pool: Pool) -> None:
    for step in pool.timeline():
        assert_type(step, Step)
        assert_type(step.kind, str)
        assert_type(step.seconds, float)


def looking_around(pool: Pool) -> None:
    image = pool.pull("postgres:15", policy="missing")
    assert_type(image, Image)
    assert_type(image.command, tuple[str, ...])

    image.id = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    for item in pool.inventory():
        assert_type(item, InventoryItem)
        assert_type(item.ports, tuple[str, ...])
        assert_type(item.expires, int | None)

        item.state = "dead"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def composing(pool: Pool) -> None:
    with pool.compose("compose.yaml", project="app", profiles=["debug"], env={"PASSWORD": "x"}) as project:
        assert_type(project, Compose)
        assert_type(project["db"], Resource)
        assert_type(project.project, str)
        assert_type(project.services, tuple[str, ...])
        assert_type(project.containers("db"), list[Resource])

        pool.compose(["compose.yaml"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def outages(resource: Resource) -> None:
    with resource.proxy("5432/tcp") as proxy:
        assert_type(proxy, Proxy)
        assert_type(proxy.port, str)
        assert_type(proxy.get_address(), tuple[str, int])
        assert_type(proxy.get_host_port(), str)
        assert_type(proxy.url(), str)
        assert_type(proxy.delay(0.5), None)
        assert_type(proxy.bandwidth(100_000), None)
        assert_type(proxy.cut(), None)
        assert_type(proxy.freeze(), None)
        assert_type(proxy.restore(), None)

        proxy.delay("1s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def integrations(failure: str) -> None:
    with embedding.pool_or_skip() as pool:
        assert_type(pool, Pool)
    for report in embedding.reports(failure):
        assert_type(report, Report)
    steps = embedding.timeline()
    assert_type(steps, list[Step])
    assert_type(embedding.timeline_table(steps), list[str])
    assert_type(embedding.timeline_svg(steps), str)
    assert_type(embedding.kept(), list[str])
    assert_type(dockertest.require_docker(), None)


def finding(pool: Pool) -> None:
    assert_type(pool.container_by_name("pg"), Resource | None)
    assert_type(pool.remove_container_by_name("pg"), bool)
    assert_type(pool.current_container(), Resource)

    pool.container_by_name("pg").close()  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]


def errors() -> None:
    try:
        connect()
    except ContainerExitedError as error:
        assert_type(error.exit_code, int | None)
        assert_type(error.oom_killed, bool)
        assert_type(error.logs, str)
        assert_type(error.report, Report | None)
    except PortNotPublishedError as error:
        assert_type(error.published, tuple[str, ...])
    except RetryTimeoutError as error:
        assert_type(error.attempts, int)
        assert_type(error.elapsed, float)
        assert_type(error.report, Report | None)
        assert_type(error.reports, tuple[Report, ...])
    except EngineError as error:
        assert_type(error.status, int | None)


def names() -> None:
    assert_type(dockertest.__version__, str)
    assert_type(dockertest.__all__, list[str])

    dockertest.Poool()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
