"""What became of one image in a run: its row in the table, and the state in which it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from builder.errors import GoldsmithError


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """One image's row in the table: `outcome` is `built` or `unchanged`, `stages` are seconds.

    `left_out` are the platforms on which it could not be checked here.
    """

    ref: str
    digest: str
    outcome: str
    approved: bool
    verdict: str
    packages: int
    compressed_bytes: int
    findings: Mapping[str, int]
    reference: str = ""
    engines: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)
    explanation: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The row as plain data."""
        return {
            "ref": self.ref,
            "digest": self.digest,
            "outcome": self.outcome,
            "approved": self.approved,
            "verdict": self.verdict,
            "packages": self.packages,
            "compressed_bytes": self.compressed_bytes,
            "findings": dict(self.findings),
            "reference": self.reference,
            "engines": list(self.engines),
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "explanation": list(self.explanation),
            "left_out": list(self.left_out),
        }


class ImageState(StrEnum):
    """How an image ended; there is no image without one."""

    BUILT = "built"
    UNCHANGED = "unchanged"
    DENIED = "denied"
    FAILED = "failed"
    SKIPPED = "skipped"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class ImageEnd:
    """The end of one image: what it came to, or its error; `because` names what kept it back."""

    ref: str
    state: ImageState
    outcome: ImageOutcome | None = None
    error: GoldsmithError | None = None
    because: str = ""

    def __str__(self) -> str:
        return f"{self.ref} {self.state.value}" + (f" because of {self.because}" if self.because else "")

    def as_dict(self) -> dict[str, object]:
        """The end as JSON data."""
        return {"ref": self.ref, "state": self.state.value, "because": self.because or None}
