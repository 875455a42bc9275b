"""What a pool lends to the containers and networks that it makes."""

from __future__ import annotations

from dataclasses import dataclass

from dockertest._cleanup.session import Session
from dockertest._engine.client import EngineClient
from dockertest._engine.reachability import Reachability
from dockertest._images.pull import ImageStore
from dockertest._settings import Defaults, Settings
from dockertest._timeline import Timeline


@dataclass(frozen=True, slots=True)
class Runtime:
    """
    The parts of one pool, shared without a reference to the pool itself.

    They are built once.

    Attributes:
        engine: The connection to the engine.
        images: Finds, pulls and builds images.
        reachability: Knows at which address a published port is reached.
        session: Owns and removes what this process makes.
        timeline: Records what the pool did.
        settings: The environment.
        defaults: Values that the user may change on the pool.
    """

    engine: EngineClient
    images: ImageStore
    reachability: Reachability
    session: Session
    timeline: Timeline
    settings: Settings
    defaults: Defaults
