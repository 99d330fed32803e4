"""How a night promotes an image: what the policy lets through by itself, and what nobody took back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from builder.errors import GoldsmithError, PolicyDenied

if TYPE_CHECKING:
    from builder.model.catalogue import Catalogue
    from builder.model.outcome import ImageEnd
    from builder.model.reference import Reference
    from builder.nightly import Promoted
    from registry.access.roles import Permission
    from registry.audit.ledger import Entry
    from registry.promotion.office import Office

WHY = "nightly: what the policy lets through by itself"


def promote_one(
    end: ImageEnd,
    office: Office,
    catalogue: Catalogue,
    require: Callable[[Permission, str], None],
    history: Sequence[Entry],
) -> Promoted | None:
    """Promote one image; None when it is in place."""
    from builder.model.digest import Digest
    from builder.nightly import Promoted
    from registry.access.roles import Permission
    from registry.promotion import promote as promotion
    from registry.promotion.replaced import rolled_back

    if end.outcome is None:
        return None
    digest, target = Digest(end.outcome.digest), catalogue.find(end.ref)
    name = target.definition.name
    try:
        there = office.client.head_manifest(office.client.reference(name, target.tag))
        if there is not None and there.digest == digest and "publish" not in end.outcome.stages:
            return None
        if taken := rolled_back(history, end.ref, digest):
            raise PolicyDenied(
                f"{end.ref} was rolled back by {taken.fact.who}",
                context=f"from {digest} at {taken.at:%Y-%m-%d %H:%M} UTC: {taken.fact.why or 'no reason'}",
                hint=f"mend its definition, or: goldsmith promote {name}@{digest}",
                reference="rolled-back",
            )
        require(Permission.PROMOTE, name)
        where = office.client.reference(f"candidate/{name}", digest=digest)
        done = promotion.promote(office, where, target, WHY)
        if not done.changed:
            return Promoted(end.ref, "in place", str(done.reference))
        return Promoted(end.ref, "promoted", str(done.reference), changes=_changes(office, done.reference))
    except GoldsmithError as error:
        return Promoted(end.ref, "refused", error.message, error)


def _changes(office: Office, where: Reference) -> tuple[str, ...]:
    """What the change record says is new; one that cannot be read undoes no promotion."""
    from registry.diff.output import record_in_short
    from registry.promotion.changelog import read_change

    try:
        record = read_change(office.client, where, office.trust)
    except GoldsmithError as error:
        return (f"its change record cannot be read: {error.message}",)
    return record_in_short(record) if record else ()
