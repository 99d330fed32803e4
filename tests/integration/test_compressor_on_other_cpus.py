"""The compressor gives the same bytes on CPUs with other instructions: digests depend on it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT
from tests.support.oracles import program

pytestmark = pytest.mark.integration
SCRIPT = """
import sys, hashlib, random
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from builder.oci.compress import compress
chance = random.Random(7)
words = [chance.randbytes(chance.randrange(2, 40)) for _ in range(300)]
data = b"".join(chance.choice(words) for _ in range(30_000)) + bytes(100_000) + chance.randbytes(100_000)
print(compress([data], Path(sys.argv[2]))[0], len(data))
"""


def compressed(tmp_path: Path, *emulator: str) -> str:
    done = subprocess.run(
        [*emulator, sys.executable, "-c", SCRIPT, str(ROOT), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("cpu", ["qemu64", "max"])
def test_an_emulated_cpu_gives_the_same_bytes(tmp_path: Path, cpu: str) -> None:
    installed = shutil.which("qemu-x86_64-static")
    emulator = Path(installed) if installed else program("qemu-x86_64", "trixie", "qemu-user")
    native = compressed(tmp_path)
    assert int(native.split()[1]) > 500_000
    assert compressed(tmp_path, str(emulator), "-cpu", cpu) == native
