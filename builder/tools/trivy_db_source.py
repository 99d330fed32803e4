"""Where a vulnerability database comes from: a registry, an OCI layout, a tar, a folder.

The artefact: an OCI manifest with one layer, a tar.gz of `metadata.json` and `trivy.db`
(source: aquasecurity/trivy-db, `pkg/db` and `pkg/oci` of Trivy 0.76).
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from builder.errors import RegistryError, ToolError, UsageError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.oci.layout import blob_path, read_layout_index, read_manifest, verified_chunks
from builder.oci.manifest import Manifest, parse_manifest
from builder.oci.transport import Limits
from builder.store import file_digest

LAYER_TYPE = "application/vnd.aquasec.trivy.db.layer.v1.tar+gzip"
# Where Trivy itself looks, in its order.
DEFAULT_SOURCES = ("mirror.gcr.io/aquasec/trivy-db:2", "ghcr.io/aquasecurity/trivy-db:2")
# Where these two send a client for the bytes, which are checked by their digest.
_REDIRECTS = {
    "mirror.gcr.io": frozenset({"storage.googleapis.com"}),
    "ghcr.io": frozenset({"pkg-containers.githubusercontent.com"}),
}
ASK_SECONDS = 8.0  # for the manifest
_ASKING = Limits(connect_seconds=4, read_seconds=6, total_seconds=7, attempts=2)
_FETCHING = Limits(connect_seconds=4, read_seconds=15, total_seconds=30, attempts=3)
MEMBERS = {"metadata.json": 1 << 20, "trivy.db": 4 << 30}  # bytes at most
_LAYOUT_MAX = 4 << 30  # bytes of a layout in a tar
_LAYOUT_MEMBERS_MAX = 1000
_LAYOUT_MEMBER = re.compile(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}")
_CHUNK = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Artefact:
    """A database that was found: its digest, where, and how to unpack it into a folder."""

    digest: Digest
    source: str
    unpack: Callable[[Path], None]


def is_remote(source: str | None) -> bool:
    """Whether the source is a registry (then it may be out of reach), not a file."""
    return source is None or not _is_path(source)


def resolve(source: str | None, credentials: Path | None = None) -> Artefact:
    """Find the database of a source; None means where Trivy normally takes it.

    `credentials` is the folder of registries' users.

    Raises ToolError or RegistryError when it is not there, or is no database.
    """
    if source is None:
        return _from_registries(DEFAULT_SOURCES, credentials)
    if not _is_path(source):
        return _from_registries((source,), credentials)
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_layout(path, path.name) if (path / "oci-layout").exists() else _from_folder(path)
    if path.is_file():
        return _from_tar(path)
    raise ToolError(
        f"the vulnerability database {source} is not there",
        hint="name a database that you have, on the command line of `goldsmith db sync` or by "
        "GOLDSMITH_TRIVY_DB: an OCI reference, an OCI layout, a tar or a folder",
    )


def unpack_tar(stream: IO[bytes], folder: Path) -> None:
    """Write the two members of a database's tar (also compressed) to `folder`.

    Anything else in it is refused, as are links, repeats, and members over their limits.
    """
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if name == "" or (name == "." and member.isdir()):
                    continue
                if name not in MEMBERS or name in seen or not member.isreg() or member.size > MEMBERS[name]:
                    raise ToolError(
                        f"the database's archive holds something else: {member.name[:100]!r}",
                        hint="it must hold just metadata.json and trivy.db",
                        reference="database-archive",
                    )
                seen.add(name)
                _copy(tar.extractfile(member), folder / name, member.size)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ToolError(
            "the database's archive cannot be unpacked",
            context=str(error)[:300],
            reference="database-archive",
        ) from None
    missing = sorted(set(MEMBERS) - seen)
    if missing:
        raise ToolError(
            f"the database's archive has no {' and no '.join(missing)}", reference="database-archive"
        )


def _is_path(source: str) -> bool:
    return source.startswith(("/", ".", "~")) or Path(source).exists()


def _from_registries(sources: tuple[str, ...], credentials: Path | None) -> Artefact:
    """The database of the first source that has it; all are asked at once, for ASK_SECONDS.

    The limit is kept from outside, because looking up a name has none of its own.
    """
    answers: dict[str, Artefact | str] = {}

    def ask(source: str) -> None:
        try:
            answers[source] = _from_registry(source, credentials)
        except (RegistryError, ToolError, UsageError) as error:
            answers[source] = error.message + (f" ({error.context})" if error.context else "")

    asking = [threading.Thread(target=ask, args=(source,), daemon=True) for source in sources]
    for thread in asking:
        thread.start()
    ends = time.monotonic() + ASK_SECONDS
    for source, thread in zip(sources, asking, strict=True):
        thread.join(max(0.0, ends - time.monotonic()))
        answer = answers.get(source)
        if isinstance(answer, Artefact):
            return answer
    silent = f"no answer within {ASK_SECONDS:g} s"
    told = "\n".join(f"{source}: {answers.get(source, silent)}" for source in sources)
    raise ToolError("no registry gave the database", context=told)


def _from_registry(source: str, credentials: Path | None) -> Artefact:
    """The database of an OCI reference, by tag or digest; the manifest's digest is the artefact's."""
    from builder.oci.auth import credentials_for
    from builder.oci.client import RegistryClient

    try:
        reference = Reference.parse(source)
    except ValueError as error:
        raise ToolError(f"{source!r} is neither a file nor an OCI reference", context=str(error)) from None
    if reference.tag is None and reference.digest is None:
        reference = reference.with_tag("2")
    hosts = _REDIRECTS.get(reference.host, frozenset())
    user = credentials_for(credentials, reference.host, writes=False) if credentials else None
    asking = RegistryClient(reference.host, credentials=user, limits=_ASKING, redirect_hosts=hosts)
    data, media_type, digest = asking.get_manifest(reference)
    layer = database_layer(parse_manifest(data, media_type), str(reference))
    if layer.size > MEMBERS["trivy.db"]:
        raise ToolError(f"{reference} is too large for a database", context=f"{layer.size} bytes")

    def unpack(folder: Path) -> None:
        fetching = RegistryClient(reference.host, credentials=user, limits=_FETCHING, redirect_hosts=hosts)
        archive = folder.parent / "db.tar.gz"
        fetching.get_blob(reference.name, layer, archive)
        with open(archive, "rb") as stream:
            unpack_tar(stream, folder)
        archive.unlink()

    return Artefact(digest, str(reference), unpack)


def _from_folder(path: Path) -> Artefact:
    """A folder with the two files; its digest is that of both digests."""
    files = {name: path / name for name in MEMBERS}
    for file in files.values():
        if not file.is_file() or file.stat().st_size > MEMBERS[file.name]:
            raise ToolError(f"{path} holds no database", context=f"{file.name} is missing or too large")
    digest = Digest.of_json({name: str(file_digest(file)) for name, file in files.items()})

    def unpack(folder: Path) -> None:
        for name, file in files.items():
            shutil.copyfile(file, folder / name)

    return Artefact(digest, f"folder {path.name}", unpack)


def _from_tar(path: Path) -> Artefact:
    """A tar of the two files (its digest is the file's), or of an OCI layout."""
    try:
        with tarfile.open(path, "r:*") as tar:
            first = tar.next()
            names = {first.name.removeprefix("./")} if first else set()
            while first is not None and not names & {"oci-layout", *MEMBERS} and len(names) < 10:
                first = tar.next()
                names |= {first.name.removeprefix("./")} if first else set()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ToolError(f"{path} is no tar", context=str(error)[:300]) from None
    if not names & {"oci-layout", *MEMBERS}:
        raise ToolError(
            f"{path} holds no database", context="neither metadata.json and trivy.db, nor an OCI layout"
        )
    if not names & set(MEMBERS):
        return _from_layout_tar(path)

    def unpack(folder: Path) -> None:
        with open(path, "rb") as stream:
            unpack_tar(stream, folder)

    return Artefact(file_digest(path), f"file {path.name}", unpack)


def _from_layout(path: Path, name: str) -> Artefact:
    """The one database of an OCI layout; size and digest of each blob are checked."""
    entries = read_layout_index(path)
    if len(entries) != 1:
        raise ToolError(f"the layout {name} holds {len(entries)} artefacts, not one database")
    manifest = read_manifest(path, entries[0])
    layer = database_layer(manifest, name)

    def unpack(folder: Path) -> None:
        for _ in verified_chunks(path, layer):  # all of it, before any of it is unpacked
            pass
        with open(blob_path(path, layer.digest), "rb") as stream:
            unpack_tar(stream, folder)

    return Artefact(entries[0].digest, f"layout {name}", unpack)


def _from_layout_tar(path: Path) -> Artefact:
    """As a layout, out of a tar: it is unpacked to a temporary folder each time it is needed."""
    with _unpacked_layout(path) as layout:
        found = _from_layout(layout, path.name)

    def unpack(folder: Path) -> None:
        with _unpacked_layout(path) as layout:
            again = _from_layout(layout, path.name)
            if again.digest != found.digest:
                raise ToolError(f"{path} changed while it was read", reference="database-archive")
            again.unpack(folder)

    return Artefact(found.digest, found.source, unpack)


def database_layer(manifest: Manifest, name: str) -> Descriptor:
    """The layer of a database's manifest; raises ToolError when it is something else's."""
    layers = manifest.layers
    if len(layers) != 1 or layers[0].media_type != LAYER_TYPE:
        kinds = ", ".join(layer.media_type for layer in layers[:3]) or "none"
        raise ToolError(f"{name} is no Trivy database", context=f"layers: {kinds[:300]}")
    return layers[0]


@contextlib.contextmanager
def _unpacked_layout(path: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="goldsmith-layout-") as temporary:
        layout, total, count = Path(temporary), 0, 0
        try:
            with tarfile.open(path, "r:*") as tar:
                for member in tar:
                    total, count = total + member.size, count + 1
                    name = member.name.removeprefix("./")
                    if total > _LAYOUT_MAX or count > _LAYOUT_MEMBERS_MAX:
                        raise ToolError(f"{path} is too large for a database", reference="database-archive")
                    if not member.isreg() or not _LAYOUT_MEMBER.fullmatch(name):
                        continue  # folders; and whatever else cannot be part of a layout
                    target = layout / name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _copy(tar.extractfile(member), target, member.size)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ToolError(f"{path} cannot be unpacked", context=str(error)[:300]) from None
        yield layout


def _copy(source: IO[bytes] | None, target: Path, size: int) -> None:
    """Write exactly `size` bytes of `source` to a new file."""
    left = size
    with open(target, "xb") as out:
        while source is not None and left and (chunk := source.read(min(left, _CHUNK))):
            out.write(chunk)
            left -= len(chunk)
    if left:
        raise ToolError("the database's archive is cut", reference="database-archive")
