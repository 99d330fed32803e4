"""Configurations that keep a client away from every registry but the mirror: one module a client.

A module has `TITLE`, `files(mirror)`, and two lists of sentences: `ENFORCES` and `CANNOT`. A mirror
setting alone blocks nothing: most clients go on to the public hub when the mirror refuses.
"""

from __future__ import annotations

from typing import Protocol

from builder.errors import UsageError
from registry.devcheck.clients import buildx, containerd, docker, kyverno, podman, policy_controller
from registry.devcheck.clients.mirror import File, Mirror


class Client(Protocol):
    """What each module has."""

    @property
    def TITLE(self) -> str:
        """The program and its versions."""

    @property
    def ENFORCES(self) -> tuple[str, ...]:
        """What the configuration makes sure of."""

    @property
    def CANNOT(self) -> tuple[str, ...]:
        """What it cannot make sure of."""

    def files(self, mirror: Mirror, /) -> tuple[File, ...]:
        """The files, with the place each belongs to."""


CLIENTS: dict[str, Client] = {
    "docker": docker,
    "containerd": containerd,
    "podman": podman,
    "buildx": buildx,
    "kyverno": kyverno,
    "policy-controller": policy_controller,
}


def find(name: str) -> Client:
    """The client of that name; raises UsageError."""
    if name not in CLIENTS:
        raise UsageError(f"there is no client {name[:50]!r}", hint=", ".join(CLIENTS))
    return CLIENTS[name]
