"""The ledger: who decided what, when and why. Append-only, hash-chained, each head signed.

One entry is one line of canonical JSON, `{"entry", "hash", "signature"}`: `hash` is the SHA-256 of
the entry, which holds the hash of the one before; `signature` (DER, base64) is by a verdict key
over the DSSE encoding of the head `{"entries", "hash"}` under a type of its own, so that it can
stand for nothing else. That key held at the time of the entry; or else a later entry, by a key that
did, vouches for the chain before it (so a ledger outlives the revocation of a key). A line is
complete with its newline: entry and signed head are one write. `head.json` holds the newest head
once more; what is cut off at the end shows against it.

The order of writing: line, fsync, head. A kill leaves a torn last line, which was never
acknowledged (the next append takes it off), or a head that is one entry behind (which is good).
"""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from builder.errors import GoldsmithError, PolicyDenied, ToolError
from builder.model.digest import Digest, canonical_json
from builder.signing.keys import VERDICT, RoleSigner
from builder.signing.refusal import strict_json
from builder.signing.statements import decode_base64, pae
from builder.signing.trust import Trust
from builder.store import write_atomically
from registry.audit.facts import Action, Fact, clean, state_of_entry

__all__ = ["Action", "Entry", "Fact", "Head", "Ledger", "LedgerBroken", "Proof", "parse_head"]

HEAD_TYPE = "application/vnd.goldsmith.ledger.head.v1+json"
START = Digest.of(b"goldsmith ledger v1")
_LINE_MAX = 16 << 10  # bytes
_SIGNATURE_MAX = 128  # bytes
_FIELDS = {"sequence", "previous", "at", "who", "what", "ref", "digest", "before", "after", "why"}


class LedgerBroken(PolicyDenied):
    """The ledger is not what was written; the message names the first entry that is wrong."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A recorded fact with its number (from 1), its time (UTC, to the second) and its hash."""

    sequence: int
    at: dt.datetime
    fact: Fact
    previous: Digest
    hash: Digest

    def as_dict(self) -> dict[str, Any]:
        """The entry as plain data for `--json`."""
        return {**_entry(self.sequence, self.previous, self.at, self.fact), "hash": str(self.hash)}


@dataclass(frozen=True, slots=True)
class Proof:
    """A ledger that is whole; `doubtful` entries stand only because a later one vouches for them.

    They are by a key that did not hold at their time: somebody should look at what they say.
    """

    head: Head
    doubtful: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Head:
    """How many entries there are, and the newest one's hash."""

    entries: int = 0
    hash: Digest = START

    @property
    def signed_bytes(self) -> bytes:
        """The bytes that a head's signature covers."""
        return pae(HEAD_TYPE, canonical_json({"entries": self.entries, "hash": str(self.hash)}))


