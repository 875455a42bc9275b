"""A pool records what it did and when."""

import pytest

import dockertest

SLEEP = ("sleep", "600")


def test_the_life_of_a_container_is_recorded() -> None:
    """
    The steps from creation to removal are in order of time.

    They have the container name that the engine has chosen.
    """
    with dockertest.Pool() as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        resource.retry(lambda: True)
        resource.retry(lambda: True)  # Only the first success shows when it was ready.
    steps = pool.timeline()
    assert [step.kind for step in steps] == ["create", "start", "ready", "close"]
    assert {(step.container, step.name) for step in steps} == {(resource.id, resource.name)}
    assert not any(step.failed for step in steps)
    assert [step.began for step in steps] == sorted(step.began for step in steps)
    assert all(0 < step.seconds < 60 for step in steps)


def test_a_failure_is_recorded() -> None:
    """The step has the time until the failure."""
    with dockertest.Pool() as pool:
        with pytest.raises(dockertest.ContainerStartError):
            pool.run("busybox:1.35", cmd=["no-such-command"])
        assert [(step.kind, step.failed) for step in pool.timeline()] == [
            ("create", False), ("start", True), ("close", False),
        ]  # fmt: skip


def test_a_wait_of_the_pool_counts_for_the_only_pending_container() -> None:
    """In Go, `retry` is a method of the pool."""
    with dockertest.Pool() as pool:
        first = pool.run("busybox:1.35", cmd=SLEEP)
        pool.retry(lambda: True)
        second, third = pool.run_all([dockertest.RunOptions(repository="busybox:1.35", cmd=SLEEP)] * 2)
        pool.retry(lambda: True)
        ready = {step.container for step in pool.timeline() if step.kind == "ready"}
        assert ready == {first.id}
        assert second.id != third.id


def test_reuse_is_recorded(name: str) -> None:
    """There are no steps for creation and start."""
    with dockertest.Pool() as pool:
        pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
        again = pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
        assert [step.kind for step in pool.timeline()] == ["create", "start", "reuse"]
        pool.purge(again)
