"""The files of a key folder: encrypted private keys and their passphrase, readable by the owner only."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Collection
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from builder.errors import ToolError, UsageError
from builder.store import write_atomically

_PASSPHRASE_FILE = "passphrase"  # noqa: S105 - a file's name
_PASSPHRASE_BYTES = 32
_PASSPHRASE_MIN = 12  # characters of one that a person chose
_KEY_FILE_MAX = 16 << 10  # bytes


def load_private(folder: Path, role: str, passphrase: str | None) -> ec.EllipticCurvePrivateKey:
    """Open `ROLE.key`; raises UsageError when it is missing, not private, or stays locked."""
    path = folder / f"{role}.key"
    pem = read(path)
    _refuse_open_file(path)
    try:
        key = serialization.load_pem_private_key(pem, passphrase_of(folder, passphrase))
    except TypeError:
        raise UsageError(
            f"the private key is not encrypted: {path}",
            hint="remove it and make new keys with `goldsmith init`, or encrypt it with openssl pkcs8",
        ) from None
    except ValueError:
        raise UsageError(
            f"the passphrase does not open {path}",
            hint="set GOLDSMITH_KEY_PASSPHRASE to the one the key was made with",
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"not an ECDSA key: {path}")
    return key


def new_private(folder: Path, passphrase: str | None) -> bytes:
    """A new P-256 key as encrypted PKCS8 in PEM."""
    secret = serialization.BestAvailableEncryption(passphrase_of(folder, passphrase))
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret
    )


def public_of(pem: bytes, folder: Path, passphrase: str | None) -> bytes:
    """The public key of an encrypted private key, as PEM."""
    key = serialization.load_pem_private_key(pem, passphrase_of(folder, passphrase))
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def ensure_passphrase(folder: Path, passphrase: str | None, roles: Collection[str]) -> bool:
    """See that there is a passphrase for the key files of `roles`; whether one was made just now.

    Raises UsageError when there are keys already, and nothing to open them with.
    """
    if not roles or passphrase is not None or (folder / _PASSPHRASE_FILE).exists():
        return False
    if any((folder / f"{role}.key").exists() for role in roles):
        raise UsageError(
            f"there are keys in {folder}, but no passphrase for them",
            hint="set GOLDSMITH_KEY_PASSPHRASE to the one they were made with",
        )
    return create(folder / _PASSPHRASE_FILE, secrets.token_urlsafe(_PASSPHRASE_BYTES).encode())


def create(path: Path, data: bytes) -> bool:
    """Write a new private file, whole or not at all; False when it is there already."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    write_atomically(temporary, data, mode=0o600)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links; only one `init` runs at a time
        if path.exists():
            return False
        try:
            temporary.rename(path)
        except OSError as error:
            raise ToolError(f"cannot write {path}", context=str(error)) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return True


def passphrase_of(folder: Path, passphrase: str | None) -> bytes:
    """The given passphrase, or the one that is kept in the folder; raises UsageError without any."""
    if passphrase is not None:
        if len(passphrase) < _PASSPHRASE_MIN:
            raise UsageError(f"GOLDSMITH_KEY_PASSPHRASE is shorter than {_PASSPHRASE_MIN} characters")
        return passphrase.encode()
    path = folder / _PASSPHRASE_FILE
    data = read(path).strip()
    _refuse_open_file(path)
    return data


def read(path: Path) -> bytes:
    """A small file of the folder; raises UsageError when it cannot be read."""
    try:
        with open(path, "rb") as handle:
            return handle.read(_KEY_FILE_MAX)
    except OSError as error:
        others = (
            "; for what others sign, get their public keys, and give --trust DIR to commands that have it"
        )
        raise UsageError(
            f"there is no usable {path.name} in {path.parent}",
            context=error.strerror or str(error),
            hint=f"`goldsmith init` makes keys of your own{others if path.suffix == '.pub' else ''}",
        ) from None


def _refuse_open_file(path: Path) -> None:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(f"other users may read {path}", hint=f"chmod 600 {path}")


def private_folder(folder: Path) -> None:
    """Make the folder, for its owner only; raises ToolError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise ToolError(f"cannot make the key folder {folder}", context=str(error)) from None
