"""
The pytest plugin works in a project that has this package installed.

pytest runs in a separate process.
"""

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
LOG = "; DOCKERTEST_KEEP=1 keeps the container\n    line 1 of the log\n    line 2 of the log\n    line 3 of the log\n"


def test_a_failed_test_shows_its_containers(suite: Suite, engine: Engine) -> None:
    """
    The state, ports and last log lines are shown without any option.

    This applies to a failed test and to a failed fixture.
    """
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
    code, output = suite.run("pytest")
    assert code == 1
    assert "1 failed, 1 passed, 1 error in" in output
    title = r"-+ container '\w+' \([0-9a-f]{12}\) of \S*busybox:1.35 is running -+\n"
    section = rf"{title}  published: 8080/tcp -> [\d.]+:\d+\n  more: docker logs [0-9a-f]{{12}}{LOG}"
    for part in output.partition("= FAILURES =")[::2]:
        assert len(re.findall(section, part)) == 1
    assert "hunter2" not in output
    assert engine.labelled(suite.label) == []


def test_an_exited_container_is_shown_with_its_exit_code(suite: Suite) -> None:
    """The pool may also be created by the tests themselves."""
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
    code, output = suite.run("pytest")
    assert code == 1
    assert re.search(r"- container .* has ended with exit code 3 -+\n.*\n    no space\n", output)


def test_a_container_in_the_failure_is_not_shown_twice(suite: Suite) -> None:
    """The error for an exited container already contains its log."""
    suite.write(
        "test_it.py",
        """
        def test_fails(dockertest_pool):
            dead = dockertest_pool.run("busybox:1.35", cmd=["sh", "-c", "echo no space; exit 3"])
            dead.retry(lambda: False)
        """,
    )
    code, output = suite.run("pytest")
    assert code == 1
    assert output.count("more: docker logs") == 1


def test_the_last_line_counts_started_containers(suite: Suite) -> None:
    """
    It has the number and the time for each image.

    A failed run has a hint, and a quiet run prints nothing.
    """
    suite.write("conftest.py", SERVER)
    suite.write("test_it.py", "def test_it(server, dockertest_pool): dockertest_pool.run('busybox:1.35')\n")
    line = r"^dockertest: started 2 of \S*busybox:1.35 in \d+\.\d\d s"
    assert re.search(rf"{line}$", suite.run("pytest")[1], re.MULTILINE)
    assert "dockertest:" not in suite.run("pytest", "-q")[1]
    suite.write(
        "test_it.py", "def test_it(server, dockertest_pool): dockertest_pool.run('busybox:1.35').no\n"
    )
    hint = "; --dockertest-keep keeps them for inspection$"
    assert re.search(f"{line}{hint}", suite.run("pytest")[1], re.MULTILINE)


def test_the_timeline_has_a_row_for_each_container(suite: Suite) -> None:
    """It includes closed pools and workers of pytest-xdist."""
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
        output = suite.run("pytest", "--dockertest-timeline", "--dockertest-picture=all.svg", *more)[1]
        assert re.search(r"^ +create +start +ready +close +all$", output, re.MULTILINE)
        assert (
            len(re.findall(r"^\S*busybox:1.35 \S+(?: +\d+\.\d\d){4,5}$", output, re.MULTILINE)) == 2 * workers
        )
        assert len(re.findall(r" closed-\w{12}(?: +\d+\.\d\d){4}$", output, re.MULTILINE)) == workers
        assert "the timeline is in all.svg" in output
        drawn = "".join(ElementTree.parse(suite.folder / "all.svg").getroot().itertext())
        assert drawn.count("closed-") == workers
    assert "cannot draw the timeline: [Errno 21]" in suite.run("pytest", "--dockertest-picture=.")[1]
    assert " ready " not in suite.run("pytest")[1]


def test_keep_applies_to_everything(suite: Suite, pool: dockertest.Pool, engine: Engine) -> None:
    """
    It keeps containers of all pools and networks, also in pytest-xdist workers.

    The removal commands are printed.
    """
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
            code, output = suite.run("pytest", "--dockertest-keep", *more)
            assert code == 0, output
            kept = re.findall(
                r"^dockertest: kept container .*; remove: docker rm -f -v (\w{12})$", output, re.MULTILINE
            )
            networks = re.findall(
                r"^dockertest: kept network .*; remove: docker network rm (\w{12})$", output, re.MULTILINE
            )
            assert {container[:12] for container in engine.labelled(suite.label)} == set(kept)
            assert (len(kept), len(networks)) == (2, 1)
            assert re.search(rf"kept container .*: 8080/tcp -> {engine.host}:\d+; look: docker logs", output)
            for container in kept:
                engine.remove(container)
            for network in networks:
                engine.client.api.remove_network(network)
    finally:
        for container in engine.labelled(suite.label):
            engine.remove(container)
        for leftover in engine.client.networks.list(filters={"label": suite.label}):
            leftover.remove()


def test_each_worker_has_its_own_server(suite: Suite, engine: Engine) -> None:
    """A failure shows the container of its own worker, and nothing is left."""
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
    code, output = suite.run("pytest", "--dist", "each", "--tx", "4*popen")
    assert code == 1
    assert "4 failed, 4 passed in" in output
    servers = {path.read_text() for path in suite.folder.glob("gw*")}
    assert len(servers) == 4
    shown = re.findall(
        r"E +RuntimeError: with (\w{12})\n(?:.*\n)*?  more: docker logs (\w{12})" + LOG, output
    )
    assert {(server[:12], server[:12]) for server in servers} == set(shown)
    assert re.search(r"^dockertest: started 4 of \S*busybox:1.35 in", output, re.MULTILINE)
    assert engine.labelled(suite.label) == []


