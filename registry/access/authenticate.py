"""From what somebody shows to who they are."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from registry.access import oidc
from registry.access.jwks import IssuerKeys
from registry.access.known import CannotTell, Known, NotAuthenticated
from registry.access.rules import Access
from registry.access.tokens import PREFIX, TokenBook


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Everything that proves identities, at one moment; `tokens` is None when they cannot be read."""

    access: Access
    tokens: TokenBook | None
    issuers: tuple[IssuerKeys, ...] = ()

    def identify(self, credential: str, now: float) -> Known:
        """Who shows this credential; raises NotAuthenticated, CannotTell, KeysWanted."""
        if not credential.startswith(PREFIX):
            if self.issuers:
                return oidc.identify(credential, self.issuers, self.access.roles, now)
            raise NotAuthenticated("this is not a token of this registry: show one as the password")
        if self.tokens is None:
            raise CannotTell("the list of tokens cannot be read")
        token = self.tokens.check(credential, dt.datetime.fromtimestamp(now, dt.UTC))
        return Known(token.identity(self.access.roles), token.expires_at.timestamp())
