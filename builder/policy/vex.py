"""The waivers that a verdict used, as an OpenVEX document: the same answer from every scanner.

Source: OpenVEX specification 0.2.0. Products are the image by its digests; the packages are
subcomponents, so that a statement says nothing about the same package anywhere else.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from builder.model.digest import Digest, canonical_json
from builder.model.image import BuiltImage
from builder.model.waiver import Waiver

CONTEXT = "https://openvex.dev/ns/v0.2.0"
_ID = "https://goldsmith.dev/vex/"
_STATEMENTS_MAX = 10_000
_PURL = re.compile(r"pkg:(?:deb|apk|rpm)/[a-z0-9.-]{1,64}/([^/@?#]{1,200})(?:@[^/]*)?")
_AUTHOR = "Goldsmith, for the owners and approvers named in the statements"


def openvex(image: BuiltImage, used: Sequence[str]) -> bytes:
    """The document for an image, as canonical JSON; `used` are the ids of the verdict's waivers.

    It is a function of image and waivers: its time is the newest approval's.
    """
    versions = {p.name: p.version for one in image.platforms for p in one.packages}
    digests = [image.digest, *(p.manifest.digest for p in image.platforms)]
    waivers = [w for w in image.target.waivers if w.id in used]
    name = image.target.definition.name
    return document([_statement(w, name, digests, versions) for w in waivers], _newest(waivers))


def document(statements: Sequence[Mapping[str, Any]], at: dt.datetime) -> bytes:
    """An OpenVEX document of these statements; without any, it says just that."""
    body = {
        "@context": CONTEXT,
        "author": _AUTHOR,
        "timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "version": 1,
        "statements": list(statements),
    }
    return canonical_json({**body, "@id": f"{_ID}{Digest.of_json(body).hex}"})


def _statement(
    waiver: Waiver, name: str, digests: Sequence[Digest], versions: Mapping[str, str]
) -> dict[str, Any]:
    entry = waiver.entry
    present = [p for p in sorted(entry.packages) if p in versions]
    parts = [{"@id": purl} for package in present for purl in _purls(package, versions[package])]
    return {
        "vulnerability": {"name": entry.vulnerability},
        "products": [
            {"@id": f"pkg:oci/{name}@{quote(str(d), safe='')}", "subcomponents": parts} for d in digests
        ],
        "status": "not_affected",
        "justification": entry.justification,
        "impact_statement": entry.statement,
        "timestamp": waiver.starts_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "status_notes": f"waiver {waiver.id}; owner {entry.owner}; approver {entry.approver}; "
        f"counts until {entry.expires}",
    }


def _purls(name: str, version: str) -> tuple[str, ...]:
    """The package's purl; with an epoch also as Trivy writes it, which makes that a qualifier."""
    start = f"pkg:deb/debian/{quote(name, safe='')}@"
    epoch, colon, rest = version.partition(":")
    whole = start + quote(version, safe="")
    return (whole, f"{start}{quote(rest, safe='')}?epoch={epoch}") if colon else (whole,)


def _newest(waivers: Sequence[Waiver]) -> dt.datetime:
    return max((w.starts_at for w in waivers), default=dt.datetime(1980, 1, 1, tzinfo=dt.UTC))


@dataclass(frozen=True, slots=True)
class Opinion:
    """What somebody else's document says of one vulnerability: these packages are not affected."""

    vulnerability: str
    packages: tuple[str, ...]
    justification: str
    words: str


def opinions(document: Mapping[str, Any]) -> tuple[tuple[Opinion, ...], tuple[str, ...]]:
    """The "not affected" statements of an OpenVEX document, and why others were left out.

    The document is a stranger's: what it says becomes a waiver only through people. Raises
    ValueError when it is no OpenVEX document.
    """
    statements = document.get("statements")
    if not str(document.get("@context", "")).startswith("https://openvex.dev/ns"):
        raise ValueError("its @context is not that of OpenVEX")
    if not isinstance(statements, list) or len(statements) > _STATEMENTS_MAX:
        raise ValueError("it has no list of statements, or too many")
    found, left = [], []
    for number, statement in enumerate(statements):
        try:
            found.append(_opinion(statement))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            left.append(f"statement {number + 1}: {error}"[:300])
    return tuple(found), tuple(left)


def waiver_ids(document: Mapping[str, Any]) -> frozenset[str]:
    """The waivers that one of our own documents states."""
    notes = (str(s.get("status_notes", "")) for s in document.get("statements", ()))
    return frozenset(n.removeprefix("waiver ").partition(";")[0] for n in notes if n.startswith("waiver "))


def _opinion(statement: Mapping[str, Any]) -> Opinion:
    if statement["status"] != "not_affected":
        raise ValueError(f"its status is {str(statement['status'])[:40]!r}, not 'not_affected'")
    named = statement["vulnerability"]
    vulnerability = named if isinstance(named, str) else named["name"]
    parts = [
        part
        for product in statement["products"]
        for part in (product.get("subcomponents") or [product] if isinstance(product, dict) else [product])
    ]
    names = dict.fromkeys(_package_name(p["@id"] if isinstance(p, dict) else p) for p in parts)
    if not statement.get("justification"):
        raise ValueError("it gives no justification")
    words = str(statement.get("impact_statement") or statement.get("status_notes") or "")
    return Opinion(str(vulnerability), tuple(names), str(statement["justification"]), words)


def _package_name(purl: str) -> str:
    found = _PURL.fullmatch(purl)
    if found is None:
        raise ValueError(f"not the purl of a system package: {purl[:100]!r}")
    return unquote(found[1])
