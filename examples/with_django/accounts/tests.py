"""Ordinary Django tests."""

from django.db import IntegrityError, connection
from django.test import TestCase

from .models import Account


class AccountTest(TestCase):
    """Each test runs in its own transaction, which Django rolls back."""

    def test_a_balance_is_kept(self) -> None:
        """A stored balance is read back."""
        Account.objects.create(name="alice", balance=10)
        self.assertEqual(Account.objects.get(name="alice").balance, 10)

    def test_a_balance_is_never_negative(self) -> None:
        """The server enforces the check."""
        with self.assertRaises(IntegrityError):
            Account.objects.create(name="bob", balance=-1)


class ServerTest(TestCase):
    """The tests use the same kind of server as production."""

    def test_it_is_a_real_server(self) -> None:
        """The server reports its version."""
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            self.assertTrue(cursor.fetchone()[0].startswith("15"))
