"""What a rescan teaches the index: what was found today, and whether that was all of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy import delete, insert

from builder.model.digest import Digest
from builder.model.evidence import Finding
from registry.index import schema
from registry.index.reading import Flaw
from registry.index.writing import Added, Writer
from registry.rescan.asking import Answered
from registry.rescan.inventory import Image, Inventory
from registry.rescan.judging import Scanned

REMEMBERED = "rescan"  # the fact under which the last complete rescan's key stands


def learn(
    path: Path, inventory: Inventory, scanned: Scanned, answers: Mapping[Digest, Answered], key: str
) -> None:
    """Write what the database says of packages today, what scanners of extensions say of the images that
    they were asked about, and, when all is done, the key of that."""
    found: Mapping[int, tuple[Flaw, ...]] = {
        n: tuple(map(_flaw, flaws))
        for matched in scanned.releases.values()
        for n, flaws in matched.findings.items()
    }
    engine = schema.engine(path)
    with engine.begin() as connection:
        writer = Writer(connection)
        writer.learn(found, scanned.database.digest, scanned.database.updated_at)
        writer.write_flaws()
        for image in inventory.images:
            if image.digest in answers:
                writer.learn_further(image.digest, _added(image, inventory, answers[image.digest]))
        connection.execute(delete(schema.facts).where(schema.facts.c.name == REMEMBERED))
        if key:
            connection.execute(insert(schema.facts), [{"name": REMEMBERED, "value": key}])
    engine.dispose()


def _added(image: Image, inventory: Inventory, answered: Answered) -> Iterator[Added]:
    for platform in image.platforms:
        named: defaultdict[str, list[int]] = defaultdict(list)
        for number in platform.packages:
            named[inventory.packages[number].name].append(number)
        for one in answered.further.get(platform.digest, ()):
            for finding in one.findings:
                for number in named[finding.package]:
                    yield answered.platforms[platform.digest], number, one.scanner.id, _flaw(finding)


def _flaw(finding: Finding) -> Flaw:
    severity = finding.severity.value
    return Flaw(finding.id, severity, finding.status, finding.fixed_version, finding.title)
