"""Small root file systems that run: programs of this machine and the libraries they need."""

from __future__ import annotations

import gzip
import io
import re
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from builder.model.digest import Digest
from builder.model.image import LAYER_TYPE, Descriptor, Layer
from builder.oci.layout import write_blob
from tests.support.requires import tool

_LIBRARY = re.compile(r"(/\S+) \(0x")


def host_programs(*names: str) -> dict[str, bytes]:
    """The programs at /usr/bin/NAME, and every library that ldd names, where the program wants it."""
    files: dict[str, bytes] = {}
    for name in names:
        path = tool(name)
        files[f"usr/bin/{name}"] = path.read_bytes()
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for library in _LIBRARY.findall(listed):
            files[library.lstrip("/")] = Path(library).read_bytes()
    return files


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """An uncompressed tar of executable files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def layer(layout: Path, files: Mapping[str, bytes]) -> Layer:
    """The files as a layer of `layout`."""
    tar = tar_of(files)
    blob = gzip.compress(tar, compresslevel=1, mtime=0)
    return Layer(Descriptor(LAYER_TYPE, write_blob(layout, blob), len(blob)), Digest.of(tar), "test")
