"""Open a kit: a published image → the catalogue and the packages that it was built of, or a refusal.

Nothing of a kit is believed. The procedure; the numbers stand in the code (here and in
`pipeline/reproduce.py`):

 1. The kit is the one that the builder's provenance names, by digest, and its subject is the image.
 2. Sizes, counts, types and names are within bounds before anything is fetched or written.
 3. Its documents are chained from the image down to the oldest one below, each by its digest.
 4. Definition, lock sections and templates are those of the provenance; two documents that hold
    one file hold the same.
 5. The locks name the packages of the provenance, and the files of packages are not larger than those.
 6. What is rendered from the files here, and the versions of the parts that decide bytes, give the
    input hash of the provenance.
 7. The packages are exactly those that the locks name: none is missing, nothing is added, and each
    has the size and the SHA-256 of the lock, when it comes and when it is used.

Raises EvidenceRefused for a kit that lies, RegistryError for one that cannot be had or read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ParamSpec, TypeVar

from builder.errors import LockError, RegistryError, UsageError
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.kit import (
    ASSEMBLER_TYPE,
    DOCUMENT_TYPE,
    PACKAGES_TYPE,
    TITLE_ANNOTATION,
    KitDocument,
    assembler_title,
)
from builder.model.lock import ImageLock, LockedPackage, LockSection
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.kit import CONFIG_MAX, DOCUMENT_MAX, KitConfig, check_kit, parse_config, parse_document
from builder.oci.package_file import size_max, unpack
from builder.signing.collect import manifest_at
from builder.signing.inputs import Inputs, named
from builder.signing.refusal import quoted, refuse
from builder.store import write_atomically

P = ParamSpec("P")
T = TypeVar("T")
_HINT = "do not use this image: its kit does not say what it was built of"


@dataclass(frozen=True, slots=True)
class OpenedKit:
    """A kit whose documents were read; its packages are still in the registry.

    `documents` begin with the image's own; `packages` are files of them.
    """

    where: Reference
    digest: Digest
    config: KitConfig
    documents: tuple[KitDocument, ...]
    packages: tuple[Descriptor, ...]
    assembler: Descriptor | None


def open_kit(client: RegistryClient, where: Reference, inputs: Inputs) -> OpenedKit:
    """Steps 1 to 4 for the image at `where` (its digest is the index)."""
    if where.digest is None:
        raise ValueError("a kit belongs to a digest")
    # 1. and 2.
    manifest, digest, _ = manifest_at(client, where.with_digest(inputs.kit))
    _read(check_kit, manifest, where.digest)
    layers = manifest.layers
    if manifest.config is None:
        refuse("kit-malformed", "the kit has no configuration", hint=_HINT)
    config = _read(parse_config, client.get_blob_bytes(where.name, manifest.config, CONFIG_MAX))
    blobs = {x.digest: x for x in layers if x.media_type == DOCUMENT_TYPE}
    if tuple(blobs) != config.documents or len(blobs) != sum(x.media_type == DOCUMENT_TYPE for x in layers):
        refuse("kit-malformed", "the kit lists other documents than it holds", hint=_HINT)
    documents = tuple(
        _read(parse_document, client.get_blob_bytes(where.name, blobs[one], DOCUMENT_MAX))
        for one in config.documents
    )
    # 3. and 4.
    _check_chain(config, documents, inputs)
    _check_files(documents, inputs)
    packages = tuple(x for x in layers if x.media_type == PACKAGES_TYPE)
    if len(packages) > len(documents):
        refuse("kit-malformed", "the kit has more files of packages than images", hint=_HINT)
    assemblers = [x for x in layers if x.media_type == ASSEMBLER_TYPE]
    if len(assemblers) > 1:
        refuse("kit-malformed", "the kit has two assemblers", hint=_HINT)
    assembler = assemblers[0] if assemblers else None
    return OpenedKit(where, digest, config, documents, packages, assembler)


def _read(parse: Callable[P, T], *what: P.args, **how: P.kwargs) -> T:
    """What a reader of the kit's form says; the bytes are here, so what it refuses is bad, and not away."""
    try:
        return parse(*what, **how)
    except RegistryError as error:
        refuse(error.reference, error.message, context=error.context, hint=error.hint)


def check_packages(
    kit: OpenedKit, sections: Iterable[LockSection], inputs: Inputs
) -> dict[str, LockedPackage]:
    """Step 5: the packages that the kit has to hold, by SHA-256 in hexadecimal.

    `sections` are those of the image and of all images below it, on all platforms. An image below may
    have platforms that this one lacks: those are part of the input (step 6), not of the provenance.
    """
    locked: dict[str, LockedPackage] = {}
    said: set[tuple[str, str]] = set()
    for section in sections:
        locked |= {p.sha256: p for p in section.packages}
        if section.platform in inputs.locks:
            said |= {named(p, section.suite) for p in section.packages}
    if said != inputs.packages:
        other = sorted(f"{uri} {sha[:12]}" for uri, sha in said ^ inputs.packages)
        refuse(
            "kit-other-lock",
            "the kit's locks name other packages than the provenance",
            context="\n".join(other[:5]),
            hint=_HINT,
        )
    if sum(blob.size for blob in kit.packages) > size_max(locked, len(kit.packages)):
        refuse("kit-malformed", "the kit's files are larger than the packages of its locks", hint=_HINT)
    return locked


