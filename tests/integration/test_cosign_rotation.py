"""One digest, published by old keys and again by new ones, in a registry that lists everything."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.signing import predicates as p
from builder.signing.keys import load_keys
from builder.signing.trust import Trust
from builder.signing.verify import verify
from builder.stages.publish import publish
from registry.keykeeping import Keeper
from tests.integration.test_cosign import OFFLINE, Published
from tests.support.evidence import PASSPHRASE, approval
from tests.support.images import NOW
from tests.support.scenes import REPO, published

pytestmark = pytest.mark.integration


def test_cosign_verifies_with_the_key_of_each_publication(tmp_path: Path) -> None:
    """Old bundles stay beside the new ones; signature tags are the new publication's alone."""
    later = NOW + dt.timedelta(days=2)
    with published(tmp_path) as scene:
        keys, old = tmp_path / "keys", tmp_path / "old.pub"
        old.write_bytes((keys / "builder.pub").read_bytes())
        keeper = Keeper(keys, tmp_path / "ledger", {}, PASSPHRASE, "user:ann", lambda: later)
        for role in ("builder", "verdict"):
            keeper.rotate(role, dt.timedelta(hours=1), "a year has gone")
        again = replace(
            scene.world,
            keys=load_keys(keys, {}, PASSPHRASE),
            verdict=approval(scene.world.image, scene.world.proofs, later),
        )
        publish(again.signed(), RegistryClient(scene.sim.address))
        digest = again.image.digest
        reference = Reference(scene.sim.address, REPO, "3.13", digest)

        found = verify(reference, RegistryClient(scene.sim.address), Trust.load(keys), later)
        assert found.verdict == again.verdict
        listed = RegistryClient(scene.sim.address).referrers(REPO, digest)
        assert (
            sum(d.annotations.get("dev.sigstore.bundle.predicateType") == p.VERDICT_TYPE for d in listed) == 2
        )

        here = Published(again, None, reference, tmp_path)  # type: ignore[arg-type]
        for major, key in ((2, keys / "builder.pub"), (3, keys / "builder.pub"), (3, old)):
            done = here.run(major, "verify", "--key", key, OFFLINE)
            assert done.returncode == 0, done.log
        assert here.run(2, "verify", "--key", old, OFFLINE).returncode != 0
        done = here.run(
            3, "verify-attestation", "--key", keys / "verdict.pub", "--type", p.VERDICT_TYPE, OFFLINE
        )
        assert done.returncode == 0, done.log
