"""Normalise: whatever an engine made → the canonical image, whose digest is its identity.

In: a root file system as a tar, what the locked packages hold, and the parent. Out: the
layers, configuration and manifest of one platform in an OCI layout. Nothing that an engine
decides (order, times, owners' names, attributes, compression) survives. Content is streamed
from the tar into the layers; only headers are held in memory.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from builder.errors import LockError, NotReproducible
from builder.model import layers as layering
from builder.model.assembly import USR_ALIASES
from builder.model.contents import Contents, PackagedFile, through
from builder.model.digest import Digest
from builder.model.image import (
    CONFIG_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    BuildContext,
    Descriptor,
    Layer,
    PlatformImage,
    RawImage,
)
from builder.model.lock import LockedPackage
from builder.oci.compress import compress
from builder.oci.layout import blob_path, create_layout, import_blobs, write_blob
from builder.oci.manifest import config_bytes, manifest_bytes
from builder.oci.rootfs import Node, content_hash, image_tree, read_tree
from builder.oci.tarformat import END, TarEntry, header, padding

NORMALISE_VERSION = 1  # moves when the same input gives other bytes
# What belongs to no package gets the oldest time that a zip file can hold.
GENERATED_TIME = 315_532_800  # 1980-01-01T00:00:00Z, in seconds
_CHUNK = 1 << 18  # bytes
_THREADS = 2

# Left behind by engines and package tools; none is content.
_DROPPED = frozenset(
    {
        "var/cache/ldconfig/aux-cache",
        "var/lib/dpkg/status-old",
        "etc/.pwd.lock",
        "etc/passwd-",
        "etc/group-",
        "etc/shadow-",
        "etc/gshadow-",
        "etc/resolv.conf",
        "etc/hostname",
        "etc/hosts",
        ".dockerenv",
    }
)
_EMPTIED = (
    "var/log",
    "var/lib/apt/lists",
    "var/cache/apt",
    "var/cache/debconf",
    "tmp",
    "run",
    "dev",
    "proc",
    "sys",
)


def normalise(
    raw: RawImage, contents: Contents, layout: Path, below: Mapping[str, Node] | None = None
) -> PlatformImage:
    """The canonical image of one platform, written into `layout` (made when missing).

    `below` is the parent's tree, when it was read already.
    Raises NotReproducible when the engine lost a file of the parent, brought one that belongs
    to nothing, changed the content of one, or made something that no image may hold; LockError when
    a path would be written through a link.
    """
    context = raw.context
    create_layout(layout)
    with open(raw.rootfs, "rb") as tar:
        parent = below if below is not None else image_tree(context.parent) if context.parent else {}
        tree = _canonical(read_tree(raw.rootfs), context, contents, parent)
        if raw.whole:
            missing = sorted(set(parent) - set(tree))
            if missing:
                raise NotReproducible(
                    f"the build lost /{missing[0]} of its parent", context=f"{len(missing)} paths"
                )
        own = {path: node for path, node in tree.items() if not _inherited(tar, node, parent.get(path))}
        _compare(tar, own, context, contents)
    _check(own, tree, context, contents)
    _refuse_through_links(own, {**parent, **tree})
    groups = layering.assign(context.lock.packages, context.depth)
    plan = _plan(own, {**parent, **tree}, contents, groups)
    layers = tuple(_write_layers(raw.rootfs, plan, contents, layout))
    return _assemble(context, layers, layout)


def _assemble(context: BuildContext, own: tuple[Layer, ...], layout: Path) -> PlatformImage:
    parent = context.parent
    if parent:
        import_blobs(parent.layout, layout, [x.blob.digest for x in parent.layers])
    layers = (*(parent.layers if parent else ()), *own)
    created = dt.datetime.fromtimestamp(context.epoch, dt.UTC)
    config = config_bytes(
        context.config,
        context.platform,
        created,
        [x.diff_id for x in layers],
        [f"goldsmith: {x.group}" for x in layers],
    )
    config_descriptor = Descriptor(CONFIG_TYPE, write_blob(layout, config), len(config))
    manifest = manifest_bytes(config_descriptor, [x.blob for x in layers], _annotations(context))
    return PlatformImage(
        platform=context.platform,
        layout=layout,
        manifest=Descriptor(
            MANIFEST_TYPE, write_blob(layout, manifest), len(manifest), platform=context.platform
        ),
        config=config_descriptor,
        layers=layers,
        lock=context.lock,
        packages=_closure(context),
    )


def _closure(context: BuildContext) -> tuple[LockedPackage, ...]:
    """All packages of the image, the parent's included, sorted by name."""
    return tuple(sorted((*(context.parent.packages if context.parent else ()), *context.lock.packages)))


