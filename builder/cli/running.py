"""The composition root of a run: the tools of a release → a runner that takes images to the registry."""

from __future__ import annotations

from collections.abc import Sequence

from builder.cli.releasing import ReleaseTools
from builder.model.outcome import ImageEnd, ImageOutcome
from builder.pipeline.remote import Elsewhere, made_elsewhere
from builder.pipeline.run import Failure, Runner, split
from builder.report import Reporter
from builder.store import Store, write_atomically


def run_images(
    tools: ReleaseTools, refs: Sequence[str], engines: Sequence[str], reporter: Reporter, jobs: int = 1
) -> tuple[tuple[ImageOutcome, ...], tuple[Failure, ...]]:
    """Take images to the registry, holding the state directory; see `pipeline.run.Runner`."""
    return split(run_catalogue(tools, refs, engines, reporter, jobs))


def run_catalogue(
    tools: ReleaseTools,
    refs: Sequence[str],
    engines: Sequence[str],
    reporter: Reporter,
    jobs: int = 1,
    hands: Elsewhere | None = None,
) -> tuple[ImageEnd, ...]:
    """The same; returns how each image ended. `hands` builds elsewhere."""
    workshop = tools.workshop
    with workshop.store.exclusive("goldsmith run"):
        ends = runner(tools, engines, reporter, jobs, hands).run_all(refs)
    if any(e.outcome is not None and e.outcome.outcome != "unchanged" for e in ends):
        note_publication(workshop.store)
    return ends


def note_publication(store: Store) -> None:
    """The index of what is in the registry, where there is one, is behind from now on."""
    if (store.root / "index").is_dir():
        write_atomically(store.root / "index" / "stale", b"images were published")


def runner(
    tools: ReleaseTools,
    engines: Sequence[str],
    reporter: Reporter,
    jobs: int = 1,
    hands: Elsewhere | None = None,
    rescanned: frozenset[str] = frozenset(),
) -> Runner:
    """The runner of the whole pipeline; whoever uses it holds the state directory."""
    workshop = tools.workshop
    builder = workshop.builder(engines)
    return Runner(
        workshop.catalogue,
        workshop.store,
        builder,
        tools.tools(),
        tools.still_published,
        workshop.settings.now,
        reporter,
        jobs,
        hands,
        rescanned,
        lambda item: made_elsewhere(item, builder, tools.client, workshop.store),
    )
