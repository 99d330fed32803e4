"""A registry with published candidates, and an office that decides on them."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import registry
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.policy.schema import Policy
from builder.signing.keys import Keys
from builder.signing.trust import Trust
from builder.stages.judge import load_policy
from builder.stages.publish import publish
from registry.ledger import Ledger
from registry.office import Office
from registry.promote import Promotion, promote
from tests.support.evidence import World, approval, evidence, new_keys
from tests.support.images import AMD64, NOW, built_image, package

REPO, CANDIDATE = "python", "candidate/python"


NOBODY = {"definition": 0, "template": 0, "lock": 0, "first": 0, "import_": 0}


def policy(**changes: Any) -> Policy:
    """The baseline, content with the one check of the tests' evidence, and with nobody's approval."""
    found = load_policy(Path(registry.__file__).parent / "policies" / "baseline.yaml")
    checks = found.data.checks.model_copy(update={"required": ("user",), "required_runtime": ()})
    nobody = found.data.approvals.model_copy(update=NOBODY)
    update = {"checks": checks, "approvals": nobody, **changes}
    return Policy(found.data.model_copy(update=update), found.digest)


@dataclass
class House:
    """Keys, ledger, and images below `folder`, published to the registry of `client`."""

    folder: Path
    client: RegistryClient
    keys: Keys = field(init=False)
    trust: Trust = field(init=False)
    policy: Policy = field(default_factory=policy)
    now: dt.datetime = NOW
    made: int = 0

    def __post_init__(self) -> None:
        self.keys = new_keys(self.folder / "keys")
        self.trust = Trust.load(self.folder / "keys")
        (self.folder / "work").mkdir(exist_ok=True)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.folder / "ledger", self.trust.verdict)

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

    def candidate(self, content: str = "hello", **options: Any) -> World:
        """A new image with that content, signed and published as a candidate."""
        self.made += 1
        files = ({"etc/os-release": b"base\n"}, {"hello": content.encode()})
        image = built_image(
            self.folder / f"image-{self.made}", files=files, **{"platforms": (AMD64,), **options}
        )
        # Packages of the platform's own architecture, as a lock has them.
        own = (
            replace(p, packages=(replace(package(), architecture=p.platform.debian),))
            for p in image.platforms
        )
        image = replace(image, platforms=tuple(own))
        proofs = tuple(evidence(p) for p in image.platforms)
        repository = f"{self.client.host}/candidate/{image.target.definition.name}"
        here = World(image, proofs, approval(image, proofs, self.now), self.keys, self.trust, repository)
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
