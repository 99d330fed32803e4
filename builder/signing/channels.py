"""The channel record as a predicate: written from a ChannelRecord, and read back strictly."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest, canonical_json
from builder.signing.predicates import text, timestamp
from builder.signing.refusal import quoted, refuse

_FIELDS = {
    "digest",
    "ref",
    "immutableTag",
    "channel",
    "sequence",
    "entry",
    "at",
    "why",
    "replacement",
}
_WHAT = "channel record"
_TEXT_MAX = 1000  # characters


def encode(record: ChannelRecord) -> bytes:
    """The predicate of a record, as canonical JSON; the time is RFC 3339 UTC to the second."""
    return canonical_json(
        {
            "digest": str(record.digest),
            "ref": record.ref,
            "immutableTag": record.immutable_tag,
            "channel": record.channel.value,
            "sequence": record.sequence,
            "entry": str(record.entry),
            "at": timestamp(record.at),
            "why": record.why,
            "replacement": record.replacement,
        }
    )


def decode(predicate: Mapping[str, Any]) -> ChannelRecord:
    """Read a record back; raises EvidenceRefused for any field missing, unknown or malformed."""
    if set(predicate) != _FIELDS:
        refuse(
            "predicate-malformed",
            "the channel record has missing or unknown fields",
            context=quoted(sorted(set(predicate) ^ _FIELDS)),
        )
    sequence, why, replacement = predicate["sequence"], predicate["why"], predicate["replacement"]
    immutable = predicate["immutableTag"]
    if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 1:
        refuse("predicate-malformed", "the channel record's number is malformed", context=quoted(sequence))
    if not all(isinstance(x, str) and len(x) <= _TEXT_MAX for x in (why, replacement, immutable)):
        refuse("predicate-malformed", "the channel record's texts are malformed")
    try:
        return ChannelRecord(
            digest=Digest(text(predicate, "digest", _WHAT)),
            ref=text(predicate, "ref", _WHAT),
            immutable_tag=immutable,
            channel=Channel(text(predicate, "channel", _WHAT)),
            sequence=sequence,
            entry=Digest(text(predicate, "entry", _WHAT)),
            at=dt.datetime.strptime(text(predicate, "at", _WHAT), "%Y-%m-%dT%H:%M:%SZ").replace(
                tzinfo=dt.UTC
            ),
            why=why,
            replacement=replacement,
        )
    except ValueError as error:
        refuse("predicate-malformed", "the channel record is malformed", context=quoted(str(error)))


def newest(records: Iterable[ChannelRecord], digest: Digest) -> ChannelRecord | None:
    """The record on an image (by its index digest) that holds; None when there is none.

    Raises EvidenceRefused when two different ones have the same number.
    """
    of_it = [r for r in records if r.digest == digest]
    if not of_it:
        return None
    found = max(of_it, key=lambda r: r.sequence)
    if any(r.sequence == found.sequence and r != found for r in of_it):
        refuse("channel-contradicts", "two channel records of the same number differ", context=str(digest))
    return found
