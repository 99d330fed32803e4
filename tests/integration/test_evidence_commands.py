"""`goldsmith init`, `verify` and `why`, from the command line, against a real registry."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli.main import run
from builder.model.digest import Digest
from builder.model.verdict import RuleResult
from builder.oci.client import RegistryClient
from builder.settings import Settings
from builder.signing.keys import load_keys
from builder.stages.publish import publish
from builder.store import Store
from registry.storage import service
from tests.support.evidence import DATABASE, PASSPHRASE, World, approval, world
from tests.support.ports import free_address
from tests.support.requires import tool

pytestmark = pytest.mark.integration

TODAY = dt.datetime.now(dt.UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    port = int(free_address().rpartition(":")[2])
    environ = {"PATH": os.environ["PATH"], "GOLDSMITH_REGISTRY": f"127.0.0.1:{port}"}
    settings = Settings.load(environ, directory=folder, needs_catalogue=False)
    service.up(settings)
    yield settings.registry
    service.down(settings)


@pytest.fixture
def state(tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty catalogue with a state directory of its own, as the commands see it."""
    for name in ("images", "templates"):
        (tmp_path / "catalogue" / name).mkdir(parents=True)
    for name in [n for n in os.environ if n.startswith("GOLDSMITH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GOLDSMITH_REGISTRY", address)
    monkeypatch.chdir(tmp_path / "catalogue")
    return Store(tmp_path / "catalogue" / ".goldsmith")


def _published(tmp_path: Path, address: str, name: str, now: dt.datetime = TODAY) -> World:
    """A published image of that name, its keys in `tmp_path/keys`."""
    here = world(tmp_path, name=name)
    here = replace(
        here, verdict=approval(here.image, here.proofs, now), repository=f"{address}/candidate/{name}"
    )
    publish(here.signed(), RegistryClient(address))
    return here


def _json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, object]:
    assert run([*arguments, "--json"]) == code
    value = json.loads(capsys.readouterr().out)
    assert isinstance(value, dict)
    return value


def test_init_makes_keys_once(state: Store, capsys: pytest.CaptureFixture[str]) -> None:
    first = _json(capsys, "init")
    before = {p.name: p.read_bytes() for p in state.keys.iterdir()}
    second = _json(capsys, "init")
    assert [k["created"] for k in first["keys"]] == [True] * 4  # type: ignore[attr-defined, index]
    assert [k["created"] for k in second["keys"]] == [False] * 4  # type: ignore[attr-defined, index]
    assert (first["passphrase_generated"], second["passphrase_generated"]) == (True, False)
    assert {p.name: p.read_bytes() for p in state.keys.iterdir()} == before
    load_keys(state.keys, {}, None)


def test_init_says_what_it_made_and_where(
    state: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["init"]) == 0
    said = capsys.readouterr().out
    assert str(state.keys / "verdict.pub") in said
    assert "one machine only" in said
    assert "BEGIN" not in said
    monkeypatch.setenv("GOLDSMITH_KEY_PASSPHRASE", PASSPHRASE)
    assert run(["init"]) != 0  # another passphrase does not open these keys
    assert PASSPHRASE not in "".join(capsys.readouterr())


