"""The rebuild kit on the wire: written canonically, read as if by an enemy. Pure.

A kit is an artefact manifest (OCI image specification 1.1, manifest.md, "Guidelines for artifact
usage") whose subject is an image's index. Its configuration names the image, the documents in their
order and the tools; its layers are documents, files of packages and the assembler's, nothing else.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from builder.errors import RegistryError
from builder.model.digest import Digest, canonical_json
from builder.model.image import MANIFEST_TYPE, Descriptor
from builder.model.kit import (
    ASSEMBLER_TYPE,
    CONFIG_TYPE,
    DOCUMENT_TYPE,
    KIT_TYPE,
    PACKAGES_TYPE,
    TITLE_ANNOTATION,
    Content,
    KitDocument,
    PackedKit,
)
from builder.model.lock import LockedPackage
from builder.oci.manifest import Manifest, parse_digest, parse_json
from builder.oci.package_file import measure, parts

SCHEMA = 1
CONFIG_MAX = 1 << 20  # bytes
DOCUMENT_MAX = 32 << 20  # bytes
_ALL_DOCUMENTS_MAX = 128 << 20  # bytes; they are read into memory
FILES_MAX = 4000  # in one document
DOCUMENTS_MAX = 64
TOTAL_MAX = 8 << 30  # bytes of a whole kit
_STEP = r"[A-Za-z0-9_][A-Za-z0-9_.+~@:=-]{0,99}"
_PATH = re.compile(rf"{_STEP}(/{_STEP}){{1,15}}")
_REF = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LAYERS = (DOCUMENT_TYPE, PACKAGES_TYPE, ASSEMBLER_TYPE)


@dataclass(frozen=True, slots=True)
class KitConfig:
    """What a kit says of itself; `documents` in their order, the image's own first.

    `tools` are the versions by name, `versions` those of the parts that decide bytes.
    """

    ref: str
    documents: tuple[Digest, ...]
    tools: Mapping[str, str]
    versions: tuple[str, ...]


def holds(path: str) -> bool:
    """Whether a document may hold a file of that path in the catalogue."""
    return bool(_PATH.fullmatch(path))


def document_bytes(document: KitDocument) -> bytes:
    """A document as canonical JSON; what is not UTF-8 is in base64."""
    parent = document.parent
    return canonical_json(
        {
            "schema": SCHEMA,
            "ref": document.ref,
            "parent": {"ref": parent[0], "document": str(parent[1])} if parent else None,
            "files": _encoded(document.files),
            "rendered": {name: _encoded(files) for name, files in document.rendered.items()},
        }
    )


def parse_document(data: bytes) -> KitDocument:
    """Read a document back; raises RegistryError for everything that we would not have written."""
    value = parse_json(data, "kit's document", DOCUMENT_MAX)
    if set(value) != {"schema", "ref", "parent", "files", "rendered"} or value["schema"] != SCHEMA:
        _refuse("the kit's document has other fields than schema 1", str(value.get("schema"))[:50])
    parent, rendered = value["parent"], value["rendered"]
    if parent is not None:
        if not isinstance(parent, dict) or set(parent) != {"ref", "document"}:
            _refuse("the kit's document names no proper parent")
        parent = (_ref(parent["ref"]), parse_digest(parent["document"], "parent.document"))
    if not isinstance(rendered, dict) or not rendered or len(rendered) > FILES_MAX:
        _refuse("the kit's document has no rendered contexts")
    return KitDocument(
        _ref(value["ref"]),
        parent,
        _decoded(value["files"]),
        {name: _decoded(files, any_path=True) for name, files in rendered.items()},
    )


def pack(
    subject: Descriptor,
    documents: Sequence[tuple[KitDocument, Mapping[LockedPackage, Path]]],
    assembler: tuple[Descriptor, Content] | None,
    tools: Mapping[str, str],
    versions: Sequence[str],
) -> PackedKit:
    """The kit of the image with the index `subject`; the image's own document first.

    With each document go its packages and their files, `assembler` is the assembler's packages as
    one blob. Raises ToolError when a file cannot be read.
    """
    blobs: dict[Digest, Content] = {}
    layers: list[Descriptor] = []
    for document, _ in documents:
        data = document_bytes(document)
        layers.append(Descriptor(DOCUMENT_TYPE, Digest.of(data), len(data), {TITLE_ANNOTATION: document.ref}))
        blobs[layers[-1].digest] = data
    for document, packages in documents:
        content = parts(packages)
        digest, size = measure(content)
        if digest not in blobs:
            layers.append(Descriptor(PACKAGES_TYPE, digest, size, {TITLE_ANNOTATION: f"{document.ref}.tar"}))
            blobs[digest] = content
    if assembler is not None:
        layers.append(assembler[0])
        blobs[assembler[0].digest] = assembler[1]
    own = [str(x.digest) for x in layers if x.media_type == DOCUMENT_TYPE]
    config = canonical_json(
        {
            "schema": SCHEMA,
            "ref": documents[0][0].ref,
            "documents": own,
            "tools": dict(sorted(tools.items())),
            "versions": list(versions),
        }
    )
    described = Descriptor(CONFIG_TYPE, Digest.of(config), len(config))
    blobs[described.digest] = config
    bare = Descriptor(subject.media_type, subject.digest, subject.size)
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": KIT_TYPE,
            "config": described.as_dict(),
            "layers": [x.as_dict() for x in layers],
            "subject": bare.as_dict(),
        }
    )
    return PackedKit(manifest, bare, blobs)


def check_kit(manifest: Manifest, subject: Digest) -> None:
    """Whether a manifest is a kit of that image, within the limits; raises RegistryError."""
    if manifest.artifact_type != KIT_TYPE or manifest.config is None:
        _refuse("that is no rebuild kit", str(manifest.artifact_type)[:100])
    if manifest.subject is None or manifest.subject.digest != subject:
        _refuse("the kit belongs to another image", str(manifest.subject and manifest.subject.digest))
    if manifest.config.media_type != CONFIG_TYPE or manifest.config.size > CONFIG_MAX:
        _refuse("the kit has another configuration", manifest.config.media_type)
    strange = [x.media_type for x in manifest.layers if x.media_type not in _LAYERS]
    if strange:
        _refuse("the kit holds something that does not belong into one", strange[0])
    if sum(x.size for x in manifest.layers) > TOTAL_MAX:
        _refuse(f"the kit is larger than {TOTAL_MAX} bytes")
    sizes = [x.size for x in manifest.layers if x.media_type == DOCUMENT_TYPE]
    if max(sizes, default=0) > DOCUMENT_MAX:
        _refuse(f"a document of the kit is larger than {DOCUMENT_MAX} bytes", str(max(sizes)))
    if sum(sizes) > _ALL_DOCUMENTS_MAX:
        _refuse(f"the kit's documents are larger than {_ALL_DOCUMENTS_MAX} bytes", str(sum(sizes)))


def parse_config(data: bytes) -> KitConfig:
    """Read a kit's configuration back; raises RegistryError."""
    value = parse_json(data, "kit's configuration", CONFIG_MAX)
    if set(value) != {"schema", "ref", "documents", "tools", "versions"} or value["schema"] != SCHEMA:
        _refuse("the kit's configuration has other fields than schema 1", str(value.get("schema"))[:50])
    documents, tools, versions = value["documents"], value["tools"], value["versions"]
    if not isinstance(documents, list) or not 1 <= len(documents) <= DOCUMENTS_MAX:
        _refuse("the kit lists no documents, or too many")
    if not isinstance(tools, dict) or not isinstance(versions, list) or len(tools) + len(versions) > 100:
        _refuse("the kit's tools are malformed")
    if not all(isinstance(x, str) and len(x) <= 200 for x in (*tools.values(), *versions)):
        _refuse("the kit's tools are malformed")
    found = tuple(parse_digest(one, "documents") for one in documents)
    return KitConfig(_ref(value["ref"]), found, tools, tuple(versions))


