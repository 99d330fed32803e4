"""Who wants to be told what: `notify.yaml` of the catalogue. Pure.

Targets are names; their addresses hold secrets and come from the settings
(`GOLDSMITH_NOTIFY_NAME`), never from the catalogue.
"""

from __future__ import annotations

import fnmatch
from typing import Annotated, Literal

from pydantic import Field

from builder.model.definition import Name, PlainText, Strict
from builder.model.evidence import Severity
from registry.notify.events import Event, Kind

FILE = "notify.yaml"
EVERYBODY_ELSE = "*"
_ORDER = {severity: number for number, severity in enumerate(Severity)}

Targets = Annotated[tuple[Name, ...], Field(min_length=1, max_length=20)]
ImagePattern = Annotated[str, Field(pattern=r"^[a-z0-9*][a-z0-9*-]{0,63}$")]
IdentityName = Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9._@|:/+=$-]{1,255})$")]


class NotifyRule(Strict):
    """Events that match all that is said are told to `to`."""

    events: Annotated[tuple[Kind, ...], Field(min_length=1)]
    images: Annotated[tuple[ImagePattern, ...], Field(min_length=1)] = ("*",)
    owners: tuple[PlainText, ...] = Field((), description="Only images of these owners; by default all.")
    severity: Literal["CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN"] | None = Field(
        None, description="Of events with a severity, only this or a worse one."
    )
    to: Targets

    def wants(self, event: Event, owner: str) -> bool:
        """Whether the rule's targets want to be told; `owner` is the image's."""
        if event.kind not in self.events or (self.owners and owner not in self.owners):
            return False
        if self.severity and event.severity and _ORDER[event.severity] > _ORDER[Severity(self.severity)]:
            return False
        return any(fnmatch.fnmatchcase(event.image, pattern) for pattern in self.images)


class NotifyFile(Strict):
    """`notify.yaml`: the rules, and who is told when a digest that an identity pulled turns bad."""

    schema_version: Literal[1] = Field(alias="schema")
    rules: tuple[NotifyRule, ...] = ()
    pullers: dict[IdentityName, Targets] = Field(
        default_factory=dict, description="Identity (token:web) to targets; * is everybody else."
    )

    def targets(self, event: Event, owner: str) -> tuple[str, ...]:
        """Who is told of an event by the rules."""
        found = (target for rule in self.rules if rule.wants(event, owner) for target in rule.to)
        return tuple(dict.fromkeys(found))

    def targets_of(self, identity: str) -> tuple[str, ...]:
        """Who is told for an identity that pulled."""
        return self.pullers.get(identity) or self.pullers.get(EVERYBODY_ELSE) or ()
