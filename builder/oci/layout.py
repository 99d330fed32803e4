"""OCI image layouts on disk: written canonically, and read only with size and digest checked.

Source: OCI image specification 1.1, image-layout.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from builder.errors import RegistryError, ToolError
from builder.model.digest import Digest, canonical_json
from builder.model.image import INDEX_TYPE, Descriptor, PlatformImage
from builder.oci.manifest import (
    INDEX_TYPES,
    MANIFEST_MAX,
    MANIFEST_TYPES,
    Manifest,
    index_bytes,
    parse_json,
    parse_manifest,
)
from builder.store import write_atomically

LAYOUT_FILE = canonical_json({"imageLayoutVersion": "1.0.0"})
_CHUNK = 1 << 20  # bytes
_NODES_MAX = 1024  # manifests and indexes in one layout


def create_layout(layout: Path) -> Path:
    """Make an empty layout (without index.json) in the folder `layout` and return it."""
    (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    write_atomically(layout / "oci-layout", LAYOUT_FILE)
    return layout


def blob_path(layout: Path, digest: Digest) -> Path:
    """Where the blob is kept; it need not be there."""
    return layout / "blobs" / "sha256" / digest.hex


def write_blob(layout: Path, data: bytes) -> Digest:
    """Write a small blob and return its digest."""
    digest = Digest.of(data)
    write_atomically(blob_path(layout, digest), data)
    return digest


def write_layout_index(layout: Path, manifests: Sequence[Descriptor]) -> None:
    """Write `index.json`, the entry of the layout: what it points to, in that order."""
    write_atomically(layout / "index.json", index_bytes(manifests))


def read_layout_index(layout: Path) -> tuple[Descriptor, ...]:
    """What `index.json` points to; raises RegistryError when the folder is no proper layout."""
    marker = parse_json(_read_file(layout / "oci-layout", 4096), "oci-layout file")
    if marker.get("imageLayoutVersion") != "1.0.0":
        raise _damaged(f"{layout} is not an OCI layout of version 1.0.0")
    # Other tools leave the media type of index.json out; what it is, its name says.
    data = _read_file(layout / "index.json", MANIFEST_MAX)
    return parse_manifest(data, INDEX_TYPE, default=INDEX_TYPE).manifests


def read_blob(layout: Path, descriptor: Descriptor, limit: int = MANIFEST_MAX) -> bytes:
    """A small blob's bytes; raises RegistryError unless size (at most `limit`) and digest agree."""
    if descriptor.size > limit:
        raise _damaged(f"{descriptor.digest} is larger than {limit} bytes")
    data = _read_file(blob_path(layout, descriptor.digest), limit)
    if len(data) != descriptor.size or Digest.of(data) != descriptor.digest:
        raise _damaged(f"the blob {descriptor.digest} in {layout} has other content")
    return data


def read_blob_json(layout: Path, descriptor: Descriptor) -> dict[str, Any]:
    """A JSON blob, checked and parsed strictly; raises RegistryError."""
    return parse_json(read_blob(layout, descriptor), f"blob {descriptor.digest.short}")


def read_manifest(layout: Path, descriptor: Descriptor) -> Manifest:
    """A manifest or index of the layout, checked and parsed strictly; raises RegistryError."""
    return parse_manifest(read_blob(layout, descriptor), descriptor.media_type)


def verified_chunks(layout: Path, descriptor: Descriptor) -> Iterator[bytes]:
    """A blob's bytes in pieces; raises RegistryError at the end unless size and digest agreed."""
    sha, size = hashlib.sha256(), 0
    with _open(blob_path(layout, descriptor.digest)) as handle:
        while chunk := handle.read(_CHUNK):
            size += len(chunk)
            sha.update(chunk)
            yield chunk
    if size != descriptor.size or sha.hexdigest() != descriptor.digest.hex:
        raise _damaged(f"the blob {descriptor.digest} in {layout} has other content")


