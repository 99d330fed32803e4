"""Makes the sample database: `trivy.db` and `metadata.json` (trivy-db schema 2) in a tar.

The same data gives the same bytes, on every machine.
"""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import lzma
import tarfile
from pathlib import Path
from typing import Any

from tests.support.vulndb.bolt import write_bolt

_DATA = Path(__file__).with_name("data") / "debian.json.xz"
_SEVERITIES = ("UNKNOWN", "LOW", "MEDIUM", "HIGH", "CRITICAL")
_DATA_SOURCE = {"ID": "debian", "Name": "Debian Security Tracker (sample)"}


def sample_database(folder: Path) -> Path:
    """Make `folder`/sample-db.tar; its metadata says that it is a sample, and its real age."""
    data = sample_data()
    database = write_database(folder / "sample-db", buckets(data), data["updated"])
    return write_archive(database, folder / "sample-db.tar")


def sample_data() -> dict[str, Any]:
    """The compact source data (its format is described in README.md)."""
    loaded: dict[str, Any] = json.loads(lzma.decompress(_DATA.read_bytes()))
    return loaded


def buckets(data: dict[str, Any]) -> dict[str, Any]:
    """The data as trivy-db's buckets: advisories by release and source package, and details."""
    root: dict[str, Any] = {"data-source": {}}
    known = dict(data["vulnerabilities"])
    for release, packages in data["releases"].items():
        root["data-source"][f"debian {release}"] = _json(_DATA_SOURCE)
        root[f"debian {release}"] = {
            package: {name: _json(_advisory(advisory)) for name, advisory in advisories.items()}
            for package, advisories in packages.items()
        }
        # An advisory stands in where no CVE was assigned; each id needs its details.
        for advisories in packages.values():
            known |= {name: {} for name in advisories if name not in known}
    root["vulnerability"] = {name: _json(_details(entry)) for name, entry in known.items()}
    return root


def write_database(folder: Path, root: dict[str, Any], updated: str, sample: bool = True) -> Path:
    """Write `trivy.db` and `metadata.json` to `folder`; `updated` is RFC 3339 in UTC."""
    folder.mkdir(parents=True, exist_ok=True)
    write_bolt(folder / "trivy.db", root)
    following = dt.datetime.fromisoformat(updated) + dt.timedelta(days=1)
    metadata = {
        "Version": 2,
        "NextUpdate": following.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "UpdatedAt": updated,
        "DownloadedAt": "0001-01-01T00:00:00Z",
    }
    (folder / "metadata.json").write_bytes(_json(metadata | ({"Sample": True} if sample else {})))
    return folder


def write_archive(folder: Path, archive: Path) -> Path:
    """Pack the two files the way Trivy publishes them, without times or owners.

    Compressed when the name of `archive` ends with `.gz`; the bytes then depend on the zlib.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in ("metadata.json", "trivy.db"):
            data = (folder / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    data = raw.getvalue()
    archive.write_bytes(gzip.compress(data, 6, mtime=0) if archive.suffix == ".gz" else data)
    return archive


def _advisory(entry: dict[str, Any]) -> dict[str, Any]:
    names = {"fixed": "FixedVersion", "advisories": "VendorIDs", "severity": "Severity", "status": "Status"}
    return {names[key]: value for key, value in entry.items()}


def _details(entry: dict[str, Any]) -> dict[str, Any]:
    details = {"Title": entry["title"]} if "title" in entry else {}
    return {**details, "Severity": _SEVERITIES[entry.get("severity", 0)]}


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
