"""Real clients at the gate, before a real storage: what they pull, and what they print when denied."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.layout import verify_layout
from builder.settings import Settings
from builder.signing import predicates as p
from builder.signing.verify import verify
from builder.stages.publish import publish
from builder.tools import process
from registry.gate.admission import END_OF_LIFE_LABEL
from registry.storage import service
from tests.support import private_clients
from tests.support.engines import engine
from tests.support.evidence import World, approval, evidence, world
from tests.support.gates import RunningGate, running_gate
from tests.support.images import built_image, signed_image
from tests.support.oracles import cosign, foreign, program
from tests.support.ports import free_address
from tests.support.requires import tool

pytestmark = pytest.mark.integration

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
REPO = "candidate/python"
OFFLINE = "--insecure-ignore-tlog=true"


@dataclass(frozen=True)
class Place:
    """A gate before a storage with one approved image, and one that nobody signed (tag `9`)."""

    world: World
    settings: Settings
    gate: RunningGate
    folder: Path
    unapproved: Digest

    @property
    def ageing(self) -> str:
        """An approved image whose stream ends within a month."""
        return f"{self.gate.address}/candidate/ageing:3.13"

    def run(self, *argv: str | Path, **environment: str) -> process.Completed:
        """A client without a home or network of its own; its exit code is the caller's to judge."""
        return process.run(
            argv,
            environment={"HOME": str(self.folder / "home"), "PATH": os.environ["PATH"], **environment},
            timeout_seconds=120,
            ok=tuple(range(256)),
        )

    def reference(self, name: str = ":3.13") -> str:
        """An image behind the gate."""
        return f"{self.gate.address}/{REPO}{name}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("gate")
    port = int(free_address().rpartition(":")[2])
    settings = Settings.load(
        {
            "PATH": os.environ["PATH"],
            "GOLDSMITH_STATE": str(folder / "state"),
            "GOLDSMITH_REGISTRY": f"127.0.0.1:{port}",
        },
        directory=folder,
        needs_catalogue=False,
    )
    service.up(settings)
    try:
        here = world(folder / "world")
        here = replace(
            here,
            verdict=approval(here.image, here.proofs, NOW),
            repository=f"{settings.registry}/{REPO}",
        )
        client = RegistryClient(settings.registry)
        publish(here.signed(), client)
        other = built_image(folder / "other", files=({"x": b"unsigned"},))
        other = replace(other, target=replace(other.target, stream_name="9"))
        publish(replace(signed_image(other), signatures=()), client)
        ends = str((NOW + dt.timedelta(days=30)).date())
        image = built_image(folder / "ageing", name="ageing", labels={END_OF_LIFE_LABEL: ends})
        proofs = tuple(evidence(x) for x in image.platforms)
        publish(
            replace(
                here,
                image=image,
                proofs=proofs,
                verdict=approval(image, proofs, NOW),
                repository=f"{settings.registry}/candidate/ageing",
            ).signed(),
            client,
        )
        with running_gate(settings.registry, here.trust, now=NOW.timestamp()) as gate:
            yield Place(here, settings, gate, folder, other.digest)
    finally:
        service.down(settings)


def _assert_says_why(place: Place, said: str) -> None:
    """Cause, since when, replacement and link, whatever the client puts around them."""
    flat = " ".join(said.replace("\\", "").split())
    assert "is denied (not-curated): nothing is signed, since 20" in flat
    assert f"use {REPO}:3.13@{place.world.image.digest}" in flat
    assert f"see http://{place.gate.address}/help/not-curated" in flat


def _assert_warns(said: str) -> None:
    """The text of `Warning: 299`."""
    assert "candidate/ageing 3.13: its stream is supported until 20" in said
    assert "newest: candidate/ageing:3.13@sha256:" in said


def test_goldsmith_verifies_through_the_gate(place: Place) -> None:
    where = Reference(place.gate.address, REPO, "3.13")
    found = verify(where, RegistryClient(place.gate.address), place.world.trust, NOW)
    assert found.digest == place.world.image.digest
    assert {m.forms for m in found.manifests} == {("bundles", "tags")}


