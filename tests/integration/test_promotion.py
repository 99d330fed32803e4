"""Promotion in a real registry: cosign 2 and 3, skopeo and our own verification at the destination; kill -9."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import PolicyDenied
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from builder.settings import Settings
from builder.signing import predicates as p
from builder.signing.refusal import EvidenceRefused
from builder.signing.verify import verify
from builder.tools import process
from registry import storage
from registry.callback import change
from registry.promote import rollback
from tests.support import registry_simulator as reg
from tests.support.evidence import World
from tests.support.oracles import cosign, foreign
from tests.support.promotion import CANDIDATE, REPO, House
from tests.support.registry_simulator import simulator
from tests.support.requires import tool

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
OFFLINE = "--insecure-ignore-tlog=true"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("promotion")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings.load(
        environ={
            "PATH": os.environ.get("PATH", ""),
            "GOLDSMITH_STATE": str(folder / "state"),
            "GOLDSMITH_REGISTRY": f"127.0.0.1:{port}",
        },
        directory=folder,
        needs_catalogue=False,
    )
    storage.up(settings)
    try:
        yield House(folder, RegistryClient(settings.registry))
    finally:
        storage.down(settings)


@pytest.fixture(scope="module")
def promoted(house: House) -> World:
    here = house.candidate("first")
    house.promote(here)
    return here


def run(house: House, argv: list[str | Path]) -> process.Completed:
    """An oracle, with nothing but the registry on loopback in reach."""
    environment = {
        "HOME": str(house.folder / "home"),
        "PATH": "/usr/bin:/bin",
        "https_proxy": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1",
    }
    return process.run(argv, environment=environment, timeout_seconds=60, ok=tuple(range(256)))


def subjects(here: World) -> tuple[Digest, ...]:
    return here.image.digest, *(x.manifest.digest for x in here.image.platforms)


@pytest.mark.parametrize("major", [2, 3])
def test_cosign_verifies_signature_and_verdict_at_the_destination(
    house: House, promoted: World, major: int
) -> None:
    for digest in subjects(promoted):
        name = str(house.at(REPO, digest=digest))
        builder, verdict = (house.folder / "keys" / f"{role}.pub" for role in ("builder", "verdict"))
        done = run(house, [cosign(major), "verify", "--key", builder, OFFLINE, name])
        assert done.returncode == 0, done.log
        for kind, key in ((p.VERDICT_TYPE, verdict), ("slsaprovenance1", builder), ("cyclonedx", builder)):
            argv: list[str | Path] = [cosign(major), "verify-attestation", "--key", key, "--type", kind]
            done = run(house, [*argv, OFFLINE, name])
            assert done.returncode == 0, done.log


def test_cosign_3_verifies_the_channel_record(house: House, promoted: World) -> None:
    verdict = house.folder / "keys" / "verdict.pub"
    argv: list[str | Path] = [cosign(3), "verify-attestation", "--key", verdict, "--type", p.CHANNEL_TYPE]
    done = run(house, [*argv, OFFLINE, str(house.at(REPO, digest=promoted.image.digest))])
    assert done.returncode == 0, done.log


def test_skopeo_verifies_the_promoted_name_and_no_other(house: House, promoted: World) -> None:
    """matchRepository: the signature has to be made for the repository that is pulled from."""
    skopeo = foreign("skopeo", "trixie")
    host, folder = house.client.host, house.folder
    (folder / "registries.d").mkdir(exist_ok=True)
    (folder / "registries.d" / "x.yaml").write_text(
        f"docker:\n  {host}:\n    use-sigstore-attachments: true\n"
    )
    rule = {
        "type": "sigstoreSigned",
        "keyPath": str(folder / "keys" / "builder.pub"),
        "signedIdentity": {"type": "matchRepository"},
    }
    policy = {"default": [{"type": "reject"}], "transports": {"docker": {host: [rule]}}}
    (folder / "policy.json").write_text(json.dumps(policy))

    def copy(name: str, to: str) -> process.Completed:
        return run(
            house,
            [
                *skopeo,
                "--policy",
                folder / "policy.json",
                "--registries.d",
                folder / "registries.d",
                "copy",
                "--all",
                "--remove-signatures",
                "--src-tls-verify=false",
                f"docker://{name}",
                f"oci:{folder / to}:x",
            ],
        )

    done = copy(f"{host}/{REPO}:3.13", "pulled")
    assert done.returncode == 0, done.log
    # The control: the candidate's signature, put at the promoted name, is refused.
    other = house.candidate("second")
    house.promote(other, hosts=("elsewhere.example",))
    refused = copy(f"{host}/{REPO}@{other.image.digest}", "refused")
    assert refused.returncode != 0
    change(house.office(), house.at(REPO, "3.13"), Channel.WITHDRAWN, "x", f"python@{promoted.image.digest}")


def test_the_whole_life_of_an_image(house: House, promoted: World) -> None:
    old, new = promoted, house.candidate("third")
    done = house.promote(new)
    assert done.previous == old.image.digest
    assert not house.promote(new).changed
    tag = house.at(REPO, "3.13")
    assert verify(tag, house.client, house.trust, house.now).digest == new.image.digest
    rollback(house.office(), "python:3.13", new.image.target, "slow")
    assert verify(tag, house.client, house.trust, house.now).digest == old.image.digest
    change(
        house.office(),
        house.at(REPO, digest=new.image.digest),
        Channel.WITHDRAWN,
        "bad",
        f"python@{old.image.digest}",
    )
    for repo in (REPO, CANDIDATE):
        with pytest.raises(EvidenceRefused) as raised:
            verify(house.at(repo, digest=new.image.digest), house.client, house.trust, house.now)
        assert raised.value.reference == "withdrawn"
    with pytest.raises(PolicyDenied):
        house.promote(new)
    assert house.ledger.verify().entries == len(house.ledger.entries())


# ------------------------------------------------------------------ kill -9

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from registry.promote import promote
from tests.support.images import target
from tests.support.promotion import House
house = House(Path(sys.argv[1]), RegistryClient(sys.argv[2]))
promote(house.office(), house.at("candidate/python", digest=Digest(sys.argv[3])), target(), "it passed")
"""


