"""What dockertest has made on an engine, by any session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dockertest._cleanup.reaper import (
    MANAGED,
    PREPARED,
    PREPARED_EXPIRES,
    PREPARED_OWNER,
    SESSION,
    Records,
    expiry,
    labels_of,
    record_name,
)
from dockertest._engine.client import EngineClient
from dockertest._public import public
from dockertest.errors import EngineError

Standing = Callable[[str, Mapping[str, str], bool], str]


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryItem:
    """
    A container, network, volume or prepared image that dockertest has created.

    This process or another one may have created it.

    Attributes:
        kind: `"container"`, `"network"`, `"volume"` or `"image"`.
        id: Its full id; the name of a volume.
        name: Its name.
        image: The image's name; empty unless it is a container.
        state: The engine's word for the container's state, such as `"running"`; empty unless it is a container.
        ports: Where the container's ports are published on the engine's host: `"127.0.0.1:49153->5432/tcp"`.
        session: The id of the session that made it; empty for an image. A session is the use of one `Pool` by one process.
        standing: `"living"` if that session is still open; `"dead"` if its process has provably ended, so that
            `Pool.prune` removes this; `"reused"` if it was started with `reuse` and outlives its session; `"kept"` if
            this user left it running on purpose; `"prepared"` for an image that `Pool.prepare` can use;
            `"superseded"` for one that another image has replaced; `"elsewhere"` if another user, machine or PID namespace
            made it.
        expires: When any later session may remove it, in seconds since 1970; `None` if no time was set.
            That of an image follows from the `max_age` of `Pool.prepare`.
        size: The size of an image in bytes, with the layers that it shares with its base image; `None` otherwise.
        last_used: When `Pool.prepare` returned the image last, in seconds since 1970; `None` if that is unknown.
    """

    kind: str
    id: str
    name: str
    image: str = ""
    state: str = ""
    ports: tuple[str, ...] = ()
    session: str
    standing: str
    expires: int | None = None
    size: int | None = None
    last_used: float | None = None


def list_items(engine: EngineClient, standing: Standing, records: Records, owner: str) -> list[InventoryItem]:
    """
    Return the containers, networks, volumes and prepared images with our labels.

    The kinds are in this order, and the items of each kind in the engine's order.

    Args:
        standing: Called with the `record_name`, its labels and whether it is a container that was never started; returns the value
            of `InventoryItem.standing`.
        records: Describe the prepared images of this user.
        owner: This user on this machine, as in the labels of prepared images.

    Raises:
        EngineError: The engine cannot be asked.
    """
    label = f"{MANAGED}=true"
    containers = [container_item(listed, standing) for listed in engine.containers([label])]
    networks = [network_item(listed, standing) for listed in engine.list_networks(label=label)]
    volumes = [volume_item(listed, standing) for listed in engine.list_volumes(label)]
    try:
        images = [image_item(listed, records, owner) for listed in engine.list_images(PREPARED)]
    except EngineError as error:  # A proxy may hide all images.
        if error.status is None:
            raise
        images = []
    return containers + networks + volumes + images


def container_item(listed: Mapping[str, Any], standing: Standing) -> InventoryItem:
    """Return a container as the engine has *listed* it."""
    labels = labels_of(listed)
    state = str(listed.get("State") or "")
    return InventoryItem(
        kind="container",
        id=str(listed["Id"]),
        name=str((listed.get("Names") or [""])[0]).lstrip("/"),
        image=str(listed.get("Image") or ""),
        state=state,
        ports=_ports(listed.get("Ports") or ()),
        session=labels.get(SESSION, ""),
        standing=standing(str(listed["Id"]), labels, state == "created"),
        expires=expiry(labels),
    )


def network_item(listed: Mapping[str, Any], standing: Standing) -> InventoryItem:
    """Return a network as the engine has *listed* it."""
    labels = labels_of(listed)
    return InventoryItem(
        kind="network",
        id=str(listed["Id"]),
        name=str(listed.get("Name") or ""),
        session=labels.get(SESSION, ""),
        standing=standing(str(listed["Id"]), labels, False),
        expires=expiry(labels),
    )


def volume_item(listed: Mapping[str, Any], standing: Standing) -> InventoryItem:
    """Return a volume as the engine has *listed* it."""
    labels = labels_of(listed)
    name = str(listed.get("Name") or "")
    return InventoryItem(
        kind="volume",
        id=name,
        name=name,
        session=labels.get(SESSION, ""),
        standing=standing(record_name({"Id": name, "Mountpoint": ""}), labels, False),
        expires=expiry(labels),
    )


def image_item(listed: Mapping[str, Any], records: Records, owner: str) -> InventoryItem:
    """Return a prepared image as the engine has *listed* it."""
    labels = labels_of(listed)
    key = labels.get(PREPARED, "")
    is_own = labels.get(PREPARED_OWNER) == owner
    record = records.prepared(key) if is_own else {}
    is_current = record.get("image") == listed["Id"] and not record.get("superseded")
    return InventoryItem(
        kind="image",
        id=str(listed["Id"]),
        name=str((listed.get("RepoTags") or [""])[0]),
        session="",
        standing=("prepared" if is_current else "superseded") if is_own else "elsewhere",
        expires=expiry(labels, PREPARED_EXPIRES),
        size=int(listed.get("Size") or 0),
        last_used=records.last_use(key) if record else None,
    )


def _ports(listed: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the published ports; one that is only exposed has no public port."""
    published = []
    for port in listed:
        if port.get("PublicPort"):
            ip = str(port.get("IP") or "")
            host = f"[{ip}]" if ":" in ip else ip
            published.append(f"{host}:{port['PublicPort']}->{port['PrivatePort']}/{port['Type']}")
    return tuple(sorted(published))
