"""One archive that every engine loads: an OCI layout with Docker's `manifest.json` beside it.

Engines with the containerd image store read `index.json`, the others read `manifest.json`.
Sources: OCI image specification 1.1, image-layout.md; Docker image specification 1.2,
"Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from builder.model.digest import canonical_json
from builder.model.image import Descriptor, PlatformImage
from builder.oci.layout import LAYOUT_FILE, verified_chunks
from builder.oci.manifest import index_bytes


def write_archive(image: PlatformImage, name: str, out: BinaryIO) -> None:
    """Write the image as a tar stream for `docker load`, where it gets the name `NAME:TAG`.

    The same image and name give the same bytes. Blobs are read in pieces; raises RegistryError
    when one is not what its digest says (the stream is then cut, and no engine accepts it).
    """
    repository, _, tag = name.rpartition(":")
    if not repository or "/" in tag:
        raise ValueError(f"not a name with a tag: {name!r}")
    blobs = {d.digest: d for d in (image.manifest, image.config, *(x.blob for x in image.layers))}
    entry = replace(
        image.manifest,
        annotations={"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag},
        platform=image.platform,
    )
    docker = [
        {
            "Config": _member(image.config),
            "RepoTags": [name],
            "Layers": [_member(x.blob) for x in image.layers],
        }
    ]
    # Small writes are slow through a pipe, hence the buffer of 1 MiB.
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=1 << 20) as tar:
        for folder in ("blobs", "blobs/sha256"):
            tar.addfile(_info(folder, 0, tarfile.DIRTYPE))
        for digest in sorted(blobs):
            descriptor = blobs[digest]
            reader = _Reader(verified_chunks(image.layout, descriptor))
            tar.addfile(_info(_member(descriptor), descriptor.size), reader)  # type: ignore[arg-type]
            reader.finish()
        for member, data in (
            ("index.json", index_bytes([entry])),
            ("manifest.json", canonical_json(docker)),
            ("oci-layout", LAYOUT_FILE),
        ):
            tar.addfile(_info(member, len(data)), io.BytesIO(data))


def save_archive(image: PlatformImage, name: str, path: Path) -> None:
    """As `write_archive`, to a new file at `path`."""
    with open(path, "xb") as out:
        write_archive(image, name, out)


def _member(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest.hex}"


def _info(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mtime = size, kind, 0
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    return info


class _Reader:
    """A file-like view of chunks, for tarfile; `finish` makes sure that the last check was done."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        parts, have = [], 0
        while have < size:
            piece = self._rest or next(self._chunks, b"")
            if not piece:
                break
            parts.append(piece[: size - have])
            self._rest = piece[size - have :]
            have += len(parts[-1])
        return b"".join(parts)

    def finish(self) -> None:
        """Read to the end, so that the generator compares size and digest."""
        for _ in self._chunks:
            pass
