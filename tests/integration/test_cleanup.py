"""Containers and networks are removed on pool close and at interpreter exit."""

import subprocess
import sys
import threading

import pytest

import dockertest

from .conftest import Engine

SLEEP = ("sleep", "600")


def test_closing_a_pool_removes_its_containers(engine: Engine) -> None:
    """Every container is removed, and closing twice does nothing."""
    pool = dockertest.Pool()
    resources = [pool.run("busybox:1.35", cmd=SLEEP) for _ in range(3)]
    pool.close()
    pool.close()
    assert not any(engine.has(resource.id) for resource in resources)


def test_a_container_is_removed_after_those_that_share_its_network(engine: Engine) -> None:
    """
    The removal is retried while other containers use the network.

    Podman does not remove a container as long as others use its network.
    """
    with dockertest.Pool() as pool:
        first = pool.run("busybox:1.35", cmd=SLEEP)
        others = [pool.run("busybox:1.35", cmd=SLEEP, network_id=f"container:{first.id}") for _ in range(2)]
    assert not any(engine.has(resource.id) for resource in (first, *others))


def test_a_failing_with_block_removes_its_containers(engine: Engine) -> None:
    """The exception propagates, and the container is removed."""
    resources: list[dockertest.Resource] = []

    def fail() -> None:
        with dockertest.Pool() as pool:
            resources.append(pool.run("busybox:1.35", cmd=SLEEP))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (resource,) = resources
    assert not engine.has(resource.id)


def test_leaving_the_with_block_of_a_resource_removes_it(pool: dockertest.Pool, engine: Engine) -> None:
    """The container is removed while its pool stays open."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        assert engine.has(resource.id)
    assert not engine.has(resource.id)


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(3)", "raise ValueError('unhandled')"])
def test_the_exit_of_the_interpreter_removes_containers(engine: Engine, name: str, ending: str) -> None:
    """The pool is closed at exit, also after an unhandled exception."""
    program = f"""
import dockertest
pool = dockertest.Pool()
for index in range(3):
    pool.run("busybox:1.35", name=f"{name}-{{index}}", cmd=["sleep", "600"])
print(len(pool.client.containers.list(filters={{"name": "{name}"}})))
{ending}
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout.strip() == "3", ended.stderr
    assert not any(engine.has(f"{name}-{index}") for index in range(3))
    assert "dockertest" not in ended.stderr.replace(f"{name}", ""), ended.stderr


def test_a_closed_pool_or_resource_cannot_be_used(name: str) -> None:
    """The error names the pool or resource."""
    pool = dockertest.Pool()
    resource = pool.run("busybox:1.35", name=name, cmd=SLEEP, exposed_ports=[80])
    resource.close()
    with pytest.raises(dockertest.ResourceClosedError, match=name):
        resource.get_port(80)
    pool.close()
    with pytest.raises(dockertest.ResourceClosedError, match="pool is closed"):
        pool.run("busybox:1.35", cmd=SLEEP)


def test_eight_threads_close_one_container_once(pool: dockertest.Pool, engine: Engine) -> None:
    """No call raises an error, and each returns after the removal."""
    resource = pool.run("busybox:1.35", cmd=SLEEP)
    failures: list[BaseException] = []

    def close() -> None:
        try:
            resource.close()
            assert not engine.has(resource.id)
        except (Exception, AssertionError) as error:  # noqa: BLE001 - raised by the thread that started this one
            failures.append(error)

    threads = [threading.Thread(target=close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_ten_threads_share_a_new_pool(engine: Engine) -> None:
    """Each thread gets its own container, and all containers are removed."""
    with dockertest.Pool() as pool:
        resources: list[dockertest.Resource] = []
        threads = [
            threading.Thread(target=lambda: resources.append(pool.run("busybox:1.35", cmd=SLEEP)))
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({resource.id for resource in resources}) == 10
    assert not any(engine.has(resource.id) for resource in resources)


def test_closing_a_pool_while_another_thread_starts_a_container(engine: Engine, name: str) -> None:
    """The other thread gets a container that is removed, or a `DockertestError`."""
    for attempt in range(4):
        options = dockertest.RunOptions(repository="busybox", tag="1.35", name=f"{name}-{attempt}", cmd=SLEEP)
        failures = close_during_run(dockertest.Pool(), options)
        assert all(isinstance(failure, dockertest.ResourceClosedError) for failure in failures), failures
        assert not engine.has(f"{name}-{attempt}")


def close_during_run(pool: dockertest.Pool, options: dockertest.RunOptions) -> list[Exception]:
    """
    Close *pool* during the creation of a container, and return the errors.

    Another thread creates the container, and the errors are those of that thread.
    """
    failures: list[Exception] = []
    creating = threading.Event()

    def run() -> None:
        try:
            pool.run_with_options(options, lambda _host_config: creating.set())
        except dockertest.DockertestError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    creating.wait(10)
    pool.close()
    thread.join()
    return failures


def test_a_container_that_was_removed_already_is_not_an_error(engine: Engine) -> None:
    """The pool treats it as removed."""
    with dockertest.Pool() as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        engine.remove(resource.id)


def test_kept_containers_and_networks_are_reported(
    engine: Engine, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """
    With `keep=True` nothing is removed, and one line reports the container.

    The line contains the address and the command for removal.
    """
    with dockertest.Pool(keep=True) as pool:
        network = pool.create_network(name)
        kept = pool.run("busybox:1.35", name=name, cmd=SLEEP, exposed_ports=[80], networks=[network])
        address = kept.get_host_port(80)
        kept.close()
    output = capsys.readouterr().err
    assert output.count("kept container") == 1
    assert address in output
    assert f"docker rm -f -v {kept.id[:12]}" in output
    assert engine.has(name)
    with dockertest.Pool() as pool:
        assert pool.remove_container_by_name(name)
        for network in pool.networks_by_name(name):
            pool.remove_network(network)
