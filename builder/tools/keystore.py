"""Java's key store format (JKS), written with trusted certificates only.

The format is that of OpenJDK's sun.security.provider.JavaKeyStore: magic, version 2, the count,
then for each certificate its tag, alias, time, type and DER; at the end SHA-1 over the password
(UTF-16, big endian), a fixed text and all before. The digest proves integrity to those who ask
for it with the password; certificates are no secret, and Java reads `cacerts` without one. Every
Java reads JKS, from the oldest to the newest, whatever its default type is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

PASSWORD = "changeit"  # noqa: S105 - the well-known one of every Java's cacerts
_MAGIC, _VERSION, _TRUSTED = 0xFEEDFEED, 2, 2
_WHITENER = b"Mighty Aphrodite"
_TYPE = "X.509"
# The time of an entry, in milliseconds: the same whenever it is written (1980-01-01T00:00:00Z).
_TIME = 315_532_800_000
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE = 0x30  # every certificate's first byte (RFC 5280, DER)


def java_keystore(bundle: bytes) -> bytes:
    """A key store that trusts every certificate of a PEM bundle; the same bytes each time.

    A certificate's alias is its SHA-256, and their order is that of the aliases. Raises
    ValueError when the bundle holds no certificate or something else between the marks.
    """
    certificates = {hashlib.sha256(der).hexdigest(): der for der in _certificates(bundle)}
    body = b"".join((_int(_MAGIC), _int(_VERSION), _int(len(certificates))))
    for alias, der in sorted(certificates.items()):
        body += _int(_TRUSTED) + _text(alias) + _TIME.to_bytes(8, "big") + _text(_TYPE) + _int(len(der)) + der
    # SHA-1 is the format's; nothing here relies on it: the layer's digest does.
    digest = hashlib.sha1(PASSWORD.encode("utf-16-be") + _WHITENER + body, usedforsecurity=False)
    return body + digest.digest()


def _certificates(bundle: bytes) -> list[bytes]:
    found = []
    for match in _PEM.finditer(bundle):
        try:
            der = base64.b64decode(b"".join(match[1].split()), validate=True)
        except binascii.Error:
            raise ValueError("a certificate is not base64") from None
        if not der.startswith(bytes([_SEQUENCE])):
            raise ValueError("a certificate is not DER")
        found.append(der)
    if len(found) != bundle.count(b"-----BEGIN CERTIFICATE-----") or not found:
        raise ValueError(f"{len(found)} whole certificates in the bundle")
    return found


def _int(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _text(value: str) -> bytes:
    """Java's modified UTF-8, which for ASCII is ASCII, behind its length in two bytes."""
    data = value.encode("ascii")
    return len(data).to_bytes(2, "big") + data
