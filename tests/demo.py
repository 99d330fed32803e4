"""`make demo`: the whole system, end to end, with real parts only, on this machine.

Locks, builds on two engines, checks, scans, judges, signs and publishes the images of this
catalogue, promotes them, pulls them through the gate with a real client, runs them, verifies every
signature, and shows how the gate refuses what nobody approved. It is what the commands `init`, `up`,
`lock`, `run`, `promote`, `token create` and `verify` do, in a row.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

from builder.cli import outcomes as shown
from builder.cli.locking import relock
from builder.cli.main import guarded
from builder.cli.releasing import ReleaseTools
from builder.cli.running import run_images
from builder.cli.wiring import Workshop
from builder.errors import ToolError
from builder.model.outcome import ImageOutcome
from builder.model.reference import Reference
from builder.report import Reporter, emit, for_people, plain
from builder.signing.keys import create_keys
from builder.signing.trust import Trust
from builder.signing.verify import verify
from builder.store import write_atomically
from builder.tools import process
from builder.tools.docker_client import find_combination
from builder.tools.docker_engine import ensure_engine
from registry.gate import daemon
from registry.storage import service
from tests import demo_serving
from tests.demo_serving import Client
from tests.support.vulndb import sample_database

# A small part of the catalogue, so that a newcomer waits for seconds.
IMAGES, PLATFORM = ["base:13", "python:3.13"], "linux/amd64"
_RUN_SECONDS = 120
# What a real client runs in the pulled image, and what it must print; base has no program of its own.
_TRIALS = {
    "base": (["/usr/lib64/ld-linux-x86-64.so.2", "--version"], "ld.so"),
    "python": (
        ["/usr/bin/python3", "-c", "import ssl, sqlite3; print('hello from', ssl.OPENSSL_VERSION)"],
        "hello from OpenSSL",
    ),
}


@dataclass(frozen=True)
class Row:
    """One image after the demo: what the run said, and what a consumer saw."""

    outcome: ImageOutcome
    verified: bool
    said: str
    seconds: dict[str, float]
    pulled: str = ""


def main() -> int:
    """Run the demo; returns the exit code."""
    began = time.monotonic()
    return guarded(lambda: _demo(began), ["make", "demo"])


def _demo(began: float) -> int:
    reporter = for_people()
    workshop = Workshop.open()
    settings, store = workshop.settings, workshop.store.create()
    with reporter.stage("set-up", "keys"):
        create_keys(store.keys, settings.key_uris, settings.passphrase)
    with reporter.stage("set-up", "registry", settings.registry):
        service.up(settings, closed=True)
    with reporter.stage("set-up", "engine"):
        engine = ensure_engine(store, settings.child_environment)
        combination = find_combination(engine, store, settings.child_environment)
    reporter.note(f"  building with {combination}")
    with store.exclusive("make demo: lock"), reporter.stage("set-up", "lock"):
        _, changed = relock(workshop.catalogue, settings, store, IMAGES, check=False)
    for file in changed:
        reporter.note(f"  the archive has moved: {file} was written anew; `git diff` shows the packages")
    workshop = Workshop.open()
    tools, sample = _tools(replace(workshop, catalogue=workshop.catalogue.only(PLATFORM)), reporter)
    finished, failures = run_images(tools, IMAGES, ["direct", "docker"], reporter)
    approved = [o for o in finished if o.approved]
    gate = demo_serving.address(settings)
    demo_serving.release(approved, gate, reporter)
    with reporter.stage("set-up", "gate", gate):
        daemon.up(settings, gate, accept_sample=tools.database.identity.sample)
        client = demo_serving.log_in(tools, combination, gate)
    rows = [_consume(o, tools, client, reporter) if o.approved else Row(o, False, "", {}) for o in finished]
    denial = demo_serving.refused(client, approved[-1], tools.client) if approved else ""
    _write(settings.state / "demo.json", rows, tools, client, denial, time.monotonic() - began)
    _show(rows, finished, sample, client, denial)
    shown.stop_for(finished, failures, silent=False)
    emit(
        f"done in {time.monotonic() - began:.1f} s; {settings.state / 'demo.json'} holds the same for machines"
    )
    return 0


def _tools(workshop: Workshop, reporter: Reporter) -> tuple[ReleaseTools, bool]:
    """The ordinary policy with a real database; only where none can be had, the sample."""
    settings = workshop.settings
    tools = ReleaseTools(workshop, settings.policy, settings.trivy_db)
    try:
        with reporter.stage("set-up", "database"):
            tools.database.verify()
    except ToolError as error:
        if settings.trivy_db:
            raise  # somebody chose a database: another one must not stand in for it
        reporter.note(f"  {error.message}: {error.context.splitlines()[0] if error.context else ''}")
        sample = sample_database(settings.state / "sample")
        return ReleaseTools(workshop, "demo", str(sample)), True
    return tools, tools.database.identity.sample


def _consume(outcome: ImageOutcome, tools: ReleaseTools, client: Client, reporter: Reporter) -> Row:
    """What a developer does: pull by digest through the gate, run, verify signature and attestations."""
    name = outcome.ref.partition(":")[0]
    command, expected = _TRIALS[name]
    took: dict[str, float] = {}
    started = time.monotonic()
    with reporter.stage(outcome.ref, "pull + run"):
        pulled = f"{client.gate}/{name}@{Reference.parse(outcome.reference).digest}"
        client.pull(pulled)
        argv = ["run", "--rm", "--network=none", "--read-only", "--cap-drop=ALL", "--entrypoint", command[0]]
        ran = process.run(
            [client.program, *argv, pulled, *command[1:]],
            environment=client.environment,
            timeout_seconds=_RUN_SECONDS,
        )
    took["pull"] = time.monotonic() - started
    said = (ran.text.splitlines() or [""])[0]
    if expected not in said:
        raise ToolError(
            f"{outcome.ref} was pulled, but it said {said[:200]!r}", hint="see the image's checks"
        )
    started = time.monotonic()
    with reporter.stage(outcome.ref, "verify"):
        trust = Trust.load(tools.workshop.store.keys)
        accept = tools.database.identity.sample
        now = tools.workshop.settings.now
        proof = verify(Reference.parse(pulled), client.registry, trust, now, accept_sample=accept)
    took["verify"] = time.monotonic() - started
    return Row(outcome, str(proof.digest) == outcome.digest, said, took, pulled)


def _write(
    path: Path, rows: list[Row], tools: ReleaseTools, client: Client, denial: str, seconds: float
) -> None:
    identity = tools.database.identity
    images = [
        {
            **row.outcome.as_dict(),
            "channel": "stable" if row.pulled else "",
            "pulled": row.pulled,
            "verified": row.verified,
            "said": row.said,
            "stages": {k: round(v, 3) for k, v in {**row.outcome.stages, **row.seconds}.items()},
        }
        for row in rows
    ]
    database = {
        "digest": identity.digest,
        "updated_at": identity.updated_at,
        "source": identity.source,
        "sample": identity.sample,
    }
    document = {
        "images": images,
        "database": database,
        "seconds": round(seconds, 2),
        "gate": client.gate,
        "docker_config": str(client.folder),
        "denial": denial,
    }
    write_atomically(path, json.dumps(document, indent=1).encode())


def _show(
    rows: list[Row], finished: tuple[ImageOutcome, ...], sample: bool, client: Client, denial: str
) -> None:
    signatures = {r.outcome.ref: "verified" if r.verified else "NOT VERIFIED" for r in rows if r.said}
    consumed = {r.outcome.ref: r.seconds for r in rows}
    timed = [replace(o, stages={**o.stages, **consumed.get(o.ref, {})}) for o in finished]
    shown.show("Golden images", timed, signatures)
    for row in [r for r in rows if r.said]:
        emit(
            f"{row.outcome.ref}  {row.pulled}\n"
            f"    promoted to stable; a client pulled it through the gate, ran it, and it said: {row.said}"
        )
    if denial:
        emit(
            "an image that somebody brought into the storage past the pipeline; docker prints:\n"
            f"    {plain(denial)}\n"
            f"the gate goes on at {client.gate}, logged in with DOCKER_CONFIG={client.folder}; "
            "`make down` stops it"
        )
    if sample and rows:
        emit(
            "\n*** SAMPLE DATABASE: no vulnerability database could be had, so these images were scanned with the\n"
            "*** small sample of the tests. The verdicts say so, and the ordinary policy refuses them.\n"
            "*** Set GOLDSMITH_TRIVY_DB (an OCI reference, an OCI layout, or a tar) for a real one.\n"
        )


if __name__ == "__main__":
    sys.exit(main())
