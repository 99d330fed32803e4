"""The vulnerability database: from every source, and refused whenever it is not what it should be."""

from __future__ import annotations

import datetime as dt
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.image import MANIFEST_TYPE, Descriptor
from builder.oci.layout import create_layout, write_blob, write_layout_index
from builder.oci.manifest import manifest_bytes
from builder.store import Store
from builder.tools import trivy_db, trivy_db_source
from builder.tools.trivy_db import Database, current_digest, open_database
from builder.tools.trivy_db_source import LAYER_TYPE
from tests.support.registry_simulator import Simulator, simulator
from tests.support.vulndb import sample_database, write_archive

NOW = dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
CONFIG = b"{}"
REPO = "aquasec/trivy-db"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sample's two files, and sample-db.tar beside it."""
    folder = tmp_path_factory.mktemp("sample")
    sample_database(folder)
    return folder / "sample-db"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state").create()


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with simulator() as sim:
        yield sim


def opened(store: Store, source: Path | str | None, days: float = 30, **changes: Any) -> Database:
    arguments = {"now": NOW, "age_days_max": days} | changes
    return open_database(store, None if source is None else str(source), **arguments)


def refusal(store: Store, source: Path | str | None, days: float = 30, **changes: Any) -> ToolError:
    with pytest.raises(ToolError) as refused:
        opened(store, source, days, **changes)
    return refused.value


def variant(
    sample: Path, folder: Path, data: bytes | None = None, metadata: bytes | None = None, **fields: Any
) -> Path:
    """A copy of the sample with other bytes or metadata fields."""
    folder.mkdir()
    (folder / "trivy.db").write_bytes((sample / "trivy.db").read_bytes() if data is None else data)
    known = json.loads((sample / "metadata.json").read_bytes())
    known = {k: v for k, v in (known | fields).items() if v is not None}
    (folder / "metadata.json").write_bytes(json.dumps(known).encode() if metadata is None else metadata)
    return folder


def artefact(archive: bytes, layer_type: str = LAYER_TYPE) -> tuple[bytes, Descriptor]:
    """The manifest of a database, and its layer."""
    layer = Descriptor(layer_type, Digest.of(archive), len(archive))
    config = Descriptor("application/vnd.aquasec.trivy.config.v1+json", Digest.of(CONFIG), len(CONFIG))
    return manifest_bytes(config, [layer]), layer


def published(sim: Simulator, archive: bytes, tag: str = "2", layer_type: str = LAYER_TYPE) -> Digest:
    """Put a database into the registry."""
    manifest, layer = artefact(archive, layer_type)
    sim.blobs.setdefault(REPO, {}).update({Digest.of(CONFIG): CONFIG, layer.digest: archive})
    return sim.put(REPO, manifest, MANIFEST_TYPE, tag)


def archive_of(folder: Path, tmp_path: Path) -> bytes:
    return write_archive(folder, tmp_path / "db.tar.gz").read_bytes()


def layout_of(folder: Path, archive: bytes) -> tuple[Path, Digest]:
    create_layout(folder)
    manifest, _ = artefact(archive)
    for blob in (CONFIG, archive):
        write_blob(folder, blob)
    digest = write_blob(folder, manifest)
    write_layout_index(folder, [Descriptor(MANIFEST_TYPE, digest, len(manifest))])
    return folder, digest


# ------------------------------------------------------------------- sources


def test_a_tar_a_folder_and_a_compressed_tar_hold_the_same_database(
    sample: Path, store: Store, tmp_path: Path
) -> None:
    archive = write_archive(sample, tmp_path / "db.tar.gz")
    sources = (sample.parent / "sample-db.tar", archive, sample)
    found = [opened(store, source) for source in sources]
    for database in found:
        assert (database.cache_dir / "db" / "trivy.db").read_bytes() == (sample / "trivy.db").read_bytes()
        assert database.identity.sample
        assert database.identity.updated_at == "2026-08-22T00:00:00Z"
        assert str(tmp_path) not in database.identity.source
    assert found[0].identity.digest == Digest.of(sources[0].read_bytes())
    assert found[1].identity.digest == Digest.of(archive.read_bytes())


