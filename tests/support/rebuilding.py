"""A rebuild as `goldsmith reproduce` does it, with one engine that keeps what it was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builder.engines.direct import DirectEngine
from builder.model.image import BuildContext, RawImage
from builder.model.reference import Reference
from builder.model.step import Step
from builder.pipeline.reproduce import Rebuilt, no_mirror, reproduce
from builder.report import Silent
from builder.signing.inputs import read_inputs
from builder.signing.keys import BUILDER
from builder.store import Store
from builder.tools.pool import Pool
from builder.version import version
from tests.support.kits import KitWorld


class Recording(DirectEngine):
    """Python's engine, that keeps what it was asked for."""

    def __init__(self) -> None:
        self.built: list[str] = []

    def build(self, context: BuildContext, pool: Any, work: Path) -> RawImage:
        self.built.append(f"{context.ref} {context.platform}")
        return super().build(context, pool, work)


class Bench:
    """One engine, and nobody to ask."""

    def __init__(self) -> None:
        self.engine = Recording()

    def release(self) -> str:
        return version()

    def pool(self, store: Store) -> Pool:
        return Pool(store, no_mirror)

    def steps(self) -> dict[str, Step]:
        return {}

    def engines(self, catalogue: object, store: Store, kit: object) -> list[DirectEngine]:
        return [self.engine]


def rebuild(world: KitWorld, where: Reference, folder: Path, bench: Bench | None = None) -> Rebuilt:
    """What `goldsmith reproduce` does on a machine that has keys and a registry."""
    inputs = read_inputs(world.client, where, world.trust.unrevoked(BUILDER))
    state, work = Store(folder / "state"), folder / "work"
    return reproduce(world.client, where, inputs, bench or Bench(), state, work, Silent())
