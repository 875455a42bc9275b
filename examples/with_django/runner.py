"""Start a PostgreSQL server for the test databases, and remove it afterwards."""

from typing import Any

from django.db import connection
from django.test.runner import DiscoverRunner

import dockertest


class PostgresRunner(DiscoverRunner):
    """Django's runner with a server for the database `default`."""

    def setup_databases(self, **options: Any) -> Any:
        """Start the server, and create the test databases on it."""
        self.pool = dockertest.Pool()  # removes the server at exit, if not before
        settings = connection.settings_dict
        server = self.pool.run(
            "postgres",
            "15",
            env={
                "POSTGRES_USER": settings["USER"],
                "POSTGRES_PASSWORD": settings["PASSWORD"],
            },
            cmd=["postgres", "-c", "fsync=off"],  # tests do not need durability
            reuse=self.keepdb,
            wait_for="ready",
        )
        settings["HOST"], settings["PORT"] = server.get_address(5432)
        return super().setup_databases(**options)

    def teardown_databases(self, old_config: Any, **options: Any) -> None:
        """Drop the test databases and remove the server, unless `--keepdb` is set."""
        try:
            super().teardown_databases(old_config, **options)
        finally:
            self.pool.close()
