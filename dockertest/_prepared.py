"""
Prepared images, whose containers start with the data of a server.

Each image is made once, of a server that was set up, filled and stopped.
"""

from __future__ import annotations

import hmac
import json
import posixpath
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, Unpack

from dockertest import _clock, _settings, _validation
from dockertest._cleanup.reaper import (
    INTERMEDIATE,
    PREPARED,
    PREPARED_EXPIRES,
    PREPARED_KEY_FILE,
    PREPARED_OWNER,
)
from dockertest._containers import files
from dockertest._containers.container import Container, Ownership
from dockertest._containers.create import adapt_to_podman, create_request
from dockertest._containers.launch import launch
from dockertest._engine import networks
from dockertest._engine.inspection import Image, Inspection
from dockertest._fingerprint import describe_origin, fingerprint
from dockertest._images import commit
from dockertest._options import BindingSpecs, FileSpec, LogSpec, PortSpec, Reuse, RunOptions, WaitCondition
from dockertest._public import public
from dockertest._report import indented
from dockertest._resource import Resource, resource_of
from dockertest._runtime import Runtime
from dockertest._secret import Assignment
from dockertest._validation import RESERVED_LABELS, NetworkSpec, check_callable, check_has_run, is_below
from dockertest.errors import DockertestError, InvalidOptionError, PrepareError

STOP_SECONDS = 30.0  # for a server without `stop_timeout`; a database writes all that it has in memory
_REGISTRY = (
    "prepared.dockertest.invalid"  # No such host can exist (RFC 2606), so nothing is ever pulled or pushed.
)
_COPIES = "/.dockertest"  # In an image, where the content of its tmpfs is stored, and with Podman that of its volumes.
_MOVED_DATA = "/var/lib/dockertest/data"
_GRACE_SECONDS = 86400  # An image that is in use when its time is up stays for another day.

# What has no influence on the data, and may differ between the containers of one image.
_FREE = (
    "name", "network_id", "networks", "network_aliases", "port_bindings", "exposed_ports", "publish_ip",
    "publish_all_ports", "host_access_ports", "memory", "cpus", "labels", "files", "reuse", "shared", "wait_for", "log_to",
)  # fmt: skip
# Of these, the options that are left out while the image is made; ports are published on free ones of the host.
_NOT_WHILE_PREPARING = (
    "name", "network_aliases", "port_bindings", "publish_ip", "labels", "reuse", "shared", "wait_for", "restart",
    "read_only", "tmpfs",
)  # fmt: skip
# What does not belong to the key of an image: all that is free, except for files, which may fill the server.
_NOT_IN_KEY = (*(name for name in _FREE if name != "files"), "auth", "pull", "stop_timeout")


class PreparedFields(TypedDict, total=False):
    """What `PreparedImage.replace` can change; each is described at `RunOptions`."""

    name: str
    network_id: str
    networks: Sequence[NetworkSpec]
    network_aliases: Sequence[str]
    port_bindings: BindingSpecs
    exposed_ports: Sequence[PortSpec]
    publish_ip: str | None
    publish_all_ports: bool
    host_access_ports: Sequence[PortSpec]
    memory: int | str | None
    cpus: float | str | None
    labels: Mapping[str, str]
    files: Mapping[str, FileSpec]
    wait_for: WaitCondition | None
    log_to: LogSpec | None
    reuse: bool | str | Reuse
    shared: bool


