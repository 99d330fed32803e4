"""How packages become a root file system, as data: both the rendered script and the direct
engine follow this page, so that they cannot drift apart.

No maintainer script ever runs. What the few needed ones would have made is made here.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

ASSEMBLY_VERSION = 2

# Documentation, translations and lint data: nothing a program needs at run time, or to be built.
DROPPED_TREES = (
    "usr/share/bug",
    "usr/share/doc-base",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
)
# In a runtime image also what starts, rotates or completes on a whole machine, and tools and
# hooks of maintainer scripts, which never run.
DROPPED_PATHS = (
    "boot",
    "etc/ca-certificates",
    "etc/cron.d",
    "etc/cron.daily",
    "etc/cron.monthly",
    "etc/cron.weekly",
    "etc/init.d",
    "etc/logrotate.d",
    "etc/profile.d",
    "etc/skel",
    "etc/ufw",
    "etc/update-motd.d",
    "usr/lib/binfmt.d",
    "usr/lib/systemd/system",
    "usr/lib/systemd/user",
    "usr/lib/tmpfiles.d",
    "usr/sbin/update-ca-certificates",
    "usr/share/applications",
    "usr/share/apport",
    "usr/share/bash-completion",
    "usr/share/gdb",
    "usr/share/icons",
    "usr/share/pixmaps",
    "usr/share/vim",
    "usr/share/zsh",
    "var/backups",
)
# Only copyright files stay of the documentation: they are the licence evidence.
DOC_TREE = "usr/share/doc"
DOC_KEPT = "copyright"

# The stand-in for the script of ca-certificates: one bundle of all certificates, by name.
CERTIFICATES = "usr/share/ca-certificates/mozilla"
CA_BUNDLE = "etc/ssl/certs/ca-certificates.crt"

# A runtime image has one file a package, as distroless images have it: an image built on it adds
# its own, and scanners read them all. A dev image has dpkg's real database.
STATUS_DIRECTORY = "var/lib/dpkg/status.d"
STATUS_LINE = "Status: install ok installed"
STATUS = "var/lib/dpkg/status"
INFO_DIRECTORY = "var/lib/dpkg/info"
TRIGGERS_DIRECTORY = "var/lib/dpkg/triggers"
FILE_TRIGGERS = f"{TRIGGERS_DIRECTORY}/File"
INFO_SCRIPTS = ("config", "postinst", "postrm", "preinst", "prerm")
_INFO_NAME = re.compile(r"[a-z][a-z0-9.-]*")
_TRIGGER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*")

# What the script of ca-certificates would have asked for: its certificates, one a line.
CERTIFICATES_CONFIGURATION = "etc/ca-certificates.conf"
CERTIFICATES_ROOT = "usr/share/ca-certificates"

# Aliases of a merged /usr; they come from base-files, so a child must not bring them again.
USR_ALIASES = ("bin", "lib", "lib64", "sbin")


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What was read of a package: its control archive, the names in its data archive, its certificates
    by path, and the MD5 sum of each configuration file that is kept, by its path.
    """

    name: str
    variant: str
    control: str
    members: Mapping[str, bytes]
    names: tuple[str, ...]
    certificates: Mapping[str, bytes]
    md5: Mapping[str, str]


def usr_aliases(architecture: str) -> tuple[str, ...]:
    """The aliases of a merged /usr that an architecture has: lib64 holds the loader of amd64 only."""
    return tuple(alias for alias in USR_ALIASES if alias != "lib64" or architecture == "amd64")


def dropped_paths(variant: str) -> tuple[str, ...]:
    """The trees of which nothing gets into an image of that variant."""
    return DROPPED_TREES if variant == "dev" else (*DROPPED_TREES, *DROPPED_PATHS, CERTIFICATES)


