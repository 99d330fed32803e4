"""`make bench`: measures ours and the peer in the same run, on the same packages.

Writes `.goldsmith/bench.json`: a list of `{name, value, unit, peer, ratio}`, ratio = value ÷ peer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from builder.errors import GoldsmithError, UsageError
from builder.report import emit, table
from builder.store import write_atomically
from tests.bench import (
    catalogue,
    checking,
    clocking,
    cold,
    engines,
    fleet,
    gate,
    indexing,
    nights,
    normalising,
    planning,
    promoting,
    reproducing,
    signing,
    standing,
    unchanged,
    updating,
)
from tests.bench.scene import Scene


@dataclass(frozen=True)
class Result:
    """One figure of ours, the peer's, and their quotient."""

    name: str
    value: float
    unit: str
    peer: float
    ratio: float


# The goal stands beside the figure in the printed table; a missed one is said, not hidden.
GOALS: dict[str, tuple[str, Callable[[Result], bool]]] = {
    "cold_pipeline": ("ratio at most 0.5", lambda r: r.ratio <= 0.5),
    "unchanged_run": ("at most 1.5 s", lambda r: r.value <= 1.5),
    "sign_attest": ("ratio at most 0.1", lambda r: r.ratio <= 0.1),
    "promote_one": ("under 0.5 s", lambda r: r.value < 0.5),
    "engine_docker": ("ratio at most 1", lambda r: r.ratio <= 1),
    "engine_buildah": ("ratio at most 1", lambda r: r.ratio <= 1),
    "reproduce_python": ("ratio at most 1", lambda r: r.ratio <= 1),
    "normalise": ("ratio at least 2", lambda r: r.ratio >= 2),
    "check_1000": ("under 2 s", lambda r: r.value < 2),
    "normalise_memory": ("under 200 MB", lambda r: r.value < 200),
    "gate_manifest_get": ("ratio at least 3", lambda r: r.ratio >= 3),
    "gate_manifest_p99": ("under 10 ms", lambda r: r.value < 10),
    "gate_blob": ("ratio at least 0.8", lambda r: r.ratio >= 0.8),
    "gate_blob_nginx": ("ratio at least 1", lambda r: r.ratio >= 1),
    "plan_1000": ("under 5 s", lambda r: r.value < 5),
    "dag_overhead_dask": ("under 30 ms", lambda r: r.value < 30),
    "dag_overhead": ("under 10 ms", lambda r: r.value < 10),
    "rescan_1000": ("ratio at most 0.05", lambda r: r.ratio <= 0.05),
    "rescan_10000": ("ratio at most 0.005", lambda r: r.ratio <= 0.005),
    "rescan_10000_memory": ("under 1000 MB", lambda r: r.value < 1000),
    "reindex_10000": ("under 60 s", lambda r: r.value < 60),
    "affected_10000": ("under 50 ms", lambda r: r.value < 50),
    "affected_10000_rare": ("under 50 ms", lambda r: r.value < 50),
    "affected_10000_whole": ("under 50 ms", lambda r: r.value < 50),
    "nightly_unchanged": ("under 15 s", lambda r: r.value < 15),
    "delta_openssl": ("ratio at most 1.2", lambda r: r.ratio <= 1.2),
    "catalogue_cold": ("ratio at most 0.6", lambda r: r.ratio <= 0.6),
    "catalogue_unchanged": ("under 3 s", lambda r: r.value < 3),
    "clock_10000": ("under 5 s of CPU", lambda r: r.value < 5),
    "gate_start_10000": ("under 5 s", lambda r: r.value < 5),
}


_PARTS: dict[str, Callable[[Scene], Iterator[tuple[str, float, str, float]]]] = {
    "cold_pipeline": cold.measure,
    "unchanged_run": unchanged.measure,
    "sign_attest": signing.measure,
    "promote_one": promoting.measure,
    "reproduce_python": reproducing.measure,
    "delta_openssl": updating.measure,
    "engines": engines.measure,
    "normalise": normalising.measure,
    "check_1000": checking.measure,
    "gate": gate.measure,
    "plan_1000": planning.measure,
    "dag_overhead": fleet.measure,
    "catalogue_cold": catalogue.measure,
    "catalogue_unchanged": standing.measure,
    "rescan": indexing.measure,
    "clock_10000": clocking.measure,
}
# They take much longer, and are run only when they are named.
_ON_REQUEST = {
    "engines_all": engines.measure_all,
    "catalogue_cold_all": catalogue.measure_all,
    "nightly_unchanged": nights.measure,
}


def main() -> int:
    """Run all benchmarks, or those that are named; one that fails stops none of the others."""
    known = {**_PARTS, **_ON_REQUEST}
    wanted = sys.argv[1:] or list(_PARTS)
    if unknown := [name for name in wanted if name not in known]:
        emit(f"there is no benchmark {unknown[0]}; there are {', '.join(known)}")
        return UsageError.exit_code
    results: list[Result] = []
    failed = 0
    try:
        with Scene.open() as scene:
            path = scene.state.parent / "bench.json"
            for name in wanted:
                failed = _run(name, known[name], scene, results) or failed
                write_atomically(path, json.dumps([asdict(r) for r in results], indent=1).encode())
    except GoldsmithError as error:
        return _failure("the preparation", error)
    rows = [
        (
            r.name,
            f"{_figure(r.value)} {r.unit}",
            f"{_figure(r.peer)} {r.unit}",
            f"{r.ratio:g}",
            GOALS[_kind(r)][0],
            "met" if GOALS[_kind(r)][1](r) else "MISSED",
        )
        for r in results
    ]
    table("Benchmarks", ("name", "ours", "peer", "ratio", "goal", ""), rows)
    emit(f"{path} holds the same for machines")
    return failed


def _run(
    name: str,
    measure: Callable[[Scene], Iterator[tuple[str, float, str, float]]],
    scene: Scene,
    results: list[Result],
) -> int:
    """Add the figures of one part to the results; returns the exit code of its failure, else 0."""
    began = time.monotonic()
    try:
        for title, value, unit, peer in measure(scene):
            results.append(Result(title, round(value, 3), unit, round(peer, 3), round(value / peer, 3)))
            emit(f"{title}: {_figure(value)} {unit}, peer {_figure(peer)} {unit}")
    except GoldsmithError as error:
        return _failure(name, error)
    except (AssertionError, RuntimeError) as error:  # what was measured is not what should be
        emit(f"error in {name}: {error}")
        return GoldsmithError.exit_code
    emit(f"({name}: {time.monotonic() - began:.0f} s in all)")
    return 0


def _failure(name: str, error: GoldsmithError) -> int:
    emit(f"error in {name}: {error.message}\n  {error.context}\n  what to do: {error.hint}")
    return error.exit_code


def _figure(value: float) -> str:
    """Large ones in full, small ones with the digits that count."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _kind(result: Result) -> str:
    """A figure of one image has its name behind its own."""
    return result.name.partition(" ")[0]


if __name__ == "__main__":
    sys.exit(main())
