"""A connection to one engine, through which containers are started."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from typing_extensions import Unpack

from dockertest import _image_name as _reference
from dockertest import _values
from dockertest._cleanup import session as _session
from dockertest._containers.create import Modifier
from dockertest._images import build as _build
from dockertest._images import pull as _image
from dockertest._launch import Launch
from dockertest._options import BuildOptions, RunFields, RunOptions
from dockertest._resource import Resource
from dockertest._values import EnvSpec
from dockertest.errors import InvalidOptionError

T = TypeVar("T")
log = logging.getLogger("dockertest")


class Pool(Launch):
    """
    A connection to one container engine.

    Making one contacts the engine. All that is started through it is removed when it is closed, at the end of a
    `with`, and when the interpreter ends.

    Attributes:
        endpoint: `unix://`, `tcp://`, `http(s)://`, `ssh://` or `npipe://`; found by itself when `None` or empty.
        cert_path: Folder with `ca.pem`, `cert.pem` and `key.pem`, for TLS.
        client: The `docker.DockerClient` in use; one of your own is never closed.
        max_wait: Seconds that `retry` goes on, 60 by default.
        timeout: Seconds that the engine may be silent within one request, a pull included; 60 by default.
        image_prefix: Put before image names that name no registry, such as `"registry.corp:5000/"`; by default
            `DOCKERTEST_IMAGE_PREFIX`.
        publish_ip: Address that ports are published on; by default `DOCKERTEST_PUBLISH_IP`, else 127.0.0.1 for a local
            engine and, with a warning, all addresses of a remote one.
        pull_progress: Called with a `PullProgress` while an image is pulled; by default it is logged, and shown where
            standard error is a terminal.
        reaper: Have what the pool made removed even when this process is killed, by a small process beside it;
            `DOCKERTEST_REAPER=0` turns it off.
        keep: Leave everything standing for a look afterwards, and print how to reach and remove it; also with
            `DOCKERTEST_KEEP=1`.

    Raises:
        DockerUnavailableError: No engine answers; the text has every endpoint tried, and why.
        InvalidOptionError: An argument or environment variable has a value that cannot work.
    """

    def run(
        self, repository: str, tag: str | None = None, env: EnvSpec = (), **options: Unpack[RunFields]
    ) -> Resource:
        """
        Start a container.

        It is removed, with its anonymous volumes, when it or this pool is closed and when the interpreter ends.

        Args:
            repository: The image, `"postgres"` or `"postgres:15"`.
            tag: The image's tag, where *repository* has none; `latest` by default.
            env: The environment, a mapping or `"K=V"` strings.
            options: The other fields of `RunOptions`.

        Raises:
            InvalidOptionError: An option has a value that cannot work; the engine was not asked.
            ImagePullError: The image is not there and cannot be pulled.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        return self.run_with_options(RunOptions(repository=repository, tag=tag, env=env, **options))

    def run_with_options(self, options: RunOptions, *modifiers: Modifier) -> Resource:
        """
        Start a container as *options* say.

        Args:
            options: What to start.
            modifiers: Called in turn with the engine's host config, a dict with the engine's keys such as
                `{"ShmSize": 67108864}`, to change it last of all.

        Raises:
            InvalidOptionError: An option has a value that cannot work; the engine was not asked.
            ImagePullError: The image is not there and cannot be pulled.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        name, image = self._obtain(options)
        return self._run(options, image, name, name, modifiers)

    def _obtain(self, options: RunOptions) -> tuple[str, Mapping[str, Any]]:
        """Have the image there, and give its whole name and what the engine says of it."""
        self._owned.check_open()
        name = _reference.reference("repository", options.repository, options.tag)
        if name not in self._built:
            name = name.prefixed(self.image_prefix or "")
        image = self._images.obtain(
            name,
            pull=options.pull,
            platform=options.platform,
            auth=options.auth,
            on_progress=self.pull_progress,
        )
        return str(name), image

    def build_and_run(
        self, name: str, dockerfile_path: str | os.PathLike[str], env: EnvSpec = ()
    ) -> Resource:
        """
        Build an image from a Dockerfile, and start a container of it; both are called *name*.

        The image is kept: it is the cache of the next build.

        Args:
            name: What image and container are called.
            dockerfile_path: The Dockerfile; its folder is the build's context.
            env: The container's environment, a mapping or `"K=V"` strings.

        Raises:
            ImageBuildError: The build failed; its last lines are in the text.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        return self.build_and_run_with_options(dockerfile_path, RunOptions(name=name, env=env))

    def build_and_run_with_options(
        self, dockerfile_path: str | os.PathLike[str], options: RunOptions, *modifiers: Modifier
    ) -> Resource:
        """
        Build an image from a Dockerfile, and start a container of it as *options* say.

        Args:
            dockerfile_path: The Dockerfile; its folder is the build's context.
            options: What to start; the image is called `repository`, or else `name`, with `tag`.
            modifiers: As for `run_with_options`.

        Raises:
            ImageBuildError: The build failed; its last lines are in the text.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        path = _values.local_path("dockerfile_path", dockerfile_path)
        return self.build_and_run_with_build_options(
            BuildOptions(path.parent, path.name), options, *modifiers
        )

    def build_and_run_with_build_options(
        self, build_options: BuildOptions, run_options: RunOptions, *modifiers: Modifier
    ) -> Resource:
        """
        Build an image as *build_options* say, and start a container of it as *run_options* say.

        The container is made from the image that was just built, whatever its name has come to mean meanwhile.

        Args:
            build_options: What to build. One step may be silent for half an hour, then the build is given up.
            run_options: What to start; the image is called `repository`, or else `name`, with `tag`.
            modifiers: As for `run_with_options`.

        Raises:
            ImageBuildError: The build failed; its last lines are in the text.
            ContainerCreateError: The engine refused to create the container.
            ContainerStartError: It could not start it; it has been removed again.
        """
        self._owned.check_open()
        name = _reference.reference(
            "repository or name", run_options.repository or run_options.name, run_options.tag
        )
        if name.digest or name.is_id:
            raise InvalidOptionError(
                f"repository: {str(name)!r} cannot name an image to be built; write a name without a digest"
            )
        with self._timeline.step("build", str(name)):
            built = _build.build(self._engine, build_options, name, self._credentials, self._environ)
        self._built.add(name)
        image = _image.inspect(self._engine, _reference.reference("the image built", built))
        try:
            resource = self._run(run_options, image or {}, built, str(name), modifiers)
        except BaseException:
            if build_options.remove_image:
                _build.remove(self._engine, str(name))
            raise
        if build_options.remove_image:
            resource._after_removal = partial(_build.remove, self._engine, str(name))
        return resource

    def run_all(self, options: Sequence[RunOptions], *, max_workers: int | None = None) -> list[Resource]:
        """
        Start several containers side by side, and give them in the order of *options*; one failure removes the rest.

        Args:
            options: What to start.
            max_workers: How many to start at the same time; 16 by default.

        Raises:
            DockertestError: The first failure, as `run_with_options` raises it.
        """
        calls = [partial(self.run_with_options, each) for each in options]
        results = _session.side_by_side(calls, max_workers or 16)
        made = [each for each in results if isinstance(each, Resource)]
        failure = next((each for each in results if isinstance(each, Exception)), None)
        if failure is None:
            return made
        for left in _session.side_by_side([each.close for each in made]):
            if isinstance(left, Exception):
                log.error("%s", left)
        raise failure
