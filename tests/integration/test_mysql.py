"""
Each test has its own database on MySQL and MariaDB.

Copies are made ahead of need and put back after a test.
"""

import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pymysql
import pytest

import dockertest
from dockertest._secret import SecretStr
from dockertest.mysql import Database, TemplateDatabase, connect

from .conftest import Engine

SCHEMA = """
CREATE TABLE author (id int AUTO_INCREMENT PRIMARY KEY, name varchar(40) NOT NULL COMMENT 'AUTO_INCREMENT=7');
CREATE TABLE book (
    id int AUTO_INCREMENT PRIMARY KEY, author int, title varchar(40), size int, twice int AS (size * 2) STORED,
    seen timestamp NULL, FULLTEXT (title), FOREIGN KEY (author) REFERENCES author (id) ON DELETE CASCADE ON UPDATE CASCADE
);
CREATE TABLE page (
    book int, number int, PRIMARY KEY (book, number), FOREIGN KEY (book) REFERENCES book (id) ON DELETE CASCADE
);
CREATE TABLE log (id int AUTO_INCREMENT PRIMARY KEY, text varchar(80));
CREATE TABLE `odd-name ü$``x` (`a b` varchar(40) DEFAULT '%s', PRIMARY KEY (`a b`));
CREATE TABLE parts (id int PRIMARY KEY, text varchar(40)) PARTITION BY HASH (id) PARTITIONS 3;
CREATE TABLE elsewhere (id int AUTO_INCREMENT PRIMARY KEY, text varchar(40)) ENGINE=MyISAM;
CREATE TABLE untouched (id int PRIMARY KEY);
CREATE TABLE all_elsewhere (id int NOT NULL AUTO_INCREMENT, text varchar(40), PRIMARY KEY (id)) ENGINE=MERGE UNION=(elsewhere) INSERT_METHOD=LAST;
SET sql_mode = CONCAT(@@sql_mode, ',NO_AUTO_VALUE_ON_ZERO');
INSERT INTO author VALUES (0, 'zero'), (1, 'first'), (2, 'second'), (40, 'gone');
DELETE FROM author WHERE id = 40;
INSERT INTO book (author, title, size, seen) VALUES (1, 'one', 3, '2026-10-25 00:30:00'), (2, 'two', 4, NULL);
INSERT INTO page VALUES (1, 1), (1, 2), (2, 1);
INSERT INTO `odd-name ü$``x` VALUES ('ü'), ('50 %');
INSERT INTO parts VALUES (1, 'a'), (2, 'b'), (3, 'c');
INSERT INTO elsewhere (text) VALUES ('x'), ('y');
INSERT INTO untouched VALUES (1);
CREATE FUNCTION twice (n int) RETURNS int DETERMINISTIC RETURN n * 2;
CREATE PROCEDURE note (t varchar(40)) BEGIN INSERT INTO log (text) VALUES (t); END;
CREATE TRIGGER second AFTER INSERT ON author FOR EACH ROW CALL note(CONCAT('new; ', NEW.name));
CREATE TRIGGER third AFTER INSERT ON author FOR EACH ROW INSERT INTO log (text) VALUES ('third');
CREATE TRIGGER gone BEFORE DELETE ON author FOR EACH ROW INSERT INTO log (text) VALUES ('gone');
CREATE VIEW z_names AS SELECT name, twice(id) AS n FROM author;
CREATE VIEW a_names AS SELECT name FROM z_names;
CREATE EVENT often ON SCHEDULE EVERY 1 DAY ON COMPLETION PRESERVE DO DELETE FROM log;
CREATE EVENT off ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM log
"""
MARIADB = """;
CREATE SEQUENCE z_ids START WITH 30;
CREATE TABLE drawn (id int DEFAULT nextval(z_ids) PRIMARY KEY, name varchar(40));
INSERT INTO drawn (name) VALUES ('first');
CREATE SEQUENCE numbers START WITH 5 INCREMENT BY 2 NOCACHE;
CREATE TABLE history (id int PRIMARY KEY, v int) WITH SYSTEM VERSIONING;
INSERT INTO history VALUES (1, 1);
UPDATE history SET v = 2
"""
CHANGES = [
    "INSERT INTO author (name) VALUES ('third')",
    "INSERT INTO author (name) VALUES ('third'); ROLLBACK",
    "INSERT IGNORE INTO book (id, title) VALUES (1, 'again')",
    "DELETE FROM author WHERE id = 1",
    "UPDATE author SET id = 7 WHERE id = 2",
    "UPDATE `odd-name ü$``x` SET `a b` = 'x' LIMIT 1",
    "TRUNCATE TABLE untouched",
    "TRUNCATE TABLE `odd-name ü$``x`",
    "ALTER TABLE parts TRUNCATE PARTITION p1",
    "INSERT INTO parts VALUES (4, 'd')",
    "DELETE FROM elsewhere",
    "INSERT INTO all_elsewhere VALUES (7, 'z')",
    "ALTER TABLE author AUTO_INCREMENT = 1000",
    "CALL note('x')",
    "BEGIN; UPDATE book SET size = size + 1; SELECT * FROM page FOR UPDATE",
    "SET foreign_key_checks = 0; DROP TABLE book",
    "ALTER TABLE untouched ADD COLUMN more int DEFAULT 3",
    "ALTER TABLE untouched ADD INDEX more (id)",
    "CREATE TABLE new (id int)",
    "DROP VIEW a_names",
    "CREATE OR REPLACE VIEW z_names AS SELECT 1 AS name",
    "DROP TRIGGER second",
    "CREATE TRIGGER more BEFORE INSERT ON log FOR EACH ROW SET NEW.text = 'x'",
    "DROP PROCEDURE note",
    "ALTER EVENT often DISABLE",
    "DROP EVENT often",
    "CREATE EVENT more ON SCHEDULE EVERY 1 DAY DO DELETE FROM log",
    "ALTER DATABASE CHARACTER SET latin1",
]
MARIADB_CHANGES = [
    "INSERT INTO drawn (name) VALUES ('second')",
    "SELECT nextval(numbers)",
    "UPDATE history SET v = 3",
    "ALTER SEQUENCE numbers RESTART 50",
]


