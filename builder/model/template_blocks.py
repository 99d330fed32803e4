"""What a template had in a block when another one replaced it: `templates/NAME.replaces.yaml`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from builder.model.definition import Sha256, Strict

_HEAD = (
    "# Written by `goldsmith lint --accept-blocks`: what the replaced blocks were when that was reviewed.\n"
)
_LINES_MAX = 2000


class ReplacedBlock(Strict):
    """A block of a template as it was when its replacement was reviewed."""

    template: str
    sha256: Sha256
    text: Annotated[tuple[str, ...], Field(max_length=_LINES_MAX)]

    @property
    def whole(self) -> str:
        """The block's text."""
        return "".join(f"{line}\n" for line in self.text)


class ReplacedBlocks(Strict):
    """The blocks that a template replaces, by name."""

    schema_version: Literal[1] = Field(alias="schema")
    blocks: dict[str, ReplacedBlock]


def block_digest(text: str) -> str:
    """The SHA-256 of a block's text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def replaced_blocks(blocks: Mapping[str, tuple[str, str]]) -> bytes:
    """The file that says (template, text) of each replaced block; YAML, a line of the text a line."""
    lines = [_HEAD, "schema: 1\n", "blocks:\n"]
    for name, (template, text) in sorted(blocks.items()):
        lines += [f"  {name}:\n", f"    template: {template}\n", f'    sha256: "{block_digest(text)}"\n']
        lines += ["    text:\n", *(f"      - {json.dumps(line)}\n" for line in text.splitlines())]
    return "".join(lines).encode()
