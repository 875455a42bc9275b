"""Known services without an engine: their probes, settings and URLs."""

import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dockertest import InvalidOptionError, _probes, services
from dockertest._probes import Probe
from dockertest._validation import parse_content

ADDRESS = "127.0.0.1:1"


BITNAMI = {"BITNAMI_APP_NAME": "x"}  # their images have this variable


@pytest.mark.parametrize(
    ("image", "settings", "url"),
    [
        ("postgres:15", {}, f"postgresql://postgres@{ADDRESS}/postgres"),
        (
            "corp:5000/a/postgres",
            {"POSTGRES_USER": "u", "POSTGRES_PASSWORD": "p@/"},
            f"postgresql://u:p%40%2F@{ADDRESS}/u",
        ),
        (
            "mysql:8",
            {"MYSQL_ROOT_PASSWORD": "r", "MYSQL_USER": "u", "MYSQL_PASSWORD": "p", "MYSQL_DATABASE": "d"},
            f"mysql://u:p@{ADDRESS}/d",
        ),
        ("mariadb", {"MARIADB_ROOT_PASSWORD": "r"}, f"mysql://root:r@{ADDRESS}/"),
        ("redis", {"requirepass": "p"}, f"redis://:p@{ADDRESS}/0"),
        ("valkey/valkey", {"VALKEY_EXTRA_FLAGS": "-d --requirepass p"}, f"redis://:p@{ADDRESS}/0"),
        ("redis/redis-stack", {"REDIS_ARGS": "--save 60 1 --requirepass=p"}, f"redis://:p@{ADDRESS}/0"),
        ("mongo:7", {"replSet": "rs0"}, f"mongodb://{ADDRESS}/?directConnection=true"),
        (
            "mongo:7",
            {"replSet": "rs0", "MONGO_INITDB_ROOT_USERNAME": "u", "MONGO_INITDB_ROOT_PASSWORD": "p"},
            f"mongodb://u:p@{ADDRESS}/?authSource=admin&directConnection=true",
        ),
        ("rabbitmq", {}, f"amqp://guest:guest@{ADDRESS}"),
        ("rabbitmq:3", {"RABBITMQ_DEFAULT_VHOST": "/x"}, f"amqp://guest:guest@{ADDRESS}/%2Fx"),
        ("nats", {"user": "u", "pass": "p"}, f"nats://u:p@{ADDRESS}"),
        ("nats", {"auth": "t/1"}, f"nats://t%2F1@{ADDRESS}"),
        (
            "mongo:7",
            {"MONGO_INITDB_ROOT_USERNAME": "u", "MONGO_INITDB_ROOT_PASSWORD": "p"},
            f"mongodb://u:p@{ADDRESS}/?authSource=admin",
        ),
        (
            "mcr.microsoft.com/mssql/server:2022-latest",
            {"MSSQL_SA_PASSWORD": "p"},
            f"mssql://sa:p@{ADDRESS}/master",
        ),
        (
            "gvenzl/oracle-free",
            {"ORACLE_PASSWORD": "p"},
            f"oracle://system:p@{ADDRESS}/?service_name=FREEPDB1",
        ),
        (
            "gvenzl/oracle-free",
            {"ORACLE_PASSWORD": "p", "APP_USER": "u", "APP_USER_PASSWORD": "q"},
            f"oracle://u:q@{ADDRESS}/?service_name=FREEPDB1",
        ),
        (
            "oracle.com/database/free",
            {"ORACLE_PWD": "p"},
            f"oracle://system:p@{ADDRESS}/?service_name=FREEPDB1",
        ),
        ("neo4j:5", {"NEO4J_AUTH": "neo4j/p"}, f"bolt://neo4j:p@{ADDRESS}"),
        ("azure-storage/azurite", {}, f"http://{ADDRESS}/devstoreaccount1"),
        ("pgvector/pgvector:pg17", {"POSTGRES_PASSWORD": "p"}, f"postgresql://postgres:p@{ADDRESS}/postgres"),
        ("elasticsearch:8.0.0", {"xpack.security.enabled": "false"}, f"http://{ADDRESS}"),
        ("minio/minio", {}, f"http://minioadmin:minioadmin@{ADDRESS}"),
        (
            "cockroachdb/cockroach",
            {"COCKROACH_DATABASE": "d", "COCKROACH_USER": "u", "COCKROACH_PASSWORD": "p"},
            f"postgresql://u:p@{ADDRESS}/d?sslmode=require",
        ),
        ("cockroach", {"insecure": ""}, f"postgresql://root@{ADDRESS}/defaultdb?sslmode=disable"),
        ("opensearch:2.11.1", {}, f"https://admin:admin@{ADDRESS}"),
        ("opensearch:2.11.1", {"plugins.security.disabled": "true"}, f"http://{ADDRESS}"),
        (
            "keycloak/keycloak:26.1",
            {"KC_BOOTSTRAP_ADMIN_PASSWORD": "p", "http-relative-path": "/auth"},
            f"http://temp-admin:p@{ADDRESS}/auth",
        ),
        (
            "kartoza/postgis",
            {"POSTGRES_PASS": "p", "POSTGRES_DBNAME": "d"},
            f"postgresql://postgres:p@{ADDRESS}/d",
        ),
        ("dragonflydb/dragonfly", {"DFLY_requirepass": "p"}, f"redis://:p@{ADDRESS}/0"),
        ("redis", {"REDIS_PASSWORD": "p"}, f"redis://{ADDRESS}/0"),
        ("bitnami/redis", {**BITNAMI, "REDIS_PASSWORD": "p"}, f"redis://:p@{ADDRESS}/0"),
        ("bitnami/valkey", {**BITNAMI, "VALKEY_PASSWORD": "p"}, f"redis://:p@{ADDRESS}/0"),
        ("bitnami/rabbitmq", BITNAMI, f"amqp://user:bitnami@{ADDRESS}"),
        (
            "bitnami/clickhouse",
            {**BITNAMI, "CLICKHOUSE_ADMIN_PASSWORD": "p"},
            f"clickhouse://default:p@{ADDRESS}/default",
        ),
        ("bitnami/neo4j", {**BITNAMI, "NEO4J_PASSWORD": "p"}, f"bolt://neo4j:p@{ADDRESS}"),
        ("bitnami/keycloak", {**BITNAMI, "KEYCLOAK_ADMIN_PASSWORD": "p"}, f"http://user:p@{ADDRESS}"),
        ("eclipse-mosquitto:2", {}, f"mqtt://{ADDRESS}"),
        ("memcached", {}, ADDRESS),
    ],
)
def test_a_known_service_has_a_url(image: str, settings: dict[str, str], url: str) -> None:
    """
    It is derived from the variables and flags of the official images.

    Its parts are quoted.
    """
    service = services.find(image, settings)
    assert service is not None
    assert service.url(settings, ADDRESS) == url


