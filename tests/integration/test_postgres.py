"""A database of its own for every test: one server, one migration, many clones."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import dockertest
from dockertest.postgres import ServerFields, TemplateDatabase

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
    """Make a table with something in it, and leave the connection open, as careless code does."""
    connection = psycopg.connect(url)
    connection.execute("CREATE TABLE item (name text)")
    connection.execute("INSERT INTO item VALUES ('first')")
    connection.commit()
    LEFT_OPEN.append(connection)


LEFT_OPEN: "list[psycopg.Connection[Any]]" = []


@pytest.fixture(autouse=True)
def _close_what_was_left_open() -> Any:
    yield
    while LEFT_OPEN:
        LEFT_OPEN.pop().close()


def items(url: str) -> "list[str]":
    """Give what is in the table."""
    with psycopg.connect(url) as connection:
        return [str(name) for (name,) in connection.execute("SELECT name FROM item ORDER BY name")]


def databases(template: TemplateDatabase) -> "set[str]":
    """Give the names of all databases on the server."""
    with psycopg.connect(template._url("postgres")) as connection:
        return {str(name) for (name,) in connection.execute("SELECT datname FROM pg_database")}


@pytest.fixture(scope="module")
def template(pool: dockertest.Pool) -> Any:
    """One server for the tests that do not end it."""
    with TemplateDatabase(pool, migrate) as template:
        yield template


class TestClones:
    """Each is a copy, and nobody else's."""

    def test_a_clone_has_what_the_migration_made(self, template: TemplateDatabase) -> None:
        """And what one test writes, no other sees."""
        with template.clone() as one, template.clone() as two:
            with psycopg.connect(one.url) as connection:
                connection.execute("INSERT INTO item VALUES ('second')")
            assert items(one.url) == ["first", "second"]
            assert items(two.url) == ["first"]
            assert one.name != two.name
            assert {one.name, two.name} <= databases(template)
        assert not {one.name, two.name} & databases(template)

    def test_it_is_dropped_whoever_is_connected(self, template: TemplateDatabase) -> None:
        """A connection pool that a test forgot is no reason to leave it."""
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
        """Those that the migration SET for it, or for a role in it: the server itself leaves them out."""

        def with_settings(url: str) -> None:
            with psycopg.connect(url) as connection:
                name = sql.Identifier(connection.info.dbname)
                for statement in (
                    "ALTER DATABASE {} SET search_path = 'a, b', public",
                    "ALTER DATABASE {} SET app.secret = 'it''s'",
                    "ALTER ROLE CURRENT_USER IN DATABASE {} SET work_mem = '7MB'",
                ):
                    connection.execute(sql.SQL(statement).format(name))

        asked = "SELECT current_setting('search_path'), current_setting('app.secret'), current_setting('work_mem')"
        with TemplateDatabase(pool, with_settings) as own:
            for _ in range(2):
                with own.clone() as clone, psycopg.connect(clone.url) as connection:
                    assert connection.execute(asked).fetchone() == ('"a, b", public', "it's", "7MB")
            with psycopg.connect(own._url("postgres")) as connection:
                count = connection.execute("SELECT count(*) FROM pg_db_role_setting").fetchone()
            assert count == (2,)  # the template's own

    def test_many_threads_at_once(self, template: TemplateDatabase) -> None:
        """Each gets its own, and none is left."""
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

    def test_nobody_can_change_the_template(self, template: TemplateDatabase) -> None:
        """It could not be copied while somebody is connected."""
        (name,) = (each for each in databases(template) if each.startswith("dockertest_template_"))
        with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
            psycopg.connect(template._url(name))

    def test_a_clone_survives_a_restart_of_the_server(self, pool: dockertest.Pool, name: str) -> None:
        """Connections of the restarted server are made anew, at its new port, and say again whose clones are in use."""
        disk: ServerFields = {"env": {"PGDATA": USUAL}, "name": name, "reuse": True}
        try:
            with TemplateDatabase(pool, migrate, **disk) as own, own.clone() as clone:
                own.resource.restart()
                with own.clone() as another:
                    assert items(another.url) == ["first"]
                TemplateDatabase(pool, migrate, **disk).close()  # which drops what the dead left
                assert clone.name in databases(own)
        finally:
            pool.remove_container_by_name(name)

    def test_a_server_that_lost_its_memory_is_migrated_anew(self, pool: dockertest.Pool) -> None:
        """By the next clone; what was in the others is lost."""
        with TemplateDatabase(pool, migrate) as own, own.clone() as clone:
            own.resource.restart()
            with own.clone() as another:
                assert items(another.url) == ["first"]
            assert clone.name not in databases(own)


