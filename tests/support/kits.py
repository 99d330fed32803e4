"""A small catalogue of two images, built for real, and published with their rebuild kits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from builder.engines.direct import DirectEngine
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.image import BuiltImage, Target
from builder.model.kit import PackedKit
from builder.model.lock import ImageLock, LockedPackage, LockSection, ParentPin
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.pipeline.build import Builder
from builder.pipeline.kits import make_kit
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.timing import Stages
from builder.report import Silent
from builder.signing.keys import Keys
from builder.signing.kits import with_kit
from builder.signing.predicates import provenance
from builder.signing.trust import Trust
from builder.stages.define import load_catalogue
from builder.stages.lock import intent
from builder.stages.publish import publish
from builder.stages.sign import sign
from builder.store import Store, file_digest
from builder.tools.pool import Pool
from builder.version import version
from tests.support.catalogue import image, stream, write
from tests.support.debs import directory, make_deb, member
from tests.support.evidence import approval, evidence, shared_keys
from tests.support.images import NOW
from tests.support.memory_client import MemoryClient

TOOLS = {"goldsmith": version(), "python": "3"}
REF = "app:1"


@dataclass
class KitWorld:
    """base:1 and app:1 in a catalogue below `folder`, with their packages in a pool."""

    folder: Path
    client: Any = field(default_factory=MemoryClient)
    keys: Keys = field(default_factory=lambda: shared_keys()[0])
    trust: Trust = field(default_factory=lambda: shared_keys()[1])
    below: tuple[str, ...] = ("linux/amd64",)  # the platforms of base
    own: tuple[str, ...] = ("linux/amd64",)  # those of app

    def __post_init__(self) -> None:
        root = write(
            self.folder / "catalogue",
            image("base", streams={"1": stream("libhello")}, platforms=[*self.below]),
            image("app", **{"from": "base"}, platforms=[*self.own]),
        )
        (root / "templates" / "_partials").mkdir(exist_ok=True)
        (root / "templates" / "_partials" / "assemble.sh.j2").write_text("true\n")
        self.store = Store(self.folder / "state").create()
        self.packages = [
            self._deb("libhello", b"library\n"),
            self._deb("hello", b"program\n"),
        ]
        self.catalogue: Catalogue = load_catalogue(root)
        pins: dict[Platform, LockSection] = {}
        for target, package in zip(self.catalogue.targets(), self.packages, strict=True):
            sections = []
            for platform in target.platforms:
                pin = ParentPin("base:1", "runtime", pins[platform].digest) if platform in pins else None
                own = (
                    package
                    if platform.debian == "amd64"
                    else self._deb(package.name, b"arm", platform.debian)
                )
                sections.append(LockSection("1", "runtime", platform, "trixie", intent(target), pin, (own,)))
            pins = {section.platform: section for section in sections}
            (target.directory / "image.lock").write_text(ImageLock(tuple(sections)).text())

    def _deb(self, name: str, content: bytes, architecture: str = "amd64") -> LockedPackage:
        entries = [
            directory("./usr/"),
            directory("./usr/lib/"),
            member(f"./usr/lib/{name}", content),
            member(f"./usr/share/doc/{name}/copyright", b"GPL"),
        ]
        control = (
            f"Package: {name}\nSource: {name}\nVersion: 1.0-1\n"
            f"Architecture: {architecture}\nDescription: test\n"
        )
        package, path = make_deb(self.folder, name, entries, control=control)
        path.rename(self.store.pool / f"{package.sha256}.deb")
        return replace(package, architecture=architecture)

    @property
    def pool(self) -> Pool:
        return Pool(self.store, _no_mirror)

    @property
    def target(self) -> Target:
        return self.catalogue.find(REF)

    @cached_property
    def image(self) -> BuiltImage:
        """app:1, built from the catalogue."""
        known: dict[str, Prepared] = {}
        chain = [prepare(self.catalogue, self.catalogue.find(ref), known) for ref in ("base:1", REF)]
        builder = Builder(self.store, self.pool, [DirectEngine()])
        return builder.chain(chain, lambda ref: Stages(ref, Silent()))[0]

    @cached_property
    def kit(self) -> PackedKit:
        """Its kit."""
        return make_kit(self.catalogue, self.image, self.pool, TOOLS, None)

    def publish(
        self,
        kit: PackedKit | None = None,
        change: Callable[[dict[str, Any]], dict[str, Any]] = lambda origin: origin,
        image: BuiltImage | None = None,
    ) -> Reference:
        """Publish app:1 (or `image`) with a kit that its builder named; `change` spoils the provenance."""
        origin = with_kit(change(origin_of(self.catalogue, self.image)), (kit or self.kit).digest)
        return _publish(image or self.image, kit or self.kit, origin, self.client, self.keys, NOW)


def publish_kit(
    catalogue: Catalogue, image: BuiltImage, pool: Any, client: RegistryClient, keys: Keys, now: dt.datetime
) -> Reference:
    """Publish an image that was built from a catalogue, with its kit."""
    kit = make_kit(catalogue, image, pool, TOOLS, None)
    return _publish(image, kit, with_kit(origin_of(catalogue, image), kit.digest), client, keys, now)


def _publish(
    image: BuiltImage,
    kit: PackedKit,
    origin: dict[str, Any],
    client: RegistryClient,
    keys: Keys,
    now: dt.datetime,
) -> Reference:
    proofs = tuple(evidence(p) for p in image.platforms)
    repo = f"candidate/{image.target.definition.name}"
    signed = sign(image, proofs, approval(image, proofs, now), origin, keys, f"{client.host}/{repo}")
    publish(replace(signed, kit=kit), client)
    return Reference(client.host, repo, None, image.digest)


def origin_of(catalogue: Catalogue, image: BuiltImage) -> dict[str, Any]:
    """The provenance of an image, as a release makes it, but for the kit's name."""
    root = catalogue.root
    return provenance(
        image,
        definition=file_digest(image.target.directory / "image.yaml"),
        templates={str(p.relative_to(root)): file_digest(p) for p in (root / "templates").rglob("*.j2")},
        tools=TOOLS,
        parent=("base:1", Digest.of(b"parent")) if image.target.definition.parent else None,
    )


def _no_mirror() -> Any:
    raise AssertionError("nothing but what is here was asked for")
