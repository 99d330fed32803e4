"""Who brought which bundle: signed where this side has a key for it, else unsigned lines; both are shown."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.cli.main import run
from builder.oci.client import RegistryClient
from builder.signing.trust import Trust
from registry.audit.ledger import Ledger
from registry.bundles.export import Exported, export
from tests.support.evidence import PASSPHRASE, new_keys
from tests.support.promotion import REPO, House
from tests.support.registry_simulator import Simulator, simulator

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Exported]]:
    """An image that was promoted on the other side, and the bundle of it."""
    with simulator() as sim:
        folder, now = tmp_path_factory.mktemp("origin"), dt.datetime.now(dt.UTC).replace(microsecond=0)
        house = House(folder, RegistryClient(sim.address), now=now)
        database = house.policy.data.database.model_copy(update={"age_days_max": 36500})
        house.policy = replace(house.policy, data=house.policy.data.model_copy(update={"database": database}))
        house.promote(house.candidate())
        done = export(house.client, [house.at(REPO, "3.13")], house.trust, {}, now, folder / "bundle.tar")
        yield house, done


@pytest.fixture
def here() -> Iterator[Simulator]:
    with simulator() as sim:
        sim.referrers_api = False
        yield sim


@pytest.fixture
def ask(
    here: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Ask:
    """The command line of a machine without a catalogue."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GOLDSMITH_REGISTRY", here.address)
    monkeypatch.setenv("GOLDSMITH_KEY_PASSPHRASE", PASSPHRASE)

    def asked(*arguments: object, code: int = 0) -> Any:
        found = run([*map(str, arguments), "--json"])
        said = capsys.readouterr()
        assert found == code, said
        return json.loads(said.out)

    return asked


def bring(origin: tuple[House, Exported]) -> tuple[object, ...]:
    house, bundle = origin
    keys = house.folder / "keys"
    return ("import", bundle.path, "--bundle", "--trust", keys, "--why", "for the plant")


def test_without_a_key_the_record_is_unsigned_and_shown_as_such(
    ask: Ask, origin: tuple[House, Exported], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, bundle = origin[1].images[0], origin[1].digest
    done = ask(*bring(origin))
    assert (done["bundle"], done["signed"]) == (bundle, False)
    assert (done["images"][0]["outcome"], done["images"][0]["entry"]) == ("imported", None)
    (line,) = ask("audit")
    assert (line["signed"], line["chained"], line["what"], line["why"]) == (
        False,
        True,
        "receive",
        "for the plant",
    )
    assert (line["digest"], line["after"]) == (image.digest, {"source": f"bundle@{bundle}"})
    assert ask("audit", "--ref", "python", "--who", line["who"]) == [line]
    assert ask("audit", "--what", "promote") == [] == ask("audit", "--since", "2999-01-01")
    assert run(["audit"]) == 0
    assert "unsigned" in capsys.readouterr().out
    # Nothing new is no further line of the audit; who changes a line shows in the one after it.
    assert ask(*bring(origin))["images"][0]["outcome"] == "unchanged"
    assert ask("audit") == [line]
    record = tmp_path / "state" / "run" / "imports.jsonl"
    lines = record.read_bytes().splitlines()
    at = next(n for n, text in enumerate(lines) if b'"outcome":"imported"' in text)
    lines.insert(at, b'{"who":"somebody"}')
    record.write_bytes(b"\n".join(lines) + b"\nnot JSON\n")
    assert [x["chained"] for x in ask("audit")] == [False]


def test_with_a_key_who_brought_what_is_a_signed_entry(
    ask: Ask, origin: tuple[House, Exported], tmp_path: Path, here: Simulator
) -> None:
    new_keys(tmp_path / "state" / "keys")
    bundle = origin[1].digest
    done = ask(*bring(origin))
    entry = done["images"][0]["entry"]
    assert done["signed"] and entry["what"] == "receive"
    assert (entry["digest"], entry["after"]) == (origin[1].images[0].digest, {"source": f"bundle@{bundle}"})
    assert (entry["why"], entry["ref"]) == ("for the plant", "python:3.13")
    assert ask("audit") == [{**entry, "signed": True}]
    assert ask("audit", "verify")["entries"] == 1
    assert ask(*bring(origin))["images"][0]["entry"] == entry  # said once
    ledger = Ledger(tmp_path / "state" / "ledger", Trust.load(tmp_path / "state" / "keys"))
    assert len(ledger.entries()) == 1


def test_a_ledger_that_cannot_be_written_names_nothing(
    ask: Ask, origin: tuple[House, Exported], tmp_path: Path, here: Simulator
) -> None:
    new_keys(tmp_path / "state" / "keys")
    (tmp_path / "state" / "ledger").write_bytes(b"no folder")
    assert ask(*bring(origin), code=5)["error"]
    assert not any(tag == "3.13" for tags in here.tags.values() for tag in tags)
    (tmp_path / "state" / "ledger").unlink()
    assert ask(*bring(origin))["images"][0]["outcome"] == "imported"


def test_a_key_that_cannot_be_opened_takes_nothing_in(
    ask: Ask, origin: tuple[House, Exported], tmp_path: Path, here: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_keys(tmp_path / "state" / "keys")
    monkeypatch.setenv("GOLDSMITH_KEY_PASSPHRASE", "not the right passphrase")
    ask(*bring(origin), code=2)
    assert not here.tags and not here.manifests
