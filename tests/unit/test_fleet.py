"""The graph of tasks: order, named ends, what a failure stops, stopping, and bugs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.errors import GoldsmithError, ToolError, UsageError
from builder.fleet import Ended, State, Task, run_graph


class Hands:
    """Does each task at once, and writes down what was begun; `act` may fail."""

    def __init__(self, act: Callable[[str], Any] = lambda name: name.upper()) -> None:
        self.act, self.begun = act, []
        self.inputs: dict[str, Mapping[str, Any]] = {}

    def submit(self, task: Task, inputs: Mapping[str, Any]) -> Future[Any]:
        self.begun.append(task.name)
        self.inputs[task.name] = dict(inputs)
        future: Future[Any] = Future()
        try:
            future.set_result(self.act(task.name))
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future


def chain(*edges: str) -> list[Task]:
    """`"b<a"` is a task b after a; the order is that of naming."""
    after: dict[str, tuple[str, ...]] = {}
    for edge in edges:
        name, _, before = edge.partition("<")
        after[name] = tuple(before.split(",")) if before else ()
    return [Task(name, before) for name, before in after.items()]


def states(ended: Mapping[str, Ended]) -> dict[str, str]:
    return {name: end.state.value for name, end in ended.items()}


def test_a_task_gets_the_results_of_those_before_it() -> None:
    hands = Hands()
    ended = run_graph(chain("c<a,b", "a", "b<a"), hands.submit)
    assert hands.begun == ["a", "b", "c"]
    assert hands.inputs["c"] == {"a": "A", "b": "B"}
    assert ended["c"].result == "C"


def test_a_failure_stops_only_its_descendants_and_each_names_the_root() -> None:
    def act(name: str) -> str:
        if name == "b":
            raise ToolError("broken")
        return name

    hands = Hands(act)
    ended = run_graph(chain("a", "b<a", "c<b", "d<c", "e<a", "f<e,c"), hands.submit)
    assert states(ended) == {
        "a": "done",
        "b": "failed",
        "c": "skipped",
        "d": "skipped",
        "e": "done",
        "f": "skipped",
    }
    assert {ended[n].because for n in "cdf"} == {"b"}
    assert str(ended["b"].error) == "broken"
    assert set(hands.begun) == {"a", "b", "e"}


def test_those_that_come_first_are_begun_first_as_far_as_there_are_hands() -> None:
    order = []
    free = threading.Event()

    def act(name: str) -> None:
        order.append(name)

    with ThreadPoolExecutor(1) as pool:
        run_graph(chain("z", "y", "x<z", "w"), lambda t, _: pool.submit(act, t.name), width=1)
    assert order == ["z", "y", "x", "w"]
    assert not free.is_set()


def test_stopped_what_runs_ends_and_the_rest_is_skipped() -> None:
    stop = threading.Event()

    def act(name: str) -> str:
        stop.set()
        return name

    ended = run_graph(chain("a", "b<a", "c"), Hands(act).submit, width=1, stop=stop)
    assert states(ended) == {"a": "done", "b": "skipped", "c": "skipped"}
    assert {ended[n].because for n in "bc"} == {"stopped"}


def test_a_bug_is_raised_when_nothing_runs_any_more() -> None:
    gate, ended = threading.Event(), []

    def act(name: str) -> str:
        if name == "bug":
            raise ZeroDivisionError
        assert gate.wait(60)
        ended.append(name)
        return name

    def watch(end: Ended) -> None:
        if end.name == "bug":
            gate.set()

    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        run_graph(chain("slow", "bug", "after<slow"), lambda t, _: pool.submit(act, t.name), watch=watch)
    assert ended == ["slow"]


def test_what_was_cancelled_is_stopped_and_not_failed() -> None:
    def submit(task: Task, inputs: Mapping[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future

    ended = run_graph(chain("a", "b<a"), submit)
    assert states(ended) == {"a": "skipped", "b": "skipped"}
    assert ended["b"].because == "stopped"


@pytest.mark.parametrize("tasks", [chain("a<b", "b<a"), chain("a<gone")], ids=["circle", "missing"])
def test_a_graph_that_cannot_be_run_is_refused(tasks: list[Task]) -> None:
    with pytest.raises(UsageError):
        run_graph(tasks, Hands().submit)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[Sequence[Task], frozenset[str]]:
    count = draw(st.integers(1, 12))
    tasks = [
        Task(
            f"t{n}",
            tuple(sorted({f"t{m}" for m in draw(st.sets(st.integers(0, n - 1), max_size=3))})) if n else (),
        )
        for n in range(count)
    ]
    return draw(st.permutations(tasks)), draw(st.frozensets(st.sampled_from([t.name for t in tasks])))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.sampled_from([None, 1, 2]))
def test_every_task_ends_and_exactly_what_hangs_on_a_failure_is_skipped(
    graph: tuple[Sequence[Task], frozenset[str]], width: int | None
) -> None:
    tasks, broken = graph
    after = {t.name: t.after for t in tasks}

    def act(name: str) -> None:
        if name in broken:
            raise GoldsmithError(name)

    def hangs(name: str) -> bool:
        return any(b in broken or hangs(b) for b in after[name])

    ended = run_graph(tasks, Hands(act).submit, width=width)
    expected = {n: State.SKIPPED if hangs(n) else State.FAILED if n in broken else State.DONE for n in after}
    assert {n: e.state for n, e in ended.items()} == expected