class Ledger:
    """The ledger in a folder, as believed by the public keys of the verdict's role."""

    def __init__(self, folder: Path, trust: Trust) -> None:
        self.path = folder / "entries.jsonl"
        self.head_path = folder / "head.json"
        self._folder = folder
        self._trust = trust

    def append(self, fact: Fact, signer: RoleSigner, now: dt.datetime, *, vouch: bool = False) -> Entry:
        """Record a fact, and return its entry once it is on the disk.

        With `vouch`, also behind an entry whose key does not hold any more for it.
        Texts lose what looks like a secret. Waits for another writer. Raises LedgerBroken when what
        is there cannot be continued, UsageError when the signer's key does not hold now, ToolError
        when it cannot be written; then nothing was.
        """
        with self._exclusive():
            head = self._last(vouch)
            cleaned = clean(fact)
            entry = _entry(head.entries + 1, head.hash, now, cleaned)
            self._trust.require(signer.public, _time(entry["at"]))
            after = Head(head.entries + 1, Digest.of_json(entry))
            signature = base64.b64encode(signer.sign(after.signed_bytes)).decode()
            if not head.entries and not self.head_path.exists():
                # From the first entry on there is a head, so its absence says something.
                self._write_head(head, base64.b64encode(signer.sign(head.signed_bytes)).decode())
            line = canonical_json({"entry": entry, "hash": str(after.hash), "signature": signature})
            if len(line) >= _LINE_MAX:
                raise ToolError("a ledger entry is too large", context=f"{len(line)} bytes")
            self._write_line(line + b"\n")
            self._write_head(after, signature)
        return Entry(after.entries, _time(entry["at"]), cleaned, head.hash, after.hash)

    def entries(self, *, vouched: bool = True) -> tuple[Entry, ...]:
        """All entries, the chain and the newest signature checked; raises LedgerBroken.

        Without `vouched`, the newest entry's key need not hold for it any more.
        A torn last line is no entry. Of the signatures, the newest covers all entries before it;
        `verify` checks each of them.
        """
        return tuple(self._read(every_signature=False, vouched=vouched))

    def verify(self, known: Head | None = None) -> Head:
        """Prove the whole ledger with nothing but public keys; returns its head. See `prove`."""
        return self.prove(known).head

    def prove(self, known: Head | None = None) -> Proof:
        """Prove the whole ledger, each signature of it.

        `known` is a head that was seen before and kept elsewhere: the ledger has to contain it.
        Raises LedgerBroken, which names the first broken entry.
        """
        head, contained = Head(), known is None or known == Head()
        doubtful: list[int] = []
        for entry in self._read(every_signature=True, doubtful=doubtful):
            head = Head(entry.sequence, entry.hash)
            contained = contained or head == known
        if not contained and known is not None:
            if known.entries > head.entries:
                _truncated(head.entries, known.entries, "the head that was kept")
            _broken("ledger-replaced", f"entry {known.entries} is not the one that was seen before")
        return Proof(head, tuple(doubtful))

    def torn(self) -> bool:
        """Whether the last line was cut off while it was written."""
        data = self._data()
        return bool(data) and not data.endswith(b"\n")

    def _read(
        self, every_signature: bool, doubtful: list[int] | None = None, vouched: bool = True
    ) -> Iterator[Entry]:
        lines = self._data().split(b"\n")[:-1]  # what follows the last newline was never completed
        stated = self._head()
        head = Head()
        for number, line in enumerate(lines, 1):
            entry, signature = _parse(line, number)
            if entry.sequence != number or entry.previous != head.hash:
                _broken(
                    "ledger-out-of-order",
                    f"entry {number} is missing, or something stands in its place",
                    context=f"found: {entry.sequence}, after {entry.previous}\nexpected: after {head.hash}",
                )
            head = Head(number, entry.hash)
            newest = number == len(lines)
            if every_signature or newest:
                key = self._trust.find(VERDICT, signature, head.signed_bytes)
                if key is None:
                    _broken("ledger-forged", f"entry {number} is not signed by a trusted verdict key")
                flaw = key.flaw(entry.at)
                if flaw and newest and vouched:
                    _broken(
                        "ledger-forged",
                        f"entry {number} is signed by a key that did not hold then",
                        context=flaw,
                    )
                if flaw and doubtful is not None:
                    doubtful.append(number)
            if stated and stated.entries == number and stated != head:
                _broken("ledger-replaced", f"entry {number} is not the one that the signed head names")
            yield entry
        if stated is None and lines:
            _broken("ledger-head-missing", f"the signed head is missing: {self.head_path}")
        if stated and stated.entries > len(lines):
            _truncated(len(lines), stated.entries, "the signed head")

    def _last(self, vouch: bool) -> Head:
        """The head to continue from; takes a torn line off, if that was never acknowledged."""
        data = self._data()
        whole = data[: data.rfind(b"\n") + 1]
        head = Head()
        for entry in self._read(every_signature=False, vouched=not vouch):
            head = Head(entry.sequence, entry.hash)
        if len(whole) != len(data):
            try:
                os.truncate(self.path, len(whole))
            except OSError as error:
                raise ToolError("the torn last line cannot be taken off", context=str(error)) from None
        return head

    def _head(self) -> Head | None:
        try:
            data = self.head_path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ToolError(f"cannot read {self.head_path}", context=str(error)) from None
        head, signature = parse_head(data)
        if self._trust.find(VERDICT, signature, head.signed_bytes) is None:
            _broken("ledger-forged", "the head is not signed by a trusted verdict key", context=str(head))
        return head

    def _data(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise ToolError(f"cannot read {self.path}", context=str(error)) from None

    def _write_head(self, head: Head, signature: str) -> None:
        value = {"entries": head.entries, "hash": str(head.hash), "signature": signature}
        write_atomically(self.head_path, canonical_json(value) + b"\n")

    def _write_line(self, line: bytes) -> None:
        before = self.path.stat().st_size if self.path.exists() else 0
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                if os.write(handle, line) != len(line):
                    raise OSError("the disk took only a part of the line")
                os.fsync(handle)
            finally:
                os.close(handle)
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self.path, before)
            raise ToolError(
                f"cannot write {self.path}",
                context=str(error),
                hint="make room on the disk, then run the command again: nothing was decided",
            ) from None

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ToolError(f"cannot write {self._folder}", context=str(error)) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def parse_head(data: bytes) -> tuple[Head, bytes]:
    """A head and its signature (DER) from `head.json`; raises LedgerBroken when malformed."""
    try:
        value = strict_json(data, "ledger's head", _LINE_MAX)
        entries = value["entries"]
        if set(value) != {"entries", "hash", "signature"} or type(entries) is not int or entries < 0:
            raise ValueError("other fields than a head's")
        return Head(entries, Digest(value["hash"])), decode_base64(
            value["signature"], "signature", _SIGNATURE_MAX
        )
    except (GoldsmithError, ValueError, KeyError, TypeError) as error:
        _broken("ledger-malformed", "the head cannot be read", context=str(error)[:200])


