"""`goldsmith --help`: the commands by what they are for, instead of one long list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperGroup

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Begin": ("doctor", "init", "up", "down"),
    "Define and build": ("images", "new", "lint", "lock", "try", "build", "render", "facts", "schema"),
    "Judge and publish": ("run", "plan", "nightly", "why", "rules", "simulate", "rehearse", "db"),
    "Accept findings": ("waive", "waivers", "vex"),
    "Promote": ("approve", "approvals", "promote", "rollback", "revoke", "audit"),
    "Serve": ("serve", "token", "registry", "notify"),
    "Verify": ("verify", "reproduce", "licences", "diff", "delta", "changes"),
    "Use images": ("check", "client-config", "catalogue"),
    "Take images from and to elsewhere": ("import", "export"),
    "Look after what is served": ("reindex", "affected", "rescan", "inventory", "clock", "watchdog"),
    "Keys": ("keys",),
}
_END = "A first image, step by step: docs/guide/first-image.md"


class Overview(TyperGroup):
    """The group of all commands, with sections in its help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the sections; a command that has none comes last, under its own heading."""
        named = {name for names in SECTIONS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in named)
        width = max(map(len, self.commands), default=0)
        for title, names in (*SECTIONS.items(), ("Others", others)):
            rows = [
                (name.ljust(width), command.get_short_help_str(formatter.width - width - 6))
                for name in names
                if (command := self.commands.get(name)) is not None and not command.hidden
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Where to go from here."""
        formatter.write_paragraph()
        formatter.write_text(_END)
