"""A PKCS#11 token in software (SoftHSM 2), made anew for a test: real PKCS#11, nothing installed."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.support.oracles import unpacked
from tests.support.requires import missing

LABEL = "goldsmith test"
PIN = "a pin of the tests"
_SO_PIN = b"another pin of the tests"
_OK = 0


def library() -> Path:
    """SoftHSM's PKCS#11 library, of the Debian release that runs here."""
    found = re.search(r"^VERSION_CODENAME=(\w+)$", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not found:
        missing("this is no release of Debian, so its SoftHSM cannot be had")
        raise AssertionError
    root = unpacked("libsofthsm2", found[1])
    (file,) = (f for f in root.rglob("libsofthsm2.so") if not f.is_symlink())
    return file


@contextmanager
def token(folder: Path, roles: Mapping[str, int]) -> Iterator[dict[str, bytes]]:
    """A token with one P-256 key for each role, under that key id; gives the public keys as PEM.

    While it lasts, the environment names the library and the token.
    """
    (folder / "tokens").mkdir(parents=True)
    configuration = folder / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    named = {"SOFTHSM2_CONF": str(configuration), "PYKCS11LIB": str(library())}
    with mock.patch.dict(os.environ, named):
        _make_token(library())
        yield _make_keys(library(), roles)


def _make_token(path: Path) -> None:
    """C_InitToken of PKCS#11 2.40, section 5.5; the Python library has no call for it."""
    module = ctypes.CDLL(str(path))
    called = [
        module.C_Initialize(None),
        module.C_InitToken(
            ctypes.c_ulong(0), _SO_PIN, ctypes.c_ulong(len(_SO_PIN)), LABEL.encode().ljust(32)
        ),
        module.C_Finalize(None),
    ]
    assert called == [_OK] * 3, called


def _make_keys(path: Path, roles: Mapping[str, int]) -> dict[str, bytes]:
    import pkcs11
    from cryptography.hazmat.primitives import serialization
    from pkcs11.util import ec

    found = pkcs11.lib(str(path))
    found.reinitialize()
    place = found.get_token(token_label=LABEL)
    with place.open(rw=True, so_pin=_SO_PIN.decode()) as session:
        session.init_pin(PIN)
    public = {}
    with place.open(rw=True, user_pin=PIN) as session:
        for role, number in roles.items():
            curve = session.create_domain_parameters(
                pkcs11.KeyType.EC,
                {pkcs11.Attribute.EC_PARAMS: ec.encode_named_curve_parameters("secp256r1")},
                local=True,
            )
            key, _ = curve.generate_keypair(store=True, id=bytes([number]), label=role)
            der = serialization.load_der_public_key(ec.encode_ec_public_key(key))
            public[role] = der.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
    return public
