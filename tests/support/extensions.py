"""Packages of a team, put on the path as an installer does it: modules, metadata, entry points."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from builder.cli.extending import loaded


class Site:
    """A folder of installed packages; what is imported from it is forgotten at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._modules: set[str] = set()

    def install(
        self,
        modules: Mapping[str, str],
        points: Mapping[str, Mapping[str, str]],
        name: str = "acme-extension",
        version: str = "1.2",
    ) -> None:
        """Install a package in the place of the one of that name; `points` are entry points by group."""
        info = self.folder / f"{name.replace('-', '_')}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        for module, text in modules.items():
            (self.folder / f"{module}.py").write_text(text)
        listed = "".join(
            f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in entries.items())
            for group, entries in points.items()
        )
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(listed)
        (info / "RECORD").write_text("".join(f"{m}.py,,\n" for m in modules))
        self._modules |= set(modules)
        self.forget()

    def forget(self) -> None:
        """Let the next import read the files again, as another process would."""
        loaded.cache_clear()
        for module in self._modules:
            sys.modules.pop(module, None)
            for compiled in self.folder.glob(f"__pycache__/{module}.*"):
                compiled.unlink()
        importlib.invalidate_caches()
        sys.path_importer_cache.clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """An empty folder of packages, on the path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    found = Site(folder)
    yield found
    found.forget()


RULE = """
from builder.policy.rule import Rule
def check(case):
    {body}
RULE = Rule(id={id!r}, title="Ours", failure="{{what}}", solution="mend it", check=check, needs={needs!r})
"""


def rule(
    site: Site,
    body: str = "return []",
    id: str = "team-rule",
    needs: str | None = None,
    version: str = "1.2",
) -> None:
    """Install a package with one rule."""
    text = RULE.format(body=body, id=id, needs=needs)
    site.install({"acme_rules": text}, {"goldsmith.rules": {"ours": "acme_rules:RULE"}}, version=version)


NAMED = ("acme-extension",)
Install = Callable[..., None]
