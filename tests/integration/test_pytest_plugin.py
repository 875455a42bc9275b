"""The pytest plugin, as a project that has this package installed meets it: pytest runs in a process of its own."""

import re
from xml.etree import ElementTree

import pytest

import dockertest

from .conftest import Engine, Suite

SERVER = """
    import os
    import pytest

    @pytest.fixture(scope="session")
    def server(dockertest_pool):
        return dockertest_pool.run(
            "busybox:1.35",
            cmd=["sh", "-c", "for n in 1 2 3; do echo line $n of the log; done; exec httpd -f -p 8080"],
            exposed_ports=["8080"],
            env={"PASSWORD": "hunter2"},
            labels=LABEL,
        )
"""
LOG = "; DOCKERTEST_KEEP=1 leaves it standing for a look\n    line 1 of the log\n    line 2 of the log\n    line 3 of the log\n"


def test_a_failed_test_shows_its_containers(suite: Suite, engine: Engine) -> None:
    """State, ports and the last lines of the log, for a failed call and a failed set-up, without any option."""
    suite.write("conftest.py", SERVER)
    suite.write(
        "test_it.py",
        """
        import pytest

        def test_passes(server):
            assert server.status == "running"

        def test_fails(server):
            assert server.name == "other"

        @pytest.fixture
        def account(server):
            raise OSError("no account")

        def test_is_not_set_up(account):
            pass
        """,
    )
    code, said = suite.run("pytest")
    assert code == 1
    assert "1 failed, 1 passed, 1 error in" in said
    title = r"-+ container '\w+' \([0-9a-f]{12}\) of \S*busybox:1.35 is running -+\n"
    told = rf"{title}  published: 8080/tcp -> [\d.]+:\d+\n  more: docker logs [0-9a-f]{{12}}{LOG}"
    for part in said.partition("= FAILURES =")[::2]:
        assert len(re.findall(told, part)) == 1
    assert "hunter2" not in said
    assert engine.labelled(suite.label) == []


def test_a_container_that_has_ended_is_shown_with_its_exit_code(suite: Suite) -> None:
    """Also one of a pool that the tests made themselves."""
    suite.write(
        "test_it.py",
        """
        import dockertest
        import pytest

        @pytest.fixture
        def own():
            with dockertest.Pool() as pool:
                yield pool.run("busybox:1.35", cmd=["sh", "-c", "echo no space; exit 3"])

        def test_fails(own):
            own.wait()
            assert own.logs() == "ready"
        """,
    )
    code, said = suite.run("pytest")
    assert code == 1
    assert re.search(r"- container .* has ended with exit code 3 -+\n.*\n    no space\n", said)


def test_what_the_failure_tells_itself_is_not_told_again(suite: Suite) -> None:
    """A wait that is over for a dead container has its log in the error already."""
    suite.write(
        "test_it.py",
        """
        def test_fails(dockertest_pool):
            dead = dockertest_pool.run("busybox:1.35", cmd=["sh", "-c", "echo no space; exit 3"])
            dead.retry(lambda: False)
        """,
    )
    code, said = suite.run("pytest")
    assert code == 1
    assert said.count("more: docker logs") == 1


def test_the_last_line_says_what_was_started(suite: Suite) -> None:
    """Per image how many and how long; of a failed run how to have a look; and nothing in a quiet one."""
    suite.write("conftest.py", SERVER)
    suite.write("test_it.py", "def test_it(server, dockertest_pool): dockertest_pool.run('busybox:1.35')\n")
    line = r"^dockertest: started 2 of \S*busybox:1.35 in \d+\.\d\d s"
    assert re.search(rf"{line}$", suite.run("pytest")[1], re.MULTILINE)
    assert "dockertest:" not in suite.run("pytest", "-q")[1]
    suite.write(
        "test_it.py", "def test_it(server, dockertest_pool): dockertest_pool.run('busybox:1.35').no\n"
    )
    hint = "; --dockertest-keep leaves them standing for a look$"
    assert re.search(f"{line}{hint}", suite.run("pytest")[1], re.MULTILINE)


