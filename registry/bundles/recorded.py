"""What came in bundles, as this side remembers it.

Where this side has a verdict key, each image of a bundle is an entry of the signed ledger: who
brought which bundle, with which digests. Where it has none, there is only the record of attempts:
unsigned lines of canonical JSON, each naming the digest of the line before (`previous`). A changed
or missing line shows in the one after it; who may write the file can write all of it anew.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.model.digest import Digest
from builder.signing.keys import RoleSigner
from builder.signing.predicates import timestamp
from registry.audit.ledger import Action, Entry, Fact, Ledger

IMPORTED, UNCHANGED, LEFT_OUT = "imported", "unchanged", "left out"
LINE_MAX = 16 << 10  # bytes
_START = Digest.of(b"")


@dataclass(frozen=True)
class Register:
    """The signed ledger of this side, and who brings something today."""

    ledger: Ledger
    signer: RoleSigner
    who: str
    why: str
    now: dt.datetime

    def enter(self, ref: str, digest: Digest, bundle: Digest) -> Entry:
        """The entry of an image that came in a bundle; one that is there already is not written again.

        Raises LedgerBroken, UsageError and ToolError as the ledger does.
        """
        after = {"source": f"bundle@{bundle}"}
        for entry in self.ledger.entries():
            fact = entry.fact
            if (fact.what, fact.ref, fact.digest, fact.after) == (Action.RECEIVE, ref, digest, after):
                return entry
        return self.ledger.append(
            Fact(self.who, Action.RECEIVE, ref, digest, {}, after, self.why), self.signer, self.now
        )


@dataclass(frozen=True, slots=True)
class Line:
    """An image of a bundle in the unsigned record; `chained` when the line before it is the one it names."""

    at: dt.datetime
    who: str
    ref: str
    digest: Digest
    bundle: str
    outcome: str
    why: str
    chained: bool

    def as_dict(self) -> dict[str, Any]:
        """The line as plain data, beside the entries of a ledger."""
        return {
            "signed": False,
            "chained": self.chained,
            "at": timestamp(self.at),
            "who": self.who,
            "what": Action.RECEIVE.value,
            "ref": self.ref,
            "digest": str(self.digest),
            "after": {"source": f"bundle@{self.bundle}"} if self.bundle else {},
            "outcome": self.outcome,
            "why": self.why,
        }


def unsigned_lines(path: Path) -> Iterator[Line]:
    """The images of bundles that no ledger knows, in their order; none where there is no such record.

    A line that cannot be read is passed over, and shows in the one after it.
    """
    previous = _START
    try:
        handle = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError:
        return
    with handle:
        while raw := handle.readline(LINE_MAX):
            data = raw.removesuffix(b"\n")
            said = _object(data)
            found = _line(said, said.get("previous") == previous)
            previous = Digest.of(data)
            if found is not None:
                yield found


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _line(said: Mapping[str, Any], chained: bool) -> Line | None:
    if said.get("outcome") not in (IMPORTED, LEFT_OUT) or "entry" in said:
        return None
    try:
        at = dt.datetime.fromisoformat(str(said["at"]))
        digest = Digest(str(said["source"]).rpartition("@")[2])
    except (KeyError, ValueError):
        return None
    texts = {k: str(said.get(k, ""))[:500] for k in ("who", "as", "bundle", "outcome", "message", "why")}
    why = texts["message"] if texts["outcome"] == LEFT_OUT else texts["why"]
    return Line(
        at if at.tzinfo else at.replace(tzinfo=dt.UTC),
        texts["who"],
        texts["as"],
        digest,
        texts["bundle"],
        texts["outcome"],
        why,
        chained,
    )
