"""A catalogue of known images for tests: two lines of python, one of base, each with its history."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

from registry.devcheck.known import Build, Image, Known, Vulnerability

MIRROR = "mirror.example:5000"
TODAY = dt.date(2026, 3, 1)
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
FLAW = Vulnerability(id="CVE-2026-7", package="openssl=3.0.1", severity="HIGH", fixed_version="3.0.2")


def digest(name: str) -> str:
    """A digest that belongs to a name."""
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def build(name: str, *packages: str, **fields: Any) -> Build:
    """A build with these packages."""
    return Build(
        digest=digest(name),
        platforms={"linux/amd64": digest(name + "/amd64")},
        immutable_tag=f"{name}-{digest(name)[7:19]}",
        packages=packages,
        **fields,
    )


def image(ref: str, **fields: Any) -> Image:
    """A line with a newest build and one earlier."""
    name, _, tag = ref.partition(":")
    return Image(
        **{
            "ref": ref,
            "repository": f"candidate/{name}",
            "tags": (tag,),
            "channel": "candidate",
            "end_of_life": dt.date(2029, 10, 31),
            "current": build(f"{tag}.5", "libc6=2.41", "openssl=3.0.2"),
            "previous": (build(f"{tag}.4", "libc6=2.41", "openssl=3.0.1", vulnerabilities=(FLAW,)),),
            **fields,
        }
    )


def known(*images: Image) -> Known:
    """The catalogue of these images, by default of three."""
    return Known(
        schema=1,
        mirror=MIRROR,
        exported=NOW,
        valid_until=NOW + dt.timedelta(days=14),
        images=images or (image("python:3.13"), image("python:3.12"), image("base:13")),
    )


def pinned(ref: str) -> str:
    """The reference to write for a line of `known`."""
    name, _, tag = ref.partition(":")
    return f"{MIRROR}/candidate/{name}:{tag}@{digest(tag + '.5')}"
