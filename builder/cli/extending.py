"""The composition root of extensions: the packages that the settings name → what they bring."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from builder.extensions import Extensions
    from builder.model.catalogue import Catalogue
    from builder.model.definition import CatalogueCheck
    from builder.policy.schema import Policy
    from builder.settings import Settings


def installed(settings: Settings) -> Extensions:
    """What the named packages bring; raises ToolError when one cannot be used. None are named: no search.

    Whatever they print goes to standard error: standard output is for our results.
    """
    from builder.report import results_only

    if settings.extensions:
        results_only()
    return loaded(settings.extensions)


@lru_cache(maxsize=1)
def loaded(names: tuple[str, ...]) -> Extensions:
    """What these packages bring: once a process, as modules are. Who they are has to be that of what runs."""
    from builder.extensions import load

    return load(names)


def open_catalogue(settings: Settings) -> Catalogue:
    """The catalogue, with what steps of extensions make; raises DefinitionError, or as `installed` does."""
    from builder.stages.define import load_catalogue

    found = installed(settings)
    catalogue = load_catalogue(settings.catalogue, found.steps)
    _require_distinct(catalogue.common, found)
    return catalogue


def common_checks(settings: Settings) -> Mapping[str, CatalogueCheck]:
    """The checks that the catalogue declares for its images; raises DefinitionError, or as `installed`."""
    from builder.errors import DefinitionError, Problem
    from builder.stages.define import read_common_checks

    problems: list[Problem] = []
    found = read_common_checks(settings.catalogue, problems)
    if problems:
        raise DefinitionError(problems)
    _require_distinct(found, installed(settings))
    return found


def _require_distinct(common: Mapping[str, CatalogueCheck], extensions: Extensions) -> None:
    """No check has the id of another one: otherwise the answer of one would pass for the other's."""
    from builder.errors import DefinitionError, Problem

    both = sorted({check.id for check in extensions.checks} & common.keys())
    if both:
        hint = "an extension brings a check of that id: choose another"
        raise DefinitionError(
            [Problem(f"checks/{i}.yaml", "", f"{i!r} is there already", hint) for i in both]
        )


def policy_folders(settings: Settings) -> list[Path]:
    """Where policies are looked for: the catalogue's own, and those that come with goldsmith."""
    from pathlib import Path

    import registry

    return [settings.catalogue / "policies", Path(registry.__file__).parent / "policies"]


def find_policy_of(settings: Settings, name: str) -> Policy:
    """The policy of that name with what extensions demand: the catalogue's own, or else the installed one."""
    from builder.stages.judge import find_policy

    found = installed(settings)
    return extended(find_policy(name, policy_folders(settings), found.rules), found)


def extended(policy: Policy, extensions: Extensions) -> Policy:
    """The policy with what extensions demand; its digest covers who they are."""
    from dataclasses import replace

    from builder.extensions import combined

    who = extensions.identities("rule", "check", "scanner")
    return replace(policy, digest=combined(policy.digest, who), added=extensions.rules, extensions=who)


def extension_versions(settings: Settings) -> dict[str, str]:
    """The extensions as the provenance names them."""
    return {
        f"extension {who.kind} {who.id}": f"{who.package} {who.version} {who.digest}"
        for who in installed(settings).identities()
    }
