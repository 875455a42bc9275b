"""
Known services: image names, port, readiness probe and connection URL.

`Resource.wait_ready`, `url` and `connection` look services up here. Add your own before you use them:

    from dockertest import services

    services.register(
        services.Service(
            images=("corp-search",),
            port="9200/tcp",
            probe=services.http_probe("/health"),
            url=lambda settings, address: f"http://{address}/?key={settings['API_KEY']}",
        )
    )
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from dockertest import _image_name, _probes, _validation
from dockertest._engine.inspection import Inspection
from dockertest._options import File
from dockertest._probes import Probe
from dockertest._probes import http_probe as http_probe
from dockertest._public import public
from dockertest._secret import SecretStr
from dockertest._validation import Content, set_fields
from dockertest.errors import DockertestError, InvalidOptionError

_DRIVER = re.compile(r"\w+")
# Programs in Go accept one dash. Redis accepts a flag and its value in one word.
_FLAG = re.compile(r"(?:--|-(?=\w\w))([^\s=]+)(=|\s+|)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    A known service.

    Attributes:
        images: The names of its images, without registry and tag: `"postgres"` matches `registry.corp/base/postgres:15`,
            and `"corp/search"` matches `registry.corp/corp/search`. Each is also a value of `RunOptions.service`.
        port: The container's port that it listens on.
        probe: Called with `(host, port)` and the container's settings. Returns whether the service can be used; an
            exception also means that it cannot. It must use a timeout of its own.
        url: Called with the container's settings and `"host:port"`; returns the URL to connect with, password included.
        dialect: SQLAlchemy's name of the service, which `Resource.url(driver=…)` needs; empty for none.
        has_databases: Whether the path of the URL names a database, which `Resource.url(database=…)` can replace.
        log: A regular expression for a log line that comes before the service can be used, for a protocol that does not show
            the end of the set-up without a login; empty if the probe is enough.
        only_with: A setting, as `K=V`, that a container must have to be recognized by its image; empty for none.
        verified: Whether the probe has been run against the real server.

    The settings are a mapping of the environment, that of the image included, and of the `--name value` and `-name value`
    pairs of the command. A value that a variable `…_FILE` names is read from `RunOptions.files`, or from the container.
    """

    images: Sequence[str]
    port: str | int
    probe: Probe
    url: Callable[[Mapping[str, str], str], str]
    dialect: str = ""
    has_databases: bool = False
    log: str = ""
    only_with: str = ""
    verified: bool = True

    def __post_init__(self) -> None:
        images = _validation.parse_strings("images", self.images)
        if not images:
            raise InvalidOptionError("images: a service needs at least one name of an image")
        for name in ("probe", "url"):
            if not callable(getattr(self, name)):
                raise InvalidOptionError(
                    f"{name} must be callable: got {_validation.format_value(getattr(self, name))}"
                )
        set_fields(self, images=images, port=_validation.parse_port("port", self.port))


