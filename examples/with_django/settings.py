"""Settings of a small project; where its database is for the tests, the runner finds out."""

SECRET_KEY = "for tests alone"  # noqa: S105
INSTALLED_APPS = ["accounts"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "postgres",
        "PASSWORD": "secret",
        "OPTIONS": {"connect_timeout": 5},
    }
}
TEST_RUNNER = "runner.PostgresRunner"
