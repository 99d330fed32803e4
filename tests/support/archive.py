"""A small signed Debian archive for tests, with the faults that real ones show.

    archive = Archive(tmp_path, now)
    archive.add("hello", depends="libhello1")
    archive.add("libhello1", pocket="security")
    archive.publish()
    Apt(state, Mirror.parse(archive.address), environment, archive.keyring)

It is used in place (`file:`), or over HTTP through `serve`, where single answers can be
replaced. Format: deb(5), deb-control(5), and the Debian repository format (Release, Packages).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import email
import gzip
import hashlib
import http.server
import io
import lzma
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from builder.tools.deb import read_control
from tests.support.openpgp import SigningKey

POCKETS = ("", "updates", "security")
_RELEASE_TIME = "%a, %d %b %Y %H:%M:%S UTC"


@dataclass(frozen=True)
class Deb:
    """A package of the archive: its control fields, its bytes, its place below the mirror."""

    fields: Mapping[str, str]
    data: bytes
    path: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


class Archive:
    """The folders `debian` and `debian-security` below `root`; both signed with `key`."""

    def __init__(
        self,
        root: Path,
        now: dt.datetime,
        suite: str = "trixie",
        architectures: tuple[str, ...] = ("amd64",),
    ) -> None:
        self.root, self.now, self.suite, self.architectures = root, now, suite, architectures
        self.key = SigningKey(now - dt.timedelta(days=30))
        self.packages: dict[str, list[Deb]] = {pocket: [] for pocket in POCKETS}
        self.keyring = root / "archive-keyring.gpg"
        root.mkdir(parents=True, exist_ok=True)
        self.keyring.write_bytes(self.key.public())

    @property
    def address(self) -> str:
        """The mirror setting for use in place."""
        return self.at(f"file:{self.root}")

    def at(self, base: str) -> str:
        """The mirror setting when the archive's root is at `base`."""
        return f"{base}/debian,{base}/debian-security"

    def folder(self, pocket: str) -> Path:
        return self.root / ("debian-security" if pocket == "security" else "debian")

    def release(self, pocket: str = "") -> Path:
        """The signed index of a pocket."""
        return self.folder(pocket) / "dists" / self._suite(pocket) / "InRelease"

    def index(self, pocket: str = "", architecture: str = "amd64") -> Path:
        """The compressed package index of a pocket."""
        return self.release(pocket).parent / "main" / f"binary-{architecture}" / "Packages.gz"

    def add(
        self,
        name: str,
        version: str = "1.0-1",
        *,
        architecture: str = "amd64",
        pocket: str = "",
        files: Mapping[str, bytes] | None = None,
        **fields: str,
    ) -> Deb:
        """Put a package into the pool; further control fields by name (`depends="…"`)."""
        control = {
            "Package": name,
            "Version": version,
            "Architecture": architecture,
            "Maintainer": "Nobody <nobody@example.test>",
            **{key.replace("_", "-").title(): value for key, value in fields.items()},
            "Description": f"the test package {name}",
        }
        content = files or {f"usr/share/doc/{name}/copyright": b"Files: *\nLicense: Expat\n"}
        data = build_deb(control, content, int(self.now.timestamp()))
        file_version = version.partition(":")[2] or version
        area = "pool/updates/main" if pocket == "security" else "pool/main"
        deb = Deb(control, data, f"{area}/{name[0]}/{name}/{name}_{file_version}_{architecture}.deb")
        path = self.folder(pocket) / deb.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.packages[pocket].append(deb)
        return deb

    def take(self, package: Path, path: str) -> None:
        """Put a real package into the pool, at a pool path as a lock has it."""
        pocket = "security" if path.startswith("pool/updates/") else ""
        control = dict(email.message_from_string(read_control(package).control).items())
        self.packages[pocket].append(Deb(control, package.read_bytes(), path))
        there = self.folder(pocket) / path
        there.parent.mkdir(parents=True, exist_ok=True)
        os.link(package, there)

    def file(self, deb: Deb) -> Path:
        """Where the package lies in the pool."""
        return self.root / ("debian-security" if deb in self.packages["security"] else "debian") / deb.path

    def publish(
        self,
        *,
        key: SigningKey | None = None,
        valid_for: dt.timedelta = dt.timedelta(days=7),
        dated: dt.datetime | None = None,
        without: tuple[str, ...] = (),
        changed: Mapping[str, str] | None = None,
    ) -> None:
        """Write and sign all indexes.

        `key` replaces the right one; `without` leaves fields of the package index out;
        `changed` replaces text in it (before it is signed).
        """
        at = dated or self.now - dt.timedelta(hours=1)
        for pocket in POCKETS:
            folder = self.release(pocket).parent
            sums = []
            for architecture in self.architectures:
                text = self._packages(pocket, architecture, without)
                for old, new in (changed or {}).items():
                    text = text.replace(old, new)
                index = self.index(pocket, architecture)
                index.parent.mkdir(parents=True, exist_ok=True)
                index.write_bytes(gzip.compress(text.encode(), mtime=0))
                for path, data in ((index.with_suffix(""), text.encode()), (index, index.read_bytes())):
                    name = path.relative_to(folder).as_posix()
                    sums.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}")
            release = "\n".join(
                [
                    "Origin: Test",
                    f"Suite: {self._suite(pocket)}",
                    f"Codename: {self._suite(pocket)}",
                    f"Date: {at.strftime(_RELEASE_TIME)}",
                    f"Valid-Until: {(at + valid_for).strftime(_RELEASE_TIME)}",
                    f"Architectures: {' '.join(self.architectures)}",
                    "Components: main",
                    "SHA256:",
                    *sums,
                ]
            )
            self.release(pocket).write_text((key or self.key).clearsign(release + "\n", at))

    @contextlib.contextmanager
    def serve(self) -> Iterator[ArchiveServer]:
        """The archive over HTTP on loopback until the end of the `with` block."""
        server = ArchiveServer(self)
        thread = threading.Thread(target=server.http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.http.shutdown()
            server.http.server_close()
            thread.join()

    def _suite(self, pocket: str) -> str:
        return f"{self.suite}-{pocket}" if pocket else self.suite

    def _packages(self, pocket: str, architecture: str, without: tuple[str, ...]) -> str:
        stanzas = []
        for deb in self.packages[pocket]:
            if deb.fields["Architecture"] not in (architecture, "all"):
                continue
            described = {
                **deb.fields,
                "Filename": deb.path,
                "Size": str(len(deb.data)),
                "MD5sum": hashlib.md5(deb.data, usedforsecurity=False).hexdigest(),
                "SHA256": deb.sha256,
            }
            stanzas.append("".join(f"{k}: {v}\n" for k, v in described.items() if k not in without))
        return "\n".join(stanzas)


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@dataclass
class ArchiveServer:
    """A running server; `answers` replaces what is said to paths that end with a key."""

    archive: Archive
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *arguments: object) -> None:
                super().__init__(*arguments, directory=str(outer.archive.root))  # type: ignore[arg-type]

            def do_GET(self) -> None:
                path = unquote(self.path)
                outer.requests.append(path)
                for end, answer in outer.answers.items():
                    if path.endswith(end):
                        answer(self)
                        return
                super().do_GET()

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        """The mirror setting."""
        return self.archive.at(f"http://127.0.0.1:{self.http.server_port}")


