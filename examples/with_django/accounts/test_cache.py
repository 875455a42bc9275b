"""Tests that need a second server."""

from django.core.cache import cache
from django.test import TestCase, override_settings

from dockertest.testcase import DockerTestCase


class CacheTest(DockerTestCase, TestCase):
    """A cache on a real Redis."""

    @classmethod
    def setUpClass(cls) -> None:
        """Start Redis once for all test processes, and use it as the cache."""
        redis = cls.run_class_container("redis", "7.0", shared=True, wait_for="ready")
        backend = {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": redis.url(),
        }
        cls.enterClassContext(override_settings(CACHES={"default": backend}))
        super().setUpClass()

    def test_a_value_is_cached(self) -> None:
        """Redis returns the value that was stored."""
        cache.set("balance", 10)
        self.assertEqual(cache.get("balance"), 10)
