"""`goldsmith db sync`: a sound database is mirrored, signed and pinned; a bad one is kept out."""

from __future__ import annotations

import datetime as dt
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.cli.main import run
from builder.errors import GoldsmithError, RegistryError, ToolError
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.transport import Limits
from builder.signing.keys import Keys
from builder.stages import sync as stage
from builder.stages.sync import Pin, read_pin, signed_database
from builder.store import Store
from builder.tools import trivy
from builder.tools.trivy_db import open_database
from builder.tools.trivy_db_source import LAYER_TYPE
from registry.changes import OWN
from registry.devcheck.approval import for_developers
from registry.gate.repositories import Names
from tests.contract.test_trivy_db import archive_of, layout_of, published, variant
from tests.support.catalogue import image, write
from tests.support.evidence import new_keys
from tests.support.fake_trivy import canary_report
from tests.support.registry_simulator import Simulator, simulator, status
from tests.support.vulndb import sample_database
from tests.support.vulndb.make import buckets, sample_data, write_database

NOW = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
LATER = "2026-08-30T00:00:00Z"
REPO = stage.REPOSITORY


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample's two files, and again as if they were no sample."""
    folder = tmp_path_factory.mktemp("sample")
    sample_database(folder)
    return variant(folder / "sample-db", folder / "real", Sample=None)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return new_keys(tmp_path_factory.mktemp("keys"))


class Scanner:
    """Finds the canary whatever the database holds."""

    def scan_sbom(self, sbom: Path, cache: Path, output: Path, *, seconds: float) -> None:
        output.write_text(json.dumps(canary_report()))


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with simulator() as sim:
        yield sim


class Mirror:
    """A state directory, our registry, and what a sync is made with."""

    def __init__(self, folder: Path, sim: Simulator, keys: Keys) -> None:
        self.store = Store(folder / "state").create()
        self.sim, self.keys = sim, keys
        self.scanner: Any = Scanner()
        limits = Limits(connect_seconds=5, read_seconds=5, total_seconds=20, attempts=1)
        self.client = RegistryClient(sim.address, limits=limits)

    def sync(self, source: Path | str, days: float = 30, now: dt.datetime = NOW) -> tuple[Pin, bool]:
        return stage.sync(
            str(source),
            store=self.store,
            client=self.client,
            trivy=self.scanner,
            signer=lambda: self.keys.verdict,
            releases=["debian 13"],
            now=now,
            age_days_max=days,
        )

    def refusal(self, source: Path | str, **changes: object) -> GoldsmithError:
        """Sync, be refused, and see that nothing changed."""
        before = self.seen()
        with pytest.raises(GoldsmithError) as refused:
            self.sync(source, **changes)  # type: ignore[arg-type]
        assert self.seen() == before
        return refused.value

    def seen(self) -> tuple[Pin | None, str | None]:
        return read_pin(self.store), self.sim.tags.get(REPO, {}).get("2")


@pytest.fixture
def mirror(tmp_path: Path, sim: Simulator, keys: Keys) -> Mirror:
    return Mirror(tmp_path, sim, keys)


def test_what_was_mirrored_is_signed_pinned_and_what_scans_use(mirror: Mirror, sample: Path) -> None:
    pin, changed = mirror.sync(sample)
    assert changed
    assert mirror.seen() == (pin, pin.digest)
    digest, said = signed_database(
        mirror.client, Reference.parse(pin.reference), mirror.keys.verdict.public.verifies
    )
    assert (digest, said["updatedAt"]) == (pin.digest, "2026-08-22T00:00:00Z")
    found = open_database(mirror.store, pin.reference, now=NOW, age_days_max=30)
    assert found.identity.digest == pin.digest
    assert (found.cache_dir / "db" / "trivy.db").read_bytes() == (sample / "trivy.db").read_bytes()


def test_from_a_registry_a_layout_a_tar_and_a_folder_it_is_the_same_database(
    mirror: Mirror, sample: Path, tmp_path: Path
) -> None:
    archive = archive_of(sample, tmp_path)
    layout, _ = layout_of(tmp_path / "layout", archive)
    with tarfile.open(tmp_path / "layout.tar", "w") as tar:
        tar.add(layout, ".")
    published(mirror.sim, archive)
    upstream = f"{mirror.sim.address}/aquasec/trivy-db:2"
    sources = (sample, tmp_path / "db.tar.gz", layout, tmp_path / "layout.tar", upstream)
    pins = [mirror.sync(source)[0] for source in sources]
    assert {pin.reference for pin in pins} == {pins[0].reference}
    assert [pin.asked for pin in pins] == [str(source) for source in sources]


