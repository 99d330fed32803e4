"""Pack a kit: the catalogue's files and the rendered contexts of an image → a document of its kit.

What decides on an image (policies, waivers) is not in it: it says nothing about the image's bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from builder.errors import ChangedMeanwhile, DefinitionError, Problem, RegistryError
from builder.model.catalogue import Catalogue
from builder.model.digest import Digest
from builder.model.image import BuildContext, Target
from builder.model.kit import KitDocument
from builder.model.lock import ImageLock
from builder.model.platform import Platform
from builder.oci.kit import document_bytes, holds, parse_document
from builder.store import read_file
from builder.tools.strict_model import is_within

_LEFT_OUT = ("README.md", "waivers.yaml", "image.lock")  # of the lock, only the image's sections are in it
_SHARED = ("templates/builder.yaml", "templates/builder.lock")
_FILE_MAX = 16 << 20  # bytes


def document(
    catalogue: Catalogue,
    target: Target,
    contexts: Mapping[Platform, BuildContext],
    templates: Iterable[str],
    parent: tuple[str, Digest] | None,
) -> KitDocument:
    """The document of `target`; `templates` are those that it is rendered from, below `templates/`.

    Files with names that no definition can give (blanks, say) decide on nothing, and are left out.
    Raises DefinitionError when a file of the catalogue cannot be read, or nobody could read the document;
    ChangedMeanwhile when one is not what the catalogue was read from.
    """
    root, folder = catalogue.root, target.directory
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        shown = f"images/{target.definition.name}/{name}"
        if name not in _LEFT_OUT and holds(shown) and path.is_file():
            files[shown] = _read(root, path)
    for shown in (*(f"templates/{name}" for name in templates), *_SHARED):
        if shown not in _SHARED or (root / shown).is_file():
            files[shown] = _read(root, root / shown)
    _refuse_changes(catalogue, f"images/{target.definition.name}/", files)
    lock = ImageLock(tuple(context.lock for context in contexts.values()))
    files[f"images/{target.definition.name}/image.lock"] = lock.text().encode()
    rendered = {str(platform): dict(context.files) for platform, context in contexts.items()}
    made = KitDocument(target.ref, parent, files, rendered)
    try:
        parse_document(document_bytes(made))
    except RegistryError as error:
        problem = Problem(
            f"images/{target.definition.name}",
            "",
            f"its files make no rebuild kit: {error.message}",
            "take out of the folder what no build needs",
        )
        raise DefinitionError([problem]) from None
    return made


def _refuse_changes(catalogue: Catalogue, own: str, files: Mapping[str, bytes]) -> None:
    """What the image was built from is what was read; what is packed has to be the same."""
    gone = {path for path in catalogue.read if path.startswith(own)} - files.keys()
    other = {
        path
        for path, data in files.items()
        if (path in catalogue.read or path.endswith(".j2")) and catalogue.read.get(path) != Digest.of(data)
    }
    if gone or other:
        raise ChangedMeanwhile(sorted(gone | other))


def _read(root: Path, path: Path) -> bytes:
    shown = str(path.relative_to(root))
    try:
        if not is_within(path, root):
            raise OSError("a link that leads out of the catalogue")
        return read_file(path, _FILE_MAX)
    except OSError as error:
        problem = Problem(shown, "", f"it cannot be put into the rebuild kit: {error.strerror or error}")
        raise DefinitionError([problem]) from None
