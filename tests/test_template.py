"""The URLs of servers that run already."""

import pytest

from dockertest import InvalidOptionError
from dockertest._template import find_server, login, with_database

SECRET = "pass-word-secret"
SCHEMES = ("postgresql", "postgres")


@pytest.mark.parametrize(
    "url",
    [
        f"user:{SECRET}@host",
        f"mysql://user:{SECRET}@host/",
        f"postgresql://user:{SECRET}/more@host/",
        f"postgresql://user:{SECRET}#more@host/",
        f"postgresql://user:a@{SECRET}:x@host/x#y",
        f"postgresql://user@host:{SECRET}/",
        f"postgresql://[{SECRET}/",
        f"postgresql://us[er:{SECRET}@host/",
        f"postgresql://user:x@ho st:{SECRET}/",
        f"postgresql://user:100%{SECRET}@host/",
        f"postgresql://user:%00{SECRET}@host/",
        "",
    ],
)
@pytest.mark.parametrize("is_variable", [False, True])
def test_an_invalid_url_is_rejected_without_showing_it(
    url: str, is_variable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It contains a password."""
    monkeypatch.setenv("X_URL", url if is_variable else "")
    with pytest.raises(InvalidOptionError) as caught:
        find_server(None, None if is_variable else url, "X_URL", SCHEMES)
    assert SECRET not in f"{caught.value} {caught.value.hint}"
    assert ("X_URL" if is_variable else "server") in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@host",
        "postgres://u:p@[::1]:5433/x?sslmode=require",
        "postgresql://u:p@a:1,b:2/",
        "postgresql:///?host=/run",
    ],
)
def test_the_database_of_a_url_is_replaced(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest stays, and the password is not shown."""
    monkeypatch.setenv("X_URL", url)
    server = find_server(None, None, "X_URL", SCHEMES)
    assert server
    assert "p@" not in f"{server!r} {server.url('a/b')!r}"
    assert "/a%2Fb" in server.url("a/b")
    assert server.url("a/b").partition("?")[2] == url.partition("?")[2]


def test_parts_of_a_url_are_unquoted() -> None:
    """A password may contain any character."""
    assert login("mysql://a%40b:c%2Fd@host/") == ("a@b", "c/d")
    assert with_database("mysql://a%40b:c%2Fd@host/x", "y") == "mysql://a%40b:c%2Fd@host/y"


@pytest.mark.parametrize("query", ["?host=/run", "?unix_socket=/run/server.sock", ""])
def test_the_url_of_a_socket_keeps_its_slashes(query: str) -> None:
    """The drivers require both, although there is no host between them."""
    assert with_database(f"mysql:///x{query}", "y") == f"mysql:///y{query}"
    assert with_database(f"mysql://u:p@/{query}", "y") == f"mysql://u:p@/y{query}"
