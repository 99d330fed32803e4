"""`engine_docker` and `engine_buildah`: from a context to a root file system, by `direct` and by another engine.

Each image of the catalogue is built by all three, with its parents, for all of its platforms; what is timed
is the engine's part alone, without fetching and normalising, which is the same for all. They also
have to agree, or nothing is measured. Docker may use what it cached in runs before.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

from builder.cli.locking import relock
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.timing import Stages
from builder.report import Silent
from tests.bench.scene import Scene, Stopwatch

_ENGINES = ("direct", "docker", "buildah")


class _Clock(Silent):
    """A reporter that adds up what each engine took."""

    def __init__(self) -> None:
        self.seconds: Counter[tuple[str, str]] = Counter()

    @contextlib.contextmanager
    def stage(self, image: str, stage: str, detail: str = "") -> Iterator[None]:
        with Stopwatch() as watch:
            yield
        if stage == "build":
            self.seconds[image, detail] += watch.seconds


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Seconds of each runtime image on Debian 13, all of its platforms together."""
    names = sorted(scene.workshop().catalogue.definitions)
    relock(scene.workshop().catalogue, scene.settings, scene.store, names, check=False)
    workshop, clock = scene.workshop(), _Clock()
    builder = workshop.builder(_ENGINES)
    known: dict[str, Prepared] = {}
    for target in workshop.catalogue.targets():
        if (target.variant, target.stream.suite) != ("runtime", "trixie"):
            continue
        chain = [*reversed(workshop.catalogue.ancestors(target)), target]
        prepared = [prepare(workshop.catalogue, item, known) for item in chain]
        builder.chain(prepared, lambda ref: Stages(ref, clock))
        for other in _ENGINES[1:]:
            ours, theirs = (clock.seconds[target.ref, engine] for engine in ("direct", other))
            yield f"engine_{other} {target.ref}", ours, "s", theirs
