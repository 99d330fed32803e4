"""The facts of an image for people: its table in README.md, made of the definition and of what was built.

What was built is recorded in `images/NAME/facts.json`, by content key: so a digest that somebody else
builds of the same input can be compared with it, and a figure in a README is one that was measured.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from builder.errors import DefinitionError, Problem
from builder.model.image import BuiltImage, ImageConfig, Target

BEGIN = "<!-- facts: written by `goldsmith facts` and `make docs`, not by hand -->"
END = "<!-- end of facts -->"
_RELEASES = {"bookworm": "12", "trixie": "13"}
_HEX = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """One platform of a built image; `size` is what a client pulls, in bytes."""

    manifest: str
    size: int
    packages: int


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What one input gave: the index digest, and its platforms by name."""

    input: str
    digest: str
    platforms: Mapping[str, PlatformFacts]

    @classmethod
    def of(cls, image: BuiltImage) -> ImageFacts:
        """The facts of an image that was just built."""
        platforms = {
            str(p.platform): PlatformFacts(p.manifest.digest, p.compressed_bytes, len(p.packages))
            for p in image.platforms
        }
        return cls(image.input_hash, image.digest, platforms)


def render_facts(facts: Mapping[str, ImageFacts]) -> bytes:
    """The content of facts.json: facts by tag."""
    document = {
        tag: {
            "input": one.input,
            "digest": one.digest,
            "platforms": {
                name: {"manifest": p.manifest, "size": p.size, "packages": p.packages}
                for name, p in sorted(one.platforms.items())
            },
        }
        for tag, one in sorted(facts.items())
    }
    return (json.dumps(document, indent=1) + "\n").encode()


def parse_facts(data: bytes, file: str) -> dict[str, ImageFacts]:
    """The facts by tag; raises DefinitionError when the file is not what `render_facts` writes."""
    try:
        return {
            str(tag): ImageFacts(
                _digest(one["input"]),
                _digest(one["digest"]),
                {
                    str(name): PlatformFacts(_digest(p["manifest"]), int(p["size"]), int(p["packages"]))
                    for name, p in one["platforms"].items()
                },
            )
            for tag, one in json.loads(data).items()
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        problem = Problem(file, "", f"malformed: {str(error)[:200]}", "`goldsmith facts` writes it anew")
        raise DefinitionError([problem]) from None


def table(rows: Iterable[tuple[Target, ImageConfig, ImageFacts | None]]) -> str:
    """The table of an image's README, between its marks."""
    lines = [
        BEGIN,
        "| image | Debian | end of life | packages | pulled | starts |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for target, config, facts in rows:
        stream = target.stream
        life = stream.end_of_life.isoformat()
        life += f", then `{target.definition.name}:{stream.replacement}`" if stream.replacement else ""
        words = " ".join([*(config.entrypoint or ()), *(config.command or ())])
        who = "root" if config.user.startswith("0:") else config.user.partition(":")[0]
        starts = f"`{words}` as {who}" if words else f"nothing by itself, as {who}"
        cells = [
            f"`{target.ref}`",
            _RELEASES[stream.suite],
            life,
            _packages(facts),
            _pulled(target, facts),
            starts,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, END])


def replaced(readme: str, block: str) -> str:
    """A README with `block` in the place of its table, or after its first paragraph."""
    if BEGIN in readme and END in readme:
        before, _, rest = readme.partition(BEGIN)
        return before + block + rest.partition(END)[2]
    title, _, rest = readme.partition("\n\n")
    first, _, others = rest.partition("\n\n")
    return "\n\n".join(x.strip("\n") for x in (title, first, block, others) if x.strip()) + "\n"


def _packages(facts: ImageFacts | None) -> str:
    counts = sorted({p.packages for p in facts.platforms.values()}) if facts else []
    return " or ".join(map(str, counts)) or "not built yet"


def _pulled(target: Target, facts: ImageFacts | None) -> str:
    """The bytes of each platform; those that the definition does not ask for any more are left out."""
    known = facts.platforms if facts else {}
    return ", ".join(
        f"{known[str(p)].size / 1e6:.1f} MB ({p.architecture})"
        if str(p) in known
        else f"? ({p.architecture})"
        for p in target.platforms
    )


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise ValueError(f"{str(value)[:80]!r} is no digest")
    return value