def test_a_layout_as_folder_and_as_tar(sample: Path, store: Store, tmp_path: Path) -> None:
    layout, digest = layout_of(tmp_path / "layout", archive_of(sample, tmp_path))
    with tarfile.open(tmp_path / "layout.tar", "w") as tar:
        tar.add(layout, ".")
    for source in (layout, tmp_path / "layout.tar"):
        assert opened(store, source).identity.digest == digest


def test_a_registry_by_tag_and_by_digest(sample: Path, store: Store, tmp_path: Path, sim: Simulator) -> None:
    digest = published(sim, archive_of(sample, tmp_path))
    for reference in (f"{sim.address}/{REPO}:2", f"{sim.address}/{REPO}", f"{sim.address}/{REPO}@{digest}"):
        database = opened(store, reference)
        assert database.identity.digest == digest
        assert current_digest(store, reference) == digest
    assert (database.cache_dir / "db" / "trivy.db").is_file()


def test_a_registry_is_asked_again_after_some_hours_only(
    sample: Path, store: Store, tmp_path: Path, sim: Simulator
) -> None:
    reference = f"{sim.address}/{REPO}:2"
    old = published(sim, archive_of(sample, tmp_path))
    assert opened(store, reference).identity.digest == old
    new = published(sim, archive_of(variant(sample, tmp_path / "new", NextUpdate="x"), tmp_path))
    asked = sim.count("GET")
    assert opened(store, reference, now=NOW + dt.timedelta(hours=5)).identity.digest == old
    assert sim.count("GET") == asked
    assert opened(store, reference, now=NOW + dt.timedelta(hours=6)).identity.digest == new
    assert not (store.db / old.hex).exists(), "the one that nobody uses any more is removed"


def test_without_the_registry_the_last_one_serves_until_it_is_too_old(
    sample: Path, store: Store, tmp_path: Path, sim: Simulator
) -> None:
    reference = f"{sim.address}/{REPO}:2"
    digest = published(sim, archive_of(sample, tmp_path))
    opened(store, reference)
    sim.fault("GET", "", lambda handler: handler.error(503, "UNAVAILABLE"))
    later = NOW + dt.timedelta(days=2)
    assert opened(store, reference, days=12, now=later).identity.digest == digest
    asked = sim.count("GET")
    opened(store, reference, days=13, now=later + dt.timedelta(minutes=59))
    assert sim.count("GET") == asked, "it is not asked in each run"
    opened(store, reference, days=13, now=later + dt.timedelta(minutes=60))
    assert sim.count("GET") > asked
    error = refusal(store, reference, days=11.9, now=later)
    assert "12.0 days old; the policy allows 11.9" in error.message


def test_an_altered_database_is_fetched_anew(
    sample: Path, store: Store, tmp_path: Path, sim: Simulator
) -> None:
    reference = f"{sim.address}/{REPO}:2"
    published(sim, archive_of(sample, tmp_path))
    path = opened(store, reference).cache_dir / "db" / "trivy.db"
    good = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(good[:-1] + b"\x01")
    assert (opened(store, reference).cache_dir / "db" / "trivy.db").read_bytes() == good


