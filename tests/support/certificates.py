"""A bundle of more than a hundred certificate authorities, made once for all tests."""

from __future__ import annotations

import datetime as dt
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

COUNT = 110


@lru_cache(maxsize=1)
def authorities() -> bytes:
    """The bundle as PEM."""
    key = ec.derive_private_key(7, ec.SECP256R1())
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    out = b""
    for number in range(1, COUNT + 1):
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test authority {number}")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(number)
            .not_valid_before(start)
            .not_valid_after(start + dt.timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        )
        out += builder.sign(key, SHA256()).public_bytes(Encoding.PEM)
    return out
