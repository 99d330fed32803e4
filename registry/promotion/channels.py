"""The state machine of channels: which decision may follow which. Pure.

candidate → stable → deprecated → withdrawn; quarantine from any. There is one way to `stable`: as
a candidate, through a promotion; and one way back to it, a rollback to what was replaced. What was
withdrawn or put into quarantine comes back only as a candidate again, since a reproducible build
gives the same digest whenever its input is the same.
"""

from __future__ import annotations

from collections.abc import Mapping

from builder.errors import PolicyDenied
from builder.model.channel import Channel

MOVES: Mapping[Channel, frozenset[Channel]] = {
    Channel.CANDIDATE: frozenset({Channel.STABLE, Channel.QUARANTINE}),
    Channel.STABLE: frozenset({Channel.DEPRECATED, Channel.WITHDRAWN, Channel.QUARANTINE}),
    Channel.DEPRECATED: frozenset({Channel.WITHDRAWN, Channel.QUARANTINE}),
    Channel.WITHDRAWN: frozenset({Channel.QUARANTINE}),
    Channel.QUARANTINE: frozenset({Channel.CANDIDATE, Channel.WITHDRAWN}),
}
SERVED = frozenset({Channel.STABLE, Channel.DEPRECATED})


class IllegalMove(PolicyDenied):
    """A channel does not lead to the one that was asked for."""


def move(now: Channel, wanted: Channel) -> Channel:
    """The channel after the move; raises IllegalMove, which names the moves that there are."""
    if wanted in MOVES[now]:
        return wanted
    way = _way(now, wanted)
    raise IllegalMove(
        f"{now} does not lead to {wanted}",
        context=f"from {now}: {', '.join(sorted(MOVES[now]))}",
        hint=f"the way is {' → '.join(way)}" if len(way) > 2 else "it is there already",
    )


def back(now: Channel) -> Channel:
    """The channel after a rollback: what is still served can be what is recommended again.

    Raises IllegalMove for anything else.
    """
    return Channel.STABLE if now in SERVED else move(now, Channel.STABLE)


def _way(now: Channel, wanted: Channel) -> tuple[Channel, ...]:
    """The shortest way; just the start when it ends there."""
    ways: list[tuple[Channel, ...]] = [(now,)]
    for way in ways:
        if way[-1] is wanted:
            return way
        ways += [(*way, step) for step in sorted(MOVES[way[-1]]) if step not in way]
    return (now,)