def test_unchanged_nothing_is_written(mirror: Mirror, sample: Path) -> None:
    pin, _ = mirror.sync(sample)
    writes = mirror.sim.count("PUT|POST|PATCH")
    assert mirror.sync(sample, now=NOW + dt.timedelta(days=1)) == (pin, False)
    assert mirror.sim.count("PUT|POST|PATCH") == writes


def test_a_registry_that_lost_it_gets_it_again(mirror: Mirror, sample: Path) -> None:
    pin, _ = mirror.sync(sample)
    for part in (mirror.sim.tags, mirror.sim.manifests, mirror.sim.blobs):
        part.pop(REPO)
    again, changed = mirror.sync(sample)
    assert changed
    assert again.reference == pin.reference
    assert mirror.seen()[1] == pin.digest


def test_a_newer_one_takes_the_place_and_the_old_one_goes_from_the_disk(
    mirror: Mirror, sample: Path, tmp_path: Path
) -> None:
    old, _ = mirror.sync(sample)
    open_database(mirror.store, old.reference, now=NOW, age_days_max=30)
    new, changed = mirror.sync(variant(sample, tmp_path / "new", UpdatedAt=LATER))
    assert changed
    assert new.updated_at == LATER
    open_database(mirror.store, new.reference, now=NOW, age_days_max=30)
    kept = [p.name for p in mirror.store.db.iterdir() if p.is_dir()]
    assert kept == [new.digest.hex]


