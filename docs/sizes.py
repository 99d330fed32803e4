"""Write the tables of docs/catalogue.md: our images as recorded, beside what others publish.

`python docs/sizes.py`, after `goldsmith facts`. The architecture tests compare the page with the records.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from builder.cli.facts import recorded  # noqa: E402
from builder.errors import GoldsmithError, UsageError  # noqa: E402
from builder.model.catalogue import Catalogue  # noqa: E402
from builder.model.facts import PlatformFacts  # noqa: E402
from builder.stages.define import load_catalogue  # noqa: E402
from builder.tools import strict_yaml  # noqa: E402

PAGE = ROOT / "docs" / "catalogue.md"
BEGIN, END = "<!-- sizes: written by docs/sizes.py -->", "<!-- end of sizes -->"
# The most that the runtime variant of an image may be, in MB for amd64; the catalogue's own goals.
GOALS = {"static": 2.1, "python": 18.0, "node": 41.0, "nginx": 20.0, "java": 70.0}

Sizes = Mapping[str, Mapping[str, PlatformFacts]]


def main() -> None:
    """Write the tables; ends with 1 when an image was never built."""
    try:
        PAGE.write_text(page(measured(load_catalogue(ROOT))))
    except GoldsmithError as error:
        sys.exit(f"{error}: {error.hint}")


def page(rows: Sizes) -> str:
    """The page with its tables as they have to be."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(rows)}\n{END}{after}"


def measured(catalogue: Catalogue) -> Sizes:
    """What was recorded of every runtime image, by name and platform; raises UsageError without."""
    found = {}
    for target in (t for t in catalogue.targets() if t.variant == "runtime"):
        known = recorded(catalogue, target.definition.name).get(target.ref)
        if known is None:
            raise UsageError(f"{target.ref} was never built", hint=f"goldsmith facts {target.ref}")
        found[target.ref] = known.platforms
    return found


def missed(rows: Sizes) -> list[str]:
    """The images that are larger than their goal."""
    return [
        ref
        for ref, platforms in sorted(rows.items())
        if platforms["linux/amd64"].size / 1e6 > GOALS.get(ref.partition(":")[0], float("inf"))
    ]


def tables(rows: Sizes) -> str:
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
            cells += [_mb(image.size), str(image.packages)] if image else ["-", "-"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *comparison(rows)]
    return "\n".join(lines) + "\n"


def comparison(rows: Sizes) -> Iterator[str]:
    """Our runtime images for amd64 beside the goals and beside what others publish."""
    peers: Any = strict_yaml.parse((ROOT / "docs" / "peers.yaml").read_bytes())
    yield "| image | MB | packages | goal, MB | beside | MB | packages | says |"
    yield "| --- | ---: | ---: | ---: | --- | ---: | ---: | --- |"
    for name, others in peers.items():
        for ref in (r for r in sorted(rows) if r.partition(":")[0] == name):
            image = rows[ref].get("linux/amd64")
            if image is None:
                continue
            size, goal = image.size / 1e6, GOALS.get(name)
            mark = "" if goal is None else f"{goal:g}{'' if size <= goal else ' (missed)'}"
            for number, other in enumerate(others):
                theirs = other.get("size")
                loses = theirs is not None and size > theirs
                own = [f"**{ref}**", _mb(image.size), str(image.packages), mark]
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
