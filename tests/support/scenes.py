"""A published image in a registry of its own, put back for each test as it was."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.oci.client import RegistryClient
from builder.stages.publish import publish
from tests.support.evidence import World, approval, world
from tests.support.images import NOW
from tests.support.registry_simulator import Content, Simulator, simulator

REPO = "candidate/python"


@dataclass(frozen=True)
class Scene:
    """A registry, the image in it, and what the registry held when it was made."""

    sim: Simulator
    world: World
    content: Content

    def anew(self) -> Simulator:
        """The registry with the image and nothing else, without faults, nothing asked yet."""
        self.sim.restore(self.content)
        return self.sim


@contextmanager
def published(folder: Path, now: dt.datetime = NOW, **image: Any) -> Iterator[Scene]:
    """A new image with its keys below `folder`, judged at `now`, published in a new registry."""
    with simulator() as sim:
        made = replace(world(folder, **image), repository=f"{sim.address}/{REPO}")
        made = replace(made, verdict=approval(made.image, made.proofs, now))
        publish(made.signed(), RegistryClient(sim.address))
        yield Scene(sim, made, sim.content())
