"""Whether what lies at a reference is called so: repository and tag against an image's own names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.model.reference import Reference

_IMMUTABLE_TAG = re.compile(r".+-[0-9a-f]{12}")


def other_names(reference: Reference, ref: str, immutable_tag: str) -> Iterator[str]:
    """The parts of `reference` that are not those of the image `ref` (`NAME:STREAM`).

    A repository is called by its last part; a tag is the stream or the immutable one.
    """
    name, _, stream = ref.partition(":")
    if reference.name.rpartition("/")[2] != name:
        yield reference.name
    if reference.tag is None:
        return
    if reference.tag != (immutable_tag if _IMMUTABLE_TAG.fullmatch(reference.tag) else stream):
        yield reference.tag