def _parse(line: bytes, number: int) -> tuple[Entry, bytes]:
    try:
        value = strict_json(line, "ledger's entry", _LINE_MAX)
        raw = value["entry"]
        if set(value) != {"entry", "hash", "signature"} or set(raw) != _FIELDS:
            raise ValueError("other fields than an entry's")
        if canonical_json(value) != line:
            raise ValueError("not canonical JSON")
        signature = decode_base64(value["signature"], "signature", _SIGNATURE_MAX)
        hashed = Digest(value["hash"])
        fact = Fact(
            str(raw["who"]),
            Action(raw["what"]),
            str(raw["ref"]),
            Digest(raw["digest"]),
            state_of_entry(raw["before"]),
            state_of_entry(raw["after"]),
            str(raw["why"]),
        )
        entry = Entry(int(raw["sequence"]), _time(raw["at"]), fact, Digest(raw["previous"]), hashed)
    except (GoldsmithError, ValueError, KeyError, TypeError, AttributeError) as error:
        _broken("ledger-malformed", f"entry {number} cannot be read", context=str(error)[:200])
    if Digest.of_json(raw) != hashed:
        _broken("ledger-changed", f"entry {number} was changed: it no longer has the hash that was signed")
    return entry, signature


def _entry(sequence: int, previous: Digest, at: dt.datetime, fact: Fact) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "previous": str(previous),
        "at": at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "who": fact.who,
        "what": fact.what.value,
        "ref": fact.ref,
        "digest": str(fact.digest),
        "before": dict(fact.before),
        "after": dict(fact.after),
        "why": fact.why,
    }


def _time(text: Any) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)


def _truncated(there: int, stated: int, by: str) -> NoReturn:
    _broken(
        "ledger-truncated",
        f"entry {there + 1} is missing: the ledger was cut off",
        context=f"{there} entries are there, {by} names {stated}",
    )


def _broken(reference: str, message: str, context: str = "") -> NoReturn:
    raise LedgerBroken(
        message,
        context=context,
        hint="put the ledger back from a backup; nothing is decided on a ledger that is not whole",
        reference=reference,
    )
