"""A registry with published candidates, and an office that decides on them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import registry
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.model.sources import Sources
from builder.oci.client import RegistryClient
from builder.policy.schema import Policy
from builder.signing.keys import APPROVER, Keys, RoleSigner, open_signer
from builder.signing.trust import Trust
from builder.stages.judge import load_policy
from builder.stages.publish import publish
from registry.audit.ledger import Ledger
from registry.promotion.office import Office
from registry.promotion.promote import Promotion, promote
from tests.support.evidence import PASSPHRASE, SOURCES, World, approval, evidence, new_keys
from tests.support.images import AMD64, NOW, built_image, package
from tests.support.registry_simulator import Content, Simulator

REPO, CANDIDATE = "python", "candidate/python"


NOBODY = {"definition": 0, "template": 0, "lock": 0, "first": 0, "import_": 0}


def policy(**changes: Any) -> Policy:
    """The baseline, content with the one check of the tests' evidence, and with nobody's approval."""
    found = load_policy(Path(registry.__file__).parent / "policies" / "baseline.yaml")
    checks = found.data.checks.model_copy(update={"required": ("user",), "required_runtime": ()})
    nobody = found.data.approvals.model_copy(update=NOBODY)
    update = {"checks": checks, "approvals": nobody, **changes}
    return Policy(found.data.model_copy(update=update), found.digest)


def approver(keys: Path) -> RoleSigner:
    """The approver's signer of a key folder."""
    return open_signer(keys, APPROVER, {}, PASSPHRASE)


@dataclass
class Shelf:
    """What was published and promoted before in one registry, to be had again at once.

    Signatures hold the registry's address, so what lies here is good for this registry alone.
    """

    folder: Path
    sim: Simulator
    keys: Keys = field(init=False)
    candidates: dict[tuple[object, ...], tuple[World, Content]] = field(default_factory=dict)
    promotions: dict[tuple[object, ...], tuple[Promotion, Content, Mapping[str, bytes]]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self.keys = new_keys(self.folder / "keys")


@dataclass
class House:
    """Keys, ledger, and images below `folder`, published to the registry of `client`.

    With a shelf, candidates and promotions that were made before are taken from it.
    """

    folder: Path
    client: RegistryClient
    shelf: Shelf | None = None
    keys: Keys = field(init=False)
    trust: Trust = field(init=False)
    policy: Policy = field(default_factory=policy)
    now: dt.datetime = NOW
    made: int = 0
    past: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = self.shelf.keys if self.shelf else new_keys(self.folder / "keys")
        self.trust = Trust.load((self.shelf or self).folder / "keys")
        (self.folder / "work").mkdir(exist_ok=True)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger", self.trust)

    def office(self, **changes: Any) -> Office:
        """An office at this moment."""
        made = Office(
            self.client,
            self.keys,
            self.trust,
            self.ledger,
            self.policy,
            "ann@host",
            self.now,
            (self.client.host,),
            self.folder / "work",
        )
        return replace(made, **changes)

    def candidate(self, content: str = "hello", made: Sources | None = SOURCES, **options: Any) -> World:
        """A new image with that content, made of that, signed and published as a candidate."""
        key = ("candidate", content, repr(made), repr(sorted(options.items())), self.now)
        self.past.append(key)
        if self.shelf is None:
            return self._publish(content, made, options)
        sim = self.shelf.sim
        if key not in self.shelf.candidates:
            before, faults = sim.content(), list(sim.faults)
            sim.restore()
            world = self._publish(content, made, options)
            self.shelf.candidates[key] = (world, sim.content())
            sim.restore(before)
            sim.faults.extend(faults)
        here, stored = self.shelf.candidates[key]
        sim.add(stored)
        return here

    def _publish(self, content: str, made: Sources | None, options: dict[str, Any]) -> World:
        self.made += 1
        folder = self.folder
        if self.shelf is not None:
            folder, self.made = self.shelf.folder, len(self.shelf.candidates)
        files = ({"etc/os-release": b"base\n"}, {"hello": content.encode()})
        image = built_image(folder / f"image-{self.made}", files=files, **{"platforms": (AMD64,), **options})
        # Packages of the platform's own architecture, as a lock has them.
        own = (
            replace(p, packages=(replace(package(), architecture=p.platform.debian),))
            for p in image.platforms
        )
        image = replace(image, platforms=tuple(own))
        proofs = tuple(evidence(p) for p in image.platforms)
        repository = f"{self.client.host}/candidate/{image.target.definition.name}"
        here = World(
            image, proofs, approval(image, proofs, self.now), self.keys, self.trust, repository, made
        )
        publish(here.signed(), self.client)
        return here

    def again(self, here: World) -> World:
        """The same image with a new verdict of this moment, published."""
        newer = replace(here, verdict=approval(here.image, here.proofs, self.now))
        publish(newer.signed(), self.client)
        return newer

    def at(self, repo: str, tag: str | None = None, digest: Digest | None = None) -> Reference:
        """A reference in the registry."""
        return Reference(self.client.host, repo, tag, digest)

    def promote(self, here: World, **changes: Any) -> Promotion:
        """Promote a candidate by its digest."""
        where = self.at(f"candidate/{here.image.target.definition.name}", digest=here.image.digest)
        return promote(self.office(**changes), where, here.image.target, "it passed")

    def promoted(self, here: World) -> Promotion:
        """The same as what happened before the test begins: taken from the shelf when it lies there.

        Only for a house in which nothing but candidates and such promotions happened.
        """
        self.past.append(("promoted", here.image.digest, self.now))
        if self.shelf is None:
            return self.promote(here)
        key, folder, sim = tuple(self.past), self.ledger.path.parent, self.shelf.sim
        if key not in self.shelf.promotions:
            done = self.promote(here)
            files = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
            self.shelf.promotions[key] = (done, sim.content(), files)
            return done
        done, stored, files = self.shelf.promotions[key]
        sim.restore(stored)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return done
