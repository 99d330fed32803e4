"""Rotation and revocation of keys: a new trust file, the key files, and the ledger's entry.

The order; the numbers stand in the code:

 1. What is needed is opened before anything changes: root's key, the ledger, the verdict's key.
 2. A new key is made (or its public key given, where a KMS or HSM keeps it): `ROLE.key.next` and
    `ROLE.pub.next`. Nobody reads these yet; what a cut run left of them is made anew.
 3. The plan is written, `change.json`. From here on the next run completes it.
 4. The trust file, with the next version, signed by root. From here on the new key is believed; the
    old one goes on being believed for what it signed, and until its period ends.
 5. The key files: the private key, then the public key. The old private key is gone with that:
    what is not there cannot be stolen, and nothing that it signed needs it.
 6. The ledger's entry, by the verdict key of now.
 7. The plan is removed.

Verification reads the trust file alone, which is replaced in one step: there is no moment at which
nothing verifies. Signing refuses between the two renames of 5, with the way out.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from builder.errors import ToolError, UsageError
from builder.model.digest import Digest, canonical_json
from builder.signing import keyfiles, trustfile
from builder.signing.keys import (
    APPROVER,
    BUILDER,
    ROOT,
    VERDICT,
    WITNESS,
    PublicKey,
    RoleSigner,
    load_public,
    open_signer,
)
from builder.signing.trust import FILE, Memory, Trust, load_content
from builder.signing.trustfile import TrustContent, TrustedKey
from builder.store import write_atomically
from registry.audit.facts import Action, Fact
from registry.audit.ledger import Entry, Ledger

PLAN = "change.json"
ROTATABLE = (BUILDER, VERDICT, APPROVER, WITNESS)
_ID_MIN = 8  # characters of an id that name a key
VALID_DAYS = 365  # of a trust file that nobody gave another end
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Plan:
    """One change of keys, of which (ids; empty where there is none), made at `at`.

    The old key holds until `ends`; with a revocation, no more from `ends` on. `elsewhere`: the new
    private key is not in the folder.
    """

    what: Action
    role: str
    old: str
    new: str
    elsewhere: bool
    at: dt.datetime
    ends: dt.datetime
    why: str
    who: str

    def encoded(self) -> bytes:
        """The plan as a file."""
        return canonical_json({**asdict(self), "at": f"{self.at:{_TIME}}", "ends": f"{self.ends:{_TIME}}"})

    @classmethod
    def decoded(cls, data: bytes) -> Plan:
        """The plan in a file; raises ValueError, KeyError or TypeError when it is none."""
        value = json.loads(data)
        at, ends = (dt.datetime.strptime(value[k], _TIME).replace(tzinfo=dt.UTC) for k in ("at", "ends"))
        texts = {k: str(value[k]) for k in ("role", "old", "new", "why", "who")}
        return cls(what=Action(value["what"]), elsewhere=bool(value["elsewhere"]), at=at, ends=ends, **texts)


@dataclass(frozen=True, slots=True)
class Changed:
    """A completed change: the plan, the trust file's version, and the ledger's entry."""

    plan: Plan
    version: int
    entry: Entry


@dataclass(frozen=True)
class Keeper:
    """Changes the keys of a folder; `now` gives the time, `who` changes them.

    The caller sees to it that nobody else works with the folder and the ledger meanwhile.
    """

    folder: Path
    ledger: Path
    key_uris: Mapping[str, str]
    passphrase: str | None
    who: str
    now: Callable[[], dt.datetime]
    memory: Memory | None = None

    def pending(self) -> Plan | None:
        """A change that was cut after its plan was written."""
        path = self.folder / PLAN
        if not path.exists():
            return None
        try:
            return Plan.decoded(keyfiles.read(path))
        except (ValueError, KeyError, TypeError) as error:
            raise ToolError(f"cannot read {path}", context=str(error)) from None

    def content(self) -> TrustContent:
        """The trust file's, or what stands for it where there is none yet (version 0)."""
        found = load_content(self.folder, self.memory)
        return found or TrustContent(0, Trust.load(self.folder).keys)

    def rotate(self, role: str, overlap: dt.timedelta, why: str, public: bytes | None = None) -> Changed:
        """Give a role a new key; the old one's period ends after `overlap`.

        There may be several witnesses: a new one ends the period of none. A rotation of that role
        that was cut is completed instead. `public` is the new public key
        where the private one is kept elsewhere. Raises UsageError, ToolError, TrustRefused, LedgerBroken.
        """
        _rotatable(role)
        done = self._completed()
        if done is not None and (done.plan.what, done.plan.role) == (Action.ROTATE_KEY, role):
            return done
        old = _newest(self.content(), role) if role != WITNESS else None
        at = self._time()
        self._ready(role, public)
        new = self._new_key(role, public)
        ids = (old.id if old else "", new.id)
        away = public is not None
        return self._begin(Plan(Action.ROTATE_KEY, role, *ids, away, at, at + overlap, why, self.who))

    def revoke(self, key: str, at: dt.datetime | None, why: str, public: bytes | None = None) -> Changed:
        """Deny what a key signed from `at` on (by default: from now on); `key` is its id or its beginning.

        The current key of a role gets a successor at once, but for a witness's. A revocation of that
        key that was cut is completed instead. Raises as `rotate` does.
        """
        if not why.strip():
            raise UsageError("a reason is missing", hint="--why tells those who are denied")
        done = self._completed()
        held = self.content()
        found = _by_id(held, key)
        if done is not None and (done.plan.what, done.plan.old) == (Action.REVOKE_KEY, found.id):
            return done
        now = self._time()
        since = at or now
        if since > now:
            raise UsageError("a key is revoked for what it signed, not for the future", hint="rotate it")
        if found.revoked_at is not None and since >= found.revoked_at:
            raise UsageError(
                f"the key is revoked already, from {found.revoked_at:{_TIME}} on",
                context=found.id,
                hint="only an earlier moment can be stated",
            )
        role = found.role
        self._ready(role, public)
        is_current = role != WITNESS and load_public(self.folder, role).id == found.id
        # Without its key no verdict, and no entry of the ledger; the others can wait for theirs.
        can_wait = role != VERDICT and public is None and self._is_elsewhere(role)
        new = self._new_key(role, public) if is_current and not can_wait else None
        ids = (found.id, new.id if new else "")
        away = public is not None
        return self._begin(Plan(Action.REVOKE_KEY, role, *ids, away, now, since, why, self.who))

    def sign(self) -> TrustContent:
        """The trust file as it is; signs the first one where there is none yet."""
        found = load_content(self.folder, self.memory)
        if found is not None:
            return found
        content = replace(self.content(), version=1, expires=self._end(None))
        write_atomically(self.folder / FILE, trustfile.encode(content, self._open(ROOT)))
        return content

    def renew(self, days: int, why: str) -> tuple[TrustContent, Entry]:
        """Let the trust file hold for so many days from now on; a next version, told in the ledger.

        What was cut before the file was written is done by the next run. Raises as `rotate` does.
        """
        self._completed()
        old, at = self.content(), self._time()
        new = replace(old, version=old.version + 1, expires=at + dt.timedelta(days=days))
        data = trustfile.encode(new, self._open(ROOT))
        root = Digest(f"sha256:{load_public(self.folder, ROOT).id}")
        before = {"expires": f"{old.expires:{_TIME}}"} if old.expires else {}
        after = {"trust": str(new.version), "expires": f"{new.expires:{_TIME}}"}
        fact = Fact(self.who, Action.RENEW_TRUST, f"keys/root:{root.hex[:12]}", root, before, after, why)
        book = Ledger(self.ledger, Trust.load(self.folder, self.memory))
        entry = book.append(fact, self._open(VERDICT), at)
        write_atomically(self.folder / FILE, data)
        return new, entry

    def _end(self, before: dt.datetime | None) -> dt.datetime:
        """The end of the next file: that of the one before while it lies ahead."""
        at = self._time()
        return before if before and before > at else at + dt.timedelta(days=VALID_DAYS)

    def _begin(self, plan: Plan) -> Changed:
        # 3. the plan
        plan = replace(plan, why=plan.why[: trustfile.WHY_MAX])
        write_atomically(self.folder / PLAN, plan.encoded(), mode=0o600)
        done = self._completed()
        if done is None:
            raise ToolError("the plan of a change of keys is gone", context=str(self.folder / PLAN))
        return done

    def _completed(self) -> Changed | None:
        """4. to 7. of a plan, where there is one."""
        plan = self.pending()
        if plan is None:
            return None
        # 4. the trust file
        content = self.content()
        if not _is_done(content, plan):
            new = self._public(plan) if plan.new else None
            keys, end = _changed(content.keys, plan, new), self._end(content.expires)
            content = TrustContent(content.version + 1, keys, end)
            write_atomically(self.folder / FILE, trustfile.encode(content, self._open(ROOT)))
        # 5. the key files
        for ending in (".key", ".pub"):
            following = self.folder / f"{plan.role}{ending}.next"
            if plan.new and following.exists() and not _is_anothers(plan):
                os.replace(following, self.folder / f"{plan.role}{ending}")
        if plan.new and plan.elsewhere and not _is_anothers(plan):
            (self.folder / f"{plan.role}.key").unlink(missing_ok=True)
        # 6. the ledger
        entry = self._told(plan, content.version)
        # 7. done
        if _is_anothers(plan):
            (self.folder / f"{plan.role}.pub.next").unlink(missing_ok=True)
        (self.folder / PLAN).unlink()
        return Changed(plan, content.version, entry)

    def _told(self, plan: Plan, version: int) -> Entry:
        book = Ledger(self.ledger, Trust.load(self.folder, self.memory))
        digest = Digest(f"sha256:{plan.new if plan.what is Action.ROTATE_KEY else plan.old}")
        after = {"trust": str(version)}
        if plan.new:
            after["key"] = f"sha256:{plan.new}"
        end = "notAfter" if plan.what is Action.ROTATE_KEY else "revokedAt"
        after[end] = f"{plan.ends:{_TIME}}"
        before = {"key": f"sha256:{plan.old}"} if plan.old else {}
        fact = Fact(
            plan.who, plan.what, f"keys/{plan.role}:{digest.hex[:12]}", digest, before, after, plan.why
        )
        for entry in reversed(book.entries(vouched=False)):
            if (entry.fact.what, entry.fact.digest, entry.fact.after) == (fact.what, digest, after):
                return entry
        # The verdict's key may be the one that was revoked: then this entry stands for those before it.
        return book.append(fact, self._open(VERDICT), self._time(), vouch=True)

    def _ready(self, role: str, public: bytes | None) -> None:
        """1. everything that is needed can be opened."""
        if role == VERDICT and public is not None and VERDICT not in self.key_uris:
            raise UsageError(
                "the ledger's entry is signed by the new verdict key",
                hint="set GOLDSMITH_VERDICT_KEY to its URI",
            )
        self._open(ROOT)
        Ledger(self.ledger, Trust.load(self.folder, self.memory)).entries()
        if role != VERDICT:
            self._open(VERDICT)

    def _new_key(self, role: str, public: bytes | None) -> PublicKey:
        """2. the files of the next key."""
        private, shown = (self.folder / f"{role}{ending}.next" for ending in (".key", ".pub"))
        for leftover in (private, shown):
            leftover.unlink(missing_ok=True)
        if public is None and self._is_elsewhere(role):
            raise UsageError(
                f"the private key of the role {role!r} is kept elsewhere",
                hint="make a new one there, then give its public key with --public FILE"
                + (f", and its URI in GOLDSMITH_{role.upper()}_KEY" if role in self.key_uris else ""),
            )
        if public is None:
            pem = keyfiles.new_private(self.folder, self.passphrase)
            keyfiles.create(private, pem)
            public = keyfiles.public_of(pem, self.folder, self.passphrase)
        new = PublicKey.parse(role, public, "the new public key")
        if new.id in {k.id for k in self.content().keys} | {load_public(self.folder, ROOT).id}:
            raise UsageError("that key is in use, or was", context=new.id, hint="a rotation needs a new key")
        write_atomically(shown, new.pem)
        return new

    def _is_elsewhere(self, role: str) -> bool:
        shown, private = self.folder / f"{role}.pub", self.folder / f"{role}.key"
        return role in self.key_uris or (shown.exists() and not private.exists())

    def _public(self, plan: Plan) -> PublicKey:
        following = self.folder / f"{plan.role}.pub.next"
        path = following if following.exists() else self.folder / f"{plan.role}.pub"
        found = PublicKey.parse(plan.role, keyfiles.read(path), str(path))
        if found.id != plan.new:
            raise ToolError(
                "the new key of a change that was cut is gone",
                context=f"{path} is {found.id}, looked for {plan.new}",
                hint=f"remove {self.folder / PLAN}, then begin again",
            )
        return found

    def _open(self, role: str) -> RoleSigner:
        return open_signer(self.folder, role, self.key_uris, self.passphrase)

    def _time(self) -> dt.datetime:
        return self.now().replace(microsecond=0)