@public
@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedImage:
    """
    A server with its data, stored as an image by `Pool.prepare`.

    Every container of the image starts with the same content. This object can be pickled, and used by every pool of this
    user that is connected to the same engine.

    Attributes:
        engine: The endpoint of the engine that has the image.
        service: The last part of the name of the image that it was made from, such as `"postgres"`.
        name: The image's name, which cannot be pulled or pushed.
        id: The image's id.
        options: What containers are started with.
        key: What identifies the image among those of this user.
        display_name: The name of the image that it was made from.
        filled_at_start: The paths of the tmpfs, and with Podman of the volumes, that a container fills before it starts its
            program.
    """

    engine: str
    service: str
    name: str
    id: str
    options: RunOptions
    key: str = field(repr=False)
    display_name: str = field(repr=False)
    filled_at_start: tuple[str, ...] = field(default=(), repr=False)

    def replace(self, **changes: Unpack[PreparedFields]) -> PreparedImage:
        """
        Return a copy with other options for its containers.

        Args:
            changes: Fields of `RunOptions` that do not depend on the data: `name`, networks, ports, `labels`, `files`,
                `memory`, `cpus`, `wait_for`, `log_to`, `reuse` and `shared`.

        Raises:
            InvalidOptionError: An option has an invalid value, or is part of the prepared data.
        """
        known = {option.name for option in fields(RunOptions)}
        for name in changes:
            if name not in _FREE or name not in known:
                raise InvalidOptionError(
                    f"{name} cannot be replaced: it is part of the prepared data",
                    hint="prepare an image with other options",
                )
        options: Any = changes
        return replace(self, options=replace(self.options, **options))


def prepare(
    runtime: Runtime,
    options: RunOptions,
    fill: Callable[[Resource], object] | None,
    *,
    image: Image,
    display_name: str,
    publish_ip: str,
    ready: Callable[[Resource], object] | None,
    version: object,
    max_age: float | None,
    max_wait: float | None,
) -> PreparedImage:
    """
    Return the image that `Pool.prepare` describes, and make it if necessary.

    Args:
        image: The image to start from, which is available locally.
        display_name: Its name, for messages.
        publish_ip: The address that ports are published on.
    """
    if ready is not None:
        check_callable("ready", ready, "a resource")
    _check_mounts(options, image)
    user = options.user or (image.attrs.get("Config") or {}).get("User") or ""
    if runtime.engine.is_podman and options.parsed.tmpfs and not _is_root(user):
        raise InvalidOptionError(
            "Podman cannot prepare a server that has a tmpfs and does not run as root, since only root can fill it",
            hint="leave out tmpfs=, or run the server as root",
        )
    records = runtime.session.prepared
    key, series = _keys(runtime, options, image, display_name, fill, version)
    recipe = _Recipe(runtime, options, image, display_name, publish_ip, (key, series), max_age)
    records.use(key)
    try:
        found = recipe.find()
        if not found:
            with records.preparing(key):
                found = recipe.find() or recipe.make(fill, ready, max_wait)
                records.supersede(series, key)
    except BaseException:
        records.release(key)
        raise
    return found


def take(runtime: Runtime, prepared: PreparedImage) -> Image:
    """
    Return the description of a prepared image, and protect it from removal.

    The protection lasts while the pool is open.

    Raises:
        PrepareError: The image is gone.
    """
    runtime.session.prepared.use(prepared.key)
    image = commit.inspect(runtime.engine, prepared.id)
    if not image:
        raise PrepareError(
            f"the prepared image {prepared.name} no longer exists on the engine",
            hint="call Pool.prepare again",
        )
    return image


def options_to_run(prepared: PreparedImage, image: Image) -> RunOptions:
    """
    Return the options to start a container of a prepared image with.

    *image* is the description of that image.
    """
    options = prepared.options
    paths = prepared.filled_at_start
    if not paths:
        return options
    # The engine mounts a tmpfs empty, and Podman a volume with the files of the original image.
    steps = []
    for index, path in enumerate(paths):
        copy, target = _copy_of(index, path), shlex.quote(path)
        # The engine puts files there before the start. A folder among them is part of the data.
        placed = [
            file
            for file, content in options.parsed.files.items()
            if is_below(file, path) and not (isinstance(content, Path) and content.is_dir())
        ]
        steps += [
            f"rm -rf {shlex.quote(posixpath.join(copy, posixpath.relpath(file, path)))}" for file in placed
        ]
        fill = f"cp -a {shlex.quote(copy)}/. {target}/"
        if path not in options.parsed.tmpfs:
            others = " ".join(f"! -path {shlex.quote(file)}" for file in placed)
            clear = (
                f"{{ find {target} -mindepth 1 ! -type d {others} -exec rm -f {{}} +; "
                f"find {target} -mindepth 1 -depth -type d -exec rmdir {{}} +; }} 2>/dev/null"
            )
            # After a restart, the volume has its content already.
            copy = shlex.quote(copy)
            fill = f"if [ -d {copy} ]; then {clear}; {fill} && {{ rm -rf {copy} || :; }}; fi"
        steps.append(fill)
    script = " && ".join([*steps, 'exec "$@"'])
    command = options.cmd or (() if options.entrypoint else image.command)
    return replace(
        options,
        entrypoint=["/bin/sh", "-c", script, "sh", *(options.entrypoint or image.entrypoint)],
        cmd=command,
    )


