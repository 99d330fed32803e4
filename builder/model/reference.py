"""Names: of an image in the catalogue (`python:3.13-dev`) and in a registry.

Source: OCI distribution specification 1.1, "Pulling manifests" (name and tag grammar).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from builder.model.digest import Digest

_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_HOST = re.compile(
    r"(localhost|[a-zA-Z0-9.-]+\.[a-zA-Z0-9.-]+|[a-zA-Z0-9.-]+:[0-9]{1,5}|\[[0-9a-fA-F:]+\](:[0-9]{1,5})?)(:[0-9]{1,5})?"
)
_NAME_LENGTH_MAX = 255


@dataclass(frozen=True, slots=True)
class Reference:
    """`HOST/NAME[:TAG][@DIGEST]`, checked on construction; raises ValueError when malformed."""

    host: str
    name: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise ValueError(f"not a registry host: {self.host[:100]!r}")
        if len(self.name) > _NAME_LENGTH_MAX or not _NAME.fullmatch(self.name):
            raise ValueError(f"not a repository name: {self.name[:100]!r}")
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            raise ValueError(f"not a tag: {self.tag[:150]!r}")

    @classmethod
    def parse(cls, text: str, default_host: str | None = None) -> Reference:
        """Parse a reference; without a host in `text`, `default_host` is taken.

        Raises ValueError when `text` is malformed, or has no host and there is no default.
        """
        rest, _, digest = text.partition("@")
        first, slash, remainder = rest.partition("/")
        if slash and _HOST.fullmatch(first):
            host, rest = first, remainder
        elif default_host:
            host = default_host
        else:
            raise ValueError(f"the reference names no registry: {text[:200]!r}")
        name, _, tag = rest.partition(":")
        if "@" in text and not digest:
            raise ValueError(f"empty digest in {text[:200]!r}")
        if ":" in rest and not tag:
            raise ValueError(f"empty tag in {text[:200]!r}")
        return cls(host, name, tag or None, Digest(digest) if digest else None)

    def with_tag(self, tag: str) -> Reference:
        """The same repository at `tag`, without a digest."""
        return Reference(self.host, self.name, tag)

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository at `digest`, without a tag."""
        return Reference(self.host, self.name, None, digest)

    @property
    def repository(self) -> str:
        """`HOST/NAME`."""
        return f"{self.host}/{self.name}"

    def __str__(self) -> str:
        return (
            self.repository
            + (f":{self.tag}" if self.tag else "")
            + (f"@{self.digest}" if self.digest else "")
        )
