"""Content digests: the identity of everything that is stored.

Source: OCI image specification 1.1, descriptor.md, "Digests". Only sha256 is accepted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Container
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")


class Digest(str):
    """`sha256:` and 64 lower-case hexadecimal digits; anything else cannot be made.

    Raises ValueError on construction from a malformed string.
    """

    __slots__ = ()

    def __new__(cls, value: str) -> Digest:
        if not _PATTERN.fullmatch(value):
            raise ValueError(f"not a sha256 digest: {value[:100]!r}")
        return super().__new__(cls, value)

    @property
    def hex(self) -> str:
        """The 64 digits without the algorithm."""
        return self[7:]

    @property
    def short(self) -> str:
        """The first 12 digits, for people."""
        return self[7:19]

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The digest of `data`."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())

    @classmethod
    def of_json(cls, value: Any, likely: Container[str] = ()) -> Digest:
        """The digest of `value` as canonical JSON.

        Where some are `likely`, a faster writer is asked first: of what it writes, only the very same
        bytes have one of those digests.
        """
        if likely:
            try:
                found = cls.of(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
                if found in likely:
                    return found
            except orjson.JSONEncodeError:
                pass
        return cls.of(canonical_json(value))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> CoreSchema:
        """How pydantic reads one: the text, refused unless it is a digest."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())


def is_digest_of_json(digest: str, value: Any) -> bool:
    """Whether `digest` is that of `value` as canonical JSON."""
    return Digest.of_json(value, (digest,)) == digest


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no blanks and no NaN, as UTF-8: one value, one byte string."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()
