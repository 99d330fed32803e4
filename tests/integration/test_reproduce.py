"""`goldsmith reproduce` as a stranger meets it: keys, a registry, and no other network at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.cli.wiring import Workshop
from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from builder.pipeline.build import Builder
from builder.pipeline.prepare import prepare
from builder.pipeline.timing import Stages
from builder.report import Silent
from builder.settings import Settings
from builder.signing.rebuilds import witnesses
from builder.signing.trust import Trust
from builder.stages.define import load_catalogue
from builder.store import Store
from registry.storage import service
from tests.integration.conftest import ROOT, Checkout
from tests.support import alone
from tests.support.evidence import new_keys
from tests.support.kits import publish_kit
from tests.support.ports import free_address
from tests.support.requires import tool

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Published:
    """base, published with its kit from one machine, and the folder of another one that has its keys."""

    settings: Settings
    reference: str
    digest: str
    elsewhere: Path

    def goldsmith(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command on the other machine, where nothing answers but the registry."""
        config = self.settings.state / "run" / "registry.yml"
        return subprocess.run(
            [
                *alone.prefix(str(config), self.settings.registry),
                *(sys.executable, "-m", "builder", *arguments),
            ],
            cwd=self.elsewhere,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.elsewhere),
                "PYTHONPATH": str(ROOT),
                "GOLDSMITH_STATE": str(self.elsewhere / "state"),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


@pytest.fixture(scope="module")
def published(today: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("reproduce")
    environment = {
        **today.environment,
        "GOLDSMITH_CATALOGUE": str(today.catalogue),
        "GOLDSMITH_STATE": str(today.state),
        "GOLDSMITH_REGISTRY": free_address(),
    }
    here = Settings.load({**environment, "GOLDSMITH_STATE": str(folder / "state")})
    workshop = Workshop(Settings.load(environment), load_catalogue(today.catalogue), Store(today.state))
    target = workshop.catalogue.find("base")
    builder = Builder(workshop.store, workshop.pool, [workshop.engine("direct")])
    image, _ = builder.chain([prepare(workshop.catalogue, target)], lambda ref: Stages(ref, Silent()))
    keys = new_keys(folder / "keys")
    service.up(here)
    try:
        where = publish_kit(
            workshop.catalogue, image, workshop.pool, RegistryClient(here.registry), keys, here.now
        )
        elsewhere = folder / "elsewhere"
        (elsewhere / "keys").mkdir(parents=True)
        for path in (folder / "keys").glob("*.pub"):
            shutil.copy(path, elsewhere / "keys")
        yield Published(here, str(where), image.digest, elsewhere)
    finally:
        service.down(here)


def test_a_stranger_with_nothing_but_the_registry_gets_the_same_digest_and_attests_it(
    published: Published,
) -> None:
    made = published.goldsmith("keys", "witness", "--json")
    assert made.returncode == 0, made.stderr
    done = published.goldsmith("reproduce", published.reference, "--trust", "keys", "--sign", "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    said = json.loads(done.stdout)
    assert said["reproduced"] and said["index"]["rebuilt"] == published.digest
    assert [x["attached"] for x in said["attested"]] == [True]
    # Seen from the first machine, by those who trust that witness.
    keys = published.elsewhere / "keys"
    shutil.copy(published.elsewhere / "state" / "keys" / "witness.pub", keys)
    client = RegistryClient(published.settings.registry)
    where = client.reference("candidate/base", digest=Digest(published.digest))
    (witness,) = witnesses(client, where, Trust.load(keys), published.settings.now)
    assert witness.key == json.loads(made.stdout)["id"] and witness.rebuild.engine == "direct"
