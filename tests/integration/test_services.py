"""
`wait_ready`, `url` and `wait_for` work with real servers.

They need no driver and no URL assembled by hand, and they report no false "ready".
"""

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pymysql
import pytest
import redis
import sqlalchemy
import trustme

import dockertest
from dockertest import services
from tests.engines.fault_proxy import FaultProxy

from .conftest import Engine
from .test_requests import new_requests

SLEEP = ("sleep", "600")
SERVES = ("sh", "-c", "sleep 0.5; exec httpd -f -p 8080 -h /etc")
PASSWORD = "p@ss/w :rd%"


def mysql(resource: dockertest.Resource) -> "pymysql.Connection[Any]":
    """Connect to MySQL or MariaDB."""
    to = resource.connection()
    return pymysql.connect(
        host=to.host,
        port=to.port,
        user=to.user,
        password=to.password,
        database=to.database,
        connect_timeout=5,
    )


def use_postgres(resource: dockertest.Resource) -> None:
    """Write to PostgreSQL."""
    with psycopg.connect(resource.url(), connect_timeout=5) as connection:
        connection.execute("CREATE TABLE visits (page text)")


def use_mysql(resource: dockertest.Resource) -> None:
    """Write to MySQL or MariaDB."""
    with mysql(resource) as connection:
        connection.cursor().execute("CREATE TABLE visits (page text)")


def redis_answers(resource: dockertest.Resource) -> bool:
    """Return whether Redis answers at the container's URL."""
    with redis.Redis.from_url(resource.url(), socket_timeout=5) as client:
        return bool(client.ping())


def init_script(statement: str) -> dict[str, str]:
    """Return `files` with a script that prolongs the set-up of a database image."""
    return {"/docker-entrypoint-initdb.d/slow.sql": statement}


# The images that start a temporary server for their own set-up: options, and what fails in that server.
TEMPORARY: dict[str, tuple[dict[str, Any], Callable[[dockertest.Resource], None]]] = {
    "postgres:15": (
        {
            "env": {"POSTGRES_PASSWORD": PASSWORD, "POSTGRES_USER": "shop", "POSTGRES_DB": "orders"},
            "files": init_script("SELECT pg_sleep(0.5); CREATE TABLE last (x int);"),
        },
        use_postgres,
    ),
    "postgres:18": (
        {
            "env": {"POSTGRES_PASSWORD": PASSWORD, "POSTGRES_USER": "shop", "POSTGRES_DB": "orders"},
            "files": init_script("SELECT pg_sleep(0.5); CREATE TABLE last (x int);"),
        },
        use_postgres,
    ),
    "mariadb:10.11": (
        {
            "env": {
                "MARIADB_ROOT_PASSWORD": "root",
                "MARIADB_USER": "shop",
                "MARIADB_PASSWORD": PASSWORD,
                "MARIADB_DATABASE": "orders",
            },
            "files": init_script("SELECT SLEEP(0.5); CREATE TABLE last (x int);"),
        },
        use_mysql,
    ),
    "mysql:9.7": (
        {
            "env": {
                "MYSQL_ROOT_PASSWORD": "root",
                "MYSQL_USER": "shop",
                "MYSQL_PASSWORD": PASSWORD,
                "MYSQL_DATABASE": "orders",
            },
            "files": init_script("SELECT SLEEP(0.5); CREATE TABLE last (x int);"),
        },
        use_mysql,
    ),
}


def check_first_ready(pool: dockertest.Pool, image: str) -> None:
    """Probe at once and without a pause, and use the service at the first "ready"."""
    options, use = TEMPORARY[image]
    with pool.run(image, **options) as resource:
        service = services.find(resource.image, {})
        assert service is not None
        address, settings = resource.get_address(service.port), services.settings(resource.container.attrs)

        def probe() -> object:
            return service.probe(address, settings)

        resource.retry(probe, wait=lambda: iter(lambda: 0.0, 1), max_wait=120)
        use(resource)
        assert "last" in tables(resource)


def tables(resource: dockertest.Resource) -> set[str]:
    """Return the names of the tables in the configured database."""
    query = "SELECT table_name FROM information_schema.tables"
    if "postgres" in resource.image:
        with psycopg.connect(resource.url()) as connection:
            return {str(row[0]) for row in connection.execute(query)}
    with mysql(resource) as opened, opened.cursor() as cursor:
        cursor.execute(query)
        return {str(row[0]) for row in cursor.fetchall()}


