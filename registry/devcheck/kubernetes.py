"""The images that Kubernetes manifests name, wherever a pod's specification stands.

Pure. Every object is walked as a whole, so each kind that holds a pod (also in a List, a CronJob,
or a custom resource) is covered: what counts is a list of containers, not the kind's name.
A Kustomization's images take the place of those in other files. Source: Kubernetes API reference,
PodSpec, Container, EphemeralContainer, ImageVolumeSource; Tekton Task (steps, sidecars, stepTemplate);
Argo Template (container, script); Kustomize, `images`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from registry.devcheck.mention import Mention, Span
from registry.devcheck.yamlfile import YamlFile
from registry.devcheck.yamltree import Mapping, Node, Scalar, Sequence

_LISTS = {
    "containers": "container",
    "initContainers": "init container",
    "ephemeralContainers": "ephemeral container",
    "steps": "step",
    "sidecars": "sidecar",
}
_ALONE = {"container": "container", "script": "script", "stepTemplate": "template of steps"}
_NO_OBJECTS = ("CustomResourceDefinition",)  # they describe objects, and hold none


def mentions(file: YamlFile) -> tuple[Mention, ...]:
    """Every image that the file names, each place once; raises Unreadable."""
    found: dict[Span, Mention] = {}
    for document in file.documents:
        kind = file.reader.text(document, "kind")
        if kind not in _NO_OBJECTS and file.reader.text(document, "apiVersion"):
            for mention in _walk(file, document, kind[:60]):
                found.setdefault(mention.span, mention)
    return tuple(sorted(found.values(), key=lambda m: m.span.start))


def _walk(file: YamlFile, document: Node, kind: str) -> Iterator[Mention]:
    todo, seen = [document], set[int]()
    while todo:
        node = todo.pop()
        if isinstance(node, Scalar) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Sequence):
            todo += node.items
            continue
        for key, value in node.pairs:
            name = key.value if isinstance(key, Scalar) else ""
            if name in _LISTS and isinstance(value, Sequence):
                yield from _containers(file, value.items, f"{_LISTS[name]} of a {kind}")
            elif name in _ALONE and isinstance(value, Mapping):
                yield from _containers(file, (value,), f"{_ALONE[name]} of a {kind}")
            elif name == "images" and kind == "Kustomization" and isinstance(value, Sequence):
                yield from _kustomized(file, value)
            elif name == "volumes" and isinstance(value, Sequence):
                yield from _volumes(file, value, kind)
            todo.append(value)


def _containers(file: YamlFile, containers: Iterable[Node], place: str) -> Iterator[Mention]:
    for container in containers:
        image = file.reader.get(container, "image")
        if image is not None:
            yield file.mention(
                image, f"image of a {place}" if place[0] not in "aei" else f"image of an {place}"
            )


def _kustomized(file: YamlFile, images: Sequence) -> Iterator[Mention]:
    """What an entry makes of an image: its new name, or the old one, with a new tag or digest."""
    for entry in images.items:
        name = file.reader.get(entry, "newName") or file.reader.get(entry, "name")
        if not isinstance(name, Scalar) or not name.value:
            continue
        tag, digest = (file.reader.text(entry, key) for key in ("newTag", "digest"))
        text = name.value + (f"@{digest}" if digest else f":{tag}" if tag else "")
        why = "it is put together from newName, newTag and digest: change these by hand"
        found = file.mention(name, "image of a Kustomization")
        yield replace(found, text=text, edit=None, fixed_by=why)


def _volumes(file: YamlFile, volumes: Sequence, kind: str) -> Iterator[Mention]:
    for volume in volumes.items:
        source = file.reader.get(volume, "image")
        reference = file.reader.get(source, "reference") if isinstance(source, Mapping) else None
        if reference is not None:
            yield file.mention(reference, f"image of a volume of a {kind}")
