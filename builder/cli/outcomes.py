"""How the results of a run are shown, and what exit code they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from builder.errors import GoldsmithError, PolicyDenied
from builder.model.outcome import ImageOutcome
from builder.report import emit, table

if TYPE_CHECKING:
    from builder.pipeline.run import Failure

_COLUMNS = (
    "image",
    "digest",
    "outcome",
    "engines",
    "packages",
    "size",
    "findings",
    "verdict",
    "signature",
    "seconds per stage",
)
_DIGEST_SHOWN = 19  # characters: the algorithm and 12 digits


def show(title: str, outcomes: Sequence[ImageOutcome], signatures: dict[str, str] | None = None) -> None:
    """Print one row an image: what it is, what was found, and where the time went."""
    rows = [
        (
            o.ref,
            o.digest[:_DIGEST_SHOWN],
            o.outcome,
            " = ".join(o.engines),
            str(o.packages),
            f"{o.compressed_bytes / 1e6:.1f} MB",
            findings(o),
            o.verdict,
            (signatures or {}).get(o.ref, "signed" if o.reference else "none"),
            seconds(o),
        )
        for o in outcomes
    ]
    if rows:
        table(title, _COLUMNS, rows)
    for o in outcomes:
        for platform in o.left_out:
            emit(f"{o.ref}: {platform} is left out, since its checks cannot run here (goldsmith doctor)")


def findings(outcome: ImageOutcome) -> str:
    """The findings by severity, worst first; the zeros are left out."""
    found = [f"{count} {severity.lower()}" for severity, count in outcome.findings.items() if count]
    return ", ".join(found) or "none"


def seconds(outcome: ImageOutcome) -> str:
    """The seconds of each stage that ran."""
    return ", ".join(f"{name} {took:.1f}" for name, took in outcome.stages.items()) or "-"


def stop_for(outcomes: Sequence[ImageOutcome], failures: Sequence[Failure], silent: bool) -> None:
    """Leave with the exit code that the results mean: a failure's own, or 4 for a denial.

    Raises GoldsmithError, or typer.Exit when everything was already printed (`silent`).
    """
    denied = [o for o in outcomes if not o.approved]
    error: GoldsmithError | None = None
    if denied:
        error = PolicyDenied(
            f"{', '.join(o.ref for o in denied)}: denied, nothing was published",
            context="\n".join(line for o in denied for line in o.explanation),
            hint=f"goldsmith why {denied[0].ref}",
        )
    elif failures:
        error = failures[0].error
    others = [f for f in failures if f.error is not error]
    if not silent:
        for failure in others:
            emit(f"{failure.ref}: {failure.error.message}")
    if error is not None:
        if silent:
            raise typer.Exit(error.exit_code)
        raise error
