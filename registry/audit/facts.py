"""What a ledger's entry can say: the actions, the typed fields, and their grammar. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.extension import NAME, VERSION
from registry.access.identity import is_identity
from registry.audit.redaction import redact


class Action(StrEnum):
    """What can be decided."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    REVOKE = "revoke"
    DEPRECATE = "deprecate"
    QUARANTINE = "quarantine"
    RELEASE = "release"
    APPROVE = "approve"
    CREATE_TOKEN = "create-token"  # noqa: S105 - an action's name
    REVOKE_TOKEN = "revoke-token"  # noqa: S105
    IMPORT = "import"
    RECEIVE = "receive"  # in a bundle, from the other side of a closed network
    ROTATE_KEY = "rotate-key"
    REVOKE_KEY = "revoke-key"
    RENEW_TRUST = "renew-trust"
    CHANGE_POLICY = "change-policy"


_TAG, _DIGEST = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", r"sha256:[0-9a-f]{64}"
_NAME = r"[a-z0-9][a-z0-9._/-]{0,254}"
_REF = rf"{_NAME}:{_TAG}"
_EXTENSION = rf"{NAME}=={VERSION}@{_DIGEST}"
_TIME_TEXT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
# What an entry can say of the state before and after, and how; nothing else can be written.
STATE_FIELDS: Mapping[str, str] = {
    "channel": r"[a-z]{1,32}",
    "tag": _TAG,
    "tagDigest": _DIGEST,
    "immutableTag": _TAG,
    "verdict": _TIME_TEXT,
    "policy": rf"{_NAME}@{_DIGEST}",
    # The packages whose rules were asked beside ours.
    "extensions": rf"{_EXTENSION}(?: {_EXTENSION}){{0,15}}",
    "replacement": rf"{_REF}@{_DIGEST}",
    # What an image is made of, the commits that it was published from, and a signed approval.
    **dict.fromkeys(("definition", "template", "lock", "approval"), _DIGEST),
    "commits": r"[0-9a-f]{40,64}(?: [0-9a-f]{40,64}){0,15}",
    "token": r"valid|revoked",
    "holder": r"[a-z0-9-]{1,64}",
    "roles": r"[a-z0-9-]+(?: [a-z0-9-]+)*",
    "images": r"[a-z0-9._/* -]+",
    "expires": _TIME_TEXT,
    # Where an image came from: a repository with its host, or the kind of a file; or a bundle.
    "source": rf"[A-Za-z0-9\[][A-Za-z0-9.:\[\]_/-]{{0,300}}@{_DIGEST}",
    "key": _DIGEST,
    "trust": r"\d{1,10}",
    "notAfter": _TIME_TEXT,
    "revokedAt": _TIME_TEXT,
}


@dataclass(frozen=True, slots=True)
class Fact:
    """What is to be recorded of one decision; `ref` is `NAME:TAG`, `digest` the image's index.

    Tokens, keys and policies are `token:ID`, `key:ROLE` and `policy:NAME`, with a digest of theirs.
    """

    who: str
    what: Action
    ref: str
    digest: Digest
    before: Mapping[str, str]
    after: Mapping[str, str]
    why: str


def clean(fact: Fact) -> Fact:
    """The fact as it may be written: known fields only, and no text that looks like a secret."""
    try:
        if not re.fullmatch(_REF, fact.ref):
            raise ValueError(f"not NAME:TAG: {fact.ref[:100]!r}")
        before, after = state_of_entry(fact.before), state_of_entry(fact.after)
    except ValueError as error:
        raise ToolError("a ledger entry says only what it has fields for", context=str(error)) from None
    # An identity's name has a grammar of its own; what only looks like a secret in it stays.
    who = fact.who if is_identity(fact.who) else redact(fact.who)
    return Fact(who, Action(fact.what), fact.ref, Digest(fact.digest), before, after, redact(fact.why))


def state_of_entry(value: Any) -> Mapping[str, str]:
    """A state as it may be written; raises ValueError for any field unknown or malformed."""
    if not isinstance(value, Mapping):
        raise ValueError("a state is no object")
    for key, text in value.items():
        if key not in STATE_FIELDS or not isinstance(text, str) or not re.fullmatch(STATE_FIELDS[key], text):
            raise ValueError(f"a state has a malformed or unknown field {str(key)[:50]!r}")
    return dict(value)
