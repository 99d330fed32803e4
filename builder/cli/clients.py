"""`goldsmith doctor --client`: prove that a client reaches the mirror and nothing else."""

from __future__ import annotations

from pathlib import Path

_NOT_PROVEN = 5


def prove_client(client: str, mirror: str | None, foreign: list[str], hosts: Path, as_json: bool) -> int:
    """Try the client and tell what was seen; returns the exit code, 0 when it is proven."""
    from builder.report import emit, emit_json, table
    from builder.settings import Settings
    from registry.devcheck.probe import FOREIGN, prove, puller

    settings = Settings.load(needs_catalogue=False)
    host = mirror or settings.mirror
    attempts = prove(client, host, foreign or FOREIGN, puller(client, settings.child_environment, hosts))
    proven = all(a.ok for a in attempts)
    if as_json:
        listed = [{"reference": a.reference, "ok": a.ok, "seen": a.seen} for a in attempts]
        emit_json({"client": client, "mirror": host, "proven": proven, "attempts": listed})
        return 0 if proven else _NOT_PROVEN
    rows = [("ok" if a.ok else "NOT", a.reference, a.seen) for a in attempts]
    table(f"{client}, mirror {host}", ("", "asked for", "seen"), rows)
    if proven:
        emit(f"{client} reaches {host} and none of the others that were tried")
    else:
        emit(f"not proven; goldsmith client-config {client} writes a configuration that blocks the others")
    return 0 if proven else _NOT_PROVEN
