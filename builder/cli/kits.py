"""The composition root of rebuild kits: workshop → the kit that is published with an image."""

from __future__ import annotations

from builder.cli.wiring import Workshop
from builder.model.image import BuiltImage
from builder.model.kit import PackedKit


def kit_of(workshop: Workshop, image: BuiltImage) -> PackedKit:
    """The kit of a finished image, with the assembler's packages of this machine's platform."""
    from builder.engines.assembler_kit import packages_blob
    from builder.pipeline.kits import make_kit

    assembler = None
    if workshop.catalogue.builder is not None:
        assembler = packages_blob(workshop.assembler_section(), workshop.pool)
    return make_kit(workshop.catalogue, image, workshop.pool, tool_versions(), assembler)


def tool_versions() -> dict[str, str]:
    """What an image is built with here, by name."""
    import platform

    from builder.oci.compress import COMPRESSOR
    from builder.version import version

    return {"goldsmith": version(), "python": platform.python_version(), "compressor": COMPRESSOR}
