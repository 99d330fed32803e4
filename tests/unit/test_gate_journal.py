"""The journal of the gate when its lines cannot be written."""

from __future__ import annotations

import errno
import json

from registry.gate.journal import Journal


def test_lines_that_cannot_be_written_are_counted_and_told_later() -> None:
    full, written = [True], []

    def write(text: str) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(text)

    journal = Journal(write, lambda: "2026-03-01T12:00:00Z")
    journal.event("denied", message="one")
    journal.event("denied", message="two")
    journal.flush()
    full[0] = False
    journal.event("denied", message="three")
    journal.flush()
    lines = [json.loads(x) for x in "".join(written).splitlines()]
    assert [(x["event"], x.get("count", x.get("message"))) for x in lines] == [
        ("denied", "three"),
        ("lines-dropped", 2),
    ]
