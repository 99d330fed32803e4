"""What an image is made of, and who wrote that: from the catalogue, git, and the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.image import Target
from builder.model.lock import LockSection
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.sources import (
    WRITER_MAX,
    Origin,
    Sources,
    Tree,
    definition_digest,
    lock_digest,
    template_digest,
)
from builder.signing.attested import Believes, provenances
from builder.signing.collect import Registry
from builder.tools.git import Git, Range

_TEMPLATES = "templates"


@dataclass(frozen=True)
class Historian:
    """Tells where images come from; `registry` at `host` knows which of them are stable.

    `believes` is whether a signature (DER) over bytes is by the builder's key.
    """

    catalogue: Catalogue
    environment: Mapping[str, str]
    registry: Registry
    host: str
    believes: Believes
    publisher: str

    def sources(self, target: Target, locks: Mapping[Platform, LockSection]) -> Sources:
        """What an image is made of, and who wrote what is new since it was last stable."""
        definition, template = self.written(target)
        return Sources(definition, template, lock_digest(locks), self.origin(target))

    def written(self, target: Target) -> tuple[Digest, Digest]:
        """The digests of definition and template, as they were when the catalogue was read."""
        from builder.stages.render import used_templates

        chain, folder = self._chain(target), self.catalogue.root / _TEMPLATES
        used = used_templates(folder, {t.definition.template for t in chain})
        builder = self.catalogue.builder
        said = builder.model_dump(mode="json", by_alias=True, exclude_defaults=True) if builder else None
        return definition_digest(chain), template_digest(
            {p: self.catalogue.digest_of(f"{_TEMPLATES}/{p}") for p in used}, said
        )

    def origin(self, target: Target) -> Origin:
        """The commit, its writers, and the state of the files."""
        git, publisher = Git(self.catalogue.root, self.environment), self.publisher[:WRITER_MAX]
        tree, commit = git.state(self.paths(target))
        if tree is Tree.NONE or not commit:
            return Origin(tree, publisher)
        since = {t.ref: found for t in self._chain(target) if (found := self._stable_commit(t, git))}
        writers = git.writers(list(self._ranges(target, since)))
        lockers = git.writers([Range(since.get(target.ref, ""), tuple(self._locks(self._chain(target))))])
        if writers is None or lockers is None:
            return Origin(Tree.UNKNOWN, publisher, commit)
        return Origin(tree, publisher, commit, tuple(sorted(since.items())), writers, lockers)

    def paths(self, target: Target) -> tuple[str, ...]:
        """Where the files are that an image is made of, and those below it."""
        return (*(f"images/{t.definition.name}" for t in self._chain(target)), _TEMPLATES)

    def written_paths(self, target: Target) -> tuple[str, ...]:
        """The same without the locks, for git: what people write."""
        return (*self.paths(target), *(f":(exclude){path}" for path in self._locks(self._chain(target))))

    def _ranges(self, target: Target, since: Mapping[str, str]) -> Sequence[Range]:
        """Where writers are looked for: from the last stable image on.

        Of an image that never was stable its own files count from their beginning, and what it
        shares with the images below from the last stable one of those.
        """
        own, below = self.paths(target)[:1], self.paths(target)[1:]
        without = tuple(f":(exclude){path}" for path in self._locks(self._chain(target)))
        if target.ref in since:
            return [Range(since[target.ref], (*own, *below, *without))]
        nearest = next((since[t.ref] for t in self._chain(target) if t.ref in since), "")
        return [Range("", (*own, *without)), Range(nearest, (*below, *without))]

    def _chain(self, target: Target) -> tuple[Target, ...]:
        return (target, *self.catalogue.ancestors(target))

    def _locks(self, chain: Sequence[Target]) -> list[str]:
        return [*(f"images/{t.definition.name}/image.lock" for t in chain), f"{_TEMPLATES}/builder.lock"]

    def _stable_commit(self, target: Target, git: Git) -> str:
        """A commit that the stable image was published from: each of them holds what it is made of."""
        where = Reference(self.host, target.definition.name, target.tag, None)
        found = provenances(self.registry, where, self.believes)
        commits = {p.sources.origin.commit for p in found if p.sources and p.ref == target.ref}
        return min((c for c in commits if git.has(c)), default="")
