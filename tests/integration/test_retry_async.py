"""`retry_async` with a real engine."""

import asyncio
import time

import pytest

import dockertest

SLEEP = ("sleep", "600")


def test_a_coroutine_function_is_called_until_it_returns(pool: dockertest.Pool) -> None:
    """Its result is returned, and other tasks continue meanwhile."""
    calls = ticks = 0

    async def op() -> int:
        nonlocal calls
        calls += 1
        if calls < 4 or ticks < 6:
            raise ConnectionRefusedError
        return calls

    async def main() -> int:
        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        value = await pool.retry_async(op)
        ticking.cancel()
        return value

    assert asyncio.run(main()) >= 4


def test_an_attempt_that_hangs_is_cancelled(pool: dockertest.Pool) -> None:
    """
    It counts as a failed attempt although `on` does not include it.

    Its `TimeoutError` becomes the cause of the `RetryTimeoutError`.
    """
    cancelled = 0

    async def op() -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    began = time.monotonic()
    with pytest.raises(dockertest.RetryTimeoutError) as caught:
        asyncio.run(pool.retry_async(op, attempt_timeout=0.1, max_attempts=3, on=ConnectionError))
    assert time.monotonic() - began < 30
    assert cancelled == caught.value.attempts == 3
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_a_dead_container_ends_the_wait(pool: dockertest.Pool) -> None:
    """`watch` works as in `retry`."""

    async def op() -> bool:
        return False

    with pool.run("busybox:1.35", cmd=["sh", "-c", "exit 3"]) as resource:
        with pytest.raises(dockertest.ContainerExitedError, match="exit code 3"):
            asyncio.run(pool.retry_async(op, watch=(resource,)))
        with pytest.raises(dockertest.RetryTimeoutError):
            asyncio.run(dockertest.retry_async(op, max_wait=0.2))


def test_the_timeout_of_the_caller_propagates(pool: dockertest.Pool) -> None:
    """It cancels the wait immediately, and does not count as a failed attempt."""

    async def op() -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        await asyncio.wait_for(pool.retry_async(op, attempt_timeout=30), timeout=0.2)

    began = time.monotonic()
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        asyncio.run(main())
    assert time.monotonic() - began < 20