class TestServer:
    """What it is started with, and how it ends."""

    def test_it_goes_with_its_template(self, engine: Engine) -> None:
        """And nothing works on it afterwards; closing twice is nothing."""
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
        """By default, and beside a command of one's own; without them if asked."""
        asked = "SELECT current_setting('fsync'), current_setting('max_connections')"
        with psycopg.connect(template._url("postgres")) as connection:
            assert connection.execute(asked).fetchone() == ("off", "100")
        command = ["postgres", "-c", "max_connections=17"]
        with TemplateDatabase(pool, migrate, fast=False, cmd=command) as safe:
            with psycopg.connect(safe._url("postgres")) as connection:
                assert connection.execute(asked).fetchone() == ("on", "17")
            with safe.clone() as clone:
                assert items(clone.url) == ["first"]

    def test_the_images_own_command_counts(
        self, pool: dockertest.Pool, engine: Engine, name: str, tmp_path: Path
    ) -> None:
        """Images with extensions load them there: our settings come after it."""
        (tmp_path / "Dockerfile").write_text(
            f'FROM {pool.image_prefix}postgres:15\nCMD ["postgres", "-c", "max_connections=17"]\n'
        )
        image, _ = engine.client.images.build(path=str(tmp_path), tag=name, rm=True)
        try:
            with (
                TemplateDatabase(pool, migrate, repository=str(image.id), tag=None) as own,
                psycopg.connect(own._url("postgres")) as connection,
            ):
                asked = "SELECT current_setting('fsync'), current_setting('max_connections')"
                assert connection.execute(asked).fetchone() == ("off", "17")
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
    def test_where_the_data_are(
        self,
        pool: dockertest.Pool,
        engine: Engine,
        name: str,
        options: "dict[str, Any]",
        folder: str,
        in_memory: bool,
    ) -> None:
        """In memory, unless the user has a place for them."""
        if mounts := options.get("mounts"):
            options = {"mounts": [each.replace("NAME", name) for each in mounts]}
        try:
            with TemplateDatabase(pool, migrate, **options) as own, own.clone() as clone:
                assert items(clone.url) == ["first"]
                with psycopg.connect(clone.url) as connection:
                    told = connection.execute("SELECT current_setting('data_directory')").fetchone()
                kind = own.resource.exec(["stat", "-f", "-c", "%T", folder], check=True).stdout.strip()
        finally:
            for volume in engine.client.volumes.list(filters={"name": name}):
                volume.remove()
        assert told == (folder,)
        assert (kind == "tmpfs") == in_memory

    def test_a_user_with_an_odd_name(self, pool: dockertest.Pool) -> None:
        """Name and password may have any characters; they are quoted."""
        env = {"POSTGRES_USER": "odd us@er", "POSTGRES_PASSWORD": "p@ss:w/ord%20"}
        with TemplateDatabase(pool, migrate, env=env) as own, own.clone() as clone:
            assert items(clone.url) == ["first"]

    def test_the_password_is_shown_nowhere(self, template: TemplateDatabase, engine: Engine) -> None:
        """But in the URL that was asked for."""
        with template.clone() as clone:
            shown = f"{template!r} {clone!r} {template.resource!r} {engine.inspect(template.resource.id)['Config']['Labels']}"
            assert template._password not in shown
            assert template._password in clone.url

    def test_a_migration_that_fails_leaves_no_template(self, pool: dockertest.Pool, name: str) -> None:
        """Its error comes out as it is, and the next one starts from nothing."""
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

    def test_a_server_that_ends_is_told(self, pool: dockertest.Pool, engine: Engine) -> None:
        """With its exit code and last lines, instead of a refused connection."""
        with TemplateDatabase(pool, migrate) as own:
            engine.client.containers.get(own.resource.id).kill()
            with pytest.raises(dockertest.ContainerExitedError, match="exit code 137"):
                own.clone()

    def test_a_server_that_has_ended_is_closed(
        self, pool: dockertest.Pool, engine: Engine, name: str
    ) -> None:
        """One that is reused, too: its clones went with it, and no failure of ours hides one of the body."""
        try:
            with TemplateDatabase(pool, migrate, name=name, reuse=True) as own:
                own.clone()
                engine.client.containers.get(own.resource.id).kill()
            with pytest.raises(dockertest.ResourceClosedError):
                own.clone()
        finally:
            pool.remove_container_by_name(name)


