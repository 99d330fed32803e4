"""The proxy of the host's apt, asked of a real or a broken `apt-config`."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.tools.proxy import with_host_proxy

LOOPBACK = "127.0.0.1,localhost,::1"


def environment(folder: Path, script: str | None) -> dict[str, str]:
    """A PATH whose `apt-config` is `script`."""
    folder.mkdir()
    if script is not None:
        (folder / "apt-config").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "apt-config").chmod(0o755)
    return {"PATH": str(folder)}


def test_the_proxy_of_apt_is_found(tmp_path: Path) -> None:
    given = environment(
        tmp_path / "bin", "echo \"http_proxy='http://proxy.example:3128'\"; echo \"https_proxy='DIRECT'\""
    )
    assert with_host_proxy(given) == {
        **given,
        "http_proxy": "http://proxy.example:3128",
        "no_proxy": LOOPBACK,
    }


def test_the_environment_goes_first(tmp_path: Path) -> None:
    given = {
        **environment(tmp_path / "bin", "echo \"http_proxy='http://other.example'\""),
        "https_proxy": "http://proxy.example",
        "no_proxy": "intranet.example",
    }
    assert with_host_proxy(given) == {**given, "no_proxy": f"intranet.example,{LOOPBACK}"}


@pytest.mark.parametrize(
    "script",
    [None, "true", "exit 1", "echo garbage", "echo \"http_proxy='javascript:alert(1)'\"", "printf '\\377='"],
)
def test_no_proxy_is_found_and_nothing_breaks(tmp_path: Path, script: str | None) -> None:
    given = environment(tmp_path / "bin", script)
    assert with_host_proxy(given) == given
