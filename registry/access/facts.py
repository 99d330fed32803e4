"""What the ledger says of a token: whose, for what, until when; nothing that proves anything. Pure."""

from __future__ import annotations

from builder.signing.predicates import timestamp
from registry.access.tokens import Token
from registry.audit.ledger import Action, Fact


def token_fact(token: Token, action: Action, who: str, why: str) -> Fact:
    """That a token was made (CREATE_TOKEN) or ended (REVOKE_TOKEN)."""
    made = action is Action.CREATE_TOKEN
    after = {
        "token": "valid" if made else "revoked",
        "holder": token.name,
        "roles": " ".join(token.roles),
        "images": " ".join(token.images),
        "expires": timestamp(token.expires_at),
    }
    before = {} if made else {"token": "valid"}
    return Fact(who, action, f"token:{token.id}", token.digest, before, after, why)
