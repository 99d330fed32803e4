"""An approval as it is kept on disk: a head that is read at start, a body that is read at first use.

The head says what look-ups need: names, digests, times. The body is a line of JSON, then the
manifests' bytes one after the other. Nothing of either is served before the body was proved
(`prove_again`), and what is served then comes from the body alone.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.signing.trust import Use
from registry.gate.decision import Approved, Held

_VERSION = 3


class Kept:
    """An approval of an earlier process that was not proved yet; see `Approved` for the fields.

    `manifests`, `blobs` and `subjects` are digests as the head lists them. `refused` tells that the
    body did not prove itself: then the image has to be admitted anew.
    """

    __slots__ = (
        "_approved",
        "_prove",
        "_uses",
        "blobs",
        "cosign",
        "expires_at",
        "index",
        "issued_at",
        "manifests",
        "mark",
        "refused",
        "repository",
        "subjects",
        "tags",
    )

    def __init__(self, head: Mapping[str, Any], prove: Callable[[str, Digest], Approved | None]) -> None:
        """Raises ValueError, KeyError or TypeError when `head` is none."""
        self.repository, self.index = str(head["repository"]), Digest(head["index"])
        self.issued_at = dt.datetime.fromisoformat(head["issued"])
        self.expires_at = dt.datetime.fromisoformat(head["expires"])
        self.mark = str(head["mark"])
        self.tags = tuple(_texts(head["tags"]))
        self.cosign: Mapping[str, Digest] = dict(
            zip(head["cosign"], _texts(head["cosign"].values()), strict=True)
        )
        self.manifests: Sequence[Digest] = _texts(head["manifests"])
        self.blobs: Sequence[Digest] = _texts(head["blobs"])
        self.subjects: Sequence[Digest] = _texts(head["subjects"])
        self._uses = [(str(k), str(at), bool(dated)) for k, at, dated in head["uses"]]
        self.refused = False
        self._prove = prove
        self._approved: Approved | None = None

    @property
    def digests(self) -> frozenset[Digest]:
        """Its manifests."""
        return frozenset(self.manifests)

    @property
    def uses(self) -> frozenset[Use]:
        """The keys that its evidence rests on."""
        return _uses(self._uses)

    def approved(self) -> Approved | None:
        """The approval, proved when it is asked for first; None when it does not prove itself."""
        if self._approved is None and not self.refused:
            self._approved = self._prove(self.repository, self.index)
            self.refused = self._approved is None
        return self._approved


def _texts(values: Iterable[Any]) -> list[Any]:
    """Not looked at one by one as digests: what is served comes from the body."""
    found = list(values)
    if not all(type(value) is str for value in found):
        raise TypeError("not a list of texts")
    return found


def _plain(uses: Iterable[Use]) -> list[list[Any]]:
    return sorted([u.key, u.at.isoformat(), u.dated] for u in uses)


def _uses(listed: Iterable[Sequence[Any]]) -> frozenset[Use]:
    return frozenset(Use(str(k), dt.datetime.fromisoformat(at), bool(dated)) for k, at, dated in listed)


def encode_head(approved: Approved, tags: Sequence[str]) -> bytes:
    """What look-ups need of an approval, and the tags that lead to it."""
    return json.dumps(
        {
            "repository": approved.repository,
            "index": approved.index,
            "issued": approved.issued_at.isoformat(),
            "expires": approved.expires_at.isoformat(),
            "mark": approved.mark,
            "tags": list(tags),
            "cosign": dict(approved.tags),
            "manifests": [h.digest for h in approved.manifests],
            "blobs": sorted({b for h in approved.manifests for b in h.blobs}),
            "subjects": list(approved.referrers),
            "uses": _plain(approved.uses),
        }
    ).encode()


def encode_body(approved: Approved) -> bytes:
    """The whole approval."""
    head = {
        "version": _VERSION,
        "repository": approved.repository,
        "index": approved.index,
        "ref": approved.ref,
        "issued": approved.issued_at.isoformat(),
        "expires": approved.expires_at.isoformat(),
        "end_of_life": approved.end_of_life.isoformat() if approved.end_of_life else None,
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
        "uses": _plain(approved.uses),
    }
    return json.dumps(head).encode() + b"\n" + b"".join(h.data for h in approved.manifests)


def decode_body(data: bytes) -> Approved:
    """The approval in a body; raises ValueError, KeyError or TypeError when it is none."""
    line, _, rest = data.partition(b"\n")
    head: dict[str, Any] = json.loads(line)
    if head["version"] != _VERSION:
        raise ValueError("another version")
    manifests, at = [], 0
    for digest, media_type, size, blobs in head["manifests"]:
        named = {Digest(b): int(n) for b, n in blobs.items()}
        manifests.append(Held(Digest(digest), str(media_type), rest[at : at + size], named))
        at += size
    if at != len(rest):
        raise ValueError("another length")
    end = head["end_of_life"]
    return Approved(
        repository=str(head["repository"]),
        index=Digest(head["index"]),
        ref=str(head["ref"]),
        issued_at=dt.datetime.fromisoformat(head["issued"]),
        expires_at=dt.datetime.fromisoformat(head["expires"]),
        end_of_life=dt.date.fromisoformat(end) if end else None,
        manifests=tuple(manifests),
        tags={str(t): Digest(d) for t, d in head["cosign"].items()},
        referrers={
            Digest(subject): tuple(
                Descriptor(k, Digest(d), n, notes, kind) for d, k, n, kind, notes in listed
            )
            for subject, listed in head["referrers"].items()
        },
        envelope=(head["payload"].encode("latin-1"), bytes.fromhex(head["signature"])),
        mark=str(head["mark"]),
        deprecated=str(head["deprecated"]),
        uses=_uses(head["uses"]),
    )
