"""The real apt with a state directory of its own: resolves packages out of a signed archive.

Nothing of the host's apt configuration is used: neither its keys, sources, hooks nor its
relaxations (a host may have switched the expiry check off). Sources: apt.conf(5),
apt-get(8) `--print-uris`, deb-control(5).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from builder.errors import LockError, NoSuchPackage, ToolError
from builder.model.digest import Digest
from builder.model.lock import LockedPackage
from builder.store import write_atomically
from builder.tools.mirror import Mirror
from builder.tools.process import Completed, run
from builder.tools.proxy import with_host_proxy

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_RESOLVE_SECONDS = 120
_APT_FAILED = 100
_INSTALL_APT = "install the Debian packages apt and debian-archive-keyring"
_URI_LINE = re.compile(r"'([^']+)' (\S+) (\d+)( \S+)?")
_SOURCE = re.compile(r"(\S+)(?: \((\S+)\))?")

_ROOM_MIN = 96 << 20  # bytes that the unpacked indexes of a suite need
_NO_SPACE = "No space left"
_NOT_FETCHED = (
    "the index of {suite} cannot be fetched",
    "see whether the mirror is up, its address right, the suite there, and whether a proxy is needed",
)
# What apt says, and what that means: (words in its output, message, hint). The first match counts.
_UPDATE_FAILURES = (
    (
        (_NO_SPACE, "Disk quota"),
        "no space is left for the index of {suite}",
        "make room in the state directory, or set GOLDSMITH_STATE to another place",
    ),
    # apt calls an index unsigned, too, when the mirror or a proxy answered with an error page.
    (("400  Bad", "401  Unauthorized", "403  Forbidden", "407  Proxy", "502  Bad"), *_NOT_FETCHED),
    (
        ("is expired", "is not valid yet", "invalid for another", "Not live until"),
        "the index of {suite} is expired or not valid yet: the mirror is stale, or the clock is wrong",
        "use a mirror that is up to date, and check the time of this machine",
    ),
    (
        ("NO_PUBKEY", "EXPKEYSIG", "BADSIG", "is not signed", "Missing key", "couldn't be verified"),
        "the index of {suite} is not signed by a key that is trusted",
        "use a mirror of the Debian archive, or update the package debian-archive-keyring",
    ),
    (
        (
            "Hash Sum mismatch",
            "unexpected size",
            "Clearsigned file",
            "not valid",
            "Splitting up",
            "NOSPLIT",
            "MergeList",
        ),
        "the index of {suite} is truncated or altered",
        "try again in a few minutes (the mirror may be updating itself), or use another mirror",
    ),
    (("",), *_NOT_FETCHED),
)


@dataclass(frozen=True, slots=True)
class Apt:
    """A private apt below `root`, for packages of `mirror` that are signed by a key of `keyring`."""

    root: Path
    mirror: Mirror
    environment: Mapping[str, str]
    keyring: Path = KEYRING
    update_seconds: float = 300

    def update(self, suite: str, architecture: str) -> None:
        """Fetch the signed indexes of a suite, its updates and its security fixes.

        What is here already is only asked for changes. Raises LockError when an index cannot be
        had or trusted, ToolError when apt is missing or hangs.
        """
        if not self.keyring.is_file():
            raise LockError(
                "there are no archive keys to verify packages with",
                context=str(self.keyring),
                hint="install the Debian package debian-archive-keyring, or set GOLDSMITH_DEBIAN_KEYRING",
            )
        # The package cache is built by who resolves; most updates bring nothing to resolve.
        command = ["apt-get", "update", "-q", "-o", "pkgCacheFile::Generate=false"]
        done = self._run(suite, architecture, command, self.update_seconds)
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace")
            if shutil.disk_usage(self.root).free < _ROOM_MIN:
                # apt takes what it could not unpack for missing, and asks for another file.
                said = f"{_NO_SPACE}\n{said}"
            for words, message, hint in _UPDATE_FAILURES:
                if any(word in said for word in words):
                    raise LockError(message.format(suite=suite), context=done.log, hint=hint)

    def state(self, suite: str, architecture: str) -> Digest | None:
        """The content of the signed release files that are here of a suite; None when there are none.

        They hold the digests of all indexes. An archive is signed anew each day: when, and until when
        that holds, is `update`'s to check, and not content.
        """
        found = sorted((self.root / f"{suite}-{architecture}" / "lists").glob("*Release"))
        contents = {path.name: _content(path.read_bytes()) for path in found}
        return Digest.of_json(contents) if contents else None

    def resolve(self, suite: str, architecture: str, request: Sequence[str]) -> tuple[LockedPackage, ...]:
        """The closure of `request` under Depends and Pre-Depends, sorted by name.

        Raises LockError that names the package when one is unknown, cannot be installed, or is
        not described well enough by the signed index to be verified.
        """
        command = ["apt-get", "install", "--print-uris", "-qq", "-y", "--"]
        done = self._run(suite, architecture, [*command, *sorted(set(request))], _RESOLVE_SECONDS)
        if done.returncode:
            # Once more, this time with apt's reasons.
            spoken = [word for word in command if word not in ("-qq", "--print-uris")]
            spoken = ["apt-get", "--simulate", *spoken[1:], *sorted(set(request))]
            raise _unresolvable(self._run(suite, architecture, spoken, _RESOLVE_SECONDS), suite, architecture)
        planned = dict(_planned(done.text, suite))
        missing = sorted(set(request) - set(planned))
        if missing:
            raise NoSuchPackage(suite, architecture, missing)
        names = [f"{name}={version}" for name, (version, _) in sorted(planned.items())]
        # Only the signed index holds SHA-256 for every package: one call for all of them.
        shown = self._run(suite, architecture, ["apt-cache", "show", "--", *names], _RESOLVE_SECONDS)
        if shown.returncode:
            raise LockError(f"apt cannot describe the packages of {suite}", context=shown.log)
        described: dict[str, LockedPackage] = {}
        for stanza in _stanzas(shown.text):
            name = stanza.get("Package", "")
            if name in planned and stanza.get("Version") == planned[name][0]:
                package = _package(stanza, suite)
                if planned[name][1].endswith("/" + package.path):
                    described.setdefault(name, package)
        lost = sorted(set(planned) - set(described))
        if lost:
            raise LockError(
                f"the index of {suite} does not agree with itself on {', '.join(lost)}",
                hint="try again in a few minutes (the mirror may be updating itself), or use another mirror",
            )
        return tuple(package for _, package in sorted(described.items()))

    def _run(self, suite: str, architecture: str, argv: Sequence[str], seconds: float) -> Completed:
        folder = self.root / f"{suite}-{architecture}"
        try:
            for part in ("lists/partial", "archives/partial"):
                (folder / part).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ToolError("apt's private state cannot be written", context=str(error)) from None
        configuration = folder / "apt.conf"
        for path, text in (
            (configuration, _configuration(folder, architecture)),
            (folder / "sources.list", _sources(self.mirror, suite, architecture, self.keyring)),
            (folder / "status", ""),
        ):
            # apt builds its cache anew when a file is newer than it.
            if not path.is_file() or path.read_text() != text:
                write_atomically(path, text.encode())
        environment = {
            **with_host_proxy(self.environment),
            "APT_CONFIG": str(configuration),
            "LC_ALL": "C",
        }
        return run(
            argv,
            environment=environment,
            timeout_seconds=seconds,
            ok=(0, _APT_FAILED),
            hint=_INSTALL_APT,
        )


def _content(release: bytes) -> Digest:
    """What a release file says, without its times and its signature."""
    lines = release.partition(b"-----BEGIN PGP SIGNATURE-----")[0].splitlines()
    return Digest.of(b"\n".join(line for line in lines if not line.startswith((b"Date:", b"Valid-Until:"))))


def _configuration(folder: Path, architecture: str) -> str:
    null = "/dev/null"
    settings = {
        "Dir": folder,
        "Dir::Etc": folder,
        "Dir::Etc::main": null,
        "Dir::Etc::parts": null,
        "Dir::Etc::trusted": null,
        "Dir::Etc::trustedparts": null,
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": null,
        "Dir::Etc::preferences": null,
        "Dir::Etc::preferencesparts": null,
        "Dir::State": folder,
        "Dir::State::lists": folder / "lists",
        "Dir::State::status": folder / "status",
        "Dir::Cache": folder,
        "Dir::Cache::archives": folder / "archives",
        "Dir::Log": folder,
        "APT::Architecture": architecture,
        "APT::Install-Recommends": "false",
        "APT::Install-Suggests": "false",
        "APT::Sandbox::User": "root",
        "APT::Get::AllowUnauthenticated": "false",
        "APT::Cmd::Pattern-Only": "true",
        "APT::Update::Error-Mode": "any",  # otherwise a dead mirror is exit code 0
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowWeakRepositories": "false",
        "Acquire::AllowDowngradeToInsecureRepositories": "false",
        "Acquire::Check-Valid-Until": "true",
        "Acquire::Check-Date": "true",
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
        "Acquire::http::Timeout": "20",
        "Acquire::https::Timeout": "20",
    }
    lines = [f'{name} "{value}";' for name, value in settings.items()]
    lines.append(f'APT::Architectures {{ "{architecture}"; }};')
    lines.append("#clear DPkg::Post-Invoke;\n#clear APT::Update::Post-Invoke;")
    return "\n".join(lines) + "\n"


def _sources(mirror: Mirror, suite: str, architecture: str, keyring: Path) -> str:
    options = f"[arch={architecture} signed-by={keyring}]"
    return "".join(
        f"deb {options} {uri} {name} main\n"
        for uri, name in (
            (mirror.main, suite),
            (mirror.main, f"{suite}-updates"),
            (mirror.security, f"{suite}-security"),
        )
    )


def _unresolvable(done: Completed, suite: str, architecture: str) -> LockError:
    said = done.stderr.decode("utf-8", "replace")
    unknown = sorted(
        set(re.findall(r"(?:Unable to locate package|Couldn't find any package by \w+) '?([^'\s]+)", said))
        | set(re.findall(r"Package '?([^'\s]+)'? has no installation candidate", said))
    )
    if unknown:
        return NoSuchPackage(suite, architecture, unknown, context=done.log)
    return LockError(
        f"the packages cannot be installed together from {suite}",
        context=f"{done.text[-2000:]}\n{done.log}".strip(),
        hint="ask for packages that do not contradict each other",
    )


def _planned(text: str, suite: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """(name, (version, address)) of each line of `--print-uris`; the address is decoded."""
    for line in text.splitlines():
        match = _URI_LINE.fullmatch(line.strip())
        parts = unquote(match[2]).removesuffix(".deb").split("_") if match else []
        if not match or len(parts) != 3:
            raise LockError(f"apt's plan for {suite} cannot be read", context=line[:200])
        yield parts[0], (parts[1], unquote(match[1]))


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of control data (deb-control(5)); continued lines are left out."""
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        for line in stanza.splitlines():
            name, colon, value = line.partition(":")
            if colon and not line[0].isspace():
                fields.setdefault(name, value.strip())
        if fields:
            yield fields


def _package(stanza: Mapping[str, str], suite: str) -> LockedPackage:
    name, version = stanza["Package"], stanza["Version"]
    absent = [field for field in ("SHA256", "Size", "Filename", "Architecture") if not stanza.get(field)]
    if absent or not stanza["Size"].isdigit():
        raise LockError(
            f"the index of {suite} has no {' and no '.join(absent) or 'size'} for package {name}",
            hint="such a package cannot be verified; use a mirror of the Debian archive",
        )
    source = _SOURCE.fullmatch(stanza.get("Source", name))
    return LockedPackage(
        name=name,
        version=version,
        architecture=stanza["Architecture"],
        sha256=stanza["SHA256"].lower(),
        size=int(stanza["Size"]),
        path=stanza["Filename"],
        source=source[1] if source else "",
        source_version=(source[2] if source else "") or version,
    )
