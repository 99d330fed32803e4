"""Manifests, indexes and configurations: written canonically, read as if by an enemy.

Sources: OCI image specification 1.1, manifest.md, image-index.md, config.md, descriptor.md;
Docker image manifest version 2, schema 2 (read only).
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from builder.errors import RegistryError
from builder.model.digest import Digest, canonical_json
from builder.model.image import INDEX_TYPE, MANIFEST_TYPE, Descriptor, ImageConfig
from builder.model.platform import Platform

DOCKER_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES = (MANIFEST_TYPE, DOCKER_MANIFEST_TYPE)
INDEX_TYPES = (INDEX_TYPE, DOCKER_INDEX_TYPE)

MANIFEST_MAX = 4 << 20  # bytes; what registries accept (distribution specification 1.1)
_DEPTH_MAX = 32  # nested objects and lists
_SIZE_MAX = 1 << 40  # bytes of one blob
_LAYERS_MAX = 512
_MANIFESTS_MAX = 4096
_ANNOTATIONS_MAX = 1024
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest (with `config` and `layers`) or index (with `manifests`), never both."""

    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_index(self) -> bool:
        """Whether this lists other manifests."""
        return self.media_type in INDEX_TYPES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The blobs that the manifest names: config and layers."""
        return ((self.config,) if self.config else ()) + self.layers


def config_bytes(
    config: ImageConfig,
    platform: Platform,
    created: dt.datetime,
    diff_ids: Sequence[Digest],
    history: Sequence[str],
) -> bytes:
    """An image configuration (config.md) as canonical JSON.

    `history` is one `created_by` text for each layer; `created` is in UTC. Raises ValueError when
    the two lists differ in length.
    """
    if len(history) != len(diff_ids):
        raise ValueError(f"{len(diff_ids)} layers, but {len(history)} history entries")
    time = created.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    execution: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in sorted(config.environment.items())],
        "User": config.user,
        "WorkingDir": config.working_directory,
    }
    if config.labels:
        execution["Labels"] = dict(config.labels)
    if config.entrypoint is not None:
        execution["Entrypoint"] = list(config.entrypoint)
    if config.command is not None:
        execution["Cmd"] = list(config.command)
    return canonical_json(
        {
            "architecture": platform.architecture,
            "os": platform.os,
            "created": time,
            "config": execution,
            "rootfs": {"type": "layers", "diff_ids": [str(d) for d in diff_ids]},
            "history": [{"created": time, "created_by": text} for text in history],
        }
    )


def manifest_bytes(
    config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> bytes:
    """An image manifest (manifest.md) as canonical JSON."""
    return _document(
        MANIFEST_TYPE, annotations, config=config.as_dict(), layers=[d.as_dict() for d in layers]
    )


def index_bytes(manifests: Sequence[Descriptor], annotations: Mapping[str, str] | None = None) -> bytes:
    """An image index (image-index.md) as canonical JSON; the order of `manifests` is kept."""
    return _document(INDEX_TYPE, annotations, manifests=[d.as_dict() for d in manifests])


def _document(media_type: str, annotations: Mapping[str, str] | None, **content: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": media_type, **content}
    if annotations:
        document["annotations"] = dict(annotations)
    return canonical_json(document)


def parse_manifest(data: bytes, media_type: str | None = None, default: str | None = None) -> Manifest:
    """Parse a manifest or index that came from outside.

    `media_type` is what the transport promised (the Content-Type or the descriptor); `default`
    is taken when the document itself states none. Raises RegistryError for everything that two
    readers could understand differently.
    """
    raw = parse_json(data, "manifest")
    stated = _stated_type(raw, default)
    if media_type is not None and media_type.partition(";")[0].strip() != stated:
        raise _refusal(f"the manifest says it is {stated}, but it was sent as {_show(media_type)}")
    if raw.get("schemaVersion") != 2 or isinstance(raw["schemaVersion"], float):
        raise _refusal(f"the manifest's schemaVersion is not 2: {_show(raw.get('schemaVersion'))}")
    index = stated in INDEX_TYPES
    foreign = ("config", "layers", "fsLayers", "history") if index else ("manifests", "fsLayers", "history")
    both = [key for key in foreign if key in raw]
    if both:
        raise _refusal(f"the manifest fits two types: {stated} with {', '.join(both)}")
    artifact_type = raw.get("artifactType")
    return Manifest(
        media_type=stated,
        config=None if index else parse_descriptor(raw.get("config"), "config"),
        layers=() if index else _descriptors(raw.get("layers"), "layers", _LAYERS_MAX),
        manifests=_descriptors(raw.get("manifests"), "manifests", _MANIFESTS_MAX) if index else (),
        subject=parse_descriptor(raw["subject"], "subject") if raw.get("subject") is not None else None,
        artifact_type=_media_type(artifact_type, "artifactType") if artifact_type else None,
        annotations=_annotations(raw.get("annotations"), "annotations"),
    )


def stated_type(data: bytes) -> str:
    """The media type that a manifest or index says it has, nothing else; raises RegistryError."""
    return _stated_type(parse_json(data, "manifest"), None)


def _stated_type(raw: Mapping[str, Any], default: str | None) -> str:
    stated = raw.get("mediaType", default)
    if stated not in (*MANIFEST_TYPES, *INDEX_TYPES):
        raise _refusal(f"the manifest's mediaType is not supported: {_show(stated)}")
    return str(stated)


def parse_descriptor(raw: Any, where: str) -> Descriptor:
    """Parse a descriptor (descriptor.md); raises RegistryError that names `where`.

    A platform we do not build for (such as BuildKit's `unknown/unknown`) becomes None. Foreign
    `urls` are refused; `data` has to be exactly what the digest says.
    """
    if not isinstance(raw, dict):
        raise _refusal(f"{where} is not a descriptor")
    if raw.get("urls"):
        raise _refusal(f"{where} names foreign addresses (urls)")
    size = _size(raw.get("size"), f"{where}.size")
    digest = parse_digest(raw.get("digest"), f"{where}.digest")
    if "data" in raw:
        _check_data(raw["data"], digest, size, where)
    artifact_type = raw.get("artifactType")
    return Descriptor(
        media_type=_media_type(raw.get("mediaType"), f"{where}.mediaType"),
        digest=digest,
        size=size,
        annotations=_annotations(raw.get("annotations"), f"{where}.annotations"),
        artifact_type=_media_type(artifact_type, f"{where}.artifactType") if artifact_type else None,
        platform=_platform(raw.get("platform"), where),
    )


def parse_digest(raw: Any, where: str) -> Digest:
    """A sha256 digest; raises RegistryError for any other value."""
    try:
        return Digest(raw) if isinstance(raw, str) else _no_digest(raw, where)
    except ValueError:
        return _no_digest(raw, where)


def parse_json(data: bytes, what: str, limit: int = MANIFEST_MAX) -> dict[str, Any]:
    """Parse JSON so that all readers agree on it; raises RegistryError.

    Refused: more than `limit` bytes, other than UTF-8, a byte order mark, anything after the
    value, a repeated key, NaN and infinity, deep nesting, and a value that is no object.
    """
    if len(data) > limit:
        raise _refusal(f"the {what} is larger than {limit} bytes")
    try:
        value = _own_form(data)
        if value is None:
            value = _DECODER.decode(_text(data))
    except RecursionError:
        raise _refusal(f"the {what} is nested too deeply") from None
    except ValueError as error:
        raise _refusal(f"the {what} is not proper JSON", str(error)[:200]) from None
    if not isinstance(value, dict):
        raise _refusal(f"the {what} is not a JSON object")
    _check_depth(value, what)
    return value


def _own_form(data: bytes) -> Any:
    """The value of a document that is what its value is written as, without blanks; None for all others.

    Nothing in such a document can be read in two ways: a repeated key would be longer than what is written,
    and so would be any number or escape that is not its only form. It is what we write ourselves.
    """
    try:
        value = orjson.loads(data)
        return value if orjson.dumps(value) == data else None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key is given twice")
    return out


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_no_repeats, parse_constant=_no_constant)


def _text(data: bytes) -> str:
    text = data.decode("utf-8")
    if text.startswith("\N{ZERO WIDTH NO-BREAK SPACE}"):
        raise ValueError("it begins with a byte order mark")
    return text


def _check_depth(value: Any, what: str) -> None:
    level: list[Any] = [value]
    for _ in range(_DEPTH_MAX):
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise _refusal(f"the {what} is nested too deeply")


def _descriptors(raw: Any, where: str, limit: int) -> tuple[Descriptor, ...]:
    if not isinstance(raw, list):
        raise _refusal(f"{where} is not a list")
    if len(raw) > limit:
        raise _refusal(f"{where} has more than {limit} entries")
    return tuple(parse_descriptor(item, f"{where}[{n}]") for n, item in enumerate(raw))


def _annotations(raw: Any, where: str) -> dict[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, dict) or len(raw) > _ANNOTATIONS_MAX:
        raise _refusal(f"{where} is not a map of at most {_ANNOTATIONS_MAX} texts")
    if not all(isinstance(value, str) for value in raw.values()):
        raise _refusal(f"{where} holds something that is not a text")
    return dict(raw)


def _platform(raw: Any, where: str) -> Platform | None:
    if raw is None:
        return None
    if not isinstance(raw, dict):
        raise _refusal(f"{where}.platform is not an object")
    system, architecture, variant = raw.get("os"), raw.get("architecture"), raw.get("variant")
    if not isinstance(system, str) or not isinstance(architecture, str):
        raise _refusal(f"{where}.platform names no os and architecture")
    if variant not in (None, "v8" if architecture == "arm64" else None):
        return None
    try:
        return Platform(system, architecture)
    except ValueError:
        return None


def _check_data(raw: Any, digest: Digest, size: int, where: str) -> None:
    try:
        content = base64.b64decode(raw, validate=True) if isinstance(raw, str) else b""
    except (binascii.Error, ValueError):
        raise _refusal(f"{where}.data is not base64") from None
    if len(content) != size or Digest.of(content) != digest:
        raise _refusal(f"{where}.data is not what its digest says")


def _media_type(raw: Any, where: str) -> str:
    if not isinstance(raw, str) or not _MEDIA_TYPE.fullmatch(raw):
        raise _refusal(f"{where} is not a media type: {_show(raw)}")
    return raw


def _size(raw: Any, where: str) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= _SIZE_MAX:
        raise _refusal(f"{where} is not a size: {_show(raw)}")
    return raw


def _no_digest(raw: Any, where: str) -> Digest:
    raise _refusal(f"{where} is not a sha256 digest: {_show(raw)}")


def _show(value: Any) -> str:
    return repr(value)[:100]


def _refusal(message: str, context: str = "") -> RegistryError:
    return RegistryError(
        message,
        context=context,
        hint="the registry or the layout holds something that was not made by this tool; do not use it",
        reference="manifest-refused",
    )
