"""
The table of known services, generated from `dockertest.services`.

    python docs/extensions/known_services.py

writes it into its page, where it is also read without a build of the site.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from dockertest import services

PAGE = Path(__file__).parent.parent / "reference" / "services.md"
_TABLE = re.compile(r"(?<=<!-- services -->\n).*?(?=<!-- end -->)", re.DOTALL)


class _Example(Mapping[str, str]):
    """Settings in which every user, password and database has an example value."""

    def __getitem__(self, name: str) -> str:
        word = name.lower().rsplit("_", 1)[-1]
        return {
            "user": "user",
            "username": "user",
            "auth": "user/password",
            "vhost": "vhost",
            "replset": "",
            "path": "",
            "http-relative-path": "",
            "name": "",
        }.get(word, "password" if word.startswith(("pass", "requirepass")) else "database")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def insert(page: str) -> str:
    """Return the text of the page with the current table between its markers."""
    return _TABLE.sub(lambda _: f"\n{markdown()}\n\n", page)


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


if __name__ == "__main__":
    PAGE.write_text(insert(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