@pytest.mark.parametrize(
    ("image", "variable"),
    [
        ("mysql", "MYSQL_RANDOM_ROOT_PASSWORD"),
        ("mariadb", "MARIADB_RANDOM_ROOT_PASSWORD"),
        ("mariadb", "MARIADB_ROOT_PASSWORD_HASH"),
        ("gvenzl/oracle-free", "ORACLE_RANDOM_PASSWORD"),
    ],
)
def test_a_password_that_the_image_makes_up_is_not_known(image: str, variable: str) -> None:
    """A URL without it would only lead to a rejected login."""
    service = services.find(image, {})
    assert service is not None
    with pytest.raises(InvalidOptionError, match=f"the password is not known, because of {variable}"):
        service.url({variable: "yes"}, ADDRESS)
    user = {"MYSQL_USER": "u", "MYSQL_PASSWORD": "p", "APP_USER": "u", "APP_USER_PASSWORD": "p"}
    assert "//u:p@" in service.url({variable: "yes", **user}, ADDRESS)


@pytest.mark.parametrize("image", ["busybox", "postgres-exporter", "elasticsearch:8.0.0", "postgres/tools"])
def test_an_unknown_service_is_not_guessed(image: str) -> None:
    """Neither a similar name nor the right name with other settings counts."""
    assert services.find(image, {}) is None


def test_settings_come_from_the_environment_and_the_command() -> None:
    """Pairs of a flag and a value count, and malformed variables do not."""
    config = {
        "Env": ["A=b=c", "odd"],
        "Entrypoint": ["start"],
        "Cmd": ["redis-server", "--requirepass", "x", "-d"],
    }
    assert dict(services.settings({"Config": config})) == {"A": "b=c", "requirepass": "x"}
    assert dict(services.settings({"Config": {"Env": None, "Cmd": None}})) == {}


def test_a_flag_may_contain_its_value() -> None:
    """
    `--requirepass=x` is the same as `--requirepass x`.

    The `repr` shows neither.
    """
    found = services.settings({"Config": {"Env": ["TOKEN=hunter2"], "Cmd": ["--requirepass=hunter2", "-d"]}})
    assert found["requirepass"] == found["TOKEN"] == "hunter2"
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["redis-server", "--requirepass hunter 2"], {"requirepass": "hunter 2"}),
        (["redis-server", "--requirepass", "hunter 2"], {"requirepass": "hunter 2"}),
        (["-user", "bob", "-pass=a=b", "-d", "x"], {"user": "bob", "pass": "a=b"}),
        (["--", "--empty=", "--last"], {"empty": "", "last": ""}),
    ],
)
def test_a_flag_has_several_forms(command: "list[str]", expected: "dict[str, str]") -> None:
    """Redis accepts a flag and its value in one word, and NATS one dash."""
    assert dict(services.settings({"Config": {"Env": [], "Cmd": command}})) == expected


