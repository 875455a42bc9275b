"""What becomes of a test where no engine answers: skipped on a laptop, failed in CI."""

from __future__ import annotations

import os
from collections.abc import Mapping
from unittest import SkipTest

from dockertest import _validation as _specs
from dockertest._pool import Pool
from dockertest.errors import DockerUnavailableError


def require_docker() -> None:
    """
    Go on if a container engine answers; else have the test, the class or the module skipped, or fail in CI.

    It fails where the variable `CI` is set; `DOCKERTEST_REQUIRED=1` has it fail and `DOCKERTEST_REQUIRED=0` has it
    skipped anywhere. Skipping is `unittest.SkipTest`, which pytest takes for its own.

    Raises:
        DockerUnavailableError: No engine answers, and one is required.
        InvalidOptionError: An environment variable has a value that cannot work.
    """
    required_pool().close()


def required_pool() -> Pool:
    """Give a new pool, or end the test as `require_docker` does."""
    why = _required(os.environ)
    try:
        return Pool()
    except DockerUnavailableError as error:
        if why:
            raise DockerUnavailableError(
                f"{error}\n  required, since {why}; DOCKERTEST_REQUIRED=0 skips instead"
            ) from error
        raise SkipTest(
            f"needs a container engine (DOCKERTEST_REQUIRED=1 makes this a failure): {error}"
        ) from error


def _required(environ: Mapping[str, str]) -> str:
    """Say why an engine is required; empty where it is not."""
    asked = _specs.switch("DOCKERTEST_REQUIRED", environ.get("DOCKERTEST_REQUIRED"))
    if asked is not None:
        return "DOCKERTEST_REQUIRED is 1" if asked else ""
    return "CI is set" if environ.get("CI", "").lower() not in ("", "0", "false") else ""
