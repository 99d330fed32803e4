"""Just enough OpenPGP to sign a test archive: one Ed25519 key, cleartext signatures.

No gpg, no agent, no key ring on disk but the one that is written. Source: RFC 4880, sections
4.2 (packets), 5.2 (signatures), 5.5 (keys), 7 (cleartext), 12.2 (fingerprints); the algorithm's
number and encoding as in draft-ietf-openpgp-rfc4880bis-10, section 13.3 ("EdDSALegacy").
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_EDDSA, _SHA512 = 22, 10
_CURVE = bytes.fromhex("092b06010401da470f01")  # length and OID of Ed25519
_TEXT, _CERTIFICATION = 0x01, 0x13


class SigningKey:
    """A throw-away key, made at `created`."""

    def __init__(self, created: dt.datetime, name: str = "A test archive <archive@example.test>") -> None:
        self._key = Ed25519PrivateKey.generate()
        self._created = int(created.timestamp())
        self._user = name.encode()
        point = b"\x40" + self._key.public_key().public_bytes_raw()
        self._body = struct.pack(">BIB", 4, self._created, _EDDSA) + _CURVE + _mpi(point)
        self.fingerprint = hashlib.sha1(self._hashed_key(), usedforsecurity=False).digest()

    def public(self) -> bytes:
        """The key ring: the public key with its self-signed name."""
        certified = self._hashed_key() + struct.pack(">BI", 0xB4, len(self._user)) + self._user
        flags = _subpacket(27, b"\x03") + _subpacket(11, b"\x09\x07") + _subpacket(21, b"\x0a\x08")
        return (
            _packet(6, self._body)
            + _packet(13, self._user)
            + self._signature(_CERTIFICATION, certified, self._created, flags)
        )

    def clearsign(self, text: str, at: dt.datetime) -> str:
        """`text` in the cleartext framework, signed at `at`."""
        lines = [line.rstrip(" \t") for line in text.rstrip("\n").split("\n")]
        signature = self._signature(_TEXT, "\r\n".join(lines).encode(), int(at.timestamp()))
        armoured = base64.b64encode(signature).decode()
        folded = "\n".join(armoured[i : i + 64] for i in range(0, len(armoured), 64))
        checksum = base64.b64encode(_crc24(signature)).decode()
        escaped = "\n".join("- " + line if line.startswith("-") else line for line in lines)
        return (
            f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n{escaped}\n"
            f"-----BEGIN PGP SIGNATURE-----\n\n{folded}\n={checksum}\n-----END PGP SIGNATURE-----\n"
        )

    def _hashed_key(self) -> bytes:
        return struct.pack(">BH", 0x99, len(self._body)) + self._body

    def _signature(self, kind: int, data: bytes, at: int, extra: bytes = b"") -> bytes:
        hashed = _subpacket(2, struct.pack(">I", at)) + _subpacket(33, b"\x04" + self.fingerprint) + extra
        head = struct.pack(">BBBBH", 4, kind, _EDDSA, _SHA512, len(hashed)) + hashed
        digest = hashlib.sha512(data + head + struct.pack(">BBI", 4, 0xFF, len(head))).digest()
        signed = self._key.sign(digest)
        unhashed = _subpacket(16, self.fingerprint[-8:])
        body = head + struct.pack(">H", len(unhashed)) + unhashed + digest[:2]
        return _packet(2, body + _mpi(signed[:32]) + _mpi(signed[32:]))


def _packet(tag: int, body: bytes) -> bytes:
    return struct.pack(">BBI", 0xC0 | tag, 0xFF, len(body)) + body


def _subpacket(kind: int, data: bytes) -> bytes:
    return bytes([len(data) + 1, kind]) + data


def _mpi(data: bytes) -> bytes:
    number = int.from_bytes(data, "big")
    length = number.bit_length()
    return struct.pack(">H", length) + number.to_bytes((length + 7) // 8, "big")


def _crc24(data: bytes) -> bytes:
    crc = 0xB704CE
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc.to_bytes(3, "big")