def write_catalogue(kit: OpenedKit, root: Path) -> Path:
    """Write the kit's files as a catalogue below `root`; their names were checked."""
    for document in kit.documents:
        for path, data in document.files.items():
            write_atomically(root / path, data)
    return root


def fetch_packages(
    client: RegistryClient, kit: OpenedKit, locked: Mapping[str, LockedPackage], folder: Path
) -> int:
    """Step 7: bring the packages into a pool's folder; returns the bytes that were fetched."""
    found: set[str] = set()
    for blob in kit.packages:
        found |= _fetch(client, kit, blob, locked, folder)
    _refuse_missing(locked, found)
    return sum(blob.size for blob in kit.packages)


def fetch_assembler(client: RegistryClient, kit: OpenedKit, section: LockSection, folder: Path) -> None:
    """Step 7 for the assembler's packages, which `section` names; raises UsageError without any."""
    if kit.assembler is None:
        raise UsageError("the kit brings no assembler", hint="use --engine direct")
    title = kit.assembler.annotations.get(TITLE_ANNOTATION)
    if title != assembler_title(section.platform):
        raise UsageError(
            f"the kit brings no assembler for {section.platform}",
            context=f"it brings {quoted(title)}: that of the machine that built the image",
            hint="use --engine direct, which needs none",
        )
    locked = {package.sha256: package for package in section.packages}
    if kit.assembler.size > size_max(locked, 1):
        refuse("kit-malformed", "the kit's assembler is larger than the packages of its lock", hint=_HINT)
    _refuse_missing(locked, _fetch(client, kit, kit.assembler, locked, folder))


def _fetch(
    client: RegistryClient,
    kit: OpenedKit,
    blob: Descriptor,
    locked: Mapping[str, LockedPackage],
    folder: Path,
) -> frozenset[str]:
    """The packages of one file of the kit, written to `folder`; returns their SHA-256."""
    file = folder / f"{blob.digest.hex}.tar"
    try:
        client.get_blob(kit.where.name, blob, file)
        return unpack(file, locked, folder)
    except LockError as error:
        refuse(
            "kit-malformed", "the kit has other packages than its locks", context=error.context, hint=_HINT
        )
    finally:
        file.unlink(missing_ok=True)


def _refuse_missing(locked: Mapping[str, LockedPackage], found: Collection[str]) -> None:
    if missing := sorted(p.name for sha, p in locked.items() if sha not in found):
        refuse("kit-incomplete", "the kit lacks packages of the lock", context=", ".join(missing), hint=_HINT)


def _check_chain(config: KitConfig, documents: tuple[KitDocument, ...], inputs: Inputs) -> None:
    """3. from the image down, each document names the next by its digest."""
    if config.ref != inputs.ref or documents[0].ref != inputs.ref:
        refuse("kit-other-image", "the kit is of another image", context=documents[0].ref, hint=_HINT)
    following = [*((d.ref, digest) for d, digest in zip(documents, config.documents, strict=True)), None]
    for document, below in zip(documents, following[1:], strict=True):
        if document.parent != below:
            refuse(
                "kit-malformed", "the kit's documents do not hang together", context=document.ref, hint=_HINT
            )


def _check_files(documents: tuple[KitDocument, ...], inputs: Inputs) -> None:
    """4. what each document may hold, and what the provenance says of it."""
    merged: dict[str, bytes] = {}
    for document in documents:
        own = f"images/{document.ref.partition(':')[0]}/"
        for path, data in document.files.items():
            if not path.startswith((own, "templates/")):
                refuse("kit-malformed", "a document has a file of another image", context=path, hint=_HINT)
            if merged.setdefault(path, data) != data:
                refuse("kit-malformed", "two documents disagree on a file", context=path, hint=_HINT)
            if path.endswith(".j2") and Digest.of(data) != inputs.templates.get(path):
                refuse("kit-other-template", "a template is another one", context=path, hint=_HINT)
    if both := sorted(
        {str(above) for path in merged for above in PurePosixPath(path).parents} & merged.keys()
    ):
        refuse("kit-malformed", "the kit has a folder in the place of a file", context=both[0], hint=_HINT)
    own = f"images/{inputs.ref.partition(':')[0]}"
    definition = merged.get(f"{own}/image.yaml")
    if definition is None or Digest.of(definition) != inputs.definition:
        refuse("kit-other-definition", "the definition is another one", context=inputs.ref, hint=_HINT)
    try:
        lock = ImageLock.parse(merged.get(f"{own}/image.lock", b"").decode("utf-8", "replace"))
    except LockError as error:
        refuse("kit-other-lock", "the lock cannot be read", context=error.message, hint=_HINT)
    sections = {s.platform: s.digest for s in lock.sections}
    # A platform that was left out of the image is locked all the same: it is a part of the input (step 6).
    if not inputs.locks or any(sections.get(p) != digest for p, digest in inputs.locks.items()):
        refuse("kit-other-lock", "the lock is another one", context=inputs.ref, hint=_HINT)
