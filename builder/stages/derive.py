"""Derive: generated files that are made of the parent, filled in when that is there.

In: a build context with its parent. Out: the same, with the content of such files; so every
engine gets them like any other file of the context, and nothing of the image ever runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from builder.errors import DefinitionError, Problem
from builder.model.assembly import CA_BUNDLE
from builder.model.image import JAVA_TRUST_STORE, BuildContext, PlatformImage
from builder.oci.filesystem import read_filesystem
from builder.tools.keystore import java_keystore

DERIVE_VERSION = 1  # moves when the same parent gives other bytes


def derive(context: BuildContext) -> BuildContext:
    """The context with the content of its derived files; the same when it has none.

    Raises DefinitionError when the parent lacks what they are made of.
    """
    wanted = [e for e in context.entries if e.derived]
    if not wanted:
        return context
    contents = {e.path: _DERIVATIONS[e.derived](context) for e in wanted}
    entries = tuple(replace(e, content=contents.get(e.path, e.content)) for e in context.entries)
    files = {**context.files, **{f"assemble/rootfs{path}": data for path, data in contents.items()}}
    return replace(context, entries=entries, files=files)


def _java_trust_store(context: BuildContext) -> bytes:
    try:
        return java_keystore(_bundle(context.parent))
    except ValueError as error:
        problem = Problem(
            f"images/{context.ref.partition(':')[0]}/image.yaml",
            "java_trust_store",
            f"the parent's certificates: {error}",
            "build it on an image with ca-certificates",
        )
        raise DefinitionError([problem]) from None


def _bundle(parent: PlatformImage | None) -> bytes:
    data = read_filesystem(parent, (CA_BUNDLE,)).read(CA_BUNDLE) if parent else None
    if data is None:
        raise ValueError(f"there is no /{CA_BUNDLE}")
    return data


_DERIVATIONS: Mapping[str, Callable[[BuildContext], bytes]] = {JAVA_TRUST_STORE: _java_trust_store}
