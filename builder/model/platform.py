"""Platforms, as OCI and as Debian name them."""

from __future__ import annotations

from dataclasses import dataclass

_DEBIAN_ARCHITECTURES = {"amd64": "amd64", "arm64": "arm64"}
_MULTIARCH = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """`os/architecture` of the OCI image specification 1.1, config.md; raises ValueError."""

    os: str
    architecture: str

    def __post_init__(self) -> None:
        if self.os != "linux" or self.architecture not in _DEBIAN_ARCHITECTURES:
            raise ValueError(f"not a platform we build for: {self.os}/{self.architecture}")

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse `linux/amd64`."""
        os, _, architecture = text.partition("/")
        return cls(os, architecture)

    @property
    def debian(self) -> str:
        """The Debian architecture."""
        return _DEBIAN_ARCHITECTURES[self.architecture]

    @property
    def multiarch(self) -> str:
        """Debian's folder of libraries for the platform (multiarch tuple, dpkg-architecture(1))."""
        return _MULTIARCH[self.architecture]

    def __str__(self) -> str:
        return f"{self.os}/{self.architecture}"
