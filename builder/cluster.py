"""More than one machine: the same submitting over a Dask cluster (dask.distributed, an optional extra).

What runs on a worker may run twice: a worker that was thought dead may wake and finish. So what is
submitted here has to be idempotent. Source of the behaviour: distributed 2026.8, `client.py`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ToolError, UsageError

RESOURCE = "build"  # what a worker offers: `--resources build=1`
CONNECT_SECONDS = 20.0
_CLOSE_SECONDS = 5.0
_END = object()


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of mutual TLS: the authority, our certificate, and its key."""

    ca: Path
    certificate: Path
    key: Path


class _Together:
    """A thread of its own that hands on what has been put, all at once that came meanwhile."""

    def __init__(self, hand_on: Callable[[list[Any]], None], name: str) -> None:
        self._hand_on = hand_on
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put = self._waiting.put
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hand on what is there, and end; a thread that hangs is not waited for."""
        self.put(_END)
        self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        ended = False
        while not ended:
            some = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    some.append(self._waiting.get_nowait())
            ended = _END in some
            if more := [one for one in some if one is not _END]:
                self._hand_on(more)


class Cluster:
    """A connection to a scheduler; `connect` makes it.

    What is submitted, or has ended, while a message is under way goes into one message together: to a
    scheduler each message costs more than the task in it.
    """

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self._running: dict[int, Any] = {}
        self._given_up = False
        self._sending = _Together(self._send, "cluster-send")
        self._settling = _Together(self._settle, "cluster-settle")

    @property
    def threads(self) -> int:
        """How many threads the workers have; raises ToolError when there is no worker."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        offering = [w for w in workers if w["resources"].get(RESOURCE)]
        if not offering:
            raise ToolError(
                f"the scheduler at {self._address} has no worker that builds",
                context=f"{len(workers)} workers, none offers the resource {RESOURCE}",
                hint=f"start one: dask worker {self._address} --nthreads 1 --resources {RESOURCE}=1",
                reference="no-workers",
            )
        return sum(int(w["nthreads"]) for w in offering)

    def cancel(self) -> None:
        """Give up what was submitted: what waits never starts, what runs is not waited for."""
        self._given_up = True
        self._forget(list(self._running.values()))

    def close(self) -> None:
        """Come to an end; what has not ended by now is not heard of any more."""
        self._sending.close()
        self._settling.close()

    def submit(self, function: Callable[..., Any], argument: Any) -> Future[Any]:
        """Run `function(argument)` on one worker; both must be known there by the same names.

        The future gets what it returned, the GoldsmithError that it raised, or a ToolError when
        the cluster lost it.
        """
        ours: Future[Any] = Future()
        self._sending.put((function, argument, ours))
        return ours

    def _send(self, orders: Sequence[tuple[Callable[..., Any], Any, Future[Any]]]) -> None:
        for function in dict.fromkeys(order[0] for order in orders):
            some = [(argument, ours) for known, argument, ours in orders if known is function]
            arguments = [argument for argument, _ in some]
            try:
                sent = self._client.map(function, arguments, pure=False, resources={RESOURCE: 1})
            except Exception as error:  # noqa: BLE001 - whatever it is, somebody waits for the future
                for _, ours in some:
                    ours.set_exception(self._broken(error))
                continue
            self._running |= {id(ours): theirs for theirs, (_, ours) in zip(sent, some, strict=True)}
            if self._given_up:
                self._forget(sent)
            for theirs, (_, ours) in zip(sent, some, strict=True):
                theirs.add_done_callback(lambda done, ours=ours: self._settling.put((done, ours)))

    def _settle(self, ended: Sequence[tuple[Any, Future[Any]]]) -> None:
        """Hand on results. The cluster forgets each before, or would compute it again if its worker died."""
        finished = {theirs.key: theirs for theirs, _ in ended if theirs.status == "finished"}
        results: Mapping[Any, Any] = {}
        broken: Exception | None = None
        try:
            results = self._client.gather(finished, errors="skip") if finished else {}
        except Exception as problem:  # noqa: BLE001 - whatever it is, somebody waits for the futures
            broken = self._broken(problem)
        for theirs, ours in ended:
            status = theirs.status
            error = theirs.exception() if status == "error" else None
            self._running.pop(id(ours), None)
            theirs.release()
            if status == "finished" and theirs.key in results:
                ours.set_result(results[theirs.key])
            elif error is not None and not self._is_theirs(error):
                ours.set_exception(error)
            else:
                ours.set_exception(broken or self._lost(error))

    def _forget(self, theirs: Sequence[Any]) -> None:
        with contextlib.suppress(OSError, TimeoutError, RuntimeError, CancelledError):
            self._client.cancel(theirs)

    def _broken(self, error: Exception) -> Exception:
        """What is said of an error on the way there or back."""
        usual = isinstance(error, OSError | RuntimeError | ValueError) or self._is_theirs(error)
        return self._lost(error) if usual else error

    def _is_theirs(self, error: BaseException) -> bool:
        """Whether the cluster itself failed, and not what ran on it."""
        return type(error).__module__.partition(".")[0] == "distributed" or isinstance(error, CancelledError)

    def _lost(self, error: BaseException | None) -> ToolError:
        if error is not None and type(error).__name__ == "KilledWorker":
            return ToolError(
                "it took one worker after the other with it",
                context=str(error)[:500],
                hint="see the workers' logs; too little memory is the usual reason",
                reference="workers-lost",
            )
        if error is not None and type(error).__name__ == "NoValidWorkerError":
            return ToolError(
                f"the scheduler at {self._address} had no worker that builds for too long",
                context=str(error)[:500],
                hint="nothing is half-published; start workers and run again: it goes on from there",
                reference="no-workers",
            )
        return ToolError(
            f"the scheduler at {self._address} was lost",
            context=f"{type(error).__name__}: {error}"[:500] if error else "the connection broke",
            hint="nothing is half-published; mend the scheduler and run again: it goes on from there",
            reference="scheduler-lost",
        )


