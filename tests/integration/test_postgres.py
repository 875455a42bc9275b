"""A database for each test: one server, one migration, many clones."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

import dockertest
from dockertest._template import ServerFields
from dockertest.postgres import TemplateDatabase
from tests.engines.fault_proxy import FaultProxy, cut

from .conftest import Engine

USUAL = "/var/lib/postgresql/data"
MODULE = """
import dockertest, json, psycopg, sys
from dockertest.postgres import TemplateDatabase

def migrate(url):
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE item (name text)")
        connection.execute("INSERT INTO item VALUES ('first')")
    with open(sys.argv[2], "a") as file:
        file.write("migrated\\n")

def template(pool):
    return TemplateDatabase(pool, migrate, version="1", name=sys.argv[1], reuse=True)
"""


def migrate(url: str) -> None:
    """
    Create a table with one row, and leave the connection open.

    Careless code does the same.
    """
    connection = psycopg.connect(url)
    connection.execute("CREATE TABLE item (name text)")
    connection.execute("INSERT INTO item VALUES ('first')")
    connection.commit()
    LEFT_OPEN.append(connection)


LEFT_OPEN: "list[psycopg.Connection[Any]]" = []


@pytest.fixture(autouse=True)
def _close_connections() -> Any:
    yield
    while LEFT_OPEN:
        LEFT_OPEN.pop().close()


def items(url: str) -> "list[str]":
    """Return the rows of the table."""
    with psycopg.connect(url) as connection:
        return [str(name) for (name,) in connection.execute("SELECT name FROM item ORDER BY name")]


def databases(template: TemplateDatabase) -> "set[str]":
    """Return the names of all databases on the server."""
    with psycopg.connect(template._clones.server.url("postgres")) as connection:
        return {str(name) for (name,) in connection.execute("SELECT datname FROM pg_database")}


@pytest.fixture(scope="module")
def template(pool: dockertest.Pool) -> Any:
    """One server for the tests that do not stop it."""
    with TemplateDatabase(pool, migrate) as template:
        yield template


class TestClones:
    """Each clone is an independent copy."""

    def test_a_clone_has_the_data_of_the_migration(self, template: TemplateDatabase) -> None:
        """Changes to one clone do not affect others."""
        with template.clone() as first, template.clone() as second:
            with psycopg.connect(first.url) as connection:
                connection.execute("INSERT INTO item VALUES ('second')")
            assert items(first.url) == ["first", "second"]
            assert items(second.url) == ["first"]
            assert first.name != second.name
            assert {first.name, second.name} <= databases(template)
        assert not {first.name, second.name} & databases(template)

    def test_it_is_dropped_although_clients_are_connected(self, template: TemplateDatabase) -> None:
        """A test may have forgotten to close a connection pool."""
        clone = template.clone()
        with psycopg.connect(clone.url) as connection:
            connection.execute("SELECT 1")
            clone.close()
            clone.close()
            assert clone.name not in databases(template)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
            connection.close()

    def test_settings_of_the_database_are_copied(self, pool: dockertest.Pool) -> None:
        """
        Settings for the database and for a role in it are copied.

        The server does not copy what a migration has SET.
        """

        def with_settings(url: str) -> None:
            with psycopg.connect(url) as connection:
                name = sql.Identifier(connection.info.dbname)
                for statement in (
                    "ALTER DATABASE {} SET search_path = 'a, b', public",
                    "ALTER DATABASE {} SET app.secret = 'it''s'",
                    "ALTER ROLE CURRENT_USER IN DATABASE {} SET work_mem = '7MB'",
                ):
                    connection.execute(sql.SQL(statement).format(name))

        query = "SELECT current_setting('search_path'), current_setting('app.secret'), current_setting('work_mem')"
        with TemplateDatabase(pool, with_settings) as own:
            for _ in range(2):
                with own.clone() as clone, psycopg.connect(clone.url) as connection:
                    assert connection.execute(query).fetchone() == ('"a, b", public', "it's", "7MB")
            with psycopg.connect(own._clones.server.url("postgres")) as connection:
                count = connection.execute("SELECT count(*) FROM pg_db_role_setting").fetchone()
            assert count == (2,)  # only those of the template

    def test_owner_and_privileges_of_the_database_are_copied(self, pool: dockertest.Pool, name: str) -> None:
        """Those of the template are the same, and nothing is done if it has the defaults."""
        query = (
            "SELECT pg_get_userbyid(datdba), datconnlimit, datacl::text FROM pg_database WHERE datname ="
            " current_database()"
        )
        found = []

        def with_owner(url: str) -> None:
            with psycopg.connect(url) as connection:
                for statement in (
                    'CREATE ROLE "the app"; CREATE ROLE reader',
                    'ALTER DATABASE {} OWNER TO "the app"',
                    "REVOKE ALL ON DATABASE {} FROM PUBLIC",
                    'REVOKE TEMPORARY ON DATABASE {} FROM "the app"',
                    "GRANT CONNECT ON DATABASE {} TO reader WITH GRANT OPTION",
                    "ALTER DATABASE {} CONNECTION LIMIT 7",
                ):
                    connection.execute(sql.SQL(statement).format(sql.Identifier(connection.info.dbname)))
                found.append(connection.execute(query).fetchone())

        cmd = ["postgres", "-c", "log_statement=all"]
        with TemplateDatabase(pool, with_owner, cmd=cmd, prepared=False) as own:
            for _ in range(2):
                with own.clone() as clone:
                    clone.restore()
                    with psycopg.connect(clone.url) as connection:
                        assert connection.execute(query).fetchone() == found[0]
        privileges = r'{"\"the app\"=Cc/\"the app\"","reader=c*/\"the app\""}'
        assert found == [("the app", 7, privileges)]
        with TemplateDatabase(pool, migrate, cmd=cmd, prepared=False) as own:
            own.clone().close()
            log = own.resource.logs()
        assert "DROP DATABASE" in log
        assert not any(word in log for word in ("OWNER TO", "CONNECTION LIMIT", "REVOKE", "GRANT"))

    @pytest.mark.parametrize(
        "is_forbidden",
        [False, pytest.param(True, marks=pytest.mark.differs("seccomp profiles"))],
        ids=["allowed", "forbidden"],
    )
    def test_blocks_of_files_are_shared(
        self, pool: dockertest.Pool, tmp_path: Path, is_forbidden: bool
    ) -> None:
        """
        PostgreSQL 18 copies files in the kernel where the system allows that.

        Otherwise, it copies them itself.
        """
        profile = tmp_path / "seccomp.json"
        rules = [{"names": ["copy_file_range"], "action": "SCMP_ACT_ERRNO"}] if is_forbidden else []
        profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
        options: dict[str, Any] = {"security_opt": [f"seccomp={profile}"]} if is_forbidden else {}
        cmd = ["postgres", "-c", "log_statement=all"]
        with TemplateDatabase(pool, migrate, tag="18", cmd=cmd, prepared=False, **options) as own:
            with own.clone() as clone:
                assert items(clone.url) == ["first"]
            log = own._clones.server.resource.logs()
        assert "SET file_copy_method = clone" in log
        assert ("RESET file_copy_method" in log) == ("could not clone file" in log) == is_forbidden

    def test_threads_can_clone_at_the_same_time(self, template: TemplateDatabase) -> None:
        """Each thread gets its own clones, and none is left."""
        names: list[str] = []

        def work() -> None:
            for _ in range(5):
                with template.clone() as clone:
                    assert items(clone.url) == ["first"]
                    names.append(clone.name)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(names)) == 40
        assert not set(names) & databases(template)

    def test_there_may_be_more_threads_than_connections(self, pool: dockertest.Pool) -> None:
        """They take turns, and leave connections for the tests."""
        failures: list[object] = []

        def work() -> None:
            try:
                for _ in range(2):
                    own.clone().close()
            except BaseException as error:  # noqa: BLE001 - shown by the test
                failures.append(error)

        cmd = ["postgres", "-c", "max_connections=10"]
        with TemplateDatabase(pool, migrate, cmd=cmd, prepared=False) as own:
            threads = [threading.Thread(target=work) for _ in range(24)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not failures
            with own.clone() as clone:
                assert items(clone.url) == ["first"]

    def test_a_client_may_stream_changes_of_a_clone(self, pool: dockertest.Pool) -> None:
        """Its replication slot ends with the clone, also if the client connects again."""
        cmd = ["postgres", "-c", "wal_level=logical"]
        with (
            TemplateDatabase(pool, migrate, cmd=cmd, prepared=False) as own,
            psycopg.connect(own._clones.server.url("postgres"), autocommit=True) as admin,
        ):
            clone = own.clone()

            def stream() -> None:
                # It connects again until the container is removed.
                with suppress(dockertest.DockertestError):
                    own.resource.exec(
                        f"pg_recvlogical -U postgres -d {clone.name} -S changes --start -f /dev/null".split()
                    )

            def is_streaming() -> bool:
                return admin.execute("SELECT active FROM pg_replication_slots").fetchone() == (True,)

            for end in (clone.restore, clone.close):
                with psycopg.connect(clone.url, autocommit=True) as connection:
                    connection.execute(
                        "SELECT pg_create_logical_replication_slot('changes', 'test_decoding')"
                    )
                threading.Thread(target=stream, daemon=True).start()
                dockertest.retry(is_streaming, max_wait=30)
                end()
                assert admin.execute("SELECT * FROM pg_replication_slots").fetchone() is None
            assert clone.name not in databases(own)

    def test_the_template_accepts_no_connections(self, template: TemplateDatabase) -> None:
        """PostgreSQL cannot copy a database that a client is connected to."""
        (name,) = (name for name in databases(template) if name.startswith("dockertest_template_"))
        with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
            psycopg.connect(template._clones.server.url(name))

    def test_a_clone_survives_a_restart_of_the_server(self, pool: dockertest.Pool, name: str) -> None:
        """
        Its connections are re-established at the new port.

        The lock that protects the session's clones is acquired again.
        """
        disk: ServerFields = {"env": {"PGDATA": USUAL}, "name": name, "reuse": True}
        try:
            with TemplateDatabase(pool, migrate, **disk) as own, own.clone() as clone:
                own.resource.restart()
                with own.clone() as another:
                    assert items(another.url) == ["first"]
                TemplateDatabase(pool, migrate, **disk).close()  # This drops the clones of dead sessions.
                assert clone.name in databases(own)
        finally:
            pool.remove_container_by_name(name)

    def test_a_server_that_lost_its_data_is_migrated_again(self, pool: dockertest.Pool) -> None:
        """The next `clone` does that. Existing clones are lost."""
        with TemplateDatabase(pool, migrate) as own, own.clone() as clone:
            own.resource.restart()
            with own.clone() as another:
                assert items(another.url) == ["first"]
            assert clone.name not in databases(own)

    def test_a_clone_can_be_restored(self, template: TemplateDatabase) -> None:
        """
        It gets its first content again under the same name.

        This works although clients are connected.
        """
        with template.clone() as clone:
            with psycopg.connect(clone.url) as connection:
                connection.execute("DROP TABLE item")
                connection.commit()
                clone.restore()
                with pytest.raises(psycopg.OperationalError):
                    connection.execute("SELECT 1")
                connection.close()
            assert items(clone.url) == ["first"]
            assert clone.name in databases(template)
        with pytest.raises(dockertest.ResourceClosedError, match="cannot be restored"):
            clone.restore()


class TestRunningServer:
    """A server that was not started by dockertest is used, and stays."""

    def test_it_needs_no_pool(self, template: TemplateDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
        """The URL is an argument or in the environment; afterwards no clone is left."""
        server = template._clones.server.url("")
        before = databases(template)
        with TemplateDatabase(None, migrate, version="other", server=server) as own, own.clone() as clone:
            assert items(clone.url) == ["first"]
            password = urlsplit(server).password
            assert password
            assert password not in f"{own!r} {clone!r}"
            with pytest.raises(dockertest.InvalidOptionError, match="there is no container"):
                _ = own.resource
        monkeypatch.setenv("DOCKERTEST_POSTGRES_URL", server)
        with TemplateDatabase(None, migrate, version="other") as own, own.clone() as clone:
            assert items(clone.url) == ["first"]
        assert len(databases(template) - before) == 1  # the template, for the next run

    def test_a_clone_in_use_is_not_dropped(self, template: TemplateDatabase) -> None:
        """A child of a dead process may still use its database."""
        server = template._clones.server.url("")
        name = "dockertest_clone_000000000000_00000000"
        with psycopg.connect(template._clones.server.url("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            with psycopg.connect(template._clones.server.url(name)):
                TemplateDatabase(None, migrate, server=server).close()
                assert name in databases(template)
        TemplateDatabase(None, migrate, server=server).close()
        assert name not in databases(template)

    def test_a_clone_of_another_user_is_left_alone(self, template: TemplateDatabase) -> None:
        """A user may not drop what a dead session of another user has left."""
        server = urlsplit(template._clones.server.url(""))
        name = "dockertest_clone_000000000001_00000000"
        with psycopg.connect(template._clones.server.url("postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            admin.execute("CREATE ROLE neighbour LOGIN CREATEDB PASSWORD 'x'")
            url = server._replace(netloc=f"neighbour:x@{server.netloc.rpartition('@')[2]}").geturl()
            with (
                TemplateDatabase(None, migrate, version="neighbour", server=url) as own,
                own.clone() as clone,
            ):
                assert items(clone.url) == ["first"]
            assert name in databases(template)
        TemplateDatabase(None, migrate, server=server.geturl()).close()
        assert name not in databases(template)

    def test_limits_of_the_server_do_not_apply(self, template: TemplateDatabase) -> None:
        """Others wait for a long migration, and clones live as long as a test run."""
        settings = dict.fromkeys(("statement_timeout", "lock_timeout", "idle_session_timeout"), "1min")
        settings["default_transaction_read_only"] = "on"
        with psycopg.connect(template._clones.server.url("postgres"), autocommit=True) as admin:
            admin.execute("CREATE ROLE limited LOGIN CREATEDB PASSWORD 'x'")
            for setting, value in settings.items():
                change = sql.SQL("ALTER ROLE limited SET {} = {}")
                admin.execute(change.format(sql.Identifier(setting), sql.Literal(value)))
        server = urlsplit(template._clones.server.url(""))
        url = server._replace(netloc=f"limited:x@{server.netloc.rpartition('@')[2]}").geturl()
        with (
            TemplateDatabase(None, print, server=url) as own,
            own.clone() as clone,
            own._clones.admin() as connection,
        ):
            shown = [connection.execute(f"SHOW {setting}").fetchone() for setting in settings]
            assert shown == [("0",), ("0",), ("0",), ("off",)]
            assert clone.name in databases(template)

    def test_a_database_in_the_query_is_not_used(self, template: TemplateDatabase) -> None:
        """It may be a real one of the user."""
        server = f"{template._clones.server.url('')}?dbname=postgres"
        with TemplateDatabase(None, migrate, version="query", server=server) as own, own.clone() as clone:
            with psycopg.connect(clone.url) as connection:
                assert connection.info.dbname == clone.name
            assert items(clone.url) == ["first"]
        with psycopg.connect(template._clones.server.url("postgres")) as connection:
            assert connection.execute("SELECT to_regclass('item')").fetchone() == (None,)

    def test_settings_are_copied_by_a_user_with_few_rights(self, template: TemplateDatabase) -> None:
        """
        The owner of a database may also make these settings.

        Only a superuser may change the catalogue.
        """

        def with_settings(url: str) -> None:
            with psycopg.connect(url) as connection:
                name = sql.Identifier(connection.info.dbname)
                for target in ("DATABASE {}", "ROLE few IN DATABASE {}"):
                    for change in ("search_path = 'a, b', public", "work_mem = '7MB'"):
                        connection.execute(sql.SQL(f"ALTER {target} SET {change}").format(name))

        with psycopg.connect(template._clones.server.url("postgres"), autocommit=True) as admin:
            admin.execute("CREATE ROLE few LOGIN CREATEDB PASSWORD 'x'")
        server = urlsplit(template._clones.server.url(""))
        url = server._replace(netloc=f"few:x@{server.netloc.rpartition('@')[2]}").geturl()
        query = "SELECT current_setting('search_path'), current_setting('work_mem')"
        with TemplateDatabase(None, with_settings, server=url) as own:
            for _ in range(2):
                with own.clone() as clone, psycopg.connect(clone.url) as connection:
                    assert connection.execute(query).fetchone() == ('"a, b", public', "7MB")

    def test_a_template_of_another_user_can_be_cloned(self, template: TemplateDatabase) -> None:
        """
        Its privileges are copied, and each user owns the clones that it makes.

        Only members of a role may assign databases to it.
        """

        def with_privileges(url: str) -> None:
            with psycopg.connect(url) as connection:
                name = sql.Identifier(connection.info.dbname)
                connection.execute(sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(name))

        server = urlsplit(template._clones.server.url(""))
        query = (
            "SELECT current_user = pg_get_userbyid(datdba), datacl::text FROM pg_database WHERE datname = %s"
        )
        for user in ("first_user", "second_user"):
            with psycopg.connect(template._clones.server.url("postgres"), autocommit=True) as admin:
                admin.execute(f"CREATE ROLE {user} LOGIN CREATEDB PASSWORD 'x'")
            url = server._replace(netloc=f"{user}:x@{server.netloc.rpartition('@')[2]}").geturl()
            with (
                TemplateDatabase(None, with_privileges, server=url) as own,
                own.clone() as clone,
                psycopg.connect(clone.url) as connection,
            ):
                row = connection.execute(query, [clone.name]).fetchone()
                assert row
                assert row[0]
                assert f"=c/{user}" in row[1]

    def test_a_worker_of_autovacuum_does_not_disturb(self, pool: dockertest.Pool) -> None:
        """
        It may run in the template after the migration, and in a clone that is dropped.

        Only superusers may end it. The server ends it when the database is copied or dropped.
        """
        cmd = ["postgres", "-c", "fsync=off"]
        cmd += ["-c", "autovacuum_naptime=1", "-c", "autovacuum_vacuum_cost_delay=100"]
        cmd += ["-c", "autovacuum_vacuum_cost_limit=1", "-c", "autovacuum_max_workers=20"]
        env = {"POSTGRES_PASSWORD": "x"}
        query = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = %s"

        def change(url: str, statement: LiteralString) -> None:
            """Run a statement, and wait for the worker that comes because of it."""
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(statement)
                name = connection.info.dbname

            def has_worker() -> bool:
                return admin.execute(query, [name]).fetchone() is not None

            dockertest.retry(has_worker, max_wait=60)

        def with_garbage(url: str) -> None:
            with psycopg.connect(url) as connection:
                connection.execute("CREATE TABLE big AS SELECT i FROM generate_series(1, 60000) i")
            change(url, "DELETE FROM big WHERE i % 2 = 0")

        with (
            pool.run("postgres", "15", cmd=cmd, env=env, wait_for="ready") as server,
            psycopg.connect(server.url(), autocommit=True) as admin,
        ):
            admin.execute("CREATE ROLE few LOGIN CREATEDB PASSWORD 'x'")
            url = f"postgresql://few:x@{server.get_host_port(5432)}/"
            with TemplateDatabase(None, with_garbage, server=url) as own:
                clone = own.clone()
                change(clone.url, "UPDATE big SET i = 1")
                clone.restore()
                change(clone.url, "UPDATE big SET i = 1")
                clone.close()

    def test_a_clone_that_cannot_be_dropped_does_not_keep_the_others(
        self, template: TemplateDatabase, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A replication slot, for example, prevents that; everything else is closed."""
        server = urlsplit(template._clones.server.url(""))
        with psycopg.connect(template._clones.server.url("postgres"), autocommit=True) as admin:
            admin.execute("CREATE ROLE owner LOGIN CREATEDB PASSWORD 'x'")
            url = server._replace(netloc=f"owner:x@{server.netloc.rpartition('@')[2]}").geturl()
            own = TemplateDatabase(None, migrate, version="owner", server=url)
            first, second = own.clone(), own.clone()
            admin.execute(sql.SQL("ALTER DATABASE {} OWNER TO postgres").format(sql.Identifier(first.name)))
            own.close()
            assert {first.name, second.name} & databases(template) == {first.name}
            assert f"cannot drop {first.name} yet" in caplog.text
            admin.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(first.name)))


