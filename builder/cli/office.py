"""What the commands that decide on images share: the office, and what REF means."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from builder.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from builder.cli.identity import Caller
    from builder.cli.wiring import Workshop
    from builder.model.digest import Digest
    from builder.model.evidence import Finding
    from builder.model.reference import Reference
    from builder.store import Store
    from registry.promotion.office import Office

IMPORT_POLICY = "import"  # what images that others made are judged by


@contextlib.contextmanager
def open_office(policy: str | None = None) -> Iterator[tuple[Workshop, Office, Caller]]:
    """The catalogue, an office that nobody else decides in meanwhile, and who decides.

    `policy` is another one than the settings name.
    """
    from builder.cli.audit import ledger_folder
    from builder.cli.identity import approvers, caller
    from builder.cli.releasing import ReleaseTools
    from builder.cli.wiring import Workshop, folder_of
    from builder.pipeline.history import reasons_of
    from registry.audit.ledger import Ledger
    from registry.promotion.office import Office, deciding

    workshop = Workshop.open()
    settings, store = workshop.settings, workshop.store.create()
    tools = ReleaseTools(workshop, policy or settings.policy, settings.trivy_db)
    folder = ledger_folder(store)
    who = caller(settings, store)
    with deciding(folder), _work(folder) as work:
        yield (
            workshop,
            Office(
                client=tools.client,
                keys=tools.keys,
                trust=tools.trust,
                ledger=Ledger(folder, tools.trust),
                policy=tools.policy,
                who=who.name,
                now=settings.now,
                hosts=tuple(dict.fromkeys((settings.registry, settings.mirror))),
                work=work,
                approvers=approvers(who, store),
                near=folder_of(settings),
                reasons=lambda digest: reasons_of(store, digest),
                known=lambda digest: _known(store, digest),
            ),
            who,
        )


def _known(store: Store, image: Digest) -> Mapping[str, tuple[Finding, ...]] | None:
    """What the index knows of an image; the database's library is only loaded where there is one."""
    from builder.cli.knowledge import index_place

    if not (store.root / "index").is_dir():
        return None
    from registry.index.queries import findings_of

    path = index_place(store).current()
    return findings_of(path, image) if path else None


@contextlib.contextmanager
def _work(folder: Path) -> Iterator[Path]:
    """A folder for what is on its way; what a killed run left is taken away."""
    import shutil
    import tempfile
    from pathlib import Path

    for leftover in folder.glob("work-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="work-") as work:
        yield Path(work)


def image_reference(text: str, workshop: Workshop, prefix: str) -> Reference:
    """REF in the registry: in the candidates' repositories with `prefix`, else in the consumers'."""
    from builder.model.reference import Reference
    from registry.promotion.office import home_of

    host = workshop.settings.registry
    try:
        found = Reference.parse(text, default_host=host)
    except ValueError as error:
        raise UsageError(
            "not a reference", context=str(error), hint="python:3.13, or python@sha256:…"
        ) from None
    if found.host != host:
        raise UsageError(f"{found} is not in the registry {host}", hint="set GOLDSMITH_REGISTRY to it")
    name, tag = home_of(found.name), found.tag
    if tag is None and found.digest is None:
        tag = workshop.catalogue.find(name).tag
    return Reference(host, prefix + name, tag, found.digest)


def candidate(ref: str, workshop: Workshop, office: Office) -> tuple[Reference, Office]:
    """REF where it came into the registry, and the office that decides on it.

    What is no image of the catalogue was imported: it came into quarantine, and has a policy of its own.
    """
    from dataclasses import replace

    from builder.cli.releasing import ReleaseTools
    from registry.promotion.office import CANDIDATES, QUARANTINES

    if image_reference(ref, workshop, "").name in workshop.catalogue.definitions:
        return image_reference(ref, workshop, f"{CANDIDATES}/"), office
    tools = ReleaseTools(workshop, IMPORT_POLICY, None)
    return image_reference(ref, workshop, f"{QUARANTINES}/"), replace(office, policy=tools.policy)
