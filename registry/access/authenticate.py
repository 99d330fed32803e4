"""From what somebody shows to who they are."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from registry.access.identity import Identity
from registry.access.rules import Access
from registry.access.tokens import PREFIX, NotAuthenticated, TokenBook


@dataclass(frozen=True, slots=True)
class Known:
    """Somebody's identity, and until when it is proved (seconds since the epoch)."""

    identity: Identity
    until: float


class CannotTell(Exception):
    """It cannot be found out at the moment who shows this: neither a yes nor a no."""


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Everything that proves identities, at one moment; `tokens` is None when they cannot be read."""

    access: Access
    tokens: TokenBook | None

    def identify(self, credential: str, now: float) -> Known:
        """Who shows this credential; raises NotAuthenticated or CannotTell."""
        if not credential.startswith(PREFIX):
            raise NotAuthenticated("this is not a token of this registry: show one as the password")
        if self.tokens is None:
            raise CannotTell("the list of tokens cannot be read")
        token = self.tokens.check(credential, dt.datetime.fromtimestamp(now, dt.UTC))
        return Known(token.identity(self.access.roles), token.expires_at.timestamp())