@contextlib.contextmanager
def connect(
    address: str, certificates: Certificates | None, seconds: float = CONNECT_SECONDS
) -> Iterator[Cluster]:
    """Connect to a scheduler at `tcp://HOST:PORT`, or `tls://HOST:PORT` with certificates.

    Raises UsageError when the extra is not installed or the address does not fit, and ToolError
    when no scheduler answers or it has no worker.
    """
    scheme = address.partition("://")[0]
    if scheme not in ("tcp", "tls") or (scheme == "tls") != (certificates is not None):
        raise UsageError(
            f"not the address of a scheduler that fits: {address[:200]!r}",
            hint="tcp://HOST:PORT, or tls://HOST:PORT with --tls-ca, --tls-cert and --tls-key",
        )
    try:
        import distributed
    except ImportError:
        raise UsageError(
            "the cluster's client is not installed", hint="install goldsmith with its extra: goldsmith[dask]"
        ) from None
    library: Any = distributed
    security = None
    if certificates is not None:
        security = library.Security(
            tls_ca_file=str(certificates.ca),
            tls_client_cert=str(certificates.certificate),
            tls_client_key=str(certificates.key),
            require_encryption=True,
        )
    try:
        client = library.Client(address, security=security, timeout=seconds, set_as_default=False)
    except (OSError, TimeoutError, RuntimeError, ValueError) as error:
        raise ToolError(
            f"no scheduler can be reached at {address}",
            context=str(error)[:500],
            hint="is it running, and are the certificates by the same authority?",
            reference="scheduler-unreachable",
        ) from None
    cluster = Cluster(client, address)
    try:
        yield cluster
    finally:
        cluster.close()
        with contextlib.suppress(OSError, TimeoutError, RuntimeError, CancelledError):
            client.close(timeout=5)
