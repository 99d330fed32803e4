"""Credentials of registries: a file for each host, for its owner alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.errors import UsageError
from builder.oci.auth import Credentials, Keyring, credentials_for

HOST = "127.0.0.1:5710"


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / HOST
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_file_of_a_host_holds_its_user(tmp_path: Path) -> None:
    assert credentials_for(tmp_path, HOST) is None
    written(tmp_path, "ann:a:b\n")
    assert credentials_for(tmp_path, HOST) == Credentials("ann", "a:b")
    assert credentials_for(tmp_path, "127.0.0.1:5711") is None
    assert credentials_for(tmp_path / "no", HOST) is None


@pytest.mark.parametrize("host", ["../x", "..", "", "a/b"])
def test_a_host_is_no_path(tmp_path: Path, host: str) -> None:
    (tmp_path / "x").write_text("ann:secret")
    (tmp_path / "in").mkdir()
    assert credentials_for(tmp_path / "in", host) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_what_others_can_read_is_no_secret(tmp_path: Path, mode: int) -> None:
    written(tmp_path, "ann:secret", mode)
    with pytest.raises(UsageError, match="other users may read"):
        credentials_for(tmp_path, HOST)


@pytest.mark.parametrize("text", ["", "ann", "ann:", ":secret", "ann:se\x07cret", "a:b\nc:d"])
def test_a_malformed_file_is_refused_without_its_text(tmp_path: Path, text: str) -> None:
    written(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        credentials_for(tmp_path, HOST)
    assert "secret" not in f"{raised.value.message}{raised.value.context}{raised.value.hint}"


def test_a_password_is_good_for_every_use_a_token_for_its_own() -> None:
    keys = Keyring(HOST, True, Credentials("ann", "secret"), frozenset())
    keys.keep("pull a", "Bearer x")
    assert (keys.header("pull a"), keys.header("push a")) == ("Bearer x", None)
    keys.keep("push a", keys.basic() or "")
    assert keys.header("pull b") == keys.basic()
    keys.forget("pull b")
    assert keys.header("pull c") is None
