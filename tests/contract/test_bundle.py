"""Bundles for closed networks: written whole, believed in nothing, completed whenever they were cut."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.errors import GoldsmithError, UsageError
from builder.model.channel import Channel
from builder.model.digest import Digest, canonical_json
from builder.model.image import INDEX_TYPE, Descriptor
from builder.model.platform import Platform
from builder.oci.client import RegistryClient
from builder.oci.layout import blob_path, verify_layout
from builder.signing.cosign_formats import SignedStatement, bundle_referrer
from builder.signing.predicates import CHANNEL_TYPE
from builder.signing.refusal import EvidenceRefused
from builder.signing.statements import PAYLOAD_TYPE, STATEMENT_V1, pae, statement
from builder.signing.trust import Trust
from builder.signing.verify import verify
from registry.bundles.arrival import Arrival, Desk, take_in
from registry.bundles.export import Exported, export
from registry.bundles.reader import open_bundle
from registry.promotion.callback import change
from tests.support import registry_simulator as reg
from tests.support.evidence import new_keys
from tests.support.foreign import spoil, tar_of
from tests.support.images import AMD64, NOW, carriers
from tests.support.promotion import REPO, House
from tests.support.registry_simulator import Simulator, simulator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One promoted image of two platforms, in the registry that reaches the world."""
    with simulator() as sim:
        house = House(tmp_path_factory.mktemp("origin"), RegistryClient(sim.address))
        house.promote(house.candidate(platforms=(AMD64, Platform("linux", "arm64"))))
        yield house


@pytest.fixture(scope="module")
def bundle(origin: House) -> Exported:
    return pack(origin, origin.folder / "bundle")


# What our own storage knows is enough, except where referrers are what a test is about.
both_forms = pytest.mark.parametrize("sim", [True, False], ids=["referrers", "no-referrers"], indirect=True)


