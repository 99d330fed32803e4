"""Tokens: stored hashed, with an end, revocable; what `docker login` takes as a password.

A token is `gs_ID_SECRET`: the id is public and names it, the secret is 256 random bits. Kept are a
salt and the SHA-256 of both. A slow hash protects what people choose; it would add nothing to
random bits that cannot be guessed, and would cost the gate 50 ms for each stranger's try.
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import fcntl
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from builder.errors import ToolError, UsageError
from builder.model.digest import Digest, canonical_json
from builder.store import read_file, write_atomically
from builder.tools.strict_json import parse_object
from registry.access.identity import Identity, grants_of
from registry.access.known import NotAuthenticated
from registry.access.roles import Roles

DAYS_MAX, DAYS_DEFAULT = 366, 90
TOKENS_MAX = 10_000
PREFIX = "gs_"
_ID_BYTES, _SECRET_BYTES, _SALT_BYTES = 6, 32, 16
_SHAPE = re.compile(r"gs_([a-z2-7]{10})_([A-Za-z0-9_-]{43})")
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_NAME_MAX = 64
_SIZE_MAX = 32 << 20  # bytes
_WHAT = "list of tokens"
_FIELDS = {"id", "name", "roles", "images", "createdAt", "createdBy", "expiresAt", "revokedAt"}


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token; its secret is not."""

    id: str
    name: str
    roles: tuple[str, ...]
    images: tuple[str, ...]
    created_at: dt.datetime
    created_by: str
    expires_at: dt.datetime
    revoked_at: dt.datetime | None = None
    salt: bytes = field(default=b"", repr=False)
    hash: bytes = field(default=b"", repr=False)

    def state(self, now: dt.datetime) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if now < self.expires_at else "expired"

    def identity(self, roles: Roles) -> Identity:
        """Who shows it, by today's roles."""
        return Identity(f"token:{self.name}", grants_of(roles, self.roles, self.images))

    def as_dict(self) -> dict[str, Any]:
        """All but salt and hash."""
        return {
            "id": self.id,
            "name": self.name,
            "roles": list(self.roles),
            "images": list(self.images),
            "createdAt": _stamp(self.created_at),
            "createdBy": self.created_by,
            "expiresAt": _stamp(self.expires_at),
            "revokedAt": _stamp(self.revoked_at) if self.revoked_at else "",
        }

    @property
    def digest(self) -> Digest:
        """What the ledger knows a token by: of what it was made with."""
        made = {k: v for k, v in self.as_dict().items() if k != "revokedAt"}
        return Digest.of_json(made)


_NOBODY = Token("", "", (), (), dt.datetime.min, "", dt.datetime.min, None, b"\0" * _SALT_BYTES, b"\0" * 32)


@dataclass(frozen=True, slots=True)
class TokenBook:
    """All tokens at one moment, by id."""

    tokens: Mapping[str, Token] = field(default_factory=dict)

    def check(self, shown: str, now: dt.datetime) -> Token:
        """The valid token that `shown` is; raises NotAuthenticated.

        Takes the same time whether the id is known or not. Only who knows the secret learns more
        than that it is wrong.
        """
        match = _SHAPE.fullmatch(shown)
        if match is None:
            raise NotAuthenticated("this is not a token: one has the form gs_ID_SECRET")
        token = self.tokens.get(match[1], _NOBODY)
        if not hmac.compare_digest(_hash(token.salt, match[2]), token.hash):
            raise NotAuthenticated("the token is unknown, or its secret is wrong")
        state = token.state(now)
        if state != "valid":
            since = token.revoked_at or token.expires_at
            raise NotAuthenticated(
                f"the token {token.name} is {state} since {_stamp(since)}: ask for a new one"
            )
        return token


