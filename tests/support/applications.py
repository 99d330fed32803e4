"""Applications built as developers build them: a Dockerfile that starts `FROM NAME:TAG-dev`, and ends `FROM NAME:TAG`.

    with kitchen(folder) as here:
        tag = here.cook(DOCKERFILE, {"app/main.py": b"…"}, dev="python:3.13-dev", runtime="python:3.13")
        assert here.serve(tag, "argument") == "what it prints\n"

The images are those of this repository's catalogue and locks, for the platform of this machine, made
by the direct engine. In the Dockerfile `$DEV` and `$RUNTIME` stand for them; no step has a network.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from builder.cli.locking import relock
from builder.cli.wiring import Workshop
from builder.engines.assembler import host_platform
from builder.errors import LockError
from builder.model.catalogue import Catalogue
from builder.model.image import PlatformImage
from builder.oci.archive import save_archive
from builder.pipeline.prepare import Prepared, prepare
from builder.pipeline.timing import Stages
from builder.report import Silent
from builder.settings import Settings
from builder.stages.define import load_catalogue
from builder.store import Store
from builder.tools import process
from builder.tools.docker_client import Combination, find_combination
from tests.support.engines import engine, environment

ROOT = Path(__file__).parents[2]
# Packages and finished images outlive the tests, as the oracles do.
STATE = ROOT / ".goldsmith" / "oracles" / "images"
_SECONDS = 1200  # compiling a standard library on a busy machine takes its time
_NAME = "goldsmith-applications"  # the repository of everything that is loaded or built here


@dataclass
class Kitchen:
    """An engine, with the images that were loaded into it."""

    folder: Path
    docker: Combination
    workshop: Workshop
    loaded: dict[str, str] = field(default_factory=dict)

    def image(self, ref: str) -> str:
        """The name in the engine of an image of the catalogue; built and loaded when it is not yet."""
        if ref not in self.loaded:
            built = golden(self.workshop, ref)
            name = f"{_NAME}/{ref}"
            archive = self.folder / f"{ref.replace(':', '-')}.tar"
            save_archive(built, name, archive)
            self._docker("load", "--quiet", "--input", archive)
            archive.unlink()
            self.loaded[ref] = name
        return self.loaded[ref]

    def cook(self, dockerfile: str, files: Mapping[str, bytes], *, dev: str, runtime: str) -> str:
        """Build `dockerfile` without a network, in a context with `files`; returns the name of what it gives."""
        context = self.folder / f"context-{len(self.loaded)}"
        for path, content in files.items():
            (context / path).parent.mkdir(parents=True, exist_ok=True)
            (context / path).write_bytes(content)
        text = dockerfile.replace("$DEV", self.image(dev)).replace("$RUNTIME", self.image(runtime))
        context.mkdir(exist_ok=True)
        (context / "Dockerfile").write_text(text)
        name = f"{_NAME}/built:{len(self.loaded)}"
        build = ("buildx", "build", "--load") if self.docker.mode == "buildx" else ("build",)
        self._docker(*build, "--network=none", "--tag", name, context, DOCKER_BUILDKIT="1")
        self.loaded[name] = name
        shutil.rmtree(context)
        return name

    def serve(self, name: str, *arguments: str) -> str:
        """What the image prints; it runs as its own user, on a read-only file system, without a network."""
        options = ("--rm", "--network=none", "--read-only", "--cap-drop=ALL")
        return self._docker("run", *options, name, *arguments).text

    def _docker(self, *arguments: str | Path, **extra: str) -> process.Completed:
        return process.run(
            [self.docker.client, *arguments],
            environment={**environment(), "DOCKER_HOST": self.docker.engine.host, **extra},
            timeout_seconds=_SECONDS,
        )


@contextlib.contextmanager
def kitchen(folder: Path) -> Iterator[Kitchen]:
    """A kitchen with an engine; what was loaded and built is removed from that at the end."""
    with engine(folder) as (found, store):
        combination = find_combination(found, store, environment())
        here = Kitchen(folder, combination, _workshop(folder))
        try:
            yield here
        finally:
            if here.loaded:
                here._docker("rmi", "--force", *here.loaded.values())


def golden(workshop: Workshop, ref: str) -> PlatformImage:
    """The image of that name, built with its parents by the direct engine."""
    catalogue = workshop.catalogue
    target = catalogue.find(ref)
    known: dict[str, Prepared] = {}
    chain = [prepare(catalogue, x, known) for x in (*reversed(catalogue.ancestors(target)), target)]
    with workshop.store.create().exclusive(f"tests: {ref}"):
        builder = workshop.builder(["direct"])
        try:
            image, _ = builder.chain(chain, lambda name: Stages(name, Silent()))
        except LockError:
            # The archive keeps a package for some days only after a newer one is there.
            moved = replace(workshop, catalogue=_relocked(workshop, ref))
            chain = [prepare(moved.catalogue, item.target) for item in chain]
            image, _ = builder.chain(chain, lambda name: Stages(name, Silent()))
    return image.platforms[0]


def _workshop(folder: Path) -> Workshop:
    catalogue = folder / "catalogue"
    for name in ("images", "templates"):
        shutil.copytree(ROOT / name, catalogue / name)
    settings = replace(Settings.load(directory=catalogue), state=STATE)
    return Workshop(settings, _of_this_machine(load_catalogue(catalogue)), Store(STATE))


def _relocked(workshop: Workshop, ref: str) -> Catalogue:
    """The catalogue with locks of today's archive, for an image and those below it."""
    catalogue = workshop.catalogue
    target = catalogue.find(ref)
    names = [x.ref for x in (*catalogue.ancestors(target), target)]
    relock(catalogue, workshop.settings, workshop.store, names, check=False)
    return catalogue


def _of_this_machine(catalogue: Catalogue) -> Catalogue:
    """The same images for one platform: locks pin each platform by itself."""
    platform = {"platforms": (str(host_platform()),)}
    narrowed = {name: d.model_copy(update=platform) for name, d in catalogue.definitions.items()}
    return replace(catalogue, definitions=narrowed)
