"""Which repositories of the storage a gate serves, and under which names."""

from __future__ import annotations

from dataclasses import dataclass

from registry import changes
from registry.gate.names import Refused, read_path

CANDIDATE, QUARANTINE = "candidate/", "quarantine/"


@dataclass(frozen=True, slots=True)
class Names:
    """Which repositories of the storage are served, and under which names.

    With the prefix `candidate/`, those below it, with or without it in the public name; with an
    empty prefix, all but the candidates.
    """

    prefix: str = CANDIDATE
    strip: bool = False

    def public(self, storage: str) -> str | None:
        """The public name of a repository; None when it is not served."""
        if storage.startswith(QUARANTINE) or not storage.startswith(self.prefix):
            return None  # what others made is not even a candidate yet
        if not self.prefix and storage.startswith(CANDIDATE):
            return None
        if storage in changes.OWN:
            return None
        name = storage[len(self.prefix) :] if self.strip else storage
        try:
            return read_path(f"/v2/{name}/tags/list".encode()).name
        except Refused:
            return None

    def storage(self, public: str) -> str | None:
        """The other way round."""
        name = self.prefix + public if self.strip else public
        return name if self.public(name) == public else None