@public
@dataclass(frozen=True, slots=True)
class Connection:
    """
    What is needed to connect to a service. Its `repr` does not show the password.

    Attributes:
        host: The host or address, as seen from this process.
        port: The port, as seen from this process.
        user: The name of the user; empty if the service needs none.
        password: The password; empty if the service needs none.
        database: The name or number of the database; empty if the service has none, or if none is configured.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str


class Settings(Mapping[str, str]):
    """
    A container's environment and the flags of its command.

    The `repr` hides the values.
    """

    def __init__(
        self,
        values: Mapping[str, str],
        files: Mapping[str, Content | Path | File] | None,
        read: Callable[[str], bytes] | None = None,
    ) -> None:
        """
        Read nothing yet.

        Args:
            values: The settings.
            files: What was put into the container; `None` if a value in a file is not needed, and counts as missing.
            read: Returns the content of another file in the container.
        """
        self._values = values
        self._files = files
        self._read = read

    def __getitem__(self, name: str) -> str:
        """
        Return a value, also from the file that the setting *name*`_FILE` names.

        Raises:
            KeyError: It is not set.
            InvalidOptionError: The file is not in the container.
        """
        path = self._values.get(f"{name}_FILE")
        if path and self._files is not None and not self._values.get(name):
            # MinIO's image itself names files below /run/secrets, which normally do not exist.
            is_optional = name.startswith("MINIO_") and not path.startswith("/")
            if is_optional:
                path = f"/run/secrets/{path}"
            try:
                return read_secret(f"{name}_FILE", path, self._files, self._read)
            except InvalidOptionError:
                if not is_optional:
                    raise
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Settings {', '.join(self._values)}>"


def read_secret(
    name: str,
    path: str,
    files: Mapping[str, Content | Path | File],
    read: Callable[[str], bytes] | None = None,
) -> str:
    """
    Return the content of a file that a variable names.

    Line ends at the end are removed, as by the image.

    Args:
        name: The variable, such as `"POSTGRES_PASSWORD_FILE"`.
        path: Its value, a path in the container.
        files: What was put into the container.
        read: Returns the content of another file in the container.

    Raises:
        InvalidOptionError: The file is missing or cannot be read.
    """
    target = str(posixpath.normpath(path))
    for placed, content in files.items():
        if not _validation.is_below(target, placed):
            continue
        try:
            if isinstance(content, Path):
                data = (content / posixpath.relpath(target, placed)).resolve().read_bytes()
            else:
                data = _validation.parse_content(
                    "files", content.data if isinstance(content, File) else content
                )
            return SecretStr(data.decode().rstrip("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidOptionError(f"env: cannot read {name} from files[{placed!r}]: {error}") from None
    reason = "is not in files"
    if read:
        try:
            return SecretStr(read(target).decode().rstrip("\n"))
        except (DockertestError, UnicodeDecodeError) as error:
            reason = f"cannot be read: {error}"
    raise InvalidOptionError(
        f"env: {name} is {target!r}, which {reason}",
        hint=f"put the file there with files={{{target!r}: …}}, or set {name.removesuffix('_FILE')} instead",
    )


def settings(
    attrs: Mapping[str, Any],
    files: Mapping[str, Content | Path | File] | None = None,
    read: Callable[[str], bytes] | None = None,
) -> Settings:
    """
    Return a container's environment and the flags of its command.

    The environment includes that of the image. The flags are `--name value` and `-name value` pairs.

    Args:
        attrs: The container as the engine describes it: `Resource.container.attrs`.
        files: What was put into the container; without it, values in files count as missing.
        read: Returns the content of another file in the container.
    """
    inspection = Inspection.parse(attrs)
    flags = _flags([*inspection.entrypoint, *inspection.command])
    variables = [assignment.partition("=") for assignment in inspection.env if "=" in assignment]
    values = [*flags.items(), *((name, value) for name, _, value in variables)]
    return Settings({name: SecretStr(value) for name, value in values}, files, read)


def _flags(words: Sequence[str]) -> dict[str, str]:
    """
    Return the values of the flags in a command.

    They are in the same word or in the next one.
    """
    flags = {}
    for word, following in pairwise((*words, "")):
        if match := _FLAG.fullmatch(word):
            name, separator, value = match.groups()
            if separator:
                flags[name] = value
            else:
                flags[name] = following
    return flags


def register(service: Service) -> None:
    """
    Add a service for all pools of this process.

    It takes precedence over earlier services that have an image name in common with it.

    Args:
        service: The service. Registering an equal one again does nothing.

    Raises:
        InvalidOptionError: It is not a `Service`.
    """
    if not isinstance(service, Service):
        raise InvalidOptionError(f"expected a Service: got {_validation.format_value(service)}")
    if service not in _registered:
        _registered.insert(0, service)


def known() -> tuple[Service, ...]:
    """Return all known services, those that were registered last first."""
    return (*_registered, *SERVICES)


def find(image: str, settings: Mapping[str, str]) -> Service | None:
    """
    Return the service that an image contains, `None` if it is unknown.

    The service is recognized by the end of the image's name.

    Args:
        image: The image's name.
        settings: The container's settings, from `settings`.
    """
    repository = f"/{_image_name.parse_image_name('image', image).repository}"
    for service in known():
        name, _, value = service.only_with.partition("=")
        is_named = any(repository.endswith(f"/{ending}") for ending in service.images)
        if is_named and settings.get(name, "") == value:
            return service
    return None


def named(name: str) -> Service:
    """
    Return the service that `RunOptions.service` names.

    Raises:
        InvalidOptionError: No known service has that name.
    """
    for service in known():
        if name in service.images:
            return service
    names = sorted({image for service in known() for image in service.images})
    close = difflib.get_close_matches(name, names, n=3)
    raise InvalidOptionError(
        f"service: {name!r} is not a known service",
        hint=f"did you mean {' or '.join(map(repr, close))}?" if close else f"use one of: {', '.join(names)}",
    )


def url_of(
    service: Service,
    settings: Mapping[str, str],
    address: str,
    *,
    driver: str = "",
    database: str | None = None,
) -> str:
    """
    Return the URL to connect to a service with.

    Args:
        service: The service.
        settings: The container's settings.
        address: `"host:port"`.
        driver: For SQLAlchemy's form of the URL, its name of the driver.
        database: The database to connect to instead of the configured one.

    Raises:
        InvalidOptionError: The service has no SQLAlchemy dialect or no databases, or a value is invalid.
    """
    if driver and not (service.dialect and _DRIVER.fullmatch(_validation.parse_str("driver", driver))):
        problem = (
            f"{driver!r} is not the name of a driver" if service.dialect else "SQLAlchemy does not support it"
        )
        raise InvalidOptionError(f"driver: {service.images[0]}: {problem}")
    if database is not None and not service.has_databases:
        raise InvalidOptionError(
            f"database: {service.images[0]} has no databases in its URL", hint="leave it out"
        )
    path = None if database is None else "/" + quote(_validation.parse_str("database", database), safe="")
    url = SecretStr(service.url(settings, address))
    parts = urlsplit(url)
    if driver:
        parts = parts._replace(scheme=f"{service.dialect}+{driver}")
    if path is not None:
        parts = parts._replace(path=path)
    return urlunsplit(parts) if driver or path else str(url)


def connection_of(service: Service, settings: Mapping[str, str], address: tuple[str, int]) -> Connection:
    """Return the parts of the URL of a service that listens at *address*."""
    url = service.url(settings, "host:1")
    parts = urlsplit(url if "://" in url else f"//{url}")
    return Connection(
        *address,
        user=unquote(parts.username or ""),
        password=SecretStr(unquote(parts.password or "")),
        database=unquote(parts.path[1:]) if service.has_databases else "",
    )


def _url(scheme: str, address: str, user: str = "", password: str = "", path: str = "") -> str:
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"{scheme}://{login}{'@' if login else ''}{address}{path}"


def _postgres(settings: Mapping[str, str], address: str) -> str:
    user = settings.get("POSTGRES_USER") or "postgres"
    # Kartoza's images of PostGIS have other names for two of them.
    database = settings.get("POSTGRES_DB") or settings.get("POSTGRES_DBNAME") or user
    password = settings.get("POSTGRES_PASSWORD") or settings.get("POSTGRES_PASS", "")
    return _url("postgresql", address, user, password, f"/{quote(database, safe='')}")


def _cockroach(settings: Mapping[str, str], address: str) -> str:
    user = settings.get("COCKROACH_USER") or "root"
    database = quote(settings.get("COCKROACH_DATABASE") or "defaultdb", safe="")
    password = "" if user == "root" else settings.get("COCKROACH_PASSWORD", "")
    is_insecure = "insecure" in settings or "--insecure" in settings.get("COCKROACH_ARGS", "")
    mode = "disable" if is_insecure else "require"
    return _url("postgresql", address, user, password, f"/{database}?sslmode={mode}")


def _check_is_known(settings: Mapping[str, str], password: str, *variables: str) -> None:
    """
    Refuse to return a URL without a password if the image makes up one.

    Raises:
        InvalidOptionError: One of the *variables* makes it do so, and no password is set.
    """
    for variable in variables:
        if settings.get(variable) and not password:
            raise InvalidOptionError(
                f"env: the password is not known, because of {variable}",
                hint="set the password itself instead",
            )


def _mysql(settings: Mapping[str, str], address: str) -> str:
    def value(of: str) -> str:
        return settings.get(f"MARIADB_{of}") or settings.get(f"MYSQL_{of}", "")

    user = value("USER") or "root"
    password = value("PASSWORD") if user != "root" else value("ROOT_PASSWORD")
    if user == "root":
        names = ("RANDOM_ROOT_PASSWORD", "ROOT_PASSWORD_HASH")
        _check_is_known(
            settings, password, *(f"{kind}_{name}" for kind in ("MARIADB", "MYSQL") for name in names)
        )
    return _url("mysql", address, user, password, f"/{quote(value('DATABASE'), safe='')}")


def _redis(settings: Mapping[str, str], address: str) -> str:
    password = settings.get("requirepass") or settings.get("DFLY_requirepass", "")  # the latter of Dragonfly
    if _is_bitnami(settings):
        password = password or settings.get("REDIS_PASSWORD") or settings.get("VALKEY_PASSWORD", "")
    for name in ("VALKEY_EXTRA_FLAGS", "REDIS_ARGS"):  # of the images of Valkey and Redis Stack
        password = password or _flags(settings.get(name, "").split()).get("requirepass", "")
    return _url("redis", address, "", password, "/0")


def _is_bitnami(settings: Mapping[str, str]) -> bool:
    """Return whether the image is one of Bitnami's, whose variables have other names."""
    return bool(settings.get("BITNAMI_APP_NAME"))