class TestPreparedImages:
    """A server is started from an image of one that was set up and filled before."""

    def test_a_later_server_has_the_template(self, pool: dockertest.Pool, engine: Engine, name: str) -> None:
        """
        With a known version, no migration runs, and a new version is migrated.

        The data is in memory.
        """
        called: list[str] = []

        def counted(url: str) -> None:
            called.append(url)
            migrate(url)

        images = []
        try:
            for version in (name, name, f"{name}-2"):
                with TemplateDatabase(pool, counted, version=version) as own, own.clone() as clone:
                    images.append(engine.inspect(own.resource.id)["Image"])
                    assert items(clone.url) == ["first"]
                    kind = own.resource.exec(["stat", "-f", "-c", "%T", "/dockertest/data"], check=True)
                    assert kind.stdout == "tmpfs\n"
                    own.resource.restart()
                    with own.clone() as another:
                        assert items(another.url) == ["first"]
            assert len(called) == 2
            assert images[0] == images[1] != images[2]
        finally:
            for image in images[-2:]:
                engine.client.images.remove(image, force=True)

    def test_a_server_of_another_user_is_prepared(
        self, pool: dockertest.Pool, engine: Engine, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        Data of users other than root is in the image's file system.

        Only root can fill a tmpfs. On Podman, such a server is not prepared.
        """
        for _ in range(2):
            with TemplateDatabase(pool, migrate, user="postgres") as own, own.clone() as clone:
                assert items(clone.url) == ["first"]
                tags = engine.client.images.get(engine.inspect(own.resource.id)["Image"]).tags
                assert ("prepared.dockertest.invalid" in str(tags)) != engine.is_podman
        assert caplog.text == ""

    def test_without_a_version_every_server_is_migrated(self, pool: dockertest.Pool, engine: Engine) -> None:
        """The function may read files, and nothing shows that these have changed."""
        called: list[str] = []
        images = []
        for prepared in (None, None, False):
            with TemplateDatabase(pool, called.append, prepared=prepared) as own:
                images.append(str(engine.client.images.get(engine.inspect(own.resource.id)["Image"]).tags))
        assert len(called) == 3
        assert images[0] == images[1]
        assert "prepared.dockertest.invalid" in images[0]
        assert "prepared.dockertest.invalid" not in images[2]

    def test_a_migration_that_fails_leaves_no_image(
        self, pool: dockertest.Pool, engine: Engine, name: str
    ) -> None:
        """Its error propagates unchanged."""

        def failing(url: str) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            TemplateDatabase(pool, failing, version=name, labels={name: "1"})
        assert not engine.labelled(name)
        assert not engine.images(name)


class TestServer:
    """How the server is started and removed."""

    def test_closing_a_template_removes_its_server(self, engine: Engine) -> None:
        """Closing again has no effect, and `clone` fails."""
        with dockertest.Pool() as pool:
            template = TemplateDatabase(pool, migrate)
            clone = template.clone()
            template.close()
            template.close()
            assert not engine.has(template.resource.id)
            clone.close()
            with pytest.raises(dockertest.ResourceClosedError):
                template.clone()

    def test_fast_settings(self, template: TemplateDatabase, pool: dockertest.Pool) -> None:
        """They are the default and can be turned off. A command in the options is kept."""
        query = "SELECT current_setting('fsync'), current_setting('max_connections')"
        with psycopg.connect(template._clones.server.url("postgres")) as connection:
            assert connection.execute(query).fetchone() == ("off", "100")
        command = ["postgres", "-c", "fsync=on", "-c", "max_connections=17"]
        with (
            TemplateDatabase(pool, migrate, cmd=command, prepared=False) as own,
            psycopg.connect(own._clones.server.url("postgres")) as connection,
        ):
            assert connection.execute(query).fetchone() == ("on", "17")
        command = ["postgres", "-c", "max_connections=17"]
        with TemplateDatabase(pool, migrate, fast=False, cmd=command) as safe:
            with psycopg.connect(safe._clones.server.url("postgres")) as connection:
                assert connection.execute(query).fetchone() == ("on", "17")
            with safe.clone() as clone:
                assert items(clone.url) == ["first"]

    def test_the_command_of_the_image_is_kept(
        self, pool: dockertest.Pool, engine: Engine, name: str, tmp_path: Path
    ) -> None:
        """Some images load extensions there, so the settings are appended."""
        (tmp_path / "Dockerfile").write_text(
            f'FROM {pool.image_prefix}postgres:15\nCMD ["postgres", "-c", "max_connections=17"]\n'
        )
        image, _ = engine.client.images.build(path=str(tmp_path), tag=name, rm=True)
        try:
            with (
                TemplateDatabase(pool, migrate, repository=str(image.id), tag=None, prepared=False) as own,
                psycopg.connect(own._clones.server.url("postgres")) as connection,
            ):
                query = "SELECT current_setting('fsync'), current_setting('max_connections')"
                assert connection.execute(query).fetchone() == ("off", "17")
        finally:
            engine.client.images.remove(name)

    @pytest.mark.parametrize(
        ("options", "folder", "in_memory"),
        [
            ({}, "/dockertest/data", True),
            ({"tmpfs": ["/other"]}, "/dockertest/data", True),
            ({"tmpfs": {USUAL: "size=512m"}}, USUAL, True),
            ({"env": {"PGDATA": "/tmp/data"}}, "/tmp/data", False),
            ({"mounts": ["NAME:/var/lib/postgresql"]}, USUAL, False),
            ({"fast": False}, USUAL, False),
        ],
    )
    def test_the_location_of_the_data(
        self,
        pool: dockertest.Pool,
        engine: Engine,
        name: str,
        options: "dict[str, Any]",
        folder: str,
        in_memory: bool,
    ) -> None:
        """The data is in memory, unless the options contain a location."""
        if mounts := options.get("mounts"):
            options = {
                "mounts": [mount.replace("NAME", name) for mount in mounts]
            }  # These cannot be prepared.
        else:
            options = {**options, "prepared": False}
        try:
            with TemplateDatabase(pool, migrate, **options) as own, own.clone() as clone:
                assert items(clone.url) == ["first"]
                with psycopg.connect(clone.url) as connection:
                    row = connection.execute("SELECT current_setting('data_directory')").fetchone()
                kind = own.resource.exec(["stat", "-f", "-c", "%T", folder], check=True).stdout.strip()
        finally:
            for volume in engine.client.volumes.list(filters={"name": name}):
                volume.remove()
        assert row == (folder,)
        assert (kind == "tmpfs") == in_memory

    def test_user_and_password_are_quoted(self, pool: dockertest.Pool) -> None:
        """They may contain any characters."""
        env = {"POSTGRES_USER": "odd us@er", "POSTGRES_PASSWORD": "p@ss:w/ord%20"}
        with TemplateDatabase(pool, migrate, env=env, prepared=False) as own, own.clone() as clone:
            assert items(clone.url) == ["first"]

    @pytest.mark.parametrize("is_folder", [False, True], ids=["file", "folder"])
    def test_user_and_password_may_be_in_files(
        self, pool: dockertest.Pool, tmp_path: Path, is_folder: bool
    ) -> None:
        """
        Only `POSTGRES_PASSWORD_FILE` is set, without `POSTGRES_PASSWORD`.

        The image refuses both together.
        """
        (tmp_path / "user").write_text("some one\n")
        (tmp_path / "password").write_text("p@ss:w/ord%20\n\n")
        env = {"POSTGRES_USER_FILE": "/run/secrets/user", "POSTGRES_PASSWORD_FILE": "/run/secrets/./password"}
        files: dict[str, Any] = {
            "/run/secrets/user": "some one",
            "/run/secrets/password": tmp_path / "password",
        }
        if is_folder:
            tmp_path.chmod(0o755)  # The server reads it as another user.
            files = {"/run/secrets": tmp_path}
        with (
            TemplateDatabase(pool, migrate, env=env, files=files, prepared=False) as own,
            own.clone() as clone,
        ):
            assert items(clone.url) == ["first"]
            assert clone.url.startswith("postgresql://some%20one:p%40ss%3Aw%2Ford%2520@")

    def test_the_password_is_only_in_the_url(self, template: TemplateDatabase, engine: Engine) -> None:
        """It is in no repr and no label."""
        with template.clone() as clone:
            shown = f"{template!r} {clone!r} {template.resource!r} {engine.inspect(template.resource.id)['Config']['Labels']}"
            password = urlsplit(clone.url).password
            assert password
            assert password not in shown

    @pytest.mark.parametrize("prepared", [True, False])
    def test_a_migration_that_is_not_awaited_leaves_nothing(
        self, pool: dockertest.Pool, engine: Engine, name: str, *, prepared: bool
    ) -> None:
        """The clones would be empty."""

        async def later(url: str) -> None:
            raise AssertionError

        label = {name: "1"}
        with pytest.raises(
            dockertest.InvalidOptionError, match=r"^migrate is a coroutine function: "
        ) as raised:
            TemplateDatabase(pool, lambda url: later(url), version=name, prepared=prepared, labels=label)
        assert "asyncio.run" in raised.value.hint
        assert not engine.labelled(name)

    def test_a_migration_that_fails_leaves_no_template(self, pool: dockertest.Pool, name: str) -> None:
        """
        Its error propagates unchanged.

        The next migration starts with an empty database.
        """
        failing = [True]

        def sometimes(url: str) -> None:
            migrate(url)
            if failing:
                raise ZeroDivisionError

        try:
            with pytest.raises(ZeroDivisionError):
                TemplateDatabase(pool, sometimes, name=name, reuse=True)
            failing.clear()
            with TemplateDatabase(pool, sometimes, name=name, reuse=True) as own, own.clone() as clone:
                assert items(clone.url) == ["first"]
        finally:
            pool.remove_container_by_name(name)

    def test_the_exit_of_the_server_is_reported(self, pool: dockertest.Pool, engine: Engine) -> None:
        """The error has the exit code and last log lines, not a refused connection."""
        with TemplateDatabase(pool, migrate) as own:
            engine.client.containers.get(own.resource.id).kill()
            with pytest.raises(dockertest.ContainerExitedError, match="exit code 137"):
                own.clone()

    def test_a_template_whose_server_has_exited_can_be_closed(
        self, pool: dockertest.Pool, engine: Engine, name: str
    ) -> None:
        """
        With `reuse`, too, the clones are lost with the server.

        No error hides that of the body.
        """

        def end(server: Any) -> None:
            server.kill()
            raise KeyboardInterrupt

        try:
            with TemplateDatabase(pool, migrate, name=name, reuse=True) as own:
                server = engine.client.containers.get(own.resource.id)
                with pytest.raises(KeyboardInterrupt), own.clone():
                    end(server)
            with pytest.raises(dockertest.ResourceClosedError):
                own.clone()
        finally:
            pool.remove_container_by_name(name)


class TestSharing:
    """One server and one migration serve many processes and runs."""

    def run(self, name: str, log: Path, code: str) -> "subprocess.Popen[str]":
        """Start a process that runs the module above and then *code*."""
        return subprocess.Popen(
            [sys.executable, "-c", MODULE + code, name, str(log)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
            env=dict(os.environ),
        )

    def test_eight_processes_share_one_migration(
        self, pool: dockertest.Pool, name: str, tmp_path: Path
    ) -> None:
        """Their clones are independent, and none is left."""
        code = """
with dockertest.Pool() as pool, template(pool) as own:
    for _ in range(12):
        with own.clone() as clone, psycopg.connect(clone.url) as connection:
            connection.execute("INSERT INTO item VALUES ('second')")
            assert connection.execute("SELECT count(*) FROM item").fetchone() == (2,)
    print(own.resource.id)
"""
        log = tmp_path / "log"
        try:
            started = [self.run(name, log, code) for _ in range(8)]
            ids = {process.communicate()[0] for process in started}
            assert {process.returncode for process in started} == {0}
            assert len(ids) == 1
            assert log.read_text() == "migrated\n"
            again = self.run(name, log, code)
            assert {again.communicate()[0]} == ids
            assert log.read_text() == "migrated\n"
            assert self.clones(pool, name) == []
        finally:
            pool.remove_container_by_name(name)

    def clones(self, pool: dockertest.Pool, name: str) -> "list[str]":
        """Return the clones on the server."""
        server = pool.container_by_name(name)
        assert server is not None
        query = "SELECT datname FROM pg_database WHERE datname LIKE 'dockertest\\_clone%'"
        return server.exec(["psql", "-U", "postgres", "-Atc", query], check=True).stdout.split()

    def test_clones_of_a_killed_process_are_dropped(
        self, pool: dockertest.Pool, name: str, tmp_path: Path
    ) -> None:
        """The next process drops them, but not the clones of a living process."""
        waiting = """
pool = dockertest.Pool()
own = template(pool)
print(json.dumps(own.clone().name), flush=True)
sys.stdin.readline()
"""
        log = tmp_path / "log"
        try:
            living, killed = self.run(name, log, waiting), self.run(name, log, waiting)
            names = [json.loads(process.stdout.readline()) for process in (living, killed) if process.stdout]
            killed.send_signal(signal.SIGKILL)
            killed.communicate()

            def is_only_the_living_one_left() -> bool:
                third = self.run(
                    name, log, "dockertest.Pool().__enter__(); template(dockertest.Pool()).close()"
                )
                third.communicate()
                assert third.returncode == 0
                return self.clones(pool, name) == [names[0]]

            # It takes a moment until the server notices that its client is gone.
            dockertest.retry(is_only_the_living_one_left, max_wait=20)
            living.communicate("\n")
        finally:
            pool.remove_container_by_name(name)

    def test_each_version_has_its_own_template(self, pool: dockertest.Pool, name: str) -> None:
        """The templates are on the same server, and an earlier version can be used again."""
        called: list[str] = []

        def counted(url: str) -> None:
            called.append(url)

        try:
            for version in ("1", "2", "1"):
                TemplateDatabase(pool, counted, version=version, name=name, reuse=True).close()
            assert len(called) == 2
        finally:
            pool.remove_container_by_name(name)

    def test_a_group_shares_a_server(self, pool: dockertest.Pool, name: str) -> None:
        """The password is derived from the name, so other users of the engine know it."""
        first = TemplateDatabase(pool, migrate, reuse=name)
        second = TemplateDatabase(pool, migrate, reuse=name)
        assert first.resource.id == second.resource.id
        with second.clone() as clone:
            assert items(clone.url) == ["first"]
        second.close()
        first.close()
        pool.purge(first.resource)


class TestKeeping:
    """Databases can be kept for inspection."""

    def test_a_clone_can_be_kept(self, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
        """
        Its URL works after everything is closed.

        The command that removes the server is printed.
        """
        with dockertest.Pool() as pool, TemplateDatabase(pool, migrate) as own:
            kept, dropped = own.clone(), own.clone()
            kept.keep()
            kept.close()
        try:
            output = capsys.readouterr().err
            assert f"kept database {kept.url}" in output
            assert f"remove: docker rm -f -v {own.resource.id[:12]}" in output
            assert items(kept.url) == ["first"]
            assert dropped.url not in output
        finally:
            engine.remove(own.resource.id)

    def test_a_kept_server_survives_an_unanswered_request(
        self, tmp_path: Path, engine: Engine, local: str
    ) -> None:
        """
        Closing the pool does not remove it.

        After a create request without a response, closing the pool removes containers by their labels.
        """
        with FaultProxy(tmp_path / "front.sock", local).running() as proxy:
            with dockertest.Pool(proxy.endpoint) as pool, TemplateDatabase(pool, migrate) as own:
                kept = own.clone()
                kept.keep()
                other = pool.run("busybox:1.35", cmd=["sleep", "600"])
                proxy.next("^POST .*/containers/create", cut(0))
                with pytest.raises(dockertest.EngineError):
                    pool.run("busybox:1.35", cmd=["sleep", "600"])
            try:
                assert items(kept.url) == ["first"]
                assert not engine.has(other.id)
                assert engine.labelled(f"dockertest.session={pool._runtime.session.id}") == [own.resource.id]
            finally:
                engine.remove(own.resource.id)

    def test_a_pool_that_keeps_keeps_clones(self, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
        """Their URLs are printed."""
        with dockertest.Pool(keep=True) as pool, TemplateDatabase(pool, migrate) as own:
            clone = own.clone()
            clone.close()
        try:
            assert f"kept database {clone.url}" in capsys.readouterr().err
            assert items(clone.url) == ["first"]
        finally:
            engine.remove(own.resource.id)


def test_a_forked_child_leaves_its_parents_server_alone(pool: dockertest.Pool, name: str) -> None:
    """The parent's clones and server stay, and both processes can make more clones."""
    with TemplateDatabase(pool, migrate, name=name, reuse=name) as template, template.clone() as parents:
        pid = os.fork()
        if not pid:
            status = 1
            try:
                with template.clone() as clone:
                    status = 0 if items(clone.url) == ["first"] else 2
                parents.close()
                template.close()
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert items(parents.url) == ["first"]
        with template.clone() as clone:
            assert items(clone.url) == ["first"]
        pool.purge(template.resource)
