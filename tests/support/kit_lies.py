"""Kits that lie: each says something else than its builder did, and is named by what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from builder.model.digest import Digest, canonical_json
from builder.model.image import Descriptor
from builder.model.kit import DOCUMENT_TYPE, PACKAGES_TYPE, PackedKit
from builder.oci.tarformat import END, TarEntry, header, padding

Document = dict[str, Any]


def respoken(kit: PackedKit, change: Callable[[Document, dict[Digest, bytes]], None]) -> PackedKit:
    """The kit with its manifest and its small blobs changed, and named by their new digests."""
    manifest = json.loads(kit.manifest)
    small = {d: b for d, b in kit.blobs.items() if isinstance(b, bytes)}
    files = {d: b for d, b in kit.blobs.items() if not isinstance(b, bytes)}
    change(manifest, small)
    data = canonical_json(manifest)
    return PackedKit(data, kit.subject, {**files, **{Digest.of(b): b for b in small.values()}})


def documents(change: Callable[[list[Document]], None]) -> Callable[[Document, dict[Digest, bytes]], None]:
    """Change what the documents say, and name them by their new digests everywhere."""

    def apply(manifest: Document, small: dict[Digest, bytes]) -> None:
        layers = [x for x in manifest["layers"] if x["mediaType"] == DOCUMENT_TYPE]
        said = [json.loads(small[Digest(x["digest"])]) for x in layers]
        change(said)
        below: Document | None = None
        for layer, document in reversed(list(zip(layers, said, strict=True))):
            if document["parent"] is not None and below is not None:
                document["parent"]["document"] = below["digest"]
            _place(layer, small, canonical_json(document))
            below = layer
        _config(manifest, small, documents=[x["digest"] for x in layers])

    return apply


def _config(manifest: Document, small: dict[Digest, bytes], **fields: Any) -> None:
    config = json.loads(small[Digest(manifest["config"]["digest"])])
    _place(manifest["config"], small, canonical_json({**config, **fields}))


def _place(layer: Document, small: dict[Digest, bytes], data: bytes) -> None:
    small.pop(Digest(layer["digest"]), None)
    layer["digest"], layer["size"] = str(Digest.of(data)), len(data)
    small[Digest.of(data)] = data


def about(manifest: bytes, subject: Descriptor) -> bytes:
    """A kit's manifest, on another image."""
    bare = {"mediaType": subject.media_type, "digest": str(subject.digest), "size": subject.size}
    return canonical_json({**json.loads(manifest), "subject": bare})


Change = Callable[[Document, dict[Digest, bytes]], None]


def drop_packages(manifest: Document, small: dict[Digest, bytes]) -> None:
    manifest["layers"] = [x for x in manifest["layers"] if "app:1.tar" not in x["annotations"].values()]


def instead(data: bytes) -> Change:
    """In the place of the image's own file of packages."""

    def apply(manifest: Document, small: dict[Digest, bytes]) -> None:
        (layer,) = (x for x in manifest["layers"] if "app:1.tar" in x["annotations"].values())
        _place(layer, small, data)

    return apply


def packed(*members: tuple[str, bytes], kind: str = "0") -> bytes:
    """A file of packages with these members."""
    blocks = [(TarEntry(n, kind, 0o644, 0, 0, len(d), 0, ""), d) for n, d in members]
    return b"".join(header(e) + d + padding(len(d)) for e, d in blocks) + END


def add_file(manifest: Document, small: dict[Digest, bytes]) -> None:
    layer = {"mediaType": PACKAGES_TYPE, "digest": str(Digest.of(b"")), "size": 0}
    manifest["layers"].append(layer)
    _place(layer, small, packed())


def add_stranger(manifest: Document, small: dict[Digest, bytes]) -> None:
    add_file(manifest, small)
    manifest["layers"][-1]["mediaType"] = "text/plain"


def huge(manifest: Document, small: dict[Digest, bytes]) -> None:
    manifest["layers"][-1]["size"] = 9 << 30


def huge_document(manifest: Document, small: dict[Digest, bytes]) -> None:
    manifest["layers"][0]["size"] = 33 << 20


def huge_documents(manifest: Document, small: dict[Digest, bytes]) -> None:
    sizes = (manifest["layers"][0]["size"], *[31 << 20] * 5)
    manifest["layers"][:1] = [{**manifest["layers"][0], "size": size} for size in sizes]


