"""Derive: generated files that are made of the parent, filled in when that is there.

In: a build context with its parent. Out: the same, with the content of such files; so every
engine gets them like any other file of the context, and nothing of the image ever runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from builder.errors import DefinitionError, Problem
from builder.model.assembly import CA_BUNDLE
from builder.model.image import APPENDED, JAVA_TRUST_STORE, BuildContext, GeneratedEntry, PlatformImage
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
    contents = {e.path: _DERIVATIONS[e.derived](context, e) for e in wanted}
    entries = tuple(replace(e, content=contents.get(e.path, e.content)) for e in context.entries)
    files = {**context.files, **{f"assemble/rootfs{path}": data for path, data in contents.items()}}
    return replace(context, entries=entries, files=files)


def _java_trust_store(context: BuildContext, _: GeneratedEntry) -> bytes:
    added = b"".join(e.content for e in context.entries if e.path == f"/{CA_BUNDLE}")
    try:
        return java_keystore(_below(context.parent, CA_BUNDLE) + added)
    except ValueError as error:
        problem = Problem(
            f"images/{context.ref.partition(':')[0]}/image.yaml",
            "java_trust_store",
            f"the parent's certificates: {error}",
            "build it on an image with ca-certificates",
        )
        raise DefinitionError([problem]) from None


def _appended(context: BuildContext, entry: GeneratedEntry) -> bytes:
    try:
        return _below(context.parent, entry.path.lstrip("/")) + entry.content
    except ValueError as error:
        file = f"images/{context.ref.partition(':')[0]}/image.yaml"
        hint = "build it on an image of this catalogue that has the file"
        raise DefinitionError([Problem(file, entry.path, f"the image below: {error}", hint)]) from None


def _below(parent: PlatformImage | None, path: str) -> bytes:
    """A file of the image below, ending with a line's end."""
    data = read_filesystem(parent, (path,)).read(path) if parent else None
    if data is None:
        raise ValueError(f"there is no /{path}")
    return data if data.endswith(b"\n") or not data else data + b"\n"


_DERIVATIONS: Mapping[str, Callable[[BuildContext, GeneratedEntry], bytes]] = {
    JAVA_TRUST_STORE: _java_trust_store,
    APPENDED: _appended,
}