def test_the_timeline_shows_what_took_how_long(suite: Suite) -> None:
    """A line for each container, those of the workers of pytest-xdist and of closed pools, too."""
    suite.write("conftest.py", SERVER)
    suite.write(
        "test_it.py",
        """
        import dockertest

        def test_it(server):
            server.retry(lambda: True)
            with dockertest.Pool() as pool:
                pool.run("busybox:1.35", name="closed-" + server.id[:12])
        """,
    )
    for more, workers in ((), 1), (("--dist", "each", "--tx", "2*popen"), 2):
        said = suite.run("pytest", "--dockertest-timeline", "--dockertest-picture=all.svg", *more)[1]
        assert re.search(r"^ +create +start +ready +close +all$", said, re.MULTILINE)
        assert (
            len(re.findall(r"^\S*busybox:1.35 \S+(?: +\d+\.\d\d){4,5}$", said, re.MULTILINE)) == 2 * workers
        )
        assert len(re.findall(r" closed-\w{12}(?: +\d+\.\d\d){4}$", said, re.MULTILINE)) == workers
        assert "the timeline is drawn in all.svg" in said
        drawn = "".join(ElementTree.parse(suite.folder / "all.svg").getroot().itertext())
        assert drawn.count("closed-") == workers
    assert "not drawn: [Errno 21]" in suite.run("pytest", "--dockertest-picture=.")[1]
    assert " ready " not in suite.run("pytest")[1]


def test_to_keep_means_everything_and_says_how_to_remove_it(
    suite: Suite, pool: dockertest.Pool, engine: Engine
) -> None:
    """From workers of pytest-xdist, too: containers of the plugin's pool and of others, and networks."""
    suite.write("conftest.py", SERVER)
    suite.write(
        "test_it.py",
        """
        import dockertest

        def test_it(server):
            with dockertest.Pool() as pool, pool.create_network(labels=LABEL):
                pool.run("busybox:1.35", cmd=["sleep", "60"], labels=LABEL)
        """,
    )
    try:
        for more in ((), ("-n", "1")):
            code, said = suite.run("pytest", "--dockertest-keep", *more)
            assert code == 0, said
            kept = re.findall(
                r"^dockertest: kept container .*; remove: docker rm -f -v (\w{12})$", said, re.MULTILINE
            )
            networks = re.findall(
                r"^dockertest: kept network .*; remove: docker network rm (\w{12})$", said, re.MULTILINE
            )
            assert {each[:12] for each in engine.labelled(suite.label)} == set(kept)
            assert (len(kept), len(networks)) == (2, 1)
            assert re.search(rf"kept container .*: 8080/tcp -> {engine.host}:\d+; look: docker logs", said)
            for each in kept:
                engine.client.api.remove_container(each, force=True, v=True)
            for each in networks:
                engine.client.api.remove_network(each)
    finally:
        for each in engine.labelled(suite.label):
            engine.client.api.remove_container(each, force=True, v=True)
        for network in engine.client.networks.list(filters={"label": suite.label}):
            network.remove()


def test_each_worker_has_a_server_of_its_own(suite: Suite, engine: Engine) -> None:
    """Four of them; what failed in a worker is shown with that worker's container; nothing is left."""
    suite.write("conftest.py", SERVER)
    suite.write(
        "test_it.py",
        """
        import os, pathlib

        def test_it(server):
            pathlib.Path(os.environ["PYTEST_XDIST_WORKER"]).write_text(server.id)
            assert server.exec(["hostname"], check=True).stdout.strip() == server.id[:12]

        def test_fails(server):
            raise RuntimeError(f"with {server.id[:12]}")
        """,
    )
    code, said = suite.run("pytest", "--dist", "each", "--tx", "4*popen")
    assert code == 1
    assert "4 failed, 4 passed in" in said
    servers = {path.read_text() for path in suite.folder.glob("gw*")}
    assert len(servers) == 4
    shown = re.findall(r"E +RuntimeError: with (\w{12})\n(?:.*\n)*?  more: docker logs (\w{12})" + LOG, said)
    assert {(each[:12], each[:12]) for each in servers} == set(shown)
    assert re.search(r"^dockertest: started 4 of \S*busybox:1.35 in", said, re.MULTILINE)
    assert engine.labelled(suite.label) == []


def test_with_reuse_all_workers_have_one_server(suite: Suite, engine: Engine) -> None:
    """Each shows it with a failure, whoever started it; and only one did."""
    suite.write("conftest.py", SERVER.replace("labels=LABEL", "labels=LABEL, reuse=True"))
    suite.write("test_it.py", "def test_it(server): raise RuntimeError(f'with {server.id[:12]}')\n")
    try:
        code, said = suite.run("pytest", "--dist", "each", "--tx", "4*popen")
        (server,) = engine.labelled(suite.label)
    finally:
        for each in engine.labelled(suite.label):
            engine.client.api.remove_container(each, force=True, v=True)
    assert code == 1
    assert re.findall(r"E +RuntimeError: with (\w{12})", said) == [server[:12]] * 4
    assert re.findall(r"more: docker logs (\w{12})" + LOG, said) == [server[:12]] * 4
    assert re.search(r"^dockertest: started 1 of \S*busybox:1.35 in", said, re.MULTILINE)


