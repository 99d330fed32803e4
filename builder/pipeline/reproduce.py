"""Reproduce: a published image → the same image built again from its registry alone, or why not.

The numbers are those of `stages/open_kit.py`. Nothing that is kept here from other runs is used: the
state directory, the pool and the catalogue of a rebuild are new and empty.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Protocol

from builder.errors import DefinitionError, LockError, RegistryError, ToolError, UsageError
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.step import Step
from builder.oci.client import RegistryClient
from builder.pipeline.build import Builder, Engine, Pool
from builder.pipeline.explained import explained
from builder.pipeline.kits import kit_versions
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.timing import Stages
from builder.report import Reporter
from builder.signing.collect import manifest_at
from builder.signing.inputs import Inputs
from builder.signing.refusal import refuse
from builder.stages.compare import Difference
from builder.stages.define import load_catalogue
from builder.stages.finish import input_of
from builder.stages.open_kit import OpenedKit, check_packages, fetch_packages, open_kit, write_catalogue
from builder.store import Store

_HINT = "do not use this image: its kit lies"
_SHOWN_MAX = 20  # platforms of an index that a message names


class Workbench(Protocol):
    """What a rebuild is made with; the command line puts it together."""

    def release(self) -> str:
        """Which goldsmith this is."""

    def pool(self, store: Store) -> Pool:
        """A pool over a state directory, with no mirror behind it."""

    def steps(self) -> Mapping[str, Step]:
        """The steps of extensions, by id."""

    def engines(self, catalogue: Catalogue, store: Store, kit: OpenedKit) -> Sequence[Engine]:
        """The engines; one that needs an assembler brings its packages into the store from the kit."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild came to: digests of platform manifests, published and rebuilt, and the first difference.

    `explanation` goes from the outside in and is empty when everything is the same; `left_out` are the
    platforms that the image is defined for and does not have: they were not built.
    """

    where: Reference
    inputs: Inputs
    published: Mapping[Platform, Digest]
    rebuilt: Mapping[Platform, Digest]
    left_out: tuple[Platform, ...]
    index: Digest
    engines: tuple[str, ...]
    explanation: tuple[Difference, ...]
    fetched_bytes: int
    seconds: Mapping[str, float]

    @property
    def same(self) -> bool:
        """Whether every digest is the published one."""
        return self.index == self.where.digest and self.rebuilt == self.published


def reproduce(
    client: RegistryClient,
    where: Reference,
    inputs: Inputs,
    bench: Workbench,
    store: Store,
    work: Path,
    reporter: Reporter,
) -> Rebuilt:
    """Rebuild the image at `where` (its digest is the index) in the empty `store`, files below `work`.

    Raises EvidenceRefused for a kit that lies, RegistryError when something cannot be had,
    ToolError when this version builds otherwise, UsageError when `where` is one platform of an image,
    and what building raises.
    """
    stages = Stages(inputs.ref, reporter)
    with stages.stage("kit"):
        published = _listed(client, where, inputs)
        kit = open_kit(client, where, inputs)
        _check_versions(kit, inputs)
        catalogue, chain = _prepared(kit, inputs, write_catalogue(kit, work / "catalogue"), bench.steps())
        sections = [c.lock for item in chain for c in item.contexts.values()]
        locked = check_packages(kit, sections, inputs)  # 5.
        _check_input(kit, chain, inputs, bench.release())  # 6.
    with stages.stage("fetch"):
        fetched = fetch_packages(client, kit, locked, store.create().pool)  # 7.
    builder = Builder(store, bench.pool(store), bench.engines(catalogue, store, kit))
    wanted = [_only(item, published) for item in chain]
    image, _ = builder.chain(wanted, lambda ref: stages if ref == inputs.ref else Stages(ref, reporter))
    rebuilt = {x.platform: x.manifest.digest for x in image.platforms}
    explanation: tuple[Difference, ...] = ()
    if image.digest != where.digest:
        with stages.stage("compare"):
            explanation = explained(client, where, published, image, work / "published")
    return Rebuilt(
        where,
        inputs,
        {platform: one.digest for platform, one in published.items()},
        rebuilt,
        tuple(sorted(chain[-1].contexts.keys() - published.keys())),
        image.digest,
        builder.names,
        explanation,
        fetched,
        dict(stages.seconds),
    )


def _prepared(
    kit: OpenedKit, inputs: Inputs, root: Path, steps: Mapping[str, Step]
) -> tuple[Catalogue, list[Prepared]]:
    """The image and those below it, oldest first; they are exactly those of the documents."""
    known: dict[str, Prepared] = {}
    try:
        catalogue = load_catalogue(root, steps)
        target = catalogue.find(kit.config.ref)
        chain = (target, *catalogue.ancestors(target))
        prepared = [prepare(catalogue, one, known) for one in reversed(chain)]
    except (DefinitionError, LockError, UsageError) as error:
        refuse(
            "kit-unusable",
            "nothing can be built of the kit's files here",
            context=f"{error.message}\n{error.context}",
            hint=f"goldsmith {inputs.tools.get('goldsmith', 'of that time')} built it, with its extensions: "
            "if it is the same there, do not use this image",
        )
    if [t.ref for t in chain] != [d.ref for d in kit.documents]:
        there = ", ".join(t.ref for t in chain)
        refuse("kit-malformed", "the kit has documents of other images", context=there, hint=_HINT)
    return catalogue, prepared


def _check_versions(kit: OpenedKit, inputs: Inputs) -> None:
    """6. what decides bytes is here as it was there."""
    if kit.config.versions != kit_versions():
        raise ToolError(
            "this goldsmith builds otherwise than the one that built the image",
            context=f"here: {', '.join(kit_versions())}\nthere: {', '.join(kit.config.versions)}",
            hint=f"use goldsmith {inputs.tools.get('goldsmith', 'of that time')}, which built it",
            reference="other-versions",
        )


def _check_input(kit: OpenedKit, chain: Sequence[Prepared], inputs: Inputs, here: str) -> None:
    """6. the same files and packages give the same input."""
    for document, prepared in zip(kit.documents, reversed(chain), strict=True):
        rendered = {str(p): dict(c.files) for p, c in prepared.contexts.items()}
        if rendered != document.rendered:
            where = _other(document.rendered, rendered)
            _refuse_another_release(inputs, here, where)
            refuse(
                "kit-other-context",
                "the kit's rendered context is not what its templates give",
                context=where,
                hint=_HINT,
            )
    if input_of(chain[-1].input_hash, inputs.locks, chain[-1].contexts) != inputs.input_hash:
        _refuse_another_release(inputs, here, inputs.input_hash)
        refuse(
            "kit-other-input",
            "the kit gives another input than the image was built of",
            context=inputs.input_hash,
            hint=_HINT,
        )


def _refuse_another_release(inputs: Inputs, here: str, where: str) -> None:
    """What another release makes of the same files may differ: that is not taken, and no proof of a lie."""
    there = inputs.tools.get("goldsmith", "of that time")
    if there != here:
        raise ToolError(
            "this goldsmith makes something else of the kit than the one that built the image",
            context=where,
            hint=f"use goldsmith {there}, which built it; if it is the same there, do not use this image",
            reference="other-versions",
        )


def _other(there: Mapping[str, Mapping[str, bytes]], here: Mapping[str, Mapping[str, bytes]]) -> str:
    """The first rendered file that differs."""
    for platform in sorted({*there, *here}):
        one, two = there.get(platform, {}), here.get(platform, {})
        for path in sorted({*one, *two}):
            if one.get(path) != two.get(path):
                return f"{platform}: {path}"[:200]
    return ""


def _listed(client: RegistryClient, where: Reference, inputs: Inputs) -> dict[Platform, Descriptor]:
    """The manifests that the index lists: one for each platform that the provenance names, and no more."""
    index, _, _ = manifest_at(client, where)
    if not index.is_index:
        raise UsageError(
            f"{where} is one platform of an image",
            hint="a kit is of the whole image: name it by its tag, or by the digest of its index",
        )
    found = {d.platform: d for d in index.manifests}
    if len(found) != len(index.manifests) or found.keys() != inputs.locks.keys():
        listed = ", ".join(str(d.platform or "unknown") for d in index.manifests[:_SHOWN_MAX])
        refuse(
            "other-platforms",
            "the index lists other platforms than the provenance",
            context=f"listed: {listed}\nprovenance: {', '.join(map(str, sorted(inputs.locks)))}",
            hint="do not use this image: it is not the one that its builder says",
        )
    return {platform: d for platform, d in found.items() if platform is not None}


def _only(prepared: Prepared, platforms: Collection[Platform]) -> Prepared:
    """The same for those platforms alone: what was left out of an image is not built."""
    contexts = {p: context for p, context in prepared.contexts.items() if p in platforms}
    input_hash = input_of(prepared.input_hash, contexts, prepared.contexts)
    return replace(prepared, contexts=contexts, input_hash=input_hash)


def no_mirror() -> NoReturn:
    """In the place of a mirror: a rebuild has what its kit brought, and asks nobody else."""
    raise RegistryError(
        "a package is not in the kit, and a rebuild asks nobody but the registry",
        hint="the kit is not whole: publish the image again",
        reference="kit-incomplete",
    )
