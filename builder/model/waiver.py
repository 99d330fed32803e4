"""Waivers: findings that people have looked at and accept for a while, as reviewed text.

`images/NAME/waivers.yaml` holds them. Justifications are those of OpenVEX 0.2.0 ("Status
Justifications"): each says why the image is not affected, so the same waiver is true for every
scanner that reads VEX.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from builder.model.definition import PackageName, PlainText, StreamName, Strict, Variant, plain_text
from builder.model.digest import Digest

_WAIVERS_MAX = 1000

Justification = Literal[
    "component_not_present",
    "vulnerable_code_not_present",
    "vulnerable_code_not_in_execute_path",
    "vulnerable_code_cannot_be_controlled_by_adversary",
    "inline_mitigations_already_exist",
]
VulnerabilityId = Annotated[
    str,
    Field(
        pattern=r"^(CVE-\d{4}-\d{4,12}|DSA-\d{1,6}-\d{1,3}|DLA-\d{1,6}-\d{1,3}"
        r"|TEMP-\d{1,10}-[0-9A-F]{6}|GHSA(-[23456789cfghjmpqrvwx]{4}){3})$",
        max_length=64,
    ),
]


class WaiverEntry(Strict):
    """One accepted vulnerability in named packages of this image, until a day."""

    vulnerability: VulnerabilityId = Field(description="One identifier as the scan reports it; no pattern.")
    packages: Annotated[tuple[PackageName, ...], Field(min_length=1, max_length=50)] = Field(
        description="Binary packages, as the scan names them."
    )
    streams: tuple[StreamName, ...] = Field((), description="Only these streams; by default all.")
    variants: tuple[Variant, ...] = Field((), description="Only these variants; by default all.")
    justification: Justification = Field(
        description="Why the image is not affected, in the terms of OpenVEX."
    )
    statement: Annotated[str, Field(min_length=20, max_length=500), AfterValidator(plain_text)] = Field(
        description="The same in words: what was looked at, and what was found."
    )
    owner: PlainText = Field(description="Who asked for it and looks after it.")
    approver: PlainText = Field(description="Who agreed; never the owner.")
    approved: dt.date = Field(description="The day of the approval (UTC), from which on it counts.")
    expires: dt.date = Field(description="The last day (UTC) on which it counts.")

    @model_validator(mode="after")
    def _sound(self) -> WaiverEntry:
        if _person(self.owner) & _person(self.approver):
            raise ValueError("the approver is the owner: somebody else has to agree")
        if self.expires < self.approved:
            raise ValueError("it expires before it was approved")
        for field in ("packages", "streams", "variants"):
            values = getattr(self, field)
            if len(set(values)) != len(values):
                raise ValueError(f"{field} names something twice")
        return self

    def overlaps(self, other: WaiverEntry) -> bool:
        """Whether both accept the same vulnerability somewhere."""
        return (
            self.vulnerability == other.vulnerability
            and bool(set(self.packages) & set(other.packages))
            and _meet(self.streams, other.streams)
            and _meet(self.variants, other.variants)
        )


class WaiversDefinition(Strict):
    """`images/NAME/waivers.yaml`: what is accepted in this image and all that are built on it."""

    schema_version: Literal[1] = Field(alias="schema")
    waivers: Annotated[tuple[WaiverEntry, ...], Field(max_length=_WAIVERS_MAX)]

    @model_validator(mode="after")
    def _no_overlap(self) -> WaiversDefinition:
        for number, one in enumerate(self.waivers):
            for other in self.waivers[:number]:
                if one.overlaps(other):
                    raise ValueError(f"two waivers of {one.vulnerability} overlap: keep one of them")
        return self


@dataclass(frozen=True, slots=True)
class Waiver:
    """A waiver as it concerns one image; `inherited` when it is a parent's."""

    image: str
    entry: WaiverEntry
    inherited: bool

    @property
    def id(self) -> str:
        """`IMAGE/VULNERABILITY@HASH`; the hash is of the whole text, so a changed one has another id."""
        content = self.entry.model_dump(mode="json")
        return f"{self.image}/{self.entry.vulnerability}@{Digest.of_json(content).short}"

    @property
    def starts_at(self) -> dt.datetime:
        """The first moment at which it counts."""
        return _midnight(self.entry.approved)

    @property
    def ends_at(self) -> dt.datetime:
        """The first moment at which it no longer counts."""
        return _midnight(self.entry.expires) + dt.timedelta(days=1)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _meet(some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return not some or not others or bool(set(some) & set(others))


def _person(text: str) -> frozenset[str]:
    """The ways in which a text names somebody: as a whole, and its mail address."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    before, bracket, rest = plain.partition("<")
    parts = {plain, before.strip(), rest.partition(">")[0].strip()} if bracket else {plain}
    return frozenset(parts - {""})
