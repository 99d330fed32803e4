"""What is known of an image that was built here and published nowhere: its content, and what was found of it.

The findings and checks are those that this machine kept; nobody signed them, and they are told as that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from builder.errors import GoldsmithError
from builder.model.image import BuiltImage, PlatformImage
from builder.model.kept_evidence import KeptEvidence
from builder.oci.layout import read_blob_json
from builder.oci.rootfs import image_tree
from registry.diff.accounts import image_accounts
from registry.diff.facts import Basis, ImageFacts, PlatformFacts, config_texts, with_checks, with_scan
from registry.diff.files import tree_texts


def built_image(image: BuiltImage, kept: KeptEvidence | None = None) -> ImageFacts:
    """The facts of a finished build, with what was `kept` of it; without that, nobody looked.

    Raises RegistryError when its layout is damaged.
    """
    waivers = kept.waivers if kept else None
    return ImageFacts(
        where=f"{image.target.ref} (built here)",
        ref=image.target.ref,
        digest=image.digest,
        index_size=image.index.size,
        platforms={str(p.platform): _with_evidence(_platform(p), kept) for p in image.platforms},
        waivers=waivers or (),
        waivers_by=Basis.NONE if waivers is None else Basis.LOCAL,
    )


def built_trees(image: BuiltImage) -> Mapping[str, Mapping[str, str]]:
    """By platform, each path and what is there, as text."""
    return {str(p.platform): tree_texts(image_tree(p)) for p in image.platforms}


def built_accounts(image: BuiltImage) -> Mapping[str, Mapping[str, str]]:
    """By platform, each account and group, as text."""
    return {str(p.platform): image_accounts(p) for p in image.platforms}


def _with_evidence(facts: PlatformFacts, kept: KeptEvidence | None) -> PlatformFacts:
    facts = replace(facts, scan_by=Basis.NONE, checks_by=Basis.NONE)
    if kept and facts.digest in kept.scans:
        facts = _if_whole(with_scan, facts, kept.scans[facts.digest])
    if kept and facts.digest in kept.checks:
        facts = _if_whole(with_checks, facts, kept.checks[facts.digest])
    return facts


def _if_whole(
    add: Callable[[PlatformFacts, Mapping[str, Any], Basis], PlatformFacts],
    facts: PlatformFacts,
    report: Mapping[str, Any],
) -> PlatformFacts:
    """With a report, if it can be read: a damaged one is as good as none."""
    try:
        return add(facts, report, Basis.LOCAL)
    except (GoldsmithError, AttributeError, KeyError, TypeError, ValueError):
        return facts


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
