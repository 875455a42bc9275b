"""What is known of common services by their images' names: where they listen, whether they answer, how to connect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from dockertest import _image_name as _reference
from dockertest import _probes
from dockertest._probes import Probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """
    A service that is known.

    Attributes:
        images: The last parts of the names of its images.
        port: The container's port that it listens to.
        is_serving: Whether it answers at an address, with its settings.
        url: How to connect, from its settings and from address and port. It has the password in it, since whoever
            started the service is to paste it.
        only_with: A setting, as `K=V`, without which all of this is different.
    """

    images: tuple[str, ...]
    port: str
    is_serving: Probe
    url: Callable[[Mapping[str, str], str], str]
    only_with: str = ""


def find(image: str, settings: Mapping[str, str]) -> Service | None:
    """Give what is known of an image's service, by the last part of its name."""
    last = _reference.reference("image", image).repository.rpartition("/")[2]
    for each in SERVICES:
        name, _, value = each.only_with.partition("=")
        if last in each.images and settings.get(name, "") == value:
            return each
    return None


def settings(attrs: Mapping[str, Any]) -> dict[str, str]:
    """Give a container's environment, the image's own with it, and the `--name value` pairs of its command."""
    config = attrs.get("Config") or {}
    env: Iterable[str] = config.get("Env") or ()
    words = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    flags = {flag[2:]: value for flag, value in pairwise(words) if flag.startswith("--")}
    return {**flags, **dict(each.split("=", 1) for each in env if "=" in each)}


def _url(scheme: str, at: str, user: str = "", password: str = "", path: str = "") -> str:
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return f"{scheme}://{who}{'@' if who else ''}{at}{path}"


def _postgres(said: Mapping[str, str], at: str) -> str:
    user = said.get("POSTGRES_USER") or "postgres"
    database = quote(said.get("POSTGRES_DB") or user, safe="")
    return _url("postgresql", at, user, said.get("POSTGRES_PASSWORD", ""), f"/{database}")


def _mysql(said: Mapping[str, str], at: str) -> str:
    def value(of: str) -> str:
        return said.get(f"MARIADB_{of}") or said.get(f"MYSQL_{of}", "")

    user = value("USER") or "root"
    password = value("PASSWORD") if user != "root" else value("ROOT_PASSWORD")
    return _url("mysql", at, user, password, f"/{quote(value('DATABASE'), safe='')}")


def _amqp(said: Mapping[str, str], at: str) -> str:
    user, password = said.get("RABBITMQ_DEFAULT_USER", "guest"), said.get("RABBITMQ_DEFAULT_PASS", "guest")
    vhost = said.get("RABBITMQ_DEFAULT_VHOST")
    return _url("amqp", at, user, password, f"/{quote(vhost, safe='')}" if vhost else "")


def _mongo(said: Mapping[str, str], at: str) -> str:
    user, password = said.get("MONGO_INITDB_ROOT_USERNAME", ""), said.get("MONGO_INITDB_ROOT_PASSWORD", "")
    return _url("mongodb", at, user, password, "/?authSource=admin" if user else "/")


def _http(said: Mapping[str, str], at: str) -> str:  # noqa: ARG001 - as all of them
    return _url("http", at)


def _plain(said: Mapping[str, str], at: str) -> str:  # noqa: ARG001 - as all of them
    return at


SERVICES = (
    Service(
        images=("postgres", "postgis", "pgvector", "timescaledb"),
        port="5432/tcp",
        is_serving=_probes.postgres,
        url=_postgres,
    ),
    Service(images=("mariadb", "mysql", "percona"), port="3306/tcp", is_serving=_probes.mysql, url=_mysql),
    Service(
        images=("redis", "valkey", "redis-stack", "redis-stack-server", "keydb", "dragonfly"),
        port="6379/tcp",
        is_serving=_probes.redis,
        url=lambda said, at: _url("redis", at, "", said.get("requirepass", ""), "/0"),
    ),
    Service(images=("rabbitmq",), port="5672/tcp", is_serving=_probes.amqp, url=_amqp),
    Service(images=("memcached",), port="11211/tcp", is_serving=_probes.memcached, url=_plain),
    Service(
        images=("nats",),
        port="4222/tcp",
        is_serving=_probes.nats,
        url=lambda said, at: _url("nats", at, said.get("user", ""), said.get("pass", "")),
    ),
    Service(
        images=("etcd",), port="2379/tcp", is_serving=_probes.http_get("/health", accepted=(200,)), url=_http
    ),
    Service(images=("zookeeper",), port="2181/tcp", is_serving=_probes.zookeeper, url=_plain),
    Service(
        images=("eclipse-mosquitto", "mosquitto", "emqx", "nanomq"),
        port="1883/tcp",
        is_serving=_probes.mqtt,
        url=lambda _, at: _url("mqtt", at),
    ),
    Service(
        images=("influxdb",),
        port="8086/tcp",
        is_serving=_probes.http_get("/ping", accepted=(200, 204)),
        url=_http,
    ),
    Service(
        images=("nginx", "httpd", "caddy", "whoami"),
        port="80/tcp",
        is_serving=_probes.http_get(),
        url=_http,
    ),
    Service(images=("mongo",), port="27017/tcp", is_serving=_probes.mongo, url=_mongo),
    Service(images=("cassandra",), port="9042/tcp", is_serving=_probes.cassandra, url=_plain),
    Service(
        images=("cockroach",),
        port="26257/tcp",
        is_serving=_probes.postgres,
        url=lambda _, at: _url("postgresql", at, "root", "", "/defaultdb?sslmode=disable"),
    ),
    Service(
        images=("elasticsearch",),
        port="9200/tcp",
        is_serving=_probes.http_get("/", accepted=(200,)),
        url=_http,
        only_with="xpack.security.enabled=false",  # else it speaks TLS with a certificate of its own
    ),
    Service(
        images=("minio",),
        port="9000/tcp",
        is_serving=_probes.http_get("/minio/health/ready", accepted=(200,)),
        url=lambda said, at: _url(
            "http",
            at,
            said.get("MINIO_ROOT_USER", "minioadmin"),
            said.get("MINIO_ROOT_PASSWORD", "minioadmin"),
        ),
    ),
)
