"""
Use one PostgreSQL server for all scenarios, and an empty table for each.

    python -m behave examples/with_behave
"""

from collections.abc import Iterator
from typing import Any

import psycopg
from behave import fixture, use_fixture
from behave.model import Scenario, Step

import dockertest


@fixture
def server(context: Any) -> Iterator[None]:
    """Start the server, and remove it after the last scenario in any case."""
    with dockertest.Pool() as pool:
        context.postgres = pool.run("postgres", "15", env={"POSTGRES_PASSWORD": "secret"})
        url = (
            f"postgresql://postgres:secret@{context.postgres.get_host_port(5432)}/postgres?connect_timeout=5"
        )
        with context.postgres.retry(lambda: psycopg.connect(url, autocommit=True)) as context.connection:
            context.connection.execute(
                "CREATE TABLE accounts (name text PRIMARY KEY, balance integer CHECK (balance >= 0))"
            )
            yield


def before_all(context: Any) -> None:
    """Start the server for the whole run."""
    use_fixture(server, context)


def before_scenario(context: Any, _scenario: Scenario) -> None:
    """Empty the table."""
    context.connection.execute("TRUNCATE accounts")


def after_step(context: Any, step: Step) -> None:
    """Print the state and the last log lines of the server after a failed step."""
    if step.status.has_failed():
        print(f"{context.postgres} is {context.postgres.status}:\n{context.postgres.logs(tail=20)}")
