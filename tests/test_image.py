"""What helps against a failed pull, by the words of the engines; and which image fits a platform; no engine."""

import pytest

from dockertest import _image_name as _reference
from dockertest._images import pull as _image
from dockertest._images.credentials import Login
from dockertest._values import AuthConfig

DIGEST = f"sha256:{'0' * 64}"
LOGIN = Login(AuthConfig("ann", "s3cret"), "/home/ann/.docker/config.json")


def remedy(said: str, image: str = "reg.test:5000/team/app:1", login: Login | None = None) -> str:
    """Give what is said behind the engine's words."""
    return _image._remedy(f"cannot pull image {image!r}: {said}", _reference.reference("image", image), login)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        # Docker 20.10
        (
            'Head "http://reg.test:5000/v2/team/app/manifests/1": no basic auth credentials',
            "give auth=AuthConfig",
        ),
        ("unauthorized: authentication required", "give auth=AuthConfig"),
        (
            "manifest for reg.test:5000/team/app:1 not found: manifest unknown: manifest unknown",
            "no such tag",
        ),
        (
            "no matching manifest for linux/s390x in the manifest list entries",
            "choose another with platform=",
        ),
        (
            'Get "http://reg.test:5000/v2/": dial tcp 10.0.0.1:5000: connect: connection refused',
            "nothing listens",
        ),
        ('Get "https://reg.test:5000/v2/": dial tcp: lookup reg.test: no such host', "finds no such host"),
        ("dial tcp: lookup reg.test: Temporary failure in name resolution", "finds no such host"),
        ('Get "https://reg.test:5000/v2/": net/http: TLS handshake timeout', "it gets no answer"),
        ('Get "https://reg.test:5000/v2/": EOF', "it gets no answer"),
        (
            'Get "https://x/v2/": proxyconnect tcp: dial tcp 10.0.0.9:3128: connect: connection refused',
            "and proxy",
        ),
        (
            'Get "https://reg.test:5000/v2/": http: server gave HTTP response to HTTPS client',
            "reg.test:5000 speaks plain HTTP; mark it as insecure",
        ),
        (
            'Get "https://reg.test:5000/v2/": x509: certificate signed by unknown authority',
            "/etc/docker/certs.d/reg.test:5000/ca.crt",
        ),
        ("toomanyrequests: You have reached your pull rate limit.", "allows only so many pulls"),
        (
            "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
            "the disk of the engine's host is full",
        ),
        # Docker with containerd's store
        (
            "pull access denied, repository does not exist or may require authorization: authorization failed",
            "check the name, or if the repository is private, give auth=AuthConfig",
        ),
        (
            'failed to resolve reference "reg.test:5000/team/app:1": reg.test:5000/team/app:1: not found',
            "no such tag",
        ),
        # Podman
        (
            "initializing source docker://x: reading manifest 1 in reg.test:5000/team/app: manifest unknown",
            "no such tag",
        ),
        ("unable to retrieve auth token: invalid username/password: unauthorized", "give auth=AuthConfig"),
    ],
)
def test_what_engines_say_has_its_remedy(said: str, words: str) -> None:
    """Each in a sentence that says what to do."""
    found = remedy(said)
    assert found.startswith("; ")
    assert words in found


def test_words_that_nobody_knows_stand_alone() -> None:
    """The engine's own words are all there is to say."""
    assert remedy("something that no engine said before") == ""


@pytest.mark.parametrize("image", ["unauthorized:1", "no-such-host:denied", "x509:eof", "manifest-unknown"])
def test_the_name_of_an_image_is_no_reason(image: str) -> None:
    """Words in an image's name are not taken for the engine's."""
    assert remedy("something that no engine said before", image) == ""


def test_credentials_that_were_refused_are_named_by_their_source() -> None:
    """To give some is no advice then."""
    assert remedy("unauthorized: authentication required", login=LOGIN) == (
        "; reg.test:5000 refused the credentials from /home/ann/.docker/config.json; correct them, or log in again "
        "with: docker login reg.test:5000"
    )


def test_docker_hub_by_its_name() -> None:
    """An image without a registry comes from there, and a mirror would help."""
    assert remedy("unauthorized: authentication required", "app").endswith("log in with: docker login")
    found = remedy("dial tcp: lookup registry-1.docker.io: no such host", "app")
    assert "the registry Docker Hub" in found
    assert found.endswith("or name a registry that it reaches in image_prefix")


def test_what_is_missing_is_named() -> None:
    """The repository without its registry, and whether it is the tag or the digest."""
    assert "has no repository 'team/app', or no such tag" in remedy("manifest unknown")
    assert "or no such digest" in remedy("manifest unknown", f"reg.test/app@{DIGEST}")


@pytest.mark.parametrize(
    ("platform", "fits"),
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
def test_which_platform_an_image_at_hand_fits(platform: str, fits: bool) -> None:
    """One that fits is not pulled again, however the platform is written."""
    assert _image._fits({"Os": "linux", "Architecture": "arm64", "Variant": "v8"}, platform) is fits
    assert _image._fits({"Os": "linux", "Architecture": "arm64"}, "linux/arm64/v8")
