"""Channels: where an image stands between its publication and its end, and the record that says so."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import StrEnum

from builder.model.digest import Digest


class Channel(StrEnum):
    """Where an image stands. What has no record is a candidate."""

    CANDIDATE = "candidate"
    STABLE = "stable"
    DEPRECATED = "deprecated"
    WITHDRAWN = "withdrawn"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """What was decided of one image (its index digest): its channel from `at` (UTC) on, and why.

    `sequence` and `entry` are the number and the hash of the ledger's entry of this decision; of
    two records the one with the higher number holds. `replacement` is `NAME:TAG@DIGEST`, or empty.
    `immutable_tag` is empty as long as the image was not promoted.
    """

    digest: Digest
    ref: str
    immutable_tag: str
    channel: Channel
    sequence: int
    entry: Digest
    at: dt.datetime
    why: str
    replacement: str = ""
