"""The command keys witness, a key for a machine that builds images again; and witnesses as they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from builder.model.witness import Witness

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def witness(as_json: AsJson = False) -> None:
    """Make this machine's witness key, with which it attests that it has rebuilt an image."""
    from builder.report import emit, emit_json
    from builder.settings import Settings
    from builder.signing.keys import WITNESS, create_witness, load_public
    from builder.store import Store

    settings = Settings.load(needs_catalogue=False)
    store = Store(settings.state)
    with store.exclusive("goldsmith keys witness"):
        state, _ = create_witness(store.keys, settings.passphrase)
    key = load_public(store.keys, WITNESS)
    if as_json:
        emit_json({"id": key.id, "public": str(state.public), "created": state.created})
        return
    emit(
        f"witness  {'made' if state.created else 'is there'}: key {key.id[:16]}, public key {state.public}\n"
        "Who keeps the trust file adds it: `goldsmith keys rotate witness --public FILE`."
    )


def as_data(seen: Sequence[Witness]) -> list[dict[str, str]]:
    """The witnesses of an image as JSON data."""
    return [
        {"key": w.key, "engine": w.rebuild.engine, "at": w.rebuild.at.isoformat(), "kit": w.rebuild.kit}
        for w in seen
    ]


def in_words(seen: Sequence[Witness]) -> str:
    """The witnesses of an image on one line."""
    if not seen:
        return "rebuilt by: nobody who is trusted has attested it"
    return "rebuilt by: " + ", ".join(f"witness {w.key[:16]} ({w.rebuild.engine})" for w in seen)
