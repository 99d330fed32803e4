"""A public hub on loopback: what a client must not reach; it has an image that could be pulled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from builder.oci.layout import read_blob
from tests.support.images import built_image
from tests.support.registry_simulator import Simulator, simulator

REPO = "library/hello"


@contextmanager
def hub(folder: Path) -> Iterator[Simulator]:
    """A registry with `library/hello:1`; it writes down who asks."""
    with simulator() as sim:
        image = built_image(folder, name="hello")
        for platform in image.platforms:
            for blob in (platform.config, *(layer.blob for layer in platform.layers)):
                sim.blobs.setdefault(REPO, {})[blob.digest] = read_blob(image.layout, blob)
            sim.put(REPO, read_blob(image.layout, platform.manifest), platform.manifest.media_type)
        sim.put(REPO, read_blob(image.layout, image.index), image.index.media_type, "1")
        yield sim
