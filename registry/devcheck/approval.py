"""Which published images developers may use: the one place that knows of the channels.

What was promoted is in a repository of its own (`python`), and its newest channel record says where
it stands. A candidate (`candidate/python`) counts as approved as long as nothing of that name was
promoted: nothing gets there without a policy's approval, and each one is verified when it is read.
"""

from __future__ import annotations

from collections.abc import Collection

from builder.model.channel import Channel as Decided
from builder.model.channel import ChannelRecord
from registry import changes
from registry.devcheck.known import Channel, Image

_CANDIDATES, _QUARANTINES = "candidate/", "quarantine/"
_SERVED = ("candidate", "stable", "deprecated")
_NAMES: dict[Decided, Channel] = {
    Decided.CANDIDATE: "candidate",
    Decided.STABLE: "stable",
    Decided.DEPRECATED: "deprecated",
    Decided.WITHDRAWN: "withdrawn",
    Decided.QUARANTINE: "quarantine",
}


def for_developers(repository: str, repositories: Collection[str]) -> bool:
    """Whether a repository, among all of a registry, is one that developers pull from."""
    if repository.startswith(_QUARANTINES):
        return False
    if not repository.startswith(_CANDIDATES):
        return repository not in changes.OWN
    return repository.removeprefix(_CANDIDATES) not in repositories


def channel_of(repository: str, record: ChannelRecord | None) -> Channel | None:
    """The channel of an image with that newest record; None when it was never promoted."""
    if record is not None:
        return _NAMES[record.channel]
    return "candidate" if repository.startswith(_CANDIDATES) else None


def approved(image: Image) -> bool:
    """Whether the image may be written into a file."""
    return image.channel in _SERVED and not image.refused
