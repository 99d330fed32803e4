"""What was approved, kept on disk: a restart needs neither the storage nor the whole verification.

One file for each image: a line of JSON, then the manifests' bytes one after the other. The file
is as trusted as the public keys beside it; nevertheless the verdict's signature, the digests of
all manifests, and that they belong together are proved again when it is read (`prove_again`).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.signing.trust import Trust
from builder.store import write_atomically
from registry.gate.admission import prove_again
from registry.gate.decision import Approved, Held

_VERSION = 1
_FILE_MAX = 256 << 20  # bytes


class Proofs:
    """The folder of proofs of one gate; without one (`None`) nothing outlives the process."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._newest: dict[Digest, dt.datetime] = {}
        self._written: dict[tuple[str, Digest], tuple[dt.datetime, str, tuple[str, ...]]] = {}

    def seen(self, digest: Digest) -> dt.datetime | None:
        """The newest time of a verdict that was believed on an image."""
        return self._newest.get(digest)

    def save(self, approved: Approved, tags: Sequence[str]) -> None:
        """Keep an approval and the tags that lead to it; a disk that is full is no reason to stop."""
        self._newest[approved.index] = max(
            approved.issued_at, self._newest.get(approved.index, approved.issued_at)
        )
        state = (approved.issued_at, approved.mark, tuple(sorted(tags)))
        key = (approved.repository, approved.index)
        if self._folder is None or self._written.get(key) == state:
            return
        with contextlib.suppress(OSError, ToolError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._path(*key), encode(approved, tags))
            self._written[key] = state

    def drop(self, repository: str, digest: Digest) -> None:
        """Forget an approval."""
        self._written.pop((repository, digest), None)
        if self._folder is not None:
            with contextlib.suppress(OSError):
                self._path(repository, digest).unlink(missing_ok=True)

    def load(self, trust: Trust) -> Iterator[tuple[Approved, tuple[str, ...]]]:
        """All approvals that still prove themselves; what does not is removed."""
        if self._folder is None or not self._folder.is_dir():
            return
        for path in self._folder.iterdir():
            found = _read(path)
            if found is None or path != self._path(found[0].repository, found[0].index):
                found = None
            if found is None or not _proved(found[0], trust):
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            approved, tags = found
            known = self._newest.get(approved.index, approved.issued_at)
            self._newest[approved.index] = max(approved.issued_at, known)
            state = (approved.issued_at, approved.mark, tuple(sorted(tags)))
            self._written[approved.repository, approved.index] = state
            yield approved, tags

    def _path(self, repository: str, digest: Digest) -> Path:
        name = Digest.of(f"{repository}@{digest}".encode()).hex
        return (self._folder or Path()) / name


def encode(approved: Approved, tags: Sequence[str]) -> bytes:
    """An approval as a file."""
    head = {
        "version": _VERSION,
        "repository": approved.repository,
        "index": approved.index,
        "ref": approved.ref,
        "issued": approved.issued_at.isoformat(),
        "expires": approved.expires_at.isoformat(),
        "end_of_life": approved.end_of_life.isoformat() if approved.end_of_life else None,
        "tags": list(tags),
        "cosign": dict(approved.tags),
        "manifests": [[h.digest, h.media_type, len(h.data), dict(h.blobs)] for h in approved.manifests],
        "referrers": {
            subject: [[d.digest, d.media_type, d.size, d.artifact_type, dict(d.annotations)] for d in listed]
            for subject, listed in approved.referrers.items()
        },
        "payload": approved.envelope[0].decode("latin-1"),
        "signature": approved.envelope[1].hex(),
        "mark": approved.mark,
        "deprecated": approved.deprecated,
    }
    return json.dumps(head).encode() + b"\n" + b"".join(h.data for h in approved.manifests)


def decode(data: bytes) -> tuple[Approved, tuple[str, ...]]:
    """The approval in a file; raises ValueError, KeyError or TypeError when it is none."""
    line, _, rest = data.partition(b"\n")
    head: dict[str, Any] = json.loads(line)
    if head["version"] != _VERSION:
        raise ValueError("another version")
    manifests, at = [], 0
    for digest, media_type, size, blobs in head["manifests"]:
        # Not looked at one by one: manifests are hashed when they are proved again.
        named = {str.__new__(Digest, b): n for b, n in blobs.items()}
        manifests.append(Held(str.__new__(Digest, digest), media_type, rest[at : at + size], named))
        at += size
    if at != len(rest):
        raise ValueError("another length")
    end = head["end_of_life"]
    approved = Approved(
        repository=str(head["repository"]),
        index=Digest(head["index"]),
        ref=str(head["ref"]),
        issued_at=dt.datetime.fromisoformat(head["issued"]),
        expires_at=dt.datetime.fromisoformat(head["expires"]),
        end_of_life=dt.date.fromisoformat(end) if end else None,
        manifests=tuple(manifests),
        tags={t: str.__new__(Digest, d) for t, d in head["cosign"].items()},
        referrers={
            Digest(subject): tuple(
                Descriptor(k, str.__new__(Digest, d), n, notes, kind) for d, k, n, kind, notes in listed
            )
            for subject, listed in head["referrers"].items()
        },
        envelope=(head["payload"].encode("latin-1"), bytes.fromhex(head["signature"])),
        mark=str(head["mark"]),
        deprecated=str(head["deprecated"]),
    )
    return approved, tuple(str(t) for t in head["tags"])


def _proved(approved: Approved, trust: Trust) -> bool:
    try:
        return prove_again(approved, trust)
    except (ValueError, KeyError, TypeError, AttributeError):
        return False


def _read(path: Path) -> tuple[Approved, tuple[str, ...]] | None:
    try:
        if path.stat().st_size > _FILE_MAX:
            return None
        return decode(path.read_bytes())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
