"""What is known of an image that was built here and published nowhere: its content, and nothing attested."""

from __future__ import annotations

from collections.abc import Mapping

from builder.model.image import BuiltImage, PlatformImage
from builder.oci.layout import read_blob_json
from builder.oci.rootfs import image_tree
from registry.diff.accounts import image_accounts
from registry.diff.facts import ImageFacts, PlatformFacts, config_texts
from registry.diff.files import tree_texts


def built_image(image: BuiltImage) -> ImageFacts:
    """The facts of a finished build; nobody has scanned or checked it, so that is not compared.

    Raises RegistryError when its layout is damaged.
    """
    return ImageFacts(
        where=f"{image.target.ref} (built here)",
        ref=image.target.ref,
        digest=image.digest,
        index_size=image.index.size,
        platforms={str(p.platform): _platform(p) for p in image.platforms},
        attested=False,
    )


def built_trees(image: BuiltImage) -> Mapping[str, Mapping[str, str]]:
    """By platform, each path and what is there, as text."""
    return {str(p.platform): tree_texts(image_tree(p)) for p in image.platforms}


def built_accounts(image: BuiltImage) -> Mapping[str, Mapping[str, str]]:
    """By platform, each account and group, as text."""
    return {str(p.platform): image_accounts(p) for p in image.platforms}


def _platform(image: PlatformImage) -> PlatformFacts:
    packages: dict[str, set[str]] = {}
    for package in image.packages:
        packages.setdefault(package.name, set()).add(package.version)
    return PlatformFacts(
        platform=str(image.platform),
        digest=image.manifest.digest,
        layers=tuple(layer.blob for layer in image.layers),
        config_blob=image.config,
        manifest_size=image.manifest.size,
        config=config_texts(read_blob_json(image.layout, image.config)),
        packages={name: tuple(sorted(versions)) for name, versions in sorted(packages.items())},
        diff_ids=tuple(layer.diff_id for layer in image.layers),
    )
