"""Accounts, which are never in debt."""

from django.db import models


class Account(models.Model):
    """An account; the check is the server's own."""

    name = models.TextField(unique=True)
    balance = models.IntegerField()
    objects = models.Manager()

    class Meta:
        """Where the check is made."""

        constraints = [models.CheckConstraint(condition=models.Q(balance__gte=0), name="not_in_debt")]  # noqa: RUF012 - as Django has it
