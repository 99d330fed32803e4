"""The assembler's packages in one file, as a rebuild kit carries them: all kits have the very same."""

from __future__ import annotations

from builder.engines.assembler import Pool
from builder.model.image import Descriptor
from builder.model.kit import ASSEMBLER_TYPE, TITLE_ANNOTATION, Content, assembler_title
from builder.model.lock import LockSection
from builder.oci.package_file import measure, parts


def packages_blob(section: LockSection, pool: Pool) -> tuple[Descriptor, Content]:
    """The packages of the assembler as one tar.

    Raises LockError when a package is not the locked one, ToolError when a file cannot be read.
    """
    pool.fetch(section.packages)
    content = parts({package: pool.path(package) for package in section.packages})
    title = {TITLE_ANNOTATION: assembler_title(section.platform)}
    return Descriptor(ASSEMBLER_TYPE, *measure(content), title), content
