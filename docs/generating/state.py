"""The state directory: what lies in it, and what made it."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from generating.form import ROOT, cell, page, same, table

# What lies in the state directory beside the folders that `builder/store.py` describes: (made by, what).
BESIDE = {
    "lock": ("builder/store.py", "the lock of the whole directory (flock), and who holds it"),
    "registry": ("registry/storage/service.py", "the data of the storage registry"),
    "made": (
        "builder/pipeline/remote.py",
        "images that a cluster built, by digest: manifests and configurations, without layers",
    ),
    "nightly": ("builder/nightly.py", "the last night's report, since when what is blocked, the lock"),
    "gate": ("builder/cli/serve.py", "what `goldsmith serve` has approved, for its next start"),
    "access": ("builder/cli/identity.py", "the tokens, hashed; only for the owner's eyes"),
    "pulls": ("builder/cli/identity.py", "who pulled what, as `goldsmith serve` notes it; kept for 400 days"),
    "ledger": ("builder/cli/audit.py", "who decided what: the entries, the signed head, locks"),
    "index": ("builder/cli/knowledge.py", "the index of the registry: rebuilt by `goldsmith reindex`"),
    "metrics": (
        "builder/cli/rescanning.py",
        "`rescan.prom`, `clock.prom`: the last rescan and the clock, for a collector that reads files",
    ),
    "running": ("builder/cli/inventory.py", "what `goldsmith inventory --keep` found running"),
    "clock": ("builder/cli/clock.py", "first times of findings, and what was mended when: append-only"),
    "assembler": (
        "builder/engines/assembler.py",
        "the root in which Docker assembles images, by its lock's digest",
    ),
    "demo.json": ("tests/demo.py", "the result of `make demo`"),
    "sample": ("tests/demo.py", "the sample database, when the demo needed it"),
    "setup.log": (".ci/bootstrap", "what set-up said"),
}


def state() -> str:
    """The state directory."""
    from builder import store

    folders = re.findall(
        r"(\w+)/\s+(.*?)(?=\s{2,}\w+/|$)", inspect.cleandoc(store.__doc__ or ""), re.MULTILINE
    )
    made = store.Store(Path("/"))
    attributes = {k for k, v in vars(made).items() if isinstance(v, Path) and k != "root"}
    same("folders in the docstring of builder/store.py", attributes, {name for name, _ in folders})
    for name, (module, _) in BESIDE.items():
        if name not in (ROOT / module).read_text():
            raise SystemExit(f"docs/generating: {module} does not make {name!r}")
    rows = [(f"`{name}/`", cell(what.strip()), "builder/store.py") for name, what in folders]
    rows += [
        (f"`{name}`" if "." in name or name == "lock" else f"`{name}/`", cell(what), module)
        for name, (module, what) in BESIDE.items()
    ]
    lines = [
        "# State directory\n",
        "`GOLDSMITH_STATE`, otherwise `.goldsmith` in the catalogue. One run at a time writes to it; another one is refused with",
        "`state-busy`. Every file is written under a temporary name and renamed, so a killed run leaves no half file, and what it",
        "left in `tmp/` is removed by the next one.\n",
        table(("", "holds", "made by"), rows),
        "What may be deleted while nothing runs: everything but `keys/`, `registry/` and `ledger/` is made or fetched again. `keys/`",
        "holds the signing keys, `registry/` what was published, `ledger/` what was decided: back them up together.",
        "`make distclean` removes all of it, keys too.\n",
    ]
    return page(lines)