def secret_settings(files: Mapping[str, Any] | None, **env: str) -> services.Settings:
    """Return the settings of a container with these variables and files."""
    attrs = {"Config": {"Env": [f"{name}={value}" for name, value in env.items()]}}
    return services.settings(attrs, files)


class TestSecretFiles:
    """A value in a file that a variable names, such as `POSTGRES_PASSWORD_FILE`."""

    def test_the_value_is_read_as_the_image_reads_it(self, tmp_path: Path) -> None:
        """Line ends at the end do not count; the file may be in a folder that was copied."""
        (tmp_path / "password").write_text(" s3cr3t \n\n")
        for files in (
            {"/run/secrets": tmp_path},
            {"/run/secrets/password": tmp_path / "password"},
            {"/run/secrets/password": parse_content("x", " s3cr3t \n")},
        ):
            found = secret_settings(files, POSTGRES_PASSWORD_FILE="/run//secrets/password")
            assert found["POSTGRES_PASSWORD"] == " s3cr3t "
            service = services.named("postgres")
            assert services.url_of(service, found, "h:1") == "postgresql://postgres:%20s3cr3t%20@h:1/postgres"

    @pytest.mark.parametrize("files", [{}, {"/run/secrets/other": b"x"}, {"/run/secrets": Path("/no/such")}])
    def test_a_missing_file_is_an_error_of_the_url_alone(self, files: dict[str, Any]) -> None:
        """
        The error names the variable and the remedy.

        A probe does not need the password.
        """
        found = secret_settings(files, POSTGRES_PASSWORD_FILE="/run/secrets/password")
        with pytest.raises(InvalidOptionError, match=r"POSTGRES_PASSWORD_FILE.*files"):
            services.url_of(services.named("postgres"), found, "h:1")
        lenient = secret_settings(None, POSTGRES_PASSWORD_FILE="/run/secrets/password")
        assert lenient.get("POSTGRES_PASSWORD") is None

    def test_a_file_that_the_image_itself_names_need_not_exist(self) -> None:
        """MinIO's does, relative to /run/secrets, and has a default for the value."""
        names = {"MINIO_ROOT_USER_FILE": "access_key", "MINIO_ROOT_PASSWORD_FILE": "secret_key"}
        minio = services.named("minio")
        assert (
            services.url_of(minio, secret_settings({}, **names), "h:1") == "http://minioadmin:minioadmin@h:1"
        )
        files = {"/run/secrets/access_key": b"me", "/run/secrets/secret_key": b"p"}
        assert services.url_of(minio, secret_settings(files, **names), "h:1") == "http://me:p@h:1"


class TestUrl:
    """The URL with another driver or database, and its parts."""

    SETTINGS: Mapping[str, str] = {"POSTGRES_USER": "a:b", "POSTGRES_PASSWORD": "p@/ %"}

    def test_a_driver_selects_the_form_of_sqlalchemy(self) -> None:
        """User and password stay encoded."""
        url = services.url_of(services.named("postgres"), self.SETTINGS, "[::1]:5", driver="psycopg")
        assert url == "postgresql+psycopg://a%3Ab:p%40%2F%20%25@[::1]:5/a%3Ab"
        url = services.url_of(services.named("mariadb"), {}, "h:1", driver="pymysql", database="x")
        assert url == "mysql+pymysql://root@h:1/x"

    def test_a_database_replaces_the_configured_one(self) -> None:
        """What follows the path stays."""
        cockroach = services.named("cockroach")
        url = services.url_of(cockroach, {}, "h:1", database="a b/c?d")
        assert url == "postgresql://root@h:1/a%20b%2Fc%3Fd?sslmode=require"
        mongo = {"MONGO_INITDB_ROOT_USERNAME": "u", "MONGO_INITDB_ROOT_PASSWORD": "p"}
        url = services.url_of(services.named("mongo"), mongo, "h:1", database="shop")
        assert url == "mongodb://u:p@h:1/shop?authSource=admin"
        assert services.url_of(services.named("redis"), {}, "h:1", database="3") == "redis://h:1/3"

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("redis", {"driver": "redis"}, "driver: redis: SQLAlchemy does not support it"),
            ("postgres", {"driver": "a b"}, "driver: postgres: 'a b' is not the name of a driver"),
            ("postgres", {"driver": 5}, "driver must be a string"),
            ("memcached", {"database": "x"}, "database: memcached has no databases"),
            ("postgres", {"database": 5}, "database must be a string"),
        ],
    )
    def test_an_option_that_the_service_does_not_know_is_refused(
        self, name: str, options: dict[str, Any], message: str
    ) -> None:
        """The message names the option and the service."""
        with pytest.raises(InvalidOptionError, match=f"^{message}"):
            services.url_of(services.named(name), {}, "h:1", **options)

    def test_a_connection_has_the_parts_without_the_encoding(self) -> None:
        """Its `repr` does not show the password."""
        connection = services.connection_of(services.named("postgres"), self.SETTINGS, ("::1", 5))
        assert connection == services.Connection("::1", 5, "a:b", "p@/ %", "a:b")
        assert "p@" not in repr(connection)
        connection = services.connection_of(services.named("memcached"), {}, ("h", 1))
        assert connection == services.Connection("h", 1, "", "", "")
        connection = services.connection_of(services.named("redis"), {"requirepass": "x"}, ("h", 1))
        assert (connection.user, connection.password, connection.database) == ("", "x", "0")


