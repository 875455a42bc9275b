"""Which registries a Dockerfile's images are in."""

import pytest

from dockertest._images import build_context as _dockerfile

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("dockerfile", "expected"),
    [
        ("FROM busybox:1.35", {""}),
        ("from busybox", {""}),
        ("FROM team/app", {""}),
        ("FROM localhost/app", {"localhost"}),
        ("FROM registry.test:5000/team/app:1 AS base\nFROM base\nFROM BASE AS last", {"registry.test:5000"}),
        (f"FROM --platform=$BUILDPLATFORM registry.test/app@{DIGEST}", {"registry.test"}),
        ("FROM scratch\nCOPY --chown=1 --from=registry.test/a /a /b\nCOPY --from=0 /a /b", {"registry.test"}),
        ("FROM a.test/a\nRUN --mount=type=bind,from=b.test/b,target=/b true", {"a.test", "b.test"}),
        ("ARG HOST=a.test\nFROM ${HOST}/a", {"a.test"}),
        ("ARG HOST='a.test'\nFROM $HOST/a", {"a.test"}),
        ("ARG GIVEN=a.test\nFROM ${GIVEN}/a", {"given.test"}),
        ("FROM ${NEVER:-a.test}/a", {"a.test"}),
        ("FROM $NEVER/a", set()),
        ("FROM ${NEVER:?words}/a", set()),
        ("# FROM a.test/a\n\tFROM b.test/b", {"b.test"}),
        ("", set()),
    ],
)
def test_the_registries_of_the_images_in_a_dockerfile(dockerfile: str, expected: set[str]) -> None:
    """By what stands there, with the arguments filled in; not stages, and nothing that cannot be known."""
    assert _dockerfile.registries(dockerfile, {"GIVEN": "given.test"}) == expected
