"""Where Debian packages come from: `GOLDSMITH_DEBIAN_MIRROR`, or the host's own apt sources.

No mirror's address is ever in the repository or in a lock.
Sources: sources.list(5), "ONE-LINE-STYLE FORMAT" and "DEB822-STYLE FORMAT".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from builder.errors import LockError, UsageError

_SCHEMES = ("http", "https", "file", "copy")
_SUITES = ("bookworm", "trixie", "oldstable", "stable", "testing", "sid", "forky")
_DISABLED = ("no", "false", "without", "off", "disable", "0")
_FOREIGN = 9  # the rank of a source that is not Debian's
_FILE_MAX = 1 << 20  # bytes of a sources file
_URI = re.compile(r"(https?://[A-Za-z0-9._~:@\[\]-]+|file:|copy:)(/[A-Za-z0-9._~%+/-]*)?")
_HINT = (
    "set GOLDSMITH_DEBIAN_MIRROR to the base address of a Debian mirror (or MAIN,SECURITY), "
    "or add the mirror to the host's apt sources"
)


@dataclass(frozen=True, slots=True)
class Mirror:
    """The base addresses of the main archive and of the security archive, without a final slash."""

    main: str
    security: str

    @classmethod
    def parse(cls, text: str) -> Mirror:
        """`MAIN` or `MAIN,SECURITY`; raises UsageError.

        With MAIN alone the security archive is its sister: `…/debian` gives `…/debian-security`.
        """
        main, comma, security = text.strip().partition(",")
        main, security = main.strip().rstrip("/"), security.strip().rstrip("/")
        if not comma:
            security = main + "-security" if main.endswith("/debian") else ""
        for uri in (main, security):
            if not _URI.fullmatch(uri) or urlsplit(uri).scheme not in _SCHEMES:
                raise UsageError(
                    f"GOLDSMITH_DEBIAN_MIRROR is not the address of a mirror: {text[:200]!r}",
                    hint="give MAIN,SECURITY, or one address that ends with /debian",
                )
        return cls(main, security)

    def addresses(self, path: str) -> tuple[str, str]:
        """Both possible addresses of a pool path, the likelier first.

        The security archive keeps its packages below `pool/updates/`.
        """
        both = (f"{self.main}/{path}", f"{self.security}/{path}")
        return (both[1], both[0]) if path.startswith("pool/updates/") else both


def find(setting: str | None, apt_etc: Path = Path("/etc/apt")) -> Mirror:
    """The mirror to use; raises UsageError (bad setting) or LockError (no mirror known)."""
    if setting:
        return Mirror.parse(setting)
    sources = sorted((s for s in _host_sources(apt_etc) if s.rank < _FOREIGN), key=lambda s: s.rank)
    main = next((s.uri for s in sources if not s.security), None)
    security = next((s.uri for s in sources if s.security), None)
    if main and not security and main.endswith("/debian"):
        security = main + "-security"
    if not main or not security:
        raise LockError(
            f"no Debian {'security ' if main else ''}mirror is known",
            context=f"looked in {apt_etc}",
            hint=_HINT,
        )
    return Mirror(main, security)


@dataclass(frozen=True, slots=True)
class _Source:
    """One line of the host's apt sources, taken apart."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str

    @property
    def security(self) -> bool:
        return self.suite.endswith(("-security", "/updates"))

    @property
    def rank(self) -> int:
        """How likely this is Debian itself and not somebody's packages for Debian: 0 is best."""
        release = re.split("[-/]", self.suite)[0]
        pocket = self.suite[len(release) + 1 :]
        if (
            release not in _SUITES
            or pocket not in ("", "updates", "security")
            or "main" not in self.components
            or not _URI.fullmatch(self.uri)
        ):
            return _FOREIGN
        if "debian-archive" in self.signed_by:
            return 0
        return 1 if self.uri.endswith(("/debian", "/debian-security")) else 2


def _host_sources(apt_etc: Path) -> Iterator[_Source]:
    """The host's enabled binary sources, in apt's order."""
    parts = apt_etc / "sources.list.d"
    for path in [apt_etc / "sources.list", *sorted([*parts.glob("*.list"), *parts.glob("*.sources")])]:
        try:
            with open(path, encoding="utf-8", errors="replace") as handle:
                text = handle.read(_FILE_MAX)
        except OSError:
            continue
        found = _deb822(text) if path.suffix == ".sources" else _one_line(text)
        yield from (replace(source, uri=_address(source.uri)) for source in found)


def _address(uri: str) -> str:
    """The address behind a `mirror+file:` of apt-transport-mirror(1), which Debian's cloud images use."""
    listed = re.fullmatch(r"mirror(?:\+file)?:(?:file:)?(?://(?=/))?(/.+)", uri)
    if listed is None:
        return uri
    try:
        with open(listed[1], encoding="utf-8", errors="replace") as handle:
            lines = handle.read(_FILE_MAX).splitlines()
    except OSError:
        return uri
    return next((line.split()[0].rstrip("/") for line in lines if line.strip() and line[0] != "#"), uri)


def _one_line(text: str) -> Iterator[_Source]:
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)([^#]*)", line)
        if match:
            options, uri, suite, components = match.groups("")
            yield _Source(uri.rstrip("/"), suite, tuple(components.split()), options)


def _deb822(text: str) -> Iterator[_Source]:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields = {
            name.lower(): value.split()
            for name, value in re.findall(r"^([A-Za-z-]+):((?:.*)(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        }
        if "deb" not in fields.get("types", []) or fields.get("enabled", [""])[0] in _DISABLED:
            continue
        for uri in fields.get("uris", []):
            for suite in fields.get("suites", []):
                components = tuple(fields.get("components", []))
                yield _Source(uri.rstrip("/"), suite, components, " ".join(fields.get("signed-by", [])))