def test_a_database_that_nobody_touched_is_not_read_again(
    sample: Path, store: Store, tmp_path: Path, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = f"{sim.address}/{REPO}:2"
    published(sim, archive_of(sample, tmp_path))
    folder = opened(store, reference).cache_dir
    read: list[Path] = []
    hashing = trivy_db.file_digest
    monkeypatch.setattr(trivy_db, "file_digest", lambda path: (read.append(path), hashing(path))[1])
    opened(store, reference)
    assert read == []
    (folder / "db" / "trivy.db").touch()
    opened(store, reference)
    assert folder / "db" / "trivy.db" in read
    read.clear()
    opened(store, reference)
    assert read == []


def test_no_source_at_all_ends_soon_and_says_what_to_do(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()
    monkeypatch.setattr(trivy_db_source, "_from_registry", lambda *_: never.wait(60))
    monkeypatch.setattr(trivy_db_source, "ASK_SECONDS", 0.2)
    error = refusal(store, None)
    never.set()
    assert error.message == "no vulnerability database can be had"
    assert "no answer within 0.2 s" in error.context
    assert "GOLDSMITH_TRIVY_DB" in error.hint


def test_the_second_of_the_usual_places_is_asked_when_the_first_fails(
    sample: Path, store: Store, tmp_path: Path, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = published(sim, archive_of(sample, tmp_path))
    places = (f"{sim.address}/not/there:2", f"{sim.address}/{REPO}:2")
    monkeypatch.setattr(trivy_db_source, "DEFAULT_SOURCES", places)
    assert opened(store, None).identity.digest == digest


# ------------------------------------------------------------------- refusals


@pytest.mark.parametrize("source", ["/not/there", "./not/there.tar", "no reference", "localhost/x@sha256:1"])
def test_a_source_that_is_nothing(store: Store, source: str) -> None:
    error = refusal(store, source)
    assert error.message == "no vulnerability database can be had"
    assert error.context


def test_a_tar_with_nothing_of_ours_is_named(store: Store, tmp_path: Path) -> None:
    for name, members in (("none.tar", []), ("other.tar", [Path(__file__)])):
        with tarfile.open(tmp_path / name, "w") as tar:
            for member in members:
                tar.add(member, arcname="other")
        context = refusal(store, str(tmp_path / name)).context
        assert f"{name} holds no database" in context and "layout-" not in context


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"Version": 1}, "has schema 1, not 2"),
        ({"Version": 3}, "has schema 3, not 2"),
        ({"Version": None}, "has schema None, not 2"),
        ({"Version": True}, "has schema True, not 2"),
        ({"UpdatedAt": None}, "no proper time"),
        ({"UpdatedAt": "yesterday"}, "no proper time"),
        ({"UpdatedAt": "2026-08-22T00:00:00"}, "no proper time"),
        ({"UpdatedAt": "2026-09-01T02:00:00Z"}, "from the future"),
        ({"UpdatedAt": "2026-08-01T23:00:00Z"}, "30.0 days old"),
    ],
)
def test_metadata_that_are_not_right(
    sample: Path, store: Store, tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(store, variant(sample, tmp_path / "wrong", **fields)).message


@pytest.mark.parametrize("metadata", [b"", b"{", b"[]", b'{"Version":2,"Version":2}'])
def test_metadata_that_are_not_readable(sample: Path, store: Store, tmp_path: Path, metadata: bytes) -> None:
    assert "metadata" in refusal(store, variant(sample, tmp_path / "wrong", metadata=metadata)).context + (
        refusal(store, tmp_path / "wrong").message
    )


def test_a_database_that_is_cut_tiny_or_something_else(sample: Path, store: Store, tmp_path: Path) -> None:
    whole = (sample / "trivy.db").read_bytes()
    wrong = {
        "cut": (whole[:-4096], "it is cut"),
        "tiny": (whole[: 1 << 19], "a real one at least"),
        "empty": (b"", "it has 0 bytes"),
        "other": (bytes(2 << 20), "no bbolt file"),
    }
    for name, (data, reason) in wrong.items():
        assert reason in refusal(store, variant(sample, tmp_path / name, data=data)).message


def test_a_database_that_lost_most_of_itself(
    sample: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sim: Simulator
) -> None:
    monkeypatch.setattr(trivy_db, "SIZE_MIN", 0)
    reference = f"{sim.address}/{REPO}:2"
    whole = (sample / "trivy.db").read_bytes()
    published(
        sim, archive_of(variant(sample, tmp_path / "big", data=whole + bytes(len(whole) * 2)), tmp_path)
    )
    opened(store, reference)
    published(sim, archive_of(sample, tmp_path))
    error = refusal(store, reference, refresh_hours=0)
    assert "shrank from" in error.message


def entry(name: str, data: bytes = b"x", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([entry("metadata.json"), entry("../trivy.db")], "holds something else"),
        ([entry("metadata.json"), entry("/trivy.db")], "holds something else"),
        ([entry("metadata.json"), entry("db/trivy.db")], "holds something else"),
        ([entry("metadata.json"), entry("extra")], "holds something else"),
        ([entry("metadata.json"), entry("metadata.json")], "holds something else"),
        ([entry("trivy.db", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "holds something else"),
        ([entry("trivy.db", b"", type=tarfile.LNKTYPE, linkname="metadata.json")], "holds something else"),
        ([entry("trivy.db", b"", type=tarfile.FIFOTYPE)], "holds something else"),
        ([entry("metadata.json", bytes((1 << 20) + 1))], "holds something else"),
        ([entry("metadata.json")], "has no trivy.db"),
    ],
)
def test_an_archive_with_anything_else_in_it(
    store: Store, tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], reason: str
) -> None:
    path = tmp_path / "wrong.tar"
    with tarfile.open(path, "w") as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    assert reason in refusal(store, path).message
    assert [p.name for p in store.db.iterdir()] == []
    assert not (tmp_path / "trivy.db").exists()


def test_an_archive_that_is_cut(sample: Path, store: Store, tmp_path: Path) -> None:
    whole = archive_of(sample, tmp_path)
    for name, data in (
        ("a", whole[: len(whole) // 2]),
        ("b", whole[:-30_000]),
        ("c", b"\x1f\x8b"),
        ("d", b""),
    ):
        (tmp_path / name).write_bytes(data)
        refusal(store, tmp_path / name)
    assert [p.name for p in store.db.iterdir()] == []


def test_a_registry_that_gives_other_bytes(
    sample: Path, store: Store, tmp_path: Path, sim: Simulator
) -> None:
    archive = archive_of(sample, tmp_path)
    published(sim, archive)
    sim.blobs[REPO][Digest.of(archive)] = archive[:-1] + b"\7"
    assert "other content" in refusal(store, f"{sim.address}/{REPO}:2").context
    assert [p.name for p in store.db.iterdir()] == []


def test_an_artefact_that_is_no_database(sample: Path, store: Store, tmp_path: Path, sim: Simulator) -> None:
    published(sim, archive_of(sample, tmp_path), layer_type="application/vnd.oci.image.layer.v1.tar+gzip")
    assert "is no Trivy database" in refusal(store, f"{sim.address}/{REPO}:2").context


def test_a_layout_with_an_altered_blob(sample: Path, store: Store, tmp_path: Path) -> None:
    archive = archive_of(sample, tmp_path)
    layout, _ = layout_of(tmp_path / "layout", archive)
    (layout / "blobs" / "sha256" / Digest.of(archive).hex).write_bytes(archive[:-1] + b"\7")
    assert "other content" in refusal(store, layout).context


def test_records_that_are_damaged_are_ignored(
    sample: Path, store: Store, tmp_path: Path, sim: Simulator
) -> None:
    reference = f"{sim.address}/{REPO}:2"
    digest = published(sim, archive_of(sample, tmp_path))
    opened(store, reference)
    (record,) = store.db.glob("current-*.json")
    for text in ("", "{", "[]", '{"digest": 3}', '{"digest": "sha256:x", "asked_at": "now", "bytes": 1}'):
        record.write_text(text)
        assert current_digest(store, reference) is None
        assert opened(store, reference).identity.digest == digest


def test_a_full_disk_leaves_nothing(sample: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trivy_db_source.shutil, "copyfile", full)
    assert "No space left" in refusal(store, sample).context
    assert [*store.db.iterdir(), *store.tmp.iterdir()] == []


def test_a_source_that_is_not_there_is_named_whoever_named_it(tmp_path: Path) -> None:
    """The command line of `db sync` names one as well as the variable does."""
    with pytest.raises(ToolError) as refused:
        trivy_db_source.resolve(str(tmp_path / "none.tar"))
    assert refused.value.message == f"the vulnerability database {tmp_path}/none.tar is not there"
    assert "db sync" in refused.value.hint and "GOLDSMITH_TRIVY_DB" in refused.value.hint
