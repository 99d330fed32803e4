"""What was built of what: the parts of each content key, kept so that a plan can name what changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from builder.model import layers as layering
from builder.model.assembly import ASSEMBLY_VERSION
from builder.model.digest import Digest
from builder.model.history import History
from builder.model.image import Target
from builder.oci.compress import COMPRESSOR
from builder.pipeline.prepare import Prepared
from builder.stages.normalise import NORMALISE_VERSION
from builder.stages.render import used_templates
from builder.store import Store, file_digest

_KIND = "history"
_REASONS = "reasons"  # why an image was built, by its index digest
_REASONS_MAX = 100


class Components:
    """Takes content keys apart; it reads each template once."""

    def __init__(self, catalogue: Path) -> None:
        self._folder = catalogue / "templates"

    @cached_property
    def _templates(self) -> dict[str, Digest]:
        return {str(p.relative_to(self._folder)): file_digest(p) for p in sorted(self._folder.rglob("*.j2"))}

    def of(self, prepared: Prepared) -> dict[str, Any]:
        """The parts of an input hash, as JSON data."""
        target = prepared.target
        used = used_templates(self._folder, [target.definition.template])
        return {
            "definition": definition_digest(target),
            "templates": {
                n: d for n, d in self._templates.items() if n in used or n.startswith("_partials/")
            },
            "packages": {
                str(platform): {p.name: [p.version, p.sha256] for p in context.lock.packages}
                for platform, context in prepared.contexts.items()
            },
            "base": prepared.parent,
            "tool": {**tool_versions(), **{f"step {s.id}": s.release for s in target.made.by}},
        }


def tool_versions() -> dict[str, Any]:
    """The versions of our own steps that decide a digest."""
    return {
        "assembly": ASSEMBLY_VERSION,
        "layering": layering.LAYERING_VERSION,
        "normaliser": NORMALISE_VERSION,
        "compressor": COMPRESSOR,
    }


def definition_digest(target: Target) -> Digest:
    """What a person wrote of one stream: the image's own keys, and the stream's."""
    definition = target.definition.model_dump(mode="json", by_alias=True, exclude={"streams", "variants"})
    stream = target.stream.model_dump(mode="json", by_alias=True)
    return Digest.of_json([definition, stream, target.variant])


def release_identity(target: Target, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a release key, without the image's digest."""
    waivers = sorted(waiver.id for waiver in target.waivers)
    return {**identity, "checks": Digest.of_json(target.declared_checks), "waivers": waivers}


def history_of(store: Store, ref: str) -> History:
    """What was done with an image before."""
    return History.parse(ref, store.record(_KIND, Digest.of(ref.encode())))


def keep_history(store: Store, history: History) -> None:
    """Keep what was done with an image; one file an image, written whole."""
    store.remember(_KIND, Digest.of(history.ref.encode()), history.as_dict())


def keep_reasons(store: Store, digest: Digest, reasons: Iterable[object]) -> None:
    """Keep why an image was built; what is new in it will be told with that."""
    store.remember(_REASONS, digest, {"reasons": [str(r) for r in reasons][:_REASONS_MAX]})


def reasons_of(store: Store, digest: Digest) -> tuple[str, ...]:
    """Why an image was built, as far as a run here kept that."""
    record = store.record(_REASONS, digest) or {}
    found = record.get("reasons")
    return tuple(map(str, found[:_REASONS_MAX])) if isinstance(found, list) else ()
