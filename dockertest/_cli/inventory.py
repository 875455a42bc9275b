"""`dockertest ps` and `dockertest prune`: what dockertest has made on all engines in use, and its removal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict

from dockertest import DockertestError, InventoryItem, Pool, _clock
from dockertest._cli.terminal import Console, format_duration

HEADER = ("ID", "NAME", "IMAGE", "STATE", "PORTS", "SESSION", "EXPIRES")


@contextmanager
def open_pools(endpoints: Sequence[str], console: Console) -> Iterator[list[Pool]]:
    """
    Open pools on all engines that answer, and report those that do not.

    Args:
        endpoints: The engines; the usual one if empty.

    Raises:
        DockertestError: None answers.
    """
    with ExitStack() as opened:
        pools = []
        for endpoint in (*endpoints,) or (None,):
            try:
                pools.append(opened.enter_context(Pool(endpoint)))
            except DockertestError as error:
                if len(endpoints) <= 1 or (endpoint == endpoints[-1] and not pools):
                    raise
                console.note(f"dockertest: {error}")
        yield pools


def list_items(pools: Sequence[Pool], console: Console, *, several: bool) -> int:
    """
    Print what dockertest has made, and return the exit code.

    Args:
        several: Whether to print on which engine.
    """
    found = [(str(pool.endpoint), item) for pool in pools for item in pool.inventory()]
    if console.as_json:
        console.print_json([{**asdict(item), **({"endpoint": at} if several else {})} for at, item in found])
    elif several:
        console.print_table(("ENGINE", *HEADER), [[at, *_row(item)] for at, item in found])
    else:
        console.print_table(HEADER, [_row(item) for _, item in found])
    return 0


def prune(pools: Sequence[Pool], console: Console, *, reused: bool, prepared: bool) -> int:
    """Remove what dead sessions left, print the ids, and return the exit code."""
    removed = [thing for pool in pools for thing in pool.prune(reused=reused, prepared=prepared)]
    if console.as_json:
        console.print_json({"removed": removed})
    else:
        for item in removed:
            console.print(_short(item))
        console.note(f"removed {len(removed)}")
    return 0


def _short(thing: str) -> str:
    """Return the short form of an id; the name of a volume is not shortened."""
    match = re.fullmatch("(?:sha256:)?([0-9a-f]{64})", thing)
    return match[1][:12] if match else thing


def _row(item: InventoryItem) -> list[str]:
    expires = "" if item.expires is None else format_duration(item.expires - _clock.time())
    image = item.image or f"({'prepared image' if item.kind == 'image' else item.kind})"
    return [
        "-" if item.kind == "volume" else _short(item.id),
        item.name,
        image,
        item.state or _use(item),
        ", ".join(item.ports),
        item.standing,
        expires,
    ]


def _use(item: InventoryItem) -> str:
    """Return the size and the last use of an image; empty for anything else."""
    size = "" if item.size is None else f"{item.size / 1e6:.0f} MB"
    if item.last_used is None:
        return size
    return f"{size}, used {format_duration(_clock.time() - item.last_used)} ago"
