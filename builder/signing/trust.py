"""The public keys that verification believes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from builder.errors import UsageError
from builder.signing.keys import APPROVER, BUILDER, VERDICT, PublicKey, distinct, load_public


@dataclass(frozen=True, slots=True)
class Trust:
    """One public key per role; raises UsageError when two roles share one.

    `approver` is None where nobody approves.
    """

    builder: PublicKey
    verdict: PublicKey
    approver: PublicKey | None = None

    def __post_init__(self) -> None:
        distinct(key for key in (self.builder, self.verdict, self.approver) if key)

    @classmethod
    def load(cls, folder: Path) -> Trust:
        """Read `builder.pub`, `verdict.pub` and, where there is one, `approver.pub`.

        Raises UsageError when one is missing or unusable.
        """
        approver = load_public(folder, APPROVER) if (folder / f"{APPROVER}.pub").exists() else None
        return cls(load_public(folder, BUILDER), load_public(folder, VERDICT), approver)

    def of(self, role: str) -> PublicKey:
        """The key of a role; raises UsageError when there is none."""
        key = self._find(role)
        if key is None:
            raise UsageError(
                f"there is no public key of the role {role!r}", hint="`goldsmith init` makes one"
            )
        return key

    def verifies(self, role: str, signature: bytes, data: bytes, at: dt.datetime) -> bool:
        """Whether `signature` (DER) over `data`, said to be made at `at`, is by a key of `role`."""
        key = self._find(role)
        return key is not None and key.verifies(signature, data)

    def _find(self, role: str) -> PublicKey | None:
        return {BUILDER: self.builder, VERDICT: self.verdict, APPROVER: self.approver}.get(role)