def test_skopeo_copies_an_approved_image_and_prints_a_denial(place: Place, tmp_path: Path) -> None:
    skopeo = tool("skopeo")
    copy = (skopeo, "--insecure-policy", "copy", "--all", "--src-tls-verify=false")
    done = place.run(*copy, f"docker://{place.reference()}", f"oci:{tmp_path / 'copy'}:x")
    assert done.returncode == 0, done.log
    verify_layout(tmp_path / "copy")
    for name in (":9", f"@{place.unapproved}"):
        denied = place.run(*copy, f"docker://{place.reference(name)}", f"oci:{tmp_path / 'no'}:x")
        assert denied.returncode != 0
        assert "denied: " in denied.log
        _assert_says_why(place, denied.log)


@pytest.mark.parametrize("major", [2, 3])
def test_cosign_verifies_through_the_gate_and_prints_a_denial(place: Place, major: int) -> None:
    program, keys = cosign(major), place.folder / "world" / "keys"
    image = f"@{place.world.image.digest}"
    done = place.run(program, "verify", "--key", keys / "builder.pub", OFFLINE, place.reference(image))
    assert done.returncode == 0, done.log
    attested = place.run(
        *(program, "verify-attestation", "--key", keys / "verdict.pub", "--type", p.VERDICT_TYPE),
        *(OFFLINE, place.reference(image)),
    )
    assert attested.returncode == 0, attested.log
    denied = place.run(program, "verify", "--key", keys / "builder.pub", OFFLINE, place.reference(":9"))
    assert denied.returncode != 0
    assert "DENIED: " in denied.log
    _assert_says_why(place, denied.log)


def test_crane_pulls_and_prints_denials_and_warnings(place: Place, tmp_path: Path) -> None:
    crane = program("crane", "forky")
    for name in (":3.13", f"@{place.world.image.digest}"):
        done = place.run(crane, "pull", place.reference(name), tmp_path / "image.tar")
        assert done.returncode == 0, done.log
        assert "WARNING" not in done.log
    listed = place.run(crane, "ls", place.reference(""))
    assert sorted(listed.stdout.decode().split()) == sorted(["3.13", place.world.image.immutable_tag])
    _assert_warns(place.run(crane, "pull", place.ageing, tmp_path / "image.tar").log)
    for name in (":9", f"@{place.unapproved}"):
        denied = place.run(crane, "pull", place.reference(name), tmp_path / "image.tar")
        assert denied.returncode != 0
        assert "DENIED: " in denied.log
        _assert_says_why(place, denied.log)


@pytest.mark.parametrize("release", ["trixie", "forky"])
def test_oras_copies_and_discovers_and_prints_denials_and_warnings(
    place: Place, tmp_path: Path, release: str
) -> None:
    """oras asks with HEAD before anything else, whose answer has no body: the warning carries the cause."""
    oras, layout = program("oras", release), tmp_path / "layout"
    copy = (oras, "copy", "--from-plain-http", "--recursive")
    for name in (":3.13", f"@{place.world.image.digest}"):
        done = place.run(*copy, place.reference(name), "--to-oci-layout", f"{layout}:x")
        assert done.returncode == 0, done.log
    verify_layout(layout)
    found = place.run(oras, "discover", "--plain-http", "--format", "json", place.reference())
    assert found.returncode == 0, found.log
    assert found.stdout.decode().count('"application/vnd.dev.sigstore.bundle.v0.3+json"') == 7
    _assert_warns(place.run(oras, "discover", "--plain-http", place.ageing).log)
    for name in (":9", f"@{place.unapproved}"):
        discover = (oras, "discover", "--plain-http", place.reference(name))
        fetch = (oras, "manifest", "fetch", "--plain-http", place.reference(name))
        pull = (*copy, place.reference(name), "--to-oci-layout", f"{layout}:no")
        for denied in (place.run(*discover), place.run(*fetch), place.run(*pull)):
            assert denied.returncode != 0
            _assert_says_why(place, denied.log)


def test_a_newer_skopeo_prints_denials_and_warnings(place: Place, tmp_path: Path) -> None:
    copy = (*foreign("skopeo", "forky"), "--insecure-policy", "copy", "--src-tls-verify=false")
    for name in (":3.13", f"@{place.world.image.digest}"):
        done = place.run(*copy, f"docker://{place.reference(name)}", f"dir:{tmp_path / 'copy'}")
        assert done.returncode == 0, done.log
    _assert_warns(place.run(*copy, f"docker://{place.ageing}", f"dir:{tmp_path / 'ageing'}").log)
    denied = place.run(*copy, f"docker://{place.reference(':9')}", f"dir:{tmp_path / 'no'}")
    assert denied.returncode != 0
    _assert_says_why(place, denied.log)


