"""`DockerTestCase` with unittest and pytest, in a separate process."""

import re
import signal
import subprocess

import pytest

import dockertest
from tests.engines.fault_proxy import FaultProxy

from .conftest import Engine, Suite

HEAD = """
import unittest
from dockertest.testcase import DockerTestCase

SLEEP = {"cmd": ["sh", "-c", "echo a line of the log; exec sleep 60"], "labels": LABEL, "env": {"PASSWORD": "hunter2"}}

def started(resource):
    with open("started", "a") as file:
        print(resource.id, file=file)
"""
RUNNERS = ["unittest", "pytest"]


def write(suite: Suite, text: str) -> None:
    """Write a test module."""
    suite.write("test_it.py", HEAD + text)


def test_containers_belong_to_a_class_or_a_test(suite: Suite, engine: Engine) -> None:
    """
    The first container runs during all tests.

    The others run during one test each, including its cleanups.
    """
    write(
        suite,
        """
class Test(DockerTestCase):
    seen = set()

    @classmethod
    def setUpClass(cls):
        cls.shared = cls.run_class_container("busybox:1.35", **SLEEP)

    def setUp(self):
        self.own = self.run_container("busybox:1.35", **SLEEP)
        self.addCleanup(lambda: self.assertEqual(self.own.status, "running"))
        self.seen.add(self.own)

    def test_one(self):
        self.assertEqual(self.shared.status, "running")

    test_two = test_three = test_one

    @classmethod
    def tearDownClass(cls):
        assert cls.shared.status == "running"
        assert [container.status for container in cls.seen] == ["removed"] * 3
""",
    )
    code, output = suite.run("unittest")
    assert code == 0, output
    assert "Ran 3 tests" in output
    assert engine.labelled(suite.label) == []


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_failure_shows_the_containers(suite: Suite, engine: Engine, runner: str) -> None:
    """
    A failure shows the state, exit code and last log lines of the containers.

    It may occur in a test, a subtest, `setUp` or `setUpClass`.
    """
    write(
        suite,
        """
class Test(DockerTestCase):
    def test_fails(self):
        self.run_container("busybox:1.35", **SLEEP)
        self.run_container("busybox:1.35", cmd=["sh", "-c", "echo out of space; exit 3"]).wait()
        self.assertEqual(1, 2, "in the test")

    def test_in_part(self):
        with self.subTest("part"):
            self.run_container("busybox:1.35", cmd=["sh", "-c", "exit 4"]).wait()
            raise OSError("in part")
        with self.subTest("other"):
            pass

class SetUp(DockerTestCase):
    def setUp(self):
        self.run_container("busybox:1.35", cmd=["sh", "-c", "exit 5"]).wait()
        raise OSError("in setUp")

    def test_it(self):
        pass

class SetUpClass(DockerTestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_class_container("busybox:1.35", cmd=["sh", "-c", "exit 6"]).wait()
        raise OSError("in setUpClass")

    test_it = SetUp.test_it
""",
    )
    code, output = suite.run(runner)
    assert code == 1
    for place, verdict, logs in (
        ("in the test", "is running", "a line of the log"),
        ("in the test", "has ended with exit code 3", "out of space"),
        ("in part", "has ended with exit code 4", "(its log is empty)"),
        ("in setUp", "has ended with exit code 5", "(its log is empty)"),
        ("in setUpClass", "has ended with exit code 6", "(its log is empty)"),
    ):
        shown = rf"container '\w+' \(\w{{12}}\) of \S*busybox:1.35 {verdict}.*\n.*  more: docker logs \w{{12}}; DOCKERTEST_KEEP=1 .*\n.*    {re.escape(logs)}\n"
        assert len(re.findall(shown, output)) == 1, (place, output)
    assert output.count("more: docker logs") == 5
    assert "hunter2" not in output
    assert engine.labelled(suite.label) == []


