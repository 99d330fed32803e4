"""Identities that an OpenID Connect provider vouches for: its signed tokens, checked step by step.

The procedure; the numbers stand in the code. Sources: RFC 7515, 7519 and 8725; OpenID Connect
Core 1.0, section 3.1.3.7.

 1. The token is small, has three parts, and its header and claims are unambiguous JSON.
 2. Its `iss` is that of a configured issuer, exactly.
 3. Its algorithm is one that is configured for this issuer. Never `none`, never a symmetric one:
    a public key cannot be taken for a secret.
 4. The key is one of the issuer's own, by its id, of the algorithm's type. Keys and addresses that
    the token brings along (`jwk`, `jku`, `x5c`, `x5u`) are not looked at; what it calls critical
    is refused.
 5. The signature holds; `aud` is ours.
 6. It is not expired, and valid already, by a clock that never goes back.
 7. The subject is a name that can be written down; groups and subject give the roles.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

import jwt

from builder.errors import ToolError
from builder.tools.strict_json import parse_object
from registry.access.identity import Grant, Identity, grants_of, is_identity
from registry.access.jwks import IssuerAway, IssuerKeys
from registry.access.known import CannotTell, Known, NotAuthenticated
from registry.access.roles import Roles

TOKEN_MAX = 16 << 10  # characters
SKEW_SECONDS = 30  # that clocks may differ
REMEMBER_SECONDS = 300  # after this a token is looked at again
_GROUPS_MAX = 1000
_KEY_ID_MAX = 200


class KeysWanted(CannotTell):
    """A key is not known that the issuer may have: its keys have to be asked for first."""

    def __init__(self, keys: IssuerKeys) -> None:
        super().__init__(f"the keys of {keys.issuer.name} are asked for")
        self.keys = keys


def identify(token: str, issuers: Iterable[IssuerKeys], roles: Roles, now: float) -> Known:
    """Carry out the procedure above; raises NotAuthenticated, CannotTell, KeysWanted."""
    # 1. shape
    if len(token) > TOKEN_MAX:
        raise NotAuthenticated("the token is too long")
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        raise NotAuthenticated("this is neither a token of this registry nor of an issuer")
    header, claims = _part(parts[0]), _part(parts[1])
    # 2. issuer
    keys = next((k for k in issuers if claims.get("iss") == k.issuer.issuer), None)
    if keys is None:
        raise NotAuthenticated("the token's issuer is not believed here")
    # 3. algorithm
    algorithm = header.get("alg")
    if algorithm not in keys.issuer.algorithms:
        raise NotAuthenticated("the token's algorithm is not one that is used here")
    # 4. key, 5. signature and audience
    _verify(token, header, str(algorithm), keys)
    # 6. time
    ends = _number(claims, "exp")
    if ends is None or now >= ends + SKEW_SECONDS:
        raise NotAuthenticated("the token is expired, or does not say when it ends")
    for claim in ("nbf", "iat"):
        begins = _number(claims, claim)
        if begins is not None and now < begins - SKEW_SECONDS:
            raise NotAuthenticated("the token is not valid yet: a clock is wrong")
    # 7. who, and what they may
    subject = claims.get(keys.issuer.subject_claim)
    name = f"oidc:{keys.issuer.name}:{subject}"
    if not isinstance(subject, str) or not is_identity(name):
        raise NotAuthenticated("the token's subject is missing, too long, or no plain name")
    grants = tuple(_grants(keys, subject, claims, roles))
    return Known(Identity(name, grants), min(ends + SKEW_SECONDS, now + REMEMBER_SECONDS))


def _verify(token: str, header: Mapping[str, Any], algorithm: str, keys: IssuerKeys) -> None:
    number = header.get("kid", "")
    if "crit" in header or not isinstance(number, str) or len(number) > _KEY_ID_MAX:
        raise NotAuthenticated("the token's header asks for something that is not done here")
    try:
        key = keys.find(number, algorithm)
    except IssuerAway as error:
        if keys.want():
            raise KeysWanted(keys) from None
        raise CannotTell(str(error)) from None
    if key is None:
        if keys.want():
            raise KeysWanted(keys)
        raise NotAuthenticated("the token is signed with a key that its issuer does not have")
    try:
        jwt.decode(
            token,
            key.public,
            algorithms=[algorithm],
            audience=keys.issuer.audience,
            issuer=keys.issuer.issuer,
            # Times are compared with our own clock, below.
            options={
                "require": ["exp", "iss", "aud"],
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
            },
        )
    except jwt.InvalidAudienceError:
        raise NotAuthenticated("the token is for another audience") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise NotAuthenticated("the token's signature, or one of its claims, does not hold") from None


def _grants(keys: IssuerKeys, subject: str, claims: Mapping[str, Any], roles: Roles) -> Iterable[Grant]:
    said = claims.get(keys.issuer.groups_claim, [])
    groups = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    known = {g for g in groups[:_GROUPS_MAX] if isinstance(g, str)}
    for claim in keys.issuer.grants:
        if claim.group in known or (claim.subject is not None and claim.subject == subject):
            yield from grants_of(roles, claim.roles, claim.images)


def _part(text: str) -> dict[str, Any]:
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return parse_object(data, size_max=TOKEN_MAX, what="token")
    except (binascii.Error, ToolError):
        raise NotAuthenticated("the token cannot be read") from None


def _number(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e12:
        raise NotAuthenticated(f"the token's {name} is no time")
    return float(value)