def run(url: str, statements: str) -> None:
    """Run statements in one connection, which is then closed."""
    connection = connect(url, client_flag=pymysql.constants.CLIENT.MULTI_STATEMENTS)
    with connection, connection.cursor() as cursor:
        cursor.execute(statements)
        while cursor.nextset():
            pass
        connection.commit()


def rows(url: str, statement: str) -> "list[tuple[Any, ...]]":
    """Return the rows of a query."""
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def content(database: Database) -> "dict[str, object]":
    """Return everything in a database: definitions, rows and checksums."""
    found: dict[str, object] = {}
    with connect(database.url) as connection, connection.cursor() as cursor:

        def query(statement: str) -> "list[tuple[Any, ...]]":
            cursor.execute(statement)
            return list(cursor.fetchall())

        listed = [("DATABASE", database.name)]
        for name, kind in query("SHOW FULL TABLES"):
            listed.append(("VIEW" if kind == "VIEW" else "TABLE", name))
            quoted = f"`{name.replace('`', '``')}`"
            history = " FOR SYSTEM_TIME ALL" if kind == "SYSTEM VERSIONED" else ""
            more = ", row_start, row_end" if history else ""
            found[f"rows of {name}"] = sorted(query(f"SELECT *{more} FROM {quoted}{history}"), key=repr)
            if kind == "BASE TABLE":
                found[f"checksum of {name}"] = query(f"CHECKSUM TABLE {quoted}")[0][1]
        for kind, place in (("PROCEDURE", 1), ("FUNCTION", 1)):
            listed += [(kind, row[place]) for row in query(f"SHOW {kind} STATUS WHERE Db = DATABASE()")]
        listed += [("TRIGGER", row[0]) for row in query("SHOW TRIGGERS")]
        listed += [("EVENT", row[1]) for row in query("SHOW EVENTS")]
        for kind, name in listed:
            (row,) = query(f"SHOW CREATE {kind} `{name.replace('`', '``')}`")
            text = [value for value in row if isinstance(value, str)]  # not the time of creation
            found[f"{kind} {name}".replace(database.name, "NAME")] = str(text).replace(database.name, "NAME")
    return found


