"""The files that no package brings: accounts, links, directories, and apt's configuration of dev images."""

from __future__ import annotations

from collections.abc import Iterator

from builder.model.assembly import CA_BUNDLE, usr_aliases
from builder.model.image import APPENDED, JAVA_TRUST_STORE, GeneratedEntry, Target
from builder.model.platform import Platform

NONROOT = 65532
# What every dev image starts with: Debian's essential packages, which scripts of packages count on,
# and apt. Others come from the definition.
DEV_PACKAGES = (
    *("apt", "base-passwd", "bash", "bsdutils", "coreutils", "dash", "debian-archive-keyring", "debianutils"),
    *("diffutils", "dpkg", "findutils", "grep", "gzip", "hostname", "init-system-helpers", "libc-bin"),
    *("mawk", "ncurses-base", "ncurses-bin", "perl-base", "sed", "sysvinit-utils", "tar", "util-linux"),
)
# What the scripts of mawk and debianutils would have made.
_DEV_LINKS = {"/usr/bin/awk": "/usr/bin/mawk", "/usr/bin/which": "/usr/bin/which.debianutils"}
DEV_ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive"}
DEV_COMMAND = ("/usr/bin/bash",)
MIRRORS = "/etc/apt/mirrors"  # a file for each archive, with the addresses of its mirrors
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_NOLOGIN = "/usr/sbin/nologin"


def generated(target: Target, platform: Platform, is_root: bool) -> tuple[GeneratedEntry, ...]:
    """What the definition adds to the packages, by path; `is_root` says that no image is below."""
    entries = {e.path: e for e in (*_steps(target, platform), *_users(target, is_root))}
    if target.variant == "dev":
        links = {**(_DEV_LINKS if is_root else {}), **target.stream.dev.links}
        for path, to in links.items():
            entries[path] = _link(for_platform(platform, path), for_platform(platform, to))
    if is_root:
        entries |= {e.path: e for e in _foundation(target, platform)}
    if target.variant == "dev":
        entries |= {e.path: e for e in _apt(target, is_root)}
    return tuple(sorted(entries.values(), key=lambda e: e.path))


def for_platform(platform: Platform, path: str) -> str:
    """A path of the definition, with Debian's names of the architecture in their place."""
    return path.replace("{architecture}", platform.debian).replace("{multiarch}", platform.multiarch)


def _steps(target: Target, platform: Platform) -> Iterator[GeneratedEntry]:
    """What the definition's typed steps make."""
    stream = target.stream
    for path, to in stream.links.items():
        yield _link(for_platform(platform, path), for_platform(platform, to))
    for path, file in stream.files.items():
        yield GeneratedEntry(path, "file", int(file.mode, 8), content=target.files[file.source])
    for path, directory in stream.directories.items():
        yield GeneratedEntry(path, "directory", int(directory.mode, 8), owner=_owner(target, directory.owner))
    if stream.certificates:
        added = b"".join(target.files[c.source].rstrip(b"\n") + b"\n" for c in stream.certificates)
        yield GeneratedEntry(f"/{CA_BUNDLE}", "file", 0o644, content=added, derived=APPENDED)
    yield from target.made.entries.get(platform, ())
    if stream.java_trust_store:
        yield GeneratedEntry(stream.java_trust_store, "file", 0o644, derived=JAVA_TRUST_STORE)


def _owner(target: Target, name: str) -> int:
    known = {"root": 0, "nonroot": NONROOT}
    return known[name] if name in known else target.stream.users[name].id


def _users(target: Target, is_root: bool) -> Iterator[GeneratedEntry]:
    """The accounts of the definition, after those of the image below."""
    passwd, group = _account_lines(target)
    if passwd and not is_root:
        yield GeneratedEntry("/etc/passwd", "file", 0o644, content=passwd.encode(), derived=APPENDED)
        yield GeneratedEntry("/etc/group", "file", 0o644, content=group.encode(), derived=APPENDED)


def _account_lines(target: Target) -> tuple[str, str]:
    users = sorted(target.stream.users.items(), key=lambda item: item[1].id)
    passwd = "".join(f"{name}:x:{u.id}:{u.id}:{name}:{u.home}:{_NOLOGIN}\n" for name, u in users)
    return passwd, "".join(f"{name}:x:{u.id}:\n" for name, u in users)


def _foundation(target: Target, platform: Platform) -> list[GeneratedEntry]:
    passwd, group = (_passwd(_DEV), _group(_DEV)) if target.variant == "dev" else (_PASSWD, _GROUP)
    users, groups = _account_lines(target)
    return [
        *(_link(f"/{alias}", f"usr/{alias}") for alias in usr_aliases(platform.architecture)),
        _file("/etc/passwd", passwd + users),
        _file("/etc/group", group + groups),
        _file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        GeneratedEntry("/home/nonroot", "directory", 0o700, owner=NONROOT),
        GeneratedEntry("/root", "directory", 0o700),
        GeneratedEntry("/tmp", "directory", 0o1777),  # noqa: S108 - the image's, not ours
    ]


