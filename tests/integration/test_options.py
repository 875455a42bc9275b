"""Options whose effect depends on the engine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dockertest
from dockertest import BuildOptions, RunOptions
from dockertest._cleanup.reaper import EXPIRES, REUSE

from .conftest import Engine, Suite

SLEEP = ["sleep", "600"]


@pytest.fixture
def labelled_image(
    request: pytest.FixtureRequest, pool: dockertest.Pool, name: str, tmp_path: Path
) -> Iterator[str]:
    """
    An image with our labels.

    `docker commit` creates such an image from one of our containers.
    """
    labels = " ".join(f"{label}=1" for label in request.param)
    (tmp_path / "Dockerfile").write_text(f"FROM {pool.image_prefix}busybox:1.35\nLABEL {labels}\n")
    build = BuildOptions(tmp_path, remove_image=True)
    with pool.build_and_run_with_build_options(build, RunOptions(repository=name, cmd=SLEEP)):
        yield name


class TestLabelsOfTheImage:
    """Our labels have no effect on containers if they come from the image."""

    @pytest.mark.parametrize("labelled_image", [(EXPIRES, REUSE, "dockertest.later")], indirect=True)
    def test_container_does_not_expire_with_its_image(self, labelled_image: str, engine: Engine) -> None:
        """A session that removes expired containers does not remove it."""
        with dockertest.Pool(image_prefix="") as pool:
            resource = pool.run(labelled_image, cmd=SLEEP)
            labels = engine.inspect(resource.id)["Config"]["Labels"]
            assert [labels[name] for name in (EXPIRES, REUSE, "dockertest.later")] == ["", "", ""]
            pool.prune()
            assert engine.has(resource.id)

    @pytest.mark.parametrize("labelled_image", [(EXPIRES,)], indirect=True)
    def test_container_with_a_ttl_keeps_its_own(self, labelled_image: str, engine: Engine) -> None:
        """The labels of the session replace those of the image."""
        with dockertest.Pool(image_prefix="", ttl=3600) as pool:
            resource = pool.run(labelled_image, cmd=SLEEP)
            assert int(engine.inspect(resource.id)["Config"]["Labels"][EXPIRES]) > 1

    @pytest.mark.parametrize("labelled_image", [(REUSE,)], indirect=True)
    def test_container_is_removed_after_a_kill(self, labelled_image: str, engine: Engine) -> None:
        """The reaper does not mistake it for a container that outlives its session."""
        program = """