def migrate(url: str) -> None:
    """Fill a database with one of everything."""
    version = rows(url, "SELECT VERSION()")[0][0]
    run(url, SCHEMA + (MARIADB if "MariaDB" in version else ""))


def small(url: str) -> None:
    """
    Create a table with one row, and leave a connection with a transaction open.

    Careless code does the same.
    """
    run(url, "CREATE TABLE item (name varchar(40)); INSERT INTO item VALUES ('first')")
    connection = connect(url)
    connection.query("SELECT * FROM item FOR UPDATE")
    LEFT_OPEN.append(connection)


LEFT_OPEN: "list[pymysql.Connection[Any]]" = []


def items(database: Database) -> "list[str]":
    """Return the rows of the table."""
    return [name for (name,) in rows(database.url, "SELECT name FROM item ORDER BY name")]


@pytest.fixture(autouse=True)
def _close_connections() -> Iterator[None]:
    yield
    while LEFT_OPEN:
        with suppress(pymysql.Error):
            LEFT_OPEN.pop().close()


@pytest.fixture(scope="module", params=["mariadb:10.11", "mysql:9.7"])
def template(request: pytest.FixtureRequest, pool: dockertest.Pool) -> Iterator[TemplateDatabase]:
    """A server with one of everything."""
    with TemplateDatabase(pool, migrate, repository=request.param, tag=None) as template:
        yield template


@pytest.fixture
def server(template: TemplateDatabase) -> str:
    """The URL of a server that runs already."""
    return template._clones.server.url("")


def databases(server: str) -> "set[str]":
    """Return the names of the clones on a server."""
    return {name for (name,) in rows(server, "SHOW DATABASES LIKE 'dockertest\\\\_clone%'")}


