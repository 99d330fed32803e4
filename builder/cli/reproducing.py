"""The command reproduce: build a published image again, from its registry alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli.evidence import Ref, TrustFolder
from builder.cli.images import Engines

if TYPE_CHECKING:
    from builder.model.catalogue import Catalogue
    from builder.model.reference import Reference
    from builder.model.step import Step
    from builder.model.witness import Rebuild
    from builder.oci.client import RegistryClient
    from builder.pipeline.build import Engine
    from builder.pipeline.reproduce import Rebuilt
    from builder.settings import Settings
    from builder.signing.keys import RoleSigner
    from builder.signing.trust import Trust
    from builder.stages.open_kit import OpenedKit
    from builder.store import Store
    from builder.tools.pool import Pool

_NOT_THE_SAME = 7  # as NotReproducible
_MAY_NOT_WRITE = (401, 403, 405)  # what registries and gates answer


def register(app: typer.Typer) -> None:
    """Add this module's command to the application."""
    app.command()(reproduce)


def reproduce(
    ref: Ref,
    engine: Engines = None,
    sign: Annotated[
        bool,
        typer.Option("--sign", help="Attest what came out the same, with our witness key."),
    ] = False,
    trust: TrustFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build a published image again from its rebuild kit, with nothing but its registry, and compare."""
    from builder.cli.evidence import surroundings
    from builder.cli.kits import tool_versions
    from builder.pipeline.reproduce import reproduce as rebuild
    from builder.report import Silent, for_people
    from builder.signing.inputs import read_inputs, refuse_other_name
    from builder.signing.keys import BUILDER
    from builder.store import Store

    settings, store, keys = surroundings(trust)
    keys.require_current(settings.now)
    engines = list(dict.fromkeys(engine or ["direct"]))
    signer = _witness(settings, store, keys) if sign else None
    asked, where, client = _where(ref, settings, sign)
    inputs = read_inputs(client, where, keys.unrevoked(BUILDER))
    refuse_other_name(asked, inputs)
    reporter = Silent() if as_json else for_people()
    store.create()
    with store.scratch("reproduce") as work:
        bench = Bench(settings, store, engines, client)
        done = rebuild(client, where, inputs, bench, Store(work / "state"), work, reporter)
    attested = []
    if signer is not None and done.same:
        made = [_rebuild(done, name, tool_versions(), settings) for name in done.engines]
        attested = [_attest(client, where, one, signer, keys) for one in made]
    _tell(done, attested, as_json)
    if not done.same:
        raise typer.Exit(_NOT_THE_SAME)


@dataclass(frozen=True)
class Bench:
    """What a rebuild is made with: the engines of this machine, and nothing that other runs left."""

    settings: Settings
    store: Store
    names: Sequence[str]
    client: RegistryClient

    def release(self) -> str:
        from builder.version import version

        return version()

    def pool(self, store: Store) -> Pool:
        from builder.pipeline.reproduce import no_mirror
        from builder.tools.pool import Pool

        return Pool(store, no_mirror)

    def steps(self) -> Mapping[str, Step]:
        from builder.cli.extending import installed

        return installed(self.settings).steps

    def engines(self, catalogue: Catalogue, store: Store, kit: OpenedKit) -> list[Engine]:
        from builder.cli.wiring import Workshop

        section = None
        if any(name != "direct" for name in self.names):
            from builder.engines.assembler import host_platform
            from builder.stages.lock import builder_section
            from builder.stages.open_kit import fetch_assembler

            section = builder_section(catalogue, host_platform())
            fetch_assembler(self.client, kit, section, store.pool)
        workshop = Workshop(self.settings, catalogue, self.store, section)
        return [workshop.engine(name) for name in self.names]


def _where(ref: str, settings: Settings, writes: bool) -> tuple[Reference, Reference, RegistryClient]:
    """What was asked for, the same by digest, and its registry."""
    from builder.cli.evidence import reference_of
    from builder.cli.wiring import client_of
    from builder.signing.verify import resolve

    reference = reference_of(ref, settings)
    client = client_of(settings, reference.host, writes=writes)
    return reference, reference.with_digest(resolve(reference, client)), client


def _witness(settings: Settings, store: Store, keys: Trust) -> RoleSigner:
    """Our witness key; one that the trust file names has to hold now."""
    from builder.errors import UsageError
    from builder.signing.keys import WITNESS, open_signer

    if not (store.keys / f"{WITNESS}.pub").is_file():
        raise UsageError(
            "this machine has no witness key",
            context=str(store.keys),
            hint="`goldsmith keys witness` makes one; give its public key to who keeps the trust file",
        )
    signer = open_signer(store.keys, WITNESS, settings.key_uris, settings.passphrase)
    if any(one.id == signer.public.id for one in keys.keys):
        keys.require(signer.public, settings.now)
    return signer


def _rebuild(done: Rebuilt, engine: str, tools: dict[str, str], settings: Settings) -> Rebuild:
    from builder.model.witness import Rebuild

    inputs = done.inputs
    return Rebuild(
        done.index, inputs.ref, inputs.kit, inputs.input_hash, engine, tools, done.rebuilt, settings.now
    )


def _attest(
    client: RegistryClient, where: Reference, made: Rebuild, signer: RoleSigner, keys: Trust
) -> dict[str, Any]:
    """Attach the attestation to the index, unless this witness has attested the same before.

    What it attested when the trust file did not name its key yet counts for nobody, so not here either.
    """
    from builder.errors import RegistryError
    from builder.model.image import Descriptor
    from builder.oci.faults import RegistryRefused
    from builder.signing.rebuilds import signed_rebuild, witnesses
    from builder.signing.trust import Trust
    from builder.signing.trustfile import TrustedKey
    from registry.promotion.records import put_content

    named = any(one.id == signer.public.id for one in keys.keys)
    said = {"engine": made.engine, "key": signer.public.id, "named": named}
    ours = [one for one in keys.keys if one.id == signer.public.id] or [TrustedKey(signer.public)]
    there = witnesses(client, where, Trust(tuple(ours)), made.at)
    if any(one.rebuild.engine == made.engine for one in there):
        return {**said, "attached": False}
    data, media_type, digest = client.get_manifest(where)
    item = signed_rebuild(made, Descriptor(media_type, digest, len(data)), signer)
    try:
        put_content(client, where.name, item)
        if not client.put_referrer(where.name, item.manifest, item.media_type):
            client.put_referrers_fallback(where.name, digest, [item.entry])
    except RegistryRefused as error:
        if error.status not in _MAY_NOT_WRITE:
            raise
        raise RegistryError(
            f"{made.ref} came out the same, but its registry takes no attestation from here",
            context=f"{error.message}: {where.repository}",
            hint="a gate is read-only: name the image in the storage (HOST/candidate/NAME:TAG), with a login "
            "that may write there",
            reference="cannot-attest",
        ) from None
    return {**said, "attached": True, "attestation": item.digest}


def _tell(done: Rebuilt, attested: Sequence[dict[str, Any]], as_json: bool) -> None:
    from builder.report import emit, emit_json

    if as_json:
        emit_json(
            {
                "reproduced": done.same,
                "ref": done.inputs.ref,
                "reference": str(done.where),
                "kit": done.inputs.kit,
                "engines": list(done.engines),
                "index": {"published": done.where.digest, "rebuilt": done.index},
                "platforms": {
                    str(p): {"published": d, "rebuilt": done.rebuilt.get(p)}
                    for p, d in done.published.items()
                },
                "left_out": [str(p) for p in done.left_out],
                "explanation": [x.as_dict() for x in done.explanation],
                "first": done.explanation[-1].as_dict() if done.explanation else None,
                "fetched_bytes": done.fetched_bytes,
                "seconds": dict(done.seconds),
                "attested": list(attested),
            }
        )
        return
    engines = ", ".join(done.engines)
    if done.same:
        platforms = ", ".join(str(p) for p in done.published)
        emit(f"reproduced: {done.inputs.ref} is {done.index} on {platforms}, by {engines}")
        _tell_left_out(done)
        for one in attested:
            word = "attested" if one["attached"] else "attested before"
            emit(f"{word} by witness {one['key'][:16]}, engine {one['engine']}")
        if any(not one["named"] for one in attested):
            emit("The trust file that was used here does not name that key. Who keeps it adds the key:")
            emit("`goldsmith keys rotate witness --public FILE`; what is attested from then on counts.")
        return
    emit(f"NOT THE SAME: {done.inputs.ref} was published as {done.where.digest}, and rebuilt as {done.index}")
    for depth, difference in enumerate(done.explanation):
        emit(f"{'  ' * (depth + 1)}{difference}")
    _tell_left_out(done)


def _tell_left_out(done: Rebuilt) -> None:
    from builder.report import emit

    if done.left_out:
        platforms = ", ".join(map(str, done.left_out))
        emit(f"not in the image, so not built: {platforms} (its definition asks for it)")
