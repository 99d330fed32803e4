"""Running programs of another architecture: by the kernel (binfmt_misc), or by QEMU bound into a container.

Source: the kernel's admin-guide/binfmt-misc.rst; qemu-user(1).
"""

from __future__ import annotations

import contextlib
import platform as host
import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ToolError
from builder.model.platform import Platform

BINFMT = Path("/proc/sys/fs/binfmt_misc")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_SEGMENT_INTERPRETER = 3  # PT_INTERP of elf(5)
_REGISTERED_MAX = 4096  # bytes


@dataclass(frozen=True, slots=True)
class Emulator:
    """How programs of a platform run here; `program` is to be bound into containers, None is for nothing.

    `slow` says that they are emulated, by whomever.
    """

    program: Path | None = None
    slow: bool = False


NATIVE = Emulator()


def find_emulator(platform: Platform, environment: Mapping[str, str], binfmt: Path = BINFMT) -> Emulator:
    """What is needed to run programs of `platform` on this machine; raises ToolError when they cannot run."""
    machine = _MACHINES[platform.architecture]
    if host.machine() == machine:
        return NATIVE
    if _registered(binfmt / f"qemu-{machine}"):
        return Emulator(slow=True)
    dynamic = ""
    for name in (f"qemu-{machine}-static", f"qemu-{machine}"):
        found = shutil.which(name, path=environment.get("PATH"))
        if found and _is_static(Path(found)):
            return Emulator(Path(found).resolve(), slow=True)
        dynamic = dynamic or found or ""
    raise ToolError(
        f"programs of {platform} cannot run on this machine",
        context=f"{dynamic} needs libraries, which no image has" if dynamic else "",
        hint="install the Debian package qemu-user-static (or qemu-user of Debian 13)",
    )


def runnable(environment: Mapping[str, str]) -> list[str]:
    """The platforms whose programs can run here, natively or emulated."""
    found = []
    for architecture in sorted(_MACHINES):
        platform = Platform("linux", architecture)
        with contextlib.suppress(ToolError):
            find_emulator(platform, environment)
            found.append(str(platform))
    return found


def _registered(entry: Path) -> bool:
    """Whether the kernel starts such programs, in containers too: the flag F keeps the interpreter open."""
    try:
        with open(entry, encoding="ascii", errors="replace") as handle:
            lines = handle.read(_REGISTERED_MAX).splitlines()
    except OSError:
        return False
    return "enabled" in lines and any(x.startswith("flags:") and "F" in x for x in lines)


def _is_static(path: Path) -> bool:
    """Whether a 64-bit ELF program asks for no interpreter (elf(5), program headers)."""
    try:
        with open(path, "rb") as handle:
            head = handle.read(64)
            if len(head) < 64 or head[:5] != b"\x7fELF\x02":
                return False
            order = "<" if head[5] == 1 else ">"
            (offset,) = struct.unpack_from(order + "Q", head, 32)
            size, count = struct.unpack_from(order + "HH", head, 54)
            handle.seek(offset)
            table = handle.read(size * count)
        kinds = [struct.unpack_from(order + "I", table, n * size)[0] for n in range(count)]
    except (OSError, struct.error):
        return False
    return _SEGMENT_INTERPRETER not in kinds
