"""Whether programs of another platform can run here; and an index without those that cannot."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.model.platform import Platform
from builder.tools import emulator
from builder.tools.emulator import NATIVE, find_emulator

ARM64 = Platform("linux", "arm64")


@pytest.fixture(autouse=True)
def amd64_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulator.host, "machine", lambda: "x86_64")


def program(folder: Path, name: str, kinds: tuple[int, ...]) -> Path:
    """A little-endian 64-bit ELF program with these segments."""
    head = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack(
        "<QQIHHHHHH", 64, 0, 0, 64, 56, len(kinds), 0, 0, 0
    )
    path = folder / name
    path.write_bytes(head + b"".join(struct.pack("<I", kind).ljust(56, b"\0") for kind in kinds))
    path.chmod(0o755)
    return path


def find(folder: Path) -> emulator.Emulator:
    return find_emulator(ARM64, {"PATH": str(folder)}, folder / "binfmt")


def test_ones_own_programs_need_nothing(tmp_path: Path) -> None:
    assert find_emulator(Platform("linux", "amd64"), {"PATH": ""}, tmp_path) == NATIVE


@pytest.mark.parametrize(
    ("said", "native"),
    [("enabled\nflags: OCF\n", True), ("enabled\nflags: OC\n", False), ("disabled\nflags: OCF\n", False)],
)
def test_the_kernel_starts_foreign_programs_when_it_holds_the_interpreter(
    tmp_path: Path, said: str, native: bool
) -> None:
    (tmp_path / "binfmt").mkdir()
    (tmp_path / "binfmt" / "qemu-aarch64").write_text(said)
    expected = program(tmp_path, "qemu-aarch64-static", (1,))
    found = find(tmp_path)
    assert found.program == (None if native else expected)
    assert found.slow


def test_a_program_that_needs_libraries_cannot_be_bound(tmp_path: Path) -> None:
    program(tmp_path, "qemu-aarch64", (1, 3))
    with pytest.raises(ToolError) as caught:
        find(tmp_path)
    assert "needs libraries" in caught.value.context
    assert "qemu-user" in caught.value.hint
    static = program(tmp_path, "qemu-aarch64-static", (1,))
    assert find(tmp_path).program == static


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + bytes(10)])
def test_what_is_no_program_is_not_taken(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "qemu-aarch64-static"
    path.write_bytes(content)
    path.chmod(0o755)
    with pytest.raises(ToolError):
        find(tmp_path)
