"""Rebuild requests: what a rescan found in a served image, and which version would mend it.

The loop "rescan, then rebuild" closes through these values and not through a call: a rescan
writes them down, the next plan reads them.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.model.digest import Digest
from builder.model.evidence import Severity

_REF = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*:[a-z0-9][a-z0-9.]*(-dev)?")
_WORD = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True, slots=True)
class RebuildRequest:
    """One vulnerability in one package of the image `ref` at `digest`, fixed in `fixed_version`.

    `package` is the binary package's name; `fixed_version` is empty as long as there is no fix; `scanner`
    is that of an extension where only such a one found it.
    Raises ValueError when a field is malformed, so that none of them can be mistaken for another.
    """

    ref: str
    digest: Digest
    vulnerability: str
    package: str
    fixed_version: str
    severity: Severity
    requested_at: dt.datetime
    known_exploited: bool = False
    scanner: str = ""

    def __post_init__(self) -> None:
        if not _REF.fullmatch(self.ref):
            raise ValueError(f"not an image of a catalogue: {self.ref[:80]!r}")
        for word in (self.vulnerability, self.package, self.fixed_version or "-", self.scanner or "-"):
            if not _WORD.fullmatch(word):
                raise ValueError(f"not a name or version: {word[:80]!r}")
        if self.requested_at.tzinfo is None:
            raise ValueError("the time of the request has no time zone")

    @property
    def key(self) -> Digest:
        """What the request is about: the same finding in the same image is one request."""
        return Digest.of_json([self.ref, self.digest, self.vulnerability, self.package])

    def as_dict(self) -> dict[str, Any]:
        """The request as JSON data."""
        return {
            "ref": self.ref,
            "digest": self.digest,
            "vulnerability": self.vulnerability,
            "package": self.package,
            "fixed_version": self.fixed_version,
            "severity": self.severity.value,
            "requested_at": self.requested_at.isoformat(),
            "known_exploited": self.known_exploited,
            **({"scanner": self.scanner} if self.scanner else {}),
        }

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> RebuildRequest:
        """The request in JSON data; raises ValueError."""
        try:
            texts = {
                k: value[k] for k in ("ref", "vulnerability", "package", "fixed_version", "requested_at")
            }
            if not all(isinstance(text, str) for text in texts.values()):
                raise ValueError("a field is no text")
            return cls(
                ref=texts["ref"],
                digest=Digest(value["digest"]),
                vulnerability=texts["vulnerability"],
                package=texts["package"],
                fixed_version=texts["fixed_version"],
                severity=Severity(value["severity"]),
                requested_at=dt.datetime.fromisoformat(texts["requested_at"]),
                known_exploited=value.get("known_exploited") is True,
                scanner=str(value.get("scanner", "")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no rebuild request: {error!s:.80}") from None
