"""Who somebody is, and whether they may do something: the decision of everything in Goldsmith. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from registry.access.roles import Permission, Roles, covers

# The names that identities have, and nothing else: what is told of them is kept for ever.
_NAME = re.compile(
    r"anonymous|user:[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\$?|token:[a-z0-9]+(?:-[a-z0-9]+)*"
    r"|oidc:[a-z0-9]+(?:-[a-z0-9]+)*:[A-Za-z0-9._@|:/+=-]{1,160}"
)
ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Grant:
    """A role on some images, and what it allows there."""

    role: str
    permissions: frozenset[Permission]
    images: tuple[str, ...]

    def allows(self, permission: Permission, image: str) -> bool:
        """Whether it allows that, on an image or on all that a pattern holds for."""
        return permission in self.permissions and any(covers(p, image) for p in self.images)


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whom we know: `user:ann`, `token:nightly`, `oidc:corp:ann@example.com`, or `anonymous`."""

    name: str
    grants: tuple[Grant, ...] = ()


def may(identity: Identity, permission: Permission, image: str) -> bool:
    """Whether somebody may do something with an image.

    `image` is a name, or a pattern: then whether they may with everything that it holds for. What
    concerns no image (keys, the ledger) is asked for `EVERYTHING`.
    """
    return any(grant.allows(permission, image) for grant in identity.grants)


def grants_of(roles: Roles, names: Iterable[str], images: Iterable[str]) -> tuple[Grant, ...]:
    """One grant for each role of these names that there is; a role that is gone allows nothing."""
    where = tuple(images)
    return tuple(Grant(name, roles[name], where) for name in dict.fromkeys(names) if name in roles)


def missing(identity: Identity, grants: Iterable[Grant]) -> tuple[tuple[Permission, str], ...]:
    """What these grants allow and the identity may not do: nobody hands on what they have not."""
    asked = {(p, image) for grant in grants for p in grant.permissions for image in grant.images}
    return tuple(sorted((p, image) for p, image in asked if not may(identity, p, image)))


def is_identity(name: str) -> bool:
    """Whether a text is the name of an identity."""
    return _NAME.fullmatch(name) is not None
