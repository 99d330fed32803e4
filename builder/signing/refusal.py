"""The one way to say "bad" about evidence, and the strict JSON that all evidence is read with."""

from __future__ import annotations

from typing import Any, NoReturn

from builder.errors import PolicyDenied, RegistryError
from builder.oci.manifest import parse_json

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
    """Parse one JSON object of at most `size_max` bytes; raises EvidenceRefused.

    As strict as manifests are read: everything that two readers could understand differently is
    refused.
    """
    if len(data) > size_max:
        refuse("too-large", f"the {what} is larger than {size_max} bytes", context=f"{len(data)} bytes")
    try:
        return parse_json(data, what, size_max)
    except RegistryError as error:
        refuse("unparsable", error.message, context=error.context)
