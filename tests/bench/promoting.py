"""`promote_one`: one image closure from its candidate to its consumers, against `cosign copy`.

Ours verifies twice, asks the policy, signs the name, writes the ledger and moves two tags; the
peer only copies image, signatures and attestations from one repository to another one.
"""

from __future__ import annotations

from collections.abc import Iterator

from registry.audit.ledger import Ledger
from registry.promotion.office import Office
from registry.promotion.promote import promote
from tests.bench.scene import Scene, Stopwatch
from tests.support.oracles import cosign


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Seconds of a promotion into an empty repository; of two images, the slower one."""
    scene.run()
    tools, settings = scene.tools(), scene.settings
    ours, peers = [], []
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
        )
        for name in ("base", "python"):
            target = tools.workshop.catalogue.find(name)
            source = tools.client.reference(f"candidate/{name}", target.tag)
            with Stopwatch() as watch:
                promote(office, source, target, "bench")
            ours.append(watch.seconds)
            with Stopwatch() as watch:
                scene.peer([cosign(2), "copy", str(source), f"{settings.registry}/peer/{name}:x"])
            peers.append(watch.seconds)
    yield "promote_one", max(ours), "s", max(peers)
