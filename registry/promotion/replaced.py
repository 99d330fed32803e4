"""What a promotion leaves behind: the images whose tag has moved on. Pure, from the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from builder.model.channel import Channel
from builder.model.digest import Digest
from registry.audit.ledger import Action, Entry


@dataclass(frozen=True, slots=True)
class Replaced:
    """An image that is stable still although its tag points to another one: `by`."""

    ref: str
    digest: Digest
    by: Digest

    @property
    def replacement(self) -> str:
        """The image to use instead, as a decision names it."""
        return f"{self.ref}@{self.by}"


def replaced(entries: Sequence[Entry]) -> tuple[Replaced, ...]:
    """Every stable image of a tag that another one has taken since, by a promotion.

    After a rollback nothing counts as replaced: somebody is still deciding.
    """
    channels: dict[Digest, tuple[str, str]] = {}
    newest: dict[str, Entry] = {}
    for entry in entries:
        fact = entry.fact
        if "channel" in fact.after:
            channels[fact.digest] = (fact.after["channel"], fact.ref)
        if "tagDigest" in fact.after:
            newest[fact.ref] = entry
    found = []
    for digest, (channel, ref) in channels.items():
        last = newest.get(ref)
        if channel != Channel.STABLE or last is None or last.fact.what is not Action.PROMOTE:
            continue
        by = Digest(last.fact.after["tagDigest"])
        if by != digest:
            found.append(Replaced(ref, digest, by))
    return tuple(found)


def rolled_back(entries: Sequence[Entry], ref: str, digest: Digest) -> Entry | None:
    """The rollback that took a tag away from this very image, if the tag was not promoted since."""
    of_tag = [e for e in entries if e.fact.ref == ref and "tagDigest" in e.fact.after]
    for entry in reversed(of_tag):
        if entry.fact.what is not Action.ROLLBACK:
            return None
        if entry.fact.before.get("tagDigest") == digest:
            return entry
    return None