@pytest.mark.parametrize("n", [1, 30, -9, -6, -4, -2, -1])
def test_a_promotion_that_is_killed_is_completed_by_the_next(tmp_path: Path, n: int) -> None:
    """kill -9 when the n-th write (from the end, when negative) has been served."""
    with simulator() as sim:
        sim.referrers_api = False
        house = House(tmp_path, RegistryClient(sim.address))
        old, new = house.candidate("old"), house.candidate("new")
        house.promote(old)
        sim.requests.clear()
        if n < 0:
            kept = [{k: dict(v) for k, v in s.items()} for s in (sim.blobs, sim.manifests, sim.tags)]
            ledger = [(f, f.read_bytes()) for f in (house.ledger.path, house.ledger.head_path)]
            house.promote(new)
            n += 1 + sim.count("PUT|POST")
            sim.blobs, sim.manifests, sim.tags = kept  # type: ignore[assignment]
            for path, data in ledger:
                path.write_bytes(data)
        child = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, tmp_path, sim.address, new.image.digest, ROOT], cwd=ROOT
        )
        writes = iter(range(1, 10_000))

        def act(handler: reg.Handler) -> None:
            handler.serve()
            if next(writes) == n:
                os.kill(child.pid, signal.SIGKILL)

        sim.fault("PUT|POST", ".*", act)
        assert child.wait(60) == -signal.SIGKILL
        sim.faults.clear()
        tags = sim.tags[REPO]
        for tag, digest in tags.items():
            if not tag.startswith("sha256-"):
                found = verify(house.at(REPO, digest=Digest(digest)), house.client, house.trust, house.now)
                assert found.channel and found.channel.channel is Channel.STABLE
        house.promote(new)
        assert tags["3.13"] == sim.tags[REPO][new.image.immutable_tag] == new.image.digest
        assert house.ledger.verify().entries == 2