class _Recipe:
    """How one image is found or made."""

    def __init__(
        self,
        runtime: Runtime,
        options: RunOptions,
        image: Image,
        display_name: str,
        publish_ip: str,
        keys: tuple[str, str],
        max_age: float | None,
    ) -> None:
        key, series = keys
        self._runtime = runtime
        self._engine = runtime.engine
        self._base = image
        self._display_name = display_name
        self._publish_ip = publish_ip
        self._key = key
        self._series = series
        self._max_age = max_age
        self._moved_from = _movable_data(options, image)
        self._options = _pinned(options, key, moved=bool(self._moved_from))
        self._service = _service(display_name)
        self._name = f"{_REGISTRY}/{self._service}:{key}"

    def find(self) -> PreparedImage | None:
        """Return the image if it exists and is not too old."""
        record = self._runtime.session.prepared.find(self._key)
        image = commit.inspect(self._engine, self._name) if record else None
        # Everyone who may use the engine can move this name to another image.
        if not image or image.id != record.get("image") or "filled_at_start" not in record:
            return None
        age = _clock.time() - record.get("created", 0.0)
        if self._max_age is not None and age > self._max_age:
            return None
        return self._found(image.id, tuple(record["filled_at_start"]))

    def make(
        self,
        fill: Callable[[Resource], object] | None,
        ready: Callable[[Resource], object] | None,
        max_wait: float | None,
    ) -> PreparedImage:
        """Set up a server, fill it, stop it, and store it as an image."""
        with self._runtime.timeline.step("prepare", self._display_name):
            container = self._start()
            with _removed_afterwards(container):
                resource = resource_of(self._runtime, container)
                default = self._runtime.defaults.max_wait
                _wait(resource, ready, default if max_wait is None else max_wait)
                if fill is not None:
                    check_has_run("fill", fill(resource))
                self._stop(container)
                return self._store(container)

    def _start(self) -> Container:
        given = self._options
        exposed = [*given.parsed.exposed_ports, *given.parsed.port_bindings]
        options = replace(_without(given, _NOT_WHILE_PREPARING), exposed_ports=exposed)
        request = create_request(
            options,
            self._base,
            image_name=self._base.id,
            labels=self._runtime.session.labels(),
            publish_ip=self._publish_ip,
            network=self._runtime.reachability.network(),
            modifiers=(self._replace_memory,),
        )
        networks.resolve_host_gateway(self._engine, request.body["HostConfig"])
        if self._engine.is_podman:
            adapt_to_podman(request, self._engine.podman_version)
        return launch(
            self._runtime,
            request,
            options,
            image=self._display_name,
            name="",
            before_start=self._set_modes,
        )

    def _replace_memory(self, host_config: dict[str, Any]) -> None:
        """
        Mount a volume in place of each tmpfs.

        The content of a tmpfs would be lost when the server stops.
        """
        host_config.setdefault("Mounts", []).extend(
            {"Type": "volume", "Target": path, "VolumeOptions": {"NoCopy": True}}
            for path in self._options.parsed.tmpfs
        )

    def _set_modes(self, container: Container) -> None:
        """Set the owners and modes of the volumes as the tmpfs would have them."""
        for path, text in self._options.parsed.tmpfs.items():
            given = dict(option.split("=", 1) for option in text.split(",") if "=" in option)
            with suppress(ValueError):
                owner = int(given.get("uid") or 0), int(given.get("gid") or 0)
                mode = int(given.get("mode") or "1777", 8)
                folder, name = posixpath.split(path.rstrip("/"))
                files.make_folder(self._engine, container.id, folder, name, mode=mode, owner=owner)

    def _stop(self, container: Container) -> None:
        """
        Stop the server by the stop signal of its image.

        Raises:
            ContainerExitedError: It has ended before.
            PrepareError: It did not end by itself.
        """
        container.inspect_alive()
        container.acknowledge_exit()
        given = self._options.stop_timeout
        seconds = STOP_SECONDS if given is None else given
        self._engine.send(
            "post",
            f"/containers/{container.id}/stop",
            what=f"stop {container.label}",
            params={"t": max(1, round(seconds))},
            extra_timeout=seconds,
        )
        report = container.report()
        if report.exit_code == 137 or report.oom_killed:
            raise PrepareError(
                f"cannot prepare {self._display_name}: it did not end within {seconds:g} s of its stop signal and was "
                f"killed, so its data may be incomplete{indented(report.logs)}",
                report=report,
                hint="set a longer stop_timeout; a program that ignores the signal may need init=True or an entrypoint that "
                "passes it on",
            )

    def _store(self, container: Container) -> PreparedImage:
        """
        Make an image of a stopped container and of its volumes.

        Raises:
            PrepareError: Its data is in a volume, which Podman can copy only inside of a container.
        """
        inspection = container.inspect()
        paths = self._data_paths(inspection)
        filled_at_start: tuple[str, ...] = ()
        if self._can_copy(inspection):
            filled_at_start = tuple(
                path for path in paths if self._engine.is_podman or path in self._options.parsed.tmpfs
            )
        elif paths and self._engine.is_podman:
            raise PrepareError(
                f"cannot prepare {self._display_name}: its data is in a volume ({paths[0]}), and the container cannot copy it at "
                "its start: that needs /bin/sh and /bin/cp, and root for a tmpfs",
                hint="let the server keep its data outside of volumes, or use Docker",
            )
        elif self._options.parsed.tmpfs and self._options.read_only:
            raise PrepareError(
                f"cannot prepare {self._display_name}: its data would be in the container's own file system, which is read-only, "
                "since the container cannot copy it into a tmpfs: that needs root, /bin/sh and /bin/cp",
                hint="leave out read_only, or run the container as root",
            )
        with self._intermediate(inspection) as layers:
            if not paths:
                return self._publish(layers, inspection, filled_at_start)
            copies = [
                (path, posixpath.dirname(_copy_of(filled_at_start.index(path), path)))
                if path in filled_at_start
                else (path, posixpath.dirname(path))
                for path in paths
            ]
            copy = self._copied_inside if self._engine.is_podman else self._copied_below_volumes
            with (
                copy(layers, inspection, copies) as target,
                self._intermediate(target.inspect()) as filled,
            ):
                return self._publish(filled, target.inspect(), filled_at_start)

    def _data_paths(self, inspection: Inspection) -> list[str]:
        """Return the volumes to copy into the image."""
        volumes = sorted(mount.target.rstrip("/") for mount in inspection.mounts if mount.kind == "volume")
        return [
            path
            for path in volumes
            # It is copied with the volume around it, unless it is a tmpfs again.
            if path in self._options.parsed.tmpfs
            or not any(other != path and is_below(path, other) for other in volumes)
            if not (
                is_below(self._moved_from, path) and files.is_empty_folder(self._engine, inspection, path)
            )
        ]

    def _can_copy(self, inspection: Inspection) -> bool:
        """
        Return whether a container can fill directories when it starts.

        It needs /bin/sh and /bin/cp for a tmpfs, and for any directory with Podman. Only root owns a tmpfs.
        """
        if self._options.parsed.tmpfs and not _is_root(inspection.attrs["Config"].get("User") or ""):
            return False
        is_needed = self._options.parsed.tmpfs or self._engine.is_podman
        programs = ("/bin/sh", "/bin/cp") if is_needed else ()
        return all(files.exists(self._engine, inspection, program) for program in programs)

    @contextmanager
    def _intermediate(self, inspection: Inspection) -> Iterator[Image]:
        """
        Commit a container to an image that is removed when the body ends.

        The image has the labels of the session, like the container.
        """
        with self._runtime.session.creating():
            image_id = commit.commit(self._engine, inspection.id, [f"LABEL {INTERMEDIATE}=true"])
        try:
            image = commit.inspect(self._engine, image_id)
            if not image:
                raise PrepareError(
                    f"image {image_id[:19]} was removed while it was in use", hint="call Pool.prepare again"
                )
            yield image
        finally:
            commit.remove(self._engine, image_id)

    @contextmanager
    def _copied_below_volumes(
        self, image: Image, inspection: Inspection, copies: Sequence[tuple[str, str]]
    ) -> Iterator[Container]:
        """
        Create a container of an image, and copy folders of another one into it.

        Each volume is replaced by a tmpfs, below which engines put files that are copied into a container before its start.
        """
        tmpfs = {mount.target: "" for mount in inspection.mounts if mount.kind == "volume"}
        with self._helper({"Image": image.id, "HostConfig": {"Tmpfs": tmpfs}}) as container:
            for source, folder in copies:
                if folder.startswith(_COPIES):
                    _make_folders(partial(files.make_folder, self._engine, container.id), folder)
                files.transfer(self._engine, inspection, source, container.id, folder)
            yield container

    @contextmanager
    def _copied_inside(
        self, image: Image, inspection: Inspection, copies: Sequence[tuple[str, str]]
    ) -> Iterator[Container]:
        """
        Copy folders inside a container that mounts another container's volumes.

        Raises:
            PrepareError: They cannot be copied.
        """
        steps = [
            f"mkdir -p {shlex.quote(folder)} && cp -a {shlex.quote(path)} {shlex.quote(folder)}/"
            for path, folder in copies
        ]
        body = {
            "Image": image.id,
            "Entrypoint": ["/bin/sh", "-c", " && ".join(steps)],
            "Cmd": [],
            "User": "0",
            "HostConfig": {"VolumesFrom": [f"{inspection.id}:ro"]},
        }
        with self._helper(body) as container:
            container.acknowledge_exit()
            container.start(Ownership.OWNED)
            # Without an exit code, it has not ended in time.
            if self._engine.wait(container.id, commit.SILENCE_SECONDS) != 0:
                report = container.report()
                raise PrepareError(
                    f"cannot prepare {self._display_name}: its volumes cannot be copied{indented(report.logs)}",
                    report=report,
                )
            yield container

    @contextmanager
    def _helper(self, body: dict[str, Any]) -> Iterator[Container]:
        """Create a container without a network for the time of the body."""
        runtime = self._runtime
        body["Labels"] = runtime.session.labels()
        body["HostConfig"]["NetworkMode"] = "none"
        with runtime.session.creating():
            container_id = self._engine.create(body, name="", platform=self._options.platform)
            created = Inspection.parse({"Id": container_id})
            container = Container(runtime, created, image=self._display_name)
            runtime.session.add(container)
        with _removed_afterwards(container):
            yield container

    def _publish(
        self, layers: Image, inspection: Inspection, filled_at_start: tuple[str, ...]
    ) -> PreparedImage:
        """
        Set the configuration, the name and the record of the image.

        The name makes the image visible, in one step.
        """
        now = _clock.time()
        labels = {PREPARED: self._key, PREPARED_OWNER: self._runtime.session.prepared.owner()}
        age = None if self._max_age is None else self._max_age + _GRACE_SECONDS
        if limits := [seconds for seconds in (age, self._runtime.session.ttl) if seconds is not None]:
            labels[PREPARED_EXPIRES] = str(round(now + min(limits)))
        own = {
            name: value for name, value in self._base.labels.items() if not name.startswith(RESERVED_LABELS)
        }
        if commit.can_describe(self._engine):
            description = commit.Description(
                layers,
                self._base,
                {**own, **labels},
                has_volumes=not _works_without_volumes(self._options, self._display_name),
            )
            self._record(description.image, now, filled_at_start)
            description.load(self._engine, self._name)
            image_id = description.image
        else:
            changes = commit.overwriting_changes(inspection, self._base, labels)
            image_id = commit.commit(self._engine, inspection.id, changes)
            self._record(image_id, now, filled_at_start)
            commit.tag(self._engine, image_id, self._name)
        # The image that had this name may be used by a pool that is open, or be another user's: the clean-up decides.
        return self._found(image_id, filled_at_start)

    def _record(self, image_id: str, created: float, filled_at_start: tuple[str, ...]) -> None:
        record = {
            "image": image_id,
            "name": self._name,
            "created": created,
            "filled_at_start": filled_at_start,
            "series": self._series,
        }
        self._runtime.session.prepared.store(self._key, record)

    def _found(self, image_id: str, filled_at_start: tuple[str, ...]) -> PreparedImage:
        options = self._options
        if options.parsed.tmpfs and not filled_at_start:  # Nothing in the container could fill it.
            options = replace(options, tmpfs=())
        return PreparedImage(
            engine=str(self._engine.endpoint),
            service=self._service,
            name=self._name,
            id=image_id,
            options=options,
            key=self._key,
            display_name=self._display_name,
            filled_at_start=filled_at_start,
        )


