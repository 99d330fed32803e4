"""Roles as data, who has them, and the decision whether somebody may do something."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import jsonschema
import pytest
import yaml

from builder.errors import DefinitionError, PolicyDenied
from registry.access import rules
from registry.access.identity import Grant, Identity, is_identity, may, missing
from registry.access.load import json_schemas, load_access
from registry.access.roles import EVERYTHING, Permission, covers, image_of
from registry.access.rules import Access

P = Permission

TEAM = """
    schema: 1
    anonymous: ["base*"]
    people:
      - {who: "user:ann", roles: [curator], images: ["python*", base]}
      - {who: "user:bob", roles: [security, auditor], images: ["*"]}
    oidc:
      - name: corp
        issuer: https://id.example.com
        audience: goldsmith
        grants:
          - {group: platform, roles: [approver], images: ["*"]}
          - {subject: "repo:org/app", roles: [robot], images: [python]}
"""


def access(folder: Path, text: str | None = TEAM) -> Access:
    if text is not None:
        (folder / "access.yaml").write_text(dedent(text))
    return load_access(folder)


def test_the_schema_for_editors_accepts_what_is_read_and_nothing_else() -> None:
    schemas = json_schemas()
    sound = yaml.safe_load(dedent(TEAM))
    for anonymous in (["base*"], "pull", "none"):
        jsonschema.validate({**sound, "anonymous": anonymous}, schemas["access.yaml"])
    for wrong in ({"anonymous": "all"}, {"poeple": []}, {"schema": 2}, {"people": [{"who": "user:ann"}]}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**sound, **wrong}, schemas["access.yaml"])
    roles = yaml.safe_load((Path(rules.__file__).parent / "roles.yaml").read_text())
    jsonschema.validate(roles, schemas["roles.yaml"])


def problems(folder: Path, text: str) -> dict[str, str]:
    with pytest.raises(DefinitionError) as caught:
        access(folder, text)
    return {p.path: f"{p.message}; {p.hint}" for p in caught.value.problems}


@pytest.mark.parametrize(
    ("pattern", "image", "holds"),
    [
        ("*", "python", True),
        ("python", "python", True),
        ("python", "python-dev", False),
        ("python", "xpython", False),
        ("python*", "python", True),
        ("python*", "python3/dev", True),
        ("*-dev", "python-dev", True),
        ("*-dev", "python-dev2", False),
        ("a.c", "abc", False),
        ("team-*-x", "team-a-x", True),
        # A pattern in the place of an image: everything that it holds for.
        ("*", "python*", True),
        ("py*", "python*", True),
        ("python*", "py*", False),
        ("python", "python*", False),
        ("python*", "*", False),
        ("a*b*c", "a*c", False),
        ("a*c", "a*b*c", True),
    ],
)
def test_patterns_hold_for_whole_names(pattern: str, image: str, holds: bool) -> None:
    assert covers(pattern, image) is holds


def test_candidates_belong_to_their_image() -> None:
    assert image_of("candidate/python") == image_of("python") == "python"


@pytest.mark.parametrize(
    ("role", "allowed", "refused"),
    [
        ("viewer", {P.SEE}, {P.PULL, P.PROMOTE, P.READ_AUDIT}),
        ("developer", {P.SEE, P.PULL}, {P.PUBLISH, P.PROMOTE, P.APPROVE, P.WAIVE, P.MANAGE_TOKENS}),
        ("curator", {P.PULL, P.PROMOTE, P.ROLLBACK, P.REVOKE, P.IMPORT, P.WAIVE}, {P.APPROVE, P.MANAGE_KEYS}),
        ("security", {P.REVOKE, P.WAIVE, P.QUARANTINE, P.MANAGE_KEYS}, {P.PROMOTE, P.PUBLISH, P.APPROVE}),
        ("approver", {P.APPROVE, P.PULL}, {P.PROMOTE, P.WAIVE, P.REVOKE}),
        ("auditor", {P.READ_AUDIT, P.EXPORT}, {P.PROMOTE, P.REVOKE, P.MANAGE_TOKENS}),
        ("robot", {P.PULL, P.PUBLISH, P.PROMOTE}, {P.REVOKE, P.APPROVE, P.WAIVE, P.MANAGE_TOKENS}),
    ],
)
def test_what_the_installed_roles_allow(tmp_path: Path, role: str, allowed: set[P], refused: set[P]) -> None:
    somebody = Identity("user:x", (Grant(role, access(tmp_path, None).roles[role], ("python",)),))
    assert {p for p in allowed | refused if may(somebody, p, "python")} == allowed
    assert not any(may(somebody, p, "base") for p in P)


def test_without_a_file_the_owner_may_everything_and_nobody_else_anything(tmp_path: Path) -> None:
    rules = access(tmp_path, None)
    owner, other = rules.local("ann", is_owner=True), rules.local("bob", is_owner=False)
    assert all(may(owner, p, EVERYTHING) for p in P)
    assert not any(may(other, p, "python") for p in P)
    assert not any(may(rules.anonymous(), p, "python") for p in P)
    with pytest.raises(PolicyDenied) as caught:
        rules.require(other, P.PROMOTE, "python")
    assert caught.value.message == "user:bob may not promote python"
    assert "the owner of the state directory" in caught.value.hint


def test_with_a_file_owning_the_state_gives_nothing(tmp_path: Path) -> None:
    rules = access(tmp_path)
    assert not any(may(rules.local("root", is_owner=True), p, "python") for p in P)
    ann = rules.local("ann", is_owner=False)
    assert may(ann, P.PROMOTE, "python3") and may(ann, P.PROMOTE, "base")
    assert not may(ann, P.PROMOTE, "ruby") and not may(ann, P.PROMOTE, EVERYTHING)
    assert may(rules.local("bob", is_owner=False), P.MANAGE_KEYS, EVERYTHING)
    anonymous = rules.anonymous()
    assert may(anonymous, P.PULL, "base-x") and may(anonymous, P.SEE, "base")
    assert not may(anonymous, P.PULL, "python") and not may(anonymous, P.PROMOTE, "base")


def test_a_refusal_says_who_may(tmp_path: Path) -> None:
    rules = access(tmp_path)
    with pytest.raises(PolicyDenied) as caught:
        rules.require(rules.local("ann", is_owner=True), P.APPROVE, "python")
    error = caught.value
    assert error.message == "user:ann may not approve python"
    assert "curator on python* base" in error.context
    assert error.hint.startswith("ask group platform of corp; access.yaml")
    assert rules.who_may(P.PROMOTE, "python") == ("user:ann", "subject repo:org/app of corp")
    with pytest.raises(PolicyDenied, match="user:ann may not promote all images"):
        rules.require(rules.local("ann", is_owner=False), P.PROMOTE, EVERYTHING)
    with pytest.raises(PolicyDenied, match="user:eve may not manage keys") as caught:
        rules.require(rules.local("eve", is_owner=False), P.MANAGE_KEYS, EVERYTHING)
    assert "no role" in caught.value.context and "ask user:bob" in caught.value.hint


def test_every_mistake_at_once_each_with_what_was_meant(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        schema: 1
        anonymus: pull
        people:
          - {who: ann, roles: [curator], images: ["*"]}
          - {who: "user:bob", roles: [curator], images: ["Py thon"]}
          - {who: "user:eve", roles: [curator], images: [candidate/python]}
          - {who: "user:joe", rolls: [curator], images: ["*"]}
        oidc:
          - name: corp
            issuer: http://id.example.com
            audience: goldsmith
            algorithms: [HS256]
            grants: [{group: x, roles: [viewer], images: ["**"]}]
        """,
    )
    assert "did you mean 'anonymous'?" in found["anonymus"]
    assert "user:NAME" in found["people.0.who"]
    assert "not an image name" in found["people.1.images.0"]
    assert "covers the candidates" in found["people.2.images.0"]
    assert "did you mean 'roles'?" in found["people.3.rolls"]
    assert "https" in found["oidc.0.issuer"]
    assert "oidc.0.algorithms.0" in found
    assert "oidc.0.grants.0.images.0" in found