def _amqp(settings: Mapping[str, str], address: str) -> str:
    user, password = (
        settings.get("RABBITMQ_DEFAULT_USER", "guest"),
        settings.get("RABBITMQ_DEFAULT_PASS", "guest"),
    )
    vhost = settings.get("RABBITMQ_DEFAULT_VHOST")
    if _is_bitnami(settings):
        user, password = (
            settings.get("RABBITMQ_USERNAME", "user"),
            settings.get("RABBITMQ_PASSWORD", "bitnami"),
        )
        vhost = settings.get("RABBITMQ_VHOST")
    return _url("amqp", address, user, password, f"/{quote(vhost, safe='')}" if vhost else "")


def _mongo(settings: Mapping[str, str], address: str) -> str:
    user, password = (
        settings.get("MONGO_INITDB_ROOT_USERNAME", ""),
        settings.get("MONGO_INITDB_ROOT_PASSWORD", ""),
    )
    options = ["authSource=admin"] if user else []
    if settings.get("replSet"):  # else drivers connect to the names that the members have for each other
        options.append("directConnection=true")
    return _url("mongodb", address, user, password, f"/{'?' if options else ''}{'&'.join(options)}")


def _nats(settings: Mapping[str, str], address: str) -> str:
    token = settings.get("auth", "")
    return _url("nats", address, settings.get("user") or token, settings.get("pass", ""))


