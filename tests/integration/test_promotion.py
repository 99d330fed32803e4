"""Promotion in a real registry: cosign 2 and 3, skopeo and our own verification at the destination; kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from builder.errors import PolicyDenied
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from builder.policy.schema import ApprovalLimits
from builder.settings import Settings
from builder.signing import predicates as p
from builder.signing.refusal import EvidenceRefused
from builder.signing.verify import verify
from builder.tools import process
from registry.approvals.needs import Approvers
from registry.approvals.procedure import approve
from registry.promotion.callback import change
from registry.promotion.promote import rollback
from registry.storage import service
from tests.support import registry_simulator as reg
from tests.support.evidence import SOURCES, World
from tests.support.oracles import cosign, foreign
from tests.support.ports import free_address
from tests.support.promotion import CANDIDATE, REPO, House, Shelf, approver, policy
from tests.support.registry_simulator import simulator
from tests.support.requires import tool

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
OFFLINE = "--insecure-ignore-tlog=true"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("promotion")
    port = int(free_address().rpartition(":")[2])
    settings = Settings.load(
        environ={
            "PATH": os.environ.get("PATH", ""),
            "GOLDSMITH_STATE": str(folder / "state"),
            "GOLDSMITH_REGISTRY": f"127.0.0.1:{port}",
        },
        directory=folder,
        needs_catalogue=False,
    )
    service.up(settings)
    try:
        yield House(folder, RegistryClient(settings.registry))
    finally:
        service.down(settings)


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


def test_cosign_3_verifies_the_channel_record_and_the_change_record(house: House, promoted: World) -> None:
    verdict = house.folder / "keys" / "verdict.pub"
    for kind in (p.CHANNEL_TYPE, p.CHANGE_TYPE):
        argv: list[str | Path] = [cosign(3), "verify-attestation", "--key", verdict, "--type", kind]
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
folder, address, root, digest, *instead = sys.argv[1:]
sys.path.insert(0, root)
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from registry.promotion.callback import change
from registry.approvals.procedure import approve
from registry.promotion.promote import promote
from tests.support.images import target
from tests.support.promotion import House, approver
house = House(Path(folder), RegistryClient(address))
if instead == ["approve"]:
    where = house.at("candidate/python", digest=Digest(digest))
    approve(house.office(who="user:bob"), approver(Path(folder) / "keys"), where, "read it")
elif instead:
    change(house.office(), house.at("python", digest=Digest(digest)), Channel.WITHDRAWN, "bad", instead[0])
else:
    promote(house.office(), house.at("candidate/python", digest=Digest(digest)), target(), "it passed")
"""


@dataclass
class Scene:
    """Two images in a registry, of which the first (or both) were promoted; counts writes once."""

    shelf: Shelf
    writes: dict[str, int] = field(default_factory=dict)

    def house(self, folder: Path) -> House:
        self.shelf.sim.restore()
        (folder / "keys").symlink_to(self.shelf.folder / "keys")
        return House(folder, RegistryClient(self.shelf.sim.address), self.shelf)

    def killed(self, house: House, n: int, what: str, act: Callable[[], object], *arguments: str) -> None:
        """Run the same in a process of its own, killed when the n-th write (from the end, if negative) was served."""
        sim = self.shelf.sim
        if what not in self.writes:
            before, files = sim.content(), (house.ledger.path, house.ledger.head_path)
            ledger = [(f, f.read_bytes()) for f in files]
            sim.requests.clear()
            act()
            self.writes[what] = sim.count("PUT|POST")
            sim.restore(before)
            for path, data in ledger:
                path.write_bytes(data)
        due = n if n > 0 else self.writes[what] + 1 + n
        argv = [sys.executable, "-c", SCRIPT, house.folder, sim.address, ROOT, *arguments]
        writes = iter(range(1, 10_000))

        def serve(handler: reg.Handler) -> None:
            handler.serve()
            if next(writes) == due:
                os.kill(child.pid, signal.SIGKILL)

        sim.fault("PUT|POST", ".*", serve)
        with sim.served_to_the_end(), subprocess.Popen(argv) as child:
            assert child.wait(60) == -signal.SIGKILL
        sim.faults.clear()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with simulator() as sim:
        sim.referrers_api = False
        yield Scene(Shelf(tmp_path_factory.mktemp("shelf"), sim))


@pytest.mark.parametrize("n", [1, 30, -9, -6, -4, -2, -1])
def test_a_promotion_that_is_killed_is_completed_by_the_next(scene: Scene, tmp_path: Path, n: int) -> None:
    house, sim = scene.house(tmp_path), scene.shelf.sim
    old, new = house.candidate("old"), house.candidate("new")
    house.promoted(old)
    scene.killed(house, n, "promote", lambda: house.promote(new), new.image.digest)
    for tag, digest in sim.tags[REPO].items():
        if not tag.startswith("sha256-"):
            found = verify(house.at(REPO, digest=Digest(digest)), house.client, house.trust, house.now)
            assert found.channel and found.channel.channel is Channel.STABLE
    house.promote(new)
    assert sim.tags[REPO]["3.13"] == sim.tags[REPO][new.image.immutable_tag] == new.image.digest
    assert house.ledger.verify().entries == 2


@pytest.mark.parametrize("n", [1, -4, -2, -1])
def test_a_revocation_that_is_killed_is_completed_by_the_next(scene: Scene, tmp_path: Path, n: int) -> None:
    """The tag stays, or moves to the replacement; the next run ends it."""
    house, sim = scene.house(tmp_path), scene.shelf.sim
    old, new = house.candidate("old"), house.candidate("new")
    house.promoted(old)
    house.promoted(new)
    where, instead = house.at(REPO, digest=new.image.digest), f"python:3.13@{old.image.digest}"

    def revoke() -> object:
        return change(house.office(), where, Channel.WITHDRAWN, "bad", instead)

    scene.killed(house, n, "revoke", revoke, new.image.digest, instead)
    assert sim.tags[REPO]["3.13"] in (old.image.digest, new.image.digest)
    verify(house.at(REPO, digest=old.image.digest), house.client, house.trust, house.now)
    revoke()
    assert sim.tags[REPO]["3.13"] == old.image.digest
    with pytest.raises(EvidenceRefused) as raised:
        verify(where, house.client, house.trust, house.now)
    assert raised.value.reference == "withdrawn"
    assert house.ledger.verify().entries == 3


@pytest.mark.parametrize("n", [-2, -1])
def test_an_approval_that_is_killed_counts_for_nothing(scene: Scene, tmp_path: Path, n: int) -> None:
    """Even when all but its entry in the ledger is there; the next one counts."""
    house = scene.house(tmp_path)
    old = house.candidate("old")
    new = house.candidate("new", replace(SOURCES, definition=Digest.of(b"other words")))
    house.promoted(old)
    where, everybody = house.at(CANDIDATE, digest=new.image.digest), Approvers(may=lambda who, image: True)

    def give() -> object:
        return approve(house.office(who="user:bob"), approver(tmp_path / "keys"), where, "read it")

    scene.killed(house, n, "approve", give, new.image.digest, "approve")
    limits = {"definition": 1, "template": 1, "lock": 0, "first": 1, "import": 1}
    house.policy = policy(approvals=ApprovalLimits.model_validate(limits))
    with pytest.raises(PolicyDenied) as raised:
        house.promote(new, approvers=everybody)
    assert raised.value.reference == "approval-missing"
    give()
    house.promote(new, approvers=everybody)
    assert house.ledger.verify().entries == 3
