"""Accounts, whose balance is never negative."""

from django.db import models


class Account(models.Model):
    """An account; the database enforces the check."""

    name = models.TextField(unique=True)
    balance = models.IntegerField()
    objects = models.Manager()

    class Meta:
        """The constraints of the table."""

        constraints = [models.CheckConstraint(condition=models.Q(balance__gte=0), name="not_in_debt")]  # noqa: RUF012 - the form that Django documents