def test_roles_and_issuers_have_to_make_sense_together(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        schema: 1
        people: [{who: "user:ann", roles: [curater], images: ["*"]}]
        oidc:
          - &a
            name: corp
            issuer: https://id.example.com
            audience: goldsmith
            grants: [{group: x, subject: y, roles: [viewer], images: ["*"]}]
          - name: corp
            issuer: https://id.example.com
            audience: goldsmith
            grants: [{roles: [viewer], images: ["*"]}]
        """.replace("&a\n            ", ""),
    )
    assert "did you mean 'curator'?" in found["people.0.roles.0"]
    assert "either `group` or `subject`" in found["oidc.0.grants.0"]
    assert "either `group` or `subject`" in found["oidc.1.grants.0"]
    assert "oidc.1.name" in found and "oidc.1.issuer" in found


@pytest.mark.parametrize(
    ("value", "images"), [("pull", ("*",)), ("none", ()), ('["base*", python]', ("base*", "python"))]
)
def test_what_is_anonymous(tmp_path: Path, value: str, images: tuple[str, ...]) -> None:
    rules = access(tmp_path, f"schema: 1\nanonymous: {value}\n")
    assert tuple(i for g in rules.anonymous().grants for i in g.images) == images


@pytest.mark.parametrize("value", ["yes", "everything", "{a: b}", "7"])
def test_what_is_no_word_for_anonymous(tmp_path: Path, value: str) -> None:
    assert "pull, none, or a list" in problems(tmp_path, f"schema: 1\nanonymous: {value}\n")["anonymous"]


def test_a_catalogue_can_have_its_own_roles(tmp_path: Path) -> None:
    own = tmp_path / "roles.yaml"
    own.write_text("schema: 1\nroles: {reader: {title: Reads, may: [pull]}}\n")
    assert access(tmp_path, None).roles == {"reader": frozenset({P.PULL})}
    own.write_text("schema: 1\nroles: {reader: {title: Reads, may: [pul]}}\n")
    found = problems(tmp_path, "schema: 1\nanonymous: nobody\n")
    assert "did you mean 'pull'?" in found["roles.reader.may.0"]
    assert "anonymous" in found


def test_nobody_hands_on_what_they_have_not(tmp_path: Path) -> None:
    rules = access(tmp_path)
    ann = rules.local("ann", is_owner=False)
    pulls = Grant("developer", rules.roles["developer"], ("python-x*",))
    assert missing(ann, (pulls,)) == ()
    wider = Grant("developer", rules.roles["developer"], ("py*",))
    assert missing(ann, (wider,)) == ((P.PULL, "py*"), (P.SEE, "py*"))
    other = Grant("approver", rules.roles["approver"], ("python",))
    assert missing(ann, (other,)) == ((P.APPROVE, "python"),)


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("user:ann", True),
        ("user:svc$", True),
        ("token:ci-python", True),
        ("oidc:corp:repo:org/app:ref:refs/heads/main", True),
        ("anonymous", True),
        ("ann", False),
        ("user:ann bob", False),
        ("token:gs_abc_DEF", False),
        ("oidc:corp:a\nb", False),
        ("user:", False),
        ("anonymous:x", False),
    ],
)
def test_names_of_identities(name: str, good: bool) -> None:
    assert is_identity(name) is good