class TestContent:
    """Each database begins with exactly the content of the template."""

    def test_every_change_is_undone(self, template: TemplateDatabase) -> None:
        """The database keeps its name."""
        with template.clone() as untouched, template.clone() as clone:
            expected = content(untouched)
            assert len(expected) > 25
            for change in CHANGES + MARIADB_CHANGES * ("TABLE numbers" in expected):
                run(clone.url, change)
                clone.restore()
                assert content(clone) == expected, change
            assert content(untouched) == expected

    def test_a_default_draws_from_the_sequence_of_the_same_database(self, pool: dockertest.Pool) -> None:
        """The definition of the table names the database of the sequence."""
        with TemplateDatabase(pool, migrate, repository="mariadb", tag="10.11") as own:
            for _ in range(3):
                with own.clone() as clone:
                    for _ in range(2):
                        run(clone.url, "INSERT INTO drawn (name) VALUES ('second')")
                        assert rows(clone.url, "SELECT id FROM drawn ORDER BY id") == [(30,), (1030,)]
                        clone.restore()

    def test_only_changed_tables_are_put_back(self, template: TemplateDatabase, server: str) -> None:
        """A database is dropped and made again only if its definition has changed."""
        query = "SELECT table_id FROM information_schema.{} WHERE name = '{}/author'"
        view = "innodb_sys_tables" if "MariaDB" in rows(server, "SELECT VERSION()")[0][0] else "innodb_tables"
        with template.clone() as clone:
            before = rows(server, query.format(view, clone.name))
            run(clone.url, "INSERT INTO log (text) VALUES ('x'); DELETE FROM book")
            clone.restore()
            assert rows(server, query.format(view, clone.name)) == before
            run(clone.url, "CREATE TABLE new (id int)")
            clone.restore()
            assert rows(server, query.format(view, clone.name)) != before

    def test_databases_are_used_again(self, template: TemplateDatabase) -> None:
        """Each test sees the content of the template, and few databases are made."""
        with template.clone() as first:
            expected = content(first)
        names = []
        for change in [*CHANGES[:14:2], "CREATE TABLE new (id int)", *CHANGES[:3]]:
            with template.clone() as clone:
                assert content(clone) == expected
                run(clone.url, change)
                names.append(clone.name)
        assert len(set(names)) <= 4

    def test_a_server_that_counts_nothing(self, pool: dockertest.Pool) -> None:
        """
        Each test gets a new copy.

        Without its performance schema, MySQL shows no changes.
        """
        command = ["mysqld", "--performance-schema=OFF"]
        names = []
        with TemplateDatabase(pool, small, cmd=command) as template:
            for _ in range(6):
                with template.clone() as clone:
                    assert items(clone) == ["first"]
                    run(clone.url, "INSERT INTO item VALUES ('x')")
                    names.append(clone.name)
        assert len(set(names)) == 6

    def test_settings_of_the_command_are_kept(self, pool: dockertest.Pool) -> None:
        """For speed, a server has no binary log, unless the command asks for one."""
        query = (
            "SELECT @@log_bin, @@sync_binlog, @@innodb_flush_log_at_trx_commit, @@innodb_redo_log_capacity"
        )
        command = ["mysqld", "--log-bin=log", "--sync_binlog=1", "--innodb-redo-log-capacity=100M"]
        with TemplateDatabase(pool, small, cmd=command, prepared=False) as own, own.clone() as clone:
            assert rows(clone.url, query) == [(1, 1, 0, 100 << 20)]

    def test_a_server_may_require_tls(self, pool: dockertest.Pool) -> None:
        """A connection to this host has it only if necessary, since it takes longer."""
        command = ["mysqld", "--require-secure-transport=ON"]
        query = "SHOW STATUS LIKE 'Ssl_version'"
        with TemplateDatabase(pool, small, cmd=command, prepared=False) as own, own.clone() as clone:
            assert rows(clone.url, query)[0][1].startswith("TLS")
            wrong = SecretStr(clone.url.replace(str(urlsplit(clone.url).password), "wrong-password"))
            with pytest.raises(pymysql.OperationalError, match="Access denied") as raised:
                connect(wrong)
        # PyMySQL sends it as it is, in a variable.
        frames = [frame for frame, _ in traceback.walk_tb(raised.value.__traceback__)][1:]
        assert frames
        assert "wrong-password" not in repr([frame.f_locals for frame in frames])

    def test_a_view_is_made_in_its_own_mode(self, template: TemplateDatabase, server: str) -> None:
        """Routines are made before it, in modes in which its text means something else."""

        def with_modes(url: str) -> None:
            run(
                url,
                r"CREATE VIEW v AS SELECT 'C:\\dir' AS path; SET sql_mode = 'NO_BACKSLASH_ESCAPES';"
                "CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1",
            )

        with TemplateDatabase(None, with_modes, server=server) as own, own.clone() as clone:
            assert rows(clone.url, "SELECT path FROM v") == [(r"C:\dir",)]

    def test_an_invalid_view_is_left_out(self, template: TemplateDatabase, server: str) -> None:
        """Migrations leave such views, which the server does not create again."""

        def with_views(url: str) -> None:
            run(
                url,
                "CREATE TABLE a (i int, j int); INSERT INTO a VALUES (1, 2); CREATE VIEW v AS SELECT j FROM a;"
                "CREATE VIEW above AS SELECT j FROM v; CREATE VIEW valid AS SELECT i FROM a;"
                "ALTER TABLE a DROP COLUMN j",
            )

        names = []
        with TemplateDatabase(None, with_views, server=server) as own:
            for _ in range(6):
                with own.clone() as clone:
                    assert rows(clone.url, "SHOW TABLES") == [("a",), ("valid",)]
                    assert rows(clone.url, "SELECT i FROM valid") == [(1,)]
                    run(clone.url, "INSERT INTO a VALUES (2)")
                    names.append(clone.name)
        assert len(set(names)) < 6  # They are used again.

    def test_threads_never_share_a_database(self, template: TemplateDatabase) -> None:
        """Each gets its own, with the template's content."""
        failures: list[object] = []

        def work() -> None:
            try:
                for _ in range(3):
                    with template.clone() as clone:
                        assert rows(clone.url, "SELECT COUNT(*) FROM log") == [(0,)]
                        run(clone.url, "CALL note('x')")
                        assert rows(clone.url, "SELECT COUNT(*) FROM log") == [(1,)]
            except BaseException as error:  # noqa: BLE001 - raised by the test
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures

    def test_a_client_that_comes_back_does_no_harm(self, template: TemplateDatabase) -> None:
        """A thread that outlives its test connects to the database after the test."""
        names = []
        for _ in range(4):
            with template.clone() as clone:
                assert rows(clone.url, "SELECT COUNT(*) FROM log") == [(0,)]
                names.append(clone.name)
            with suppress(pymysql.Error):  # if it was disconnected
                LEFT_OPEN.append(connect(clone.url, autocommit=True))
            template.clone().close()
            for connection in LEFT_OPEN:
                with suppress(pymysql.Error):
                    connection.query("INSERT INTO log (text) VALUES ('late')")
        assert len(names) == 4


