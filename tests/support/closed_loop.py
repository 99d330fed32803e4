"""A world in which a flaw can be found and fixed: a signed archive, a vulnerability database, a catalogue.

    base ← greetlib ← greeter       a library, and what is built on it
    base ← other                    what has nothing to do with it

`base` is made of real packages, the others of small ones. `publish_fix` puts a fixed version of the library
into the archive and an advisory into the database.
"""

from __future__ import annotations

import datetime as dt
import shutil
from pathlib import Path

import yaml

from builder.model.lock import ImageLock
from builder.settings import Settings
from builder.store import Store
from builder.tools.mirror import find
from builder.tools.pool import Pool
from tests.support.archive import Archive
from tests.support.catalogue import image, stream
from tests.support.vulndb.make import buckets, sample_data, write_archive, write_database

CVE = "CVE-2026-4242"
REFS = ("base:13", "greetlib:1", "greeter:1", "other:1")
_CHECKS = "schema: 1\nfiles: [{path: /etc/os-release}]\n"
# What real packages depend on and no image of ours holds, with what stands for it.
_DUMMIES = {
    "debconf": "debconf-2.0",
    "debianutils": "debian-tools",
    "mawk": "awk",
    "openssl-provider-legacy": "legacy",
}


class ClosedLoop:
    """Catalogue, archive and database below `folder`; the packages of base are today's."""

    def __init__(self, folder: Path, today: Path, settings: Settings) -> None:
        self.folder, self.catalogue = folder, folder / "catalogue"
        self.database = folder / "database.tar"
        self.archive = Archive(folder / "archive", dt.datetime.now(dt.UTC).replace(microsecond=0))
        self._define(today)
        self._stock(settings)
        for name in ("greetlib", "greeter", "other"):
            self.archive.add(f"{name}-app")
        self.archive.publish()
        self._data = sample_data()
        self._write_database()

    def publish_fix(self) -> None:
        """A new version of the library, and an advisory that names it."""
        self.archive.add("greetlib-app", "1.0-2")
        self.archive.publish()
        self._data["releases"]["13"]["greetlib-app"] = {CVE: {"fixed": "1.0-2"}}
        self._data["vulnerabilities"][CVE] = {"title": "greets the wrong one", "severity": 4}
        updated = dt.datetime.fromisoformat(self._data["updated"]) + dt.timedelta(days=1)
        self._data["updated"] = updated.strftime("%Y-%m-%dT%H:%M:%SZ")
        self._write_database()

    def _define(self, today: Path) -> None:
        shutil.copytree(today / "templates", self.catalogue / "templates")
        shutil.copytree(today / "images" / "base", self.catalogue / "images" / "base")
        for name, parent in (("greetlib", "base"), ("greeter", "greetlib"), ("other", "base")):
            folder = self.catalogue / "images" / name
            folder.mkdir()
            document = image(name, streams={"1": stream(f"{name}-app")}, **{"from": parent})
            (folder / "image.yaml").write_text(yaml.safe_dump(document))
            (folder / "checks.yaml").write_text(_CHECKS)

    def _stock(self, settings: Settings) -> None:
        """The archive of today, as far as base and the assembler need it."""
        locks = (
            self.catalogue / "images" / "base" / "image.lock",
            self.catalogue / "templates" / "builder.lock",
        )
        sections = [s for lock in locks for s in ImageLock.parse(lock.read_text()).sections]
        packages = {p.sha256: p for s in sections for p in s.packages if p.architecture in ("amd64", "all")}
        pool = Pool(
            Store(settings.state).create(), lambda: find(settings.debian_mirror), settings.child_environment
        )
        pool.fetch(packages.values())
        for package in packages.values():
            self.archive.take(pool.path(package), package.path)
        there = {p.name for p in packages.values()}
        for name, provides in _DUMMIES.items():
            if name not in there:
                self.archive.add(name, "99.0-1", provides=provides)

    def _write_database(self) -> None:
        folder = self.folder / "database"
        write_database(folder, buckets(self._data), self._data["updated"])
        write_archive(folder, self.database)
