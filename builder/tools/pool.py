"""The package pool: downloaded packages by SHA-256, verified when they come and at each use."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote, urlsplit

from builder.errors import LockError, ToolError
from builder.model.lock import LockedPackage
from builder.store import Store, file_digest, own_mark
from builder.tools.mirror import Mirror
from builder.tools.proxy import with_host_proxy
from builder.tools.unpacked import UnpackedPackages

if TYPE_CHECKING:
    import requests

_THREADS = 6
_ATTEMPTS = 3
_PAUSE_SECONDS = 0.5  # before the second attempt; twice that before the third
_PACKAGE_SECONDS = 900  # a mirror that only trickles is given up
_TIMEOUT_SECONDS = (10, 60)  # to connect, between two pieces
_CHUNK = 1 << 18  # bytes
_REDIRECTS_MAX = 5
_NOT_FOUND = (404, 410)
_LOCK_AGAIN = "the archive has moved on: run `goldsmith lock` and review the change"


class Pool:
    """Packages below `store.pool`; what is missing is fetched from `mirror` (asked for when needed)."""

    def __init__(
        self, store: Store, mirror: Callable[[], Mirror], environment: Mapping[str, str] | None = None
    ) -> None:
        self._store = store
        self._mirror = mirror
        self._environment = environment or {}
        self._unpacked = UnpackedPackages(store)

    def fetch(self, packages: Iterable[LockedPackage]) -> None:
        """Have every package in the pool; several are downloaded at a time.

        Raises LockError (gone from the archive, other bytes than locked) or ToolError (no mirror
        answers, disk full) that names the package. Only verified files enter the pool.
        """
        missing = [p for p in {p.sha256: p for p in packages}.values() if self._fault(p)]
        if not missing:
            return
        self._store.create()
        mirror, environment = self._mirror(), with_host_proxy(self._environment)
        stop = threading.Event()
        with ThreadPoolExecutor(min(_THREADS, len(missing)), "download") as threads:
            futures = [
                threads.submit(self._download, package, mirror, environment, stop) for package in missing
            ]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                stop.set()
                threads.shutdown(cancel_futures=True)
                raise

    def path(self, package: LockedPackage) -> Path:
        """The package's file, verified by size and SHA-256 now.

        Raises LockError that names the package when it is not in the pool or was altered.
        """
        fault = self._fault(package)
        if fault:
            raise LockError(
                f"package {package.name} {package.version} {fault}",
                context=str(self._file(package)),
                hint="run again with the mirror reachable: the package is then fetched anew",
            )
        return self._file(package)

    def plain(self, package: LockedPackage) -> Path:
        """The same package with its archives unpacked: a .deb that is read many times faster.

        It is made at its first use, from the verified file, and kept for the builds of this process
        as long as there is room. Raises LockError as `path` does, or when it is malformed.
        """
        return self._unpacked.get(package.sha256, lambda: self.path(package))

    def _file(self, package: LockedPackage) -> Path:
        return self._store.pool / f"{package.sha256}.deb"

    def _fault(self, package: LockedPackage) -> str:
        """What is wrong with the package's file; empty when nothing is."""
        file = self._file(package)
        try:
            if file.stat().st_size == package.size and file_digest(file).hex == package.sha256:
                return ""
        except OSError:
            return "is not in the pool"
        return "was altered in the pool"

    def _download(
        self, package: LockedPackage, mirror: Mirror, environment: Mapping[str, str], stop: threading.Event
    ) -> None:
        part = self._store.tmp / f"{package.sha256}.{own_mark()}.part"
        try:
            with open(part, "wb") as out:
                _from_mirror(package, mirror, environment, out, stop)
                out.flush()
                os.fsync(out.fileno())
            os.replace(part, self._file(package))
        except OSError as error:
            raise ToolError(
                f"package {package.name} {package.version} cannot be kept",
                context=str(error),
                hint="make room in the state directory, or set GOLDSMITH_STATE to another place",
            ) from None
        finally:
            with contextlib.suppress(OSError):
                part.unlink()


