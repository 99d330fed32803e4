"""`catalogue_unchanged`: `goldsmith run` over every image, variant and platform when nothing has changed.

Interpreter start, catalogue, locks, content keys, records and the registry's tags are all read. The first run,
which is not timed, publishes stand-ins: for each input of the catalogue an image of as many layers as a
real one may have, each layer of a few bytes, with evidence to match. An unchanged run reads no layer and no
evidence, so it cannot tell, and building everything takes many minutes. There is no peer; the goal stands in for it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from builder.cli.releasing import ReleaseTools
from builder.cli.running import runner
from builder.cli.wiring import Workshop
from builder.model.image import BuiltImage, PlatformImage
from builder.model.layers import LAYERS_MAX
from builder.oci.layout import create_layout
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.run import Runner, split
from builder.report import Silent
from builder.settings import Settings
from builder.signing.keys import create_keys
from builder.stages.define import load_catalogue
from builder.stages.finish import finish
from builder.store import Store
from builder.tools import process
from registry.storage import service
from tests.bench.scene import ENGINES, Scene, Stopwatch
from tests.support import evidence
from tests.support.images import add_layer, platform_image
from tests.support.ports import free_address

_GOAL = 3.0  # s
_RUNS = 5


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """The median of five runs."""
    environment = {
        **scene.environment(),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "GOLDSMITH_CATALOGUE": str(Settings.load().catalogue),
        "GOLDSMITH_STATE": str(scene.state / "standing"),
        "GOLDSMITH_REGISTRY": free_address(),
        "GOLDSMITH_TRIVY_DB": str(scene.database),
        "GOLDSMITH_POLICY": "demo",
    }
    settings = Settings.load({**os.environ, **environment})
    store = Store(settings.state).create()
    create_keys(store.keys, settings.key_uris, settings.passphrase)
    service.up(settings)
    try:
        count = _publish(settings, store)
        ours = []
        for _ in range(_RUNS):
            with Stopwatch() as watch:
                done = process.run(
                    [sys.executable, "-m", "builder", "run", "--json"],
                    environment=environment,
                    timeout_seconds=120,
                )
            ours.append(watch.seconds)
            found = [image["outcome"] for image in json.loads(done.text)["images"]]
            if found != ["unchanged"] * count:
                raise AssertionError(f"something was built again: {found}")
    finally:
        service.down(settings)
    yield "catalogue_unchanged", sorted(ours)[_RUNS // 2], "s", _GOAL


def _publish(settings: Settings, store: Store) -> int:
    """Have a stand-in of every image in the registry; returns how many there are."""
    workshop = Workshop(settings, load_catalogue(settings.catalogue), store)
    known: dict[str, Prepared] = {}
    targets = workshop.catalogue.targets()
    for target in targets:
        _stand_in(prepare(workshop.catalogue, target, known), store)
    outcomes, failures = split(_runner(workshop).run_all(()))
    if failures:
        raise failures[0].error
    if any(outcome.outcome == "built" for outcome in outcomes):
        raise AssertionError("a stand-in was not taken for the image")
    return len(targets)


def _stand_in(prepared: Prepared, store: Store) -> BuiltImage:
    """An image of this input, where a build would have left it."""
    with store.scratch("stand-in") as work:
        layout = create_layout(work / "layout")
        images: list[PlatformImage] = []
        for platform, context in prepared.contexts.items():
            layers = [
                add_layer(layout, {f"etc/{platform.architecture}": b"%d" % number}, f"goldsmith: {number}")
                for number in range(LAYERS_MAX)
            ]
            made = platform_image(layout, layers, platform, context.lock, {"ref": prepared.target.ref})
            images.append(replace(made, packages=prepared.packages[platform]))
        image = finish(prepared.target, tuple(images), prepared.input_hash, prepared.version)
        os.replace(layout, store.images / image.digest.hex)
    record = {"digest": image.digest, "ref": prepared.target.ref, "engines": list(ENGINES)}
    store.remember("built", prepared.input_hash, record)
    return image


def _runner(workshop: Workshop) -> Runner:
    """The runner of `goldsmith run`, with evidence and verdicts that are made up."""
    made = runner(
        ReleaseTools(workshop, workshop.settings.policy, workshop.settings.trivy_db), ENGINES, Silent()
    )
    now = workshop.settings.now
    tools = replace(
        made.tools,
        check=lambda _, image: evidence.evidence(image).checks,
        scan=lambda _, image, work: (evidence.evidence(image).scan, evidence.sboms(image)),
        lint=lambda _: None,
        judge=lambda image, proofs: evidence.approval(image, proofs, now),
        kit=None,
    )
    return replace(made, tools=tools)
