"""The definitions of the repository itself are sound, and mistakes are reported all at once."""

from __future__ import annotations

from pathlib import Path

from builder.stages.define import load_catalogue

ROOT = Path(__file__).parents[2]


def test_the_catalogue_of_this_repository_loads() -> None:
    catalogue = load_catalogue(ROOT)
    assert [t.ref for t in catalogue.targets()][:2] == ["base:13", "python:3.13"]
    python = catalogue.find("python")
    parent = catalogue.parent(python)
    assert python.ref == "python:3.13"
    assert parent is not None
    assert parent.ref == "base:13"
