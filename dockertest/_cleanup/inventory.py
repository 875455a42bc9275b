"""`dockertest ps` and `prune`: what this library made on an engine, whose it is, and how long it stays."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from dockertest._cleanup import session as _session
from dockertest._cli.run import span
from dockertest._cli.terminal import Screen
from dockertest._pool import Pool

HEAD = ("ID", "NAME", "IMAGE", "STATE", "PORTS", "SESSION", "LEFT")


def ps(pool: Pool, screen: Screen) -> int:
    """List what dockertest made on this engine, by whomever."""
    things = inventory(pool)
    if screen.as_json:
        screen.data(things)
    else:
        screen.table(HEAD, [_row(each) for each in things])
    return 0


def prune(pool: Pool, screen: Screen, *, reused: bool) -> int:
    """Remove what dead sessions left, and tell what that was."""
    removed = pool.prune(reused=reused)
    if screen.as_json:
        screen.data({"removed": removed})
    else:
        for each in removed:
            screen.say(each[:12])
        screen.note(f"{len(removed)} removed")
    return 0


def inventory(pool: Pool) -> list[dict[str, Any]]:
    """Give all containers and networks with our labels."""
    engine = pool._engine
    things = [_container(each) for each in engine.containers([f"{_session.MANAGED}=true"])]
    things += [_network(each) for each in engine.list_networks(label=f"{_session.MANAGED}=true")]
    for each in things:
        labels = each.pop("labels")
        expires = labels.get(_session.EXPIRES, "")
        each["session"] = labels.get(_session.SESSION, "")
        each["standing"] = pool._lifeline.standing(labels, is_created=each["state"] == "created")
        each["expires"] = int(expires) if expires.isdecimal() else None
    return things


def _container(listed: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "container",
        "id": listed["Id"],
        "name": str((listed.get("Names") or [""])[0]).lstrip("/"),
        "image": listed.get("Image", ""),
        "state": listed.get("State", ""),
        "ports": _ports(listed.get("Ports") or ()),
        "labels": listed.get("Labels") or {},
    }


def _network(listed: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "network",
        "id": listed["Id"],
        "name": listed["Name"],
        "image": "",
        "state": "",
        "ports": [],
        "labels": listed.get("Labels") or {},
    }


def _ports(listed: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say what is published where, on the engine's host."""
    found = []
    for each in listed:
        if each.get("PublicPort"):
            ip = str(each.get("IP", ""))
            host = f"[{ip}]" if ":" in ip else ip
            found.append(f"{host}:{each['PublicPort']}->{each['PrivatePort']}/{each['Type']}")
    return sorted(found)


def _row(thing: Mapping[str, Any]) -> list[str]:
    left = "" if thing["expires"] is None else span(thing["expires"] - time.time())
    image = thing["image"] or "(network)"
    ports = ", ".join(thing["ports"])
    return [thing["id"][:12], thing["name"], image, thing["state"], ports, thing["standing"], left]
