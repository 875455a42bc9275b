"""
Build stand-ins for official images from Debian's packages. Knows nothing of registries.

A stand-in is a folder here with a Dockerfile, called as the image without its tag and what stands before a slash. It has
the official image's environment, ports, volumes and signals, a name under `dockertest.local/`, and labels that say so.
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

BASE = "debian:12"
BASE_RECIPE = (
    "mmdebstrap",
    "--variant=minbase",
    "--include=busybox-static",
    "--aptopt=Acquire::Languages none",
    "--aptopt=APT::Install-Recommends false",
    "--dpkgopt=force-unsafe-io",  # an image that is lost in a crash is built again
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
There is no registry to pull images from, so stand-ins for them have to be built, with Debian's mmdebstrap.
It is not installed here, and only as root on Debian or Ubuntu does this command install it.
Connect to a registry, `docker load` the images, or name a registry that has them in DOCKERTEST_IMAGE_PREFIX."""


class MakeError(Exception):
    """The images cannot be had; the text tells the person why."""


def outdated(pool: dockertest.Pool, names: Sequence[str]) -> list[str]:
    """Give those of the official names without a stand-in made by today's recipe."""
    there = present(pool)
    return [name for name in names if not is_current(there, name)]


def is_current(there: Mapping[str, Mapping[str, Any]], name: str) -> bool:
    """Whether there is a stand-in made by today's recipe."""
    labels = there.get(PREFIX + name, {}).get("Labels") or {}
    return labels.get(RECIPE) == recipe(name)


def present(pool: dockertest.Pool) -> dict[str, dict[str, Any]]:
    """Give what the engine lists of its images, by name."""
    images: list[dict[str, Any]] = pool.client.api.images()
    # Podman spells out where Docker's short names come from.
    return {
        tag.removeprefix("docker.io/library/"): image for image in images for tag in image["RepoTags"] or ()
    }


def recipe(name: str) -> str:
    """Give a hash of all that a stand-in is made from."""
    digest = hashlib.sha256(repr(BASE_RECIPE).encode())
    if name != BASE:
        for file in sorted(each for each in folder(name).rglob("*") if each.is_file()):
            digest.update(repr((file.relative_to(HERE).as_posix(), file.read_bytes())).encode())
    return digest.hexdigest()[:12]


def folder(name: str) -> Path:
    """Give the folder that a stand-in is built from."""
    return HERE / name.partition(":")[0].rpartition("/")[2]


def labels(name: str) -> dict[str, str]:
    """Say on the stand-in what it is."""
    return {FOR: name, RECIPE: recipe(name)}


def build_outdated(pool: dockertest.Pool, names: Sequence[str]) -> None:
    """Build the stand-ins that are missing or made by another recipe, side by side."""
    before = present(pool)
    names = outdated(pool, names)
    if names and not is_current(before, BASE):
        timed(BASE, partial(build_base, pool))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        builds = [threads.submit(timed, name, partial(build, pool, name)) for name in names]
    failures = [str(error) for each in builds if (error := each.exception())]
    # What was replaced, the images before the base that they stand on.
    remove_unnamed(pool, [before[PREFIX + name]["Id"] for name in [*names, BASE] if PREFIX + name in before])
    if failures:
        raise MakeError("\n".join(failures))


def timed(name: str, make: Callable[[], None]) -> None:
    """Tell how long it took to make a stand-in."""
    began = time.monotonic()
    make()
    say(f"built {PREFIX}{name} in {time.monotonic() - began:.1f} s")


def build_base(pool: dockertest.Pool) -> None:
    """Make the image that the stand-ins are built on, streamed into the engine."""
    need_mmdebstrap()
    say(f"building {PREFIX}{BASE} from Debian's packages")
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen([*BASE_RECIPE, "-"], stdout=subprocess.PIPE, stderr=errors) as mmdebstrap,
    ):
        changes = [f"LABEL {key}={value}" for key, value in labels(BASE).items()]
        answer = pool.client.api.import_image_from_stream(
            output_of(mmdebstrap, errors),
            repository=PREFIX + BASE,  # with its tag: Podman does not hear of one given apart
            changes=[*changes, 'CMD ["bash"]'],
        )
        if "error" in answer:
            raise MakeError(f"cannot import {PREFIX}{BASE}: {answer}")


def output_of(process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> Iterator[bytes]:
    """Give what *process* writes, and fail at its end if it failed, so that no part is taken for the whole."""
    assert process.stdout is not None
    while chunk := process.stdout.read(1 << 20):
        yield chunk
    if process.wait():
        errors.seek(0)
        last = "\n".join(errors.read().decode(errors="replace").splitlines()[-15:])
        raise MakeError(f"mmdebstrap failed:\n{last}")


def need_mmdebstrap() -> None:
    """Install mmdebstrap where it is missing and for us to install."""
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
        network_mode="host",  # Debian's mirrors are reached from here: the engine's own networks may lead nowhere
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
    """Remove those images that have no name any more and that nothing uses."""
    api: Any = pool.client.api
    for image in ids:
        with suppress(docker.errors.APIError):  # it is in use, or gone already
            if not api.inspect_image(image)["RepoTags"]:
                api.remove_image(image)


def say(text: str) -> None:
    """Tell the person, away from the output that scripts read."""
    print(text, file=sys.stderr, flush=True)