@pytest.mark.parametrize("variable", ["MARIADB_RANDOM_ROOT_PASSWORD", "MYSQL_RANDOM_ROOT_PASSWORD"])
def test_a_password_of_the_images_own_choice_is_rejected(
    variable: str, pool: dockertest.Pool, engine: Engine, name: str
) -> None:
    """It would be unknown, and every attempt to connect denied."""
    with pytest.raises(
        dockertest.InvalidOptionError, match=f"^env: {variable} makes the image choose"
    ) as raised:
        TemplateDatabase(pool, small, env={variable: "yes"}, labels={name: "1"})
    assert "leave it out" in raised.value.hint
    assert not engine.labelled(name)


class TestPreparedImages:
    """A server is started from an image of one that was set up and filled before."""

    @pytest.mark.parametrize(
        "image",
        ["mariadb:10.11", pytest.param("mysql:9.7", marks=pytest.mark.soak)],
        ids=["mariadb", "mysql"],
    )
    def test_a_later_server_has_the_template(
        self, pool: dockertest.Pool, engine: Engine, name: str, image: str
    ) -> None:
        """With a version, no migration runs; the data is in memory, also after a restart."""
        called: list[str] = []

        def counted(url: str) -> None:
            called.append(url)
            migrate(url)

        images, contents = [], []
        try:
            for _ in range(2):
                with TemplateDatabase(pool, counted, repository=image, tag=None, version=name) as own:
                    images.append(engine.inspect(own.resource.id)["Image"])
                    kind = own.resource.exec(["stat", "-f", "-c", "%T", "/var/lib/mysql"], check=True)
                    assert kind.stdout == "tmpfs\n"
                    with own.clone() as clone:
                        contents.append(content(clone))
                        run(clone.url, "INSERT INTO log (text) VALUES ('x')")
                    own.resource.restart()
                    with own.clone() as clone:
                        contents.append(content(clone))
            assert len(called) == 1
            assert images[0] == images[1]
            assert all(one == contents[0] for one in contents)
        finally:
            engine.client.images.remove(images[0], force=True)

    def test_it_can_be_left_out(self, pool: dockertest.Pool, engine: Engine) -> None:
        """The server is then set up like any other."""
        for options in ({"prepared": False}, {"fast": False}):
            with TemplateDatabase(pool, small, repository="mariadb", tag="10.11", **options) as own:  # type: ignore[arg-type]
                assert "prepared.dockertest.invalid" not in str(
                    engine.client.images.get(engine.inspect(own.resource.id)["Image"]).tags
                )


