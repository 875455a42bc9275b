"""
A real PostgreSQL with asyncio.

Neither the start nor the wait for the server blocks other tasks.

    python examples/with_asyncio.py
"""

import asyncio

import psycopg

import dockertest


async def main() -> None:
    """
    Start a server, wait for it with `retry_async`, and use it in several tasks.

    The start runs in a thread.
    """
    with dockertest.Pool() as pool:
        postgres = await asyncio.to_thread(pool.run, "postgres", "15", {"POSTGRES_PASSWORD": "secret"})
        url = f"postgresql://postgres:secret@{postgres.get_host_port(5432)}/postgres"
        first = await pool.retry_async(
            lambda: psycopg.AsyncConnection.connect(url),
            on=psycopg.OperationalError,
            attempt_timeout=5,  # seconds per call, for drivers without their own timeout
            watch=(postgres,),
        )
        async with first:
            await first.execute("CREATE TABLE visits (task integer)")
        await asyncio.gather(*(visit(url, task) for task in range(5)))
        async with await psycopg.AsyncConnection.connect(url) as connection:
            cursor = await connection.execute("SELECT count(*) FROM visits")
            print(await cursor.fetchone())


async def visit(url: str, task: int) -> None:
    """Insert a row through a separate connection."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        await connection.execute("INSERT INTO visits VALUES (%s)", [task])


if __name__ == "__main__":
    asyncio.run(main())
