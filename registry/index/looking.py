"""Looks at images for a rebuild: in threads over the network, in processes where that is worth it.

Reading is work for the processor (signatures, JSON), so that many images of a storage on this
machine are read by a process for each core. Over the network it is the registry that is waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.reference import Reference
from builder.signing.collect import Registry
from builder.signing.refusal import EvidenceRefused
from builder.signing.trust import Trust
from builder.tools import workers
from registry.index.reading import ImageFacts, evidence_mark, read_image
from registry.index.snapshot import Once
from registry.storage.folder import FolderRegistry

THREADS = 8
_AHEAD = 4 * THREADS  # batches that are read and not yet written
_BATCH = 16  # images that a process reads at a time
_MANY = 400  # images: below, starting processes takes longer than it saves

# What an image says, why it cannot be believed or had, or None when the index knows it already.
Look = ImageFacts | EvidenceRefused | RegistryError | None


@dataclass(frozen=True, slots=True)
class Errand:
    """An image to look at: where, and its mark in the index.

    `tags` are those of its repository; None when it is cheaper to look for one than to bring all.
    """

    where: Reference
    tags: frozenset[str] | None
    mark: str | None

    @property
    def digest(self) -> Digest:
        """The image's digest."""
        if self.where.digest is None:
            raise ValueError("an errand names a digest")
        return self.where.digest


@dataclass(frozen=True, slots=True)
class Looker:
    """Who looks: at a registry, believing these keys."""

    registry: Registry
    trust: Trust

    def look(self, errand: Errand) -> Look:
        """What an image says; it is not read when its evidence is what the index knows."""
        where, registry = errand.where, Once(self.registry)
        try:
            if errand.mark and errand.mark == evidence_mark(registry, where, errand.digest, errand.tags):
                return None
            return read_image(registry, where, self.trust, errand.tags)
        except (EvidenceRefused, RegistryError) as error:
            return error

    def look_at_all(self, errands: Iterable[Errand]) -> list[Look]:
        """One after the other."""
        return [self.look(e) for e in errands]


def looks(looker: Looker, errands: Collection[Errand]) -> Iterator[tuple[Errand, Look]]:
    """Each errand with what was found, in order, with a bounded number of them in memory."""
    unknown = sum(e.mark is None for e in errands)
    if isinstance(looker.registry, FolderRegistry) and unknown >= _MANY:
        with workers.processes(workers.cores()) as pool:
            yield from _ahead(pool, looker, (replace(e, tags=None) for e in errands), _BATCH)
    else:
        with ThreadPoolExecutor(THREADS, thread_name_prefix="reindex") as pool:
            yield from _ahead(pool, looker, errands, 1)


def _ahead(
    pool: Executor, looker: Looker, errands: Iterable[Errand], size: int
) -> Iterator[tuple[Errand, Look]]:
    waiting: deque[tuple[list[Errand], Future[list[Look]]]] = deque()
    for batch in _batches(errands, size):
        waiting.append((batch, pool.submit(looker.look_at_all, batch)))
        if len(waiting) >= _AHEAD:
            first, future = waiting.popleft()
            yield from zip(first, future.result(), strict=True)
    for first, future in waiting:
        yield from zip(first, future.result(), strict=True)


def _batches(errands: Iterable[Errand], size: int) -> Iterator[list[Errand]]:
    batch: list[Errand] = []
    for one in errands:
        batch.append(one)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
