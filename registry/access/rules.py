"""Who has which role on which images: the catalogue's `access.yaml`. Pure.

Without such a file a machine is one person's: the owner of the state directory may do
everything, and nobody else anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from builder.errors import PolicyDenied
from builder.model.definition import AbsolutePath, Name, PlainText, Strict
from builder.oci.auth import is_loopback
from registry.access.identity import ANONYMOUS, Grant, Identity, grants_of, is_identity, may
from registry.access.roles import EVERYTHING, Pattern, Patterns, Permission, Roles

_SHOWN_MAX = 5  # names in a hint
_URL_MAX = 500  # characters
_ISSUERS_MAX = 8
_EMAILS_MAX = 10_000


def _user(value: str) -> str:
    if not value.startswith("user:") or not is_identity(value):
        raise ValueError("write user:NAME, as the system calls the user")
    return value


def is_address(value: str) -> bool:
    """Whether it is a plain https address; http is for this machine alone."""
    if len(value) > _URL_MAX or not value.isascii() or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
        good = (parts.scheme == "https" or plain) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return good and "@" not in parts.netloc and not parts.fragment and not parts.query


def _address(value: str) -> str:
    if not is_address(value):
        raise ValueError("not a plain https address (http is for this machine alone)")
    return value


def _anonymous(value: Any) -> Any:
    """`pull` is everything, `none` nothing; a list names images."""
    if value in ("pull", "none"):
        return (EVERYTHING,) if value == "pull" else ()
    if not isinstance(value, list | tuple):
        raise ValueError("write pull, none, or a list of images")
    return tuple(value)


def _email(value: str) -> str:
    if value.count("@") != 1 or any(c.isspace() or c in "<>" for c in value):
        raise ValueError("not an e-mail address")
    return value


def _person(value: str) -> str:
    if value.partition(":")[0] not in ("user", "oidc") or not is_identity(value):
        raise ValueError("write user:NAME, or oidc:ISSUER:SUBJECT")
    return value


Address = Annotated[str, AfterValidator(_address)]
RoleNames = Annotated[tuple[Name, ...], Field(min_length=1)]


class Binding(Strict):
    """One person's roles."""

    who: Annotated[str, AfterValidator(_user), Field(description="user:NAME, as the system says it.")]
    roles: RoleNames = Field(description="Names of roles.")
    images: Patterns = Field(description='Image names; * stands for anything: ["*"] is all of them.')


class Claim(Strict):
    """What an issuer says of somebody, and the roles that follow from it."""

    group: PlainText | None = Field(None, description="One of the groups in the token.")
    subject: PlainText | None = Field(None, description="The token's subject, exactly.")
    roles: RoleNames = Field(description="Names of roles.")
    images: Patterns = Field(description="Image names; * stands for anything.")

    @property
    def shown(self) -> str:
        """Whom it is about, for people."""
        return f"group {self.group}" if self.group is not None else f"subject {self.subject}"


class Issuer(Strict):
    """An OpenID Connect provider whose tokens are believed (RFC 7519, OpenID Connect Core 1.0)."""

    name: Name = Field(description="A short name: identities are called oidc:NAME:SUBJECT.")
    issuer: Address = Field(description="The `iss` of its tokens, exactly.")
    audience: PlainText = Field(description="The `aud` that its tokens for us have.")
    jwks: Address | None = Field(None, description="Where its keys are. Default: as its discovery says.")
    ca_file: AbsolutePath | None = Field(None, description="Certificates (PEM) that its TLS is checked with.")
    algorithms: Annotated[tuple[Literal["RS256", "ES256"], ...], Field(min_length=1)] = ("RS256", "ES256")
    subject_claim: PlainText = Field("sub", description="The claim that names somebody.")
    groups_claim: PlainText = Field("groups", description="The claim with the groups: a list, or one name.")
    grants: Annotated[tuple[Claim, ...], Field(min_length=1, description="Who gets which roles.")]


_Anonymous = Literal["pull", "none"] | tuple[Pattern, ...]