def _login(
    scheme: str, user: str, password: str, *, default: str = ""
) -> Callable[[Mapping[str, str], str], str]:
    """
    Return a function for the URL of a service with a user and a password.

    *user* and *password* are the names of the variables that contain them.
    """

    def url(settings: Mapping[str, str], address: str) -> str:
        return _url(scheme, address, settings.get(user) or default, settings.get(password, ""))

    return url


def _sql_server(settings: Mapping[str, str], address: str) -> str:
    password = settings.get("MSSQL_SA_PASSWORD") or settings.get("SA_PASSWORD", "")
    return _url("mssql", address, "sa", password, "/master")


def _oracle(settings: Mapping[str, str], address: str) -> str:
    user = settings.get("APP_USER") or "system"
    # Oracle's own image has another variable than the one that most people use.
    password = settings.get("ORACLE_PASSWORD") or settings.get("ORACLE_PWD", "")
    if user != "system":
        password = settings.get("APP_USER_PASSWORD", "")
    _check_is_known(settings, password, "ORACLE_RANDOM_PASSWORD")
    service = settings.get("ORACLE_DATABASE") or "FREEPDB1"
    return _url("oracle", address, user, password, f"/?service_name={quote(service, safe='')}")


def _clickhouse(settings: Mapping[str, str], address: str) -> str:
    database = quote(settings.get("CLICKHOUSE_DB") or "default", safe="")
    user, password = settings.get("CLICKHOUSE_USER") or "default", settings.get("CLICKHOUSE_PASSWORD", "")
    if _is_bitnami(settings):
        user = settings.get("CLICKHOUSE_ADMIN_USER") or "default"
        password = settings.get("CLICKHOUSE_ADMIN_PASSWORD", "")
    return _url("clickhouse", address, user, password, f"/{database}")


