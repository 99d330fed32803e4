"""Keys: made once, private, one per role, and never silently the wrong one."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from builder.errors import ToolError, UsageError
from builder.settings import KEY_ROLES
from builder.signing.keys import ROLES, WITNESS, PublicKey, RoleSigner, create_keys, load_keys, open_signer
from builder.signing.trust import Trust
from tests.support.evidence import PASSPHRASE


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_keys_sign_and_their_public_keys_verify(tmp_path: Path) -> None:
    create_keys(tmp_path / "keys", {}, None)
    keys, trust = load_keys(tmp_path / "keys", {}, None), Trust.load(tmp_path / "keys")
    for signer in (keys.builder, keys.verdict):
        signature = signer.sign(b"data")
        assert trust.current(signer.role).verifies(signature, b"data")
        assert not trust.current(signer.role).verifies(signature, b"other")
        assert not trust.current(signer.role).verifies(b"", b"data")
    assert not trust.current("verdict").verifies(keys.builder.sign(b"data"), b"data")


def test_private_files_are_private_and_encrypted(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    create_keys(folder, {}, None)
    assert _mode(folder) == 0o700
    for name in ("builder.key", "verdict.key", "passphrase"):
        assert _mode(folder / name) == 0o600
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (folder / "builder.key").read_bytes()


def test_a_second_init_changes_nothing(tmp_path: Path) -> None:
    first, generated = create_keys(tmp_path, {}, None)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    second, again = create_keys(tmp_path, {}, None)
    assert (generated, again) == (True, False)
    assert [s.created for s in first] == [True] * 4
    assert [s.created for s in second] == [False] * 4
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_given_passphrase_is_never_written(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    assert not (tmp_path / "passphrase").exists()
    assert not any(PASSPHRASE.encode() in p.read_bytes() for p in tmp_path.iterdir())
    load_keys(tmp_path, {}, PASSPHRASE)


def test_init_mends_a_lost_public_key(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    before = (tmp_path / "builder.pub").read_bytes()
    (tmp_path / "builder.pub").unlink()
    create_keys(tmp_path, {}, PASSPHRASE)
    assert (tmp_path / "builder.pub").read_bytes() == before


def test_signatures_are_deterministic(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    keys = load_keys(tmp_path, {}, PASSPHRASE)
    assert keys.builder.sign(b"data") == keys.builder.sign(b"data")


def test_a_wrong_passphrase_is_a_clear_error(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    with pytest.raises(UsageError, match="passphrase does not open"):
        load_keys(tmp_path, {}, "another passphrase")
    with pytest.raises(UsageError, match="shorter than"):
        load_keys(tmp_path, {}, "short")
    with pytest.raises(UsageError, match="no passphrase"):
        create_keys(tmp_path, {}, None)


def test_missing_keys_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        load_keys(tmp_path, {}, None)
    assert "goldsmith init" in raised.value.hint


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    (tmp_path / "builder.key").chmod(0o644)
    with pytest.raises(UsageError, match="other users may read"):
        load_keys(tmp_path, {}, PASSPHRASE)


def test_an_unencrypted_private_key_is_refused(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    plain = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "builder.key").write_bytes(plain)
    with pytest.raises(UsageError, match="not encrypted"):
        load_keys(tmp_path, {}, PASSPHRASE)


def test_roles_may_not_share_a_key(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    for suffix in ("key", "pub"):
        (tmp_path / f"verdict.{suffix}").write_bytes((tmp_path / f"builder.{suffix}").read_bytes())
    with pytest.raises(UsageError, match="share one key"):
        load_keys(tmp_path, {}, PASSPHRASE)
    with pytest.raises(UsageError, match="share one key"):
        Trust.load(tmp_path)


def test_a_private_key_of_another_pair_is_found_before_anything_is_signed(tmp_path: Path) -> None:
    create_keys(tmp_path / "a", {}, PASSPHRASE)
    create_keys(tmp_path / "b", {}, PASSPHRASE)
    (tmp_path / "a" / "builder.key").write_bytes((tmp_path / "b" / "builder.key").read_bytes())
    with pytest.raises(UsageError, match="not the public key"):
        load_keys(tmp_path / "a", {}, PASSPHRASE)


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"not a key",
        ec.generate_private_key(ec.SECP384R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["empty", "text", "another curve"],
)
def test_only_p256_public_keys_are_trusted(pem: bytes) -> None:
    with pytest.raises(UsageError, match="not an ECDSA P-256 public key"):
        PublicKey.parse("builder", pem, "builder.pub")


def test_a_signer_uri_takes_the_place_of_the_file(tmp_path: Path) -> None:
    """A key outside of our folder, through securesystemslib's table of schemes."""
    private = ec.generate_private_key(ec.SECP256R1())
    elsewhere = tmp_path / "elsewhere.pem"
    elsewhere.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    folder, uris = tmp_path / "keys", {"verdict": f"file2:{elsewhere}"}
    folder.mkdir()
    (folder / "verdict.pub").write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    states, _ = create_keys(folder, uris, PASSPHRASE)
    assert not (folder / "verdict.key").exists()
    assert [s.private for s in states if s.role == "verdict"] == [uris["verdict"]]
    signature = load_keys(folder, uris, PASSPHRASE).verdict.sign(b"data")
    private.public_key().verify(signature, b"data", ec.ECDSA(SHA256()))


