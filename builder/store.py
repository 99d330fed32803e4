"""The state directory: where things are kept between runs, and who may write them.

pool/            packages by SHA-256        images/   finished OCI layouts by index digest
apt/             apt's private state        db/       vulnerability databases by digest
keys/            signing keys               records/  what each content key led to
run/             pids, logs, sockets        tmp/      unfinished work, emptied under the lock
credentials/     users of registries, a file for each host
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from builder.errors import GoldsmithError, ToolError
from builder.model.digest import Digest

_CHUNK = 1 << 20  # bytes
_RECORD_MAX = 16 << 20  # bytes
_MAKE_ROOM = "make room in the state directory, or set GOLDSMITH_STATE to another place; then run again"
# What a disk says that is full, over quota or a size limit, read-only, or broken.
_DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO))


class StateBusy(GoldsmithError):
    """Another run works on this state directory."""


class Store:
    """The folders of one state directory. Every write is to a temporary file, then renamed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pool = root / "pool"
        self.apt = root / "apt"
        self.images = root / "images"
        self.db = root / "db"
        self.keys = root / "keys"
        self.records = root / "records"
        self.run = root / "run"
        self.credentials = root / "credentials"
        self.tmp = root / "tmp"

    def create(self) -> Store:
        """Make the folders; raises ToolError when that is not possible."""
        try:
            for folder in (self.pool, self.apt, self.images, self.db, self.records, self.run, self.tmp):
                folder.mkdir(parents=True, exist_ok=True)
            self.keys.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._not_writable(error) from None
        return self

    @contextlib.contextmanager
    def exclusive(self, purpose: str) -> Iterator[None]:
        """Hold the state directory for this process; raises StateBusy when another run has it.

        The lock is the kernel's (flock), so a killed run leaves none behind. What a killed run
        left in `tmp/` is removed.
        """
        self.create()
        with self._lock_file() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                holder = handle.read(200).strip() or "another run"
                raise StateBusy(
                    "this state directory is in use",
                    context=f"{holder} holds {self.root}",
                    hint="wait for it to end, or give this run its own GOLDSMITH_STATE",
                ) from None
            handle.truncate(0)
            handle.write(f"{purpose} (pid {os.getpid()})")
            handle.flush()
            for leftover in self.tmp.iterdir():
                _remove(leftover)
            try:
                yield
            finally:
                handle.truncate(0)

    def _lock_file(self) -> TextIO:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            return os.fdopen(os.open(self.root / "lock", flags, 0o644), "a+")
        except OSError as error:
            raise self._not_writable(error) from None

    def _not_writable(self, error: OSError) -> ToolError:
        return ToolError(
            f"the state directory cannot be written: {self.root}",
            context=str(error),
            hint="set GOLDSMITH_STATE to a folder that you may write",
        )

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A temporary folder inside the state directory, removed at the end whatever happens."""
        self.tmp.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=name + "-", dir=self.tmp))
        try:
            yield path
        finally:
            _remove(path)

    def record(self, kind: str, key: Digest) -> dict[str, Any] | None:
        """What was recorded under a content key; None when nothing (readable) is there."""
        try:
            found = json.loads(read_file(self.records / kind / key.hex, _RECORD_MAX))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def remember(self, kind: str, key: Digest, value: dict[str, Any]) -> None:
        """Record a value under a content key."""
        write_atomically(self.records / kind / key.hex, json.dumps(value, sort_keys=True, indent=1).encode())

    def forget(self, kind: str, key: Digest) -> None:
        """Drop what was recorded under a content key, if anything was."""
        (self.records / kind / key.hex).unlink(missing_ok=True)

    def keep_newest(self, kind: str, count_max: int) -> None:
        """Remove the oldest records of a kind, so that at most so many are left."""
        written = []
        for path in (self.records / kind).glob("[!.]*"):
            with contextlib.suppress(FileNotFoundError):  # another thread may tidy up, too
                written.append((path.stat().st_mtime_ns, path))
        for _, path in sorted(written)[: max(0, len(written) - count_max)]:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def disk_faults() -> Iterator[None]:
    """Turn what a full or broken disk says into a ToolError; other errors pass as they are."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise ToolError(
            "the disk takes no more",
            context=str(error),
            hint=_MAKE_ROOM,
            reference="disk-full",
        ) from None


def own_mark() -> str:
    """What no other thread of no other process has at this time: for names of temporary files."""
    return f"{os.getpid()}-{threading.get_native_id()}"


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old bytes or the new ones; raises ToolError."""
    temporary = path.with_name(f".{path.name}.{own_mark()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as handle:
            os.fchmod(handle.fileno(), mode)
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ToolError(f"cannot write {path}", context=str(error), hint=_MAKE_ROOM) from None


def read_file(path: Path | str, bytes_max: int) -> bytes:
    """All bytes of a regular file that has at most `bytes_max`; raises OSError.

    A pipe, which could keep us waiting for ever, and a device are refused.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as handle:
        found = os.fstat(handle.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        # Room for as much as is there: for the limit, it would be megabytes for each small file.
        data = handle.read(min(found.st_size, bytes_max) + 1)
        if len(data) > found.st_size:  # it grows, or does not say its size
            data += handle.read(bytes_max + 1 - len(data))
    if len(data) > bytes_max:
        raise OSError(errno.EFBIG, f"larger than {bytes_max >> 10} KiB", str(path))
    return data


def file_tail(path: Path, bytes_max: int) -> str:
    """The end of a log, as text without bad bytes; empty when it cannot be read."""
    try:
        with open(path, "rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - bytes_max))
            return handle.read(bytes_max).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def file_digest(path: Path) -> Digest:
    """The digest of a file's bytes, read in pieces."""
    with open(path, "rb") as handle:
        return stream_digest(handle)


def stream_digest(handle: BinaryIO) -> Digest:
    """The digest of what is left in a binary stream, read in pieces."""
    sha = hashlib.sha256()
    while chunk := handle.read(_CHUNK):
        sha.update(chunk)
    return Digest("sha256:" + sha.hexdigest())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