class AccessFile(Strict):
    """`access.yaml`: who may do what."""

    schema_version: Literal[1] = Field(alias="schema")
    anonymous: Annotated[
        tuple[Pattern, ...], BeforeValidator(_anonymous, json_schema_input_type=_Anonymous)
    ] = Field((), description="Images that everybody may pull without a login: pull (all), none, or a list.")
    people: tuple[Binding, ...] = Field((), description="Users of the machine that decides.")
    oidc: Annotated[tuple[Issuer, ...], Field(max_length=_ISSUERS_MAX)] = Field(
        (), description="Providers of identities, and what their groups may."
    )
    emails: Annotated[
        dict[Annotated[PlainText, AfterValidator(_email)], Annotated[str, AfterValidator(_person)]],
        Field(max_length=_EMAILS_MAX),
    ] = Field(
        default_factory=dict,
        description="Whose the addresses of commits are: nobody approves what they wrote. ADDRESS: user:NAME",
    )


@dataclass(frozen=True, slots=True)
class Access:
    """The roles, and who has them; `file` is None where there is no `access.yaml`."""

    roles: Roles
    file: AccessFile | None = None

    def local(self, user: str, is_owner: bool) -> Identity:
        """A user of this machine (its name without `user:`); `is_owner` of the state directory."""
        name = f"user:{user}"
        if self.file is None:
            everything = grants_of(self.roles, self.roles, (EVERYTHING,)) if is_owner else ()
            return Identity(name, everything)
        found = [b for b in self.file.people if b.who == name]
        return Identity(name, tuple(g for b in found for g in grants_of(self.roles, b.roles, b.images)))

    def named(self, name: str, owner: str) -> Identity:
        """Somebody by the name that decisions are recorded under, as far as the rules know it today.

        `owner` is the owner of the state directory. Of who came by an issuer's groups only their
        token tells the groups: they have what any group of that issuer gives.
        """
        kind, _, rest = name.partition(":")
        if kind == "user":
            return self.local(rest, name == f"user:{owner}")
        issuer_name, _, subject = rest.partition(":")
        issuers = self.file.oidc if self.file and kind == "oidc" else ()
        claims = [c for i in issuers if i.name == issuer_name for c in i.grants]
        theirs = [c for c in claims if c.subject in (None, subject)]
        return Identity(name, tuple(g for c in theirs for g in grants_of(self.roles, c.roles, c.images)))

    def anonymous(self) -> Identity:
        """Who does not say who they are."""
        images = self.file.anonymous if self.file else ()
        permissions = frozenset({Permission.SEE, Permission.PULL})
        return Identity(ANONYMOUS, (Grant(ANONYMOUS, permissions, images),) if images else ())

    def require(self, identity: Identity, permission: Permission, image: str) -> None:
        """Pass, or raise PolicyDenied with what the identity has, and who may do it."""
        if may(identity, permission, image):
            return
        has = ", ".join(f"{g.role} on {' '.join(g.images)}" for g in identity.grants) or "no role"
        able = self.who_may(permission, image)
        roles = ", ".join(name for name, allowed in self.roles.items() if permission in allowed)
        ask = f"ask {', '.join(able[:_SHOWN_MAX])}" if able else f"nobody may yet: the roles are {roles}"
        raise PolicyDenied(
            f"{identity.name} may not {spoken(permission, image)}",
            context=f"{identity.name} has {has}",
            hint=f"{ask}; {self._where()}",
            reference="not-permitted",
        )

    def who_may(self, permission: Permission, image: str) -> tuple[str, ...]:
        """Whom `access.yaml` allows it, for people to read."""
        if self.file is None:
            return ("the owner of the state directory",)
        able = [
            b.who
            for b in self.file.people
            if any(g.allows(permission, image) for g in grants_of(self.roles, b.roles, b.images))
        ]
        for issuer in self.file.oidc:
            able += [
                f"{claim.shown} of {issuer.name}"
                for claim in issuer.grants
                if any(g.allows(permission, image) for g in grants_of(self.roles, claim.roles, claim.images))
            ]
        return tuple(dict.fromkeys(able))

    def _where(self) -> str:
        if self.file is None:
            return "an access.yaml in the catalogue gives roles to others"
        return "access.yaml says who has which role"


def spoken(permission: Permission, image: str) -> str:
    """A permission on an image as a sentence has it."""
    verb = permission.value.replace("-", " ")
    if image == EVERYTHING:
        return verb if "-" in permission.value else f"{verb} all images"
    return f"{verb} for {image}" if "-" in permission.value else f"{verb} {image}"