def import_blobs(source: Path, target: Path, digests: Iterable[Digest]) -> None:
    """Bring blobs from one layout to another, by hard link where that is possible.

    Nothing is hashed here: who reads a blob checks it. Raises RegistryError when one is missing.
    """
    for digest in digests:
        old, new = blob_path(source, digest), blob_path(target, digest)
        if new.exists():
            continue
        try:
            os.link(old, new)
        except FileNotFoundError:
            raise _damaged(f"the blob {digest} is missing in {source}") from None
        except OSError:  # another file system, or one without hard links
            with _open(old) as handle, replacing(new) as out:
                shutil.copyfileobj(handle, out, _CHUNK)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that becomes `path` at the end, or leaves nothing; raises ToolError."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as out:
                yield out
            Path(name).chmod(0o644)
            os.replace(name, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                Path(name).unlink()
    except OSError as error:
        raise ToolError(
            f"cannot write {path}", context=str(error.strerror), hint="is there room on the disk?"
        ) from None


def single_platform_view(image: PlatformImage, folder: Path) -> Path:
    """A layout in `folder` that points directly to the platform's manifest, and return it.

    For readers that take the first entry of `index.json` for the image, such as Trivy.
    """
    create_layout(folder)
    digests = [image.manifest.digest, image.config.digest, *(x.blob.digest for x in image.layers)]
    import_blobs(image.layout, folder, digests)
    write_layout_index(folder, [image.manifest])
    return folder


def verify_blobs(layout: Path, image: PlatformImage) -> None:
    """Read every blob of one platform of an image; raises RegistryError when one is not its digest's."""
    for descriptor in (image.manifest, image.config, *(layer.blob for layer in image.layers)):
        for _ in verified_chunks(layout, descriptor):
            pass


def verify_layout(layout: Path) -> None:
    """Read the whole layout and check it; raises RegistryError.

    Everything that is reachable from `index.json` must be there with its size and digest, and
    every file below `blobs/` must be what its name says.
    """
    seen: set[Digest] = set()
    waiting = list(read_layout_index(layout))
    while waiting:
        descriptor = waiting.pop()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        if descriptor.media_type in (*MANIFEST_TYPES, *INDEX_TYPES):
            if len(seen) > _NODES_MAX:
                raise _damaged(f"{layout} has more than {_NODES_MAX} parts")
            manifest = read_manifest(layout, descriptor)
            waiting += [*manifest.manifests, *manifest.blobs]
        else:
            for _ in verified_chunks(layout, descriptor):
                pass
    for path in sorted((layout / "blobs").rglob("*")):
        name = path.relative_to(layout / "blobs").as_posix()
        if path.is_dir() and not path.is_symlink() and name == "sha256":
            continue
        _check_stray(path, name, seen)


def _check_stray(path: Path, name: str, seen: set[Digest]) -> None:
    try:
        digest = Digest("sha256:" + name.removeprefix("sha256/"))
    except ValueError:
        raise _damaged(f"{path} does not belong into a layout") from None
    if digest in seen:
        return
    sha = hashlib.sha256()
    with _open(path) as handle:
        while chunk := handle.read(_CHUNK):
            sha.update(chunk)
    if sha.hexdigest() != digest.hex:
        raise _damaged(f"the blob {digest} has other content")


def _open(path: Path) -> Any:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _damaged(f"{path} cannot be read: {error.strerror}") from None
    handle = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
        handle.close()
        raise _damaged(f"{path} is not a regular file")
    return handle


def _read_file(path: Path, limit: int) -> bytes:
    with _open(path) as handle:
        data: bytes = handle.read(limit + 1)
    if len(data) > limit:
        raise _damaged(f"{path} is larger than {limit} bytes")
    return data


def _damaged(message: str) -> RegistryError:
    return RegistryError(
        message,
        hint="the layout is damaged; remove it and build the image again",
        reference="layout-damaged",
    )
