"""The provenance of an import: what was taken from where, by whom, when; written, and read back strictly.

It is SLSA provenance (v1) of a build type of its own: nothing was built, bytes were taken over.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from builder.model.digest import Digest
from builder.model.image import BuiltImage
from builder.model.imported import ImportedFrom
from builder.signing.refusal import quoted, refuse

IMPORT_TYPE = "https://goldsmith.dev/import/v1"
_SOURCE_FIELDS = {"kind", "source", "digest", "by", "at", "owner", "endOfLife"}
_TEXT_MAX = 500  # characters
_PACKAGES_MAX = 50_000


def import_provenance(
    image: BuiltImage, origin: ImportedFrom, left_out: tuple[Digest, ...], goldsmith: str, builder_id: str
) -> dict[str, Any]:
    """The provenance of an imported image; the same import gives the same provenance.

    `left_out` are the manifests of the source's index that are not in ours, `goldsmith` our version.
    """
    at = origin.at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    uri = (
        f"pkg:oci/{quote(origin.source.rpartition('/')[2])}@{quote(str(origin.digest), safe='')}"
        f"?repository_url={quote(origin.source, safe='')}"
    )
    return {
        "buildDefinition": {
            "buildType": IMPORT_TYPE,
            "externalParameters": {
                "ref": image.target.ref,
                "immutableTag": image.immutable_tag,
                "platforms": [str(p.platform) for p in image.platforms],
                "importedFrom": {
                    "kind": origin.kind,
                    "source": origin.source,
                    "digest": str(origin.digest),
                    "by": origin.by,
                    "at": at,
                    "owner": origin.owner,
                    "endOfLife": origin.end_of_life.isoformat(),
                },
            },
            "internalParameters": {
                "packages": {
                    p.platform.debian: [f"{x.name}={x.version}" for x in p.packages] for p in image.platforms
                },
                "leftOut": [str(d) for d in left_out],
            },
            "resolvedDependencies": [
                {"uri": uri, "digest": {"sha256": origin.digest.hex}, "name": origin.source}
            ],
        },
        "runDetails": {"builder": {"id": builder_id, "version": {"goldsmith": goldsmith}}},
    }


def parse_import(build: Mapping[str, Any]) -> tuple[ImportedFrom, frozenset[tuple[str, str]]]:
    """Read an import's build definition: where it came from, and (architecture, NAME=VERSION).

    Raises EvidenceRefused for any field missing, unknown or malformed.
    """
    external, internal = build.get("externalParameters"), build.get("internalParameters")
    source = external.get("importedFrom") if isinstance(external, dict) else None
    if not isinstance(source, dict) or set(source) != _SOURCE_FIELDS:
        refuse("predicate-malformed", "the import does not say where it is from", context=quoted(source))
    if not all(isinstance(v, str) and 0 < len(v) <= _TEXT_MAX for v in source.values()):
        refuse(
            "predicate-malformed", "what the import says of its source is malformed", context=quoted(source)
        )
    packages = internal.get("packages") if isinstance(internal, dict) else None
    if not isinstance(packages, dict) or not all(isinstance(v, list) for v in packages.values()):
        refuse("predicate-malformed", "the import names no packages of its platforms")
    named = frozenset((str(a), p) for a, found in packages.items() for p in found if isinstance(p, str))
    if len(named) != sum(map(len, packages.values())) or len(named) > _PACKAGES_MAX * len(packages):
        refuse("predicate-malformed", "the import's list of packages is malformed")
    try:
        origin = ImportedFrom(
            kind=source["kind"],
            source=source["source"],
            digest=Digest(source["digest"]),
            by=source["by"],
            at=dt.datetime.strptime(source["at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC),
            owner=source["owner"],
            end_of_life=dt.date.fromisoformat(source["endOfLife"]),
        )
    except ValueError as error:
        refuse("predicate-malformed", "the import's source is malformed", context=quoted(str(error)))
    return origin, named
