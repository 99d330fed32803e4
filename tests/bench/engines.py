"""`engine_docker` and `engine_buildah`: from a context to a root file system, by `direct` and by another engine.

Each image is built by all three, with its parents, for all of its platforms; what is timed is the engine's
part alone, without fetching and normalising, which is the same for all. They also have to agree, or nothing is
measured. Docker may use what it cached in runs before. A few images stand for the others; `engines_all` is every
runtime image on Debian 13.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence

from builder.model.catalogue import Catalogue
from builder.model.image import Target
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.timing import Stages
from builder.report import Silent
from builder.settings import Settings
from builder.stages.define import load_catalogue
from tests.bench.catalogue import fresh_workshop, kept_workshop, locked_packages
from tests.bench.scene import Scene, Stopwatch

_ENGINES = ("direct", "docker", "buildah")
_CHOSEN = ("base:13", "python:3.13", "nginx:1.26")


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
    """Seconds of the chosen images, all of their platforms together."""
    catalogue = load_catalogue(Settings.load().catalogue)
    yield from _measure(scene, catalogue, [catalogue.find(ref) for ref in _CHOSEN])


def measure_all(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """The same of each runtime image on Debian 13."""
    catalogue = load_catalogue(Settings.load().catalogue)
    chosen = [t for t in catalogue.targets() if (t.variant, t.stream.suite) == ("runtime", "trixie")]
    yield from _measure(scene, catalogue, chosen)


def _measure(
    scene: Scene, catalogue: Catalogue, targets: Sequence[Target]
) -> Iterator[tuple[str, float, str, float]]:
    kept = kept_workshop(catalogue)
    family = [a for t in targets for a in (*reversed(catalogue.ancestors(t)), t)]
    packages = (*locked_packages(catalogue, family), *kept.assembler_section().packages)
    kept.pool.fetch(packages)
    workshop, clock = fresh_workshop(scene, kept, packages, f"engines-{len(targets)}"), _Clock()
    builder = workshop.builder(_ENGINES)
    known: dict[str, Prepared] = {}
    for target in targets:
        chain = [*reversed(catalogue.ancestors(target)), target]
        prepared = [prepare(catalogue, item, known) for item in chain]
        builder.chain(prepared, lambda ref: Stages(ref, clock))
        for other in _ENGINES[1:]:
            ours, theirs = (clock.seconds[target.ref, engine] for engine in ("direct", other))
            yield f"engine_{other} {target.ref}", ours, "s", theirs
