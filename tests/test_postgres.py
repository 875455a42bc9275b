"""User and password of a PostgreSQL server, derived from its options."""

from pathlib import Path
from typing import Any

import pytest

from dockertest import File, InvalidOptionError, RunOptions
from dockertest._template import missing_settings, set_variables
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
    """That nothing has to reach the disk is added, as all versions spell it."""
    options = server(env={"POSTGRES_INITDB_ARGS": "--data-checksums"})
    assert "POSTGRES_INITDB_ARGS=--data-checksums -N" in _made_fast(options, ["postgres"]).env


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (["-c", "max_wal_size=4GB", "-c", "synchronous_commit=on"], ["fsync=off", "full_page_writes=off"]),
        (
            ["-cfsync=on", "--max-wal-size=4GB", "--Full_Page_Writes=on", "-c", "work_mem=1MB"],
            ["synchronous_commit=off"],
        ),
    ],
)
def test_settings_of_the_command_are_kept(command: "list[str]", kept: "list[str]") -> None:
    """The last of two settings would win, so only missing ones are added."""
    command = ["postgres", *command]
    expected = [*command, *(word for setting in kept for word in ("-c", setting))]
    assert list(_made_fast(server(cmd=command), []).cmd or ()) == expected
    assert list(_made_fast(server(), command).cmd or ()) == expected


def test_a_setting_of_mysql_has_several_spellings() -> None:
    """Prefixes and underscores make no difference."""
    ours = ["--skip-log-bin", "--loose-innodb-log-file-size=1", "--sync-binlog=0", "--skip-name-resolve"]
    for command, missing in (
        (["--log_bin=x", "--loose_innodb_redo_log_capacity=1", "--sync_binlog=1"], ["--skip-name-resolve"]),
        (["--disable-log-bin", "--skip-name-resolve=OFF"], ours[1:3]),
        (["--log-bin-index=x", "log", "-c"], ours),
    ):
        assert missing_settings(ours, command) == missing


def test_large_segments_of_the_log_fit() -> None:
    """PostgreSQL does not start if the log must not have two of them."""
    options = server(env={"POSTGRES_INITDB_ARGS": "--wal-segsize=128"})
    assert "max_wal_size" not in str(_made_fast(options, ["postgres"]).cmd)
    assert "max_wal_size" in str(_made_fast(server(), ["postgres"]).cmd)


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
