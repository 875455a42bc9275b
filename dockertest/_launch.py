"""Start one container, or take one that is reused; whatever goes wrong, nothing half-made is left."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from dockertest import _report, _values
from dockertest._cleanup import reaper_client as _lifeline
from dockertest._cleanup import session as _session
from dockertest._containers import create as _create
from dockertest._containers import files as _files
from dockertest._containers import reuse as _reuse
from dockertest._containers.create import CreateRequest, Modifier
from dockertest._images import process as _process
from dockertest._options import RunOptions
from dockertest._resource import Resource
from dockertest._upkeep import Upkeep
from dockertest.errors import (
    ContainerStartError,
    DockertestError,
    InvalidOptionError,
    ResourceClosedError,
)

log = logging.getLogger("dockertest")


class Launch(Upkeep):
    """A connection by which containers are started."""

    def _run(
        self,
        options: RunOptions,
        image: Mapping[str, Any],
        made_of: str,
        called: str,
        modifiers: tuple[Modifier, ...],
    ) -> Resource:
        """Start a container of an image that is at hand: made of that name or id, and called so in what is told."""
        request = _create.create_request(
            options,
            image,
            image_name=made_of,
            labels=self._labels(),
            publish_ip=self.publish_ip or "",
            network=self._standpoint.network(),
            modifiers=modifiers,
        )
        if request.body["HostConfig"]["PortBindings"] and self._warn_of and not options.publish_ip:
            log.warning(
                "ports are published on all addresses of %s; set publish_ip to choose one", self._warn_of
            )
            self._warn_of = ""
        if options.reuse:
            return self._reuse(request, options, image, called)
        return self._make(request, options, called, options.name)

    def _reuse(
        self, request: CreateRequest, options: RunOptions, image: Mapping[str, Any], called: str
    ) -> Resource:
        """Take the container that is just what is asked for, or make it: the engine gives its name to one alone."""
        self._check_reusable(request)
        key = _reuse.key(options, request, image, _lifeline.identity())
        name = options.name or f"dockertest-{key[:32]}"
        request.body["Labels"][_session.REUSE] = key
        make = partial(self._make, request, options, called, name)
        found = _reuse.take(self._engine, name, key, self._lifeline.is_dead, make)
        if isinstance(found, Resource):
            resource = found
        else:
            with self._owned.creating(), self._timeline.step("reuse", called) as step:
                resource = self._handle(found, called)
                step |= {"container": resource.id, "name": resource.name}
                resource._reused = True
                _process.registry.add(self)
                self._owned.add_container(resource)
            resource._await_ports(found)  # whoever has just started it waits for them, too
        return resource

    def _check_reusable(self, request: CreateRequest) -> None:
        first = request.body["HostConfig"].get("NetworkMode", "")
        for network in (first, *request.networks):
            if self._owned.owns_network(network):
                raise InvalidOptionError(
                    f"reuse: the container would outlive its network {network[:12]!r}, which goes with this pool; "
                    "name one that stays, or none"
                )

    def _make(self, request: CreateRequest, options: RunOptions, called: str, name: str) -> Resource:
        with self._owned.creating(), self._timeline.step("create", called) as step:
            self._begin()
            container_id = self._engine.create(request.body, name=name, platform=options.platform)
            step["container"] = container_id
            resource = self._handle({"Id": container_id, "Name": name}, called)
            self._owned.add_container(resource)
        with self._removed_on_failure(resource), self._timeline.step("start", called) as step:
            step["container"] = container_id
            self._owned.check_open()  # a signal's handler may have closed it
            self._start(resource, request, options)
            step["name"] = resource.name
        self._lifeline.settle()
        return resource

    @contextmanager
    def _removed_on_failure(self, resource: Resource) -> Iterator[None]:
        """Leave no half-made container behind, whatever went wrong; Ctrl-C too."""
        try:
            yield
        except BaseException as failure:
            try:
                resource._let_go(remove=not resource._reused)
            except DockertestError as error:
                log.error("%s", error)
            if self._owned.closed and isinstance(failure, DockertestError):
                raise ResourceClosedError("the pool was closed while it started a container") from failure
            raise

    def _start(self, resource: Resource, request: CreateRequest, options: RunOptions) -> None:
        for network in request.networks:
            self._engine.connect_network(
                network, resource.id, _create.endpoint_config(options.network_aliases)
            )
        if options.files:
            _files.place(self._engine, resource._refresh(), _values.files(options.files))
        what = f"start {_report.label(resource.name, resource.id)} of {resource._image}"
        try:
            self._engine.send(
                "post", f"/containers/{resource.id}/start", what=what, error=ContainerStartError
            )
        except ContainerStartError as error:
            (report,) = resource._reports()
            if not report.error:  # some engines keep no record of it
                report = replace(report, error=str(error).removeprefix(f"cannot {what}: "))
            logs = _report.indented(report.logs)
            raise ContainerStartError(f"{error}{logs}", report=report) from error.__cause__
        resource._reused = bool(options.reuse)  # from now on others may take it
        resource._await_ports()
