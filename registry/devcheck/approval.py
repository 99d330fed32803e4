"""Which published images count as approved: the one place that knows of the channels.

Until images are promoted to channels, a published candidate is the approved image: nothing gets
into `candidate/` without a policy's approval, and each one is verified when it is read.
"""

from __future__ import annotations

from registry.devcheck.known import Channel, Image

_REPOSITORY = "candidate/"
_SERVED = ("candidate", "stable", "deprecated")


def channel_of(repository: str) -> Channel | None:
    """The channel of a repository's images; None when developers are not meant to use it."""
    return "candidate" if repository.startswith(_REPOSITORY) else None


def approved(image: Image) -> bool:
    """Whether the image may be written into a file."""
    return image.channel in _SERVED and not image.refused
