"""Hardening rules about programs that an image has no business to bring."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from typing import Literal

from builder.checks.rule import RUNTIME, Facts, Rule
from builder.oci.filesystem import FileSystem

_SHELL = re.compile(r"(ba|da|a|z|k|mk|pdk|tc|c|r|rba|fi|yash|pw)?sh|(static-)?busybox|toybox|sash")
_PACKAGE_MANAGER = re.compile(
    r"apt(-get|-cache|-key|-config|-mark)?|aptitude|dpkg(-[a-z]+)?|rpm|yum|dnf5?|zypper|apk|pacman"
    r"|pip[0-9.]*|pipx|uv|conda|mamba|npm|npx|yarn|pnpm|gem|cargo|nix(-env)?|snap|flatpak"
)
# What Debian ships setuid or setgid, or what makes somebody else of its caller.
_PRIVILEGE_TOOL = re.compile(
    r"su|sudo|sudoedit|doas|pkexec|runuser|mount|umount|fusermount3?|passwd|chsh|chfn|newgrp|gpasswd|chage"
    r"|expiry|unix_chkpwd|ping|crontab|at|write|wall|newuidmap|newgidmap|setpriv|capsh|setcap"
)
# What maintainer scripts call; none runs in an image, so what is left of them serves an intruder.
_MAINTAINER_TOOL = re.compile(
    r"update-(alternatives|rc\.d|ca-certificates|passwd|shells|mime-database|perl-sax-parsers)"
    r"|(invoke|policy)-rc\.d|service|deb-systemd-(helper|invoke)|adduser|addgroup|deluser|delgroup"
    r"|(user|group)(add|del|mod)|chpasswd|chgpasswd|debconf(-[a-z-]+)?|ucf[qr]?|ischroot|shadowconfig"
    r"|add-shell|remove-shell|py3(compile|clean)|phpenmod|phpdismod|phpquery|a2en(mod|site|conf)"
)
_MAINTAINER_SCRIPT = re.compile(
    r"var/lib/dpkg/(info|status\.d)/.*\.(preinst|postinst|prerm|postrm|config|triggers)|etc/alternatives/README"
    r"|usr/share/debconf/confmodule.*"
)
_BUILD_TOOL = re.compile(
    r"([a-z0-9_]+-linux-gnu-)?(gcc|g\+\+|cc|c\+\+|cpp|clang(\+\+)?|ld(\.bfd|\.gold|\.lld)?|as|ar|make|gmake)"
    r"(-[0-9.]+)?|cmake|ninja|rustc|javac|go|gdb|gdbserver|strace|ltrace|perf|bpftrace"
)
_NETWORK_TOOL = re.compile(
    r"curl|wget2?|nc(\.traditional|\.openbsd)?|netcat|ncat|socat|telnet|ftp|tftp|ssh|scp|sftp|sshd|rsync"
    r"|tcpdump|nmap|ip|ifconfig|iptables|nft"
)


def _programs(files: FileSystem, names: re.Pattern[str]) -> Iterator[str]:
    """Paths of programs by name: executable anywhere, or anything but a folder in a bin folder."""
    for path, entry in sorted(files.entries.items()):
        folder, name = posixpath.split(path)
        if entry.kind == "directory" or not names.fullmatch(name):
            continue
        if posixpath.basename(folder) in ("bin", "sbin") or (entry.kind == "file" and entry.mode & 0o111):
            yield f"/{path} is there"


def _none_of(names: re.Pattern[str]) -> Callable[[Facts], Iterator[str]]:
    return lambda facts: _programs(facts.files, names)


def _no_maintainer_tools(facts: Facts) -> Iterator[str]:
    yield from _programs(facts.files, _MAINTAINER_TOOL)
    for path in sorted(facts.files.entries):
        if _MAINTAINER_SCRIPT.fullmatch(path):
            yield f"/{path} is there"


_SOURCE = "CIS Docker Benchmark 1.6.0, 4.3"
_NIST = f"{_SOURCE}; NIST SP 800-190, 4.1.2"


def _rule(
    level: Literal[1, 2],
    name: str,
    title: str,
    rationale: str,
    source: str,
    failures: Callable[[Facts], Iterator[str]],
) -> Rule:
    """A row of the table below: a rule about the files of runtime images."""
    return Rule(
        id=name,
        title=title,
        rationale=rationale,
        source=source,
        looks_at="files",
        level=level,
        variants=(RUNTIME,),
        failures=failures,
    )


RULES = (
    _rule(
        1,
        "no-shell",
        "There is no shell",
        "Most exploits end in a shell; without one an attacker has to bring everything along.",
        _NIST,
        _none_of(_SHELL),
    ),
    _rule(
        1,
        "no-package-manager",
        "There is no package manager",
        "What is in an image is decided when it is built; a package manager changes it afterwards.",
        _NIST,
        _none_of(_PACKAGE_MANAGER),
    ),
    _rule(
        1,
        "no-privilege-tools",
        "There are no programs that change who one is",
        "su, sudo, mount, passwd and the like are made for gaining rights. Without their setuid bit "
        "they are useless, with a bit that is set later they are dangerous.",
        f"{_SOURCE} and 4.8",
        _none_of(_PRIVILEGE_TOOL),
    ),
    _rule(
        2,
        "no-maintainer-tools",
        "There is nothing that maintainer scripts use, and no such script",
        "No maintainer script runs in an image, so their tools (accounts, alternatives, services) "
        "only serve whoever wants to change it.",
        f"{_SOURCE}; Debian Policy 4.7, chapter 6",
        _no_maintainer_tools,
    ),
    _rule(
        2,
        "no-build-tools",
        "There are no compilers, linkers or debuggers",
        "They turn source that is brought along into programs for this very machine, and read the "
        "memory of others. They belong in dev images.",
        _NIST,
        _none_of(_BUILD_TOOL),
    ),
    _rule(
        2,
        "no-network-tools",
        "There are no tools that fetch, forward or look into the network",
        "curl, ssh and nc fetch the next stage of an attack and carry data away.",
        _NIST,
        _none_of(_NETWORK_TOOL),
    ),
)
