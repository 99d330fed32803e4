"""`goldsmith nightly` with real parts: from an advisory to those who pulled; quiet, killed, two at once."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from builder.oci.auth import credentials_for
from builder.oci.client import RegistryClient
from builder.settings import Settings
from builder.store import Store
from registry.pulls import PullJournal
from tests.integration.conftest import ROOT, Checkout
from tests.support.closed_loop import CVE, REFS, ClosedLoop
from tests.support.cluster import processes, wait_until
from tests.support.ports import free_address
from tests.support.requires import tool
from tests.support.webhook import Service

pytestmark = pytest.mark.integration

NOTIFY = """schema: 1
rules: [{events: [rebuilt, promoted, blocked, failed, quarantined], to: [team]}]
pullers: {"token:web": [web]}
"""


@dataclass
class Town:
    """A checkout of the closed loop's catalogue, with keys, a registry, an engine, and a webhook."""

    loop: ClosedLoop
    checkout: Checkout
    engine: str
    team: Service
    web: Service

    def night(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = self.checkout.goldsmith("nightly", "--json", *arguments, ok=False)
        assert done.returncode == code, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    def json(self, *arguments: str) -> Any:
        return json.loads(self.checkout.goldsmith(*arguments, "--json").stdout)

    def tags(self) -> dict[str, str]:
        """Every tag of the registry with its digest."""
        address = self.checkout.environment["GOLDSMITH_REGISTRY"]
        found = {}
        client = RegistryClient(
            address, credentials=credentials_for(Store(self.checkout.state).credentials, address)
        )
        for name in client.repositories():
            for tag in client.tags(name):
                there = client.head_manifest(client.reference(name, tag))
                found[f"{name}:{tag}"] = str(there.digest) if there else ""
        return found

    def told(self) -> list[str]:
        """The titles of what the team was told since this was asked last."""
        titles = [m["title"] for m in self.team.taken]
        self.team.taken.clear()
        return sorted(titles)


@pytest.fixture(scope="module")
def town(today: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("nightly")
    settings = Settings.load({**today.environment, "GOLDSMITH_STATE": str(today.state)}, today.catalogue)
    loop = ClosedLoop(folder, today.catalogue, settings)
    (loop.catalogue / "notify.yaml").write_text(NOTIFY)
    team, web = Service(), Service()
    environment = {
        **today.environment,
        "GOLDSMITH_DEBIAN_MIRROR": loop.archive.address,
        "GOLDSMITH_DEBIAN_KEYRING": str(loop.archive.keyring),
        "GOLDSMITH_REGISTRY": free_address(),
        "GOLDSMITH_TRIVY_DB": str(loop.database),
        "GOLDSMITH_POLICY": "demo",
        "GOLDSMITH_NOTIFY_TEAM": team.address,
        "GOLDSMITH_NOTIFY_WEB": web.address,
    }
    checkout = Checkout(loop.catalogue, folder / "state", environment)
    checkout.goldsmith("init")
    said = checkout.goldsmith("up").stdout
    engine = next(word for word in said.split() if word.startswith(("unix://", "tcp://")))
    yield Town(loop, checkout, engine, team, web)
    checkout.goldsmith("down")
    team.stop()
    web.stop()


def steps(found: dict[str, Any]) -> dict[str, str]:
    return {s["name"]: s["state"] for s in found["steps"]}


def images(found: dict[str, Any], *states: str) -> set[str]:
    return {i["ref"] for i in found["images"] if i["state"] in states}


def names(tags: dict[str, str]) -> dict[str, str]:
    """The tags that name images, not signatures."""
    return {name: digest for name, digest in tags.items() if ":sha256-" not in name}


def test_nights(town: Town, tmp_path: Path) -> None:
    """One test: each night stands on the one before, and the first takes its time."""
    first = town.night()
    assert set(steps(first).values()) == {"done"}
    assert images(first, "built") == set(REFS)
    assert {p["ref"]: p["state"] for p in first["promotions"]} == dict.fromkeys(REFS, "promoted")
    assert (first["exit_code"], first["blocked"], first["deprecated"]) == (0, [], [])
    assert town.told() == sorted(f"{ref} was {what}" for ref in REFS for what in ("promoted", "rebuilt"))
    quiet_night(town)
    fixed_night(town)
    # What a cluster made has its layers on no disk of ours: they are brought, and nothing is built.
    quiet_night(town)
    two_at_once(town)
    killed_night(town)
    broken_night(town, tmp_path / "here")


def quiet_night(town: Town) -> None:
    """Nothing changed: no digest, no tag, no promotion, no entry in the ledger, no message."""
    before, entries = town.tags(), town.json("audit")
    quiet = town.night()
    assert images(quiet, "unchanged") == set(REFS)
    assert (quiet["promotions"], quiet["deprecated"], quiet["blocked"]) == ([], [], [])
    assert town.tags() == before
    assert town.json("audit") == entries
    assert (town.told(), town.web.taken) == ([], [])


def fixed_night(town: Town) -> None:
    """A fix in the archive and an advisory in the database: exactly what is affected moves."""
    before = names(town.tags())
    old = before["greetlib:1"]
    journal = PullJournal(town.checkout.state / "pulls", lambda: f"{dt.datetime.now(dt.UTC):%FT%TZ}")
    journal.note("token:web", "greetlib", old, "1")
    journal.close()
    town.loop.publish_fix()
    night = night_with_a_worker_killed(town)
    assert (night["exit_code"], night["blocked"], set(steps(night).values())) == (0, [], {"done"})
    moved = {"greetlib:1", "greeter:1"}
    assert (images(night, "built"), images(night, "unchanged")) == (moved, set(REFS) - moved)
    after = names(town.tags())
    assert {r for r in REFS if before[r] != after[r]} == moved
    new = {p["ref"]: p["changes"] for p in night["promotions"]}
    assert set(new) == moved
    assert any("greetlib-app: 1.0-1 → 1.0-2" in line for line in new["greetlib:1"]), new
    assert any(line.startswith("linux/amd64: fixed: ") and CVE in line for line in new["greetlib:1"]), new
    assert {d["ref"]: (d["digest"], d["replacement"]) for d in night["deprecated"]} == {
        ref: (before[ref], f"{ref}@{after[ref]}") for ref in moved
    }
    registry = town.checkout.environment["GOLDSMITH_REGISTRY"]
    said = town.json("verify", f"{registry}/greetlib@{old}", "--accept-sample")
    assert said["channel"] == "deprecated"
    found = town.json("affected", CVE)
    assert {i["digest"] for i in found["images"]} == {before[r] for r in moved}
    assert found["fixed_versions"] == ["1.0-2"]
    told, first = town.json("changes", "greetlib:1")
    assert (told["digest"], told["previous"], first["digest"]) == (after["greetlib:1"], old, old)
    (platform,) = told["platforms"]
    assert platform["packages"] == [{"name": "greetlib-app", "before": "1.0-1", "after": "1.0-2"}]
    assert [f["id"] for f in platform["fixed"]] == [CVE]
    assert platform["new"] == []
    assert any("greetlib-app" in reason for reason in told["reasons"]), told["reasons"]
    clock = {(c["ref"], c["vulnerability"]): c for c in town.json("clock")["remediations"]}
    assert {ref for ref, vulnerability in clock if vulnerability == CVE} == moved
    assert {clock[ref, CVE]["state"] for ref in moved} <= {"promoted", "adopted"}
    assert all(clock[ref, CVE]["promoted"] for ref in moved)
    assert town.told() == sorted(f"{ref} was {what}" for ref in moved for what in ("promoted", "rebuilt"))
    (pullers,) = town.web.taken
    assert f"use instead: greetlib:1@{after['greetlib:1']}" in pullers["message"]
    town.web.taken.clear()


def night_with_a_worker_killed(town: Town) -> dict[str, Any]:
    """The images are made on a cluster; the worker that takes the first one is killed in its middle."""
    folder = town.loop.folder / "cluster"
    folder.mkdir()
    with processes(folder) as cluster:
        workers = {}
        for number in (1, 2):
            state = folder / f"worker-{number}"
            shutil.copytree(town.checkout.state / "credentials", state / "credentials")
            environment = {
                **town.checkout.environment,
                "GOLDSMITH_STATE": str(state),
                "DOCKER_HOST": town.engine,
            }
            workers[state] = cluster.start_worker(environment=environment)[0]
        with ThreadPoolExecutor(1) as side:
            night = side.submit(town.night, "--scheduler", cluster.address)
            wait_until(lambda: night.done() or any(map(at_work, workers)), "a worker at work")
            taken = [child for state, child in workers.items() if at_work(state)]
            assert taken, night.result()
            taken[0].send_signal(signal.SIGKILL)
            found = night.result()
        assert [child.poll() is None for child in workers.values()].count(True) == 1
        return found


def at_work(state: Path) -> bool:
    """Whether a worker is in the middle of an order."""
    return any((state / "tmp").glob("*/"))


def two_at_once(town: Town) -> None:
    with open(town.checkout.state / "nightly" / "lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert town.night("--no-lock", code=1)["error"] == "state-busy"


def killed_night(town: Town) -> None:
    """Killed in the middle of the work; the next one goes on and says so."""
    before = names(town.tags())
    for kind in ("built", "released"):
        for record in (town.checkout.state / "records" / kind).iterdir():
            if b"other:1" in record.read_bytes():
                record.unlink()
    child = subprocess.Popen(
        [sys.executable, "-m", "builder", "nightly", "--no-lock"],
        cwd=town.checkout.catalogue,
        env={
            **town.checkout.environment,
            "PYTHONPATH": str(ROOT),
            "GOLDSMITH_STATE": str(town.checkout.state),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    mark = town.checkout.state / "nightly" / "step"
    wait_until(lambda: mark.exists() and mark.read_text() == "run", "the step `run`")
    os.killpg(child.pid, signal.SIGKILL)
    child.wait(60)
    after = town.night("--no-lock")
    assert after["cut_before"] == "run"
    assert set(steps(after).values()) == {"done"}
    assert names(town.tags()) == before


def broken_night(town: Town, chosen: Path) -> None:
    """An input that cannot be had blocks what needs it, says since when, and is told once.

    The folder of a report can be chosen.
    """
    town.told()
    definition = town.checkout.catalogue / "images" / "other" / "image.yaml"
    definition.write_text(definition.read_text().replace("title: ", "titel: ", 1))
    broken = town.night("--no-lock", code=1)
    assert steps(broken)["plan"] == "failed"
    since = {b["what"]: b["since"] for b in broken["blocked"]}
    night = town.night("--no-lock", "--report", str(chosen), code=1)
    assert since and since == {b["what"]: b["since"] for b in night["blocked"]}
    assert {p.name for p in chosen.iterdir()} == {"report.json", "report.md", "report.xml"}
    page = (town.checkout.state / "nightly" / "report.md").read_text()
    assert "## Blocked" in page and "titel" in page
    assert "step plan failed" in town.told()
    suites = ElementTree.fromstring((town.checkout.state / "nightly" / "report.xml").read_text())
    assert {s.get("name"): s.get("failures") for s in suites}["steps"] != "0"