@pytest.mark.parametrize("image", TEMPORARY)
def test_the_server_of_the_set_up_is_not_ready(pool: dockertest.Pool, image: str) -> None:
    """
    The first "ready" comes from the server that stays.

    It accepts logins, and the init scripts have been run.
    """
    check_first_ready(pool, image)


@pytest.mark.soak
@pytest.mark.parametrize("image", TEMPORARY)
def test_the_server_of_the_set_up_is_never_ready(pool: dockertest.Pool, image: str) -> None:
    """The same in twenty rounds."""
    for _ in range(20):
        check_first_ready(pool, image)


def test_postgres_in_three_lines(pool: dockertest.Pool) -> None:
    """The driver and SQLAlchemy accept the URL with any user, password and database."""
    env = {"POSTGRES_PASSWORD": PASSWORD, "POSTGRES_USER": "me@corp", "POSTGRES_DB": "my shop"}
    with pool.run("postgres", "15", env, wait_for="ready") as resource:
        with psycopg.connect(resource.url()) as connection:
            row = connection.execute("SELECT current_user, current_database()").fetchone()
        assert row == ("me@corp", "my shop")
        engine = sqlalchemy.create_engine(resource.url(driver="psycopg", database="postgres"))
        with engine.connect() as opened:
            assert opened.execute(sqlalchemy.text("SELECT current_database()")).scalar() == "postgres"
        engine.dispose()
        found = resource.connection()
        assert (found.host, found.port) == resource.get_address(5432)
        assert (found.user, found.password, found.database) == ("me@corp", PASSWORD, "my shop")
        assert PASSWORD not in repr(found)
        assert resource.get_host_port(5432) == f"{found.host}:{found.port}"


