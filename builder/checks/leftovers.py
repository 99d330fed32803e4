"""Hardening rules about what was left behind: keys, histories, caches, one machine's identity."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from builder.checks.rule import Facts, Rule

PRIVATE_KEY, ELF = "private key", "ELF"
PATTERNS = {
    ELF: re.compile(rb"\A\x7fELF"),
    # PEM (RFC 7468): the line, and at least one line of base64; many texts hold the first line alone.
    PRIVATE_KEY: re.compile(
        rb"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----\r?\n"
        rb"(?:[A-Za-z-]{1,30}: [^\r\n]{0,200}\r?\n){0,6}\r?\n?[A-Za-z0-9+/=]{40,200}\r?\n"
    ),
}
_KEY_NAME = re.compile(
    r"id_(rsa|dsa|ecdsa|ed25519)(_sk)?|ssh_host_[a-z0-9]{1,20}_key|[^/]{1,200}\.(p12|pfx|jks|keystore|kdbx|ppk)"
    r"|\.netrc|\.pgpass|\.git-credentials|\.pypirc|\.npmrc|\.htpasswd"
)
_KEY_PATH = re.compile(
    r"etc/ssl/private/.+|(.*/)?\.aws/credentials|(.*/)?\.docker/config\.json|(.*/)?\.kube/config"
    r"|(.*/)?\.gnupg/(private-keys-v1\.d/.+|secring\.gpg)"
)
_HISTORY_NAME = re.compile(
    r"\.(ba|z|a|k|fi)?sh_history|\.histfile|\.(python|node_repl|irb|pry|php|psql|mysql|sqlite|rediscli)_?history"
    r"|\.lesshst|\.viminfo|\.wget-hsts|\.sudo_as_admin_successful|\.selected_editor"
)
_LOG = re.compile(r"var/log/.+")
_CACHE = re.compile(
    r"var/lib/apt/(lists|periodic|extended_states)(/.+)?|var/cache/.+|(.*/)?\.cache/.+|(.*/)?\.(npm|bundle|gem|cargo)/.+"
    r"|(tmp|var/tmp|run|var/run)/.+|var/lib/dpkg/(available|status-old|lock|lock-frontend)|var/backups/.+"
)
_MACHINE_IDS = ("etc/machine-id", "var/lib/dbus/machine-id")
_MACHINE = re.compile(
    r"etc/(hostname|hosts|resolv\.conf|hostid|adjtime)|\.dockerenv|run/\.containerenv|etc/ssh/ssh_host_[^/]{1,60}"
    r"|var/lib/systemd/(random-seed|credential\.secret)|var/lib/dhcp/.+|etc/udev/rules\.d/70-persistent-[^/]{1,60}"
)
WANTED = _MACHINE_IDS


def _files(facts: Facts) -> Iterator[str]:
    """Paths of everything but folders: those are empty as far as these rules go."""
    return (path for path, entry in sorted(facts.files.entries.items()) if entry.kind != "directory")


def _no_private_keys(facts: Facts) -> Iterator[str]:
    for path in _files(facts):
        marks = facts.files.marked.get(path, ())
        # Libraries of cryptography test themselves with keys that everybody knows.
        if PRIVATE_KEY in marks and ELF not in marks:
            yield f"/{path} holds a private key"
        elif _KEY_NAME.fullmatch(posixpath.basename(path)) or _KEY_PATH.fullmatch(path):
            yield f"/{path} has the name of a private key or a credential"


def _no_histories(facts: Facts) -> Iterator[str]:
    for path in _files(facts):
        if _HISTORY_NAME.fullmatch(posixpath.basename(path)) or _LOG.fullmatch(path):
            yield f"/{path} tells what was done"


def _no_caches(facts: Facts) -> Iterator[str]:
    for path in _files(facts):
        if _CACHE.fullmatch(path):
            yield f"/{path} is there"


def _no_machine_identity(facts: Facts) -> Iterator[str]:
    for path in _files(facts):
        entry = facts.files.entries[path]
        if path in _MACHINE_IDS:
            # machine-id(5): empty or "uninitialized" is how an image says that it has none.
            if entry.kind != "link" and (facts.files.read(path) or b"?" * entry.size).strip() not in (
                b"",
                b"uninitialized",
            ):
                yield f"/{path} is the identity of one machine"
        elif _MACHINE.fullmatch(path):
            yield f"/{path} belongs to one machine"


RULES = (
    Rule(
        id="no-private-keys",
        title="No file is a private key or a credential",
        rationale="Everybody who pulls an image has its files: a key in it is not private any more.",
        source="CIS Docker Benchmark 1.6.0, 4.10; NIST SP 800-190, 4.1.4",
        looks_at="contents",
        failures=_no_private_keys,
    ),
    Rule(
        id="no-histories",
        title="There are no histories and logs",
        rationale="Histories of shells, of apt and dpkg tell what was typed and done when the image was "
        "made, "
        "passwords on command lines among it; and they differ from build to build.",
        source="CIS Docker Benchmark 1.6.0, 4.10; NIST SP 800-190, 4.1.4",
        looks_at="files",
        failures=_no_histories,
    ),
    Rule(
        id="no-caches",
        title="There are no caches and nothing in the folders for temporary files",
        rationale="Package lists grow old in an image and hide what is outdated; caches and temporary "
        "files are "
        "weight, and nobody looks at what they hold.",
        source="CIS Docker Benchmark 1.6.0, 4.3 and 4.7",
        looks_at="files",
        failures=_no_caches,
    ),
    Rule(
        id="no-machine-identity",
        title="Nothing is one machine's own",
        rationale="A machine id, host keys or a random seed in an image are the same in all its "
        "containers; what "
        "trusts them to be unique is wrong.",
        source="machine-id(5); Goldsmith's golden path",
        looks_at="contents",
        failures=_no_machine_identity,
    ),
)
