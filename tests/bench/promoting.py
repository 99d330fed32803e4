"""`promote_one`: one image closure from its candidate to its consumers, against `cosign copy`.

Ours verifies twice, asks the policy, signs the name, writes the ledger and moves two tags; the
peer only copies image, signatures and attestations from one repository to another one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

from builder.cli.wiring import folder_of
from builder.report import emit
from registry.audit.ledger import Ledger
from registry.promotion.office import Office
from registry.promotion.promote import promote
from tests.bench.scene import Scene, Stopwatch
from tests.support.oracles import cosign


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Seconds of a promotion into an empty repository; of two images, the slower one."""
    scene.run()
    tools, settings = scene.tools(), scene.settings
    ours, peers, busy, requests = [], [], [], []
    transport = tools.client._transport
    once, asked = transport._once, itertools.count()

    def counted(*arguments: Any) -> Any:
        next(asked)
        return once(*arguments)

    transport._once = counted  # type: ignore[method-assign]
    with scene.store.scratch("promote") as work:
        office = Office(
            client=tools.client,
            keys=tools.keys,
            trust=tools.trust,
            ledger=Ledger(work / "ledger", tools.trust),
            policy=tools.policy,
            who="bench@host",
            now=settings.now,
            hosts=(settings.registry,),
            work=work,
            near=folder_of(settings),
        )
        for name in ("base", "python"):
            target = tools.workshop.catalogue.find(name)
            source = tools.client.reference(f"candidate/{name}", target.tag)
            before, began = next(asked), time.process_time()
            with Stopwatch() as watch:
                promote(office, source, target, "bench")
            ours.append(watch.seconds)
            busy.append(time.process_time() - began)
            requests.append(next(asked) - before - 1)
            with Stopwatch() as watch:
                scene.peer([cosign(2), "copy", str(source), f"{settings.registry}/peer/{name}:x"])
            peers.append(watch.seconds)
    transport._once = once  # type: ignore[method-assign]
    yield "promote_one", max(ours), "s", max(peers)
    emit(f"promote_one: {max(requests)} requests, {max(busy):.3f} s of our processor time")
