"""The catalogue: all definitions, and how they hang together. Made by `stages/define.py`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from builder.errors import ChangedMeanwhile, UsageError
from builder.model.definition import BuilderDefinition, CatalogueCheck, ChecksDefinition, ImageDefinition
from builder.model.digest import Digest
from builder.model.image import Made, Target
from builder.model.waiver import Waiver, WaiversDefinition

_NOTHING_MADE = Made()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Definitions and checks by image name; their cross references are known to be sound.

    `builder` is the root file system in which the Docker engine assembles images; `files` holds
    the contents that definitions put into images, by image and path in its folder; `common` are the
    checks for all images, by id; `made` is what steps of extensions make, by image and stream;
    `read` are the digests of definitions, checks, their files, and templates, by path, as they were read.
    """

    root: Path
    definitions: Mapping[str, ImageDefinition]
    checks: Mapping[str, ChecksDefinition]
    builder: BuilderDefinition | None = None
    waivers: Mapping[str, WaiversDefinition] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    common: Mapping[str, CatalogueCheck] = field(default_factory=dict)
    made: Mapping[str, Mapping[str, Made]] = field(default_factory=dict)
    read: Mapping[str, Digest] = field(default_factory=dict)

    def digest_of(self, path: str) -> Digest:
        """The digest of a file of the catalogue as it was read; raises ChangedMeanwhile if it came later."""
        found = self.read.get(str(PurePosixPath(path)))
        if found is None:
            raise ChangedMeanwhile([path])
        return found

    def targets(self) -> tuple[Target, ...]:
        """Every image to build, parents before children, otherwise by name."""
        found = [
            self._target(name, stream, variant)
            for name, definition in self.definitions.items()
            for stream in definition.streams
            for variant in definition.variants
        ]
        return tuple(sorted(found, key=lambda t: (len(self.ancestors(t)), t.ref)))

    def find(self, ref: str) -> Target:
        """`python:3.13`, `python:3.13-dev`, or `python` if it has one stream; raises UsageError."""
        targets = self.targets()
        for target in targets:
            if target.ref == ref:
                return target
        runtime = [t for t in targets if t.definition.name == ref and t.variant == "runtime"]
        if len(runtime) == 1:
            return runtime[0]
        if len(runtime) > 1:
            raise UsageError(
                f"{ref} has several streams", hint="name one: " + ", ".join(t.ref for t in runtime)
            )
        near = difflib.get_close_matches(ref, [*self.definitions, *(t.ref for t in targets)], 1)
        raise UsageError(
            f"no image {ref[:200]!r} in the catalogue",
            hint=f"did you mean {near[0]}?" if near else "`goldsmith images` lists the catalogue",
        )

    def parent(self, target: Target) -> Target | None:
        """The image that `target` is built on: of the same suite and the same variant."""
        reference = target.definition.parent
        if reference is None:
            return None
        name, stream = parent_stream(self.definitions, reference, target.stream.suite)
        return self._target(name, stream, target.variant)

    def ancestors(self, target: Target) -> tuple[Target, ...]:
        """The parent, its parent, and so on."""
        parent = self.parent(target)
        return () if parent is None else (parent, *self.ancestors(parent))

    def directory(self, name: str) -> Path:
        """The folder of an image's files."""
        return self.root / "images" / name

    def only(self, platform: str) -> Catalogue:
        """The same catalogue with images of one platform alone; those without it are as they were."""
        narrowed = {
            name: d.model_copy(update={"platforms": (platform,)}) if platform in d.platforms else d
            for name, d in self.definitions.items()
        }
        return replace(self, definitions=narrowed)

    def _target(self, name: str, stream: str, variant: str) -> Target:
        target = Target(
            self.definitions[name],
            self.checks[name],
            self.directory(name),
            stream,
            variant,
            files=self.files.get(name, {}),
            common=self.common,
            made=self.made.get(name, {}).get(stream, _NOTHING_MADE),
        )
        return replace(target, waivers=self._waivers(target)) if self.waivers else target

    def _waivers(self, target: Target) -> tuple[Waiver, ...]:
        """The image's own waivers, then those of its parents."""
        name, parent = target.definition.name, self.parent(target)
        own = self.waivers[name].waivers if name in self.waivers else ()
        inherited = parent.waivers if parent else ()
        return (
            *(
                Waiver(name, entry, inherited=False)
                for entry in own
                if (not entry.streams or target.stream_name in entry.streams)
                and (not entry.variants or target.variant in entry.variants)
            ),
            *(replace(waiver, inherited=True) for waiver in inherited),
        )


def parent_stream(definitions: Mapping[str, ImageDefinition], reference: str, suite: str) -> tuple[str, str]:
    """The image and stream that `from: reference` means for a stream of `suite`.

    Raises ValueError, with a sentence for people, when there is none or more than one.
    """
    name, _, stream = reference.partition(":")
    if name not in definitions:
        raise ValueError(f"there is no image {name!r} in the catalogue")
    streams = definitions[name].streams
    if stream:
        if stream not in streams:
            raise ValueError(f"image {name!r} has no stream {stream!r}")
        if streams[stream].suite != suite:
            raise ValueError(f"{name}:{stream} is made of {streams[stream].suite}, not of {suite}")
        return name, stream
    fitting = [s for s, value in streams.items() if value.suite == suite]
    if len(fitting) != 1:
        raise ValueError(f"image {name!r} has {'no stream' if not fitting else 'several streams'} of {suite}")
    return name, fitting[0]
