"""The client of a cluster against a scheduler that misbehaves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from builder.cluster import Cluster
from builder.errors import ToolError, UsageError

SECONDS = 60.0


class FakeFuture:
    def __init__(self, key: str, status: str, result: object = None) -> None:
        self.key, self.status, self._result, self.released = key, status, result, False

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        call(self)

    def exception(self) -> object:
        return self._result

    def release(self) -> None:
        self.released = True


class FakeClient:
    """Ends each task at once, as `end` says; the first message waits for `gate`."""

    def __init__(self, end: Callable[[Any], tuple[str, object]]) -> None:
        self.end, self.gate, self.messages = end, threading.Event(), list[list[Any]]()
        self.futures: list[FakeFuture] = []
        self.gathering: Exception | None = None

    def map(self, function: object, arguments: Sequence[Any], **options: object) -> list[FakeFuture]:
        self.gate.wait(SECONDS)
        if "cannot be sent" in arguments:
            raise TypeError("no bytes of it")
        self.messages.append(list(arguments))
        made = [FakeFuture(f"key-{one}", *self.end(one)) for one in arguments]
        self.futures += made
        return made

    def gather(self, futures: Mapping[str, FakeFuture], errors: str) -> dict[str, object]:
        if self.gathering is not None:
            raise self.gathering
        return {key: future._result for key, future in futures.items()}

    def cancel(self, futures: Sequence[FakeFuture]) -> None:
        for future in futures:
            future.status = "cancelled"


def end(argument: object) -> tuple[str, object]:
    if argument == "bad":
        return "error", UsageError("not so")
    return "finished", f"made {argument}"


@pytest.fixture
def client() -> FakeClient:
    return FakeClient(end)


@pytest.fixture
def cluster(client: FakeClient) -> Iterator[Cluster]:
    found = Cluster(client, "tcp://scheduler.example:8786")
    yield found
    client.gate.set()
    found.close()


def test_what_is_submitted_while_a_message_is_under_way_goes_in_the_next_one(
    client: FakeClient, cluster: Cluster
) -> None:
    futures = [cluster.submit(str, str(number)) for number in range(20)]
    client.gate.set()
    assert [f.result(SECONDS) for f in futures] == [f"made {number}" for number in range(20)]
    assert len(client.messages) <= 2
    assert all(future.released for future in client.futures)


def test_a_failure_is_of_its_own_task_alone(client: FakeClient, cluster: Cluster) -> None:
    client.gate.set()
    good, bad = cluster.submit(str, "good"), cluster.submit(str, "bad")
    with pytest.raises(UsageError, match="not so"):
        bad.result(SECONDS)
    assert good.result(SECONDS) == "made good"


def test_what_cannot_be_sent_is_an_error_of_its_future(client: FakeClient, cluster: Cluster) -> None:
    client.gate.set()
    with pytest.raises(TypeError, match="no bytes"):
        cluster.submit(str, "cannot be sent").result(SECONDS)
    assert cluster.submit(str, "later").result(SECONDS) == "made later"


def test_results_that_cannot_be_brought_are_no_results(client: FakeClient, cluster: Cluster) -> None:
    client.gathering = OSError("gone")
    client.gate.set()
    with pytest.raises(ToolError, match="was lost") as caught:
        cluster.submit(str, "one").result(SECONDS)
    assert "gone" in caught.value.context


def test_what_is_sent_after_giving_up_is_given_up_too(client: FakeClient, cluster: Cluster) -> None:
    future = cluster.submit(str, "one")
    cluster.cancel()
    client.gate.set()
    with pytest.raises(ToolError):
        future.result(SECONDS)
    assert client.futures[0].status == "cancelled"
