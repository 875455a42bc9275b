"""A test runner that starts the server before Django makes its test database, and removes it afterwards."""

from typing import Any

from django.db import connection
from django.test.runner import DiscoverRunner

import dockertest


class PostgresRunner(DiscoverRunner):
    """Django's runner; the server of the database `default` lives as long as the tests."""

    def setup_databases(self, **options: Any) -> Any:
        """Start the server, wait until Django itself can connect to it, and have Django make its test database."""
        # Should something fail before `teardown_databases`, the server goes with the process.
        self.pool = dockertest.Pool()
        settings = connection.settings_dict
        postgres = self.pool.run("postgres", "15", env={"POSTGRES_PASSWORD": settings["PASSWORD"]})
        settings["HOST"] = postgres.get_bound_ip(5432)
        settings["PORT"] = postgres.get_port(5432)
        postgres.retry(connection.ensure_connection)
        return super().setup_databases(**options)

    def teardown_databases(self, old_config: Any, **options: Any) -> None:
        """Have Django drop its test database and close its connections, then remove the server."""
        try:
            super().teardown_databases(old_config, **options)
        finally:
            self.pool.close()