def test_with_reuse_all_workers_share_one_server(suite: Suite, engine: Engine) -> None:
    """Only one worker starts it, and each worker shows it with its failures."""
    suite.write("conftest.py", SERVER.replace("labels=LABEL", "labels=LABEL, reuse=True"))
    suite.write("test_it.py", "def test_it(server): raise RuntimeError(f'with {server.id[:12]}')\n")
    try:
        code, output = suite.run("pytest", "--dist", "each", "--tx", "4*popen")
        (server,) = engine.labelled(suite.label)
    finally:
        for container in engine.labelled(suite.label):
            engine.remove(container)
    assert code == 1
    assert re.findall(r"E +RuntimeError: with (\w{12})", output) == [server[:12]] * 4
    assert re.findall(r"more: docker logs (\w{12})" + LOG, output) == [server[:12]] * 4
    assert re.search(r"^dockertest: started 1 of \S*busybox:1.35 in", output, re.MULTILINE)


def test_a_killed_worker_does_not_affect_the_others(
    suite: Suite, pool: dockertest.Pool, engine: Engine
) -> None:
    """
    Only its own server is removed immediately.

    The other servers still respond, and nothing is left at the end.
    """
    suite.write("conftest.py", SERVER)
    suite.write(
        "test_it.py",
        """
        import os, pathlib, signal

        def test_it(server, dockertest_pool):
            worker = os.environ["PYTEST_XDIST_WORKER"]
            pathlib.Path(f"{worker}.new").write_text(server.id)
            pathlib.Path(f"{worker}.new").rename(worker)
            workers = [pathlib.Path(f"gw{n}") for n in range(4)]
            dockertest_pool.retry(lambda: all(path.exists() for path in workers))
            if worker == "gw0":
                os.kill(os.getpid(), signal.SIGKILL)
            killed = pathlib.Path("gw0").read_text()
            dockertest_pool.retry(lambda: killed not in existing(dockertest_pool))
            assert server.exec(["hostname"], check=True).stdout.strip() == server.id[:12]

        def existing(pool):
            return [container["Id"] for container in pool.client.api.containers(all=True)]
        """,
    )
    code, output = suite.run("pytest", "--dist", "each", "--tx", "4*popen")
    assert code == 1
    assert "worker 'gw0' crashed" in output
    assert "1 failed, 3 passed in" in output
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
    """A test that needs no engine runs, and the reason is shown."""
    suite.write("test_it.py", "def test_any(): pass\ndef test_it(dockertest_pool): pass\n")
    code, output = suite.run(
        "pytest", "-rs", DOCKER_HOST=f"unix://{suite.folder}/nowhere.sock", **environment
    )
    assert (code, summary in output) == (summary == FAIL, True), output
    assert "cannot connect to a container engine" in output
    assert ("DOCKERTEST_REQUIRED=1 makes this a failure" in output) == (summary == SKIP)


def test_without_an_engine_and_the_plugin_for_unittest_the_fixture_skips(suite: Suite) -> None:
    """That plugin makes pytest understand `unittest.SkipTest`."""
    suite.write("test_it.py", "def test_it(dockertest_pool): pass\n")
    code, output = suite.run(
        "pytest", "-rs", "-p", "no:unittest", DOCKER_HOST=f"unix://{suite.folder}/nowhere.sock"
    )
    assert (code, " 1 skipped in" in output) == (0, True), output


def test_the_plugin_works_without_that_for_terminals(suite: Suite) -> None:
    """A failing test is a failure, and no internal error."""
    suite.write("test_it.py", "import dockertest.errors\ndef test_it(): assert 0\n")
    code, output = suite.run("pytest", "-p", "no:terminal")
    assert (code, "INTERNALERROR" in output) == (1, False), output


@pytest.mark.parametrize("where", ["module", "function", "fixture"])
def test_require_docker_skips_in_pytest(suite: Suite, where: str) -> None:
    """It works in a module, a test and a fixture."""
    call = "dockertest.require_docker()"
    text = {
        "module": f"{call}\ndef test_it(): pass\n",
        "function": f"def test_it(): {call}\n",
        "fixture": f"@pytest.fixture\ndef engine(): {call}\ndef test_it(engine): pass\n",
    }
    suite.write("test_it.py", f"import dockertest, pytest\n{text[where]}")
    assert " 1 skipped in" in suite.run("pytest", DOCKER_HOST=f"unix://{suite.folder}/nowhere.sock")[1]
    code, output = suite.run("pytest", DOCKERTEST_REQUIRED="1")
    assert (code, "1 passed in" in output) == (0, True), output


def test_an_unused_plugin_has_no_effect(suite: Suite) -> None:
    """It imports only `dockertest` and prints nothing, whether tests pass or fail."""
    suite.write(
        "test_it.py",
        """
        import sys

        def test_imports():
            ours = {name for name in sys.modules if name.split(".")[0] in ("dockertest", "docker", "backoff")}
            assert ours == {"dockertest", "dockertest.pytest_plugin"}

        def test_fails():
            assert not "ours"
        """,
    )
    code, output = suite.run("pytest")
    assert (code, "1 failed, 1 passed in" in output) == (1, True), output
    without = suite.run("pytest", "-p", "no:dockertest", "-k", "fails")[1]
    with_it = suite.run("pytest", "-k", "fails")[1]
    assert steady(with_it) == steady(without)


def steady(output: str) -> str:
    """Return pytest's output without times and the list of plugins."""
    return re.sub(r"in \d+\.\d+s|^plugins: .*$|=+", "", output, flags=re.MULTILINE)