class TokenStore:
    """The tokens in a folder that only its owner may look into. Writing waits for another writer."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "tokens.json"
        self._folder = folder

    def read(self) -> TokenBook:
        """All tokens; raises ToolError when the file is not what was written."""
        try:
            data = read_file(self.path, _SIZE_MAX)
        except FileNotFoundError:
            return TokenBook()
        except OSError as error:
            raise _unreadable(self.path, str(error)) from None
        value = parse_object(data, size_max=_SIZE_MAX, what=_WHAT)
        try:
            if set(value) != {"schema", "tokens"} or value["schema"] != 1:
                raise ValueError("another schema")
            found = [_parse(item) for item in value["tokens"]]
            if len({t.id for t in found}) != len(found):
                raise ValueError("an id is there twice")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unreadable(self.path, str(error)[:200]) from None
        return TokenBook({t.id: t for t in found})

    def draft(
        self,
        name: str,
        roles: tuple[str, ...],
        images: tuple[str, ...],
        *,
        days: int,
        by: str,
        now: dt.datetime,
    ) -> tuple[Token, str]:
        """A new token, not yet kept, and the text that is shown once; raises UsageError."""
        if not _NAME.fullmatch(name) or len(name) > _NAME_MAX:
            raise UsageError(
                f"no name for a token: {name[:80]!r}", hint="small letters, digits and dashes: ci-python"
            )
        if not 1 <= days <= DAYS_MAX:
            raise UsageError(f"a token is valid for 1 to {DAYS_MAX} days, not {days}")
        number = base64.b32encode(secrets.token_bytes(_ID_BYTES)).decode().rstrip("=").lower()
        secret = base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=")
        salt = secrets.token_bytes(_SALT_BYTES)
        ends = now + dt.timedelta(days=days)
        token = Token(number, name, roles, images, now, by, ends, None, salt, _hash(salt, secret))
        return token, f"{PREFIX}{number}_{secret}"

    def add(self, token: Token) -> None:
        """Keep a token: it is valid from now on."""
        with self._exclusive():
            known = self.read().tokens
            if len(known) >= TOKENS_MAX:
                raise UsageError(f"there are {TOKENS_MAX} tokens", hint="revoke some: `goldsmith token list`")
            self._write({**known, token.id: token})

    def revoke(self, number: str, now: dt.datetime) -> tuple[Token, bool]:
        """End a token, and whether that is news; raises UsageError when there is none of that id."""
        with self._exclusive():
            known = self.read().tokens
            if number not in known:
                raise UsageError(f"there is no token {number[:40]!r}", hint="goldsmith token list")
            token = known[number]
            if token.revoked_at is not None:
                return token, False
            ended = replace(token, revoked_at=now)
            self._write({**known, number: ended})
            return ended, True

    def _write(self, tokens: Mapping[str, Token]) -> None:
        value = {
            "schema": 1,
            "tokens": [{**t.as_dict(), "salt": t.salt.hex(), "hash": t.hash.hex()} for t in tokens.values()],
        }
        write_atomically(self.path, canonical_json(value) + b"\n", mode=0o600)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ToolError(f"cannot write {self._folder}", context=str(error)) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def _hash(salt: bytes, secret: str) -> bytes:
    return hashlib.sha256(b"goldsmith token v1\0" + salt + secret.encode()).digest()


def _parse(item: Any) -> Token:
    if set(item) != _FIELDS | {"salt", "hash"}:
        raise ValueError("other fields than a token's")
    token = Token(
        str(item["id"]),
        str(item["name"]),
        tuple(map(str, item["roles"])),
        tuple(map(str, item["images"])),
        _time(item["createdAt"]),
        str(item["createdBy"]),
        _time(item["expiresAt"]),
        _time(item["revokedAt"]) if item["revokedAt"] else None,
        bytes.fromhex(item["salt"]),
        bytes.fromhex(item["hash"]),
    )
    if len(token.hash) != 32 or len(token.salt) != _SALT_BYTES or not _NAME.fullmatch(token.name):
        raise ValueError("a malformed token")
    return token


def _stamp(when: dt.datetime) -> str:
    return when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)


def _unreadable(path: Path, context: str) -> ToolError:
    return ToolError(
        f"the {_WHAT} cannot be read",
        context=f"{path}: {context}",
        hint="put it back from a backup; removing it makes every token invalid",
        reference="tokens-unreadable",
    )
