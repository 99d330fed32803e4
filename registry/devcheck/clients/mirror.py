"""What every configuration is made from, and a file of one. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Nothing listens on the discard port: what is sent there is refused at once.
DEAD_PROXY = "http://127.0.0.1:9"
# Public registries that people name without thinking; what is not here is refused all the same.
PUBLIC = (
    "docker.io",
    "gcr.io",
    "ghcr.io",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "quay.io",
    "registry.access.redhat.com",
    "registry.fedoraproject.org",
    "registry.k8s.io",
)
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+)(:[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Mirror:
    """The mirror's `HOST[:PORT]` and the public keys of each role (PEM, one after the other).

    Raises ValueError for another form.
    """

    host: str
    builder_key: str
    verdict_key: str

    def __post_init__(self) -> None:
        if not _HOST.fullmatch(self.host):
            raise ValueError(f"not a registry host: {self.host[:100]!r}")

    @property
    def plain(self) -> bool:
        """Whether it is spoken to without TLS: on loopback only."""
        return bool(_LOOPBACK.fullmatch(self.host))

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'http' if self.plain else 'https'}://{self.host}"


def single_keys(pems: str) -> list[str]:
    """The keys of a text one by one; the text itself where there is none."""
    return re.findall(r"-----BEGIN [^-]*-----.+?-----END [^-]*-----", pems, re.DOTALL) or [pems]


@dataclass(frozen=True, slots=True)
class File:
    """A file: where it belongs on the client's machine (or what to do with it), and its text."""

    path: str
    text: str


def indented(text: str, spaces: int) -> str:
    """Lines of a PEM for a YAML block."""
    return "\n".join(" " * spaces + line for line in text.strip().splitlines())
