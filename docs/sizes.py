"""Write the tables of docs/catalogue.md: our images as they were built here, beside what others publish.

Run after the images are built: `python docs/sizes.py`. An image whose definition or lock was
changed since counts as not built.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from builder.cli.wiring import Workshop  # noqa: E402
from builder.errors import GoldsmithError, UsageError  # noqa: E402
from builder.model.image import PlatformImage  # noqa: E402
from builder.pipeline.prepare import prepare  # noqa: E402
from builder.tools import strict_yaml  # noqa: E402

PAGE = ROOT / "docs" / "catalogue.md"
BEGIN, END = "<!-- sizes: written by docs/sizes.py -->", "<!-- end of sizes -->"
# The most that the runtime variant of an image may be, in MB for amd64; the catalogue's own goals.
GOALS = {"static": 2.1, "python": 18.0, "node": 41.0, "nginx": 20.0, "java": 70.0}


def main() -> None:
    """Write the tables; ends with 1 when an image is not built."""
    try:
        rows = dict(measured(Workshop.open()))
    except GoldsmithError as error:
        sys.exit(f"{error}: {error.hint}")
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(rows)}\n{END}{after}")


def measured(workshop: Workshop) -> Iterator[tuple[str, dict[str, PlatformImage]]]:
    """(ref, platform → image) of every runtime image of the catalogue, as built on this machine."""
    builder = workshop.builder(["direct"])
    known: dict[str, Any] = {}
    locks: dict[str, Any] = {}
    for target in (t for t in workshop.catalogue.targets() if t.variant == "runtime"):
        image = builder.reuse(prepare(workshop.catalogue, target, known, locks))
        if image is None:
            raise UsageError(f"{target.ref} is not built", hint=f"goldsmith build {target.ref}")
        yield target.ref, {str(p.platform): p for p in image.platforms}


def tables(rows: dict[str, dict[str, PlatformImage]]) -> str:
    """Both tables, in Markdown."""
    platforms = sorted({p for images in rows.values() for p in images})
    lines = [
        f"| image | {' | '.join(f'{p}, MB | packages' for p in platforms)} |",
        f"| --- |{' ---: | ---: |' * len(platforms)}",
    ]
    for ref in sorted(rows):
        cells = [ref]
        for platform in platforms:
            image = rows[ref].get(platform)
            cells += [_mb(image.compressed_bytes), str(len(image.packages))] if image else ["-", "-"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *comparison(rows)]
    return "\n".join(lines) + "\n"


def comparison(rows: dict[str, dict[str, PlatformImage]]) -> Iterator[str]:
    """Our runtime images for amd64 beside the goals and beside what others publish."""
    peers: Any = strict_yaml.parse((ROOT / "docs" / "peers.yaml").read_bytes())
    yield "| image | MB | packages | goal, MB | beside | MB | packages | says |"
    yield "| --- | ---: | ---: | ---: | --- | ---: | ---: | --- |"
    for name, others in peers.items():
        for ref in (r for r in sorted(rows) if r.partition(":")[0] == name):
            image = rows[ref].get("linux/amd64")
            if image is None:
                continue
            size, goal = image.compressed_bytes / 1e6, GOALS.get(name)
            mark = "" if goal is None else f"{goal:g}{'' if size <= goal else ' (missed)'}"
            for number, other in enumerate(others):
                theirs = other.get("size")
                loses = theirs is not None and size > theirs
                own = [f"**{ref}**", _mb(image.compressed_bytes), str(len(image.packages)), mark]
                shown = (
                    f"{theirs:g}"
                    if theirs
                    else (f"{other['unpacked']:g} unpacked" if "unpacked" in other else "-")
                )
                beside = [
                    other["name"],
                    shown + (" (smaller)" if loses else ""),
                    str(other.get("packages", "-")),
                ]
                yield f"| {' | '.join([*(own if number == 0 else [''] * 4), *beside, other['where']])} |"


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f}"


if __name__ == "__main__":
    main()
