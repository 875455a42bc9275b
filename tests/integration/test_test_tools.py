"""Test tools that change the interpreter cause a clear error or have no effect."""

import sys

import pytest

from .conftest import Suite

USES_POOL = """
    import dockertest

    def test_it(dockertest_pool):
        assert dockertest_pool.container_by_name("dockertest-unknown") is None
"""


@pytest.mark.parametrize(
    ("options", "warnings"),
    [
        (["--disable-socket"], "error"),
        (["--disable-socket"], "default"),
        (["--allow-hosts=192.0.2.1"], "error"),
    ],
    ids=["no socket", "no socket, no warnings as errors", "other host"],
)
def test_blocked_sockets_are_an_error_that_names_pytest_socket(
    suite: Suite, local: str, options: "list[str]", warnings: str
) -> None:
    """They are not reported as a missing engine, which would skip the test."""
    suite.write("test_it.py", USES_POOL)
    code, output = suite.run("pytest", "-rs", "-W", warnings, *options, DOCKER_HOST=f"unix://{local}")
    assert code == 1, output
    assert "EngineError: pytest-socket blocks connections in this process: " in output
    assert "run pytest with --allow-unix-socket for an engine on a socket" in output
    assert "1 error" in output


def test_allowing_unix_sockets_is_sufficient(suite: Suite, local: str) -> None:
    """The hint suggests that."""
    suite.write("test_it.py", USES_POOL)
    code, output = suite.run(
        "pytest", "--disable-socket", "--allow-unix-socket", DOCKER_HOST=f"unix://{local}"
    )
    assert code == 0, output


@pytest.mark.usefixtures("local")  # The certificates of a remote engine are not in the faked file system.
def test_a_faked_file_system_does_not_outlive_its_test(suite: Suite) -> None:
    """
    pyfakefs discards modules that are imported while it is active.

    Stale references to them would still use its files.
    """
    suite.write(
        "test_it.py",
        """
        import dockertest

        def use(pool):
            assert pool.container_by_name("dockertest-unknown") is None
            with pool.run("busybox:1.35", cmd=["sleep", "600"], labels=LABEL, stop_timeout=0) as box:
                pool.retry(lambda: box.exec(["true"]).exit_code == 0)
                try:
                    box.exec(["false"], check=True)
                except dockertest.ExecError:
                    pass

        def test_fake(fs):
            with dockertest.Pool() as pool:
                use(pool)

        def test_real(tmp_path):
            (tmp_path / "file").write_text("content")
            with dockertest.Pool() as pool:
                use(pool)
                with pool.run("busybox:1.35", cmd=["sleep", "600"], labels=LABEL, stop_timeout=0) as box:
                    box.copy_in(tmp_path / "file", "/tmp/")
                    assert box.read_file("/tmp/file") == b"content"

        def test_fake_again(fs):
            with dockertest.Pool() as pool:
                use(pool)

        def test_shared(dockertest_pool):
            use(dockertest_pool)
        """,
    )
    code, output = suite.run("pytest", PYTEST_ADDOPTS="")
    assert code == 0, output


TOO_MANY_FILES = """
import os, resource, sys, dockertest
from dockertest import require_docker
pool = dockertest.Pool(sys.argv[1])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    pass
failures = []
for attempt in (lambda: dockertest.Pool(sys.argv[1]), require_docker):
    try:
        attempt()
    except dockertest.EngineError as error:
        failures.append((error.reason, str(error)))
for descriptor in held:
    os.close(descriptor)
pool.close()
for failure in failures:
    print(*failure)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="system: Windows has no such limit")
def test_too_many_open_files_are_reported(local: str, suite: Suite) -> None:
    """They are not reported as a missing engine, which would skip the test."""
    suite.write("it.py", TOO_MANY_FILES)
    code, output = suite.run("it", f"unix://{local}", DOCKER_HOST=f"unix://{local}")
    assert code == 0, output
    line = "files this process has too many open files and sockets; close some, or raise the limit (now 64, ulimit -n)"
    assert output.splitlines() == [line, line]