def test_podman_pulls_and_prints_denials(place: Place, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    (etc / "containers").mkdir(parents=True)
    (etc / "containers" / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{place.gate.address}"\ninsecure = true\n'
    )
    (etc / "containers" / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    with tempfile.TemporaryDirectory(prefix="gs-") as short:  # podman wants a path of 50 characters
        found = private_clients.podman(Path(short), etc)
        podman = Path(found["PATH"].partition(":")[0]) / "podman"
        for name in (place.reference(), place.reference(f"@{place.world.image.digest}"), place.ageing):
            done = place.run(podman, "pull", name, **found)
            assert done.returncode == 0, done.log
        for name in (":9", f"@{place.unapproved}"):
            denied = place.run(podman, "pull", place.reference(name), **found)
            assert denied.returncode != 0
            assert "denied: " in denied.log
            _assert_says_why(place, denied.log)


def test_containerd_pulls_and_says_no_more_than_forbidden(place: Place, tmp_path: Path) -> None:
    """It asks with HEAD only, and prints neither body nor warning: the cause stands in our log."""
    with private_clients.containerd(tmp_path) as (ctr, _):
        pull = ("images", "pull", "--plain-http", "--snapshotter", "native")
        for name in (place.reference(), place.reference(f"@{place.world.image.digest}"), place.ageing):
            done = ctr(*pull, name)
            assert done.returncode == 0, done.stderr
        before = len(place.gate.events("denied"))
        for name in (":9", f"@{place.unapproved}"):
            denied = ctr(*pull, place.reference(name))
            assert denied.returncode != 0
            assert "403 Forbidden" in denied.stderr
        assert place.unapproved not in ctr("content", "ls").stdout
        told = place.gate.events("denied")[before:]
        assert told and all(event["reason"] == "not-curated" for event in told)


def test_docker_pulls_an_approved_image_and_prints_a_denial(place: Place, tmp_path: Path) -> None:
    docker = tool("docker")
    with engine(tmp_path) as (found, _):
        host = {"DOCKER_HOST": found.host}
        image = place.reference(f"@{place.world.image.digest}")
        try:
            for name in (image, place.reference(), place.ageing):
                done = place.run(docker, "pull", name, **host)
                assert done.returncode == 0, done.log
            for name in (":9", f"@{place.unapproved}"):
                denied = place.run(docker, "pull", place.reference(name), **host)
                assert denied.returncode != 0
                _assert_says_why(place, denied.log)
            pushed = place.run(docker, "tag", image, place.reference(":mine"), **host)
            assert pushed.returncode == 0, pushed.log
            pushed = place.run(docker, "push", place.reference(":mine"), **host)
            assert pushed.returncode != 0
        finally:
            mine = (place.reference(), place.reference(":mine"), place.ageing)
            place.run(docker, "image", "rm", "-f", image, *mine, **host)


def test_a_withdrawn_image_is_gone_for_clients_too(place: Place, tmp_path: Path) -> None:
    """Revoked by its tags: here by deleting the manifest in the storage, as its operator can."""
    image = built_image(tmp_path / "image", name="gone", files=({"g": b"gone"},))
    proofs = tuple(evidence(x) for x in image.platforms)
    here = replace(place.world, image=image, proofs=proofs, verdict=approval(image, proofs, NOW))
    here = replace(here, repository=f"{place.settings.registry}/candidate/gone")
    publish(here.signed(), RegistryClient(place.settings.registry))
    path = "/v2/candidate/gone/manifests/3.13"
    place.gate.until(path, lambda r: r.status == 200)
    revisions = (
        place.settings.state / "registry/docker/registry/v2/repositories/candidate/gone/_manifests/tags"
    )
    for tag in ("3.13", image.immutable_tag):
        shutil.rmtree(revisions / tag)
    got, _ = place.gate.until(path, lambda r: r.status == 403)
    assert got.error["detail"]["reason"] == "withdrawn"
