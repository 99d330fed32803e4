"""A tar as two readers could not understand it differently: header by header, in bounded memory.

The standard library's reader holds whole extended headers in memory, whatever they unpack to, and
guesses where headers contradict themselves. This one refuses: absolute names, `..`, sparse files,
overridden sizes, data behind the end. Sources: POSIX.1-2017 pax(1), "ustar Interchange Format" and
"pax Header Block"; GNU tar manual, "Basic Tar Format" (types L and K).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn, Protocol

from registry.upstream.refusal import quoted, refuse

BLOCK = 512  # bytes
NAME_MAX, COMPONENT_MAX, DEPTH_MAX = 4096, 255, 256  # bytes, bytes, components
_EXTENDED_MAX = 1 << 20  # bytes of one extended header
_OCTAL_SIZE_MAX = 8**11 - 1
_SKIP = 1 << 20  # bytes
_KINDS = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "link",
    b"3": "character device",
    b"4": "block device",
    b"5": "directory",
    b"6": "fifo",
}
_XATTRS = ("SCHILY.xattr.", "LIBARCHIVE.xattr.")


class Stream(Protocol):
    """What is read: bytes in order."""

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end only."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: `name` is relative and clean, `link` as it stands in the archive; sizes in bytes.

    `offset` is where its content starts in the tar.
    """

    name: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    link: str
    xattrs: tuple[str, ...]
    offset: int