@pytest.fixture
def sim(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    with simulator() as sim:
        sim.referrers_api = getattr(request, "param", False)
        yield sim


def pack(house: House, to: Path, *names: str, **options: object) -> Exported:
    references = [house.at(REPO, name) for name in names or ("3.13",)]
    public = {p.name: p.read_bytes() for p in (house.folder / "keys").glob("*.pub")}
    return export(house.client, references, house.trust, public, house.now, to, **options)  # type: ignore[arg-type]


def desk(sim: Simulator, house: House, tmp_path: Path, **changes: object) -> Desk:
    made = Desk(RegistryClient(sim.address), house.trust, house.now, tmp_path)
    return replace(made, **changes)  # type: ignore[arg-type]


def arrive(sim: Simulator, house: House, tmp_path: Path, path: Path, **changes: object) -> Arrival:
    (one,) = take_in(desk(sim, house, tmp_path, **changes), open_bundle(path))
    return one


def copied(bundle: Exported, to: Path) -> Path:
    """The bundle as plain files that may be changed."""
    for path in bundle.path.rglob("*"):
        if path.is_file():
            target = to / path.relative_to(bundle.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to


# ------------------------------------------------------------------ what works


def test_a_bundle_is_a_whole_layout_with_names(bundle: Exported, origin: House) -> None:
    verify_layout(bundle.path)
    index = json.loads((bundle.path / "index.json").read_bytes())
    names = {m.get("annotations", {}).get("org.opencontainers.image.ref.name"): m for m in index["manifests"]}
    (image,) = bundle.images
    assert names["python:3.13"]["digest"] == names[f"python:{image.tags[0]}"]["digest"] == image.digest
    assert f"python:sha256-{image.digest.hex}.att" in names
    described = json.loads(blob_path(bundle.path, bundle.digest).read_bytes())
    titles = {x["annotations"]["org.opencontainers.image.title"] for x in described["layers"]}
    assert {"contents.json", "builder.pub", "verdict.pub", f"verdicts/{image.digest.hex}.json"} <= titles


def test_the_same_images_give_the_same_bytes(tmp_path: Path, bundle: Exported, origin: House) -> None:
    again = pack(origin, tmp_path / "again")
    assert again.digest == bundle.digest
    assert (again.path / "index.json").read_bytes() == (bundle.path / "index.json").read_bytes()
    tars = [pack(origin, tmp_path / f"{n}.tar").path.read_bytes() for n in "ab"]
    assert tars[0] == tars[1]


@both_forms
@pytest.mark.parametrize("form", ["folder", "tar"])
def test_the_other_side_has_it_verified_and_named(
    tmp_path: Path, sim: Simulator, bundle: Exported, origin: House, form: str
) -> None:
    path = bundle.path if form == "folder" else pack(origin, tmp_path / "b.tar").path
    one = arrive(sim, origin, tmp_path, path)
    assert one.refused is None
    assert one.changed
    client = RegistryClient(sim.address)
    for tag in one.tags:
        found = verify(client.reference(REPO, tag), client, origin.trust, origin.now)
        assert found.digest == bundle.images[0].digest
        assert found.channel and found.channel.channel is Channel.STABLE
        assert len(found.manifests[0].forms) == 2
    sim.requests.clear()
    assert not arrive(sim, origin, tmp_path, path).changed
    assert sim.count("PUT|POST") == 0
    assert not [p for p in tmp_path.iterdir() if p.name not in ("b.tar",)]


def test_an_increment_needs_what_the_older_bundle_brought(
    tmp_path: Path, sim: Simulator, bundle: Exported, origin: House
) -> None:
    small = pack(origin, tmp_path / "small", base=bundle.path)
    assert small.left_out
    assert small.size < bundle.size
    refused = arrive(sim, origin, tmp_path, small.path).refused
    assert refused is not None
    assert refused.reference == "content-missing"
    assert not sim.tags.get(REPO)
    arrive(sim, origin, tmp_path, bundle.path)
    assert arrive(sim, origin, tmp_path, small.path).refused is None


# ------------------------------------------------------------------ what is refused


def test_only_what_was_promoted_and_holds_is_exported(tmp_path: Path) -> None:
    with simulator() as sim:
        house = House(tmp_path, RegistryClient(sim.address))
        here = house.candidate()
        with pytest.raises(EvidenceRefused) as candidate:
            export(
                house.client,
                [house.at("candidate/python", "3.13")],
                house.trust,
                {},
                house.now,
                tmp_path / "x",
            )
        assert candidate.value.reference == "not-promoted"
        house.promote(here)
        house.now = NOW + dt.timedelta(days=8)
        with pytest.raises(EvidenceRefused) as expired:
            pack(house, tmp_path / "x")
        assert expired.value.reference == "verdict-expired"
        house.now = NOW
        change(house.office(), house.at(REPO, "3.13"), Channel.WITHDRAWN, "a hole")
        with pytest.raises(EvidenceRefused):
            pack(house, tmp_path / "x")
        (tmp_path / "there").mkdir()
        with pytest.raises(UsageError):
            pack(house, tmp_path / "there")
        assert {p.name for p in tmp_path.iterdir()} == {"keys", "work", "ledger", "image-1", "there"}


def stranger(path: Path, bundle: Exported) -> None:
    """A referrer of a known type by somebody else's key."""
    key = new_keys(path.parent / "strangers").verdict
    image = bundle.images[0].digest
    index = blob_path(path, image).read_bytes()
    payload = statement(STATEMENT_V1, image, CHANNEL_TYPE, b"{}")
    signed = SignedStatement(CHANNEL_TYPE, payload, key.sign(pae(PAYLOAD_TYPE, payload)))
    item = bundle_referrer(Descriptor(INDEX_TYPE, image, len(index)), signed, key.public.hint)
    add(path, item.manifest, item.blobs)


def add(path: Path, manifest: bytes, blobs: object) -> None:
    """Put a referrer into a bundle."""
    for data in (manifest, *dict(blobs).values()):  # type: ignore[call-overload]
        blob_path(path, Digest.of(data)).write_bytes(data)
    listing = json.loads((path / "index.json").read_bytes())
    media_type = "application/vnd.oci.image.manifest.v1+json"
    listing["manifests"].append(
        {"mediaType": media_type, "digest": str(Digest.of(manifest)), "size": len(manifest)}
    )
    (path / "index.json").write_bytes(canonical_json(listing))


def layers(path: Path, bundle: Exported) -> list[Digest]:
    index = json.loads(blob_path(path, bundle.images[0].digest).read_bytes())
    manifest = json.loads(blob_path(path, Digest(index["manifests"][0]["digest"])).read_bytes())
    return [Digest(x["digest"]) for x in manifest["layers"]]


def other_contents(path: Path, bundle: Exported, **changes: object) -> None:
    """Let the bundle say something else of what it holds."""
    listing = json.loads((path / "index.json").read_bytes())
    entry = listing["manifests"][-1]
    manifest = json.loads(blob_path(path, bundle.digest).read_bytes())
    contents = json.loads(blob_path(path, Digest(manifest["layers"][0]["digest"])).read_bytes())
    contents["images"][0] |= changes
    data = canonical_json(contents)
    manifest["layers"][0] |= {"digest": str(Digest.of(data)), "size": len(data)}
    described = canonical_json(manifest)
    entry |= {"digest": str(Digest.of(described)), "size": len(described)}
    for blob in (data, described):
        blob_path(path, Digest.of(blob)).write_bytes(blob)
    (path / "index.json").write_bytes(canonical_json(listing))


BROKEN: dict[str, Callable[[Path, Exported], object]] = {
    "a flipped byte in a layer": lambda path, b: spoil(path, layers(path, b)[0]),
    "a missing layer": lambda path, b: blob_path(path, layers(path, b)[0]).unlink(),
    "a flipped byte in the index": lambda path, b: spoil(path, b.images[0].digest),
    "a missing index": lambda path, b: blob_path(path, b.images[0].digest).unlink(),
    "a stranger's referrer": stranger,
    "another digest": lambda path, b: other_contents(path, b, digest=str(b.digest)),
    "another name": lambda path, b: other_contents(path, b, repository="base"),
    "another tag": lambda path, b: other_contents(path, b, tags=["latest"]),
    "a repository of candidates": lambda path, b: other_contents(path, b, repository="candidate/python"),
    "a name that leads out": lambda path, b: other_contents(path, b, repository="../python"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bundle_that_was_tampered_with_brings_nothing(
    tmp_path: Path, bundle: Exported, origin: House, name: str
) -> None:
    path = copied(bundle, tmp_path / "copy")
    BROKEN[name](path, bundle)
    with simulator() as sim:
        try:
            (one,) = take_in(desk(sim, origin, tmp_path), open_bundle(path))
            refused = one.refused
        except GoldsmithError as error:
            refused = error
        assert refused is not None
        assert refused.message
        assert not sim.tags
        assert sim.count("PUT|POST") == 0


@both_forms
def test_a_strangers_referrer_of_no_known_type_is_left_out(
    tmp_path: Path, sim: Simulator, bundle: Exported, origin: House
) -> None:
    path = copied(bundle, tmp_path / "copy")
    image = bundle.images[0].digest
    size = blob_path(path, image).stat().st_size
    item = carriers(Descriptor(INDEX_TYPE, image, size))[2]
    add(path, item.manifest, item.blobs)
    with pytest.raises(GoldsmithError):
        # It has the type of evidence, so verification looks at it and refuses.
        one = arrive(sim, origin, tmp_path, path)
        raise one.refused or AssertionError("taken")
    manifest = json.loads(item.manifest)
    manifest["artifactType"] = "application/x-else"
    add(path2 := copied(bundle, tmp_path / "copy2"), canonical_json(manifest), item.blobs)
    assert arrive(sim, origin, tmp_path, path2).refused is None
    assert Digest.of(canonical_json(manifest)) not in sim.manifests[REPO]


def test_keys_inside_the_bundle_are_not_believed(
    tmp_path: Path, sim: Simulator, bundle: Exported, origin: House
) -> None:
    new_keys(tmp_path / "keys")
    one = arrive(sim, origin, tmp_path, bundle.path, trust=Trust.load(tmp_path / "keys"))
    assert one.refused is not None
    assert one.refused.reference == "signature-invalid"
    assert not sim.tags


def test_a_bundle_is_judged_at_the_day_of_its_import(
    tmp_path: Path, sim: Simulator, bundle: Exported, origin: House
) -> None:
    for days, reference in ((8, "verdict-expired"), (-1, "verdict-from-the-future")):
        one = arrive(sim, origin, tmp_path, bundle.path, now=NOW + dt.timedelta(days=days))
        assert one.refused is not None
        assert one.refused.reference == reference
    assert not sim.tags


@both_forms
def test_an_older_bundle_puts_nothing_back(tmp_path: Path, sim: Simulator) -> None:
    with simulator() as ours:
        (tmp_path / "house").mkdir()
        house = House(tmp_path / "house", RegistryClient(ours.address))
        house.promote(house.candidate("old"))
        old = pack(house, tmp_path / "old")
        house.promote(house.candidate("new"))
        new = pack(house, tmp_path / "new")
        (tmp_path / "w").mkdir()
        assert arrive(sim, house, tmp_path / "w", new.path).refused is None
        back = arrive(sim, house, tmp_path / "w", old.path)
        assert back.refused is not None
        assert back.refused.reference == "older-bundle"
        assert sim.tags[REPO]["3.13"] == new.images[0].digest


@pytest.mark.parametrize("what", ["nothing", "no layout", "no bundle"])
def test_other_files_are_no_bundles(tmp_path: Path, origin: House, what: str) -> None:
    path = tmp_path / "x.tar"
    if what == "no layout":
        path.write_bytes(tar_of({"a": b""}))
    elif what == "no bundle":
        path = origin.folder / "image-1"
    with pytest.raises(GoldsmithError) as refused:
        open_bundle(path)
    assert refused.value.hint


# ------------------------------------------------------------------ kill -9

SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[5])
from builder.oci.client import RegistryClient
from builder.signing.trust import Trust
from registry.bundles.arrival import Desk, take_in
from registry.bundles.reader import open_bundle
from tests.support.images import NOW
desk = Desk(RegistryClient(sys.argv[1]), Trust.load(Path(sys.argv[2])), NOW, Path(sys.argv[3]))
take_in(desk, open_bundle(Path(sys.argv[4])))
"""


@pytest.mark.parametrize("n", [15, -2])
def test_an_arrival_that_is_killed_shows_no_name_and_is_completed(
    tmp_path: Path, bundle: Exported, origin: House, n: int
) -> None:
    """kill -9 when the n-th write (from the end, when negative) has been served."""
    with simulator() as sim:
        sim.referrers_api = False
        if n < 0:
            arrive(sim, origin, tmp_path, bundle.path)
            n += 1 + sim.count("PUT|POST")
            for part in (sim.blobs, sim.manifests, sim.tags):
                part.clear()
        argv = [sim.address, origin.folder / "keys", tmp_path, bundle.path, ROOT]
        child = subprocess.Popen([sys.executable, "-c", SCRIPT, *map(str, argv)], cwd=ROOT)
        writes = iter(range(1, 10_000))

        def act(handler: reg.Handler) -> None:
            handler.serve()
            if next(writes) == n:
                os.kill(child.pid, signal.SIGKILL)

        sim.fault("PUT|POST", ".*", act)
        assert child.wait(60) == -signal.SIGKILL
        sim.faults.clear()
        client = RegistryClient(sim.address)
        for tag in [t for t in sim.tags.get(REPO, {}) if not t.startswith("sha256-")]:
            verify(client.reference(REPO, tag), client, origin.trust, origin.now)
        assert arrive(sim, origin, tmp_path, bundle.path).refused is None
        assert sim.tags[REPO]["3.13"] == bundle.images[0].digest
