"""What was done with an image before: the inputs of its last build, and how the last attempts ended."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from builder.model.digest import Digest

_ATTEMPTS_MAX = 50


@dataclass(frozen=True, slots=True)
class Attempt:
    """One build of an input: the digest that it gave, or (without one) why it failed."""

    at: dt.datetime
    input_hash: Digest
    digest: Digest | None = None
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The attempt as JSON data."""
        return {
            "at": self.at.isoformat(),
            "input": self.input_hash,
            "digest": self.digest,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class History:
    """The last finished build's input hash, digest and components; the last release's; the attempts.

    `components` are the parts that the input hash was made of, each by its content, and
    `identity` the parts of the release key: from them a plan can name what changed.
    """

    ref: str
    input_hash: Digest | None = None
    digest: Digest | None = None
    built_at: dt.datetime | None = None
    components: Mapping[str, Any] = field(default_factory=dict)
    identity: Mapping[str, Any] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()

    def built(
        self, at: dt.datetime, input_hash: Digest, digest: Digest, components: Mapping[str, Any]
    ) -> History:
        """The history after a finished build."""
        attempt = Attempt(at, input_hash, digest)
        return replace(
            self._with(attempt), input_hash=input_hash, digest=digest, built_at=at, components=components
        )

    def failed(self, at: dt.datetime, input_hash: Digest, error: str) -> History:
        """The history after a failed one."""
        return self._with(Attempt(at, input_hash, error=error[:500] or "failed"))

    def released(self, identity: Mapping[str, Any]) -> History:
        """The history after a verdict was given with the tools of `identity`."""
        return replace(self, identity=identity)

    def failures(self, input_hash: Digest, since: dt.datetime) -> tuple[Attempt, ...]:
        """The failed attempts at an input since then."""
        return tuple(
            a for a in self.attempts if a.digest is None and a.input_hash == input_hash and a.at >= since
        )

    def changes(self, since: dt.datetime) -> int:
        """How often the image's digest changed since then."""
        digests = [a.digest for a in self.attempts if a.digest and a.at >= since]
        return sum(one != two for one, two in itertools.pairwise(digests)) + bool(digests)

    def attempts_since(self, since: dt.datetime) -> int:
        """How many attempts were made since then."""
        return sum(a.at >= since for a in self.attempts)

    def as_dict(self) -> dict[str, Any]:
        """The history as JSON data."""
        return {
            "ref": self.ref,
            "input": self.input_hash,
            "digest": self.digest,
            "built_at": self.built_at.isoformat() if self.built_at else None,
            "components": dict(self.components),
            "identity": dict(self.identity),
            "attempts": [a.as_dict() for a in self.attempts],
        }

    @classmethod
    def parse(cls, ref: str, value: Mapping[str, Any] | None) -> History:
        """The history in JSON data; what cannot be read is as if nothing had been done."""
        try:
            if not value or value["ref"] != ref:
                return cls(ref)
            components, identity = value["components"], value["identity"]
            return cls(
                ref=ref,
                input_hash=Digest(value["input"]) if value["input"] else None,
                digest=Digest(value["digest"]) if value["digest"] else None,
                built_at=_time(value["built_at"]) if value["built_at"] else None,
                components=components if isinstance(components, dict) else {},
                identity=identity if isinstance(identity, dict) else {},
                attempts=tuple(map(_attempt, value["attempts"])),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            return cls(ref)

    def _with(self, attempt: Attempt) -> History:
        return replace(self, attempts=(*self.attempts, attempt)[-_ATTEMPTS_MAX:])


def _attempt(value: Mapping[str, Any]) -> Attempt:
    digest = Digest(value["digest"]) if value["digest"] else None
    return Attempt(_time(value["at"]), Digest(value["input"]), digest, str(value["error"]))


def _time(value: str) -> dt.datetime:
    time = dt.datetime.fromisoformat(value)
    if time.tzinfo is None:
        raise ValueError("a time without a zone")
    return time
