"""`reindex_10000`, `affected_10000` (`_rare`, `_whole`), `rescan_1000`, `rescan_10000`: many images at once.

The images lie in a storage folder of the registry's own form: an index and its attestations each,
with package sets of real sources at versions around their fixes. The peer of a rescan is
`trivy sbom` for each image, extrapolated from a measured sample; the findings of the sample must be
those of the rescan. Signing and writing renewed verdicts is not part of it on either side.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import resource
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest
from builder.model.evidence import Evidence, ScanReport
from builder.model.image import INDEX_TYPE, Descriptor
from builder.model.lock import LockedPackage
from builder.oci.manifest import index_bytes
from builder.report import json_text
from builder.signing import predicates as p
from builder.signing import verdicts
from builder.signing.cosign_formats import SignedStatement, attestation_manifest
from builder.signing.keys import BUILDER, VERDICT
from builder.signing.statements import PAYLOAD_TYPE, STATEMENT_V01, canonical_json, pae, statement
from builder.signing.trust import Trust
from builder.store import Store
from builder.tools import trivy as trivy_tool
from builder.tools.trivy_db import open_database
from builder.tools.trivy_report import read_report
from registry.index import queries
from registry.index.rebuild import reindex
from registry.index.schema import Place
from registry.promotion.records import signed_record
from registry.pulls import Pull
from registry.rescan.inventory import read_inventory
from registry.rescan.judging import Bench, Scanned, judge
from registry.rescan.union import match
from registry.storage.folder import FolderRegistry
from tests.bench.scene import Scene, Stopwatch
from tests.support.aged import aged_sets
from tests.support.evidence import DATABASE, World, approval, provenance_of, shared_keys, world
from tests.support.images import NOW
from tests.support.indexes import finding, proofs_of, sbom
from tests.support.promotion import policy
from tests.support.storage_folder import StorageFolder
from tests.support.vulndb import sample_data

_IMAGES, _SMALL = 10_000, 1_000
_REPOSITORIES, _SETS, _SAMPLE, _ASKED = 100, 200, 20, 20
_PULLERS, _PULL_DAYS = 3, 5  # of each image
_SHOWN = 100  # images that a terminal shows
_HOST, _POINT = "127.0.0.1:5710", "13.1"
_REINDEX_GOAL, _AFFECTED_GOAL, _MEMORY_GOAL = 60.0, 50.0, 1000.0  # s, ms, MB: of what has no peer
_SECONDS = 3600


def measure(
    scene: Scene, images: int = _IMAGES, small: int = _SMALL
) -> Iterator[tuple[str, float, str, float]]:
    """The figures of `images` and of a smaller number; the goal stands in for a peer that there is not."""
    for count in (small, images):
        work = scene.state / "many"
        shutil.rmtree(work, ignore_errors=True)
        make(work, count)
        argv = [sys.executable, "-m", "tests.bench.indexing", work, scene.database]
        environment = {**scene.environment(), "PYTHONPATH": str(Path(__file__).parents[2])}
        found = json.loads(process_text(scene, argv, environment))
        shutil.rmtree(work)
        yield f"rescan_{count}", found["rescan"], "s", found["each"] * count
    yield f"rescan_{images}_memory", found["memory"], "MB", _MEMORY_GOAL
    yield f"reindex_{images}", found["reindex"], "s", _REINDEX_GOAL
    for kind in ("", "_rare", "_whole"):
        yield f"affected_{images}{kind}", found[f"affected{kind}"], "ms", _AFFECTED_GOAL


def process_text(scene: Scene, argv: Sequence[str | Path], environment: dict[str, str]) -> str:
    """What a process of its own prints: its memory is its own, too."""
    from builder.tools import process

    done = process.run(argv, environment=environment, timeout_seconds=_SECONDS, directory=scene.state)
    return done.text


def make(work: Path, count: int) -> None:
    """A storage folder with `count` promoted images, and the SBOMs of the first ones."""
    keys, trust = shared_keys()
    for role in (BUILDER, VERDICT):
        (work / "keys").mkdir(parents=True, exist_ok=True)
        (work / "keys" / f"{role}.pub").write_bytes(trust.current(role).pem)
    (work / "sample").mkdir()
    storage, first = StorageFolder(work / "data"), replace(world(work / "first"), keys=keys)
    sets, chance = aged_sets(sample_data(), "13", _SETS), random.Random(1)
    for number in range(count):
        whole = sets[number % _SETS]
        packages = tuple(sorted(chance.sample(whole, len(whole) - 3)))
        digest = _put(storage, first, f"team{number % _REPOSITORIES}/python", number, packages)
        with (work / "digests").open("a") as digests:
            digests.write(f"{digest}\n")
        if number < _SAMPLE:
            (work / "sample" / digest.hex).write_bytes(sbom(packages, _POINT))


def _put(
    storage: StorageFolder, first: World, repo: str, number: int, packages: tuple[LockedPackage, ...]
) -> Digest:
    """An image of its own: an index, attestations and a channel record; the platform is the same."""
    (platform,) = first.image.platforms
    data = index_bytes([platform.manifest], {"number": str(number)})
    index = Descriptor(INDEX_TYPE, storage.manifest(repo, data), len(data))
    storage.tag(repo, f"3.13.5-{index.digest.short}", index.digest)
    image = replace(first.image, index=index, platforms=(replace(platform, packages=packages),))
    findings = [finding(f"CVE-2020-{n}", one, severity="LOW") for n, one in enumerate(packages[::3])]
    proofs = proofs_of(image, packages, findings, _POINT, DATABASE)
    documents = {
        p.PROVENANCE_TYPE: canonical_json(provenance_of(image)),
        p.VERDICT_TYPE: verdicts.encode(replace(approval(image, proofs), digest=index.digest)),
        **_reports(proofs[0]),
    }
    signed = [_signed(first, kind, index.digest, predicate) for kind, predicate in sorted(documents.items())]
    storage.carrier(repo, attestation_manifest(index.digest, signed))
    record = ChannelRecord(
        index.digest, first.image.target.ref, "", Channel.STABLE, 1, Digest.of(b"entry"), NOW, "bench"
    )
    item = signed_record(record, index, first.keys.verdict)
    storage.carrier(repo, item)
    storage.manifest(repo, index_bytes([item.entry]), f"sha256-{index.digest.hex}")
    return index.digest


def _reports(proof: Evidence) -> dict[str, bytes]:
    assert isinstance(proof.scan, ScanReport)
    return {
        p.CYCLONEDX_TYPE: proof.sboms.cyclonedx,  # type: ignore[union-attr]
        p.VULNERABILITY_TYPE: p.vulnerabilities(proof.scan, NOW),
    }


def _signed(first: World, kind: str, subject: Digest, predicate: bytes) -> SignedStatement:
    payload = statement(STATEMENT_V01, subject, kind, predicate, "bench")
    key = first.keys.builder if p.ROLE_OF[kind] == BUILDER else first.keys.verdict
    return SignedStatement(kind, payload, key.sign(pae(PAYLOAD_TYPE, payload)))


def main(work: Path, source: Path) -> dict[str, float]:
    """All figures of the folder that was made, in this process."""
    place, out = Place(work / "index"), {}
    trust, registry = Trust.load(work / "keys"), FolderRegistry(_HOST, work / "data")
    with Stopwatch() as watch:
        done = reindex(place, _HOST, registry, trust, NOW, journal=_journal(work))
    if done.problems or not done.read == done.images:
        raise AssertionError(done.problems[:3])
    out["reindex"] = watch.seconds
    out |= _rescan(place, work, source)
    out |= _affected(place)
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    out["memory"] = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1000
    return out


def _journal(work: Path) -> Iterator[Pull]:
    """Every image was pulled by some identities, on some days each."""
    for number, digest in enumerate((work / "digests").read_text().split()):
        for who in range(_PULLERS):
            for day in range(0, 30, 30 // _PULL_DAYS):
                at = NOW - dt.timedelta(days=day)
                yield Pull(at, f"robot:{(number + who) % 50}", "", Digest(digest), "", 1 + day)


def _affected(place: Place) -> dict[str, float]:
    """Milliseconds, medians, of questions from opening the index on; nothing is kept from one to the next.

    About packages that nearly all images have, what a terminal shows: how many they are, and the first
    hundred; the same as JSON with all of them; about versions that few images have, what a terminal shows.
    """
    path = place.require()
    inventory = read_inventory(path)
    having = Counter(n for i in inventory.images for n in {x for p in i.platforms for x in p.packages})
    by_name: Counter[str] = Counter()
    for number, count in having.items():
        by_name[inventory.packages[number].name] += count
    common = [f"pkg:deb/debian/{name}" for name, _ in by_name.most_common(_ASKED)]
    few = [inventory.packages[number] for number, _ in having.most_common()[-_ASKED:]]
    rare = [f"pkg:deb/debian/{p.name}@{p.version}" for p in few]
    took: dict[str, list[float]] = {"affected": [], "affected_whole": [], "affected_rare": []}
    for kind, asked in (*(("affected", q) for q in common), *(("affected_rare", q) for q in rare)):
        with Stopwatch() as watch:
            shown = tuple(queries.affected(path, asked, NOW, _SHOWN).images)
        if not shown or not all(i.pulls for i in shown):
            raise AssertionError(f"{asked}: {len(shown)} images")
        took[kind].append(watch.seconds * 1000)
        if kind == "affected":
            with Stopwatch() as watch:
                json_text(queries.affected(path, asked, NOW).as_dict())
            took["affected_whole"].append(watch.seconds * 1000)
    return {kind: sorted(times)[len(times) // 2] for kind, times in took.items()}


def _rescan(place: Place, work: Path, source: Path) -> dict[str, float]:
    store = Store(work / "state").create()
    now = NOW.replace(year=2100)
    database = open_database(store, str(source), now=now, age_days_max=36_500)
    trivy = trivy_tool.locate(None, os.environ)
    with Stopwatch() as watch, store.scratch("union") as scratch:
        inventory = read_inventory(place.require())
        point, packages = inventory.of_release("debian 13")
        matched = match("debian 13", point, packages, database=database, trivy=trivy, work=scratch)
        scanned = Scanned(trivy.identity, database.identity, {"debian 13": matched})
        judged = judge(inventory, scanned, Bench(policy(), NOW))
    if len(judged) != len(inventory.images) or inventory.unfit:
        raise AssertionError("not all images were judged")
    with Stopwatch() as single:
        reports: dict[str, Any] = {}
        for path in sorted((work / "sample").iterdir()):
            output = work / "report.json"
            trivy.scan_sbom(path, database.cache_dir, output, seconds=300)
            reports[path.name] = output.rename(work / f"report-{path.name}")
    for image in inventory.images:
        if image.digest.hex in reports:
            (platform,) = image.platforms
            found = scanned.findings(platform.release, tuple(platform.packages))
            if sorted(map(repr, found)) != sorted(map(repr, read_report(reports[image.digest.hex]).findings)):
                raise AssertionError(f"other findings in {image.digest}")
    return {"rescan": watch.seconds, "each": single.seconds / len(reports)}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
