"""`goldsmith nightly` with real parts: a first night, a quiet one, one that is killed, two at once."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from builder.oci.auth import credentials_for
from builder.oci.client import RegistryClient
from builder.store import Store
from tests.integration.conftest import ROOT, Checkout
from tests.support.cluster import wait_until
from tests.support.ports import free_address
from tests.support.requires import tool
from tests.support.vulndb import sample_database

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def town(today: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout with keys, a registry, an engine and the sample database, after its first night."""
    tool("docker-registry")
    address = free_address()
    environment = {
        **today.environment,
        "GOLDSMITH_REGISTRY": address,
        "GOLDSMITH_TRIVY_DB": str(sample_database(tmp_path_factory.mktemp("database"))),
        "GOLDSMITH_POLICY": "demo",
    }
    checkout = today.copy(tmp_path_factory.mktemp("nightly"), environment)
    checkout.goldsmith("init")
    checkout.goldsmith("up")
    yield checkout
    checkout.goldsmith("down")


def night(town: Checkout, *arguments: str, code: int = 0) -> dict:
    done = town.goldsmith("nightly", "--json", *arguments, ok=False)
    assert done.returncode == code, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def tags(town: Checkout) -> dict[str, str]:
    """Every tag of the registry with its digest."""
    address = town.environment["GOLDSMITH_REGISTRY"]
    client = RegistryClient(address, credentials=credentials_for(Store(town.state).credentials, address))
    found = {}
    for name in client.repositories():
        for tag in client.tags(name):
            there = client.head_manifest(client.reference(name, tag))
            found[f"{name}:{tag}"] = str(there.digest) if there else ""
    return found


def steps(found: dict) -> dict[str, str]:
    return {s["name"]: s["state"] for s in found["steps"]}


def test_nights(town: Checkout) -> None:
    """One test: each night stands on the one before, and the first takes its time."""
    first = night(town, "--no-lock")
    assert set(steps(first).values()) == {"done"}
    assert {i["ref"]: i["state"] for i in first["images"]} == {"base:13": "built", "python:3.13": "built"}
    assert {p["ref"]: p["state"] for p in first["promotions"]} == {
        "base:13": "promoted",
        "python:3.13": "promoted",
    }
    assert (first["exit_code"], first["blocked"]) == (0, [])
    report = town.state / "nightly"
    assert "2 built; 2 promoted; 0 blocked" in (report / "report.md").read_text()
    suites = ElementTree.fromstring((report / "report.xml").read_text())
    assert {s.get("name"): s.get("failures") for s in suites} == {
        "steps": "0",
        "images": "0",
        "promotions": "0",
    }
    before = tags(town)
    assert {"python:3.13", "base:13", "goldsmith/trivy-db:2"} <= set(before)

    # Nothing changed: no digest, no tag, no promotion, no entry in the ledger.
    entries = json.loads(town.goldsmith("audit", "--json").stdout)
    quiet = night(town)
    assert {i["state"] for i in quiet["images"]} == {"unchanged"}
    assert quiet["promotions"] == []
    assert tags(town) == before
    assert json.loads(town.goldsmith("audit", "--json").stdout) == entries

    # A second one refuses, or waits.
    with open(report / "lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert night(town, "--no-lock", code=1)["error"] == "state-busy"

    # Killed in the middle of the work; the next one goes on and says so.
    for kind in ("built", "released"):
        shutil.rmtree(town.state / "records" / kind)
    child = subprocess.Popen(
        [sys.executable, "-m", "builder", "nightly", "--no-lock"],
        cwd=town.catalogue,
        env={**town.environment, "PYTHONPATH": str(ROOT), "GOLDSMITH_STATE": str(town.state)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    mark = report / "step"
    wait_until(lambda: mark.exists() and mark.read_text() == "run", "the step `run`")
    os.killpg(child.pid, signal.SIGKILL)
    child.wait(60)
    after = night(town, "--no-lock")
    assert after["cut_before"] == "run"
    assert set(steps(after).values()) == {"done"}
    assert {k: v for k, v in tags(town).items() if ":sha256-" not in k} == {
        k: v for k, v in before.items() if ":sha256-" not in k
    }

    # An input that cannot be had blocks what needs it, and says since when.
    lock = town.catalogue / "images" / "python" / "image.yaml"
    lock.write_text(lock.read_text().replace("title: ", "titel: ", 1))
    broken = night(town, "--no-lock", code=1)
    assert steps(broken)["plan"] == "failed"
    since = {b["what"]: b["since"] for b in broken["blocked"]}
    again = {b["what"]: b["since"] for b in night(town, "--no-lock", code=1)["blocked"]}
    assert since and since == again
