"""Keys in a PKCS#11 token: named by a setting, they sign what our own and any other key would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from builder.errors import ToolError
from builder.signing.keys import load_keys
from builder.signing.trust import Trust
from tests.integration.conftest import ROOT
from tests.support import hsm
from tests.support.catalogue import image, write

pytestmark = pytest.mark.integration
NUMBERS = {"root": 1, "builder": 2, "verdict": 3, "approver": 4}
URIS = {role: f"hsm:{number}?label=goldsmith+test" for role, number in NUMBERS.items()}
PUBLISHING = ("builder", "verdict")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of the public keys, as `goldsmith init` wants it."""
    keys = tmp_path_factory.mktemp("state") / "keys"
    keys.mkdir(mode=0o700)
    with hsm.token(tmp_path_factory.mktemp("token"), NUMBERS) as public:
        for role, pem in public.items():
            (keys / f"{role}.pub").write_bytes(pem)
        yield keys


def test_each_role_signs_with_its_own_key_of_the_token(folder: Path) -> None:
    keys, trust = load_keys(folder, URIS, hsm.PIN), Trust.load(folder)
    for role, other in (PUBLISHING, reversed(PUBLISHING)):
        signature = getattr(keys, role).sign(b"something")
        assert trust.current(role).verifies(signature, b"something")
        assert not trust.current(role).verifies(signature, b"something else")
        assert not trust.current(other).verifies(signature, b"something")


def test_several_images_are_signed_at_a_time(folder: Path) -> None:
    """A token knows one login of a process, whatever the number of sessions."""
    keys = load_keys(folder, URIS, hsm.PIN)
    work = [(getattr(keys, role), f"{role} {n}".encode()) for n in range(8) for role in PUBLISHING]
    with ThreadPoolExecutor(4) as threads:
        signatures = list(threads.map(lambda item: item[0].sign(item[1]), work))
    for (signer, data), signature in zip(work, signatures, strict=True):
        assert signer.public.verifies(signature, data)


def test_init_accepts_the_setting_and_makes_no_file(folder: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    settings = {f"GOLDSMITH_{role.upper()}_KEY": uri for role, uri in URIS.items()}
    done = subprocess.run(
        [sys.executable, "-m", "builder", "init", "--json"],
        cwd=write(tmp_path / "catalogue", image("base")),
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT), "GOLDSMITH_STATE": str(folder.parent)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert set(URIS.values()) <= {value for key in json.loads(done.stdout)["keys"] for value in key.values()}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("uri", "pin", "reason"),
    [
        ("hsm:2?label=goldsmith+test", "a wrong pin altogether", "PinIncorrect"),
        ("hsm:9?label=goldsmith+test", hsm.PIN, "could not find ECDSA private key"),
        ("hsm:2?label=another", hsm.PIN, "No PKCS#11 token found"),
    ],
)
def test_a_token_that_does_not_sign_is_told(folder: Path, uri: str, pin: str, reason: str) -> None:
    keys = load_keys(folder, {**URIS, "builder": uri}, pin)
    with pytest.raises(ToolError, match="the key of the role 'builder' could not sign") as caught:
        keys.builder.sign(b"something")
    assert reason in caught.value.context
    assert caught.value.hint
