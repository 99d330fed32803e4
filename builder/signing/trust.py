"""The public keys that verification believes: of which role each is, and for what time.

Pure, but for reading the key folder. A signature counts when a key of the right role made it, at a time
at which that key held. The time is what the signed statement says of itself (`dated`). What says
no time takes that of the verdict that rests on it; there only a revocation ends a key, since a
key that was rotated in good order has no private part any more.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from builder.errors import UsageError
from builder.model.digest import Digest
from builder.signing import trustfile
from builder.signing.keys import (
    APPROVER,
    BUILDER,
    ROOT,
    TRUST_FILE,
    VERDICT,
    WITNESS,
    PublicKey,
    distinct,
    load_public,
)
from builder.signing.trustfile import TrustContent, TrustedKey

FILE = TRUST_FILE
REVOKED, OUT_OF_PERIOD, UNKNOWN = "key-revoked", "key-out-of-period", "key-unknown"


class Memory(Protocol):
    """What was seen before of trust files, kept where a file's bringer cannot write."""

    def newest(self, root: Digest) -> tuple[int, str]:
        """The highest version signed by that root and its digest; (0, "") when none was seen."""

    def remember(self, root: Digest, version: int, digest: str) -> None:
        """Keep a version."""


@dataclass(frozen=True, slots=True)
class Use:
    """That something rests on a key (`key` is its id), for the time `at`.

    `dated` when the signed statement says that time itself.
    """

    key: str
    at: dt.datetime
    dated: bool


@dataclass(frozen=True, slots=True)
class Trust:
    """All keys that are believed; `version` is the trust file's, 0 where there is none.

    After `expires` nothing new is verified with them (`require_current`).
    """

    keys: tuple[TrustedKey, ...]
    version: int = 0
    expires: dt.datetime | None = None

    def __post_init__(self) -> None:
        distinct(k.key for k in self.keys)

    @classmethod
    def of(cls, *keys: PublicKey) -> Trust:
        """Keys that hold for all times; raises UsageError when two roles share one."""
        return cls(tuple(TrustedKey(key) for key in keys))

    @classmethod
    def load(cls, folder: Path, memory: Memory | None = None) -> Trust:
        """The keys of a folder: those of `trust.json`, signed by `root.pub`, where there is one.

        Otherwise `builder.pub`, `verdict.pub` and, where there are any, `approver.pub` and
        `witness.pub` hold for all times. With a memory, an older trust file than one that was seen
        before is refused. Raises UsageError when a file is missing or unusable, TrustRefused when
        the trust file is bad.
        """
        content = load_content(folder, memory)
        if content is not None:
            return cls(content.keys, content.version, content.expires)
        others = (role for role in (APPROVER, WITNESS) if (folder / f"{role}.pub").exists())
        return cls.of(*(load_public(folder, role) for role in (BUILDER, VERDICT, *others)))

    def current(self, role: str) -> PublicKey:
        """The newest key of a role that was not revoked; raises UsageError when there is none."""
        of_role = [k for k in self.keys if k.role == role and k.revoked_at is None]
        if not of_role:
            raise UsageError(
                f"there is no public key of the role {role!r}",
                hint=f"`goldsmith keys rotate {role}` makes one"
                if self.version
                else "`goldsmith init` makes one",
            )
        # Stable for equal times: what stands last in the file is the newest.
        return max(reversed(of_role), key=lambda k: k.not_before or _EVER).key

    def believed(self, role: str) -> tuple[PublicKey, ...]:
        """All keys of a role that were not revoked, the newest first; raises as `current`.

        For verifiers that know no periods: what a key signed in its time stays valid.
        """
        newest = self.current(role)
        return (
            newest,
            *(k.key for k in self.keys if k.role == role and not k.revoked_at and k.key != newest),
        )

    def find(self, role: str, signature: bytes, data: bytes) -> TrustedKey | None:
        """The key of a role that made `signature` (DER) over `data`, whether it held or not."""
        for one in reversed(self.keys):
            if one.role == role and one.key.verifies(signature, data):
                return one
        return None

    def verifies(self, role: str, signature: bytes, data: bytes, at: dt.datetime) -> bool:
        """Whether a key of `role` that held at `at` made `signature`; `at` is what `data` says."""
        found = self.find(role, signature, data)
        return found is not None and not found.flaw(at)

    def unrevoked(self, role: str) -> Callable[[bytes, bytes], bool]:
        """Asks whether a signature over bytes that say no time is by a key of `role`; not a revoked one."""

        def believes(signature: bytes, data: bytes) -> bool:
            found = self.find(role, signature, data)
            return found is not None and found.revoked_at is None

        return believes

    def flaw(self, use: Use) -> str:
        """Why something can no longer rest on a key; empty when it can."""
        for one in self.keys:
            if one.id == use.key:
                return one.flaw(use.at, dated=use.dated)
        return UNKNOWN

    def require_current(self, now: dt.datetime) -> None:
        """Pass while the trust file holds; raises TrustRefused after its end."""
        trustfile.refuse_expired(self.expires, now)

    def require(self, signer: PublicKey, at: dt.datetime) -> None:
        """Pass when what `signer` signs at `at` will be believed; raises UsageError otherwise."""
        flaw = self.flaw(Use(signer.id, at, dated=True))
        if flaw:
            raise UsageError(
                f"nobody would believe what {signer.role}.pub verifies: {_SAYS[flaw]}",
                context=f"key {signer.id}, at {at:%Y-%m-%dT%H:%M:%SZ}",
                hint=f"`goldsmith keys list` shows the keys; `goldsmith keys rotate {signer.role}` "
                "completes a rotation that was cut, or makes a new key",
                reference=flaw,
            )


_EVER = dt.datetime.min.replace(tzinfo=dt.UTC)
_SAYS = {
    REVOKED: "that key was revoked",
    OUT_OF_PERIOD: "that key does not hold at this time",
    UNKNOWN: "the trust file does not name that key",
}


def load_content(folder: Path, memory: Memory | None = None) -> TrustContent | None:
    """What the folder's trust file says, verified; None where there is none. Raises as `Trust.load`."""
    path = folder / FILE
    if not path.exists():
        if memory is not None and (folder / f"{ROOT}.pub").exists():
            version, _ = memory.newest(Digest(f"sha256:{load_public(folder, ROOT).id}"))
            if version:
                trustfile.refuse("is gone", f"version {version} was seen before: {path}", "trust-rolled-back")
        return None
    root = load_public(folder, ROOT)
    data = trustfile.read(path)
    content = trustfile.decode(data, root)
    if memory is not None:
        _refuse_older(content, Digest.of(data), Digest(f"sha256:{root.id}"), memory)
    return content


def earliest(uses: Iterable[Use]) -> frozenset[Use]:
    """The same uses, of each key only the outermost times: all that a change of trust can concern."""
    out: dict[tuple[str, bool], list[dt.datetime]] = {}
    for use in uses:
        out.setdefault((use.key, use.dated), []).append(use.at)
    return frozenset(Use(k, at, d) for (k, d), times in out.items() for at in (min(times), max(times)))


def _refuse_older(content: TrustContent, digest: Digest, root: Digest, memory: Memory) -> None:
    version, known = memory.newest(root)
    if content.version < version:
        trustfile.refuse(
            "is an older one than was seen before",
            f"version {content.version}, seen before: {version}",
            "trust-rolled-back",
        )
    if content.version == version and known != digest:
        trustfile.refuse(
            "is another one than was seen under the same version", f"version {version}", "trust-rolled-back"
        )
    if content.version > version:
        memory.remember(root, content.version, digest)
