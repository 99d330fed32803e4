"""Writes a bbolt database from nested dictionaries, without Go.

Source: etcd-io/bbolt, file format version 2 (`internal/common/page.go`, `meta.go`,
`bucket.go`). The file is written once, front to back: pages 0 and 1 are the meta pages,
page 2 an empty freelist, then leaves and branches, children before parents.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, TypeVar, Union

Bucket = Mapping[str, Union[bytes, "Bucket"]]

_PAGE = 4096  # bytes
_BRANCH, _LEAF, _META, _FREELIST = 1, 2, 4, 16
_MAGIC, _VERSION = 0xED0CDAED, 2
_HEADER = struct.Struct("<QHHI")  # page id, flags, count, overflow pages
_LEAF_ELEMENT = struct.Struct("<IIII")  # flags (1: bucket), position, key size, value size
_BRANCH_ELEMENT = struct.Struct("<IIQ")  # position, key size, page id
_BUCKET = struct.Struct("<QQ")  # root page (0: inline), sequence
_INLINE_MAX = _PAGE // 4  # bytes; bbolt's own limit for a bucket inside its parent's page
_FILL = int(_PAGE * 0.95)  # bytes of a page that are filled

_Item = tuple[bytes, bytes, int]
_T = TypeVar("_T")


def write_bolt(path: Path, root: Bucket) -> None:
    """Write `root` (a dictionary of buckets) to `path`; the same input gives the same bytes."""
    with open(path, "wb") as handle:
        _Writer(handle).finish(root)


class _Writer:
    def __init__(self, handle: BinaryIO) -> None:
        self._handle = handle
        self._next = 3
        handle.write(bytes(3 * _PAGE))

    def finish(self, root: Bucket) -> None:
        root_page = self._tree(self._items(root))
        for transaction in (0, 1):
            meta = struct.pack("<IIII", _MAGIC, _VERSION, _PAGE, 0)
            meta += _BUCKET.pack(root_page, 0) + struct.pack("<QQQ", 2, self._next, transaction)
            meta += struct.pack("<Q", fnv64a(meta))
            self._handle.seek(transaction * _PAGE)
            self._handle.write(_HEADER.pack(transaction, _META, 0, 0) + meta)
        self._handle.seek(2 * _PAGE)
        self._handle.write(_HEADER.pack(2, _FREELIST, 0, 0))

    def _items(self, bucket: Bucket) -> list[_Item]:
        items: list[_Item] = []
        for name, value in bucket.items():
            if isinstance(value, bytes):
                items.append((name.encode(), value, 0))
            else:
                items.append((name.encode(), self._bucket(value), 1))
        return sorted(items, key=lambda item: item[0])

    def _bucket(self, bucket: Bucket) -> bytes:
        items = self._items(bucket)
        size = _HEADER.size + sum(_LEAF_ELEMENT.size + len(k) + len(v) for k, v, _ in items)
        if size + _BUCKET.size <= _INLINE_MAX and not any(flag for _, _, flag in items):
            return _BUCKET.pack(0, 0) + _leaf(items, 0, 0)
        return _BUCKET.pack(self._tree(items), 0)

    def _tree(self, items: list[_Item]) -> int:
        """Write the leaves and branches of `items`; returns the root page's id."""
        level = [self._leaf_page(chunk) for chunk in _chunks(items, _leaf_size, least=1)]
        while len(level) > 1:
            level = [self._branch_page(chunk) for chunk in _chunks(level, _branch_size, least=2)]
        return level[0][1]

    def _leaf_page(self, items: list[_Item]) -> tuple[bytes, int]:
        size = _HEADER.size + sum(map(_leaf_size, items))
        page = self._put(lambda number, overflow: _leaf(items, number, overflow), size)
        return (items[0][0] if items else b""), page

    def _branch_page(self, children: list[tuple[bytes, int]]) -> tuple[bytes, int]:
        size = _HEADER.size + sum(map(_branch_size, children))
        page = self._put(lambda number, overflow: _branch(children, number, overflow), size)
        return children[0][0], page

    def _put(self, build: Callable[[int, int], bytes], size: int) -> int:
        """Append one page, with overflow pages when `size` exceeds one; returns its id."""
        number, pages = self._next, -(-size // _PAGE)
        self._handle.write(build(number, pages - 1).ljust(pages * _PAGE, b"\0"))
        self._next += pages
        return number


def fnv64a(data: bytes) -> int:
    """The 64-bit FNV-1a hash, bbolt's checksum of a meta page."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def _leaf_size(item: _Item) -> int:
    return _LEAF_ELEMENT.size + len(item[0]) + len(item[1])


def _branch_size(child: tuple[bytes, int]) -> int:
    return _BRANCH_ELEMENT.size + len(child[0])


def _chunks(items: list[_T], size_of: Callable[[_T], int], least: int) -> list[list[_T]]:
    """Split into runs that fill a page; a run has at least `least` items."""
    chunks: list[list[_T]] = [[]]
    filled = _HEADER.size
    for item in items:
        if len(chunks[-1]) >= least and filled + size_of(item) > _FILL:
            chunks.append([])
            filled = _HEADER.size
        chunks[-1].append(item)
        filled += size_of(item)
    return chunks


def _leaf(items: list[_Item], number: int, overflow: int) -> bytes:
    elements, body = bytearray(_HEADER.pack(number, _LEAF, len(items), overflow)), bytearray()
    for index, (key, value, flag) in enumerate(items):
        position = _LEAF_ELEMENT.size * (len(items) - index) + len(body)
        elements += _LEAF_ELEMENT.pack(flag, position, len(key), len(value))
        body += key + value
    return bytes(elements + body)


def _branch(children: list[tuple[bytes, int]], number: int, overflow: int) -> bytes:
    elements, body = bytearray(_HEADER.pack(number, _BRANCH, len(children), overflow)), bytearray()
    for index, (key, page) in enumerate(children):
        position = _BRANCH_ELEMENT.size * (len(children) - index) + len(body)
        elements += _BRANCH_ELEMENT.pack(position, len(key), page)
        body += key
    return bytes(elements + body)
