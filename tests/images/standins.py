"""
Build stand-ins for official images from Debian packages, without a registry.

Each stand-in has a folder here with a Dockerfile, named like the last component of the image's name. It has the
environment, ports, volumes and signals of the official image, a name under `dockertest.local/`, and identifying labels.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import docker.errors

import dockertest

PREFIX = "dockertest.local/"
FOR, RECIPE = "stand-in-for", "stand-in-recipe"  # labels
HERE = Path(__file__).parent
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Arguments of the Dockerfile for versions other than its own.
ARGUMENTS = {
    "postgres:18": {
        "MAJOR": "18",
        "RELEASE": "sid",
        "VOLUME": "/var/lib/postgresql",
        "DATA": "/var/lib/postgresql/18/docker",
    },
}

BASE = "debian:12"
BASE_RECIPE = (
    "mmdebstrap",
    "--variant=minbase",
    "--include=busybox-static",
    "--aptopt=Acquire::Languages none",
    "--aptopt=APT::Install-Recommends false",
    "--dpkgopt=force-unsafe-io",  # after a crash the image is built again
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    # As in the official image, no package starts its service while an image is built.
    "--skip=chroot/policy-rc.d",
    r"""--customize-hook=cd "$1/usr/sbin" && printf '#!/bin/sh\nexit 101\n' > policy-rc.d && chmod 755 policy-rc.d""",
    "bookworm",
)
NO_MMDEBSTRAP = """\
No registry can be reached, so stand-ins for the images have to be built with Debian's mmdebstrap.
It is not installed. This command installs it only as root on Debian or Ubuntu.
Connect to a registry, `docker load` the images, or set DOCKERTEST_IMAGE_PREFIX to a registry that has them."""


class MakeError(Exception):
    """The images cannot be provided; the message contains the reason."""


def outdated(pool: dockertest.Pool, names: Sequence[str]) -> list[str]:
    """Return the names without a stand-in built from the current recipe."""
    images = present(pool)
    return [name for name in names if not is_current(images, name)]


def is_current(images: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Return whether a stand-in exists that was built from the current recipe."""
    labels = images.get(PREFIX + name, {}).get("Labels") or {}
    return labels.get(RECIPE) == recipe(name)


def present(pool: dockertest.Pool) -> dict[str, dict[str, Any]]:
    """Return the engine's list of images by name."""
    images: list[dict[str, Any]] = pool.client.api.images()
    # Podman lists the full names of images that Docker lists by their short names.
    return {
        tag.removeprefix("docker.io/library/"): image for image in images for tag in image["RepoTags"] or ()
    }


def recipe(name: str) -> str:
    """Return a hash of everything that a stand-in is built from."""
    digest = hashlib.sha256(repr(BASE_RECIPE).encode())
    if name != BASE:
        if name in ARGUMENTS:
            digest.update(repr(ARGUMENTS[name]).encode())
        for file in sorted(path for path in folder(name).rglob("*") if path.is_file()):
            digest.update(repr((file.relative_to(HERE).as_posix(), file.read_bytes())).encode())
    return digest.hexdigest()[:12]


def folder(name: str) -> Path:
    """Return the folder with the Dockerfile of a stand-in."""
    return HERE / name.partition(":")[0].rpartition("/")[2]


def labels(name: str) -> dict[str, str]:
    """Return the labels that identify a stand-in."""
    return {FOR: name, RECIPE: recipe(name)}


def build_outdated(pool: dockertest.Pool, names: Sequence[str]) -> None:
    """Build the stand-ins that are missing or outdated, in parallel."""
    before = present(pool)
    names = outdated(pool, names)
    if names and not is_current(before, BASE):
        timed(BASE, partial(build_base, pool))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        builds = [threads.submit(timed, name, partial(build, pool, name)) for name in names]
    failures = [str(error) for future in builds if (error := future.exception())]
    # Remove the replaced images; the base comes last, since the others are built on it.
    remove_unnamed(pool, [before[PREFIX + name]["Id"] for name in [*names, BASE] if PREFIX + name in before])
    if failures:
        raise MakeError("\n".join(failures))


def timed(name: str, make: Callable[[], None]) -> None:
    """Build a stand-in and log the time that it took."""
    began = time.monotonic()
    make()
    log(f"built {PREFIX}{name} in {time.monotonic() - began:.1f} s")


def build_base(pool: dockertest.Pool) -> None:
    """Build the base image of the stand-ins and stream it into the engine."""
    require_mmdebstrap()
    log(f"building {PREFIX}{BASE} from Debian packages")
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen([*BASE_RECIPE, "-"], stdout=subprocess.PIPE, stderr=errors) as mmdebstrap,
    ):
        changes = [f"LABEL {key}={value}" for key, value in labels(BASE).items()]
        answer = pool.client.api.import_image_from_stream(
            output_of(mmdebstrap, errors),
            repository=PREFIX + BASE,  # includes the tag: Podman ignores a separate one
            changes=[*changes, 'CMD ["bash"]'],
        )
        if "error" in answer:
            raise MakeError(f"cannot import {PREFIX}{BASE}: {answer}")


def output_of(process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> Iterator[bytes]:
    """
    Yield the output of *process*, and fail at the end if it failed.

    So partial output is not accepted.
    """
    assert process.stdout is not None
    while chunk := process.stdout.read(1 << 20):
        yield chunk
    if process.wait():
        errors.seek(0)
        last = "\n".join(errors.read().decode(errors="replace").splitlines()[-15:])
        raise MakeError(f"mmdebstrap failed:\n{last}")


def require_mmdebstrap() -> None:
    """Install mmdebstrap if it is missing and this user and system allow it."""
    if shutil.which("mmdebstrap") and KEYRING.exists():
        return
    script = HERE.parent / "engines" / "debian.py"
    installed = subprocess.run(
        [sys.executable, script, "mmdebstrap", "debian-archive-keyring"], stdout=sys.stderr, check=False
    )
    if installed.returncode:
        raise MakeError(NO_MMDEBSTRAP if installed.returncode == 3 else "mmdebstrap could not be installed")


def build(pool: dockertest.Pool, name: str) -> None:
    """Build one stand-in from its folder."""
    messages = pool.client.api.build(
        path=str(folder(name)),
        tag=PREFIX + name,
        labels=labels(name),
        buildargs=ARGUMENTS.get(name),
        network_mode="host",  # the engine's own networks may not reach Debian's mirrors
        rm=True,
        forcerm=True,
        decode=True,
    )
    last: deque[str] = deque(maxlen=30)
    layer = ""
    for message in messages:
        last.append(message.get("stream", ""))
        if last[-1].startswith(" ---> ") and "Running" not in last[-1]:
            layer = last[-1].removeprefix(" ---> ").strip()
        if "error" in message:
            remove_unnamed(pool, [layer] if layer else [])
            raise MakeError(f"cannot build {PREFIX}{name}: {message['error']}\n{''.join(last)}")


def remove_unnamed(pool: dockertest.Pool, ids: list[str]) -> None:
    """Remove those images that no longer have a name and are not in use."""
    api: Any = pool.client.api
    for image in ids:
        with suppress(docker.errors.APIError):  # it is in use or already removed
            if not api.inspect_image(image)["RepoTags"]:
                api.remove_image(image)


def log(text: str) -> None:
    """Print a progress message to standard error; scripts read standard output."""
    print(text, file=sys.stderr, flush=True)
