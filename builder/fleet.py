"""The catalogue as a graph of tasks over anything that submits: threads, or a cluster.

A task starts when all that it comes after has succeeded. A failure stops only its descendants,
and every task ends in a named state. What a task does is none of this module's business.
"""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Any

from builder.errors import GoldsmithError, UsageError


class State(StrEnum):
    """How a task ended."""

    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Task:
    """A node: what it comes after, by name. Those that come first in a sequence are more urgent."""

    name: str
    after: tuple[str, ...] = ()
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one task ended: with a result, an error of its own, or because of another task's."""

    name: str
    state: State
    result: Any = None
    error: GoldsmithError | None = None
    because: str = ""


# Starts a task; gets the results of the tasks that it comes after.
Submit = Callable[[Task, Mapping[str, Any]], "Future[Any]"]
Watcher = Callable[[Ended], None]


@dataclass(slots=True)
class _Graph:
    tasks: dict[str, Task]
    order: dict[str, int]
    sorter: TopologicalSorter[str]
    ready: list[tuple[int, str]] = field(default_factory=list)
    ended: dict[str, Ended] = field(default_factory=dict)

    def pull(self) -> None:
        for name in self.sorter.get_ready():
            heapq.heappush(self.ready, (self.order[name], name))

    def obstacle(self, task: Task) -> str:
        """The task whose failure keeps this one from starting: the first in the chain."""
        for name in task.after:
            before = self.ended[name]
            if before.state is not State.DONE:
                return before.because if before.state is State.SKIPPED else name
        return ""


def run_graph(
    tasks: Sequence[Task],
    submit: Submit,
    *,
    width: int | None = None,
    stop: threading.Event | None = None,
    watch: Watcher = lambda ended: None,
) -> dict[str, Ended]:
    """Run all tasks, at most `width` at once; returns how each ended, in the order of ending.

    `stop` lets what runs come to its end and skips the rest. An exception that is no
    GoldsmithError is a bug: it does the same, and is raised when nothing runs any more.
    Raises UsageError when the tasks go round in a circle or name a task that is not there.
    """
    graph = _graph(tasks)
    finished: queue.SimpleQueue[tuple[str, Future[Any]]] = queue.SimpleQueue()
    running, bug = 0, None
    graph.pull()
    while graph.sorter.is_active():
        while graph.ready and (width is None or running < width):
            task = graph.tasks[heapq.heappop(graph.ready)[1]]
            because = "stopped" if stop is not None and stop.is_set() else graph.obstacle(task)
            if bug is not None or because:
                _end(graph, Ended(task.name, State.SKIPPED, because=because or "stopped"), watch)
                continue
            inputs = {name: graph.ended[name].result for name in task.after}
            future = submit(task, inputs)
            # The name is bound now; the future is not kept, so that a cluster can forget it.
            future.add_done_callback(lambda f, name=task.name: finished.put((name, f)))  # type: ignore[misc]
            running += 1
        if not running:
            continue
        name, future = finished.get()
        running -= 1
        error = None if future.cancelled() else future.exception()
        if future.cancelled():
            _end(graph, Ended(name, State.SKIPPED, because="stopped"), watch)
        elif error is None:
            _end(graph, Ended(name, State.DONE, future.result()), watch)
        elif isinstance(error, GoldsmithError):
            _end(graph, Ended(name, State.FAILED, error=error), watch)
        else:
            bug = bug or error
            _end(graph, Ended(name, State.FAILED, because="a bug"), watch)
        del future
    if bug is not None:
        raise bug
    return graph.ended


def _graph(tasks: Sequence[Task]) -> _Graph:
    known = {task.name: task for task in tasks}
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for task in tasks:
        missing = [name for name in task.after if name not in known]
        if missing:
            raise UsageError(f"{task.name} comes after {missing[0]}, which is not there")
        sorter.add(task.name, *task.after)
    try:
        sorter.prepare()
    except CycleError as error:
        raise UsageError("the tasks go round in a circle", context=" -> ".join(error.args[1])) from None
    return _Graph(known, {task.name: n for n, task in enumerate(tasks)}, sorter)


def _end(graph: _Graph, ended: Ended, watch: Watcher) -> None:
    graph.ended[ended.name] = ended
    graph.sorter.done(ended.name)
    graph.pull()
    watch(ended)
