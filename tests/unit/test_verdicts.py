"""The verdict travels through its predicate unchanged; anything odd is refused."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.model.verdict import RuleResult, Verdict
from builder.signing.refusal import EvidenceRefused
from builder.signing.verdicts import decode, encode
from tests.support.evidence import approval, evidence
from tests.support.images import built_image


@pytest.fixture
def verdict(tmp_path: Path) -> Verdict:
    image = built_image(tmp_path / "image")
    return approval(image, tuple(evidence(p) for p in image.platforms))


def test_round_trip(verdict: Verdict) -> None:
    assert decode(json.loads(encode(verdict))) == verdict
    denied = replace(
        verdict,
        approved=False,
        database=None,
        sboms={},
        rules=(RuleResult("r", "Rule", ("bad",), "mend it"),),
        waivers=("w",),
    )
    assert decode(json.loads(encode(denied))) == denied


def test_times_of_another_zone_are_written_in_utc(verdict: Verdict) -> None:
    zone = dt.timezone(dt.timedelta(hours=5))
    assert encode(replace(verdict, issued_at=verdict.issued_at.astimezone(zone))) == encode(verdict)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"approved": "true"},
        {"approved": 1},
        {"digest": "sha256:abc"},
        {"digest": None},
        {"ref": ""},
        {"issuedAt": "yesterday"},
        {"issuedAt": "2026-03-01T12:00:00+05:00"},
        {"issuedAt": "2027-03-01T12:00:00Z"},
        {"expiresAt": 5},
        {"sboms": []},
        {"sboms": {"sha256:abc": "sha256:abc"}},
        {"rules": [{}]},
        {"rules": [{"id": "a", "title": "A", "failures": "none", "solution": ""}]},
        {"rules": [{"id": "a", "title": "A", "failures": ["bad"], "solution": ""}]},
        {"waivers": [1]},
        {"database": {}},
        {"database": "none"},
    ],
)
def test_malformed_verdicts_are_refused(verdict: Verdict, change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceRefused):
        decode({**json.loads(encode(verdict)), **change})


@pytest.mark.parametrize("field", ["approved", "expiresAt", "database", "sboms", "rules"])
def test_every_field_is_needed(verdict: Verdict, field: str) -> None:
    value = json.loads(encode(verdict))
    del value[field]
    with pytest.raises(EvidenceRefused):
        decode(value)
