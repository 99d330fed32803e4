"""The hardening rules that need no container: each looks at the files and the configuration.

A rule is a function from the facts to its failures, and a line in the table `RULES`. Ids are
stable: policies, waivers and documents refer to them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from builder.model.evidence import CheckResult, Outcome
from builder.oci.filesystem import Entry, FileSystem

NONROOT = 65532
CERTIFICATES_MIN = 100
_ID_MAX = 2_000_000_000
_VALUE_MAX = 4096  # bytes of one environment value or label
_SHOWN_MAX = 5  # failures that a result names

_CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"
_ZONES = ("usr/share/zoneinfo/Europe/Zurich", "usr/share/zoneinfo/America/New_York")
_OS_RELEASE, _DEBIAN_VERSION = "usr/lib/os-release", "etc/debian_version"
_PASSWD, _SHADOW = "etc/passwd", "etc/shadow"
WANTED = (_CA_BUNDLE, *_ZONES, _OS_RELEASE, "etc/os-release", _DEBIAN_VERSION, _PASSWD, _SHADOW)

_SHELL = re.compile(r"(ba|da|a|z|k|mk|pdk|tc|c|r|rba|fi|yash|pw)?sh|(static-)?busybox|toybox|sash")
_PACKAGE_MANAGER = re.compile(
    r"apt(-get|-cache|-key|-config|-mark)?|aptitude|dpkg(-[a-z]+)?|rpm|yum|dnf5?|zypper|apk|pacman"
    r"|pip[0-9.]*|pipx|uv|conda|mamba|npm|npx|yarn|pnpm|gem|cargo|nix(-env)?|snap|flatpak"
)
_STICKY = ("tmp", "var/tmp")
_RELEASES = {"bookworm": "12", "trixie": "13"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rules look at: files, the OCI configuration, and what the definition asks for."""

    files: FileSystem
    config: Mapping[str, Any]
    variant: str
    suite: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: what it demands, and the function that gives its failures."""

    id: str
    title: str
    failures: Callable[[Facts], Iterator[str]]
    variants: tuple[str, ...] = ("runtime", "dev")


def harden(facts: Facts) -> tuple[CheckResult, ...]:
    """The result of every rule that applies to the image's variant."""
    return tuple(result(r.id, r.title, r.failures(facts)) for r in RULES if facts.variant in r.variants)


def result(identifier: str, title: str, failures: Iterable[str]) -> CheckResult:
    """A check's result: failed when there is a failure; the first few are named."""
    found = list(failures)
    detail = "; ".join(found[:_SHOWN_MAX])
    if len(found) > _SHOWN_MAX:
        detail += f"; and {len(found) - _SHOWN_MAX} more"
    return CheckResult(identifier, title, Outcome.FAILED if found else Outcome.PASSED, detail)


def _not_root(facts: Facts) -> Iterator[str]:
    user = facts.config.get("User")
    # A dev image is for building, which starts with installing packages.
    allowed = ("0:0", f"{NONROOT}:{NONROOT}") if facts.variant == "dev" else (f"{NONROOT}:{NONROOT}",)
    if user not in allowed:
        yield f"the configuration's user is {str(user)[:60]!r}"


def _plain_configuration(facts: Facts) -> Iterator[str]:
    config = facts.config
    for part in re.split(":", str(config.get("User") or "")):
        if part.isdigit() and int(part) > _ID_MAX:
            yield f"the user id {part[:20]} is too large"
    for key in ("Entrypoint", "Cmd", "Env"):
        values = config.get(key) or []
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            yield f"{key} is not a list of strings"
        else:
            yield from odd_texts(key, ((v.partition("=")[0] or v, v) for v in values))
    labels = config.get("Labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        yield "Labels is not a mapping of strings"
    else:
        yield from odd_texts("label", ((k, f"{k}={v}") for k, v in labels.items()))
    for key in ("Volumes", "ExposedPorts", "Healthcheck", "OnBuild", "Shell"):
        if config.get(key):
            yield f"{key} is set, which no definition can ask for"


def odd_texts(where: str, texts: Iterable[tuple[str, str]]) -> Iterator[str]:
    """What is wrong with texts, each with the name by which it is told."""
    for name, text in texts:
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in text):
            yield f"{where} {name[:60]!r} has control characters"
        if len(text.encode("utf-8", "replace")) > _VALUE_MAX:
            yield f"{where} {name[:60]!r} is longer than {_VALUE_MAX} bytes"


def _programs(files: FileSystem, names: re.Pattern[str]) -> Iterator[str]:
    """Paths of programs by name: executable anywhere, or anything but a folder in a bin folder."""
    for path, entry in sorted(files.entries.items()):
        folder, name = posixpath.split(path)
        if entry.kind == "directory" or not names.fullmatch(name):
            continue
        if posixpath.basename(folder) in ("bin", "sbin") or (entry.kind == "file" and entry.mode & 0o111):
            yield f"/{path} is there"


def _no_shell(facts: Facts) -> Iterator[str]:
    yield from _programs(facts.files, _SHELL)


