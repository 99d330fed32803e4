"""The composition root of a cluster: what the command does, and what a worker does with its orders."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.errors import LockError, ToolError, UsageError

if TYPE_CHECKING:
    from builder.cli.releasing import ReleaseTools
    from builder.cluster import Certificates
    from builder.model.digest import Digest
    from builder.model.evidence import CheckReport, LintReport, NotDone, Sboms, ScanReport
    from builder.model.image import BuildContext, PlatformImage, Target
    from builder.pipeline.prepare import Prepared
    from builder.pipeline.remote import Elsewhere, Made, Order

Scheduler = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Build on a Dask cluster: tcp://HOST:PORT or tls://HOST:PORT."),
]
TlsCa = Annotated[
    Path | None, typer.Option("--tls-ca", metavar="FILE", help="The cluster's certificate authority.")
]
TlsCert = Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="Our certificate.")]
TlsKey = Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's key.")]


def certificates(ca: Path | None, certificate: Path | None, key: Path | None) -> Certificates | None:
    """The three files, or none of them; raises UsageError."""
    from builder.cluster import Certificates

    if ca is None and certificate is None and key is None:
        return None
    if ca is None or certificate is None or key is None:
        raise UsageError(
            "of the cluster's certificates one is missing", hint="--tls-ca, --tls-cert, --tls-key"
        )
    for file in (ca, certificate, key):
        if not file.is_file():
            raise UsageError(f"there is no file {file}")
    return Certificates(ca, certificate, key)


@contextlib.contextmanager
def elsewhere(
    tools: ReleaseTools, engines: Sequence[str], address: str, files: Certificates | None
) -> Iterator[tuple[Elsewhere, int]]:
    """Have images made on a cluster; also gives how many at once it can take.

    Raises UsageError or ToolError when the cluster or the database does not fit.
    """
    from builder.cluster import connect
    from builder.pipeline.remote import Elsewhere, Order

    workshop = tools.workshop
    database = tools.source or ""
    if "@sha256:" not in database:
        raise UsageError(
            "workers take the vulnerability database from our registry, and none is pinned there",
            hint="goldsmith db sync",
        )
    assembler = None
    with contextlib.suppress(LockError, ToolError):  # then checks in a container are reported as not run
        assembler = workshop.assembler_section()

    def order(chain: tuple[Prepared, ...], digests: Mapping[str, Digest]) -> Order:
        return Order(
            chain=chain,
            digests=digests,
            engines=tuple(engines),
            assembler=assembler,
            registry=workshop.settings.registry,
            database=database,
            age_days_max=tools.policy.data.database.age_days_max,
            now=workshop.settings.now,
        )

    with connect(address, files) as cluster:
        hands = Elsewhere(workshop.store, order, lambda one: cluster.submit(carry_out, one), cluster.cancel)
        yield hands, 2 * cluster.threads


@dataclass(frozen=True)
class _Assay:
    """What a worker gathers evidence with."""

    check: Callable[[Target, PlatformImage], CheckReport | NotDone]
    scan: Callable[[Target, PlatformImage, Path], tuple[ScanReport, Sboms]]
    lint: Callable[[BuildContext], LintReport | NotDone]


def carry_out(order: Order) -> Made:
    """A worker's part of a run. Its own settings say where its state, mirror and scanner are.

    Raises UsageError when two workers share a state directory, and what the pipeline raises.
    """
    from builder.cli.wiring import Workshop, client_of
    from builder.model.catalogue import Catalogue
    from builder.pipeline import remote
    from builder.settings import Settings
    from builder.stages.scan import scan
    from builder.store import Store
    from builder.tools import hadolint, trivy
    from builder.tools.trivy_db import open_database

    found = Settings.load(needs_catalogue=False)
    settings = replace(found, registry=order.registry, now=order.now)
    workshop = Workshop(
        settings, Catalogue(settings.catalogue, {}, {}), Store(settings.state), order.assembler
    )
    environment = settings.child_environment
    with workshop.store.exclusive("a goldsmith worker"):
        database = open_database(
            workshop.store, order.database, now=order.now, age_days_max=order.age_days_max
        )
        scanner = trivy.locate(settings.trivy_binary, environment)
        linter = hadolint.locate(settings.hadolint_binary, environment)
        tools = _Assay(
            check=workshop.check,
            scan=lambda target, image, work: scan(
                image,
                name=target.ref,
                database=database,
                trivy=scanner,
                work=work,
                further=workshop.extensions.scanners,
            ),
            lint=lambda context: linter.lint(context.files["Dockerfile"], variant=context.lock.variant),
        )
        client = client_of(settings)
        return remote.carry_out(order, workshop.builder(order.engines), tools, client, workshop.store)