class TestRegister:
    """Services of users' own."""

    @pytest.fixture(autouse=True)
    def _registered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Forget what the test registers."""
        monkeypatch.setattr(services, "_registered", [])

    @staticmethod
    def service(*images: str, port: int = 9200) -> services.Service:
        """Return a service that is always ready."""
        return services.Service(
            images=images,
            port=port,
            probe=lambda _address, _settings: True,
            url=lambda settings, address: f"http://{address}/?key={settings.get('API_KEY', '')}",
        )

    def test_a_registered_service_is_found_by_its_image(self) -> None:
        """Its name may consist of several parts, and the newest of two comes first."""
        first, second = self.service("search", "corp/db"), self.service("corp/db", "postgres")
        services.register(first)
        services.register(second)
        services.register(first)
        assert services.known()[:2] == (second, first)
        assert services.find("registry.corp:5000/search:1", {}) is first
        assert services.find("registry.corp/corp/db@sha256:" + "0" * 64, {}) is second
        assert services.find("postgres:15", {}) is second
        assert services.find("db", {}) is None
        assert services.named("search") is first
        assert services.url_of(first, {"API_KEY": "k"}, "h:1") == "http://h:1/?key=k"

    def test_fields_are_checked(self) -> None:
        """The port has its canonical form, and errors name the field."""
        assert self.service("x", port=80).port == "80/tcp"
        always: Any = lambda *_: True  # noqa: E731 - a stand-in for both callables
        for changes, message in (
            ({"images": "postgres"}, "images must be a sequence"),
            ({"images": ()}, "images: a service needs"),
            ({"port": "http"}, "port"),
            ({"probe": None}, "probe must be callable"),
            ({"url": "redis://"}, "url must be callable"),
        ):
            fields: dict[str, Any] = {"images": ("x",), "port": 1, "probe": always, "url": always, **changes}
            with pytest.raises(InvalidOptionError, match=f"^{message}"):
                services.Service(**fields)
        with pytest.raises(InvalidOptionError, match="expected a Service"):
            services.register(always)

    def test_an_unknown_name_suggests_similar_ones(self) -> None:
        """Without a similar name, all are listed."""
        with pytest.raises(
            InvalidOptionError, match=r"'postgress' is not a known service; did you mean 'postgres'"
        ):
            services.named("postgress")
        with pytest.raises(InvalidOptionError, match=r"use one of: .*cassandra, .*, postgres, .*redis"):
            services.named("xyz")


TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 020011AC:1F92 010011AC:C350 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
   3: 020011AC:1F93 010011AC:C350 06 00000000:00000000 00:00000000 00000000     0        0 3 1 0 100 0 0 10 0
  sl  local_address                         remote_address                        st tx_queue rx_queue
   0: 00000000000000000000000000000000:1F95 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000001000000:1F96 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 0000000000000000FFFF00000100007F:1F97 00000000000000000000000000000000:0000 0A 00000000:00000000
"""


@pytest.mark.skipif("sys.byteorder != 'little'")
def test_a_port_is_open_if_something_listens_beyond_loopback() -> None:
    """
    An accepted connection counts too, and a closed one does not.

    Some servers accept only one connection.
    """
    assert [port for port in range(0x1F90, 0x1F99) if _probes.is_listening(TABLE, port)] == [
        0x1F90,
        0x1F92,
        0x1F95,
    ]
    assert not _probes.is_listening("", 80)