def _annotations(context: BuildContext) -> dict[str, str]:
    annotations = {"org.opencontainers.image.ref.name": context.ref}
    if context.parent and context.lock.parent:
        annotations["org.opencontainers.image.base.name"] = context.lock.parent.image
        annotations["org.opencontainers.image.base.digest"] = context.parent.manifest.digest
    return annotations


def _canonical(
    tree: dict[str, Node], context: BuildContext, contents: Contents, parent: Mapping[str, Node]
) -> dict[str, Node]:
    """The tree without left-overs, with fixed owners and one choice among hard-linked names."""
    owned = {path: node.uid for path, node in parent.items()}
    owned |= {e.path.lstrip("/"): e.owner for e in context.entries}
    out: dict[str, Node] = {}
    for path, node in tree.items():
        if path in _DROPPED or (node.kind != "5" and _is_left_out(path)):
            continue
        if context.has_parent and path in USR_ALIASES and node.kind == "5":
            continue
        owner = owned.get(path, 0)
        out[path] = replace(node, uid=owner, gid=owner)
    _one_name_for_links(out)
    _prune(out, set(owned), contents.directories)
    return out


def _check(
    own: Mapping[str, Node], tree: Mapping[str, Node], context: BuildContext, contents: Contents
) -> None:
    """Every file is a package's or a generated one, and none of them is missing."""
    known = {e.path.lstrip("/") for e in context.entries} | set(contents.files) | set(_made(context))
    foreign = sorted(p for p, n in own.items() if n.kind != "5" and p not in known)
    if foreign:
        raise NotReproducible(
            f"the build brought /{foreign[0]}, which belongs to no package",
            context=f"{len(foreign)} such files",
            hint="a step left it behind or copied it from the host; mend the template",
        )
    lost = sorted(p for p in known if p not in tree and not _is_left_out(p))
    if lost:
        raise NotReproducible(
            f"the build lost /{lost[0]}", context=f"{len(lost)} files of locked packages are missing"
        )


def _refuse_through_links(own: Mapping[str, Node], tree: Mapping[str, Node]) -> None:
    """Nothing is written through a link, of this image or of those below it."""
    crossed = through(own, lambda path: path in tree and tree[path].kind != "5")
    if crossed:
        path, link = crossed
        raise LockError(
            f"/{path} would be written through /{link}, which is no directory",
            context=f"it leads to {tree[link].link}" if tree[link].link else "",
            hint="name the place where that leads, or leave out the package that brings it",
        )


def _compare(tar: BinaryIO, own: Mapping[str, Node], context: BuildContext, contents: Contents) -> None:
    """Everything is as its package or the rendered context has it: content, mode, target, no attributes."""
    expected = {
        **contents.files,
        **{
            e.path.lstrip("/"): PackagedFile("", 0, e.mode, hashlib.sha256(e.content).hexdigest(), e.target)
            for e in context.entries
            if e.kind != "directory"
        },
        **_made(context),
    }
    modes = {**contents.directories, **{e.path.lstrip("/"): e.mode for e in context.entries}}
    for path, node in own.items():
        file = expected.get(path)
        if node.xattrs:
            changed = "attributes"  # no package brings any: a capability is the engine's, or its host's
        elif node.kind == "5":
            changed = "mode" if node.mode != modes.get(path, 0o755) else ""
        elif file is None:
            changed = ""  # found by _check
        elif node.kind == "2" or file.target:
            changed = "target" if node.link != file.target else ""
        elif node.mode != file.mode:
            changed = "mode"
        else:
            changed = "content" if node.kind == "0" and content_hash(tar, node) != file.sha256 else ""
        if changed:
            raise NotReproducible(
                f"the build changed the {changed} of /{path}",
                context=f"{(file.package if file else '') or 'the definition'} brings another one"
                + (f"; this one's sha256 is {content_hash(tar, node)}" if changed == "content" else ""),
                hint="the engine or the template altered it; build with --engine direct and compare",
            )


def _made(context: BuildContext) -> dict[str, PackagedFile]:
    """What the programs that are run have to write."""
    return {
        path.lstrip("/"): PackagedFile("", 0, int(file.mode, 8), file.sha256)
        for step in context.runs
        for path, file in step.makes.items()
    }