def test_a_password_in_a_file(pool: dockertest.Pool, tmp_path: Path) -> None:
    """
    The password is read from `files`, or from the container.

    Without the file, `wait_ready` works, and `url` raises an error.
    """
    (tmp_path / "password").write_text(f"{PASSWORD}\n", encoding="utf-8")
    tmp_path.chmod(0o755)
    env = {"POSTGRES_PASSWORD_FILE": "/run/secrets/password"}
    with pool.run("postgres:15", env=env, files={"/run/secrets": tmp_path}, wait_for="ready") as resource:
        with psycopg.connect(resource.url()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        borrowed = pool.container_by_name(resource.name)
        assert borrowed is not None
        assert borrowed.url() == resource.url()
        resource.exec(["rm", "/run/secrets/password"], check=True)
        borrowed.wait_ready()
        with pytest.raises(
            dockertest.InvalidOptionError, match="POSTGRES_PASSWORD_FILE is '/run/secrets/password'"
        ):
            borrowed.url()


def test_a_probe_leaves_no_errors_in_the_log(pool: dockertest.Pool) -> None:
    """A server that requires no password checks whether the database exists."""
    env = {"POSTGRES_USER": "app", "POSTGRES_DB": "shop", "POSTGRES_HOST_AUTH_METHOD": "trust"}
    with pool.run("postgres", "15", env=env, wait_for="ready") as server:
        server.wait_ready()
        assert "does not exist" not in server.logs()


def test_flags_in_other_forms(pool: dockertest.Pool) -> None:
    """Redis accepts a flag and its value in one word, and NATS one dash."""
    with pool.run("redis:7.0", cmd=["redis-server", "--requirepass secret"], wait_for="ready") as server:
        assert server.connection().password == "secret"
        with redis.Redis.from_url(server.url()) as client:
            assert client.ping()
    with pool.run("nats:2.9", cmd=["-user", "bob", "-pass", "secret"], wait_for="ready") as server:
        assert server.url().startswith("nats://bob:secret@")


def test_redis_with_a_password(pool: dockertest.Pool) -> None:
    """It comes from the command."""
    with pool.run("redis:7.0", cmd=["redis-server", "--requirepass", PASSWORD], wait_for="ready") as resource:
        with redis.Redis.from_url(resource.url(database="3")) as client:
            assert client.ping()
        wrong = redis.Redis.from_url(resource.url().replace("w", "x"))
        with wrong as client, pytest.raises(redis.AuthenticationError):
            client.ping()


class TestNetworkUrl:
    """The URL that other containers use."""

    def test_it_has_the_alias_or_the_name_or_the_address(self, pool: dockertest.Pool, name: str) -> None:
        """The default network knows no names, so the address is used there."""
        with pool.create_network() as network:
            options: dict[str, Any] = {"cmd": ["sleep", "600"], "service": "redis", "exposed_ports": [6379]}
            with (
                pool.run("busybox:1.35", networks=[network], network_aliases=["cache"], **options) as aliased,
                pool.run("busybox:1.35", name=name, networks=[network], **options) as named,
                pool.run("busybox:1.35", **options) as plain,
            ):
                assert aliased.url(network=network) == "redis://cache:6379/0"
                assert aliased.url(network=network.name) == "redis://cache:6379/0"
                assert named.url(network=network.id) == f"redis://{name}:6379/0"
                (default,) = plain.container.attrs["NetworkSettings"]["Networks"]
                assert plain.url(network=default) == f"redis://{plain.get_ip_in_network(default)}:6379/0"
                with pytest.raises(dockertest.NotInNetworkError):
                    plain.url(network=network)


class TestUnknownImage:
    """Images that are not known."""

    def test_service_names_what_it_contains(self, pool: dockertest.Pool, engine: Engine) -> None:
        """The probe and the URL are those of the named service, also for a build."""
        engine.client.api.tag(engine.client.images.get(image_name(pool, "redis:7.0")).id, "corp-cache", "1")
        try:
            options = dockertest.RunOptions(
                repository="corp-cache:1", service="redis", wait_for="ready", pull="never"
            )
            plain = dockertest.Pool(pool.endpoint, image_prefix="")
            with plain, plain.run_with_options(options) as resource:
                assert redis_answers(resource)
        finally:
            engine.client.images.remove("corp-cache:1")

    def test_an_unknown_service_is_refused_before_the_start(self, pool: dockertest.Pool) -> None:
        """The engine is not asked: the image does not have to exist."""
        with pytest.raises(dockertest.InvalidOptionError, match="did you mean 'postgres'"):
            pool.run("no/such/image", service="postgress", pull="never")

    @pytest.mark.differs("health checks")
    def test_a_health_check_counts(self, pool: dockertest.Pool) -> None:
        """It is waited for where no probe is known."""
        check = {"test": ["CMD", "test", "-e", "/tmp/ready"], "interval": 0.2}
        cmd = ["sh", "-c", "sleep 0.5; touch /tmp/ready; sleep 600"]
        with pool.run("busybox:1.35", cmd=cmd, healthcheck=check, wait_for="ready") as resource:
            assert resource.health == "healthy"

    def test_without_one_the_alternatives_are_listed(self, pool: dockertest.Pool, name: str) -> None:
        """The container is removed, since the caller has not received it."""
        with pytest.raises(dockertest.InvalidOptionError) as caught:
            pool.run("busybox:1.35", cmd=SLEEP, name=name, wait_for="ready")
        for word in (
            "service=",
            "services.register",
            "healthcheck=",
            "wait_for_http",
            "wait_for_log",
            "retry",
        ):
            assert word in str(caught.value)
        assert pool.container_by_name(name) is None

    def test_a_service_at_another_port_is_not_found(self, pool: dockertest.Pool) -> None:
        """The error names the port that was tried."""
        cmd = ["redis-server", "--port", "7000"]
        tried = r"\S+:\d+ \(container port 6379/tcp\) does not answer"  # the engine's proxy resets or closes
        with (
            pool.run("redis:7.0", cmd=cmd) as resource,
            pytest.raises(dockertest.RetryTimeoutError, match=tried),
        ):
            resource.wait_ready(max_wait=1)

    def test_the_url_of_an_unknown_service_is_refused(self, pool: dockertest.Pool) -> None:
        """The error names the image and what to set."""
        with pool.run("busybox:1.35", cmd=SLEEP) as resource:
            for call in (resource.url, resource.connection):
                with pytest.raises(dockertest.InvalidOptionError, match=r"busybox.*service="):
                    call()

    def test_a_registered_service_is_used(
        self, pool: dockertest.Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its probe gets the address and the settings of the container."""
        monkeypatch.setattr(services, "_registered", [])
        services.register(
            services.Service(
                images=("busybox",),
                port=8080,
                probe=services.http_probe("/passwd", accepted=(200,)),
                url=lambda settings, address: f"http://{settings['TOKEN']}@{address}/passwd",
            )
        )
        env = {"TOKEN": "t"}
        with pool.run(
            "busybox:1.35", env=env, cmd=SERVES, exposed_ports=[8080], wait_for="ready"
        ) as resource:
            assert resource.url() == f"http://t@{resource.get_host_port(8080)}/passwd"

    def test_a_line_of_an_earlier_run_does_not_count(
        self, pool: dockertest.Pool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Some services are ready only when they have written a line to their log."""
        monkeypatch.setattr(services, "_registered", [])
        service = services.Service(
            images=("busybox",),
            port=8080,
            probe=services.http_probe("/passwd"),
            url=lambda _, at: at,
            log="is ready",
        )
        services.register(service)
        program = "httpd -p 8080 -h /etc; sleep 1; echo is ready; exec sleep 600"
        with pool.run(
            "busybox:1.35",
            cmd=["sh", "-c", program],
            exposed_ports=[8080],
            wait_for="ready",
            stop_timeout=0,
        ) as resource:
            resource.restart(timeout=0)
            resource.wait_ready()
            assert resource.logs().count("is ready") == 2
            resource.stop(timeout=0)
            resource.start()
            resource.wait_ready()
            assert resource.logs().count("is ready") == 3


def image_name(pool: dockertest.Pool, name: str) -> str:
    """Return the full name of an image."""
    return f"{pool.image_prefix}{name}"


@pytest.fixture
def long_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Let an attempt without time left take 5 s instead of 0.5 s.

    With `max_wait=0`, there is one attempt, so a wait cannot hide that a server is not ready yet.
    """
    monkeypatch.setattr("dockertest._probes._SHORTEST_SECONDS", 5.0)


class TestWaitFor:
    """`RunOptions.wait_for`."""

    def test_a_callable_is_called_until_it_succeeds(self, pool: dockertest.Pool) -> None:
        """It takes the resource, and `False` and exceptions mean "not yet"."""
        calls = []

        def ready(resource: dockertest.Resource) -> bool:
            calls.append(resource.name)
            if len(calls) == 1:
                raise OSError("not yet")
            return len(calls) > 2

        with pool.run("busybox:1.35", cmd=SLEEP, wait_for=ready) as resource:
            assert calls == [resource.name] * 3

    @pytest.mark.usefixtures("long_attempts")
    def test_ports_are_waited_for(self, pool: dockertest.Pool) -> None:
        """All published TCP ports are; a UDP port is ignored."""
        cmd = ["sh", "-c", "httpd -p 8080 -h /etc; sleep 0.5; exec httpd -f -p 8081 -h /etc"]
        with pool.run(
            "busybox:1.35", cmd=cmd, exposed_ports=[8080, 8081, "53/udp"], wait_for="port"
        ) as resource:
            for port in (8080, 8081):
                resource.wait_for_http(port, "/passwd", max_wait=0)
        with pytest.raises(dockertest.InvalidOptionError, match="publishes no TCP port"):
            pool.run("busybox:1.35", cmd=SLEEP, wait_for="port")

    @pytest.mark.differs("health checks")
    def test_health_is_waited_for(self, pool: dockertest.Pool) -> None:
        """A container without a health check is refused, and removed."""
        check = {"test": ["CMD", "true"], "interval": 0.2}
        with pool.run("busybox:1.35", cmd=SLEEP, healthcheck=check, wait_for="healthy") as resource:
            assert resource.health == "healthy"
        with pytest.raises(dockertest.InvalidOptionError, match="has no health check"):
            pool.run("busybox:1.35", cmd=SLEEP, wait_for="healthy")

    @pytest.mark.parametrize("wait_for", ["ready", "port", lambda resource: False])
    def test_a_failure_removes_the_container(self, name: str, wait_for: Any) -> None:
        """
        The error has the container's state and last lines.

        Nothing else of the pool is removed.
        """
        with dockertest.Pool(max_wait=0.5) as pool:
            other = pool.run("busybox:1.35", cmd=SLEEP)
            cmd = ["sh", "-c", "echo still starting; sleep 600"]
            with pytest.raises(dockertest.RetryTimeoutError, match="still starting") as caught:
                pool.run(
                    "busybox:1.35",
                    cmd=cmd,
                    name=name,
                    service="redis",
                    exposed_ports=[6379],
                    wait_for=wait_for,
                )
            assert caught.value.report is not None
            assert caught.value.report.name == name
            assert pool.container_by_name(name) is None
            assert other.status == "running"

    def test_an_exit_ends_the_wait(self, pool: dockertest.Pool, name: str) -> None:
        """The error has the exit code and the last lines."""
        began = time.monotonic()
        cmd = ["sh", "-c", "echo no space; exit 3"]
        with pytest.raises(dockertest.ContainerExitedError, match="no space") as caught:
            pool.run(
                "busybox:1.35", cmd=cmd, name=name, service="redis", exposed_ports=[6379], wait_for="ready"
            )
        assert caught.value.exit_code == 3
        assert time.monotonic() - began < 40  # `max_wait` is a minute
        assert pool.container_by_name(name) is None

    def test_a_kept_container_survives_a_failure(self, name: str) -> None:
        """With `keep`, it can be inspected."""
        with dockertest.Pool(max_wait=0.2, keep=True) as pool:
            with pytest.raises(dockertest.RetryTimeoutError):
                pool.run("busybox:1.35", cmd=SLEEP, name=name, wait_for=lambda _: False)
            assert pool.remove_container_by_name(name) or pool.container_by_name(name)
        with dockertest.Pool() as pool:
            pool.remove_container_by_name(name)

    def test_a_container_that_others_may_use_survives_a_failure(
        self, pool: dockertest.Pool, name: str
    ) -> None:
        """It was started with `reuse`, whose key does not cover `wait_for`."""
        options: dict[str, Any] = {"cmd": SLEEP, "name": name, "reuse": True}
        first = pool.run("busybox:1.35", **options)
        try:
            with dockertest.Pool(max_wait=0.2) as other:
                with pytest.raises(dockertest.RetryTimeoutError):
                    other.run("busybox:1.35", wait_for=lambda _: False, service="redis", **options)
                assert other.run("busybox:1.35", wait_for=lambda _: True, **options).id == first.id
            assert first.status == "running"
        finally:
            pool.purge(first)

    def test_an_interrupt_removes_the_container(self, pool: dockertest.Pool, name: str) -> None:
        """An exception that is not an error, such as Ctrl-C, propagates."""

        def interrupt(_resource: dockertest.Resource) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            pool.run("busybox:1.35", cmd=SLEEP, name=name, wait_for=interrupt)
        assert pool.container_by_name(name) is None

    def test_several_are_waited_for_at_the_same_time(self, pool: dockertest.Pool) -> None:
        """`run_all` returns when all are ready."""
        options = dockertest.RunOptions(repository="redis", tag="7.0", wait_for="ready")
        for resource in pool.run_all([options] * 3):
            with resource:
                assert redis_answers(resource)


def test_waiting_needs_no_more_requests_than_retry(tmp_path: Path, engine: Engine) -> None:
    """One at the start for the address, and one for each attempt that has failed."""
    with (
        FaultProxy(tmp_path / "count.sock").running() as proxy,
        dockertest.Pool(proxy.endpoint, reaper=False) as pool,
    ):
        resource = pool.run("busybox:1.35", cmd=SLEEP, service="redis", exposed_ports=[6379])
        new_requests(proxy)
        with pytest.raises(dockertest.RetryTimeoutError) as caught:
            resource.wait_ready(max_wait=0.3)
        requests = new_requests(proxy)
        assert requests[: caught.value.attempts + 1] == ["GET containers json"] * (caught.value.attempts + 1)
        assert requests[caught.value.attempts + 1 :] == ["GET containers json", "GET containers logs"]


def test_the_wait_follows_a_restart(pool: dockertest.Pool) -> None:
    """The container's port may change while it is waited for."""
    with pool.run("redis:7.0", wait_for="ready") as resource:
        thread = threading.Thread(target=resource.restart, args=(0,))
        thread.start()
        resource.wait_ready(max_wait=30)
        thread.join()
        resource.wait_ready(max_wait=30)
        assert redis_answers(resource)


def test_a_silent_service_does_not_delay_the_end(pool: dockertest.Pool) -> None:
    """The last attempt gets the time that is left, not the usual 5 s."""
    cmd = ["nc", "-ll", "-p", "6379", "-e", "sleep", "60"]
    with pool.run(
        "busybox:1.35", cmd=cmd, service="redis", exposed_ports=[6379], wait_for="port"
    ) as resource:
        with pytest.raises(dockertest.RetryTimeoutError, match="does not answer: timed out") as caught:
            resource.wait_ready(max_wait=1)
        assert caught.value.elapsed < 4.5


class TestWaitForHttp:
    """`wait_for_http`."""

    @pytest.mark.usefixtures("long_attempts")
    def test_the_answer_is_waited_for(self, pool: dockertest.Pool) -> None:
        """Any of the expected statuses counts, a redirect included."""
        with pool.run("busybox:1.35", cmd=SERVES, exposed_ports=[8080]) as resource:
            resource.wait_for_http(8080, "/passwd")
            resource.wait_for_http("8080/tcp", "/missing?a=b", status=404, max_wait=0)
            resource.wait_for_http(8080, "/missing", status=[200, 404], headers={"A": "b"}, max_wait=0)
            with pytest.raises(dockertest.RetryTimeoutError, match="answered GET /missing with status 404"):
                resource.wait_for_http(8080, "/missing", max_wait=0)

    def test_an_exit_ends_the_wait(self, pool: dockertest.Pool) -> None:
        """The exit code is in the error."""
        resource = pool.run("busybox:1.35", cmd=["sh", "-c", "sleep 0.3; exit 4"], exposed_ports=[80])
        with resource, pytest.raises(dockertest.ContainerExitedError, match="exit code 4"):
            resource.wait_for_http(80)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"path": "passwd"}, "path must begin with '/'"),
            ({"path": "/a b"}, "path must begin with '/'"),
            ({"path": "/\r\nHost: x"}, "path must begin with '/'"),
            ({"status": "200"}, "status must be a status"),
            ({"status": None}, "status must be a status"),
            ({"headers": {"A b": "c"}}, "headers: 'A b' is not the name"),
            ({"headers": {"Token": "hunter2\r\n"}}, "headers: the value of 'Token' cannot be sent"),
            ({"headers": ["hunter2"]}, "headers must be a mapping"),
            ({"tls": 1}, "tls must be"),
            ({"max_wait": -1}, "max_wait must be"),
            ({"port": "53/udp"}, "port: 53/udp is not a TCP port"),
        ],
    )
    def test_an_invalid_argument_is_refused(
        self, sleeping: dockertest.Resource, options: dict[str, Any], message: str
    ) -> None:
        """The error names it at once, and does not show the value of a header."""
        with pytest.raises(dockertest.InvalidOptionError, match=f"^{message}") as caught:
            sleeping.wait_for_http(**{"port": 80, **options})
        assert "hunter2" not in str(caught.value)

    def test_a_certificate_is_not_verified(self, pool: dockertest.Pool, tmp_path: Path) -> None:
        """A server with a certificate of its own is common in tests."""
        authority = trustme.CA()
        certificate = authority.issue_cert("elsewhere.test")
        certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
        server = (
            "import http.server, ssl\n"
            "context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
            "context.load_cert_chain('/both.pem')\n"
            "server = http.server.HTTPServer(('', 8443), http.server.SimpleHTTPRequestHandler)\n"
            "server.socket = context.wrap_socket(server.socket, server_side=True)\n"
            "server.serve_forever()\n"
        )
        with pool.run(
            "python:3.11",
            cmd=["python3", "-c", server],
            exposed_ports=[8443],
            files={"/both.pem": tmp_path / "both.pem"},
        ) as resource:
            resource.wait_for_http(8443, tls=True)


