"""Every: several images and their parents, built side by side and not released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from builder.fleet import State, Task, run_graph
from builder.model.catalogue import Catalogue
from builder.model.image import BuiltImage, Target
from builder.model.lock import ImageLock
from builder.pipeline.build import Builder
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.timing import Stages
from builder.report import Reporter


def build_every(
    catalogue: Catalogue, targets: Sequence[Target], builder: Builder, reporter: Reporter, jobs: int = 1
) -> dict[str, BuiltImage]:
    """Build `targets` and what they are built on, `jobs` at once, parents first; by their names.

    Packages are unpacked once for all of them. Raises the first error; what was built is kept.
    """
    known: dict[str, Prepared] = {}
    locks: dict[str, ImageLock] = {}
    wanted = {x.ref: x for t in targets for x in (*reversed(catalogue.ancestors(t)), t)}
    prepared = {ref: prepare(catalogue, target, known, locks) for ref, target in wanted.items()}
    below = {ref: catalogue.parent(target) for ref, target in wanted.items()}
    built: dict[str, BuiltImage] = {}

    def build(ref: str, inputs: Mapping[str, Any]) -> BuiltImage:
        parent = below[ref]
        found = builder.reuse(prepared[ref])
        above = inputs[parent.ref] if parent else None
        return found or builder.build(prepared[ref], above, Stages(ref, reporter))

    with ThreadPoolExecutor(jobs, "build") as threads:

        def submit(task: Task, inputs: Mapping[str, Any]) -> Future[Any]:
            return threads.submit(build, task.name, inputs)

        tasks = [Task(ref, (parent.ref,) if parent else ()) for ref, parent in below.items()]
        for ended in run_graph(tasks, submit).values():
            if ended.state is State.DONE:
                built[ended.name] = ended.result
            elif ended.error is not None:
                raise ended.error
    return built