def test_a_worker_that_is_killed_harms_no_other(suite: Suite, pool: dockertest.Pool, engine: Engine) -> None:
    """Its own server goes with it; those of the other three answer after that, and then are gone as well."""
    suite.write("conftest.py", SERVER)
    suite.write(
        "test_it.py",
        """
        import os, pathlib, signal

        def test_it(server, dockertest_pool):
            worker = os.environ["PYTEST_XDIST_WORKER"]
            pathlib.Path(f"{worker}.new").write_text(server.id)
            pathlib.Path(f"{worker}.new").rename(worker)
            everyone = [pathlib.Path(f"gw{n}") for n in range(4)]
            dockertest_pool.retry(lambda: all(each.exists() for each in everyone))
            if worker == "gw0":
                os.kill(os.getpid(), signal.SIGKILL)
            killed = pathlib.Path("gw0").read_text()
            dockertest_pool.retry(lambda: killed not in there(dockertest_pool))
            assert server.exec(["hostname"], check=True).stdout.strip() == server.id[:12]

        def there(pool):
            return [each["Id"] for each in pool.client.api.containers(all=True)]
        """,
    )
    code, said = suite.run("pytest", "--dist", "each", "--tx", "4*popen")
    assert code == 1
    assert "worker 'gw0' crashed" in said
    assert "1 failed, 3 passed in" in said
    assert pool.retry(lambda: engine.labelled(suite.label) == [] or False)


SKIP, FAIL, RUN = "1 passed, 1 skipped in", "1 passed, 1 error in", "2 passed in"


@pytest.mark.parametrize(
    ("environment", "summary"),
    [
        ({}, SKIP),
        ({"CI": "true"}, FAIL),
        ({"CI": "true", "DOCKERTEST_REQUIRED": "0"}, SKIP),
        ({"DOCKERTEST_REQUIRED": "1"}, FAIL),
    ],
)
def test_without_an_engine_the_fixture_skips_or_fails(
    suite: Suite, environment: "dict[str, str]", summary: str
) -> None:
    """A test that needs none runs; the reason is on the screen."""
    suite.write("test_it.py", "def test_any(): pass\ndef test_it(dockertest_pool): pass\n")
    code, said = suite.run("pytest", "-rs", DOCKER_HOST=f"unix://{suite.folder}/nowhere.sock", **environment)
    assert (code, summary in said) == (summary == FAIL, True), said
    assert "no container engine answers" in said
    assert ("DOCKERTEST_REQUIRED=1 makes this a failure" in said) == (summary == SKIP)


@pytest.mark.parametrize("where", ["module", "function", "fixture"])
def test_pytest_takes_the_standard_librarys_skip_for_its_own(suite: Suite, where: str) -> None:
    """`require_docker` works wherever it is called."""
    call = "dockertest.require_docker()"
    text = {
        "module": f"{call}\ndef test_it(): pass\n",
        "function": f"def test_it(): {call}\n",
        "fixture": f"@pytest.fixture\ndef engine(): {call}\ndef test_it(engine): pass\n",
    }
    suite.write("test_it.py", f"import dockertest, pytest\n{text[where]}")
    assert " 1 skipped in" in suite.run("pytest", DOCKER_HOST=f"unix://{suite.folder}/nowhere.sock")[1]
    code, said = suite.run("pytest", DOCKERTEST_REQUIRED="1")
    assert (code, "1 passed in" in said) == (0, True), said


def test_who_does_not_use_it_does_not_notice_it(suite: Suite) -> None:
    """Nothing but the package's face is imported, and nothing is said: in a run that passes, or fails."""
    suite.write(
        "test_it.py",
        """
        import sys

        def test_imports():
            ours = {each for each in sys.modules if each.split(".")[0] in ("dockertest", "docker", "backoff")}
            assert ours == {"dockertest", "dockertest.pytest_plugin"}

        def test_fails():
            assert not "ours"
        """,
    )
    code, said = suite.run("pytest")
    assert (code, "1 failed, 1 passed in" in said) == (1, True), said
    without = suite.run("pytest", "-p", "no:dockertest", "-k", "fails")[1]
    with_it = suite.run("pytest", "-k", "fails")[1]
    assert steady(with_it) == steady(without)


def steady(said: str) -> str:
    """Give pytest's output without the time and the list of plugins."""
    return re.sub(r"in \d+\.\d+s|^plugins: .*$|=+", "", said, flags=re.MULTILINE)
