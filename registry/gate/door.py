"""Who asks, and whether they may: looked at before anything else of a request for an image.

Credentials come as HTTP Basic (RFC 7617; the password is a token, the user's name is nobody's
business) or as Bearer (RFC 6750). What was proved is remembered under the SHA-256 of the header,
until it ends or rules and tokens change. What was refused is not remembered: to refuse is cheap.
A token that nobody knows may have been made a moment ago: the files are looked at once more first.

Where some images are for everybody, clients would never send their credentials if the first
answer were yes; such a gate asks for Bearer, and its `/token` hands each client back what it
showed, or `anonymous` (Distribution, "Token Authentication Specification"). So there is no further
secret, and a revocation holds at once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from builder.errors import GoldsmithError
from builder.model.digest import canonical_json
from registry.access.authenticate import Authenticator
from registry.access.identity import ANONYMOUS, Identity, may
from registry.access.jwks import RETRY_SECONDS as KEYS_SECONDS
from registry.access.known import CannotTell, Known, NotAuthenticated
from registry.access.oidc import KeysWanted
from registry.access.roles import EVERYTHING, Permission, image_of
from registry.access.source import Source
from registry.access.tokens import PREFIX
from registry.gate.answers import Answer, failure
from registry.gate.journal import Journal, Metrics
from registry.gate.names import Wanted

HELP_PATH = "/help/access"
HELP = (
    "Pulling needs a login: `docker login HOST` with a token as the password (any user name).\n"
    "What to do: ask the platform team for a token, or for a role on the image that you need;\n"
    "`goldsmith token create` makes one. A token that is expired or revoked is not prolonged."
)
RETRY_SECONDS = 5
_REMEMBERED = 4096  # credentials, and names of each identity
_CREDENTIAL_MAX = 24 << 10  # characters
_TOKEN_SECONDS = 300
_PAUSE_SECONDS = 0.05
_LOOK_SECONDS = 0.05  # at least from one look for a new token to the next
_NEEDS = {"tags": Permission.SEE, "catalog": None, "ping": None}


class UnknownToken(NotAuthenticated):
    """A token that is none as far as is known; one that was just made is known after a look."""


class Visitor:
    """An identity at the door, and what was found out about it."""

    __slots__ = ("_known", "identity", "is_anonymous", "name")

    def __init__(self, identity: Identity) -> None:
        self.identity, self.name = identity, identity.name
        self.is_anonymous = identity.name == ANONYMOUS
        self._known: dict[tuple[Permission, str], bool] = {}

    def may(self, permission: Permission, name: str) -> bool:
        """Whether it may do that with a repository."""
        key = (permission, name)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[key] = may(self.identity, permission, image_of(name))
        return found

    def sees(self, name: str) -> bool:
        """Whether a repository is in its catalogue."""
        return self.may(Permission.SEE, name)


@dataclass(slots=True)
class _State:
    """What is known as long as rules and tokens stay; replaced as a whole."""

    authenticator: Authenticator
    anonymous: Visitor
    challenge: bytes
    visitors: dict[bytes, tuple[Visitor, float]] = field(default_factory=dict)


class Door:
    """Lets requests in, or not; `refresh` is called from any thread, all else from the server's."""

    def __init__(
        self,
        source: Source,
        journal: Journal,
        metrics: Metrics,
        *,
        now: Callable[[], float],
        link: str,
    ) -> None:
        self._source, self._journal, self._metrics = source, journal, metrics
        self._now, self._link = now, link
        self._turn = threading.Lock()
        self._next: asyncio.Task[None] | None = None
        self._looked = float("-inf")
        self._state = self._opened()

    def refresh(self) -> bool:
        """Take up changed rules and tokens; whether there were any. Raises DefinitionError."""
        with self._turn:
            if not self._source.changed():
                return False
            self._state = self._opened()
            return True

    async def look_again(self) -> None:
        """Wait for a look at rules and tokens that begins after this call.

        All who wait share it, and there are few of them in a second: unknown tokens amplify nothing.
        """
        if self._next is None:
            self._next = asyncio.ensure_future(self._look())
        await asyncio.shield(self._next)

    async def _look(self) -> None:
        await asyncio.sleep(max(0.0, self._looked + _LOOK_SECONDS - time.monotonic()))
        self._next = None  # who comes now waits for the one after it
        self._looked = time.monotonic()
        try:
            if await asyncio.to_thread(self.refresh):
                self._journal.event("access-changed")
        except (GoldsmithError, OSError) as error:  # what was in force stays so
            self._journal.event("bug", cause=repr(error))

    @property
    def is_open(self) -> bool:
        """Whether everybody may pull everything."""
        return _open(self._state)

    def tend(self) -> None:
        """Ask issuers for their keys, where that is due; waits for the network, in a thread of its own."""
        for keys in self._state.authenticator.issuers:
            if keys.due() and not keys.refresh():
                self._journal.event("issuer-away", issuer=keys.issuer.name, cause=keys.problem)

    async def keys_came(self, wanted: KeysWanted) -> None:
        """Wait, for a while, until somebody has asked for an issuer's keys."""
        before = wanted.keys.tried
        for _ in range(int(KEYS_SECONDS / _PAUSE_SECONDS)):
            if wanted.keys.tried != before:
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    def enter(self, scope: Any, wanted: Wanted, number: str, patient: bool = True) -> Visitor | Answer:
        """Who asks, if they may have what they want; else the answer: 401, 403, or 503.

        While `patient`, raises KeysWanted when an issuer should be asked first, and UnknownToken
        when the files should be looked at first.
        """
        state = self._state
        try:
            header = _authorization(scope)
            visitor = self._visitor(state, header) if header is not None else state.anonymous
        except NotAuthenticated as refused:
            if patient and isinstance(refused, UnknownToken):
                raise
            return self._refused(state, scope, number, str(refused))
        except CannotTell as error:
            if patient and isinstance(error, KeysWanted):
                raise
            self._metrics.unauthenticated.labels("cannot-tell").inc()
            self._journal.event("cannot-authenticate", id=number, cause=str(error))
            said = f"who you are cannot be found out at the moment: {error}"
            return failure(503, "UNAVAILABLE", said, retry=RETRY_SECONDS)
        scope["who"] = visitor.name
        if visitor.is_anonymous and not visitor.identity.grants:
            return self._login(state)
        needed = _NEEDS.get(wanted.kind, Permission.PULL)
        if needed is not None and not visitor.may(needed, wanted.name):
            if visitor.is_anonymous:
                return self._login(state)
            return self._forbidden(visitor, needed, wanted, number)
        if wanted.kind == "ping" and header is None and not _open(state):
            # A client that is not asked here never shows what it has.
            return self._login(state)
        return visitor

    def token(self, scope: Any, number: str, patient: bool = True) -> Answer:
        """The answer at `/token`: what was shown, if it is good, or `anonymous`; raises as `enter`."""
        state = self._state
        header = _authorization(scope)
        credential = ANONYMOUS
        if header is not None:
            try:
                self._visitor(state, header)
                credential = _credential(header)
            except NotAuthenticated as refused:
                if patient and isinstance(refused, UnknownToken):
                    raise
                return self._refused(state, scope, number, str(refused))
            except CannotTell as error:
                if patient and isinstance(error, KeysWanted):
                    raise
                return failure(503, "UNAVAILABLE", str(error), retry=RETRY_SECONDS)
        body = canonical_json({"token": credential, "access_token": credential, "expires_in": _TOKEN_SECONDS})
        headers = (
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        )
        return Answer(200, headers, body)

    def _visitor(self, state: _State, header: bytes) -> Visitor:
        now = self._now()
        key = hashlib.sha256(header).digest()
        found = state.visitors.get(key)
        if found is not None and now < found[1]:
            return found[0]
        credential = _credential(header)
        is_bearer = header[:7].lower() == b"bearer "
        if credential == ANONYMOUS and is_bearer and state.anonymous.identity.grants:
            return state.anonymous
        try:
            known: Known = state.authenticator.identify(credential, now)
        except NotAuthenticated as refused:
            if credential.startswith(PREFIX):
                raise UnknownToken(str(refused)) from None
            raise
        visitor = Visitor(known.identity)
        while len(state.visitors) >= _REMEMBERED:
            state.visitors.pop(next(iter(state.visitors)))
        state.visitors[key] = (visitor, known.until)
        return visitor

    def _opened(self) -> _State:
        authenticator = self._source.load(lambda event, cause: self._journal.event(event, cause=cause))
        anonymous = Visitor(authenticator.access.anonymous())
        challenge = f'Basic realm="{self._link}", charset="UTF-8"'
        if anonymous.identity.grants and not anonymous.may(Permission.PULL, EVERYTHING):
            challenge = f'Bearer realm="{self._link}/token",service="goldsmith"'
        return _State(authenticator, anonymous, challenge.encode())

    def _login(self, state: _State) -> Answer:
        self._metrics.unauthenticated.labels("no-credentials").inc()
        said = f"log in first, with a token as the password; see {self._link}{HELP_PATH}"
        return failure(401, "UNAUTHORIZED", said, ((b"www-authenticate", state.challenge),))

    def _refused(self, state: _State, scope: Mapping[str, Any], number: str, cause: str) -> Answer:
        self._metrics.unauthenticated.labels("refused").inc()
        client = (scope.get("client") or ("",))[0]
        self._journal.event("not-authenticated", id=number, client=client, cause=cause)
        said = f"{cause}; see {self._link}{HELP_PATH}"
        return failure(401, "UNAUTHORIZED", said, ((b"www-authenticate", state.challenge),))

    def _forbidden(self, visitor: Visitor, needed: Permission, wanted: Wanted, number: str) -> Answer:
        has = ", ".join(f"{g.role} on {' '.join(g.images)}" for g in visitor.identity.grants) or "no role"
        said = (
            f"{visitor.name} may not {needed} {wanted.name}: it has {has}; "
            f"ask for a role on it, see {self._link}{HELP_PATH}"
        )
        self._metrics.denials.labels("access").inc()
        self._journal.event(
            "forbidden", id=number, who=visitor.name, repository=wanted.name, reference=wanted.reference
        )
        return failure(403, "DENIED", said, detail={"reason": "access", "who": visitor.name})


def _open(state: _State) -> bool:
    return state.anonymous.may(Permission.PULL, EVERYTHING)


def _authorization(scope: Any) -> bytes | None:
    found = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            if found is not None:
                raise NotAuthenticated("there are two Authorization headers")
            found = value
    return found


def _credential(header: bytes) -> str:
    """What an Authorization header shows; raises NotAuthenticated."""
    if len(header) > _CREDENTIAL_MAX:
        raise NotAuthenticated("the credentials are too long")
    scheme, _, rest = header.partition(b" ")
    try:
        if scheme.lower() == b"bearer":
            return rest.strip().decode("ascii")
        if scheme.lower() == b"basic":
            _, colon, password = base64.b64decode(rest.strip(), validate=True).partition(b":")
            if colon:
                return password.decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        pass
    raise NotAuthenticated("the Authorization header is neither Basic nor Bearer")
