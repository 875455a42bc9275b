"""
Store a container's file system, but not its configuration, as an image.

A commit copies the container's environment, command and labels into the image, and old engines also store its whole
configuration beside it. Docker's own image store offers a way out: it accepts an image's description without the layers
that it has already. So the committed layers get the configuration of the image that the container was started from, and
the commit itself is removed. Other stores need the layers too; there, each value is overwritten in the commit.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence

from dockertest._engine.client import EngineClient, quote_path
from dockertest._engine.inspection import Image, Inspection, parse_image
from dockertest.errors import DockertestError, EngineError

SILENCE_SECONDS = 600.0  # An engine sends nothing while it writes a layer.


def commit(engine: EngineClient, container: str, changes: Iterable[str] = ()) -> str:
    """
    Store a container's file system as an image without a name, and return its id.

    Args:
        container: The container's id.
        changes: Instructions of a Dockerfile to apply to the image's configuration.
    """
    params = {"container": container, "changes": list(changes), "pause": "false"}
    path = "/commit"
    if engine.is_podman:  # In Docker's format, Podman would also store the container's whole configuration.
        path, params["format"] = "/libpod/commit", "oci"
    response = engine.send(
        "post",
        path,
        what=f"commit container {container[:12]}",
        params=params,
        body={},
        extra_timeout=SILENCE_SECONDS,
    )
    return _with_algorithm(str(response.json()["Id"]))


def inspect(engine: EngineClient, image: str) -> Image | None:
    """Return a local image by its name or id, `None` if it does not exist."""
    try:
        return parse_image(engine.get_images(f"/images/{image}/json", what=f"inspect image {image!r}"))
    except EngineError as error:
        if error.status == 404:
            return None
        raise


def tag(engine: EngineClient, image: str, name: str) -> None:
    """Name an image; another image of that name loses it."""
    repository, _, label = name.rpartition(":")
    params = {"repo": repository, "tag": label}
    engine.send("post", f"/images/{image}/tag", what=f"name image {image[:19]} {name!r}", params=params)


def remove(engine: EngineClient, image: str) -> bool:
    """Remove an image by its id; return whether it is gone. One that is in use stays."""
    try:
        engine.send("delete", f"/images/{quote_path(image)}", what=f"remove image {image[:19]}")
    except DockertestError as error:
        return getattr(error, "status", None) == 404
    return True


def can_describe(engine: EngineClient) -> bool:
    """
    Return whether the engine accepts an image's description without its layers.

    The engine must already have the layers.
    """
    if engine.is_podman:
        return False
    return "io.containerd.snapshotter.v1" not in json.dumps(engine.info().get("DriverStatus") or [])


class Description:
    """
    An image with the layers of one image and the configuration of another one.

    Attributes:
        image: The id that it will have.
    """

    def __init__(
        self, layers_of: Image, base: Image, labels: Mapping[str, str], *, has_volumes: bool = True
    ) -> None:
        """
        Describe the image.

        Args:
            labels: Those of the image; the labels of *base* are left out.
            has_volumes: Whether containers get the volumes that *base* declares.
        """
        layers: Sequence[str] = layers_of.attrs["RootFS"]["Layers"]
        attrs = base.attrs
        created = layers_of.attrs.get("Created") or "1970-01-01T00:00:00Z"
        config = {**(attrs.get("Config") or {}), "Labels": dict(labels)}
        if not has_volumes:
            config.pop("Volumes", None)
        entry = {"created": created, "created_by": "dockertest", "comment": "prepared image"}
        description = {
            "architecture": attrs.get("Architecture", ""),
            **({"variant": attrs["Variant"]} if attrs.get("Variant") else {}),
            "os": attrs.get("Os", ""),
            "created": created,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": list(layers)},
            "history": [entry] * len(layers),
        }
        self._text = json.dumps(description).encode()
        self._layers = len(layers)
        self.image = f"sha256:{hashlib.sha256(self._text).hexdigest()}"

    def load(self, engine: EngineClient, name: str) -> None:
        """
        Create the image under a name, in one step.

        Raises:
            EngineError: The engine does not accept it.
        """
        layers = [f"{index}/layer.tar" for index in range(self._layers)]
        manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": layers}]
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, text in (("config.json", self._text), ("manifest.json", json.dumps(manifest).encode())):
                member = tarfile.TarInfo(path)
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text))
        what = f"store image {name!r}"
        response = engine.send(
            "post",
            "/images/load",
            what=what,
            params={"quiet": "1"},
            body=archive.getvalue(),
            headers={"Content-Type": "application/x-tar"},
            stream=True,
            extra_timeout=SILENCE_SECONDS,
        )
        for message in engine.messages(response, what, extra_timeout=SILENCE_SECONDS):
            if "error" in message:
                raise EngineError(f"cannot {what}: {message['error']}")


def overwriting_changes(inspection: Inspection, base: Image, labels: Mapping[str, str]) -> list[str]:
    """
    Return the instructions that overwrite the container's settings in a commit.

    The names of variables and labels remain, with empty values.
    """
    original = dict(assignment.split("=", 1) for assignment in base.env if "=" in assignment)
    # Podman itself sets these in every container.
    added = ("container=podman", "TERM=xterm", f"HOSTNAME={inspection.hostname}")
    names = dict.fromkeys(one.partition("=")[0] for one in inspection.env if one not in added)
    config = base.attrs.get("Config") or {}
    changes = [f"ENV {name}={_quoted(original.get(name, ''))}" for name in names]
    unwanted = dict.fromkeys(set(inspection.labels) - set(base.labels), "")
    changes += [f"LABEL {_quoted(name)}={_quoted(value)}" for name, value in {**unwanted, **labels}.items()]
    # The order matters: ENTRYPOINT resets CMD.
    changes.append(f"ENTRYPOINT {json.dumps(list(base.entrypoint))}")
    changes.append(f"CMD {json.dumps(list(base.command))}")
    changes.append(f"USER {_word(config.get('User') or '0')}")
    changes.append(f"WORKDIR {_word(config.get('WorkingDir') or '/')}")
    return changes


def _word(value: str) -> str:
    """
    Return a value, in quotes only if it needs them.

    Podman 4 treats the quotes as part of the value.
    """
    return value if re.fullmatch(r"[\w./:@-]+", value) else _quoted(value)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def _with_algorithm(image: str) -> str:
    return image if ":" in image else f"sha256:{image}"
