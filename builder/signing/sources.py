"""The part of a provenance that says what an image is made of, and who wrote that. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from builder.model.digest import Digest
from builder.model.sources import COMMIT, WRITER_MAX, WRITERS_MAX, Origin, Sources, Tree
from builder.signing.refusal import quoted, refuse

_PARTS = ("definition", "template", "lock")
_FIELDS = {*_PARTS, "tree", "publisher", "commit", "since", "writers", "lockers"}
_SINCE_MAX = 64  # an image and those below it


def encode(sources: Sources) -> dict[str, Any]:
    """The sources as JSON data."""
    origin = sources.origin
    return {
        **{part: {"sha256": getattr(sources, part).hex} for part in _PARTS},
        "tree": origin.tree.value,
        "publisher": origin.publisher,
        "commit": origin.commit,
        "since": dict(origin.since),
        "writers": list(origin.writers),
        "lockers": list(origin.lockers),
    }


def decode(value: Mapping[str, Any]) -> Sources:
    """Read them back; raises EvidenceRefused for any field missing, unknown or malformed."""
    if set(value) != _FIELDS:
        _malformed(sorted(set(value) ^ _FIELDS))
    parts = {part: _digest(value[part]) for part in _PARTS}
    publisher, commit, since = (value[k] for k in ("publisher", "commit", "since"))
    if not _is_text(publisher) or not isinstance(since, dict) or len(since) > _SINCE_MAX:
        _malformed(since)
    for one in (*since.values(), *([commit] if commit != "" else [])):
        if not isinstance(one, str) or not COMMIT.fullmatch(one):
            _malformed(one)
    try:
        tree = Tree(value["tree"])
    except ValueError:
        _malformed(value["tree"])
    writers, lockers = (_people(value[k]) for k in ("writers", "lockers"))
    origin = Origin(tree, publisher, commit, tuple(sorted(since.items())), writers, lockers)
    return Sources(parts["definition"], parts["template"], parts["lock"], origin)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= WRITER_MAX


def _people(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > WRITERS_MAX or not all(map(_is_text, value)):
        _malformed(value)
    return tuple(value)


def _digest(value: Any) -> Digest:
    try:
        return Digest(f"sha256:{value['sha256']}")
    except (ValueError, TypeError, KeyError):
        _malformed(value)


def _malformed(value: object) -> NoReturn:
    refuse("predicate-malformed", "the provenance's sources are malformed", context=quoted(value))