def test_a_key_elsewhere_needs_its_public_key_here(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="public key of the role 'verdict'") as raised:
        create_keys(tmp_path, {"verdict": "hsm:2?label=verdict"}, PASSPHRASE)
    assert "hsm:2?label=verdict" in raised.value.hint


def test_an_unknown_uri_scheme_is_a_usage_error(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    with pytest.raises(UsageError, match="cannot be used") as raised:
        load_keys(tmp_path, {"builder": "ftp://key"}, PASSPHRASE)
    assert "GOLDSMITH_BUILDER_KEY" in raised.value.hint


def test_a_kms_without_its_library_is_a_tool_error(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    with pytest.raises(ToolError, match="could not be reached"):
        load_keys(tmp_path, {"builder": "awskms:alias/nothing"}, PASSPHRASE)


class _Backend:
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def sign(self, payload: bytes) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class _Answer:
    signature = "3006020101020101"


@pytest.mark.parametrize(
    ("answer", "message"),
    [(OSError("the KMS is down"), "could not sign"), (_Answer(), "does not belong")],
)
def test_a_backend_that_fails_or_lies_signs_nothing(tmp_path: Path, answer: object, message: str) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    signer = RoleSigner(Trust.load(tmp_path).current("builder"), _Backend(answer))
    with pytest.raises(ToolError, match=message):
        signer.sign(b"data")


def test_the_hint_is_the_hash_of_the_der_key() -> None:
    pem = (
        b"-----BEGIN PUBLIC KEY-----\n"
        b"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt\n"
        b"6zOg9KE5RdiYwpZP40Li/hp/m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q==\n"
        b"-----END PUBLIC KEY-----\n"
    )
    key = PublicKey.parse("builder", pem, "test")
    assert key.hint == "XNJS+wzokyQ2+vjM0QQJgbie5K1rn+niorfnGqyyfNM="


@pytest.mark.parametrize("role", ["root", "builder", "verdict", "approver"])
def test_each_role_has_a_key_of_its_own(tmp_path: Path, role: str) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    signer = open_signer(tmp_path, role, {}, PASSPHRASE)
    signature = signer.sign(b"data")
    assert signer.role == role
    pems = [(tmp_path / f"{r}.pub").read_bytes() for r in ROLES]
    assert len(set(pems)) == len(ROLES)
    assert [PublicKey.parse(role, pem, role).verifies(signature, b"data") for pem in pems] == [
        r == role for r in ROLES
    ]


def test_each_role_can_be_named_in_the_settings() -> None:
    assert (*ROLES, WITNESS) == KEY_ROLES


def test_publishing_needs_neither_root_nor_approver(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    for name in ("root.key", "root.pub", "approver.key", "approver.pub"):
        (tmp_path / name).unlink()
    load_keys(tmp_path, {}, PASSPHRASE)
    Trust.load(tmp_path)
    with pytest.raises(UsageError, match=r"no usable root\.pub") as missing:
        open_signer(tmp_path, "root", {}, PASSPHRASE)
    assert "--trust" in missing.value.hint  # who only verifies makes no keys


def test_a_folder_of_two_roles_gets_the_other_two(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    for role in ("root", "approver"):
        (tmp_path / f"{role}.key").unlink()
        (tmp_path / f"{role}.pub").unlink()
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    states, _ = create_keys(tmp_path, {}, PASSPHRASE)
    assert {s.role: s.created for s in states} == {
        "root": True,
        "builder": False,
        "verdict": False,
        "approver": True,
    }
    assert before.items() <= {p.name: p.read_bytes() for p in tmp_path.iterdir()}.items()


def test_a_root_key_that_is_kept_elsewhere_stays_there(tmp_path: Path) -> None:
    create_keys(tmp_path, {}, PASSPHRASE)
    (tmp_path / "root.key").unlink()
    states, _ = create_keys(tmp_path, {}, PASSPHRASE)
    assert [(s.private, s.created) for s in states if s.role == "root"] == [("", False)]
    assert not (tmp_path / "root.key").exists()


def test_keys_are_made_where_hard_links_are_not_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: object, target: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refused)
    create_keys(tmp_path / "keys", {}, None)
    before = {p.name: p.read_bytes() for p in (tmp_path / "keys").iterdir()}
    create_keys(tmp_path / "keys", {}, None)
    assert {p.name: p.read_bytes() for p in (tmp_path / "keys").iterdir()} == before
    load_keys(tmp_path / "keys", {}, None)