class TestEnd:
    """Databases end with their test, their template or their process."""

    def test_connections_end_with_the_database(self, template: TemplateDatabase) -> None:
        """A test may have forgotten to close a connection, and a transaction in it."""
        clone = template.clone()
        connection = connect(clone.url)
        connection.query("DELETE FROM log")
        clone.close()
        clone.close()
        with pytest.raises(pymysql.Error):
            connection.query("SELECT 1")
        LEFT_OPEN.append(connection)
        with pytest.raises(dockertest.ResourceClosedError):
            clone.restore()

    def test_a_server_that_lost_its_data_is_migrated_again(self, pool: dockertest.Pool) -> None:
        """The next `clone` does that. A clone can be kept."""
        with TemplateDatabase(pool, small, repository="mariadb", tag="10.11") as own:
            own.clone().close()
            own.resource.restart()
            with own.clone() as another:
                assert items(another) == ["first"]
            own.resource.kill()
            with pytest.raises(dockertest.ContainerExitedError):
                own.clone()


class TestRunningServer:
    """A server that was not started by dockertest is used, and stays."""

    def test_it_needs_no_pool(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The URL is an argument or in the environment; afterwards no clone is left."""
        before = databases(server)
        with TemplateDatabase(None, small, server=server) as own, own.clone() as clone:
            assert items(clone) == ["first"]
            password = urlsplit(server).password
            assert password
            assert password not in f"{own!r} {clone!r}"
            with pytest.raises(dockertest.InvalidOptionError, match="there is no container"):
                _ = own.resource
        monkeypatch.setenv("DOCKERTEST_MYSQL_URL", server)
        with TemplateDatabase(None, small) as own, own.clone() as clone:
            assert items(clone) == ["first"]
        assert databases(server) == before

    def test_others_wait_as_long_as_a_migration_takes(self, server: str) -> None:
        """Limits of the server do not end their wait."""
        is_mariadb = "MariaDB" in rows(server, "SELECT VERSION()")[0][0]
        setting, value = ("max_statement_time", "1") if is_mariadb else ("max_execution_time", "1000")
        called: list[str] = []
        others: list[threading.Thread] = []
        waiting = "SELECT count(*) FROM information_schema.processlist WHERE info LIKE 'SELECT GET_LOCK(%dockertest_template%'"

        def slow(url: str) -> None:
            called.append(url)
            run(url, "CREATE TABLE item (name varchar(40)); INSERT INTO item VALUES ('first')")
            others.append(threading.Thread(target=make))
            others[0].start()
            dockertest.retry(lambda: rows(server, waiting)[0][0] > 0, max_wait=20)
            time.sleep(1.5)  # longer than the limit

        def make() -> None:
            with TemplateDatabase(None, slow, version=setting, server=server) as own, own.clone() as clone:
                found.append(items(clone))

        found: list[list[str]] = []
        run(server, f"SET GLOBAL {setting} = {value}")
        try:
            make()
            others[0].join()
        finally:
            run(server, f"SET GLOBAL {setting} = 0")
        assert found == [["first"], ["first"]]
        assert len(called) == 1

    def test_an_interrupted_wait_is_an_error(self, server: str) -> None:
        """Without the lock, the template of another process would be migrated twice."""
        find = "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT GET_LOCK(%dockertest_template%'"
        called: list[str] = []
        errors: list[Exception] = []

        def slow(url: str) -> None:
            called.append(url)
            other = threading.Thread(target=wait)
            other.start()
            dockertest.retry(lambda: bool(rows(server, find)), max_wait=20)
            run(server, f"KILL QUERY {rows(server, find)[0][0]}")
            other.join()

        def wait() -> None:
            try:
                TemplateDatabase(None, slow, version="killed", server=server).close()
            except pymysql.Error as error:
                errors.append(error)

        TemplateDatabase(None, slow, version="killed", server=server).close()
        assert len(called) == len(errors) == 1

    def test_only_clones_of_dead_processes_are_dropped(
        self, template: TemplateDatabase, server: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Those of a living process and those that were kept stay."""
        code = (
            "import sys, json; from dockertest.mysql import TemplateDatabase\n"
            "own = TemplateDatabase(None, print, server=sys.stdin.readline().strip(), version='x')\n"
            "clones = [own.clone(), own.clone()]; clones[1].keep()\n"
            "print(json.dumps([clone.name for clone in clones]), flush=True)\n"
            "sys.stdin.readline()\n"
        )
        started = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for _ in range(2)
        ]
        names = []
        for process in started:
            assert process.stdin
            assert process.stdout
            process.stdin.write(f"{server}\n")
            process.stdin.flush()
            lines = iter(process.stdout.readline, "")
            names.append(json.loads(next(line for line in lines if line.startswith("["))))
        living, killed = started
        killed.send_signal(signal.SIGKILL)
        killed.communicate()

        def only_the_dropped_one_is_gone() -> bool:
            TemplateDatabase(None, small, server=server).close()
            found = databases(server)
            assert {*names[0], names[1][1]} <= found
            return names[1][0] not in found

        # It takes a moment until the server notices that its client is gone.
        dockertest.retry(only_the_dropped_one_is_gone, max_wait=20)
        living.communicate("\n")
        for name in (names[0][1], names[1][1]):
            run(server, f"DROP DATABASE {name}")

    def test_a_forked_child_has_databases_of_its_own(self, template: TemplateDatabase) -> None:
        """Those of its parent stay."""
        with template.clone() as parents:
            pid = os.fork()
            if not pid:
                status = 1
                try:
                    with template.clone() as clone:
                        status = 0 if rows(clone.url, "SELECT COUNT(*) FROM page") == [(3,)] else 2
                    parents.close()
                    template._copies[os.getpid()].close()
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
            assert rows(parents.url, "SELECT COUNT(*) FROM page") == [(3,)]


