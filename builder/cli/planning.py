"""Commands about what is due, and how long it would take: plan, simulate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Sequence

    from builder.cli.releasing import ReleaseTools
    from builder.model.plan import Plan, PlannedImage
    from builder.pipeline.guard import Limits
    from builder.store import Store

_MEASURED_MAX = 64 << 20  # bytes
_WORKERS_MAX = 100_000

AsJson = Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")]
Engines = Annotated[
    list[str] | None,
    typer.Option("--engine", help="direct, docker or buildah; as for `goldsmith run`. Default: direct."),
]
PolicyName = Annotated[str | None, typer.Option(help="The policy that judges. Default: baseline.")]
Everything = Annotated[
    bool, typer.Option("--all", help="Hold nothing back: neither loops nor more builds than --most.")
]
Most = Annotated[
    int, typer.Option("--most", min=1, help="The most builds in 24 hours; what is less urgent is held.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command("plan")(plan_command)
    app.command()(simulate)


def plan_command(
    engine: Engines = None,
    policy: PolicyName = None,
    everything: Everything = False,
    most: Most = 1000,
    registry: Annotated[
        bool, typer.Option("--registry", help="Also ask the registry whether the tags are in place.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say for each image what the next run would do, and why; nothing is built."""
    from builder.cli.releasing import ReleaseTools
    from builder.cli.wiring import Workshop
    from builder.pipeline.guard import Limits
    from builder.report import emit_json

    workshop = Workshop.open()
    settings = workshop.settings
    tools = ReleaseTools(workshop, policy or settings.policy, settings.trivy_db)
    limits = Limits(builds_max=most, everything=everything)
    plan = make_plan(tools, engine or ["direct"], limits, ask_registry=registry)
    if as_json:
        emit_json(plan.as_dict())
    else:
        show(plan)


def make_plan(
    tools: ReleaseTools, engines: Sequence[str], limits: Limits, *, ask_registry: bool = False
) -> Plan:
    """The plan for the whole catalogue; raises what stands in the way of all images."""
    from builder.model.plan import Plan
    from builder.pipeline.plan import decide, survey
    from builder.rebuilds import waiting_rebuilds

    workshop = tools.workshop
    now = workshop.settings.now
    surveyed = survey(
        workshop.catalogue,
        workshop.store,
        tools.last_identity(),
        engines,
        now,
        tools.in_place if ask_registry else None,
    )
    pulled = consumers_of(workshop.store, now)
    return Plan(decide(surveyed, waiting_rebuilds(workshop.store), limits, now, pulled))


def consumers_of(store: Store, now: dt.datetime) -> dict[str, int]:
    """How many lately pulled each image, by the index; none where there is no index."""
    if not (store.root / "index" / "current").is_file():
        return {}
    from builder.cli.knowledge import index_place
    from registry.index.queries import consumers

    path = index_place(store).current()
    return consumers(path, now) if path is not None else {}


def show(plan: Plan) -> None:
    """Print what is due, in order, and how many images are not."""
    from builder.model.plan import Action
    from builder.report import emit, table

    rows = [_row(image) for image in plan.images if image.action is not Action.NOTHING]
    if rows:
        table("Plan", ("image", "action", "why", "since", "consumers"), rows)
    counts = [f"{count} {action.value}" for action, count in plan.counts.items() if count]
    emit(", ".join(counts) or "the catalogue is empty")


def _row(image: PlannedImage) -> tuple[str, ...]:
    why = [*([image.held] if image.held else []), *map(str, image.reasons)]
    urgent = " (known exploited)" if image.exploited else ""
    return (
        image.ref,
        image.action.value + urgent,
        "; ".join(why),
        image.since.strftime("%Y-%m-%d %H:%M") if image.since else "-",
        str(image.consumers),
    )


def simulate(
    measured: Annotated[
        Path,
        typer.Argument(metavar="RUN.json", help="What `goldsmith run --json` printed when it built images."),
    ],
    images: Annotated[int, typer.Option("--images", min=1, max=1_000_000, help="Images.")] = 10_000,
    workers: Annotated[str, typer.Option(help="Numbers of workers, with commas.")] = "1,2,5,10,20,50,100,200",
    fan_out: Annotated[int, typer.Option(min=1, help="The most images that are built on one.")] = 20,
    registry_mb: Annotated[
        float, typer.Option("--registry-mb", min=0.001, help="Megabytes a second that the registry takes.")
    ] = 100.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Say how long a large catalogue would take on so many workers, from stage times of a real run."""
    import json

    from builder.errors import UsageError
    from builder.report import emit_json, table
    from builder.simulate import Site, costs_of
    from builder.simulate import simulate as simulated
    from builder.store import read_file

    try:
        found = json.loads(read_file(measured, _MEASURED_MAX))["images"]
        built = [i for i in found if i["outcome"] == "built"]
        costs = costs_of([i["stages"] for i in built], [float(i["compressed_bytes"]) for i in built])
        numbers = sorted({int(word) for word in workers.split(",")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{measured} is not what a run with built images printed, or the workers are no numbers",
            context=str(error)[:200],
            hint="goldsmith run --json > RUN.json, of images that were built; --workers 1,10,100",
        ) from None
    if not all(1 <= number <= _WORKERS_MAX for number in numbers):
        raise UsageError(f"between 1 and {_WORKERS_MAX} workers")
    site = Site(images, fan_out=fan_out, registry_bytes=registry_mb * 1e6)
    results = [simulated(site, costs, number) for number in numbers]
    if as_json:
        emit_json({"images": images, "results": [r.as_dict() for r in results]})
        return
    rows = [
        (
            str(r.workers),
            f"{r.seconds / 60:.1f} min",
            r.limit,
            f"{r.critical_path:.0f} s",
            f"{r.registry / 60:.1f} min",
        )
        for r in results
    ]
    table(f"{images} images", ("workers", "takes", "limited by", "critical path", "registry"), rows)
