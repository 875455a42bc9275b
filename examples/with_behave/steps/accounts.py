"""The steps, each a statement to the server."""

from typing import Any

import psycopg
from behave import given, then, when


@given("an account of {name} with {balance:d}")
def open_account(context: Any, name: str, balance: int) -> None:
    """Store an account."""
    context.connection.execute("INSERT INTO accounts VALUES (%s, %s)", [name, balance])


@when("{name} pays {amount:d}")
def pay(context: Any, name: str, amount: int) -> None:
    """Take from an account; what the server says against it is for a later step to judge."""
    context.refusal = None
    try:
        context.connection.execute(
            "UPDATE accounts SET balance = balance - %s WHERE name = %s", [amount, name]
        )
    except psycopg.Error as error:
        context.refusal = error


@then("the server refuses it")
def is_refused(context: Any) -> None:
    """See that the server's check has spoken."""
    assert isinstance(context.refusal, psycopg.errors.CheckViolation), context.refusal


@then("{name} has {balance:d}")
def has(context: Any, name: str, balance: int) -> None:
    """Read an account."""
    row = context.connection.execute("SELECT balance FROM accounts WHERE name = %s", [name]).fetchone()
    assert row == (balance,), row