@contextmanager
def _removed_afterwards(container: Container) -> Iterator[None]:
    """
    Remove a container and its volumes when the body ends.

    If the body fails, its error is raised, even if the removal fails too.
    """
    try:
        yield
    except BaseException:
        with suppress(DockertestError):  # The pool tries again when it is closed.
            container.release(remove=True)
        raise
    container.release(remove=True)


def _wait(resource: Resource, ready: Callable[[Resource], object] | None, max_wait: float | None) -> None:
    if ready is None:
        resource.wait_ready(max_wait=max_wait)
    else:
        resource.retry(partial(ready, resource), max_wait=max_wait)


def _make_folders(make: Callable[..., None], folder: str) -> None:
    path = "/"
    for name in folder.strip("/").split("/"):
        make(path, name, mode=0o755)
        path = posixpath.join(path, name)


def _copy_of(index: int, path: str) -> str:
    """Return where an image stores a directory that a container fills at its start."""
    return f"{_COPIES}/{index}/{posixpath.basename(path.rstrip('/'))}"


# Options


def _without(options: RunOptions, names: Sequence[str]) -> RunOptions:
    """Return options with the defaults of some fields."""
    defaults: dict[str, Any] = {
        option.name: option.default_factory() if callable(option.default_factory) else option.default
        for option in fields(RunOptions)
        if option.name in names
    }
    return replace(options, **defaults)