def _apt(target: Target, is_root: bool) -> list[GeneratedEntry]:
    """A working apt, whose mirror is named by who builds, or by the catalogue."""
    out = []
    if is_root:
        out += [
            _file("/etc/apt/sources.list.d/debian.sources", _sources(target.stream.suite)),
            _file("/etc/apt/apt.conf.d/90goldsmith", _CONFIGURATION),
            _file("/etc/dpkg/dpkg.cfg.d/goldsmith", _DPKG),
            _file("/var/lib/dpkg/info/format", "1\n"),
            GeneratedEntry(MIRRORS, "directory", 0o755),
        ]
    main, comma, security = (target.stream.dev.mirror or "").partition(",")
    if comma:
        out += [
            _file(f"{MIRRORS}/debian.list", f"{main.rstrip('/')}\n"),
            _file(f"{MIRRORS}/debian-security.list", f"{security.rstrip('/')}\n"),
        ]
    return out


def _sources(suite: str) -> str:
    """deb822 sources over mirror lists (sources.list(5), apt-transport-mirror(1))."""
    return "\n".join(
        f"Types: deb\nURIs: mirror+file:{MIRRORS}/{archive}.list\nSuites: {suites}\n"
        f"Components: main\nSigned-By: {_KEYRING}\n"
        for archive, suites in (
            ("debian", f"{suite} {suite}-updates"),
            ("debian-security", f"{suite}-security"),
        )
    )


# A mirror that cannot be reached fails the build; nothing is installed that was not asked for.
_CONFIGURATION = """\
APT::Install-Recommends "false";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "3";
"""
# What images leave out of packages stays out of those that are installed later.
_DPKG = """\
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/info/*
path-exclude=/usr/share/lintian/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/man/*
"""

_PASSWD = (
    f"root:x:0:0:root:/root:{_NOLOGIN}\n"
    f"nobody:x:65534:65534:nobody:/nonexistent:{_NOLOGIN}\n"
    f"nonroot:x:{NONROOT}:{NONROOT}:nonroot:/home/nonroot:{_NOLOGIN}\n"
)
_GROUP = f"root:x:0:\nnogroup:x:65534:\nnonroot:x:{NONROOT}:\n"
# Debian's static accounts (base-passwd) and that of apt, which packages' scripts rely on.
# Name: (user, home).
_DEV = {
    "root": (0, "/root"),
    "daemon": (1, "/usr/sbin"),
    "bin": (2, "/bin"),
    "sys": (3, "/dev"),
    "games": (5, "/usr/games"),
    "man": (6, "/var/cache/man"),
    "lp": (7, "/var/spool/lpd"),
    "mail": (8, "/var/mail"),
    "news": (9, "/var/spool/news"),
    "uucp": (10, "/var/spool/uucp"),
    "proxy": (13, "/bin"),
    "www-data": (33, "/var/www"),
    "backup": (34, "/var/backups"),
    "list": (38, "/var/list"),
    "irc": (39, "/run/ircd"),
    "_apt": (42, "/nonexistent"),
    "nobody": (65534, "/nonexistent"),
    "nonroot": (NONROOT, "/home/nonroot"),
}
_GROUPS = {
    "adm": 4,
    "tty": 5,
    "disk": 6,
    "kmem": 15,
    "dialout": 20,
    "fax": 21,
    "voice": 22,
    "cdrom": 24,
    "floppy": 25,
    "tape": 26,
    "sudo": 27,
    "audio": 29,
    "dip": 30,
    "operator": 37,
    "src": 40,
    "shadow": 42,
    "utmp": 43,
    "video": 44,
    "sasl": 45,
    "plugdev": 46,
    "staff": 50,
    "games": 60,
    "users": 100,
    "nogroup": 65534,
}
# Accounts whose group has another name, or whose group's number is another.
_OWN_GROUP = {"games": 60, "man": 12, "_apt": 65534, "nobody": 65534}


def _passwd(accounts: dict[str, tuple[int, str]]) -> str:
    return "".join(
        f"{name}:x:{uid}:{_OWN_GROUP.get(name, uid)}:{name}:{home}:{_NOLOGIN}\n"
        for name, (uid, home) in accounts.items()
    )


def _group(accounts: dict[str, tuple[int, str]]) -> str:
    own = {n: _OWN_GROUP.get(n, uid) for n, (uid, _) in accounts.items() if n not in ("_apt", "nobody")}
    groups = sorted({**own, **_GROUPS}.items(), key=lambda item: item[1])
    return "".join(f"{name}:x:{gid}:\n" for name, gid in groups)


def _file(path: str, text: str) -> GeneratedEntry:
    return GeneratedEntry(path, "file", 0o644, content=text.encode())


def _link(path: str, target: str) -> GeneratedEntry:
    return GeneratedEntry(path, "link", 0o777, target=target)


# What no definition may take: accounts and groups that images have, or that packages count on.
RESERVED_NAMES = frozenset({*_DEV, *_GROUPS})
RESERVED_IDS = frozenset({NONROOT, 65533, 65534, 65535})
