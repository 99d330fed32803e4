"""Tokens that we sign ourselves: for one use, for a short time, and by a reader for reading alone."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509

from builder.errors import RegistryError, UsageError
from builder.oci.auth import READER, Keyring, credentials_for
from builder.oci.issuer import LIFE_SECONDS, Issuer, certificate_of, is_good, new_pem

HOST = "127.0.0.1:5710"
NOW = dt.datetime(2026, 11, 22, 8, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def pem() -> bytes:
    return new_pem(NOW, writes=True)


def issuer(pem: bytes, *, writes: bool = True, now: float = NOW.timestamp()) -> Issuer:
    return Issuer.parse(pem, writes=writes, now=lambda: now)


def claims(pem: bytes, header: str) -> dict[str, Any]:
    key: Any = x509.load_pem_x509_certificate(pem).public_key()
    token = header.removeprefix("Bearer ")
    return jwt.decode(
        token, key, ["ES256"], audience="goldsmith-storage", issuer="goldsmith", options={"verify_exp": False}
    )


@pytest.mark.parametrize(
    ("use", "granted"),
    [
        ("ping", {}),
        ("catalog", {"catalog": ["*"]}),
        ("pull a/b", {"a/b": ["pull"]}),
        ("push a/b", {"a/b": ["pull", "push"]}),
        ("push a/b mount c", {"a/b": ["pull", "push"], "c": ["pull"]}),
        ("cancel a/b", {"a/b": ["delete"]}),
    ],
)
def test_a_token_grants_what_its_use_needs(pem: bytes, use: str, granted: dict[str, list[str]]) -> None:
    said = claims(pem, issuer(pem).header(use))
    assert {one["name"]: one["actions"] for one in said["access"]} == granted
    assert said["exp"] - said["iat"] == LIFE_SECONDS <= 300


def test_a_reader_signs_nothing_but_reading(pem: bytes) -> None:
    reader = issuer(pem, writes=False)
    assert [one["actions"] for one in claims(pem, reader.header("pull a"))["access"]] == [["pull"]]
    for use in ("push a", "push a mount b", "cancel a"):
        with pytest.raises(RegistryError, match="does not write"):
            reader.header(use)


def test_a_token_is_used_again_while_it_is_fresh_whatever_the_clock_does(pem: bytes) -> None:
    at = [NOW.timestamp()]
    signing = Issuer.parse(pem, writes=True, now=lambda: at[0])
    first = signing.header("pull a")
    at[0] += 60
    assert signing.header("pull a") == first != signing.header("pull b")
    for step in (LIFE_SECONDS, -7200):
        at[0] += step
        assert claims(pem, signing.header("pull a"))["iat"] == int(at[0])


def test_what_is_kept_is_bounded(pem: bytes) -> None:
    signing = issuer(pem)
    for number in range(300):
        signing.header(f"pull r{number}")
    assert len(signing._kept) <= 256


def test_a_key_lasts_and_is_renewed_in_time(pem: bytes) -> None:
    assert is_good(pem, NOW) and is_good(pem, NOW + dt.timedelta(days=3000))
    assert not is_good(pem, NOW + dt.timedelta(days=3600))
    assert not is_good(b"goldsmith:password\n", NOW) and not is_good(b"", NOW)
    assert b"PRIVATE" not in certificate_of(pem)


def test_the_file_of_a_host_may_hold_a_key_and_readers_have_their_own(tmp_path: Path, pem: bytes) -> None:
    def put(name: str, data: bytes, mode: int = 0o600) -> None:
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(mode)

    put(HOST, pem)
    writer, only = credentials_for(tmp_path, HOST), credentials_for(tmp_path, HOST, writes=False)
    assert isinstance(writer, Issuer) and writer.header("push a")
    assert only is not None
    with pytest.raises(
        RegistryError, match="does not write"
    ):  # also with the writer's key, if there is no other
        only.header("push a")
    theirs = new_pem(NOW, writes=False)
    put(HOST + READER, theirs)
    reader = credentials_for(tmp_path, HOST, writes=False, now=NOW.timestamp)
    assert reader is not None and claims(theirs, reader.header("pull a"))["sub"] == "reader"
    put(HOST + READER, theirs, 0o640)
    with pytest.raises(UsageError, match="other users may read"):
        credentials_for(tmp_path, HOST, writes=False)


def test_a_malformed_key_is_refused_without_its_text(tmp_path: Path, pem: bytes) -> None:
    (tmp_path / HOST).touch(0o600)
    other = certificate_of(new_pem(NOW, writes=True))
    key = pem[: pem.index(b"-----BEGIN CERT")]
    for bad in (key, certificate_of(pem), key + other, pem[:200]):
        (tmp_path / HOST).write_bytes(bad)
        with pytest.raises(UsageError) as raised:
            credentials_for(tmp_path, HOST)
        assert "BEGIN" not in f"{raised.value.message}{raised.value.context}{raised.value.hint}"


def test_who_signs_tokens_asks_nobody(pem: bytes) -> None:
    keys = Keyring(HOST, True, issuer(pem), frozenset())
    assert (keys.header("pull a") or "").startswith("Bearer ") and not keys.asks and keys.basic() is None
