"""More than one machine: the same submitting over a Dask cluster (dask.distributed, an optional extra).

What runs on a worker may run twice: a worker that was thought dead may wake and finish. So what is
submitted here has to be idempotent. Source of the behaviour: distributed 2026.8, `client.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import GoldsmithError, ToolError, UsageError

RESOURCE = "build"  # what a worker offers: `--resources build=1`
CONNECT_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Certificates:
    """The files of mutual TLS: the authority, our certificate, and its key."""

    ca: Path
    certificate: Path
    key: Path


class Cluster:
    """A connection to a scheduler; `connect` makes it."""

    def __init__(self, client: Any, address: str) -> None:
        self._client, self._address = client, address
        self._running: dict[int, Any] = {}

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
        with contextlib.suppress(OSError, TimeoutError, RuntimeError, CancelledError):
            self._client.cancel(list(self._running.values()))

    def submit(self, function: Callable[..., Any], argument: Any, *, priority: int = 0) -> Future[Any]:
        """Run `function(argument)` on one worker; both must be known there by the same names.

        The future gets what it returned, the GoldsmithError that it raised, or a ToolError when
        the cluster lost it.
        """
        ours: Future[Any] = Future()
        try:
            theirs = self._client.submit(
                function, argument, pure=False, resources={RESOURCE: 1}, priority=priority
            )
        except (OSError, RuntimeError, ValueError, CancelledError) as error:
            ours.set_exception(self._lost(error))
            return ours
        self._running[id(ours)] = theirs
        theirs.add_done_callback(lambda done: self._settle(done, ours))
        return ours

    def _settle(self, theirs: Any, ours: Future[Any]) -> None:
        """Hand on a result. The cluster forgets it before, or would compute it again if its worker died."""
        status = theirs.status
        error = theirs.exception() if status == "error" else None
        result = theirs.result() if status == "finished" else None
        self._running.pop(id(ours), None)
        theirs.release()
        if status == "finished":
            ours.set_result(result)
        elif isinstance(error, GoldsmithError) or (error is not None and not self._is_theirs(error)):
            ours.set_exception(error)
        else:
            ours.set_exception(self._lost(error))

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
    try:
        yield Cluster(client, address)
    finally:
        with contextlib.suppress(OSError, TimeoutError, RuntimeError, CancelledError):
            client.close(timeout=5)
