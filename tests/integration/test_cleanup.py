"""What a pool made is removed, whichever way its life ends."""

import subprocess
import sys
import threading

import pytest

import dockertest

from .conftest import Engine

SLEEP = ("sleep", "600")


def test_closing_a_pool_removes_all_it_made(engine: Engine) -> None:
    """Every container goes, and closing twice is nothing."""
    pool = dockertest.Pool()
    made = [pool.run("busybox:1.35", cmd=SLEEP) for _ in range(3)]
    pool.close()
    pool.close()
    assert not any(engine.has(each.id) for each in made)


def test_what_another_needs_goes_after_it(engine: Engine) -> None:
    """Podman does not remove a container whose network others are in: it has its turn when they are gone."""
    with dockertest.Pool() as pool:
        first = pool.run("busybox:1.35", cmd=SLEEP)
        made = [pool.run("busybox:1.35", cmd=SLEEP, network_id=f"container:{first.id}") for _ in range(2)]
    assert not any(engine.has(each.id) for each in (first, *made))


def test_a_with_block_removes_all_it_made_when_it_fails(engine: Engine) -> None:
    """The failure of the block goes on, and the container is gone."""
    made: list[dockertest.Resource] = []

    def fail() -> None:
        with dockertest.Pool() as pool:
            made.append(pool.run("busybox:1.35", cmd=SLEEP))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (resource,) = made
    assert not engine.has(resource.id)


def test_a_resource_is_removed_by_its_own_with(pool: dockertest.Pool, engine: Engine) -> None:
    """A container of one test goes with that test, while the pool stays open."""
    with pool.run("busybox:1.35", cmd=SLEEP) as resource:
        assert engine.has(resource.id)
    assert not engine.has(resource.id)


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(3)", "raise ValueError('unhandled')"])
def test_the_interpreters_end_removes_what_is_left(engine: Engine, name: str, ending: str) -> None:
    """Nobody closed the pool: the end of the process does, after an unhandled error too."""
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


def test_a_closed_pool_and_a_closed_resource_say_so(name: str) -> None:
    """Whoever uses them afterwards learns it."""
    pool = dockertest.Pool()
    resource = pool.run("busybox:1.35", name=name, cmd=SLEEP, exposed_ports=[80])
    resource.close()
    with pytest.raises(dockertest.ResourceClosedError, match=name):
        resource.get_port(80)
    pool.close()
    with pytest.raises(dockertest.ResourceClosedError, match="pool is closed"):
        pool.run("busybox:1.35", cmd=SLEEP)


def test_eight_threads_close_one_container_once(pool: dockertest.Pool, engine: Engine) -> None:
    """All of them come back without an error, and it is gone when the first does."""
    resource = pool.run("busybox:1.35", cmd=SLEEP)
    failures: list[BaseException] = []

    def close() -> None:
        try:
            resource.close()
            assert not engine.has(resource.id)
        except (Exception, AssertionError) as error:  # noqa: BLE001 - told by the thread that started this one
            failures.append(error)

    threads = [threading.Thread(target=close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_ten_threads_run_on_one_fresh_pool(engine: Engine) -> None:
    """Each gets a container of its own, and all are removed."""
    with dockertest.Pool() as pool:
        made: list[dockertest.Resource] = []
        threads = [
            threading.Thread(target=lambda: made.append(pool.run("busybox:1.35", cmd=SLEEP)))
            for _ in range(10)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({each.id for each in made}) == 10
    assert not any(engine.has(each.id) for each in made)


def test_closing_while_another_thread_runs_leaves_nothing(engine: Engine, name: str) -> None:
    """The other thread gets a container that is removed, or an error of ours; never one that stays."""
    for attempt in range(4):
        options = dockertest.RunOptions(repository="busybox", tag="1.35", name=f"{name}-{attempt}", cmd=SLEEP)
        failures = close_while_running(dockertest.Pool(), options)
        assert all(isinstance(each, dockertest.ResourceClosedError) for each in failures), failures
        assert not engine.has(f"{name}-{attempt}")


def close_while_running(pool: dockertest.Pool, options: dockertest.RunOptions) -> list[Exception]:
    """Close *pool* at the moment when another thread is about to create a container; give what that thread met."""
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


def test_something_removed_by_others_is_no_error(engine: Engine) -> None:
    """What is gone already counts as removed."""
    with dockertest.Pool() as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        engine.client.api.remove_container(resource.id, force=True)


def test_kept_things_stay_and_are_told(engine: Engine, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """With `keep=True` everything is left standing, and one line says how to reach and how to remove it."""
    with dockertest.Pool(keep=True) as pool:
        network = pool.create_network(name)
        kept = pool.run("busybox:1.35", name=name, cmd=SLEEP, exposed_ports=[80], networks=[network])
        address = kept.get_host_port(80)
        kept.close()
    told = capsys.readouterr().err
    assert told.count("kept container") == 1
    assert address in told
    assert f"docker rm -f -v {kept.id[:12]}" in told
    assert engine.has(name)
    with dockertest.Pool() as pool:
        assert pool.remove_container_by_name(name)
        for found in pool.networks_by_name(name):
            pool.remove_network(found)