@pytest.fixture(scope="module")
def sleeping(pool: dockertest.Pool) -> Iterator[dockertest.Resource]:
    """A container in which nothing listens."""
    with pool.run("busybox:1.35", cmd=SLEEP, exposed_ports=[80, "53/udp"]) as resource:
        yield resource


class TestWaitForPort:
    """`wait_for_port`: the engine's proxy does not count."""

    def test_a_published_port_without_a_server_is_not_open(self, sleeping: dockertest.Resource) -> None:
        """Docker's proxy accepts a connection, and Podman refuses it."""
        refused = r"\(container port 80/tcp\) does not accept|Connection refused"
        with pytest.raises(dockertest.RetryTimeoutError, match=refused):
            sleeping.wait_for_port(80, max_wait=0.3)
        with pytest.raises(dockertest.InvalidOptionError, match="53/udp is not a TCP port"):
            sleeping.wait_for_port("53/udp")
        with pytest.raises(dockertest.PortNotPublishedError):
            sleeping.wait_for_port(81)

    def test_a_server_on_loopback_is_not_open(self, pool: dockertest.Pool) -> None:
        """It cannot be reached from outside."""
        cmd = ["httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/etc"]
        resource = pool.run("busybox:1.35", cmd=cmd, exposed_ports=[8080])
        with resource, pytest.raises(dockertest.RetryTimeoutError):
            resource.wait_for_port(8080, max_wait=0.5)

    @pytest.mark.usefixtures("long_attempts")
    def test_an_open_port_is_noticed(self, pool: dockertest.Pool) -> None:
        """The container's own view is asked once, when a connection stays open."""
        with pool.run("busybox:1.35", cmd=SERVES, exposed_ports=[8080]) as resource:
            resource.wait_for_port(8080)
            resource.wait_for_http(8080, "/passwd", max_wait=0)

    def test_an_image_without_cat_is_judged_by_the_connection(self, pool: dockertest.Pool) -> None:
        """One that stays open counts; one that the proxy closes does not."""
        cmd = ["sh", "-c", "rm /bin/cat; sleep 0.3; exec httpd -f -p 8080 -h /etc"]
        with pool.run("busybox:1.35", cmd=cmd, exposed_ports=[8080, 8081]) as resource:
            resource.wait_for_port(8080)
            with pytest.raises(dockertest.RetryTimeoutError):
                resource.wait_for_port(8081, max_wait=0.3)