def _neo4j(settings: Mapping[str, str], address: str) -> str:
    user, _, password = settings.get("NEO4J_AUTH", "").partition("/")
    if _is_bitnami(settings):
        user, password = "neo4j", settings.get("NEO4J_PASSWORD", "bitnami1")
    return _url("bolt", address, user if password else "", password)


def _keycloak(settings: Mapping[str, str], address: str) -> str:
    user = settings.get("KC_BOOTSTRAP_ADMIN_USERNAME") or settings.get("KEYCLOAK_ADMIN", "")
    password = settings.get("KC_BOOTSTRAP_ADMIN_PASSWORD") or settings.get("KEYCLOAK_ADMIN_PASSWORD", "")
    if _is_bitnami(settings):
        user = settings.get("KEYCLOAK_ADMIN_USER") or "user"
    elif password and not user:
        user = "temp-admin"  # https://www.keycloak.org/server/bootstrap-admin-recovery
    return _url("http", address, user, password, _keycloak_path(settings))


def _keycloak_path(settings: Mapping[str, str]) -> str:
    path = settings.get("KC_HTTP_RELATIVE_PATH") or settings.get("http-relative-path", "")
    return f"/{path.strip('/')}".rstrip("/")


def _keycloak_probe(address: tuple[str, int], settings: Mapping[str, str]) -> object:
    return http_probe(f"{_keycloak_path(settings)}/realms/master", (200,))(address, settings)


def _opensearch_uses_tls(settings: Mapping[str, str]) -> bool:
    """
    Return whether the security plugin is on, which requires TLS and a login.

    The image's own demo configuration sets it up.
    """
    names = ("DISABLE_SECURITY_PLUGIN", "plugins.security.disabled", "Eplugins.security.disabled")
    return all(settings.get(name, "").lower() != "true" for name in names)


def _opensearch(settings: Mapping[str, str], address: str) -> str:
    if not _opensearch_uses_tls(settings):
        return _url("http", address)
    # Versions before 2.12 have this password, and later ones do not start without another one.
    password = settings.get("OPENSEARCH_INITIAL_ADMIN_PASSWORD") or "admin"
    return _url("https", address, "admin", password)


def _opensearch_probe(address: tuple[str, int], settings: Mapping[str, str]) -> object:
    return http_probe("/", (200, 401), tls=_opensearch_uses_tls(settings))(address, settings)


def _http(settings: Mapping[str, str], address: str) -> str:  # noqa: ARG001 - the signature of `Service.url`
    return _url("http", address)


def _plain(settings: Mapping[str, str], address: str) -> str:  # noqa: ARG001 - the signature of `Service.url`
    return address