def _keys(
    runtime: Runtime,
    options: RunOptions,
    image: Image,
    display_name: str,
    fill: object,
    version: object,
) -> tuple[str, str]:
    """
    Return the key of an image and the key of its series.

    The images of a series replace each other. Both keys depend on passwords, and become visible to everyone who may use
    the engine. They are therefore made with a key that only this user has.
    """
    if fill is not None:
        check_callable("fill", fill, "a resource")
    environment = {pair.name: pair.value for pair in options.parsed.env}  # Its order means nothing.
    body = create_request(_without(options, _NOT_IN_KEY), image, image_name="", labels={}, publish_ip="").body
    content = {
        "engine": runtime.session.prepared.engine,
        "name": display_name,
        "platform": options.platform,
        "body": {**body, "Env": environment, "Labels": {}},
    }
    placed = files.digest(options.parsed.files) if options.parsed.files else ""
    secret = _settings.private_text(runtime.settings.environ, PREPARED_KEY_FILE).encode()

    def sign(**more: object) -> str:
        return hmac.digest(secret, json.dumps({**content, **more}, sort_keys=True).encode(), "sha256").hex()[
            :32
        ]

    key = sign(image=image.id, files=placed, fill=fingerprint(fill, version))
    return key, sign(fill=describe_origin(fill, version), files=sorted(options.parsed.files))