class TestWaitForLog:
    """`wait_for_log(fail_on=…)`, and the hint about literal text."""

    def test_a_line_that_means_failure_ends_the_wait(self, pool: dockertest.Pool) -> None:
        """
        The error has the line and the container's state.

        This also holds if the line matches both patterns.
        """
        cmd = ["sh", "-c", "echo starting; echo 'FATAL: not ready'; sleep 600"]
        with pool.run("busybox:1.35", cmd=cmd) as resource:
            assert resource.wait_for_log("starting", fail_on="FATAL")
            for fail_on in ("^FATAL", re.compile("fatal", re.IGNORECASE)):
                began = time.monotonic()
                with pytest.raises(dockertest.LogFailureError, match="FATAL: not ready") as caught:
                    resource.wait_for_log("ready", fail_on=fail_on)
                assert time.monotonic() - began < 40  # `max_wait` is a minute
                assert caught.value.line == "FATAL: not ready"
                assert caught.value.report is not None
                assert caught.value.report.status == "running"
            for wrong in ("(", b"x", 5):
                with pytest.raises(dockertest.InvalidOptionError, match=r"^invalid fail_on"):
                    resource.wait_for_log("ready", fail_on=cast("Any", wrong))

    def test_a_failure_before_an_exit_is_reported(self, pool: dockertest.Pool) -> None:
        """The line explains more than the exit code."""
        resource = pool.run("busybox:1.35", cmd=["sh", "-c", "echo FATAL; exit 1"])
        with resource, pytest.raises(dockertest.LogFailureError):
            resource.wait_for_log("ready", fail_on="FATAL")

    def test_literal_text_in_the_log_is_pointed_out(self, pool: dockertest.Pool) -> None:
        """The pattern is a regular expression, which its own text does not match."""
        with pool.run("busybox:1.35", cmd=["sh", "-c", "echo 'ready (1)'; sleep 600"]) as resource:
            resource.wait_for_log("ready", max_wait=30)
            # With `max_wait=0`, the whole log so far is searched, however long that takes.
            with pytest.raises(dockertest.RetryTimeoutError) as caught:
                resource.wait_for_log("ready (1)", max_wait=0)
            assert "re.escape()" in caught.value.hint
            with pytest.raises(dockertest.RetryTimeoutError) as caught:
                resource.wait_for_log("never", max_wait=0)
            assert caught.value.hint == ""
