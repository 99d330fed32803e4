"""Write `docs/reference/` from the code, and the tables of the images' READMEs.

`--check` changes nothing and ends with 1 when a page is stale.

    python docs/generate.py [--check]

The pages are made in `docs/generating/`, one kind a module. What the code cannot say (what a variable
is for, what lies beside the documented folders) stands in tables there; a name that is in the code
and not in its table, or the other way round, is an error.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from generating import commands, configuration, errors, rules, schemas, state  # noqa: E402

REFERENCE = ROOT / "docs" / "reference"
command_tree = commands.command_tree


def pages() -> dict[str, str]:
    """Every page of the reference, by file name."""
    return {
        "cli.md": commands.cli(),
        "definitions.md": schemas.definitions(),
        "policy.md": schemas.policy(),
        "rules.md": rules.rules(),
        "hardening.md": rules.hardening(),
        "configuration.md": configuration.configuration(),
        "errors.md": errors.errors(),
        "state.md": state.state(),
    }


def readmes() -> dict[Path, str]:
    """The README of every image, with its table of facts."""
    from builder.cli.facts import readme
    from builder.stages.define import load_catalogue

    catalogue = load_catalogue(ROOT)
    return {
        catalogue.directory(name) / "README.md": readme(catalogue, name) for name in catalogue.definitions
    }


def _shown(file: Path) -> Path:
    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else file


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them."""
    wanted = {**{REFERENCE / name: text for name, text in pages().items()}, **readmes()}
    stale = [file for file, text in wanted.items() if not file.is_file() or file.read_text() != text]
    if "--check" in arguments:
        sys.stderr.write("".join(f"{_shown(file)} is stale: run `make docs`\n" for file in stale))
        return 1 if stale else 0
    REFERENCE.mkdir(exist_ok=True)
    for file in stale:
        file.write_text(wanted[file])
        sys.stdout.write(f"{_shown(file)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
