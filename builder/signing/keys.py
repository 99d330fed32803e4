"""Signing keys, one per role.

`builder` signs images and evidence, `verdict` decisions, `approver` approvals by people,
`witness` rebuilds, `root` nothing but the trust file, which names the keys of the others.

A role's private key is a PEM file (PKCS8, encrypted) made by `goldsmith init`, or whatever a
securesystemslib signer URI in the settings names (`awskms:`, `gcpkms:`, `hsm:`, …). Its public
key is always `ROLE.pub` beside it, a PEM that cosign reads too. All keys are ECDSA P-256 with
SHA-256, signatures are DER (RFC 3279, section 2.2.3).

The passphrase comes from the settings. Without one, `init` makes a random one and keeps it in
`passphrase` beside the keys: that guards copies of single files, for one machine. In production
give the passphrase in the environment, or use a KMS or HSM.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from builder.errors import ToolError, UsageError
from builder.signing import keyfiles
from builder.store import write_atomically

ROOT, BUILDER, VERDICT, APPROVER = "root", "builder", "verdict", "approver"
WITNESS = "witness"  # of those who build images again: on machines of their own, several at a time
ROLES = (ROOT, BUILDER, VERDICT, APPROVER)
TRUST_FILE = "trust.json"
_ELSEWHERE = (ROOT, APPROVER)  # roles whose private key need not be on the machine that publishes


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A role's public key; `pem` is its SubjectPublicKeyInfo. Raises UsageError when unusable."""

    role: str
    pem: bytes
    key: ec.EllipticCurvePublicKey = field(compare=False)  # what the PEM says
    id: str = field(init=False)  # SHA-256 of the DER SubjectPublicKeyInfo, in hexadecimal

    def __post_init__(self) -> None:
        der = self.key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        object.__setattr__(self, "id", hashlib.sha256(der).hexdigest())

    def __reduce__(self) -> tuple[object, ...]:
        """Between processes a key travels as its PEM."""
        return PublicKey.parse, (self.role, self.pem, "another process")

    @classmethod
    def parse(cls, role: str, pem: bytes, source: str) -> PublicKey:
        """Read a PEM; raises UsageError unless it is an ECDSA P-256 public key."""
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise UsageError(
                f"not an ECDSA P-256 public key in PEM: {source}",
                hint=f"put the public key of the role {role!r} there",
            )
        return cls(role, _public_pem(key), key)

    @property
    def hint(self) -> str:
        """The key's hint in a Sigstore bundle: its id in base64."""
        return base64.b64encode(bytes.fromhex(self.id)).decode()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` (DER) over `data` is by this key."""
        try:
            self.key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            return False
        return True


class Backend(Protocol):
    """What we use of a securesystemslib Signer."""

    def sign(self, payload: bytes) -> Any:
        """The signature, with its DER as hexadecimal in `.signature`."""


@dataclass(frozen=True, slots=True)
class RoleSigner:
    """The right to sign for one role."""

    public: PublicKey
    backend: Backend
    # A PKCS#11 token knows one login of a process: roles of one token take turns.
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def role(self) -> str:
        """The role's name."""
        return self.public.role

    def sign(self, data: bytes) -> bytes:
        """Sign `data`; the result is DER. Raises ToolError when the key's keeper fails.

        The signature is checked against the public key at once, so that a KMS with another key
        is found here and not by a consumer.
        """
        try:
            with self.turn:
                signature = bytes.fromhex(self.backend.sign(data).signature)
        except Exception as error:  # backends raise what they like: network, PKCS#11, HTTP
            raise ToolError(
                f"the key of the role {self.role!r} could not sign",
                context=f"{type(error).__name__}: {error}"[:500],
                hint="see that the KMS or HSM answers, then run it again",
            ) from error
        if not self.public.verifies(signature, data):
            raise ToolError(
                f"the private key of the role {self.role!r} does not belong to {self.role}.pub",
                hint=f"put the public key of that private key into {self.role}.pub",
            )
        return signature


@dataclass(frozen=True, slots=True)
class Keys:
    """The signers that publishing needs; raises UsageError when two roles share a key."""

    builder: RoleSigner
    verdict: RoleSigner

    def __post_init__(self) -> None:
        distinct((self.builder.public, self.verdict.public))


@dataclass(frozen=True, slots=True)
class KeyState:
    """What `init` found or made for a role: where the private key is, and the public key's file."""

    role: str
    private: str  # a path or a URI; empty when it is kept elsewhere
    public: Path
    created: bool


def create_keys(
    folder: Path, key_uris: Mapping[str, str], passphrase: str | None
) -> tuple[tuple[KeyState, ...], bool]:
    """Make what is missing of one key per role; existing files are never changed.

    Where there is the public key of root or of approver without its private key, that one is kept
    elsewhere and none is made. Returns the state of each role, and whether a passphrase was
    generated. Raises UsageError when existing keys cannot be opened, ToolError when the folder
    cannot be written.
    """
    keyfiles.private_folder(folder)
    local = [role for role in ROLES if role not in key_uris]
    generated = keyfiles.ensure_passphrase(folder, passphrase, local)
    states = [
        KeyState(role, key_uris[role], folder / f"{role}.pub", created=False)
        if role in key_uris
        else _create_key(folder, role, passphrase)
        for role in ROLES
    ]
    for role in key_uris:
        if not (folder / f"{role}.pub").exists():
            raise UsageError(
                f"the public key of the role {role!r} is missing: {folder / f'{role}.pub'}",
                hint=f"write the public key of {key_uris[role]} there, as PEM",
            )
    distinct(load_public(folder, role) for role in ROLES)
    return tuple(states), generated


def create_witness(folder: Path, passphrase: str | None) -> tuple[KeyState, bool]:
    """Make a witness's key where there is none; `create_keys` does not: a witness builds elsewhere.

    Returns its state, and whether a passphrase was generated. Raises as `create_keys` does.
    """
    keyfiles.private_folder(folder)
    generated = keyfiles.ensure_passphrase(folder, passphrase, [WITNESS])
    return _create_key(folder, WITNESS, passphrase), generated


def load_keys(folder: Path, key_uris: Mapping[str, str], passphrase: str | None) -> Keys:
    """Open the signers that publishing needs; neither root nor approver has to be there.

    Raises UsageError when a key is missing, open to other users, or the passphrase is wrong, and
    ToolError when a KMS or HSM cannot be reached.
    """
    turn = threading.Lock()
    return Keys(*(_open(folder, role, key_uris.get(role), passphrase, turn) for role in (BUILDER, VERDICT)))


def open_signer(folder: Path, role: str, key_uris: Mapping[str, str], passphrase: str | None) -> RoleSigner:
    """Open the signer of one role, for what that role alone does; raises as `load_keys` does."""
    return _open(folder, role, key_uris.get(role), passphrase, threading.Lock())


def load_public(folder: Path, role: str) -> PublicKey:
    """Read `ROLE.pub`; raises UsageError when it is missing or unusable."""
    path = folder / f"{role}.pub"
    return PublicKey.parse(role, keyfiles.read(path), str(path))


def distinct(keys: Iterable[PublicKey]) -> None:
    """Raises UsageError when two roles share a key."""
    pems = [key.pem for key in keys]
    if len(set(pems)) != len(pems):
        raise UsageError(
            "two roles share one key",
            hint="one key per role: who builds must not be able to approve",
        )


def _open(
    folder: Path, role: str, uri: str | None, passphrase: str | None, turn: threading.Lock
) -> RoleSigner:
    public = load_public(folder, role)
    # Here and not above: verification and start-up do without it.
    from securesystemslib.exceptions import KeyMismatchError
    from securesystemslib.signer import Signer, SSlibKey

    known = SSlibKey.from_crypto(public.key)
    try:
        if uri is None:
            backend: Backend = _file_signer(keyfiles.load_private(folder, role, passphrase), known)
        else:
            backend = Signer.from_priv_key_uri(uri, known, lambda name: _secret(name, role, passphrase))
    except UsageError:
        raise
    except KeyMismatchError:
        raise UsageError(f"{role}.pub is not the public key of {uri or f'{role}.key'}") from None
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(
            f"the key of the role {role!r} cannot be used",
            context=str(error)[:500],
            hint=f"GOLDSMITH_{role.upper()}_KEY is a securesystemslib signer URI",
        ) from None
    except Exception as error:  # backends raise what they like: network, PKCS#11, HTTP
        raise ToolError(
            f"the key of the role {role!r} could not be reached",
            context=f"{type(error).__name__}: {error}"[:500],
            hint="see that the KMS or HSM answers and its library is installed",
        ) from error
    return RoleSigner(public, backend, turn)


def _file_signer(private: ec.EllipticCurvePrivateKey, known: Any) -> Backend:
    """A signer for a key in memory: securesystemslib's `file2:` reads no encrypted PEM.

    Its signatures are deterministic (RFC 6979): the same image signed again gives the same
    manifests, so a resumed publication adds nothing to the registry.
    """
    from securesystemslib.signer import CryptoSigner, Signature

    class DeterministicSigner(CryptoSigner):
        def sign(self, payload: bytes) -> Any:
            try:
                algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
            except UnsupportedAlgorithm:  # an OpenSSL older than 3.2
                return super().sign(payload)
            return Signature(self.public_key.keyid, private.sign(payload, algorithm).hex())

    return DeterministicSigner(private, known)


def _create_key(folder: Path, role: str, passphrase: str | None) -> KeyState:
    path, public = folder / f"{role}.key", folder / f"{role}.pub"
    created = False
    if not path.exists():
        if public.exists() and role in _ELSEWHERE:
            return KeyState(role, "", public, created=False)
        if public.exists():
            raise UsageError(
                f"{public} has no private key beside it",
                hint=f"remove it to make a new pair, or name its key in GOLDSMITH_{role.upper()}_KEY",
            )
        if (folder / TRUST_FILE).exists() and role != WITNESS:
            raise UsageError(
                f"there is no key of the role {role!r}, and a trust file that names the keys",
                context=str(folder),
                hint=f"`goldsmith keys rotate {role}` makes one that is believed",
            )
        created = keyfiles.create(path, keyfiles.new_private(folder, passphrase))
    private = keyfiles.load_private(folder, role, passphrase)
    if not public.exists():
        write_atomically(public, _public_pem(private.public_key()))
    return KeyState(role, str(path), public, created)


def _secret(name: str, role: str, passphrase: str | None) -> str:
    if passphrase is None:
        raise UsageError(
            f"the key of the role {role!r} wants a secret ({name})", hint="set GOLDSMITH_KEY_PASSPHRASE"
        )
    return passphrase


def _public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
