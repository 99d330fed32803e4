"""Reading `access.yaml` and `roles.yaml`: every mistake of both at once."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from builder.errors import DefinitionError, Problem
from builder.tools.strict_model import read_model
from registry.access.roles import Roles, RolesFile, table
from registry.access.rules import Access, AccessFile

ACCESS_FILE, ROLES_FILE = "access.yaml", "roles.yaml"


def load_access(catalogue: Path, file: Path | None = None) -> Access:
    """Who may do what in a catalogue; `file` takes the place of its `access.yaml`.

    The roles are the catalogue's own, or else the installed ones. Raises DefinitionError.
    """
    problems: list[Problem] = []
    own = os.path.lexists(catalogue / ROLES_FILE)
    root = catalogue if own else Path(__file__).parent
    roles = read_model(root, ROLES_FILE, RolesFile, problems)
    access = None
    if file is not None:
        access = read_model(file.absolute().parent, file.name, AccessFile, problems)
    elif os.path.lexists(catalogue / ACCESS_FILE):
        access = read_model(catalogue, ACCESS_FILE, AccessFile, problems)
    if access is not None:
        shown = file.name if file else ACCESS_FILE
        problems += _issuer_problems(shown, access)
        if roles is not None:
            problems += _role_problems(shown, access, table(roles))
    if problems or roles is None:
        raise DefinitionError(sorted(problems, key=lambda p: (p.file, p.path)))
    return Access(table(roles), access)


def json_schemas() -> dict[str, dict[str, Any]]:
    """The JSON schemas of `access.yaml` and `roles.yaml`, by file name; for editors."""
    return {
        name: {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
        for name, model in ((ACCESS_FILE, AccessFile), (ROLES_FILE, RolesFile))
    }


def _role_problems(file: str, access: AccessFile, roles: Roles) -> Iterator[Problem]:
    used: list[tuple[str, Sequence[str]]] = [
        (f"people.{n}.roles", person.roles) for n, person in enumerate(access.people)
    ]
    for n, issuer in enumerate(access.oidc):
        used += [(f"oidc.{n}.grants.{m}.roles", claim.roles) for m, claim in enumerate(issuer.grants)]
    for path, names in used:
        for number, name in enumerate(names):
            if name not in roles:
                near = difflib.get_close_matches(name, roles, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(roles)}"
                yield Problem(file, f"{path}.{number}", f"there is no role {name!r}", hint)


def _issuer_problems(file: str, access: AccessFile) -> Iterator[Problem]:
    for field in ("name", "issuer"):
        values = [getattr(issuer, field) for issuer in access.oidc]
        for n, value in enumerate(values):
            if value in values[:n]:
                yield Problem(file, f"oidc.{n}.{field}", "another issuer has the same")
    for n, issuer in enumerate(access.oidc):
        for m, claim in enumerate(issuer.grants):
            if (claim.group is None) == (claim.subject is None):
                path = f"oidc.{n}.grants.{m}"
                yield Problem(file, path, "say who it is for", "either `group` or `subject`")
