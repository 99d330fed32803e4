"""Kits: a prepared image → the rebuild kit that is published with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from builder.errors import ChangedMeanwhile
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.image import BuiltImage, Descriptor
from builder.model.kit import Content, KitDocument, PackedKit
from builder.model.lock import LockedPackage
from builder.oci.kit import document_bytes, pack
from builder.pipeline.prepare import Prepared, prepare, versions
from builder.stages.finish import input_of
from builder.stages.pack_kit import document
from builder.stages.render import used_templates


class Pool(Protocol):
    """Where verified packages are."""

    def fetch(self, packages: Sequence[LockedPackage]) -> None:
        """Bring packages into the pool."""

    def path(self, package: LockedPackage) -> Path:
        """A package's file, checked."""


def kit_versions() -> tuple[str, ...]:
    """The versions of the parts that decide an image's bytes, as a kit states them."""
    return tuple(f"{name}: {value}" for name, value in versions().items())


def make_kit(
    catalogue: Catalogue,
    image: BuiltImage,
    pool: Pool,
    tools: Mapping[str, str],
    assembler: tuple[Descriptor, Content] | None,
) -> PackedKit:
    """The kit of a finished image: its own document and those of the images below, with their packages.

    Raises as preparing does, ChangedMeanwhile when the catalogue is not what the image was built of,
    LockError when a package is not what was locked, and ToolError.
    """
    known: dict[str, Prepared] = {}
    chain = (image.target, *catalogue.ancestors(image.target))
    documents: list[tuple[KitDocument, Mapping[LockedPackage, Path]]] = []
    parent: tuple[str, Digest] | None = None
    for target in reversed(chain):
        prepared = prepare(catalogue, target, known)
        if target.ref == image.target.ref:
            _refuse_another_input(prepared, image)
        contexts = prepared.contexts
        templates = used_templates(catalogue.root / "templates", [target.definition.template])
        made = document(catalogue, target, contexts, templates, parent)
        parent = (made.ref, Digest.of(document_bytes(made)))
        packages = {p for context in contexts.values() for p in context.lock.packages}
        pool.fetch(tuple(packages))
        documents.insert(0, (made, {package: pool.path(package) for package in packages}))
    return pack(image.index, documents, assembler, tools, kit_versions())


def _refuse_another_input(prepared: Prepared, image: BuiltImage) -> None:
    """Locks and templates are read again for the kit: they have to give what the image was built of."""
    built = [platform.platform for platform in image.platforms]
    if input_of(prepared.input_hash, built, prepared.contexts) != image.input_hash:
        raise ChangedMeanwhile([f"images/{image.target.definition.name}"])
