"""The licences of an image's packages, from the copyright files that it holds.

They go into the SPDX document of the image, which is attested: each package with its expression,
the texts of licences that have no SPDX name, and every copyright file once, which together are
the notice. Source: SPDX 2.3, clauses 7.13, 7.15 and 10.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.checks.copyright import SIZE_MAX, Copyright, plain_text, read_copyright
from builder.model.digest import Digest, canonical_json
from builder.model.evidence import PackageLicence
from builder.model.licence import NOASSERTION, PUBLIC_DOMAIN
from builder.model.lock import LockedPackage
from builder.oci.filesystem import FileSystem

_DOC, _COMMON = "usr/share/doc/", "usr/share/common-licenses/"
_NOTICE = "LicenseRef-copyright-"
_COMMON_REF = "LicenseRef-common-licenses-"


@dataclass(frozen=True, slots=True)
class Licences:
    """What every package is licensed under, and the texts: by LicenseRef, and files by their digest."""

    packages: tuple[PackageLicence, ...]
    texts: Mapping[str, str]
    notices: Mapping[Digest, str]
    common: Mapping[str, str]


def is_licence_file(path: str) -> bool:
    """Whether a path of an image is one that `read_licences` reads."""
    return path.startswith(_COMMON) or (
        path.startswith(_DOC) and posixpath.basename(path) == "copyright" and path.count("/") == 4
    )


def read_licences(files: FileSystem, packages: Iterable[LockedPackage]) -> Licences:
    """The licence of every package; a package without a copyright file, or with one too large, is unknown.

    A package may share the documentation of another one of the same source and version (Debian
    Policy 12.5); the link to it is not kept in a runtime image, so it is looked for there.
    """
    listed = sorted(packages, key=lambda p: p.name)
    own = {p.name: _file(files, p.name) for p in listed}
    by_source: dict[tuple[str, str], bytes] = {}
    for p in listed:
        if (data := own[p.name]) is not None:
            by_source.setdefault((p.source, p.source_version), data)
    read: dict[bytes, tuple[Digest, Copyright]] = {}
    found: list[PackageLicence] = []
    texts: dict[str, set[str]] = {}
    notices: dict[Digest, str] = {}
    for p in listed:
        data = own[p.name] or by_source.get((p.source, p.source_version))
        if data is None or len(data) > SIZE_MAX:
            found.append(PackageLicence(p.name, NOASSERTION, "unknown", None))
            continue
        if data not in read:
            text = plain_text(data)
            digest = Digest.of(text.encode())
            notices[digest] = text
            read[data] = digest, read_copyright(data)
        digest, said = read[data]
        for reference, text in said.texts.items():
            texts.setdefault(reference, set()).add(text)
        if PUBLIC_DOMAIN in said.expression:
            texts.setdefault(PUBLIC_DOMAIN, set()).add("in the public domain; see the copyright file")
        found.append(PackageLicence(p.name, said.expression, said.how, digest))
    joined = {reference: "\n----\n".join(sorted(several)) for reference, several in texts.items()}
    return Licences(tuple(found), joined, notices, _common(files, notices.values()))


def _file(files: FileSystem, name: str) -> bytes | None:
    return files.read(f"{_DOC}{name}/copyright")


def _common(files: FileSystem, notices: Iterable[str]) -> dict[str, str]:
    """The common licences that a copyright file points to, by name."""
    names = sorted(p.removeprefix(_COMMON) for p in files.entries if p.startswith(_COMMON))
    whole = list(notices)
    found = {}
    for name in names:
        data = files.read(_COMMON + name)
        if data is not None and any(_COMMON + name in text for text in whole):
            found[name] = plain_text(data)
    return found


def with_licences(spdx: bytes, licences: Licences) -> bytes:
    """The SPDX document with the licences of its packages and all their texts; canonical JSON.

    The document is our scanner's own, just compared with the lock.
    """
    document: dict[str, Any] = json.loads(spdx)
    known = {p.package: p for p in licences.packages}
    for package in document.get("packages", []):
        one = known.get(str(package.get("name")))
        if one is None or package.get("primaryPackagePurpose") in ("CONTAINER", "OPERATING-SYSTEM"):
            continue
        package["licenseDeclared"] = package["licenseConcluded"] = one.expression
        package["licenseComments"] = f"{one.how}; copyright file: {_reference(one.copyright)}"
    document["hasExtractedLicensingInfos"] = [
        {"licenseId": reference, "name": reference.removeprefix("LicenseRef-"), "extractedText": text}
        for reference, text in sorted(_texts(licences).items())
    ]
    return canonical_json(document)


def _texts(licences: Licences) -> dict[str, str]:
    return {
        **licences.texts,
        **{_reference(digest): text for digest, text in licences.notices.items()},
        **{_COMMON_REF + name: text for name, text in licences.common.items()},
    }


def _reference(digest: Digest | None) -> str:
    return f"{_NOTICE}{digest.hex}" if digest else "none"


def notice(spdx: Mapping[str, Any]) -> str:
    """The notice in an SPDX document of ours: every copyright file once, with the packages it is of."""
    infos = {
        str(i.get("licenseId")): str(i.get("extractedText"))
        for i in _objects(spdx, "hasExtractedLicensingInfos")
    }
    users: dict[str, list[str]] = {}
    for package in _objects(spdx, "packages"):
        reference = str(package.get("licenseComments", "")).rpartition(" ")[2]
        if reference in infos:
            users.setdefault(reference, []).append(str(package.get("name")))
    parts = [
        _section(", ".join(sorted(names)), infos[reference])
        for reference, names in sorted(users.items(), key=lambda item: sorted(item[1]))
    ]
    parts += [
        _section(f"/{_COMMON}{reference.removeprefix(_COMMON_REF)}", text)
        for reference, text in sorted(infos.items())
        if reference.startswith(_COMMON_REF)
    ]
    return "\n".join(parts)


def _section(title: str, text: str) -> str:
    line = "=" * 78
    return f"{line}\n{title}\n{line}\n{text.rstrip()}\n"


def licences_of(spdx: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """Package, version, expression and how it was found, of every package in an SPDX document of ours."""
    return tuple(
        {
            "package": str(package.get("name")),
            "version": str(package.get("versionInfo", "")),
            "licence": str(package.get("licenseDeclared", NOASSERTION)),
            "how": str(package["licenseComments"]).partition(";")[0],
        }
        for package in sorted(_objects(spdx, "packages"), key=lambda p: str(p.get("name")))
        if "licenseComments" in package
    )


def _objects(parent: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = parent.get(key)
    return [x for x in value if isinstance(x, dict)] if isinstance(value, list) else []
