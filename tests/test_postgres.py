"""User and password of a PostgreSQL server, derived from its options."""

from pathlib import Path
from typing import Any

import pytest

from dockertest import File, InvalidOptionError, RunOptions
from dockertest._template import set_variables
from dockertest.postgres import _credentials, _made_fast

FILE = {"POSTGRES_PASSWORD_FILE": "/run/secrets/password"}


def server(**options: Any) -> RunOptions:
    """Return the options of a server."""
    return RunOptions(repository="postgres", **options)


@pytest.mark.parametrize(
    ("options", "user", "password"),
    [
        ({"env": {"POSTGRES_USER": "me", "POSTGRES_PASSWORD": "secret"}}, "me", "secret"),
        ({"env": FILE, "files": {"/run/secrets/password": "secret\n"}}, "postgres", "secret"),
        (
            {"env": {**FILE, "POSTGRES_PASSWORD": ""}, "files": {"/run/secrets/password": b"a b"}},
            "postgres",
            "a b",
        ),
    ],
)
def test_credentials_come_from_env_or_files(options: "dict[str, Any]", user: str, password: str) -> None:
    """A trailing newline of a file is ignored, and an empty variable counts as unset."""
    assert _credentials(server(**options), is_lasting=False) == (user, password)


def test_a_random_password_is_hard_to_guess() -> None:
    """By default each server has its own."""
    (user, first), (_, second) = (
        _credentials(server(), is_lasting=False),
        _credentials(server(), is_lasting=False),
    )
    assert (user, len(first)) == ("postgres", 32)
    assert first != second


def test_a_variable_and_its_file_are_not_both_set() -> None:
    """The image rejects both."""
    options = server(env=FILE, files={"/run/secrets/password": "secret"})
    assert sorted(set_variables(options, {"POSTGRES_USER": "postgres", "POSTGRES_PASSWORD": "secret"})) == [
        "POSTGRES_PASSWORD_FILE=/run/secrets/password",
        "POSTGRES_USER=postgres",
    ]


def test_arguments_of_initdb_are_kept() -> None:
    """That nothing has to reach the disk is added to them."""
    options = server(env={"POSTGRES_INITDB_ARGS": "--data-checksums"})
    assert "POSTGRES_INITDB_ARGS=--data-checksums --no-sync" in _made_fast(options, ["postgres"]).env


def test_a_password_may_be_in_a_file_with_an_owner() -> None:
    """The server's user has to read it."""
    options = server(env=FILE, files={"/run/secrets/password": File("secret\n", 0o400, "70:70")})
    assert _credentials(options, is_lasting=False) == ("postgres", "secret")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"env": {**FILE, "POSTGRES_PASSWORD": "x"}},
            "env: POSTGRES_PASSWORD and POSTGRES_PASSWORD_FILE are exclusive",
        ),
        (
            {"env": FILE},
            "env: POSTGRES_PASSWORD_FILE is '/run/secrets/password', which is not in files; put the file",
        ),
        ({"env": FILE, "files": {"/run/secrets/other": ""}}, "which is not in files"),
        (
            {"env": FILE, "files": {"/run/secrets/password": b"\xff"}},
            r"cannot read POSTGRES_PASSWORD_FILE from files\[",
        ),
        (
            {"env": FILE, "files": {"/run/secrets": Path(__file__).parent}},
            r"cannot read .*No such file or directory",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_rejected(options: "dict[str, Any]", message: str) -> None:
    """The password is needed for the URL."""
    with pytest.raises(InvalidOptionError, match=message):
        _credentials(server(**options), is_lasting=False)
