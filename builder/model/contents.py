"""What locked packages hold: whose each path is, and when it was last changed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contents:
    """By path, without a leading `/`: the package that brings a file, its time and its SHA-256.

    `directories` are those that the packages ship. `epoch` is the newest file time, in seconds.
    """

    owners: dict[str, str]
    mtimes: dict[str, int]
    hashes: dict[str, str]
    directories: frozenset[str]
    epoch: int
