"""The table of known services, generated from `dockertest.services`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dockertest import services

MARKER = "<!-- services -->"


class _Example(Mapping[str, str]):
    """Settings in which every user, password and database has an example value."""

    def __getitem__(self, name: str) -> str:
        word = name.lower().rsplit("_", 1)[-1]
        return {"user": "user", "username": "user", "auth": "user/password", "vhost": "vhost"}.get(
            word, "password" if word.startswith(("pass", "requirepass")) else "database"
        )

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def insert(page: str) -> str:
    """Return the text of a page with the table in place of the marker."""
    return page.replace(MARKER, markdown())


def markdown() -> str:
    """Return a table with one row for each service."""
    rows = ["| images | port | URL | probe |", "| --- | --- | --- | --- |"]
    for service in services.SERVICES:
        images = ", ".join(f"`{image}`" for image in service.images)
        if service.only_with:
            images += f" with `{service.only_with.replace('=', ': ')}`"
        number = str(service.port).removesuffix("/tcp")
        state = "tested" if service.verified else "unverified"
        rows.append(f"| {images} | {number} | `{service.url(_Example(), 'host:port')}` | {state} |")
    return "\n".join(rows)