def test_verify_by_catalogue_name_and_by_reference(
    state: Store, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = _published(tmp_path, address, "named")
    keys = str(tmp_path / "keys")
    by_name = _json(capsys, "verify", "named:3.13", "--trust", keys)
    assert by_name["verified"] is True
    assert by_name["digest"] == here.image.digest
    full = f"{address}/candidate/named@{here.image.digest}"
    assert _json(capsys, "verify", full, "--trust", keys)["manifests"] == by_name["manifests"]
    assert run(["verify", full, "--trust", keys]) == 0
    said = capsys.readouterr().out
    for word in ("signature", "provenance", "CycloneDX", "verdict", "bundles, tags", "linux/amd64"):
        assert word in said


def test_verify_needs_no_catalogue_when_keys_are_given(
    tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _published(tmp_path, address, "elsewhere")
    (tmp_path / "nothing").mkdir()
    monkeypatch.chdir(tmp_path / "nothing")
    reference = f"{address}/candidate/elsewhere:3.13"
    assert _json(capsys, "verify", reference, "--trust", str(tmp_path / "keys"))["verified"] is True
    assert list((tmp_path / "nothing").iterdir()) == []


def test_verify_refuses_with_code_4_and_a_reason(
    state: Store, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _published(tmp_path, address, "strange")
    assert run(["init"]) == 0  # our own keys, which did not sign it
    capsys.readouterr()
    error = _json(capsys, "verify", "strange:3.13", code=4)
    assert error["error"] == "signature-invalid"
    assert "--trust" in str(error["hint"])


def test_what_cannot_be_fetched_is_code_6(
    state: Store, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world(tmp_path)
    keys = str(tmp_path / "keys")
    assert _json(capsys, "verify", "absent:1", "--trust", keys, code=6)["error"] == "not-found"


@pytest.mark.parametrize("ref", ["UPPER:1", "a/b:1", "x:1@sha256:abc", "127.0.0.1:1/x", "x:"])
def test_a_malformed_reference_is_code_2(
    state: Store, tmp_path: Path, ref: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world(tmp_path)
    assert run(["verify", ref, "--trust", str(tmp_path / "keys"), "--json"]) == 2


def test_a_sample_database_has_to_be_accepted(
    state: Store, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = world(tmp_path, name="sample")
    verdict = approval(here.image, here.proofs, TODAY)
    here = replace(here, verdict=replace(verdict, database=replace(DATABASE, sample=True)))
    here = replace(here, repository=f"{address}/candidate/sample")
    publish(here.signed(), RegistryClient(address))
    options = ("verify", "sample:3.13", "--trust", str(tmp_path / "keys"))
    assert _json(capsys, *options, code=4)["error"] == "sample-database"
    assert _json(capsys, *options, "--accept-sample")["verified"] is True
    assert run([*options, "--accept-sample"]) == 0
    assert "SAMPLE DATABASE" in capsys.readouterr().out


def test_an_older_verdict_is_refused_once_a_newer_one_was_seen(
    state: Store, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = _published(tmp_path, address, "replayed")
    options = ("verify", "replayed:3.13", "--trust", str(tmp_path / "keys"))
    state.create()
    assert _json(capsys, *options)["verified"] is True
    newer = here.verdict.issued_at + dt.timedelta(hours=1)
    state.remember("seen", here.image.digest, {"issued_at": newer.isoformat()})
    assert _json(capsys, *options, code=4)["error"] == "verdict-replayed"


def test_why_explains_a_published_verdict(
    state: Store, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    here = _published(tmp_path, address, "explained", TODAY - dt.timedelta(days=30))
    keys = str(tmp_path / "keys")
    assert run(["why", "explained:3.13", "--trust", keys]) == 0
    said = capsys.readouterr().out
    assert "approved by the policy baseline" in said
    assert "EXPIRED" in said
    assert "checks on linux/amd64: " in said
    assert run(["why", "explained:3.13", "--trust", keys, "--checks"]) == 0
    assert "passed user" in capsys.readouterr().out
    told = _json(capsys, "why", "explained:3.13", "--trust", keys)
    assert told["digest"] == here.image.digest
    assert told["checks"]["linux/amd64"][0]["outcome"] == "passed"


def test_licences_come_from_the_attested_document(
    state: Store, tmp_path: Path, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _published(tmp_path, address, "licensed")
    options = ("licences", "licensed:3.13", "--trust", str(tmp_path / "keys"))
    assert run([*options]) == 0
    said = capsys.readouterr().out
    assert "hello" in said
    assert "permissive" in said
    told = _json(capsys, *options)["platforms"]["linux/amd64"]
    assert {(p["licence"], p["how"]) for p in told} == {("MIT", "declared")}
    assert run([*options, "--notice"]) == 0
    assert "Copyright: somebody" in capsys.readouterr().out
    assert _json(capsys, *options, "--platform", "linux/s390x", code=2)


def test_why_explains_the_last_denial_here(state: Store, capsys: pytest.CaptureFixture[str]) -> None:
    failed = RuleResult("no-critical", "No critical", ("CVE-2026-1 in hello",), "update hello")
    state.create()
    record = {
        "ref": "denied:1",
        "approved": False,
        "explanation": ["denied", *failed.failures, "\x1b[31mred"],
        "checks": {
            "linux/amd64": [
                {
                    "id": "no-shell",
                    "title": "No shell",
                    "outcome": "failed",
                    "detail": "/usr/bin/sh is there",
                },
                {"id": "no-setuid", "title": "No setuid", "outcome": "passed", "detail": ""},
            ]
        },
    }
    state.remember("verdicts", Digest.of(b"denied:1"), record)
    assert run(["why", "denied:1"]) == 0
    said = capsys.readouterr().out
    assert "CVE-2026-1 in hello" in said
    assert "failed no-shell (No shell): /usr/bin/sh is there" in said
    assert "passed no-setuid" not in said
    assert "\x1b" not in said
    assert _json(capsys, "why", "denied:1")["approved"] is False