HALF_WAY = """
    @classmethod
    def setUpClass(cls):
        started(cls.run_class_container("busybox:1.35", **SLEEP))
        raise {}

    def test_it(self):
        pass
"""
BROKEN = {
    "setUpClass fails": HALF_WAY.format("OSError"),
    "setUpClass exits": HALF_WAY.format("SystemExit(1)"),
    "setUpClass is interrupted": HALF_WAY.format("KeyboardInterrupt"),
    "setUpClass skips": HALF_WAY.format("unittest.SkipTest"),
    "setUp fails": """
    def setUp(self):
        started(self.run_container("busybox:1.35", **SLEEP))
        raise OSError

    def test_it(self):
        pass
""",
    "test is interrupted": """
    def test_it(self):
        started(self.run_container("busybox:1.35", **SLEEP))
        raise KeyboardInterrupt

    def tearDown(self):
        raise OSError
""",
    "everything fails": """
    def test_it(self):
        started(self.pool.run("busybox:1.35", **SLEEP))
        started(self.run_container("busybox:1.35", **SLEEP))
        self.addCleanup(lambda: 1 / 0)
        raise OSError

    @classmethod
    def tearDownClass(cls):
        raise OSError
""",
}


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("failure", BROKEN)
def test_containers_are_removed_after_any_failure(
    suite: Suite, engine: Engine, runner: str, failure: str
) -> None:
    """The test classes do not call `super()`."""
    write(suite, f"class Test(DockerTestCase):{BROKEN[failure]}")
    code, output = suite.run(runner)
    assert (code == 0) == ("skips" in failure), output
    assert (suite.folder / "started").read_text().count("\n") == (2 if "everything" in failure else 1)
    assert engine.labelled(suite.label) == []


def test_the_prompt_of_pytest_comes_before_the_removal(suite: Suite, engine: Engine) -> None:
    """With `--pdb`, `tearDown` comes after it, too."""
    write(
        suite,
        """
class Test(DockerTestCase):
    def setUp(self):
        self.box = self.run_container("busybox:1.35", **SLEEP)
        started(self.box)

    def tearDown(self):
        assert self.box.exec(["true"]).exit_code == 0

    def test_fails(self):
        assert 0

    def test_passes(self):
        pass
""",
    )
    suite.write(
        "prompt.py", "import pdb\nclass Prompt(pdb.Pdb):\n    def interaction(self, *_): print('prompt')\n"
    )
    _, output = suite.run("pytest", "-s", "--pdb", "--pdbcls=prompt:Prompt", PYTHONPATH=".")
    assert " 1 failed, 1 passed in" in output, output
    assert "prompt" in output
    first, second = (suite.folder / "started").read_text().split()
    assert not engine.has(first)
    assert not engine.has(second)