SERVICES = (
    Service(
        images=("postgres", "postgis", "pgvector", "timescaledb"),
        port="5432/tcp",
        probe=_probes.postgres,
        url=_postgres,
        dialect="postgresql",
        has_databases=True,
    ),
    Service(
        images=("mysql", "mariadb", "percona"),
        port="3306/tcp",
        probe=_probes.mysql,
        url=_mysql,
        dialect="mysql",
        has_databases=True,
    ),
    Service(
        images=("redis", "valkey", "redis-stack", "redis-stack-server", "keydb", "dragonfly"),
        port="6379/tcp",
        probe=_probes.redis,
        url=_redis,
        has_databases=True,
    ),
    Service(images=("rabbitmq",), port="5672/tcp", probe=_probes.amqp, url=_amqp, has_databases=True),
    Service(images=("memcached",), port="11211/tcp", probe=_probes.memcached, url=_plain),
    Service(
        images=("nats",),
        port="4222/tcp",
        probe=_probes.nats,
        url=_nats,
    ),
    Service(images=("etcd",), port="2379/tcp", probe=http_probe("/health", accepted=(200,)), url=_http),
    Service(images=("zookeeper",), port="2181/tcp", probe=_probes.zookeeper, url=_plain),
    Service(
        images=("eclipse-mosquitto", "mosquitto", "emqx", "nanomq"),
        port="1883/tcp",
        probe=_probes.mqtt,
        url=lambda _, address: _url("mqtt", address),
    ),
    Service(
        images=("influxdb",),
        port="8086/tcp",
        probe=http_probe("/ping", accepted=(200, 204)),
        url=_http,
    ),
    Service(
        images=("nginx", "httpd", "caddy", "whoami"),
        port="80/tcp",
        probe=http_probe(),
        url=_http,
    ),
    Service(
        images=("mongo",),
        port="27017/tcp",
        probe=_probes.mongo,
        url=_mongo,
        has_databases=True,
        verified=False,
    ),
    Service(images=("cassandra",), port="9042/tcp", probe=_probes.cassandra, url=_plain, verified=False),
    Service(
        images=("cockroach",),
        port="26257/tcp",
        probe=_probes.postgres,
        url=_cockroach,
        dialect="cockroachdb",
        has_databases=True,
        verified=False,
    ),
    Service(
        images=("elasticsearch",),
        port="9200/tcp",
        probe=http_probe("/", accepted=(200,)),
        url=_http,
        verified=False,
        only_with="xpack.security.enabled=false",  # otherwise it uses TLS with a certificate that it makes itself
    ),
    Service(
        images=("minio",),
        port="9000/tcp",
        probe=http_probe("/minio/health/ready", accepted=(200,)),
        url=lambda settings, address: _url(
            "http",
            address,
            settings.get("MINIO_ROOT_USER", "minioadmin"),
            settings.get("MINIO_ROOT_PASSWORD", "minioadmin"),
        ),
        verified=False,
    ),
    Service(
        images=("mssql/server", "azure-sql-edge"),
        port="1433/tcp",
        probe=_probes.sql_server,
        url=_sql_server,
        dialect="mssql",
        has_databases=True,
        log="Recovery is complete",  # the server accepts connections before it has upgraded its databases
        verified=False,
    ),
    Service(
        images=("oracle-free", "database/free"),
        port="1521/tcp",
        probe=_probes.oracle,
        url=_oracle,
        dialect="oracle",
        log="DATABASE IS READY TO USE",  # the listener runs before passwords are set and users are created
        verified=False,
    ),
    Service(
        images=("clickhouse", "clickhouse-server"),
        port="8123/tcp",
        probe=http_probe("/ping", (200,)),
        url=_clickhouse,
        dialect="clickhouse",
        has_databases=True,
        verified=False,
    ),
    Service(
        images=("neo4j",),
        port="7687/tcp",
        probe=_probes.bolt,
        url=_neo4j,
        log=r"\bStarted\.",  # connections are accepted before the databases are online
        verified=False,
    ),
    Service(
        images=("opensearch",), port="9200/tcp", probe=_opensearch_probe, url=_opensearch, verified=False
    ),
    Service(
        images=("keycloak",),
        port="8080/tcp",
        probe=_keycloak_probe,
        url=_keycloak,
        verified=False,
    ),
    Service(
        images=("localstack", "localstack-pro"),
        port="4566/tcp",
        probe=http_probe("/_localstack/health", (200,)),
        url=_http,
        verified=False,
    ),
    Service(
        images=("azurite",),
        port="10000/tcp",
        probe=http_probe("/devstoreaccount1?comp=list"),
        url=lambda _, address: _url("http", address, path="/devstoreaccount1"),
        verified=False,
    ),
    Service(
        images=("vault",),
        port="8200/tcp",
        probe=http_probe("/v1/sys/health", (200,)),
        url=_http,
        verified=False,
    ),
    Service(
        images=("mailpit",),
        port="1025/tcp",
        probe=_probes.smtp,
        url=lambda _, address: _url("smtp", address),
        verified=False,
    ),
    Service(
        images=("qdrant",), port="6333/tcp", probe=http_probe("/readyz", (200,)), url=_http, verified=False
    ),
    Service(
        images=("weaviate",),
        port="8080/tcp",
        probe=http_probe("/v1/.well-known/ready", (200,)),
        url=_http,
        verified=False,
    ),
    Service(images=("milvus",), port="19530/tcp", probe=http_probe(), url=_http, verified=False),
    Service(
        images=("chroma",),
        port="8000/tcp",
        probe=http_probe("/api/v2/heartbeat", (200, 404)),  # older servers have only version 1
        url=_http,
        verified=False,
    ),
    Service(images=("ollama",), port="11434/tcp", probe=http_probe("/", (200,)), url=_http, verified=False),
)

_registered: list[Service] = []