def _check_mounts(options: RunOptions, image: Image) -> None:
    """
    Refuse what would share data between the containers of one image.

    Raises:
        InvalidOptionError: A mount can be written to or is a named volume, or `host_config` has a tmpfs.
    """
    host_config = create_request(options, image, image_name="", labels={}, publish_ip="").body["HostConfig"]
    writable = [bind for bind in host_config.get("Binds") or () if not _is_read_only(bind)]
    writable += [
        str(mount.get("Source") or mount.get("Target"))
        for mount in host_config.get("Mounts") or ()
        if not (mount.get("Type") == "bind" and mount.get("ReadOnly"))
    ]
    writable += host_config.get("VolumesFrom") or ()
    if writable:
        raise InvalidOptionError(
            f"mounts: {writable[0]!r} is outside of the container, so its content would not be part of the image",
            hint="mount host folders with ':ro', and put data into the container with files= or fill",
        )
    lost = [path for path in host_config.get("Tmpfs") or () if path not in options.parsed.tmpfs]
    if lost:
        raise InvalidOptionError(
            f"host_config: the tmpfs {lost[0]!r} is outside of the container, so its content would not be part of the image",
            hint="use tmpfs=, whose content is stored",
        )


def _is_root(user: str) -> bool:
    return user.partition(":")[0] in ("", "0", "root")