_DROPPED = {variant: frozenset(dropped_paths(variant)) for variant in ("runtime", "dev")}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a definition leaves out beyond the rules for all images, and what of it stays.

    Paths without a leading `/`, each with all below.
    """

    paths: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def named(self, path: str) -> Iterator[str]:
        """Those of its paths that are about `path`."""
        return (tree for tree in (*self.paths, *self.kept) if is_below(path, tree))


NOTHING = LeftOut()


def is_dropped(path: str, variant: str, left_out: LeftOut = NOTHING) -> bool:
    """Whether a file of a package at `path` (without a leading `/`) is left out."""
    trees, above, kept = _DROPPED["dev" if variant == "dev" else "runtime"], path, False
    while above:
        kept = kept or above in left_out.kept
        if above in trees or (above in left_out.paths and not kept):
            return True
        above = above.rpartition("/")[0]
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


def ca_configuration(certificates: Iterable[str]) -> bytes:
    """The list of the certificates (paths) that update-ca-certificates(8) reads."""
    names = sorted(posixpath.relpath(c, CERTIFICATES_ROOT) for c in certificates if c.endswith(".crt"))
    return "".join(f"{name}\n" for name in names).encode()


def info_name(control: str) -> str:
    """What dpkg calls a package in its database: NAME, or NAME:ARCH where several may be installed."""
    fields = dict(line.split(": ", 1) for line in control.splitlines() if re.match(r"[A-Za-z-]+: ", line))
    qualified = fields.get("Multi-Arch", "").strip() == "same"
    return fields["Package"].strip() + (f":{fields.get('Architecture', '').strip()}" if qualified else "")


def derived(package: Unpacked) -> Iterator[tuple[str, int, bytes]]:
    """(path, mode, content) of what is made from one package alone, in its variant."""
    if package.certificates:
        yield CA_BUNDLE, 0o644, ca_bundle(package.certificates)
    if package.variant == "dev":
        if package.certificates:
            yield CERTIFICATES_CONFIGURATION, 0o644, ca_configuration(package.certificates)
        yield from info_files(package.control, package.members, package.names)
        return
    status = f"{STATUS_DIRECTORY}/{package.name}"
    yield status, 0o644, status_text(package.control).encode()
    if package.members.get("md5sums"):
        yield f"{status}.md5sums", 0o644, package.members["md5sums"]


def info_files(
    control: str, members: Mapping[str, bytes], listed: Iterable[str]
) -> Iterator[tuple[str, int, bytes]]:
    """(path, mode, content) of what dpkg keeps of a package beside its status.

    `members` are the other files of its control archive, `listed` the names in its data archive.
    Source: dpkg's format 1 of /var/lib/dpkg/info.
    """
    name = info_name(control)
    for member in sorted(members):
        if _INFO_NAME.fullmatch(member):
            yield (
                f"{INFO_DIRECTORY}/{name}.{member}",
                0o755 if member in INFO_SCRIPTS else 0o644,
                members[member],
            )
    lines = [re.sub(r"^\.?/?", "/", entry).rstrip("/") or "/." for entry in listed]
    yield (
        f"{INFO_DIRECTORY}/{name}.list",
        0o644,
        "".join(f"{x}\n" for x in lines).encode("utf-8", "surrogateescape"),
    )


def appended(package: Unpacked) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) that a package of a dev image adds to the end of files that all packages share.

    Source: deb-conffiles(5), deb-triggers(5); dpkg's `status` and `triggers`.
    """
    if package.variant != "dev":
        return
    control, members, md5 = package.control, package.members, package.md5
    status = status_text(control)
    lines = [f" {path} {md5[path]}\n" for path in configuration_files(members) if path in md5]
    if lines:
        status += "Conffiles:\n" + "".join(lines)
    yield STATUS, (status + "\n").encode()
    for line in members.get("triggers", b"").decode("utf-8", "replace").splitlines():
        directive, *names = line.split("#")[0].split() or [""]
        if directive in ("interest", "interest-await", "interest-noawait") and len(names) == 1:
            who = info_name(control) + ("/noawait" if directive == "interest-noawait" else "")
            if names[0].startswith("/"):
                yield FILE_TRIGGERS, f"{names[0]} {who}\n".encode()
            elif _TRIGGER_NAME.fullmatch(names[0]):
                yield f"{TRIGGERS_DIRECTORY}/{names[0]}", f"{who}\n".encode()


def is_appended(path: str) -> bool:
    """Whether packages share the file: a child's continues its parent's."""
    return path == STATUS or path.startswith(TRIGGERS_DIRECTORY + "/")


def configuration_files(members: Mapping[str, bytes]) -> tuple[str, ...]:
    """The absolute paths that a package calls its configuration files (deb-conffiles(5))."""
    lines = members.get("conffiles", b"").decode("utf-8", "replace").splitlines()
    return tuple(line.strip() for line in lines if line.startswith("/"))