def _is_left_out(path: str) -> bool:
    return path in _DROPPED or any(path.startswith(p + "/") for p in _EMPTIED)


def _one_name_for_links(tree: dict[str, Node]) -> None:
    """Of hard-linked names the smallest is the file; engines choose differently."""
    groups: dict[str, list[str]] = {}
    for path, node in tree.items():
        if node.kind == "1":
            groups.setdefault(node.link, []).append(path)
    for target, names in groups.items():
        file = tree.get(target)
        if file is None or file.kind != "0":
            raise NotReproducible(f"/{names[0]} is a hard link to /{target}, which is no file")
        first, *others = sorted([target, *names])
        tree[first] = file
        for name in others:
            tree[name] = Node("1", file.mode, file.uid, file.gid, link=first)


def _prune(tree: dict[str, Node], kept: set[str], shipped: Mapping[str, int]) -> None:
    """Remove empty directories that no package ships (mount points), and all below /usr."""
    children = Counter(posixpath.dirname(path) for path in tree)
    for path in sorted((p for p, n in tree.items() if n.kind == "5"), reverse=True):
        wanted = path in kept or (path in shipped and not path.startswith("usr/"))
        if not children[path] and not wanted:
            del tree[path]
            children[posixpath.dirname(path)] -= 1


def _inherited(tar: BinaryIO, node: Node, parent: Node | None) -> bool:
    if parent is None:
        return False
    if node.kind == "0" and parent.kind == "0" and node.size == parent.size:
        node = replace(node, sha256=content_hash(tar, node))
    return node.same(parent)


def _plan(
    own: Mapping[str, Node], tree: Mapping[str, Node], contents: Contents, groups: Mapping[str, str]
) -> dict[str, dict[str, Node]]:
    """Which paths each layer holds; every layer brings the directories that its files need."""
    plan: dict[str, dict[str, Node]] = {}
    # An engine may leave out the entries of directories between; all ancestors count.
    with_children: set[str] = set()
    for path in own:
        while (path := posixpath.dirname(path)) and path not in with_children:
            with_children.add(path)
    for path, node in own.items():
        if node.kind == "5" and path in with_children:
            continue
        file = contents.files.get(path)
        group = groups[file.package] if file and file.package else layering.OWN
        plan.setdefault(group, {})[path] = node
    for entries in plan.values():
        for path in list(entries):
            while (path := posixpath.dirname(path)) and path not in entries:
                entries[path] = tree.get(path, Node("5", 0o755, 0, 0))
    return plan


def _write_layers(
    tar: Path, plan: Mapping[str, Mapping[str, Node]], contents: Contents, layout: Path
) -> Iterable[Layer]:
    ordered = sorted(plan.items(), key=lambda item: layering.order(item[0]))
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(lambda item: _write_layer(tar, item[0], item[1], contents, layout), ordered))


def _write_layer(
    tar: Path, group: str, entries: Mapping[str, Node], contents: Contents, layout: Path
) -> Layer:
    temporary = layout / f".layer-{group}.tmp"
    blob, size, diff_id = compress(_layer_chunks(tar, entries, contents), temporary)
    temporary.replace(blob_path(layout, blob))
    return Layer(Descriptor(LAYER_TYPE, blob, size), diff_id, group)


def _layer_chunks(tar: Path, entries: Mapping[str, Node], contents: Contents) -> Iterator[bytes]:
    with open(tar, "rb") as source:
        for path in sorted(entries, key=lambda p: p.encode("utf-8", "surrogateescape")):
            node = entries[path]
            file = contents.files.get(node.link if node.kind == "1" else path)
            mtime = file.mtime if file and file.package and node.kind != "5" else GENERATED_TIME
            yield header(
                TarEntry(
                    path, node.kind, node.mode, node.uid, node.gid, node.size, mtime, node.link, node.xattrs
                )
            )
            if node.kind == "0":
                source.seek(node.offset)
                left = node.size
                while left:
                    chunk = source.read(min(left, _CHUNK))
                    if not chunk:
                        raise NotReproducible(f"the engine's tar is cut short at /{path}")
                    left -= len(chunk)
                    yield chunk
                yield padding(node.size)
    yield END


def diff_ids(image: PlatformImage) -> tuple[Digest, ...]:
    """The digests of the layers' content, whatever compressed them."""
    return tuple(x.diff_id for x in image.layers)
