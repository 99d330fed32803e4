"""Who runs a command, and whether they may: the composition root of access."""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import PolicyDenied, ToolError
from builder.settings import Settings
from builder.store import Store
from registry.access.identity import Identity, may
from registry.access.load import load_access
from registry.access.roles import Permission, image_of
from registry.access.rules import Access
from registry.access.tokens import TokenStore
from registry.approvals.needs import Approvers

if TYPE_CHECKING:
    from builder.cli.wiring import Workshop


@dataclass(frozen=True, slots=True)
class Caller:
    """Who runs this command, by the rules of the catalogue."""

    identity: Identity
    access: Access

    @property
    def name(self) -> str:
        """What decisions are recorded under."""
        return self.identity.name

    def require(self, permission: Permission, repository: str) -> None:
        """Pass, or raise PolicyDenied; `repository` may be the candidates' of an image."""
        self.access.require(self.identity, permission, image_of(repository))


def caller(settings: Settings, store: Store) -> Caller:
    """Who runs this command: by GOLDSMITH_TOKEN, or else the user as the system knows it.

    Raises DefinitionError, and PolicyDenied for a token that proves nothing.
    """
    access = load_access(settings.catalogue)
    if settings.token is None:
        return Caller(access.local(_user(), _owns(store)), access)
    return Caller(_identified(settings.token, settings, access, token_store(store)), access)


def approvers(who: Caller, store: Store) -> Approvers:
    """Who may approve what, by the rules of today."""
    access, owner = who.access, _owner(store)
    return Approvers(
        may=lambda name, image: may(access.named(name, owner), Permission.APPROVE, image),
        able=lambda image: access.who_may(Permission.APPROVE, image),
        emails=access.file.emails if access.file else {},
        alone=access.file is None,
    )


def token_store(store: Store) -> TokenStore:
    """The tokens of a state directory."""
    return TokenStore(store.root / "access")


def pulls_folder(store: Store) -> Path:
    """Where gates note who pulled what."""
    return store.root / "pulls"


def may_publish(workshop: Workshop, refs: Sequence[str]) -> None:
    """Pass, or raise PolicyDenied: images of the catalogue (without `refs` all) and their parents."""
    catalogue = workshop.catalogue
    wanted = [catalogue.find(ref) for ref in refs] or list(catalogue.targets())
    names = {one.definition.name for target in wanted for one in (target, *catalogue.ancestors(target))}
    who = caller(workshop.settings, workshop.store)
    for name in sorted(names):
        who.require(Permission.PUBLISH, name)


def _identified(shown: str, settings: Settings, access: Access, tokens: TokenStore) -> Identity:
    from registry.access.authenticate import Authenticator
    from registry.access.jwks import IssuerKeys
    from registry.access.known import CannotTell, NotAuthenticated
    from registry.access.oidc import KeysWanted

    issuers = tuple(map(IssuerKeys, access.file.oidc if access.file else ()))
    everything, now = Authenticator(access, tokens.read(), issuers), settings.now.timestamp()
    try:
        try:
            return everything.identify(shown, now).identity
        except KeysWanted as wanted:
            wanted.keys.refresh()
            return everything.identify(shown, now).identity
    except NotAuthenticated as error:
        raise PolicyDenied(
            f"GOLDSMITH_TOKEN is refused: {error}",
            hint="set it to a valid token, or unset it to act as yourself",
            reference="not-authenticated",
        ) from None
    except CannotTell as error:
        raise ToolError(
            "who you are cannot be found out at the moment",
            context=str(error),
            hint="try again when the issuer answers, or use a token of `goldsmith token create`",
            reference="issuer-away",
        ) from None


def _user() -> str:
    """The name of the user, not what the environment claims."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid-{os.geteuid()}"


def _owns(store: Store) -> bool:
    try:
        return store.root.stat().st_uid == os.geteuid()
    except FileNotFoundError:  # who makes it owns it
        return True


def _owner(store: Store) -> str:
    """The name of the owner of the state directory."""
    try:
        uid = store.root.stat().st_uid
    except FileNotFoundError:
        uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
