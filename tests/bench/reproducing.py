"""`reproduce_python`: python built again from the registry alone, against its first build.

Ours reads provenance and kit, brings every package from the registry, and builds python and the image
below it in an empty state directory. The peer is what `goldsmith build` does on a new machine: it
brings the same packages from the configured mirror and builds the same images.
"""

from __future__ import annotations

from collections.abc import Iterator

from builder.cli.reproducing import Bench
from builder.pipeline.build import Builder
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.reproduce import reproduce
from builder.pipeline.timing import Stages
from builder.report import Silent
from builder.signing.inputs import read_inputs
from builder.signing.keys import BUILDER
from builder.signing.verify import resolve
from builder.store import Store
from builder.tools.mirror import find
from builder.tools.pool import Pool
from tests.bench.scene import ENGINES, Scene, Stopwatch


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Seconds of each; nothing that was built or downloaded before is used."""
    scene.run()
    tools, settings = scene.tools(), scene.settings
    catalogue = tools.workshop.catalogue
    target = catalogue.find("python:3.13")
    client = tools.client
    with scene.store.scratch("rebuild") as work, Stopwatch() as ours:
        tagged = client.reference(f"candidate/{target.definition.name}", target.tag)
        where = tagged.with_digest(resolve(tagged, client))
        inputs = read_inputs(client, where, tools.trust.unrevoked(BUILDER))
        bench = Bench(settings, scene.store, ENGINES, client)
        done = reproduce(client, where, inputs, bench, Store(work / "state"), work, Silent())
    if not done.same:
        raise RuntimeError(f"{where} was rebuilt as {done.index}")
    with scene.store.scratch("first") as work, Stopwatch() as first:
        store = Store(work / "state").create()
        pool = Pool(store, lambda: find(settings.debian_mirror), settings.child_environment)
        known: dict[str, Prepared] = {}
        chain = [prepare(catalogue, one, known) for one in (*reversed(catalogue.ancestors(target)), target)]
        builder = Builder(store, pool, [tools.workshop.engine(name) for name in ENGINES])
        builder.chain(chain, lambda ref: Stages(ref, Silent()))
    yield "reproduce_python", ours.seconds, "s", first.seconds
