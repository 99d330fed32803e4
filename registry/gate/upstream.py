"""The gate's door to the storage for blobs: HTTP, or the storage's own folder on this machine.

No redirect is followed and nothing is decompressed. Source: OCI distribution specification 1.1,
"Pulling blobs"; the folder's shape is that of CNCF Distribution's file system driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO, Protocol

import aiohttp

from builder.oci.auth import Login, host_name, is_loopback

_CHUNK = 1 << 20  # bytes
_CONNECT_SECONDS, _READ_SECONDS = 3, 20
_CONNECTIONS_MAX = 128
_FILE_CHUNK = 2 << 20  # bytes


class StorageAway(Exception):
    """The storage cannot be reached, is too slow, refuses, or has not what was asked for."""


class Source(Protocol):
    """Where blobs come from."""

    def read(self, repository: str, digest: str, start: int, end: int, size: int) -> AsyncIterator[bytes]:
        """The bytes from `start` to `end` (inclusive) of a blob of `size`; raises StorageAway."""

    async def close(self) -> None:
        """Let go of all connections."""


class Storage:
    """The storage registry at `host`: http on loopback, https elsewhere."""

    def __init__(self, host: str, credentials: Login | None = None) -> None:
        self._credentials = credentials
        scheme = "http" if is_loopback(host_name(host)) else "https"
        self._root = f"{scheme}://{host}/v2/"
        self._made: aiohttp.ClientSession | None = None

    def _session(self) -> aiohttp.ClientSession:
        if self._made is None:
            self._made = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=_CONNECT_SECONDS, sock_read=_READ_SECONDS
                ),
                headers={"Accept-Encoding": "identity"},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_CHUNK,
                trust_env=False,
            )
        return self._made

    async def read(
        self, repository: str, digest: str, start: int, end: int, size: int
    ) -> AsyncIterator[bytes]:
        """The bytes from `start` to `end` (inclusive) of a blob of `size`; raises StorageAway."""
        whole = (start, end) == (0, size - 1)
        headers = self._login(repository) | ({} if whole else {"Range": f"bytes={start}-{end}"})
        left = end - start + 1
        try:
            async with self._session().get(
                f"{self._root}{repository}/blobs/{digest}", headers=headers, allow_redirects=False
            ) as reply:
                if reply.status != (200 if whole else 206):
                    raise StorageAway(f"the storage answered {reply.status}")
                async for chunk in reply.content.iter_any():
                    left -= len(chunk)
                    if left < 0:
                        raise StorageAway("the storage sends more than the blob's size")
                    yield chunk
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StorageAway(f"the storage did not answer: {type(error).__name__}") from None
        if left:
            raise StorageAway("the storage sent less than the blob's size")

    async def exists(self, repository: str, reference: str, accept: tuple[str, ...]) -> bool:
        """Whether there is such a manifest; raises StorageAway."""
        headers = self._login(repository) | {"Accept": ", ".join(accept)}
        url = f"{self._root}{repository}/manifests/{reference}"
        try:
            async with self._session().head(url, headers=headers, allow_redirects=False) as reply:
                if reply.status in (200, 404):
                    return reply.status == 200
                raise StorageAway(f"the storage answered {reply.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StorageAway(f"the storage did not answer: {type(error).__name__}") from None

    def _login(self, repository: str) -> dict[str, str]:
        if self._credentials is None:
            return {}
        return {"Authorization": self._credentials.header(f"pull {repository}")}

    async def close(self) -> None:
        """Let go of all connections."""
        if self._made is not None:
            await self._made.close()


class Folder:
    """The blobs of a storage whose data lies on this machine, at `root` (`…/v2/blobs`)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def read(
        self, repository: str, digest: str, start: int, end: int, size: int
    ) -> AsyncIterator[bytes]:
        """The bytes from `start` to `end` (inclusive) of a blob of `size`; raises StorageAway."""
        digits = digest[7:]
        path = self._root / "sha256" / digits[:2] / digits / "data"
        try:
            handle = await asyncio.to_thread(_open, path, size, start)
        except OSError as error:
            raise StorageAway(f"the storage's file cannot be read: {error.strerror}") from None
        left = end - start + 1
        try:
            while left:
                chunk = await asyncio.to_thread(handle.read, min(_FILE_CHUNK, left))
                if not chunk:
                    raise StorageAway("the storage's file is too short")
                left -= len(chunk)
                yield chunk
        except OSError as error:
            raise StorageAway(f"the storage's file cannot be read: {error.strerror}") from None
        finally:
            handle.close()

    async def close(self) -> None:
        """Nothing is kept open."""


def _open(path: Path, size: int, start: int) -> BinaryIO:
    handle = open(path, "rb", buffering=0)  # noqa: SIM115 - the caller closes it
    if handle.seek(0, 2) != size:
        handle.close()
        raise OSError(5, "another size than the manifest says")
    handle.seek(start)
    return handle