def test_containers_are_removed_after_ctrl_c(suite: Suite, pool: dockertest.Pool, engine: Engine) -> None:
    """SIGINT arrives in the middle of a test."""
    write(
        suite,
        """
import pathlib, time

class Test(DockerTestCase):
    @classmethod
    def setUpClass(cls):
        cls.run_class_container("busybox:1.35", **SLEEP)

    def test_it(self):
        self.run_container("busybox:1.35", **SLEEP)
        pathlib.Path("running").touch()
        time.sleep(60)
""",
    )
    running = suite.folder / "running"
    with subprocess.Popen(
        suite.command("unittest"),
        cwd=suite.folder,
        env=suite.environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        pool.retry(lambda: running.exists() or process.poll() is not None)
        assert len(engine.labelled(suite.label)) == 2
        process.send_signal(signal.SIGINT)
        _, output = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in output
    assert engine.labelled(suite.label) == []


def test_each_class_has_its_own_pool(suite: Suite, engine: Engine) -> None:
    """It is closed before the next class begins, even if that is a subclass."""
    write(
        suite,
        """
class First(DockerTestCase):
    left = []

    def test_it(self):
        self.left.append(self.pool)
        assert not [pool for pool in self.left[:-1] if not pool._runtime.session.is_closed]
        assert self.pool is type(self).pool
        self.pool.run("busybox:1.35", **SLEEP)

class Second(First):
    @classmethod
    def tearDownClass(cls):
        assert len(cls.left) == 2 and cls.left[0] is not cls.left[1]
""",
    )
    code, output = suite.run("unittest")
    assert code == 0, output
    assert engine.labelled(suite.label) == []


def test_a_class_that_is_run_again_gets_a_new_pool(suite: Suite) -> None:
    """Some runners repeat failed tests."""
    write(
        suite,
        """
class Test(DockerTestCase):
    def test_it(self):
        self.run_container("busybox:1.35", **SLEEP)

if __name__ == "__main__":
    for _ in range(2):
        suite = unittest.defaultTestLoader.loadTestsFromTestCase(Test)
        assert unittest.TextTestRunner().run(suite).wasSuccessful()
    Test("test_it").debug()
    assert Test.pool._runtime.session.containers() == []
""",
    )
    code, output = suite.run("test_it")
    assert code == 0, output


def test_it_works_with_asynchronous_tests(suite: Suite, engine: Engine) -> None:
    """`IsolatedAsyncioTestCase` may be a second base class."""
    write(
        suite,
        """
class Test(DockerTestCase, unittest.IsolatedAsyncioTestCase):
    async def test_it(self):
        self.run_container("busybox:1.35", cmd=["sh", "-c", "exit 3"]).wait()
        self.fail("as it should")
""",
    )
    code, output = suite.run("unittest")
    assert code == 1
    assert "has ended with exit code 3" in output
    assert engine.labelled(suite.label) == []


def test_pytest_collects_it_without_the_engine(suite: Suite, local: str) -> None:
    """The first test connects; a run of other tests does not wait for an engine."""
    write(suite, "class Test(DockerTestCase):\n    def test_it(self): assert self.pool is type(self).pool\n")
    with FaultProxy(suite.folder / "engine.sock", local).running() as proxy:
        code, output = suite.run("pytest", "--collect-only", DOCKER_HOST=proxy.endpoint)
        assert code == 0, output
        assert proxy.requests == []
        code, output = suite.run("pytest", DOCKER_HOST=proxy.endpoint)
        assert code == 0, output
        assert proxy.requests


@pytest.mark.parametrize(
    ("environment", "summary"),
    [
        ({}, r"OK \(skipped=1\)"),
        ({"CI": "true"}, r"FAILED \(errors=1\)"),
        ({"CI": "true", "DOCKERTEST_REQUIRED": "0"}, r"OK \(skipped=1\)"),
        ({"DOCKERTEST_REQUIRED": "1"}, r"FAILED \(errors=1\)"),
    ],
)
@pytest.mark.parametrize("set_up", ["", "setUpClass = lambda: None"], ids=["class", "test"])
def test_without_an_engine_it_is_skipped_or_fails(
    suite: Suite, environment: "dict[str, str]", summary: str, set_up: str
) -> None:
    """
    The class is skipped or fails.

    Without a call of `super().setUpClass()`, this applies to each test that uses the pool.
    """
    write(suite, f"class Test(DockerTestCase):\n    {set_up}\n    def test_it(self): self.pool\n")
    _, output = suite.run("unittest", "-v", DOCKER_HOST=f"unix://{suite.folder}/nowhere.sock", **environment)
    assert re.search(summary, output), output
    assert "cannot connect to a container engine" in output


def test_without_an_engine_other_base_classes_are_not_set_up(suite: Suite) -> None:
    """
    Django's `TestCase` begins a transaction in `setUpClass`.

    Nothing would end it if the class was skipped afterwards.
    """
    write(
        suite,
        """
class Other(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise OSError("not undone")

class Test(DockerTestCase, Other):
    def test_it(self): pass
""",
    )
    code, output = suite.run("unittest", DOCKER_HOST=f"unix://{suite.folder}/nowhere.sock")
    assert code == 0, output
