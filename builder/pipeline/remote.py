"""Building elsewhere: what a worker is told, what it gives back, and how we take that in.

A worker builds, checks and scans, and pushes the image by its digest; it holds no signing key, and
nobody sees what it pushed. Judging, signing and the tags stay here. Layers go through the registry;
here come only manifests, configurations and the evidence. Doing an order twice does no harm: the
same input gives the same digest.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from builder.errors import GoldsmithError, RegistryError
from builder.model.digest import Digest
from builder.model.evidence import Evidence
from builder.model.image import BuiltImage, Descriptor
from builder.model.lock import LockSection
from builder.oci.client import RegistryClient
from builder.oci.fetching import fetch_layout
from builder.oci.layout import create_layout, read_blob, write_blob, write_layout_index
from builder.pipeline.build import Builder
from builder.pipeline.prepare import Prepared
from builder.pipeline.release import Assayers, assay
from builder.pipeline.timing import Stages
from builder.report import Silent
from builder.stages.finish import reread
from builder.stages.publish import push_image, repository
from builder.store import Store, disk_faults


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told: the image and those below it, the oldest first, and what to work with.

    `digests` are those of the images below, as they are in the registry. `database` is an OCI
    reference by digest, `age_days_max` how old it may be.
    """

    chain: tuple[Prepared, ...]
    digests: Mapping[str, Digest]
    engines: tuple[str, ...]
    assembler: LockSection | None
    registry: str
    database: str
    age_days_max: float
    now: dt.datetime


@dataclass(frozen=True, slots=True)
class Made:
    """What a worker gives back: the index, all small blobs, the evidence, and the seconds by stage."""

    index: Descriptor
    blobs: tuple[bytes, ...]
    evidence: tuple[Evidence, ...]
    anew: bool
    seconds: Mapping[str, float]


def carry_out(order: Order, builder: Builder, tools: Assayers, client: RegistryClient, store: Store) -> Made:
    """On a worker: build (or take what is there), push by digest, gather the evidence.

    Raises what building and the tools raise.
    """
    image: BuiltImage | None = None
    found: BuiltImage | None = None
    *below, last = order.chain
    stages = Stages(last.target.ref, Silent())
    for item in below:
        image = builder.reuse(item) or fetched(
            item, order.digests[item.target.ref], order.engines, builder, client, store
        )
    found = builder.reuse(last)
    image = found or builder.build(last, image, stages)
    with stages.stage("push"):
        push_image(image, client)
    evidence = assay(last, image, tools, store, stages)
    small = (image.index, *(p.manifest for p in image.platforms), *(p.config for p in image.platforms))
    blobs = tuple(read_blob(image.layout, descriptor) for descriptor in small)
    return Made(image.index, blobs, evidence, found is None, dict(stages.seconds))


def fetched(
    item: Prepared,
    digest: Digest,
    engines: Sequence[str],
    builder: Builder,
    client: RegistryClient,
    store: Store,
) -> BuiltImage:
    """The image of an input out of the registry, whole, kept as if `engines` had built it here.

    Raises RegistryError when it is not there, or is not what was built.
    """
    with disk_faults(), store.scratch("fetch") as work:
        fetch_layout(client, repository(item.target), digest, work / "layout")
        store.images.mkdir(parents=True, exist_ok=True)
        final = store.images / digest.hex
        if final.exists():
            os.replace(final, work / "replaced")
        os.replace(work / "layout", final)
    store.remember(
        "built",
        item.input_hash,
        {"digest": digest, "ref": item.target.ref, "engines": list(engines)},
    )
    image = builder.reuse(item)
    if image is None:
        raise RegistryError(
            f"{item.target.ref} from the registry is not what was built",
            context=digest,
            hint="the same input must give the same image; see whether all workers have one version",
        )
    return image


def made_elsewhere(
    item: Prepared, builder: Builder, client: RegistryClient, store: Store
) -> BuiltImage | None:
    """What a cluster made of this input before, brought from the registry; None when it cannot be had.

    Whether it is what was built is checked by its digest and by reading it again.
    """
    record = store.record("made", item.input_hash)
    if record is None or not set(builder.names) <= set(record.get("engines", [])):
        return None
    try:
        return fetched(item, Digest(record["digest"]), record["engines"], builder, client, store)
    except (GoldsmithError, KeyError, TypeError, ValueError):
        return None


class Elsewhere:
    """Has images made by `submit`; keeps of each what is needed to judge, sign and tag it."""

    def __init__(
        self,
        store: Store,
        order: Callable[[tuple[Prepared, ...], Mapping[str, Digest]], Order],
        submit: Callable[[Order], Future[Made]],
        cancel: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._order, self._submit, self.cancel = store, order, submit, cancel

    def known(self, prepared: Prepared, engines: Sequence[str]) -> BuiltImage | None:
        """The image that was made of this input before: without its layers."""
        record = self._store.record("made", prepared.input_hash)
        if record is None or not set(engines) <= set(record.get("engines", [])):
            return None
        try:
            digest = Digest(record["digest"])
            image = self._read(prepared, self._folder(digest))
        except (GoldsmithError, KeyError, ValueError, OSError):
            return None
        return image if image.digest == digest else None

    def make(
        self, chain: tuple[Prepared, ...], digests: Mapping[str, Digest], engines: Sequence[str]
    ) -> tuple[BuiltImage, Made]:
        """Have the last image of `chain` made; raises what the worker raised, or ToolError."""
        made = self._submit(self._order(chain, digests)).result()
        last = chain[-1]
        folder = create_layout(self._folder(made.index.digest))
        for data in made.blobs:
            write_blob(folder, data)
        write_layout_index(folder, [made.index])
        image = self._read(last, folder)
        record = {"digest": image.digest, "ref": last.target.ref, "engines": list(engines)}
        self._store.remember("made", last.input_hash, record)
        return image, made

    def _folder(self, digest: Digest) -> Path:
        return self._store.root / "made" / digest.hex

    def _read(self, prepared: Prepared, folder: Path) -> BuiltImage:
        return reread(
            prepared.target,
            folder,
            prepared.input_hash,
            prepared.version,
            prepared.locks,
            prepared.packages,
        )
