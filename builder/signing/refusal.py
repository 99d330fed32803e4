"""The one way to say "bad" about evidence, and the strict JSON that all evidence is read with."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from builder.errors import PolicyDenied

_QUOTED_MAX = 200  # characters of hostile text that a message quotes


class EvidenceRefused(PolicyDenied):
    """A signature, attestation or verdict was looked at and is bad.

    `reference` names the reason (`signature-invalid`, `subject-mismatch`, …). What could not be
    looked at is a RegistryError instead: the two never mix.
    """


def refuse(reference: str, message: str, *, context: str = "", hint: str = "") -> NoReturn:
    """Raise EvidenceRefused."""
    raise EvidenceRefused(message, context=context, hint=hint, reference=reference)


def quoted(value: object) -> str:
    """Hostile data as a short quotation."""
    return repr(value)[:_QUOTED_MAX]


def strict_json(data: bytes, what: str, size_max: int) -> dict[str, Any]:
    """Parse one JSON object; `size_max` in bytes.

    Raises EvidenceRefused for anything too large, not UTF-8, not one object, with a key twice in
    one object, with NaN or an endless number, or nested too deeply (RFC 8259, sections 4 and 9).
    """
    if len(data) > size_max:
        refuse("too-large", f"the {what} is larger than {size_max} bytes", context=f"{len(data)} bytes")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        refuse("unparsable", f"the {what} cannot be parsed", context=quoted(str(error)))
    if not isinstance(value, dict):
        refuse("unparsable", f"the {what} is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return out


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