class Content:
    """The bytes of the entry at hand; what is not read is passed over."""

    def __init__(self, reader: _Reader, size: int) -> None:
        self._reader, self.left = reader, size

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end only."""
        data = self._reader.exactly(min(size, self.left))
        self.left -= len(data)
        return data


def members(
    stream: Stream, where: str, entries_max: int, seek: Callable[[int], object] | None = None
) -> Iterator[tuple[Member, Content]]:
    """The entries of a tar, in order; raises ImportRefused for what is malformed or ambiguous.

    `seek` passes over that many bytes of the stream without reading them.
    """
    reader = _Reader(stream, where, seek)
    count = 0
    extended: dict[str, str] = {}
    while (block := reader.block()) is not None:
        kind = block[156:157]
        size = _number(block[124:136], "size", where)
        if kind in (b"x", b"g", b"L", b"K"):
            found = _extended(kind, reader.small(size), where)
            if repeated := sorted(set(found) & set(extended)):
                _malformed(where, f"{repeated[0]!r} is given twice for one entry")
            extended |= found
            continue
        count += 1
        if count > entries_max:
            refuse("too-many-entries", f"{where} has more than {entries_max} entries")
        member = _member(block, size, extended, reader.position, where)
        extended = {}
        content = Content(reader, member.size)
        yield member, content
        reader.skip(content.left + (-member.size % BLOCK))
    if extended:
        _malformed(where, "it ends in the middle of an entry")
    reader.only_zeros()


class _Reader:
    def __init__(self, stream: Stream, where: str, seek: Callable[[int], object] | None) -> None:
        self._stream, self._where, self._seek, self.position = stream, where, seek, 0

    def exactly(self, size: int) -> bytes:
        parts, left = [], size
        while left:
            part = self._stream.read(left)
            if not part:
                _malformed(self._where, "it is cut off")
            parts.append(part)
            left -= len(part)
        self.position += size
        return b"".join(parts)

    def block(self) -> bytes | None:
        """The next header; None at the end mark."""
        block = self.exactly(BLOCK)
        if not any(block):
            return None
        stated = _number(block[148:156], "checksum", self._where)
        if stated != sum(block[:148]) + 8 * 32 + sum(block[156:]):
            _malformed(self._where, "a header's checksum is wrong")
        return block

    def small(self, size: int) -> bytes:
        if size > _EXTENDED_MAX:
            _malformed(self._where, f"an extended header has {size} bytes")
        data = self.exactly(size)
        self.skip(-size % BLOCK)
        return data

    def skip(self, size: int) -> None:
        if self._seek is not None:
            self._seek(size)
            self.position += size
            return
        while size:
            size -= len(self.exactly(min(size, _SKIP)))

    def only_zeros(self) -> None:
        while data := self._stream.read(_SKIP):
            if data.count(0) != len(data):
                _malformed(self._where, "something follows its end")


def _member(block: bytes, size: int, extended: Mapping[str, str], offset: int, where: str) -> Member:
    kind = block[156:157]
    if kind not in _KINDS:
        _malformed(where, f"an entry is of type {quoted(kind)}, which not every reader understands")
    raw = _name(block, extended, where)
    if kind == b"\0" and raw.endswith("/"):
        kind = b"5"
    if kind != b"5" and raw.endswith("/"):
        _malformed(where, f"{quoted(raw)} is called a folder, but is none")
    if "size" in extended:
        size = _overridden(extended["size"], size, where)
    if _KINDS[kind] != "file" and size:
        _malformed(where, f"{quoted(raw)} has content, but is no file")
    link = extended.get("linkpath") or _text(block[157:257], where)
    return Member(
        clean(raw, where),
        _KINDS[kind],
        _number(block[100:108], "mode", where) & 0o7777,
        _id("uid", block[108:116], extended, where),
        _id("gid", block[116:124], extended, where),
        size,
        link if _KINDS[kind] in ("link", "hard link") else "",
        tuple(sorted(k.removeprefix(p) for k in extended for p in _XATTRS if k.startswith(p))),
        offset,
    )


def clean(raw: str, where: str) -> str:
    """A name inside the tree, without `./`; raises ImportRefused when it could lead elsewhere."""
    if raw.startswith("/"):
        refuse("unsafe-name", f"{where} holds an absolute name", context=quoted(raw))
    steps = [s for s in raw.split("/") if s not in ("", ".")]
    if ".." in steps:
        refuse("unsafe-name", f"{where} holds a name that leads out of it", context=quoted(raw))
    sizes = [len(s.encode()) for s in steps]
    if len(steps) > DEPTH_MAX or sum(sizes) + len(steps) > NAME_MAX or max(sizes, default=0) > COMPONENT_MAX:
        refuse("unsafe-name", f"{where} holds a name that is too long", context=quoted(raw))
    if any(ord(c) < 32 or ord(c) == 127 for c in raw):
        refuse("unsafe-name", f"{where} holds a name with control characters", context=quoted(raw))
    return "/".join(steps)


def _name(block: bytes, extended: Mapping[str, str], where: str) -> str:
    if "path" in extended:
        return extended["path"]
    name, prefix = _text(block[:100], where), b""
    if block[257:265] == b"ustar\x0000":
        prefix = block[345:500]
    elif any(block[345:500]):
        _malformed(where, "a header is of an old form that readers understand differently")
    first = _text(prefix, where)
    return f"{first}/{name}" if first else name


def _extended(kind: bytes, data: bytes, where: str) -> dict[str, str]:
    if kind in (b"L", b"K"):
        return {"path" if kind == b"L" else "linkpath": _text(data, where)}
    out: dict[str, str] = {}
    while data:
        length, blank, _ = data.partition(b" ")
        if not blank or not length.isdigit() or len(length) > 8 or not len(length) + 3 <= int(length):
            _malformed(where, "an extended header cannot be read")
        record, data = data[len(length) + 1 : int(length)], data[int(length) :]
        key, equals, value = record[:-1].partition(b"=")
        if not record.endswith(b"\n") or not equals:
            _malformed(where, "an extended header cannot be read")
        name = _decoded(key, where)
        if name in out:
            _malformed(where, f"{quoted(name)} is given twice for one entry")
        if name.startswith("GNU.sparse."):
            _malformed(where, "it holds a sparse file, which readers understand differently")
        is_binary = name.startswith(_XATTRS)
        out[name] = "" if is_binary else _decoded(value, where)
        if "\0" in out[name]:
            _malformed(where, "an extended header holds a zero byte")
    if kind == b"g":
        if foreign := sorted(set(out) - {"comment"}):
            _malformed(where, f"a global header sets {quoted(foreign[0])} for all that follows")
        return {}
    return out


def _overridden(text: str, size: int, where: str) -> int:
    if not text.isdigit() or len(text) > 15:
        _malformed(where, "an extended header's size is no number")
    if int(text) != size and int(text) <= _OCTAL_SIZE_MAX:
        _malformed(where, "an extended header states another size than the header")
    return int(text)


def _id(key: str, field: bytes, extended: Mapping[str, str], where: str) -> int:
    text = extended.get(key)
    if text is not None and not (text.isdigit() and len(text) <= 10):
        _malformed(where, f"an entry's {key} is no number")
    found = int(text) if text is not None else _number(field, key, where)
    if found >= 2**32 - 1:
        _malformed(where, f"an entry's {key} is too large")
    return found


def _number(field: bytes, what: str, where: str) -> int:
    if field[0] == 0x80:  # base 256 (GNU); negative numbers start with 0xff
        return int.from_bytes(field[1:], "big")
    digits = field.rstrip(b"\0 ").lstrip(b" ")
    if not all(c in b"01234567" for c in digits):
        _malformed(where, f"a header's {what} is no number")
    return int(digits, 8) if digits else 0


def _text(field: bytes, where: str) -> str:
    return _decoded(field.partition(b"\0")[0], where)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        _malformed(where, "it holds a name that is no UTF-8")


def _malformed(where: str, what: str) -> NoReturn:
    refuse("malformed-tar", f"{where} cannot be trusted: {what}")