def _is_read_only(bind: str) -> bool:
    mount = _validation.parse_mount("mounts", bind)
    return mount.is_bind and "ro" in mount.modes


def _pinned(options: RunOptions, key: str, *, moved: bool) -> RunOptions:
    """
    Return options with a fixed host name, and the data folder if it has moved.

    The data depends on both.
    """
    changes: dict[str, Any] = {}
    joined = options.parsed.networks
    if not options.hostname and not (joined and joined[0].startswith("container:")):
        changes["hostname"] = f"prepared-{key[:12]}"
    if moved:
        changes["env"] = [*options.parsed.env, Assignment(f"PGDATA={_MOVED_DATA}")]
    return replace(options, **changes) if changes else options


def _movable_data(options: RunOptions, image: Image) -> str:
    """
    Return PostgreSQL's data folder if it can be moved out of the image's volume.

    Return an empty string otherwise. The engine copies what an image has at the path of a volume into the new volume of
    every container. What is elsewhere costs nothing.
    """
    data = dict(assignment.split("=", 1) for assignment in image.env if "=" in assignment).get("PGDATA", "")
    volumes = [volume for volume in image.volumes if data and is_below(data, volume)]
    parsed = options.parsed
    placed = [*parsed.files, *parsed.tmpfs, *(mount.target for mount in parsed.mounts)]
    is_given = (
        options.entrypoint
        or not _is_root(options.user)
        or getattr(options, "read_only", False)
        or any(assignment.name == "PGDATA" for assignment in parsed.env)
        or any(
            word.startswith(("-D", "--pgdata", "--data")) or "data_directory" in word for word in options.cmd
        )
        or any(is_below(path, volume) or is_below(volume, path) for path in placed for volume in volumes)
    )
    return data if volumes and not is_given else ""


def _works_without_volumes(options: RunOptions, display_name: str) -> bool:
    """
    Return whether a server's data can be in image layers instead of volumes.

    The engine copies what an image has at the path of a volume into the new volume of every container. Layers cost nothing
    until a file is changed. But a server cannot rename a directory of a layer, so this is for known servers only: MySQL
    and MariaDB rename nothing but files.
    """
    from dockertest import services

    service = services.named(options.service) if options.service else services.find(display_name, {})
    return service is not None and service.dialect == "mysql" and not options.read_only


def _service(display_name: str) -> str:
    """Return the last part of an image's name."""
    name = display_name.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return "image" if display_name.startswith("sha256:") else name