def _encoded(files: Mapping[str, bytes]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for path, data in files.items():
        try:
            out[path] = data.decode("utf-8")
        except UnicodeDecodeError:
            out[path] = {"base64": base64.b64encode(data).decode()}
    return out


def _decoded(value: Any, *, any_path: bool = False) -> dict[str, bytes]:
    """Files by path. `any_path`: of a rendered context, which is only compared, never written."""
    if not isinstance(value, dict) or len(value) > FILES_MAX:
        _refuse(f"the kit does not list at most {FILES_MAX} files")
    out: dict[str, bytes] = {}
    for path, content in value.items():
        if not any_path and not _PATH.fullmatch(path):
            _refuse("the kit has a file whose name is no path in a catalogue", repr(path)[:200])
        if isinstance(content, dict) and set(content) == {"base64"}:
            try:
                out[path] = base64.b64decode(content["base64"], validate=True)
            except (binascii.Error, ValueError, TypeError):
                _refuse("a file of the kit is not base64", repr(path)[:200])
        elif isinstance(content, str):
            out[path] = content.encode("utf-8", "surrogatepass")
        else:
            _refuse("a file of the kit is malformed", repr(path)[:200])
    return out


def _ref(value: Any) -> str:
    if not isinstance(value, str) or not _REF.fullmatch(value):
        _refuse("the kit names no image of a catalogue", repr(value)[:200])
    return value


def _refuse(message: str, context: str = "") -> NoReturn:
    raise RegistryError(
        message,
        context=context,
        hint="the kit was not made by this tool, or was changed: do not use it",
        reference="kit-refused",
    )
