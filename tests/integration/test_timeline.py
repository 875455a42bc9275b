"""A pool knows what it did, and when."""

import pytest

import dockertest

SLEEP = ("sleep", "600")


def test_each_containers_way_is_told() -> None:
    """From its creation to its end, in the order of time; the engine's own name for it included."""
    with dockertest.Pool() as pool:
        resource = pool.run("busybox:1.35", cmd=SLEEP)
        resource.retry(lambda: True)
        resource.retry(lambda: True)  # only the first one says when it was ready
    steps = pool.timeline()
    assert [each.kind for each in steps] == ["create", "start", "ready", "close"]
    assert {(each.container, each.name) for each in steps} == {(resource.id, resource.name)}
    assert not any(each.failed for each in steps)
    assert [each.began for each in steps] == sorted(each.began for each in steps)
    assert all(0 < each.seconds < 60 for each in steps)


def test_a_failure_is_told() -> None:
    """With the time that it took."""
    with dockertest.Pool() as pool:
        with pytest.raises(dockertest.ContainerStartError):
            pool.run("busybox:1.35", cmd=["no-such-command"])
        assert [(each.kind, each.failed) for each in pool.timeline()] == [
            ("create", False), ("start", True), ("close", False),
        ]  # fmt: skip


def test_what_the_pool_waits_for_is_told_where_only_one_can_be_meant() -> None:
    """As in Go, where `retry` is the pool's."""
    with dockertest.Pool() as pool:
        first = pool.run("busybox:1.35", cmd=SLEEP)
        pool.retry(lambda: True)
        second, third = pool.run_all([dockertest.RunOptions(repository="busybox:1.35", cmd=SLEEP)] * 2)
        pool.retry(lambda: True)
        ready = {each.container for each in pool.timeline() if each.kind == "ready"}
        assert ready == {first.id}
        assert second.id != third.id


def test_a_reused_container_is_told(name: str) -> None:
    """It cost no start."""
    with dockertest.Pool() as pool:
        pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
        again = pool.run("busybox:1.35", name=name, cmd=SLEEP, reuse=True)
        assert [each.kind for each in pool.timeline()] == ["create", "start", "reuse"]
        pool.purge(again)
