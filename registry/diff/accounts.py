"""The accounts of an image: what /etc/passwd and /etc/group say, line by line.

Source: passwd(5), group(5). A line that is malformed is told as it stands: programs may read it anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from builder.model.image import PlatformImage
from builder.oci.filesystem import read_filesystem
from builder.oci.layout import create_layout
from registry.diff.facts import ImageFacts
from registry.diff.files import platform_image

_FILES = ("etc/passwd", "etc/group")
_TEXT_MAX = 300  # characters of one line


def accounts(image: ImageFacts, work: Path) -> Mapping[str, Mapping[str, str]]:
    """By platform, each account and group as text; `trees` has fetched the layers into `work`."""
    layout = create_layout(work)
    return {name: image_accounts(platform_image(p, layout)) for name, p in image.platforms.items()}


def image_accounts(image: PlatformImage) -> Mapping[str, str]:
    """Each account and group of an image, by name, as text; empty where it has no such files."""
    files = read_filesystem(image, _FILES)
    passwd, group = (files.read(path) or b"" for path in _FILES)
    return {**account_texts(passwd), **group_texts(group)}


def account_texts(passwd: bytes) -> dict[str, str]:
    """The accounts of a passwd file: `user NAME` → number, group, home and shell."""
    told: dict[str, str] = {}
    for key, fields in _lines("user", passwd, 7):
        if len(fields) == 7:
            password = {"x": "", "*": "", "": ", NO PASSWORD"}.get(fields[1], ", a password of its own")
            home = f"home {fields[5]}, shell {fields[6] or '/bin/sh'}"
            said = f"uid {fields[2]}, gid {fields[3]}, {home}{password}"
        else:
            said = fields[0]
        told[_unique(key, told)] = said
    return told


def group_texts(group: bytes) -> dict[str, str]:
    """The groups of a group file: `group NAME` → number and members."""
    told: dict[str, str] = {}
    for key, fields in _lines("group", group, 4):
        members = f", members {fields[3]}" if len(fields) == 4 and fields[3] else ""
        said = f"gid {fields[2]}{members}" if len(fields) == 4 else fields[0]
        told[_unique(key, told)] = said
    return told


def _lines(kind: str, data: bytes, width: int) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        fields = [field[:_TEXT_MAX] for field in line.split(":")]
        if len(fields) == width and fields[0]:
            yield f"{kind} {fields[0]}", fields
        elif line.strip():
            yield f"{kind}, line {number}", [line[:_TEXT_MAX]]


def _unique(key: str, told: Mapping[str, str]) -> str:
    """A name that stands twice is told twice: the first one counts for most programs, not for all."""
    number, name = 2, key
    while name in told:
        name, number = f"{key} ({number})", number + 1
    return name