def status(code: int) -> Answer:
    """Answer with a status and nothing else."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def body(data: bytes, announced: int | None = None) -> Answer:
    """Answer with `data`; `announced` is a lie about its length, the connection is then cut."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data) if announced is None else announced))
        handler.end_headers()
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


def build_deb(control: Mapping[str, str], files: Mapping[str, bytes], time: int) -> bytes:
    """A binary package (deb(5)); `files` by path without a leading slash."""
    text = "".join(f"{name}: {value}\n" for name, value in control.items())
    sums = "".join(
        f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}  {path}\n"
        for path, data in sorted(files.items())
    )
    members = (
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", _tar_xz({"control": text.encode(), "md5sums": sums.encode()}, time)),
        ("data.tar.xz", _tar_xz(files, time)),
    )
    out = io.BytesIO(b"!<arch>\n")
    out.seek(0, io.SEEK_END)
    for name, data in members:
        out.write(f"{name:<16}{time:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        out.write(data + b"\n" * (len(data) % 2))
    return out.getvalue()


def _tar_xz(files: Mapping[str, bytes], time: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders = {str(parent) for path in files for parent in Path(path).parents}
        for name in sorted({*folders, *files}):
            info = tarfile.TarInfo("./" if name == "." else f"./{name}")
            info.mtime = time
            if name in files:
                info.mode, info.size = 0o644, len(files[name])
                tar.addfile(info, io.BytesIO(files[name]))
            else:
                info.mode, info.type = 0o755, tarfile.DIRTYPE
                tar.addfile(info)
    return lzma.compress(out.getvalue(), preset=0)
