"""What became of one image in a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """One image's row in the table: `outcome` is `built` or `unchanged`, `stages` are seconds."""

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
        }
