"""The simulation keeps within its limits, and agrees with what can be reckoned by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.cli.main import run
from builder.simulate import Costs, Site, costs_of, parents, simulate


def test_by_hand() -> None:
    """Two bases of 2 s on one worker; 1 s to send, 1 s to sign: 2+1, 2+1, and 1 for the last."""
    found = simulate(Site(2, bases=2, registry_bytes=10), Costs(2, 1, 10), 1)
    assert found.seconds == 7
    assert (
        simulate(Site(2, bases=2, registry_bytes=10), Costs(2, 1, 10), 2).seconds == 5
    )  # they share the registry


def test_a_child_waits_for_its_parent() -> None:
    found = simulate(Site(3, bases=1, fan_out=1), Costs(2, 1, 0), 100)
    assert found.critical_path == found.seconds == 7
    assert found.limit == "critical path"


def test_ten_thousand_images_get_faster_until_the_registry_is_the_limit() -> None:
    results = [simulate(Site(10_000), Costs(6, 0.4, 12e6), workers) for workers in (1, 10, 50, 200)]
    seconds = [r.seconds for r in results]
    assert seconds == sorted(seconds, reverse=True)
    assert [r.limit for r in results] == ["workers", "workers", "workers", "registry"]
    assert seconds[0] == pytest.approx(10_000 * 6.12, rel=0.01)
    assert seconds[-1] == pytest.approx(10_000 * 0.12, rel=0.05)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 200),
    st.integers(1, 50),
    st.floats(0.01, 10),
    st.floats(0, 5),
    st.floats(0, 1e9),
    st.integers(1, 9),
)
def test_nothing_is_faster_than_its_limits(
    images: int, workers: int, work: float, sign: float, size: float, fan_out: int
) -> None:
    found = simulate(Site(images, fan_out=fan_out, bases=1), Costs(work, sign, size), workers)
    for limit in (found.work_per_worker, found.registry, found.command):
        assert found.seconds >= limit * 0.999
    assert found.seconds >= found.critical_path * 0.999
    assert found.seconds <= images * (work + size / 100e6 + sign) * 1.001


def test_the_shape_has_parents_before_children() -> None:
    assert parents(Site(14, fan_out=2, bases=2)) == [None, None, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_costs_are_the_mean_of_what_was_measured() -> None:
    found = costs_of([{"build": 2, "scan": 2, "sign": 1}, {"build": 4, "publish": 3}], [10, 30])
    assert found == Costs(4, 2, 20)
    with pytest.raises(ValueError):
        costs_of([], [])


def test_the_command_reads_what_a_run_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = {"outcome": "built", "stages": {"build": 3.0, "scan": 1.0}, "compressed_bytes": 1000000}
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"images": [image, {**image, "outcome": "unchanged", "stages": {}}]}))
    assert run(["simulate", str(path), "--images", "100", "--workers", "1,10", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [r["workers"] for r in results] == [1, 10]
    assert results[0]["work_per_worker_seconds"] == 401.0
    for content in ("", "[]", '{"images": []}', '{"images": [7]}'):
        path.write_text(content)
        assert run(["simulate", str(path), "--json"]) == 2
    capsys.readouterr()
