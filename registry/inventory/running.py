"""What runs, as others tell it: pods of Kubernetes, containers of an engine, a list of references.

All of it is a stranger's text: sizes are bounded, and what cannot be read is a typed error or a
running image of which nothing is known, never nothing at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from builder.errors import UsageError
from builder.model.digest import Digest

SIZE_MAX = 256 << 20  # bytes of a list of pods
_LINES_MAX = 1_000_000
_TEXT_MAX = 300  # characters
BASE_DIGEST = "org.opencontainers.image.base.digest"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SCHEME = re.compile(r"^[a-z-]+://")


@dataclass(frozen=True, slots=True)
class Running:
    """An image that runs somewhere: its name as written, every digest that it is known by, its layers.

    `where` is for people (`pod shop/web-1, container app`). `base` is the digest that the image
    itself names as its base (image annotations, OCI image specification 1.1, annotations.md).
    """

    where: str
    image: str
    digests: tuple[Digest, ...] = ()
    layers: tuple[Digest, ...] = ()
    base: Digest | None = None


def of_list(text: str) -> tuple[Running, ...]:
    """One reference or digest a line; empty lines and lines with # are passed over."""
    lines = text.splitlines()
    if len(lines) > _LINES_MAX:
        raise UsageError(f"more than {_LINES_MAX} lines", hint="split the list")
    return tuple(
        Running(f"line {number}", line.strip()[:_TEXT_MAX], _digests(line))
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.strip().startswith("#")
    )


def of_pods(data: bytes) -> tuple[Running, ...]:
    """What `kubectl get pods -A -o json` prints; raises UsageError when it is anything else."""
    if len(data) > SIZE_MAX:
        raise UsageError(f"larger than {SIZE_MAX >> 20} MiB", hint="ask for one namespace at a time")
    try:
        value = json.loads(data)
        items = value["items"] if value.get("kind", "").endswith("List") else [value]
        return tuple(running for pod in items for running in _pod(pod))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            "not a list of pods",
            context=f"{type(error).__name__}: {error}"[:_TEXT_MAX],
            hint="kubectl get pods -A -o json | goldsmith inventory --pods -",
        ) from None


def of_containers(containers: Iterable[Mapping[str, Any]]) -> tuple[Running, ...]:
    """Containers of a Docker engine: each with `name`, `image`, and the image's inspection (`details`)."""
    found = []
    for one in containers:
        details = one["details"]
        digests = _digests(" ".join([one["image"], *(details.get("RepoDigests") or ())]))
        labels = (details.get("Config") or {}).get("Labels") or {}
        layers = _digests(" ".join((details.get("RootFS") or {}).get("Layers") or ()))
        found.append(
            Running(
                f"container {one['name']}"[:_TEXT_MAX],
                one["image"][:_TEXT_MAX],
                digests,
                layers,
                _base(labels),
            )
        )
    return tuple(found)


def _pod(pod: Mapping[str, Any]) -> Iterator[Running]:
    """The containers of a pod, as its status tells them: what was asked for may be a tag."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    name = f"{metadata.get('namespace', 'default')}/{metadata['name']}"
    if status.get("phase") in ("Succeeded", "Failed"):
        return
    told = set()
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for one in status.get(kind) or ():
            told.add(one["name"])
            digests = _digests(_SCHEME.sub("", str(one.get("imageID", ""))))
            text = str(one.get("image", ""))[:_TEXT_MAX]
            yield Running(f"pod {name}, container {one['name']}"[:_TEXT_MAX], text, digests)
    for one in (pod.get("spec") or {}).get("containers") or ():
        if one["name"] not in told:  # not started yet: what it will run is what is written
            text = str(one.get("image", ""))[:_TEXT_MAX]
            yield Running(f"pod {name}, container {one['name']}"[:_TEXT_MAX], text, _digests(text))


def _base(labels: object) -> Digest | None:
    value = labels.get(BASE_DIGEST) if isinstance(labels, dict) else None
    return Digest(value) if isinstance(value, str) and _DIGEST.fullmatch(value) else None


def _digests(text: str) -> tuple[Digest, ...]:
    return tuple(Digest(d) for d in dict.fromkeys(_DIGEST.findall(text)))
