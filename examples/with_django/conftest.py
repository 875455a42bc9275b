"""
The same tests with pytest-django; all workers of pytest-xdist use one server.

    python -m pytest -n 2 examples/with_django
"""

import pytest
from django.db import connection

import dockertest


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    dockertest_pool: dockertest.Pool, django_db_modify_db_settings_parallel_suffix: None
) -> None:
    """Start the server before pytest-django creates its test databases."""
    settings = connection.settings_dict
    server = dockertest_pool.run(
        "postgres",
        "15",
        env={
            "POSTGRES_USER": settings["USER"],
            "POSTGRES_PASSWORD": settings["PASSWORD"],
        },
        cmd=["postgres", "-c", "fsync=off"],  # tests do not need durability
        shared=True,
        wait_for="ready",
    )
    settings["HOST"], settings["PORT"] = server.get_address(5432)
