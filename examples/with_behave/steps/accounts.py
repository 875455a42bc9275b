"""The steps, each of which runs one SQL statement."""

from typing import Any

import psycopg
from behave import given, then, when


@given("an account of {name} with {balance:d}")
def open_account(context: Any, name: str, balance: int) -> None:
    """Insert an account."""
    context.connection.execute("INSERT INTO accounts VALUES (%s, %s)", [name, balance])


@when("{name} pays {amount:d}")
def pay(context: Any, name: str, amount: int) -> None:
    """Reduce a balance, and keep the server's error for a later step."""
    context.refusal = None
    try:
        context.connection.execute(
            "UPDATE accounts SET balance = balance - %s WHERE name = %s", [amount, name]
        )
    except psycopg.Error as error:
        context.refusal = error


@then("the server refuses it")
def is_refused(context: Any) -> None:
    """Check that the server rejected the payment."""
    assert isinstance(context.refusal, psycopg.errors.CheckViolation), context.refusal


@then("{name} has {balance:d}")
def has(context: Any, name: str, balance: int) -> None:
    """Check the balance of an account."""
    row = context.connection.execute("SELECT balance FROM accounts WHERE name = %s", [name]).fetchone()
    assert row == (balance,), row