import dockertest, os, sys
pool = dockertest.Pool(image_prefix="")
print(pool.run(sys.argv[1], cmd=["sleep", "600"]).id, flush=True)
sys.stdin.read()
"""
        command = [sys.executable, "-c", program, labelled_image]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            container = process.stdout.readline().strip()
            assert engine.has(container)
            os.kill(process.pid, signal.SIGKILL)
        try:
            dockertest.retry(lambda: not engine.has(container), max_wait=30)
        finally:
            if engine.has(container):
                engine.remove(container)


@pytest.mark.parametrize(
    "option",
    [
        {"env": {"A": "x\udcff"}},
        {"env": ["A=x\udcff"]},
        {"cmd": ["echo", "x\udcff"]},
        {"labels": {"a": "x\udcff"}},
        {"user": "x\udcff"},
        {"files": {"/tmp/x\udcff": ""}},
    ],
    ids=str,
)
def test_text_that_is_not_unicode_is_rejected(pool: dockertest.Pool, option: dict[str, Any]) -> None:
    """The engine would silently replace it, which would change the value."""
    with pytest.raises(dockertest.InvalidOptionError, match="surrogate"):
        pool.run(**{"repository": "busybox:1.35", "cmd": SLEEP, **option}).close()


@pytest.mark.parametrize("options", [{"env": {"A": "\udcff"}}, {"cmd": ["echo", "\udcff"]}], ids=str)
def test_text_that_is_not_unicode_is_rejected_by_exec(pool: dockertest.Pool, options: dict[str, Any]) -> None:
    """The command would get another value."""
    with (
        pool.run("busybox:1.35", cmd=SLEEP) as resource,
        pytest.raises(dockertest.InvalidOptionError, match="surrogate"),
    ):
        resource.exec(**{"cmd": ["true"], **options})


@pytest.mark.differs("seccomp profiles")
def test_seccomp_profile_is_read_from_a_file(pool: dockertest.Pool, tmp_path: Path) -> None:
    """
    The path is on this machine, and the engine applies the profile.

    The docker CLI reads it in the same way.
    """
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}, indent=2))
    with pool.run("busybox:1.35", cmd=SLEEP, security_opt=[f"seccomp={profile}"]) as resource:
        result = resource.exec(["mkdir", "/tmp/directory"])
        assert result.exit_code == 1
        assert "Operation not permitted" in result.stderr


SECRETIVE_SUITE = """
    import os, unittest
    import dockertest, pytest
    from dockertest.testcase import DockerTestCase

    IMAGE, MISSING = "busybox:1.35", "127.0.0.1:1/no/such"

    def secret(): return "2retnuh"[::-1]
    def env(): return {"PASSWORD": secret()}

    @pytest.fixture
    def box(dockertest_pool):
        with dockertest_pool.run(IMAGE, env=env(), cmd=["sleep", "600"], labels=LABEL) as resource:
            yield resource

    def test_create(dockertest_pool): dockertest_pool.run(IMAGE, env=env(), cap_add=["NO_SUCH"], labels=LABEL)
    def test_start(dockertest_pool): dockertest_pool.run(IMAGE, env=env(), cmd=["/no/such"], labels=LABEL)
    def test_reuse(dockertest_pool): dockertest_pool.run(IMAGE, env=env(), cmd=["/no"], reuse=True, labels=LABEL)
    def test_pull(dockertest_pool):
        auth = dockertest.AuthConfig("user", secret())
        dockertest_pool.run(MISSING, env=env(), auth=auth)
    def test_files(dockertest_pool):
        dockertest_pool.run(IMAGE, files={"/proc/no/x": secret()}, cmd=["true"], labels=LABEL)
    def test_invalid_option(dockertest_pool): dockertest_pool.run(IMAGE, env=env(), files={"/a": secret()}, tty="yes")
    def test_invalid_env(dockertest_pool): dockertest_pool.run(IMAGE, env=[secret()])
    def test_exec(box): box.exec(["sh", "-c", "exit 3"], env=env(), stdin=secret(), check=True)
    def test_exec_in_a_stopped_container(box): box.stop(timeout=0), box.exec(["true"], env=env())
    def test_invalid_exec(box): box.exec(["true"], env=[secret()])
    def test_write_file(box): box.write_file("/proc/no/x", secret())
    def test_retry(box): box.retry(lambda: False, max_wait=0.1)
    def test_death(box): box.stop(timeout=0), box.exec(["kill", "1"]), box.retry(lambda: False)
    def test_build(dockertest_pool, tmp_path):
        (tmp_path / "Dockerfile").write_text(f"FROM {dockertest_pool.image_prefix}{IMAGE}\\nARG T\\nRUN exit 1\\n")
        build = dockertest.BuildOptions(tmp_path, build_args={"T": secret()})
        dockertest_pool.build_and_run_with_build_options(build, dockertest.RunOptions(name="dockertest-no-such"))
    def test_build_without_a_file(dockertest_pool, tmp_path):
        dockertest_pool.build_and_run("dockertest-no-such", tmp_path / "missing", env())

    class TestCase(DockerTestCase):
        def test_run(self): self.run_container(IMAGE, env=env(), cmd=["/no/such"], labels=LABEL)
        def test_run_for_the_class(self): self.run_class_container(MISSING, env=env())
"""


def test_report_of_a_failed_test_shows_no_secret(suite: Suite) -> None:
    """
    Secrets are hidden even with the variables of all frames.

    They are hidden in the XML file for CI, too.
    """
    suite.write("test_secrets.py", SECRETIVE_SUITE)
    options = ["-p", "no:cacheprovider", "--showlocals", "--full-trace", "-vv", "--junit-xml=report.xml"]
    _, output = suite.run("pytest", "-q", *options)
    report = (suite.folder / "report.xml").read_text(encoding="utf-8")
    assert "17 failed" in output, output
    assert "PASSWORD=***" in output
    leaks = [line for text in (output, report) for line in text.splitlines() if "hunter2" in line]
    assert leaks == []