def test_a_bad_one_is_kept_out_and_the_old_one_stays(mirror: Mirror, sample: Path, tmp_path: Path) -> None:
    data = (sample / "trivy.db").read_bytes()
    mirror.sync(variant(sample, tmp_path / "large", data + bytes(len(data) // 8)))
    bad = {
        "database-shrunk": {"UpdatedAt": LATER},
        "database-older": {"data": data + bytes(len(data) // 8), "UpdatedAt": "2026-08-21T00:00:00Z"},
        "database-sample": {"data": data + bytes(len(data) // 8), "Sample": True},
        "database-schema": {"Version": 3},
        "database-from-the-future": {"UpdatedAt": "2027-01-01T00:00:00Z"},
        "database-too-old": {"UpdatedAt": "2026-01-01T00:00:00Z"},
        "database-damaged": {"data": data[: len(data) // 2 + 100]},
        "database-metadata": {"UpdatedAt": "yesterday"},
    }
    for number, (reference, changes) in enumerate(bad.items()):
        error = mirror.refusal(variant(sample, tmp_path / f"bad{number}", **changes))  # type: ignore[arg-type]
        assert (error.reference, error.exit_code) == (reference, 5)


def test_one_in_which_the_canary_is_not_found_is_kept_out(
    mirror: Mirror, sample: Path, tmp_path: Path
) -> None:
    mirror.sync(sample)
    data = sample_data()
    del data["releases"]["13"]["openssl"]
    without = write_database(tmp_path / "without", buckets(data), LATER, sample=False)
    mirror.scanner = trivy.locate(None, {"PATH": "/usr/bin:/bin"})
    error = mirror.refusal(without)
    assert error.reference == "database-canary"
    assert "debian 13: CVE-2025-9230" in error.context
    assert mirror.sync(variant(sample, tmp_path / "new", UpdatedAt=LATER))[1]


def test_it_shrinks_by_less_than_a_tenth(mirror: Mirror, sample: Path, tmp_path: Path) -> None:
    data = (sample / "trivy.db").read_bytes()
    mirror.sync(variant(sample, tmp_path / "large", data + bytes(len(data) // 12)))
    assert mirror.sync(variant(sample, tmp_path / "new", UpdatedAt=LATER))[1]


def test_the_old_one_serves_until_its_age_limit_and_then_verdicts_stop(mirror: Mirror, sample: Path) -> None:
    pin, _ = mirror.sync(sample)
    assert mirror.refusal("/nowhere").exit_code == 5
    open_database(mirror.store, pin.reference, now=NOW + dt.timedelta(days=19), age_days_max=30)
    with pytest.raises(ToolError) as refused:
        open_database(mirror.store, pin.reference, now=NOW + dt.timedelta(days=21), age_days_max=30)
    assert refused.value.reference == "database-too-old"


def test_a_source_that_gives_nothing_newer_is_told_when_the_age_limit_is_over(
    mirror: Mirror, sample: Path
) -> None:
    """`db status` sends people here to learn why no newer one was taken."""
    pin, _ = mirror.sync(sample)
    with pytest.raises(ToolError) as refused:
        mirror.sync(sample, now=NOW + dt.timedelta(days=60))
    assert refused.value.reference == "database-too-old"
    assert read_pin(mirror.store) == pin


def test_cut_at_any_write_nothing_is_pinned_and_the_next_sync_completes(
    mirror: Mirror, sample: Path, tmp_path: Path
) -> None:
    old, _ = mirror.sync(sample)
    new = variant(sample, tmp_path / "new", UpdatedAt=LATER)
    passed = 0
    while True:
        seen = [0]

        def cut(handler, seen=seen, passed=passed) -> None:
            seen[0] += 1
            if seen[0] > passed:
                status(503)(handler)
            else:
                handler.serve()

        fault = mirror.sim.fault("PUT|POST|PATCH", REPO, cut)
        try:
            pin, _ = mirror.sync(new)
        except RegistryError:
            assert read_pin(mirror.store) == old
            passed += 1
            continue
        finally:
            mirror.sim.faults.remove(fault)
        break
    assert passed >= 4
    assert mirror.seen() == (pin, pin.digest)


def test_a_statement_by_another_key_or_none_is_no_signature(
    mirror: Mirror, sample: Path, tmp_path: Path
) -> None:
    pin, _ = mirror.sync(sample)
    other = new_keys(tmp_path / "other").verdict.public
    published(mirror.sim, archive_of(sample, tmp_path))
    unsigned = Reference.parse(f"{mirror.sim.address}/aquasec/trivy-db:2")
    verifies = mirror.keys.verdict.public.verifies
    for reference, key in ((Reference.parse(pin.reference), other.verifies), (unsigned, verifies)):
        with pytest.raises(ToolError) as refused:
            signed_database(mirror.client, reference, key)
        assert refused.value.reference == "database-unsigned"


@pytest.mark.parametrize("content", ["", "{}", '{"reference": "x"}', "[]"])
def test_a_damaged_pin_is_said(mirror: Mirror, sample: Path, content: str) -> None:
    mirror.sync(sample)
    (mirror.store.db / "pin.json").write_text(content)
    with pytest.raises(ToolError) as refused:
        read_pin(mirror.store)
    assert refused.value.reference == "database-pin"


def test_trivy_itself_can_use_the_mirror(mirror: Mirror, sample: Path) -> None:
    """Its own media types, and the two files in one archive."""
    pin, _ = mirror.sync(sample)
    data, _, digest = mirror.client.get_manifest(mirror.client.reference(REPO, "2"))
    manifest = json.loads(data)
    assert digest == pin.digest == Digest.of(data)
    assert manifest["layers"][0]["mediaType"] == LAYER_TYPE
    assert manifest["layers"][0]["annotations"]["org.opencontainers.image.title"] == "db.tar.gz"


def test_status_says_what_is_pinned_and_ends_with_5_when_it_is_too_old(
    mirror: Mirror,
    sample: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = write(tmp_path / "catalogue", image("base"))
    monkeypatch.setenv("GOLDSMITH_CATALOGUE", str(root))
    monkeypatch.setenv("GOLDSMITH_STATE", str(mirror.store.root))
    monkeypatch.delenv("GOLDSMITH_POLICY", raising=False)
    assert run(["db", "status", "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["error"] == "database-not-pinned"
    today = dt.datetime.now(dt.UTC)
    fresh = variant(sample, tmp_path / "fresh", UpdatedAt=today.strftime("%Y-%m-%dT%H:%M:%SZ"))
    pin, _ = mirror.sync(fresh, now=today)
    assert run(["db", "status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == pin.digest
    path = mirror.store.db / "pin.json"
    path.write_text(path.read_text().replace(pin.updated_at, "2026-01-01T00:00:00Z"))
    assert run(["db", "status", "--json"]) == 5
    assert json.loads(capsys.readouterr().out)["error"] == "database-too-old"


def test_the_mirror_is_no_image_to_anybody() -> None:
    """Neither the gate, nor the developers' catalogue, nor the index takes it for one."""
    assert REPO in OWN
    assert not for_developers(REPO, [REPO])
    assert Names().public(REPO) is None
