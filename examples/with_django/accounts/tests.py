"""Tests as any project with Django has them."""

from django.db import IntegrityError, connection
from django.test import TestCase

from .models import Account


class AccountTest(TestCase):
    """Each test in a transaction of its own, which Django rolls back."""

    def test_a_balance_is_kept(self) -> None:
        """What was stored is read back."""
        Account.objects.create(name="alice", balance=10)
        self.assertEqual(Account.objects.get(name="alice").balance, 10)

    def test_a_balance_is_never_negative(self) -> None:
        """The server's own check holds."""
        with self.assertRaises(IntegrityError):
            Account.objects.create(name="bob", balance=-1)


class ServerTest(TestCase):
    """What answers is no stand-in for the production database."""

    def test_it_is_a_real_server(self) -> None:
        """The server tells its version."""
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            self.assertTrue(cursor.fetchone()[0].startswith("15"))
