"""Hints for failed pulls, and local images that match a platform; no engine."""

import pytest

from dockertest import _image_name
from dockertest._engine.inspection import parse_image
from dockertest._images import pull as _pull
from dockertest._images.credentials import Login
from dockertest._options import AuthConfig

DIGEST = f"sha256:{'0' * 64}"
LOGIN = Login(AuthConfig("ann", "s3cret"), "/home/ann/.docker/config.json")


def hint(message: str, image: str = "reg.test:5000/team/app:1", login: Login | None = None) -> str:
    """Return the hint for an error from the engine."""
    template = _pull._remedy(f"cannot pull image {image!r}: {message}")
    return _pull._hint(template, _image_name.parse_image_name("image", image), login)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        # Docker 20.10
        (
            'Head "http://reg.test:5000/v2/team/app/manifests/1": no basic auth credentials',
            "set auth=AuthConfig",
        ),
        ("unauthorized: authentication required", "set auth=AuthConfig"),
        (
            "manifest for reg.test:5000/team/app:1 not found: manifest unknown: manifest unknown",
            "no such tag",
        ),
        (
            "no matching manifest for linux/s390x in the manifest list entries",
            "choose another one with platform=",
        ),
        (
            'Get "http://reg.test:5000/v2/": dial tcp 10.0.0.1:5000: connect: connection refused',
            "nothing listens",
        ),
        ('Get "https://reg.test:5000/v2/": dial tcp: lookup reg.test: no such host', "host not found"),
        ("dial tcp: lookup reg.test: Temporary failure in name resolution", "host not found"),
        (
            "dial tcp: lookup reg.test on 10.0.0.1:53: read udp 10.0.0.2:4->10.0.0.1:53: i/o timeout",
            "no name server answers",
        ),
        ('Get "https://reg.test:5000/v2/": net/http: TLS handshake timeout', "no answer"),
        ('Get "https://reg.test:5000/v2/": EOF', "no answer"),
        (
            'Get "https://x/v2/": proxyconnect tcp: dial tcp 10.0.0.9:3128: connect: connection refused',
            "and the proxy",
        ),
        (
            'Get "https://reg.test:5000/v2/": http: server gave HTTP response to HTTPS client',
            "reg.test:5000 speaks plain HTTP; add it to insecure-registries",
        ),
        (
            'Get "https://reg.test:5000/v2/": x509: certificate signed by unknown authority',
            "/etc/docker/certs.d/reg.test:5000/ca.crt",
        ),
        ("toomanyrequests: You have reached your pull rate limit.", "limits the number of pulls"),
        (
            "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
            "the disk of the engine's host is full",
        ),
        # Docker with containerd's store
        (
            "pull access denied, repository does not exist or may require authorization: authorization failed",
            "check the name, or if the repository is private, set auth=AuthConfig",
        ),
        (
            'failed to resolve reference "reg.test:5000/team/app:1": reg.test:5000/team/app:1: not found',
            "no such tag",
        ),
        ("no match for platform in manifest: not found", "choose another one with platform="),
        (
            "reg.test:5000/team/app:1: no match for platform in manifest sha256:aa: not found",
            "choose another one with platform=",
        ),
        # Podman
        (
            "choosing image instance: no image found in image index for architecture arm64, variant v8, OS linux",
            "choose another one with platform=",
        ),
        (
            "initializing source docker://x: reading manifest 1 in reg.test:5000/team/app: manifest unknown",
            "no such tag",
        ),
        ("unable to retrieve auth token: invalid username/password: unauthorized", "set auth=AuthConfig"),
    ],
)
def test_hint_for_a_message_of_an_engine(message: str, expected: str) -> None:
    """Each known message has a hint."""
    assert expected in hint(message)


def test_an_unknown_message_has_no_hint() -> None:
    """The error contains only the engine's message."""
    assert hint("an error that no engine has reported before") == ""


@pytest.mark.parametrize("image", ["unauthorized:1", "no-such-host:denied", "x509:eof", "manifest-unknown"])
def test_the_name_of_an_image_causes_no_hint(image: str) -> None:
    """Words in an image's name are not mistaken for the engine's message."""
    assert hint("an error that no engine has reported before", image) == ""


def test_the_source_of_rejected_credentials_is_named() -> None:
    """A hint to set credentials would not help then."""
    assert hint("unauthorized: authentication required", login=LOGIN) == (
        "reg.test:5000 rejected the credentials from /home/ann/.docker/config.json; correct them, or log in again "
        "with: docker login reg.test:5000"
    )


def test_docker_hub_is_called_by_its_name() -> None:
    """It is the default registry, and a mirror may help."""
    assert hint("unauthorized: authentication required", "app").endswith("log in with: docker login")
    text = hint("dial tcp: lookup registry-1.docker.io: no such host", "app")
    assert "the registry Docker Hub" in text
    assert text.endswith("or name a registry that it can reach in image_prefix or DOCKERTEST_IMAGE_PREFIX")


def test_the_hint_names_the_missing_part_of_an_image_name() -> None:
    """
    It contains the repository without its registry.

    It mentions the tag or the digest.
    """
    assert "has no repository 'team/app', or the repository has no such tag" in hint("manifest unknown")
    assert "no such digest" in hint("manifest unknown", f"reg.test/app@{DIGEST}")


@pytest.mark.parametrize(
    ("platform", "matches"),
    [
        ("", True),
        ("linux", True),
        ("linux/arm64", True),
        ("linux/arm64/v8", True),
        ("LINUX/ARM64", True),
        ("linux/aarch64", True),
        ("arm64", True),
        ("aarch64", True),
        ("linux/arm64/v7", False),
        ("linux/amd64", False),
        ("x86_64", False),
        ("windows", False),
        ("windows/arm64", False),
    ],
)
def test_local_images_that_match_a_platform(platform: str, matches: bool) -> None:
    """A matching image is not pulled again; a platform has several spellings."""
    attrs = {"Os": "linux", "Architecture": "arm64"}
    assert _pull._fits(parse_image({**attrs, "Variant": "v8"}), platform) is matches
    assert _pull._fits(parse_image(attrs), "linux/arm64/v8")
