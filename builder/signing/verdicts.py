"""The verdict as a predicate: written from a Verdict, and read back strictly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from builder.model.digest import Digest, canonical_json
from builder.model.evidence import DatabaseIdentity
from builder.model.extension import ExtensionIdentity
from builder.model.verdict import RuleResult, Verdict
from builder.signing.predicates import items, mapping, parse_time, text, timestamp
from builder.signing.refusal import quoted, refuse

_FIELDS = {
    "digest",
    "ref",
    "approved",
    "policy",
    "policyDigest",
    "issuedAt",
    "expiresAt",
    "database",
    "sboms",
    "rules",
    "waivers",
}
_DATABASE_FIELDS = {"digest", "source", "updatedAt", "schema", "sample"}
_OPTIONAL = {"announced", "extensions"}
_EXTENSION_FIELDS = {"kind", "id", "package", "version", "digest"}
_RULE_FIELDS = {"id", "title", "failures", "solution"}
_RULES_MAX, _WAIVERS_MAX, _SBOMS_MAX, _ANNOUNCED_MAX, _EXTENSIONS_MAX = 1000, 10_000, 64, 10_000, 1000
_WHAT = "verdict"


def encode(verdict: Verdict) -> bytes:
    """The predicate of a verdict, as canonical JSON; times are RFC 3339 UTC to the second."""
    database = verdict.database
    return canonical_json(
        {
            "digest": str(verdict.digest),
            "ref": verdict.ref,
            "approved": verdict.approved,
            "policy": verdict.policy,
            "policyDigest": str(verdict.policy_digest),
            "issuedAt": timestamp(verdict.issued_at),
            "expiresAt": timestamp(verdict.expires_at),
            "database": None
            if database is None
            else {
                "digest": str(database.digest),
                "source": database.source,
                "updatedAt": database.updated_at,
                "schema": database.schema,
                "sample": database.sample,
            },
            "sboms": dict(verdict.sboms),
            "rules": [
                {"id": r.id, "title": r.title, "failures": list(r.failures), "solution": r.solution}
                for r in verdict.rules
            ],
            "waivers": list(verdict.waivers),
            **({"announced": list(verdict.announced)} if verdict.announced else {}),
            **({"extensions": [e.as_dict() for e in verdict.extensions]} if verdict.extensions else {}),
        }
    )


def decode(predicate: Mapping[str, Any]) -> Verdict:
    """Read a verdict back; raises EvidenceRefused for any field missing, unknown or malformed.

    An approval that names a failed rule contradicts itself and is refused.
    """
    _exactly(predicate, _FIELDS | (_OPTIONAL & set(predicate)))
    approved = predicate["approved"]
    if not isinstance(approved, bool):
        _malformed("approved", approved)
    rules = tuple(_rule(r) for r in items(predicate, "rules", _WHAT, _RULES_MAX))
    if approved and any(not r.passed for r in rules):
        refuse("verdict-contradicts", "the verdict approves although a rule failed")
    issued, expires = (parse_time(predicate, key, _WHAT) for key in ("issuedAt", "expiresAt"))
    if issued >= expires:
        refuse("predicate-malformed", "the verdict expires before it is issued")
    return Verdict(
        digest=_digest(predicate["digest"], "digest"),
        ref=text(predicate, "ref", _WHAT),
        approved=approved,
        policy=text(predicate, "policy", _WHAT),
        policy_digest=_digest(predicate["policyDigest"], "policyDigest"),
        issued_at=issued,
        expires_at=expires,
        database=None if predicate["database"] is None else _database(mapping(predicate, "database", _WHAT)),
        sboms=_sboms(mapping(predicate, "sboms", _WHAT)),
        rules=rules,
        waivers=_texts(predicate["waivers"], "waivers", _WAIVERS_MAX),
        announced=_texts(predicate.get("announced", []), "announced", _ANNOUNCED_MAX),
        extensions=tuple(map(_extension, _extensions(predicate))),
    )


def _extensions(predicate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return items(predicate, "extensions", _WHAT, _EXTENSIONS_MAX) if "extensions" in predicate else []


def _extension(value: Mapping[str, Any]) -> ExtensionIdentity:
    _exactly(value, _EXTENSION_FIELDS)
    kind, id_, package, version = (text(value, key, _WHAT) for key in ("kind", "id", "package", "version"))
    try:
        return ExtensionIdentity(kind, id_, package, version, _digest(value["digest"], "extensions"))
    except ValueError:
        _malformed("extensions", value)


def _database(value: Mapping[str, Any]) -> DatabaseIdentity:
    _exactly(value, _DATABASE_FIELDS)
    schema, sample = value["schema"], value["sample"]
    if not isinstance(schema, int) or isinstance(schema, bool) or not isinstance(sample, bool):
        _malformed("database", value)
    return DatabaseIdentity(
        digest=_digest(value["digest"], "database"),
        source=text(value, "source", _WHAT),
        updated_at=text(value, "updatedAt", _WHAT),
        schema=schema,
        sample=sample,
    )


def _rule(value: Mapping[str, Any]) -> RuleResult:
    _exactly(value, _RULE_FIELDS)
    solution = value["solution"]
    if not isinstance(solution, str):
        _malformed("solution", solution)
    return RuleResult(
        text(value, "id", _WHAT),
        text(value, "title", _WHAT),
        _texts(value["failures"], "failures", 1_000_000),
        solution,
    )


def _sboms(value: Mapping[str, Any]) -> dict[str, str]:
    if len(value) > _SBOMS_MAX:
        _malformed("sboms", len(value))
    return {str(_digest(k, "sboms")): str(_digest(v, "sboms")) for k, v in value.items()}


def _texts(value: Any, key: str, count_max: int) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > count_max or not all(isinstance(x, str) for x in value):
        _malformed(key, value)
    return tuple(value)


def _digest(value: Any, key: str) -> Digest:
    try:
        return Digest(value if isinstance(value, str) else "")
    except ValueError:
        _malformed(key, value)


def _exactly(value: Mapping[str, Any], fields: set[str]) -> None:
    if set(value) != fields:
        refuse(
            "predicate-malformed",
            "the verdict has missing or unknown fields",
            context=quoted(sorted(set(value) ^ fields)),
        )


def _malformed(key: str, value: object) -> NoReturn:
    refuse("predicate-malformed", f"the verdict's {key} is malformed", context=quoted(value))
