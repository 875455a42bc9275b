"""Configure a small project. The test runner sets host and port of its database."""

SECRET_KEY = "for tests alone"  # noqa: S105
INSTALLED_APPS = ["accounts"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "shop",
        "USER": "shop",
        "PASSWORD": "secret",
        "OPTIONS": {"connect_timeout": 5},
    }
}
TEST_RUNNER = "runner.PostgresRunner"
