"""Commands of the platform team for building: render, build."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from builder.cli.clustering import Scheduler, TlsCa, TlsCert, TlsKey

Ref = Annotated[str, typer.Argument(metavar="IMAGE", help="An image of the catalogue: python:3.13")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine", help="direct, docker or buildah; several must agree on the digest. Default: direct."
    ),
]
Jobs = Annotated[
    int, typer.Option("--jobs", min=1, max=256, help="How many images are built at once, by threads.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(render)
    app.command()(build)
    app.command()(run)


def render(
    image: Ref,
    output: Annotated[Path | None, typer.Option(help="Write the context's files below this folder.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print an image's Dockerfile as it is built, or write its whole context."""
    from builder.cli.extending import open_catalogue
    from builder.pipeline.prepare import prepare
    from builder.report import emit, emit_json
    from builder.settings import Settings
    from builder.store import write_atomically

    settings = Settings.load()
    catalogue = open_catalogue(settings)
    prepared = prepare(catalogue, catalogue.find(image))
    for platform, context in prepared.contexts.items():
        if output:
            folder = output / str(platform).replace("/", "-")
            for path, content in context.files.items():
                write_atomically(folder / path, content)
        elif not as_json:
            emit(context.files["Dockerfile"].decode().rstrip())
    if as_json:
        emit_json(
            {
                "ref": prepared.target.ref,
                "input_hash": prepared.input_hash,
                "platforms": {
                    str(platform): {path: content.decode() for path, content in context.files.items()}
                    for platform, context in prepared.contexts.items()
                },
            }
        )


def build(image: Ref, engine: Engines = None, as_json: AsJson = False) -> None:
    """Build an image and its parents from their locks, without checking or publishing them."""
    from builder.cli.wiring import Workshop
    from builder.pipeline.prepare import Prepared, prepare
    from builder.pipeline.timing import Stages
    from builder.report import Silent, emit, emit_json, for_people

    workshop = Workshop.open()
    reporter = Silent() if as_json else for_people()
    catalogue = workshop.catalogue
    target = catalogue.find(image)
    chain = [*reversed(catalogue.ancestors(target)), target]
    known: dict[str, Prepared] = {}
    with workshop.store.exclusive(f"goldsmith build {target.ref}"):
        result, anew = workshop.builder(engine or ["direct"]).chain(
            [prepare(catalogue, item, known) for item in chain], lambda ref: Stages(ref, reporter)
        )
    if as_json:
        emit_json(
            {
                "ref": target.ref,
                "digest": result.digest,
                "outcome": "built" if anew else "unchanged",
                "input_hash": result.input_hash,
                "immutable_tag": result.immutable_tag,
                "layout": str(result.layout),
                "platforms": {
                    str(p.platform): {
                        "manifest": p.manifest.digest,
                        "config": p.config.digest,
                        "compressed_bytes": p.compressed_bytes,
                        "packages": len(p.packages),
                        "layers": [
                            {
                                "group": x.group,
                                "digest": x.blob.digest,
                                "diff_id": x.diff_id,
                                "size": x.blob.size,
                            }
                            for x in p.layers
                        ],
                    }
                    for p in result.platforms
                },
            }
        )
    else:
        emit(f"{target.ref} {result.digest} {'built' if anew else 'unchanged'}")


def run(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="[IMAGE]...", help="Images of the catalogue; all by default."),
    ] = None,
    engine: Engines = None,
    policy: Annotated[str | None, typer.Option(help="The policy that judges. Default: baseline.")] = None,
    jobs: Jobs = 1,
    scheduler: Scheduler = None,
    tls_ca: TlsCa = None,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Take images from their locks to the registry: build, check, scan, judge, sign, publish."""
    from builder.cli import outcomes as shown
    from builder.cli.clustering import certificates, elsewhere
    from builder.cli.identity import may_publish
    from builder.cli.releasing import ReleaseTools
    from builder.cli.running import run_catalogue
    from builder.cli.wiring import Workshop
    from builder.pipeline.run import split
    from builder.report import Silent, emit_json, for_people

    workshop = Workshop.open()
    settings = workshop.settings
    may_publish(workshop, images or [])
    tools = ReleaseTools(workshop, policy or settings.policy, settings.trivy_db)
    reporter = Silent() if as_json else for_people()
    engines = engine or ["direct"]
    with contextlib.ExitStack() as stack:
        hands = None
        if scheduler is not None:
            files = certificates(tls_ca, tls_cert, tls_key)
            hands, width = stack.enter_context(elsewhere(tools, engines, scheduler, files))
            jobs = max(jobs, width)
        ends = run_catalogue(tools, images or [], engines, reporter, jobs, hands)
    outcomes, failures = split(ends)
    if as_json:
        emit_json(
            {
                "images": [o.as_dict() for o in outcomes],
                "failures": [{"ref": f.ref, **f.error.as_dict()} for f in failures],
                "states": [end.as_dict() for end in ends],
            }
        )
    else:
        shown.show("Images", outcomes)
    shown.stop_for(outcomes, failures, as_json)
