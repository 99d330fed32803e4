"""Who an extension is: what a policy's digest, verdicts, provenances and the ledger say of it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass

from builder.model.digest import Digest

# As names and versions of Python distributions are (their core metadata specification), with bounds.
NAME, VERSION = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}"


@dataclass(frozen=True, slots=True)
class ExtensionIdentity:
    """One part of an extension: its kind (rule, check, step, scanner), its id, and its package.

    `digest` is that of the package's files. Raises ValueError when a text is none that may travel.
    """

    kind: str
    id: str
    package: str
    version: str
    digest: Digest

    def __post_init__(self) -> None:
        for text, grammar in ((self.package, NAME), (self.version, VERSION)):
            if not re.fullmatch(grammar, text):
                raise ValueError(f"no package has the name or version {text[:80]!r}")

    @property
    def release(self) -> str:
        """The package with its version and digest, without blanks."""
        return f"{self.package}=={self.version}@{self.digest}"

    def as_dict(self) -> dict[str, str]:
        """The identity as plain data."""
        return {**asdict(self), "digest": str(self.digest)}

    def __str__(self) -> str:
        return f"{self.kind} {self.id} of {self.package} {self.version}"
