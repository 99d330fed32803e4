"""`gate_*`: the gate against the bare storage behind it.

How it is measured: the gate and the storage are processes of their own, and so is the load, on the
same machine; all of it shares its cores. `gate_manifest_get` is what 100 clients get that ask again at
once; `gate_manifest_p99` is what each of 100 clients waits when they ask 500 times a second together
(the storage alone does not give more than about that). `gate_blob` and `gate_blob_nginx` are the best of five downloads
of 200 MB, after one that warms the caches: from the gate, and from nginx (without TLS) that the gate tells
where the file is. `gate_start_10000` is the time from starting the process to `/readyz`, storage away.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from builder.model.digest import Digest
from builder.model.image import INDEX_TYPE
from builder.oci.client import RegistryClient
from builder.oci.manifest import index_bytes
from builder.signing import verdicts
from builder.signing.predicates import VERDICT_TYPE
from builder.signing.statements import PAYLOAD_TYPE, STATEMENT_V1, pae, statement
from builder.stages.publish import publish
from builder.tools import process
from registry.gate.decision import Held
from registry.gate.proofs import Proofs
from tests.bench.scene import Scene, Stopwatch, _free_port
from tests.support.evidence import World, approval, world
from tests.support.gates import running_gate
from tests.support.load import download
from tests.support.nginx import ACCEL, nginx

REPO = "candidate/python"
_BLOB_BYTES = 200 << 20
_SECONDS, _CLIENTS = 5, 100
_RATE = 500.0  # requests per second of all clients together, for what each of them waits
_IMAGES, _REPOSITORIES = 10_000, 100
_READY_SECONDS = 120
_START_GOAL = 5.0  # seconds: the peer of a figure that has none


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Requests, bytes and seconds of the gate; the peer is the storage without a gate."""
    folder = scene.state / "gate"
    here = _published(scene, folder)
    index = f"/v2/{REPO}/manifests/{here.image.digest}"
    layer = f"/v2/{REPO}/blobs/{here.image.platforms[0].layers[0].blob.digest}"
    bare = scene.settings.registry
    with _gate(scene, folder / "world" / "keys") as (address, _):
        most = [_load(scene, where, index)[0] for where in (bare, address)]
        yield "gate_manifest_get", most[1], "requests/s", most[0]
        waited = [_load(scene, where, index, _RATE)[2] for where in (bare, address)]
        yield "gate_manifest_p99", waited[1], "ms", waited[0]
        speeds = [_speed(where, layer) for where in (bare, address)]
        yield "gate_blob", speeds[1], "MB/s", speeds[0]
    blobs = scene.settings.state / "registry" / "docker" / "registry" / "v2" / "blobs"
    with (
        _gate(scene, folder / "world" / "keys", more=("--accel", ACCEL)) as (address, _),
        nginx(folder / "nginx", address, blobs, tls=False) as front,
    ):
        speeds = [_speed(where, layer) for where in (bare, front.secure)]
        yield "gate_blob_nginx", speeds[1], "MB/s", speeds[0]
    state = folder / "many"
    _many(here, state)
    # The storage is away, so that this is the gate's own time.
    away = f"127.0.0.1:{_free_port()}"
    with _gate(scene, folder / "world" / "keys", state, away) as (address, seconds):
        _, _, body = _get(address, "/metrics")
        if f'goldsmith_gate_images{{decision="approved"}} {_IMAGES}.0' not in body:
            raise AssertionError("not all images were taken up")
    yield "gate_start_10000", seconds, "s", _START_GOAL


def _published(scene: Scene, folder: Path) -> World:
    """An image of today with a layer of 200 MB in the storage."""
    made = world(folder / "world", files=({"data": os.urandom(_BLOB_BYTES)},))
    made = replace(
        made,
        verdict=approval(made.image, made.proofs, scene.settings.now),
        repository=f"{scene.settings.registry}/{REPO}",
    )
    publish(made.signed(), RegistryClient(scene.settings.registry))
    return made


def _speed(address: str, path: str) -> float:
    """MB/s of the best of five downloads."""
    download(address, path)
    return max(download(address, path) for _ in range(5)) / 1e6


def _load(scene: Scene, address: str, path: str, rate: float = 0) -> tuple[float, float, float]:
    argv = [
        sys.executable,
        "-m",
        "tests.support.load",
        address,
        path,
        str(_CLIENTS),
        str(_SECONDS),
        INDEX_TYPE,
        str(rate),
    ]
    rate, median, slow = map(float, scene.peer(argv).text.split())
    return rate, median, slow


@contextlib.contextmanager
def _gate(
    scene: Scene,
    trust: Path,
    state: Path | None = None,
    storage: str | None = None,
    more: tuple[str, ...] = (),
) -> Iterator[tuple[str, float]]:
    """A gate in a process of its own, as users start it; its address, and how long it took to be ready."""
    address = f"127.0.0.1:{_free_port()}"
    log = scene.state / "gate.log"
    environment = {
        **scene.settings.child_environment,
        "GOLDSMITH_STATE": str(state or scene.settings.state),
        "GOLDSMITH_REGISTRY": storage or scene.settings.registry,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with Stopwatch() as watch:
        pid = process.start_daemon(
            [
                *(sys.executable, "-m", "builder", "serve", "--listen", address),
                *("--trust", trust, "--anonymous", "--prefix", "candidate/", *more),
            ],
            environment=environment,
            log=log,
            directory=scene.state,
        )
        _until_ready(address)
    try:
        yield address, watch.seconds
    finally:
        os.kill(pid, 15)
        os.waitpid(pid, 0)


def _many(here: World, state: Path) -> None:
    """Approvals of 10,000 images as a gate keeps them: an index and a signed verdict of its own for each."""
    with running_gate(
        here.repository.partition("/")[0], here.trust, now=here.verdict.issued_at.timestamp()
    ) as gate:
        known = gate.service.watch.known(REPO, here.image.digest)
    proofs = Proofs(state / "gate")
    platform = here.image.platforms[0].manifest
    for number in range(_IMAGES):
        data = index_bytes([platform], {"number": str(number)})
        index = Digest.of(data)
        verdict = replace(here.verdict, digest=index)
        payload = statement(STATEMENT_V1, index, VERDICT_TYPE, verdicts.encode(verdict))
        held = tuple(
            Held(index, INDEX_TYPE, data, {}) if h.digest == known.index else h for h in known.manifests
        )
        repository = f"candidate/team{number % _REPOSITORIES}/python"
        envelope = (payload, here.keys.verdict.sign(pae(PAYLOAD_TYPE, payload)))
        approved = replace(known, repository=repository, index=index, manifests=held, envelope=envelope)
        proofs.save(approved, [f"3.13.5-{index.short}"])


def _until_ready(address: str) -> None:
    ends = time.monotonic() + _READY_SECONDS
    pause = threading.Event()
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            if _get(address, "/readyz")[0] == 200:
                return
        pause.wait(0.02)
    raise AssertionError("the gate does not get ready")


def _get(address: str, path: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, dict(reply.getheaders()), reply.read().decode()
