"""Small images that a scanner takes for Debian: a release file and a package database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from builder.model.digest import Digest
from builder.model.image import PlatformImage
from builder.model.lock import LockedPackage, LockSection
from builder.oci.layout import create_layout
from tests.support.images import AMD64, add_layer, package, platform_image

# openssl at this version has advisories in the sample database; the others have none there.
PACKAGES = (
    package("bash", "5.2.37-2+b5"),
    replace(package("libssl3t64", "3.5.1-1"), source="openssl", source_version="3.5.1-1"),
    replace(package("libstdc++6", "14.2.0-19"), source="gcc-14"),
    package("tzdata", "2026c-0+deb13u1"),
    replace(package("zlib1g", "1.3-1"), version="1:1.3.dfsg+really1.3.1-1+b1", source="zlib"),
)


def debian_files(packages: Sequence[LockedPackage] = PACKAGES, release: str = "13.1") -> dict[str, bytes]:
    """The files of a root file system with these packages."""
    major = release.partition(".")[0]
    files = {
        "etc/debian_version": f"{release}\n".encode(),
        "etc/os-release": f'ID=debian\nVERSION_ID="{major}"\n'.encode(),
    }
    for p in packages:
        source = p.source if p.source_version == p.version else f"{p.source} ({p.source_version})"
        files[f"var/lib/dpkg/status.d/{p.name}"] = (
            f"Package: {p.name}\nStatus: install ok installed\nMaintainer: Somebody <s@example.org>\n"
            f"Architecture: {p.architecture}\nSource: {source}\nVersion: {p.version}\nDescription: test\n"
        ).encode()
        files[f"usr/share/doc/{p.name}/copyright"] = (
            b"Format: copyright-format-1.0\n\nFiles: *\nCopyright: somebody\nLicense: GPL-2+\n"
        )
    return files


def debian_image(
    folder: Path,
    packages: Sequence[LockedPackage] = PACKAGES,
    files: Mapping[str, bytes] | None = None,
    suite: str = "trixie",
    labels: Mapping[str, str] | None = None,
) -> PlatformImage:
    """An image with `files` whose lock names `packages`."""
    layout = create_layout(folder)
    content = debian_files(packages) if files is None else files
    ordered = tuple(sorted(packages))
    lock = LockSection("13", "runtime", AMD64, suite, Digest.of(b"intent"), None, ordered)
    image = platform_image(layout, [add_layer(layout, content)], lock=lock, labels=labels)
    return replace(image, packages=ordered)
