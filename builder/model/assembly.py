"""How packages become a root file system, as data: both the rendered script and the direct
engine follow this page, so that they cannot drift apart.

No maintainer script ever runs. What the few needed ones would have made is made here.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

ASSEMBLY_VERSION = 2

# Documentation, translations and lint data, and what starts, rotates or completes on a whole
# machine: nothing a program needs at run time.
DROPPED_TREES = (
    "etc/cron.d",
    "etc/cron.daily",
    "etc/cron.monthly",
    "etc/cron.weekly",
    "etc/init.d",
    "etc/logrotate.d",
    "etc/ufw",
    "usr/lib/systemd/system",
    "usr/lib/systemd/user",
    "usr/lib/tmpfiles.d",
    "usr/share/applications",
    "usr/share/apport",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc-base",
    "usr/share/gdb",
    "usr/share/icons",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/pixmaps",
    "usr/share/vim",
    "usr/share/zsh",
)
# Tools and hooks of maintainer scripts, which never run.
DROPPED_PATHS = (
    "boot",
    "etc/ca-certificates",
    "etc/profile.d",
    "etc/skel",
    "etc/update-motd.d",
    "usr/lib/binfmt.d",
    "usr/sbin/update-ca-certificates",
    "var/backups",
)
# Only copyright files stay of the documentation: they are the licence evidence.
DOC_TREE = "usr/share/doc"
DOC_KEPT = "copyright"

# The stand-in for the script of ca-certificates: one bundle of all certificates, by name.
CERTIFICATES = "usr/share/ca-certificates/mozilla"
CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"

STATUS_DIRECTORY = "var/lib/dpkg/status.d"
STATUS_LINE = "Status: install ok installed"

# Aliases of a merged /usr; they come from base-files, so a child must not bring them again.
USR_ALIASES = ("bin", "lib", "lib64", "sbin")


def is_dropped(path: str, without: Sequence[str] = ()) -> bool:
    """Whether a file of a package at `path` (without a leading `/`) is left out.

    `without` is what the definition leaves out beyond the rules for all images.
    """
    if any(is_below(path, tree) for tree in (*DROPPED_TREES, *DROPPED_PATHS, *without)):
        return True
    if path.startswith(CERTIFICATES + "/") or path == CERTIFICATES:
        return True
    return path.startswith(DOC_TREE + "/") and posixpath.basename(path) != DOC_KEPT


def is_below(path: str, tree: str) -> bool:
    """Whether `path` is `tree` or lies in it."""
    return path == tree or path.startswith(tree + "/")


def mode_of(path: str, mode: int) -> int:
    """The mode that a package's entry gets: never setuid, setgid or, outside /tmp, world-writable."""
    return mode & (0o1777 if path == "tmp" else 0o775)


def status_text(control: str) -> str:
    """A package's entry for `status.d`: its control file with the status after the first line."""
    first, _, rest = control.rstrip("\n").partition("\n")
    return f"{first}\n{STATUS_LINE}\n{rest}\n"


def ca_bundle(certificates: Mapping[str, bytes]) -> bytes:
    """The bundle of the certificates (content by path), in the order of their names."""
    return b"".join(certificates[name] for name in sorted(certificates) if name.endswith(".crt"))
