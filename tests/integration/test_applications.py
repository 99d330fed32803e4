"""Real applications on golden images: built with the dev variant, run on the runtime variant."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import ToolError
from tests.support.applications import Kitchen, kitchen
from tests.support.archive import Archive

pytestmark = pytest.mark.integration
PYTHON = ("python:3.13-dev", "python:3.13")
GREETER = b"""
import datetime, sqlite3, ssl, sys, zoneinfo

def main():
    with sqlite3.connect(":memory:") as db:
        (name,) = db.execute("select upper(?)", sys.argv[1:2]).fetchone()
    noon = datetime.datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Zurich"))
    print("hello", name, noon.utcoffset(), ssl.create_default_context().cert_store_stats()["x509_ca"] > 100)
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kitchen]:
    with kitchen(tmp_path_factory.mktemp("kitchen")) as found:
        yield found


def wheel() -> bytes:
    """A package with a command, as pip installs it (binary distribution format, PEP 427)."""
    files = {
        "greeter.py": GREETER,
        "greeter-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n",
        "greeter-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "greeter-1.0.dist-info/entry_points.txt": b"[console_scripts]\ngreeter = greeter:main\n",
    }
    record = "greeter-1.0.dist-info/RECORD,,\n"
    for name, data in files.items():
        sha = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={sha},{len(data)}\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in {**files, "greeter-1.0.dist-info/RECORD": record.encode()}.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_a_python_package_is_installed_in_dev_and_runs_in_runtime(here: Kitchen) -> None:
    dev, runtime = PYTHON
    built = here.cook(
        """
FROM $DEV AS build
COPY wheels /wheels
RUN python3 -m venv /app && /app/bin/pip install --quiet --no-index --find-links /wheels greeter
FROM $RUNTIME
COPY --from=build /app /app
ENTRYPOINT ["/app/bin/greeter"]
""",
        {"wheels/greeter-1.0-py3-none-any.whl": wheel()},
        dev=dev,
        runtime=runtime,
    )
    assert here.serve(built, "world") == "hello WORLD 2:00:00 True\n"
    with pytest.raises(ToolError):
        here.cook("FROM $RUNTIME\nRUN echo there is a shell\n", {}, dev=dev, runtime=runtime)


def test_apt_in_a_dev_image_installs_from_the_mirror_that_is_named(here: Kitchen, tmp_path: Path) -> None:
    archive = Archive(tmp_path / "archive", dt.datetime.now(dt.UTC))
    archive.add("greeting", files={"usr/share/greeting": b"from the mirror\n"}, depends="libc6")
    archive.publish()
    files = {
        f"archive/{p.relative_to(archive.root)}": p.read_bytes()
        for p in archive.root.rglob("*")
        if p.is_file()
    }
    files["mirrors/debian.list"] = b"file:/archive/debian\n"
    files["mirrors/debian-security.list"] = b"file:/archive/debian-security\n"
    mounts = "--mount=type=bind,source=mirrors,target=/etc/apt/mirrors"
    mirror = "--mount=type=bind,source=archive,target=/archive"
    keys = (
        "--mount=type=bind,source=archive/archive-keyring.gpg,"
        "target=/usr/share/keyrings/debian-archive-keyring.gpg"
    )
    built = here.cook(
        f"""
FROM $DEV
RUN {mounts} {mirror} {keys} apt-get update && apt-get install -y greeting && apt-get check \\
    && dpkg --audit && dpkg --verify greeting
ENTRYPOINT ["/usr/bin/cat", "/usr/share/greeting"]
""",
        files,
        dev=PYTHON[0],
        runtime=PYTHON[1],
    )
    assert here.serve(built) == "from the mirror\n"
