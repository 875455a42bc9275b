"""
The commands `dockertest ps` and `dockertest prune`.

`ps` lists everything that dockertest has made on all engines in use, and `prune` removes what dead sessions left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TypeVar

from dockertest import DockertestError, InventoryItem, Pool, _clock
from dockertest._cli.terminal import Console, format_duration

T = TypeVar("T")

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

    Raises:
        DockertestError: The one engine failed.
    """
    answers = _ask_each(pools, console, Pool.inventory)
    found = [(str(pool.endpoint), item) for pool, items in answers for item in items]
    if console.as_json:
        console.print_json([{**asdict(item), **({"endpoint": at} if several else {})} for at, item in found])
    elif several:
        console.print_table(("ENGINE", *HEADER), [[at, *_row(item)] for at, item in found])
    else:
        console.print_table(HEADER, [_row(item) for _, item in found])
    return 0 if len(answers) == len(pools) else 1


def prune(pools: Sequence[Pool], console: Console, *, reused: bool, prepared: bool) -> int:
    """
    Remove what dead sessions left, print the ids, and return the exit code.

    Raises:
        DockertestError: The one engine failed.
    """
    answers = _ask_each(pools, console, lambda pool: pool.prune(reused=reused, prepared=prepared))
    removed = [thing for _, things in answers for thing in things]
    if console.as_json:
        console.print_json({"removed": removed})
    else:
        for item in removed:
            console.print(_short(item))
        console.note(f"removed {len(removed)}")
    return 0 if len(answers) == len(pools) else 1


def _ask_each(
    pools: Sequence[Pool], console: Console, ask: Callable[[Pool], list[T]]
) -> list[tuple[Pool, list[T]]]:
    """
    Return the engines' answers, and report the engines that fail.

    Raises:
        DockertestError: The one engine failed.
    """
    answers = []
    for pool in pools:
        try:
            answers.append((pool, ask(pool)))
        except DockertestError as error:
            if len(pools) == 1:
                raise
            console.note(f"dockertest: {error}")
    return answers


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
