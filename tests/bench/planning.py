"""`plan_1000`: `goldsmith plan` over 1,000 images, one package changed, interpreter start included.

The peer is `make -n` over the same files and the same parents: by file times, not by content.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from builder.model.digest import Digest
from builder.pipeline.history import Components, history_of, keep_history
from builder.pipeline.prepare import Prepared, prepare
from builder.store import Store
from builder.tools import process
from tests.bench.scene import Scene, Stopwatch
from tests.support import fleet

_IMAGES, _RUNS, _PACKAGES = 1000, 3, 20
_LONG_AGO = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)  # so that no guard counts these builds


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """The median of three runs each."""
    with scene.store.scratch("bench") as work:
        environment = {
            **scene.environment(),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "GOLDSMITH_CATALOGUE": str(work / "catalogue"),
            "GOLDSMITH_STATE": str(scene.settings.state),
        }
        yield ("plan_1000", *_measure(work, scene.store, environment))


def _measure(work: Path, store: Store, environment: dict[str, str]) -> tuple[float, str, float]:
    root = fleet.define(work / "catalogue", dict(_family(_IMAGES)))
    _pretend_built(root, store)
    changed = f"i{_IMAGES - 1}-app"
    fleet.lock(root, {changed: "2"}, _PACKAGES)
    argv = [sys.executable, "-m", "builder", "plan", "--json", "--policy", "demo"]
    ours = []
    for _ in range(_RUNS):
        with Stopwatch() as watch:
            done = process.run(argv, environment=environment, timeout_seconds=300)
        ours.append(watch.seconds)
        due = [i["ref"] for i in json.loads(done.stdout)["images"] if i["action"] == "build"]
        if due != [f"i{_IMAGES - 1}:1"]:
            raise AssertionError(f"planned: {due[:5]}")
    return sorted(ours)[_RUNS // 2], "s", _make(root, environment)


def _family(count: int) -> Iterator[tuple[str, str | None]]:
    """Ten bases, and children of them."""
    for number in range(count):
        yield f"i{number}", f"i{(number - 10) // 99}" if number >= 10 else None


def _pretend_built(root: Path, store: Store) -> None:
    """Records as after a run of all images, without building them."""
    catalogue = fleet.lock(root, None, _PACKAGES)
    known: dict[str, Prepared] = {}
    components = Components(root)
    for target in catalogue.targets():
        prepared = prepare(catalogue, target, known)
        digest = Digest.of(target.ref.encode())
        (store.images / digest.hex).mkdir(parents=True)
        (store.images / digest.hex / "index.json").write_text("{}")
        store.remember("built", prepared.input_hash, {"digest": digest, "engines": ["direct"]})
        history = history_of(store, target.ref)
        built = history.built(_LONG_AGO, prepared.input_hash, digest, components.of(prepared))
        keep_history(store, built)


def _make(root: Path, environment: dict[str, str]) -> float:
    lines = ["all: " + " ".join(f"i{n}.done" for n in range(_IMAGES))]
    template = "templates/debian-runtime.Dockerfile.j2"
    for name, parent in _family(_IMAGES):
        files = " ".join(f"images/{name}/{f}" for f in ("image.yaml", "checks.yaml", "image.lock"))
        lines.append(f"{name}.done: {files} {template} {f'{parent}.done' if parent else ''}\n\ttouch $@")
        (root / f"{name}.done").touch()
    (root / "Makefile").write_text("\n".join(lines) + "\n")
    for number in range(_IMAGES):
        os.utime(root / f"i{number}.done")
    os.utime(root / "images" / f"i{_IMAGES - 1}" / "image.lock")
    times = []
    for _ in range(_RUNS):
        with Stopwatch() as watch:
            process.run(["make", "-n"], environment=environment, directory=root, timeout_seconds=300)
        times.append(watch.seconds)
    return sorted(times)[_RUNS // 2]