class _Gone(Exception):
    """The mirror does not have the file."""


class _Interrupted(Exception):
    """The mirror could not be reached, or broke off: worth another attempt."""


def _from_mirror(
    package: LockedPackage,
    mirror: Mirror,
    environment: Mapping[str, str],
    out: BinaryIO,
    stop: threading.Event,
) -> None:
    problem = ""
    for address in mirror.addresses(quote(package.path, safe="/~+")):
        for attempt in range(_ATTEMPTS):
            stop.wait(attempt * _PAUSE_SECONDS)
            out.seek(0)
            out.truncate()
            try:
                _copy(_pieces(address, environment), out, package, stop)
            except _Gone:
                problem = problem or "is gone from the archive"
                break
            except _Interrupted as error:
                problem = str(error)
            else:
                return
        else:
            raise ToolError(
                f"package {package.name} {package.version} cannot be downloaded",
                context=problem,
                hint="see whether the mirror is up and whether a proxy is needed, then run again",
                reference="mirror-unreachable",
            )
    raise LockError(
        f"package {package.name} {package.version} {problem}", context=package.path, hint=_LOCK_AGAIN
    )


def _copy(pieces: Iterator[bytes], out: BinaryIO, package: LockedPackage, stop: threading.Event) -> None:
    sha, size, began = hashlib.sha256(), 0, time.monotonic()
    for piece in pieces:
        if stop.is_set():
            raise _Interrupted("another package failed, or the run was interrupted")
        if time.monotonic() - began > _PACKAGE_SECONDS:
            raise _Interrupted(f"the mirror needed more than {_PACKAGE_SECONDS} s")
        size += len(piece)
        if size > package.size:
            break
        sha.update(piece)
        out.write(piece)
    if size < package.size:
        raise _Interrupted(f"only {size} of {package.size} bytes arrived")
    if size != package.size or sha.hexdigest() != package.sha256:
        raise LockError(
            f"package {package.name} {package.version} has other bytes in the archive than in the lock",
            context=f"{package.path}: expected sha256:{package.sha256}, {package.size} bytes",
            hint="do not use this mirror; if the change is known and right, run `goldsmith lock`",
        )


def _pieces(address: str, environment: Mapping[str, str]) -> Iterator[bytes]:
    parts = urlsplit(address)
    if parts.scheme in ("file", "copy"):
        try:
            with open(unquote(parts.path), "rb") as handle:
                while piece := handle.read(_CHUNK):
                    yield piece
        except FileNotFoundError:
            raise _Gone from None
        return
    import requests

    with _session(address, environment) as session:
        try:
            with session.get(address, stream=True, timeout=_TIMEOUT_SECONDS) as answer:
                if answer.status_code in _NOT_FOUND:
                    raise _Gone
                if answer.status_code != requests.codes.ok:
                    raise _Interrupted(f"the mirror answered {answer.status_code}")
                yield from answer.iter_content(_CHUNK)
        except requests.RequestException as error:
            raise _Interrupted(f"{type(error).__name__}: {str(error)[:300]}") from None


def _session(address: str, environment: Mapping[str, str]) -> requests.Session:
    """A client that takes its proxy and its certificates from `environment`, and nothing else."""
    import requests
    from requests.utils import should_bypass_proxies

    session = requests.Session()
    session.trust_env = False
    session.max_redirects = _REDIRECTS_MAX
    session.headers["Accept-Encoding"] = "identity"
    session.verify = environment.get("SSL_CERT_FILE") or True
    if not should_bypass_proxies(address, environment.get("no_proxy")):
        session.proxies = {
            scheme: environment[f"{scheme}_proxy"]
            for scheme in ("http", "https")
            if environment.get(f"{scheme}_proxy")
        }
    return session