def _is_anothers(plan: Plan) -> bool:
    """Whether the new key is a witness's on another machine: the trust file names it, no file here is its."""
    return plan.role == WITNESS and plan.elsewhere


def _rotatable(role: str) -> None:
    if role == ROOT:
        raise UsageError(
            "root is what verifiers trust to begin with: no file can name its successor",
            hint="make another key folder, and give its root.pub to all who verify",
        )
    if role not in ROTATABLE:
        raise UsageError(f"there is no role {role[:50]!r}", hint=", ".join(ROTATABLE))


def _newest(content: TrustContent, role: str) -> TrustedKey | None:
    return next((k for k in reversed(content.keys) if k.role == role and k.revoked_at is None), None)


def _by_id(content: TrustContent, text: str) -> TrustedKey:
    found = [k for k in content.keys if k.id.startswith(text.lower())]
    if len(text) < _ID_MIN or not re.fullmatch(r"[0-9a-fA-F]{8,64}", text) or len(found) != 1:
        raise UsageError(
            f"that names {len(found) or 'no'} keys: {text[:70]!r}" if len(found) != 1 else "too short an id",
            hint=f"give an id of `goldsmith keys list`, or at least {_ID_MIN} characters of it",
        )
    return found[0]


def _is_done(content: TrustContent, plan: Plan) -> bool:
    ids = {k.id: k for k in content.keys}
    if plan.what is Action.ROTATE_KEY:
        return plan.new in ids
    return plan.old in ids and ids[plan.old].revoked_at == plan.ends


def _changed(keys: tuple[TrustedKey, ...], plan: Plan, new: PublicKey | None) -> tuple[TrustedKey, ...]:
    out = [_after(one, plan) for one in keys]
    if new is not None:
        out.append(TrustedKey(new, not_before=plan.at))
    return tuple(out)


def _after(one: TrustedKey, plan: Plan) -> TrustedKey:
    if one.id == plan.old and plan.what is Action.REVOKE_KEY:
        return replace(one, revoked_at=plan.ends, why=plan.why)
    if one.role == plan.role and plan.role != WITNESS and plan.what is Action.ROTATE_KEY:
        ends = min(one.not_after or plan.ends, plan.ends)
        return replace(one, not_after=max(ends, one.not_before or ends))
    return one