def large(url: str) -> None:
    """Create 100 tables with 20,000 rows, half of them in one table."""
    with connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        for number in range(100):
            key = (
                f", FOREIGN KEY (other) REFERENCES t{number - 1} (id) ON DELETE CASCADE"
                if number % 3 == 1
                else ""
            )
            cursor.execute(
                f"CREATE TABLE t{number} (id int AUTO_INCREMENT PRIMARY KEY, name varchar(50), other int, KEY (name){key})"
            )
            values = ", ".join(f"('row {row}')" for row in range(100 if number else 10100))
            cursor.execute(f"INSERT INTO t{number} (name) VALUES {values}")


@pytest.mark.soak
@pytest.mark.parametrize("image", ["mariadb:10.11", "mysql:9.7"])
def test_a_hundred_tests(
    pool: dockertest.Pool, image: str, record_property: Callable[[str, object], None]
) -> None:
    """
    The median time from `clone` to the first query is at most 60 ms.

    Each test writes to five tables of a hundred.
    """
    times = []
    expected = None
    with TemplateDatabase(pool, large, repository=image, tag=None) as template:
        for number in range(100):
            begin = time.perf_counter()
            with template.clone() as clone:
                assert rows(clone.url, "SELECT COUNT(*) FROM t5") == [(100,)]
                times.append(1000 * (time.perf_counter() - begin))
                found = content(clone)
                expected = expected or found
                assert found == expected
                tables = secrets.SystemRandom().sample(range(100), 5)
                run(clone.url, "; ".join(f"INSERT INTO t{table} (name) VALUES ('new')" for table in tables))
                if number % 10 == 9:
                    run(clone.url, "ALTER TABLE t7 ADD COLUMN more int; DROP TABLE t99; TRUNCATE TABLE t98")
    median = statistics.median(times)
    record_property("median", median)
    print(f"{image}: clone to first query, median {median:.1f} ms, longest {max(times):.1f} ms")
    assert median <= 60
