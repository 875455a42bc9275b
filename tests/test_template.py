"""The URLs of servers that run already."""

import socket
import traceback
from typing import Any

import pytest

from dockertest import InvalidOptionError, RetryTimeoutError, _template, mysql, postgres
from dockertest._secret import SecretStr
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


@pytest.mark.parametrize(
    ("query", "left"),
    [
        ("?dbname=b", ""),
        ("?d%62name=b&sslmode=require", "?sslmode=require"),
        ("?a=%20x&dbname=b&&options=-c%20dbname%3D1&dbname", "?a=%20x&&options=-c%20dbname%3D1"),
        ("?&", "?&"),
    ],
)
def test_a_database_in_the_query_is_left_out(query: str, left: str) -> None:
    """For libpq it takes precedence, and may be a real database of the user."""
    assert with_database(f"postgresql://u:p@h/a{query}", "y") == f"postgresql://u:p@h/y{left}"


@pytest.mark.parametrize("driver", [postgres, mysql])
def test_a_server_that_does_not_answer_shows_no_password(
    driver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some tools print the variables of a traceback, such as `pytest --showlocals`."""
    monkeypatch.setattr(_template, "_SERVER_WAIT_SECONDS", 0.05)
    name = "postgresql" if driver is postgres else "mysql"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(RetryTimeoutError) as raised:
        driver.TemplateDatabase(None, print, server=SecretStr(f"{name}://u:{SECRET}@127.0.0.1:{port}/"))
    assert raised.value.hint == "check that the server runs, and that its URL is right"
    assert isinstance(raised.value.__cause__, driver._Backend.errors)
    error: BaseException | None = raised.value
    while error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_globals["__name__"] != __name__:
                shown = {name: value for name, value in frame.f_locals.items() if SECRET in repr(value)}
                assert not shown, frame
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("query", ["?host=/run", "?unix_socket=/run/server.sock", ""])
def test_the_url_of_a_socket_keeps_its_slashes(query: str) -> None:
    """The drivers require both, although there is no host between them."""
    assert with_database(f"mysql:///x{query}", "y") == f"mysql:///y{query}"
    assert with_database(f"mysql://u:p@/{query}", "y") == f"mysql://u:p@/y{query}"