def _no_package_manager(facts: Facts) -> Iterator[str]:
    yield from _programs(facts.files, _PACKAGE_MANAGER)


def _each(facts: Facts, wrong: Callable[[str, Entry], str]) -> Iterator[str]:
    for path, entry in sorted(facts.files.entries.items()):
        if said := wrong(path, entry):
            yield f"/{path} {said}"


def _no_setuid(facts: Facts) -> Iterator[str]:
    return _each(facts, lambda _, e: f"has mode {e.mode:04o}" if e.mode & 0o6000 else "")


def _no_world_writable(facts: Facts) -> Iterator[str]:
    def wrong(path: str, entry: Entry) -> str:
        if entry.kind in ("link", "hard link") or not entry.mode & 0o002:
            return ""
        if entry.kind == "directory" and path in _STICKY and entry.mode & 0o1000:
            return ""
        return f"has mode {entry.mode:04o}"

    return _each(facts, wrong)


def _no_file_capabilities(facts: Facts) -> Iterator[str]:
    return _each(facts, lambda _, e: f"has {', '.join(e.xattrs)}" if e.xattrs else "")


def _no_devices(facts: Facts) -> Iterator[str]:
    plain = ("file", "directory", "link", "hard link")
    return _each(facts, lambda _, e: "" if e.kind in plain else f"is of kind {e.kind}")


def _accounts_locked(facts: Facts) -> Iterator[str]:
    accounts = _table(facts.files.read(_PASSWD), 7)
    if not accounts:
        yield f"/{_PASSWD} is missing or empty"
    for fields in accounts:
        name = fields[0][:40]
        if len(fields) != 7:
            yield f"/{_PASSWD} has a malformed line for {name!r}"
            continue
        if fields[1] not in ("x", "*", "!"):
            yield f"{name} has a password in /{_PASSWD}"
        if fields[6] not in ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false"):
            yield f"{name} may log in with {fields[6][:40] or 'the default shell'}"
        if fields[2] == "0" and name != "root":
            yield f"{name} is another root"
    for fields in _table(facts.files.read(_SHADOW), 9):
        if len(fields) < 2 or not fields[1].startswith(("!", "*")):
            yield f"{fields[0][:40]} is not locked in /{_SHADOW}"


def _table(data: bytes | None, columns: int) -> list[list[str]]:
    lines = (data or b"").decode("utf-8", "replace").splitlines()
    return [line.split(":", columns) for line in lines if line.strip()]


def _ca_bundle(facts: Facts) -> Iterator[str]:
    import ssl

    data = facts.files.read(_CA_BUNDLE)
    if data is None:
        yield f"/{_CA_BUNDLE} is missing"
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=data.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        yield f"/{_CA_BUNDLE} is damaged: {str(error)[:100]}"
        return
    count = context.cert_store_stats()["x509_ca"]
    if count < CERTIFICATES_MIN:
        yield f"/{_CA_BUNDLE} holds {count} certificates, fewer than {CERTIFICATES_MIN}"


def _time_zones(facts: Facts) -> Iterator[str]:
    for path in _ZONES:
        if not (facts.files.read(path) or b"").startswith(b"TZif"):
            yield f"/{path} is missing or no time zone (tzfile(5))"


def _os_release(facts: Facts) -> Iterator[str]:
    text = (facts.files.read("etc/os-release") or facts.files.read(_OS_RELEASE) or b"").decode(
        "utf-8", "replace"
    )
    fields = {k: v.strip("\"'") for k, _, v in (line.partition("=") for line in text.splitlines())}
    release = _RELEASES.get(facts.suite, "?")
    expected = {"ID": "debian", "VERSION_ID": release, "VERSION_CODENAME": facts.suite}
    for key, value in expected.items():
        if fields.get(key) != value:
            yield f"os-release says {key}={fields.get(key, '')[:40]!r}, not {value!r}"
    version = (facts.files.read(_DEBIAN_VERSION) or b"").decode("utf-8", "replace").strip()
    if version.partition(".")[0] != release:
        yield f"/{_DEBIAN_VERSION} says {version[:40]!r}, not {release}"


RULES = (
    Rule("not-root", "The image runs as uid 65532, or is for building", _not_root),
    Rule("plain-configuration", "The configuration holds plain, short texts only", _plain_configuration),
    Rule("no-shell", "There is no shell", _no_shell, ("runtime",)),
    Rule("no-package-manager", "There is no package manager", _no_package_manager, ("runtime",)),
    Rule("no-setuid", "Nothing is setuid or setgid", _no_setuid),
    Rule("no-world-writable", "Nothing is world-writable but sticky /tmp", _no_world_writable),
    Rule("no-file-capabilities", "No file has capabilities or other attributes", _no_file_capabilities),
    Rule("no-devices", "There are no devices, sockets or pipes", _no_devices),
    Rule("accounts-locked", "Nobody can log in", _accounts_locked),
    Rule("ca-bundle", "The bundle of certificate authorities is complete", _ca_bundle),
    Rule("time-zones", "The time zones are there", _time_zones),
    Rule("os-release", "The system says which release it is", _os_release),
)