class TestSharing:
    """One server and one migration for many processes and runs."""

    def run(self, name: str, log: Path, code: str) -> "subprocess.Popen[str]":
        """Start a process with the module above."""
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
        """Their clones, five hundred in all, are each its taker's own, and none is left."""
        code = """
with dockertest.Pool() as pool, template(pool) as own:
    for _ in range(63):
        with own.clone() as clone, psycopg.connect(clone.url) as connection:
            connection.execute("INSERT INTO item VALUES ('second')")
            assert connection.execute("SELECT count(*) FROM item").fetchone() == (2,)
    print(own.resource.id)
"""
        log = tmp_path / "log"
        try:
            started = [self.run(name, log, code) for _ in range(8)]
            ids = {each.communicate()[0] for each in started}
            assert {each.returncode for each in started} == {0}
            assert len(ids) == 1
            assert log.read_text() == "migrated\n"
            again = self.run(name, log, code)
            assert {again.communicate()[0]} == ids
            assert log.read_text() == "migrated\n"
            assert self.clones(pool, name) == []
        finally:
            pool.remove_container_by_name(name)

    def clones(self, pool: dockertest.Pool, name: str) -> "list[str]":
        """Ask the server itself."""
        server = pool.container_by_name(name)
        assert server is not None
        asked = "SELECT datname FROM pg_database WHERE datname LIKE 'dockertest\\_clone%'"
        return server.exec(["psql", "-U", "postgres", "-Atc", asked], check=True).stdout.split()

    def test_what_a_killed_process_left_is_dropped_by_the_next(
        self, pool: dockertest.Pool, name: str, tmp_path: Path
    ) -> None:
        """And a living one's clones are not; a template that is half there is made anew."""
        waiting = """
pool = dockertest.Pool()
own = template(pool)
print(json.dumps(own.clone().name), flush=True)
sys.stdin.readline()
"""
        log = tmp_path / "log"
        try:
            living, killed = self.run(name, log, waiting), self.run(name, log, waiting)
            names = [json.loads(each.stdout.readline()) for each in (living, killed) if each.stdout]
            killed.send_signal(signal.SIGKILL)
            killed.communicate()

            def only_the_living_ones_is_left() -> bool:
                third = self.run(
                    name, log, "dockertest.Pool().__enter__(); template(dockertest.Pool()).close()"
                )
                third.communicate()
                assert third.returncode == 0
                return self.clones(pool, name) == [names[0]]

            # The server notices a moment later that its client is gone.
            dockertest.retry(only_the_living_ones_is_left, max_wait=20)
            living.communicate("\n")
        finally:
            pool.remove_container_by_name(name)

    def test_another_version_is_another_template(self, pool: dockertest.Pool, name: str) -> None:
        """On the same server; the first one is still there for whoever names it."""
        called: list[str] = []

        def counted(url: str) -> None:
            called.append(url)

        try:
            for version in ("1", "2", "1"):
                TemplateDatabase(pool, counted, version=version, name=name, reuse=True).close()
            assert len(called) == 2
        finally:
            pool.remove_container_by_name(name)

    def test_a_group_shares_by_its_name(self, pool: dockertest.Pool, name: str) -> None:
        """Other users of the engine know the same password."""
        first = TemplateDatabase(pool, migrate, reuse=name)
        second = TemplateDatabase(pool, migrate, reuse=name)
        assert first.resource.id == second.resource.id
        with second.clone() as clone:
            assert items(clone.url) == ["first"]
        second.close()
        first.close()
        pool.purge(first.resource)


class TestKeeping:
    """For a look afterwards."""

    def test_a_clone_can_be_kept(self, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
        """Its URL is printed, and works after everything is closed; what removes it is printed as well."""
        with dockertest.Pool() as pool, TemplateDatabase(pool, migrate) as own:
            kept, dropped = own.clone(), own.clone()
            kept.keep()
            kept.close()
        try:
            told = capsys.readouterr().err
            assert f"kept database {kept.url}" in told
            assert f"remove: docker rm -f -v {own.resource.id[:12]}" in told
            assert items(kept.url) == ["first"]
            assert dropped.url not in told
        finally:
            engine.client.containers.get(own.resource.id).remove(force=True, v=True)

    def test_a_pool_that_keeps_keeps_clones(self, engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
        """With their URLs, so that one can look at each."""
        with dockertest.Pool(keep=True) as pool, TemplateDatabase(pool, migrate) as own:
            clone = own.clone()
            clone.close()
        try:
            assert f"kept database {clone.url}" in capsys.readouterr().err
            assert items(clone.url) == ["first"]
        finally:
            engine.client.containers.get(own.resource.id).remove(force=True, v=True)


def test_a_forked_child_leaves_its_parents_things_alone(pool: dockertest.Pool, name: str) -> None:
    """Connections, clones and the server; both go on making clones."""
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
