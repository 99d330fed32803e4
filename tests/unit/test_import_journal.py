"""The unsigned journal of imports: each line names the one before it."""

from __future__ import annotations

import json
from pathlib import Path

from builder.cli.bundles import journal
from builder.model.digest import Digest
from builder.store import Store
from tests.support.images import NOW


def test_each_attempt_names_the_line_before_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "state").create()
    for name in ("a:1", "b:1", "c:1"):
        with journal(store, NOW, "user:ann", "x.tar", name):
            pass
    lines = (store.run / "imports.jsonl").read_bytes().splitlines()
    assert [json.loads(x)["as"] for x in lines] == ["a:1", "b:1", "c:1"]
    assert [json.loads(x)["previous"] for x in lines] == [Digest.of(x) for x in (b"", *lines[:-1])]