@contextmanager
def server(answer: bytes) -> Iterator[tuple[str, int]]:
    """
    Answer one connection as a real server does, and close it.

    The answer is documented or recorded.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(0.2)
                with suppress(TimeoutError):  # Some servers send the first message.
                    received.append(connection.recv(4096))
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()
        thread.join()


received: list[bytes] = []  # by the servers of this module


def document(ok: float, fields: bytes = b"") -> bytes:
    """Return MongoDB's answer to a command."""
    body = fields + b"\x01ok\0" + struct.pack("<d", ok)
    message = struct.pack("<iiiI", 7, 1, 2013, 0) + b"\0" + struct.pack("<i", len(body) + 5) + body + b"\0"
    return struct.pack("<i", len(message) + 4) + message


STARTING = b"E\0\0\0\x50SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
NO_ROLE = b"E\0\0\0\x50SFATAL\0VFATAL\0C28000\0Mrole does not exist\0\0"
ANSWERS: list[tuple[Any, bytes, bool]] = [
    (_probes.postgres, b"R\0\0\0\x08\0\0\0\0", True),
    (_probes.postgres, STARTING, False),
    (_probes.postgres, NO_ROLE, True),
    (_probes.mysql, b"\x4a\0\0\0\x0a8.0.36\0", True),
    (_probes.mysql, b"\x17\0\0\0\xff\x10\x04Too many connections", False),
    (_probes.redis, b"+PONG\r\n", True),
    (_probes.redis, b"-NOAUTH Authentication required.\r\n", True),
    (_probes.redis, b"-LOADING Redis is loading the dataset in memory\r\n", False),
    (_probes.amqp, b"\x01\0\0\0\0\x01\xf4\0\x0a\0\x0a\0\x09", True),
    (_probes.amqp, b"AMQP\0\0\x09\x01....", False),
    (_probes.memcached, b"VERSION 1.6.18\r\n", True),
    (_probes.nats, b'INFO {"server_id":"x"} \r\n', True),
    (_probes.zookeeper, b"Zookeeper version: 3.8.0\nMode: standalone\n", True),
    (_probes.zookeeper, b"This ZooKeeper instance is not currently serving requests\n", False),
    (_probes.mqtt, b"\x20\x02\0\0", True),
    (_probes.mqtt, b"\x20\x02\0\x05", True),
    (_probes.mqtt, b"\x20\x02\0\x03", False),
    (_probes.mongo, document(1.0) + document(1.0), True),
    (_probes.mongo, document(1.0) + document(0.0), True),  # the second command needs a login
    (_probes.mongo, document(1.0) + document(1.0, b"\x020\0\x07\0\0\0--fork\0"), False),  # during set-up
    (_probes.mongo, document(0.0) + document(0.0), False),
    (_probes.cassandra, b"\x84\0\0\0\x06\0\0\0\0", True),
    (_probes.cassandra, b"\x84\0\0\0\0\0\0\0\0", False),
    (_probes.http_probe(), b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", True),
    (_probes.http_probe(), b"HTTP/1.1 503 Service Unavailable\r\n\r\n", False),
    (_probes.http_probe("/health", accepted=(200,)), b"HTTP/1.1 404 Not Found\r\n\r\n", False),
]


@pytest.mark.parametrize(("probe", "answer", "is_ready"), ANSWERS)
def test_a_probe_detects_whether_the_server_is_ready(probe: Probe, answer: bytes, is_ready: bool) -> None:
    """
    A server that asks for a password is ready.

    One that reports that it is starting is not.
    """
    with server(answer) as address:
        assert probe(address, {}) is is_ready


@pytest.mark.parametrize(
    ("settings", "path"),
    [({}, b"/realms/master"), ({"KC_HTTP_RELATIVE_PATH": "/auth/"}, b"/auth/realms/master")],
)
def test_keycloak_is_asked_below_its_path(settings: dict[str, str], path: bytes) -> None:
    """A path that is configured comes before all others."""
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as address:
        assert services.named("keycloak").probe(address, settings)
    assert received[-1].startswith(b"GET " + path + b" ")


@pytest.mark.parametrize("service", services.SERVICES, ids=lambda service: str(service.images[0]))
def test_a_closed_connection_is_not_an_answer(service: services.Service) -> None:
    """
    The engine's proxy accepts and closes connections at first.

    It does so until something listens in the container.
    """
    with server(b"") as address:
        try:
            is_ready = service.probe(address, {})
        except Exception:  # noqa: BLE001 - any error means "not yet"
            is_ready = False
    assert not is_ready