def other_subject(manifest: Document, small: dict[Digest, bytes]) -> None:
    manifest["subject"]["digest"] = str(Digest.of(b"another image"))


def other_versions(manifest: Document, small: dict[Digest, bytes]) -> None:
    _config(manifest, small, versions=["assembly 99"])


def file(path: str, content: str | None) -> Callable[[list[Document]], None]:
    def change(said: list[Document]) -> None:
        said[0]["files"][path] = content if content is not None else said[0]["files"][path] + "\n"

    return change


def other_lock(said: list[Document]) -> None:
    lock = said[0]["files"]["images/app/image.lock"]
    said[0]["files"]["images/app/image.lock"] = lock.replace(" hello 1.0-1\n", " hello 1.0-2\n")


def other_parent_lock(said: list[Document]) -> None:
    lock = said[1]["files"]["images/base/image.lock"]
    said[1]["files"]["images/base/image.lock"] = lock.replace("libhello 1.0-1\n", "libhello 1.0-2\n")


def no_lock(said: list[Document]) -> None:
    del said[0]["files"]["images/app/image.lock"]


def garbled_lock(said: list[Document]) -> None:
    said[0]["files"]["images/app/image.lock"] = "[[[\n"


def no_definition_below(said: list[Document]) -> None:
    said[1]["files"]["images/base/image.yaml"] = "schema: [\n"


def rendered(said: list[Document]) -> None:
    said[0]["rendered"]["linux/amd64"]["Dockerfile"] = "FROM elsewhere\n"


def orphan(said: list[Document]) -> None:
    said[0]["parent"] = None


def renamed(said: list[Document]) -> None:
    said[0]["ref"] = "other:1"


LIES: dict[str, tuple[Change, str]] = {
    "missing-file": (drop_packages, "kit-incomplete"),
    "missing-package": (instead(packed()), "kit-incomplete"),
    "extra-file": (add_file, "kit-malformed"),
    "extra-package": (instead(packed((f"{'0' * 64}.deb", b"a trojan"))), "kit-malformed"),
    "package-elsewhere": (instead(packed(("../../../passwd", b"x"))), "kit-malformed"),
    "package-link": (instead(packed(("passwd", b""), kind="1")), "kit-malformed"),
    "cut-off": (instead(packed((f"{'0' * 64}.deb", b"x" * 600))[:700]), "kit-malformed"),
    "larger-than-its-packages": (instead(bytes(1 << 20)), "kit-malformed"),
    "extra-content": (add_stranger, "kit-refused"),
    "huge": (huge, "kit-refused"),
    "huge-document": (huge_document, "kit-refused"),
    "huge-documents": (huge_documents, "kit-refused"),
    "another-image": (other_subject, "kit-refused"),
    "another-version": (other_versions, "other-versions"),
    "other-definition": (documents(file("images/app/image.yaml", None)), "kit-other-definition"),
    "other-template": (
        documents(file("templates/debian-runtime.Dockerfile.j2", None)),
        "kit-other-template",
    ),
    "other-lock": (documents(other_lock), "kit-other-lock"),
    "no-lock": (documents(no_lock), "kit-other-lock"),
    "garbled-lock": (documents(garbled_lock), "kit-other-lock"),
    "other-lock-below": (documents(other_parent_lock), "kit-unusable"),
    "no-definition-below": (documents(no_definition_below), "kit-unusable"),
    "other-context": (documents(rendered), "kit-other-context"),
    "parent-cut-off": (documents(orphan), "kit-malformed"),
    "another-name": (documents(renamed), "kit-other-image"),
    "traversal": (documents(file("images/app/../../../../tmp/x", "x")), "kit-refused"),
    "absolute": (documents(file("/etc/passwd", "x")), "kit-refused"),
    "hidden": (documents(file("images/app/.git/hooks/x", "x")), "kit-refused"),
    "elsewhere": (documents(file("registry/policies/x.yaml", "x")), "kit-malformed"),
    "other-image's-file": (documents(file("images/base/image.yaml", "x")), "kit-malformed"),
    "file-and-folder": (documents(file("images/app/image.yaml/x", "x")), "kit-malformed"),
    "not-text": (documents(file("images/app/x", {"base64": "?"})), "kit-refused"),  # type: ignore[arg-type]
}
