"""What a builder said an image was built of, to be compared with a rebuild kit. Pure.

Raises EvidenceRefused for a provenance that does not say it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from builder.model.digest import Digest
from builder.model.lock import LockedPackage
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.oci.faults import RegistryRefused
from builder.signing.attested import carriers, read_carrier
from builder.signing.collect import Registry
from builder.signing.naming import other_names
from builder.signing.predicates import (
    BUILD_TYPE,
    PROVENANCE_TYPE,
    items,
    mapping,
    package_url,
    parse_provenance,
    sha256_of,
    text,
)
from builder.signing.refusal import quoted, refuse

_WHAT = "provenance"
_SIZE_MAX = 16 << 20  # bytes
_DEPENDENCIES_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Inputs:
    """What went into an image, by a believed provenance; `kit` is the manifest of its rebuild kit.

    `packages` are (purl, SHA-256 in hexadecimal), `templates` digests by path in the catalogue.
    """

    ref: str
    immutable_tag: str
    input_hash: Digest
    definition: Digest
    locks: Mapping[Platform, Digest]
    templates: Mapping[str, Digest]
    packages: frozenset[tuple[str, str]]
    tools: Mapping[str, str]
    kit: Digest


def read_inputs(registry: Registry, where: Reference, believes: Callable[[bytes, bytes], bool]) -> Inputs:
    """The inputs of the image at `where` (its digest is the index), by a provenance that names a kit.

    `believes` knows the builder's keys. Raises EvidenceRefused when there is none, RegistryError
    when it cannot be had.
    """
    without = imported = 0
    for carrier in carriers(registry, where, PROVENANCE_TYPE):
        found = read_carrier(registry, where, carrier, PROVENANCE_TYPE, _SIZE_MAX, believes)
        inputs = parse_inputs(found.statement.predicate)
        if inputs is None:
            without += 1
            imported += parse_provenance(found.statement.predicate).imported is not None
        elif _is_there(registry, where.with_digest(inputs.kit)):
            return inputs
    why = "its provenance names none" if without else "no provenance names one that is there"
    hint = "publish the image again with `goldsmith run`; a bundle may have been made without kits"
    if imported:
        why, hint = "it was imported: others made it", "only images of a catalogue have rebuild kits"
    refuse("no-kit", f"nobody can build {where} again: it has no rebuild kit", context=why, hint=hint)


def refuse_other_name(asked: Reference, inputs: Inputs) -> None:
    """Pass when the image is the one that was asked for; raises EvidenceRefused for another one."""
    wrong = sorted(set(other_names(asked, inputs.ref, inputs.immutable_tag)))
    if wrong:
        refuse(
            "other-name",
            f"what is there is {quoted(inputs.ref)}, not what was asked for",
            context=f"{asked}: {', '.join(wrong)}",
        )


def parse_inputs(predicate: Mapping[str, Any]) -> Inputs | None:
    """The inputs that a provenance of ours states; None when it names no kit."""
    said = parse_provenance(predicate)
    build = mapping(predicate, "buildDefinition", _WHAT)
    if said.kit is None or build.get("buildType") != BUILD_TYPE:
        return None
    external = mapping(build, "externalParameters", _WHAT)
    internal = mapping(build, "internalParameters", _WHAT)
    tools = mapping(internal, "tools", _WHAT)
    if not all(isinstance(value, str) for value in tools.values()):
        refuse("predicate-malformed", "the provenance's tools are malformed", context=quoted(tools))
    try:
        locks = {
            Platform.parse(name): sha256_of(one, _WHAT)
            for name, one in mapping(external, "locks", _WHAT).items()
        }
        input_hash = Digest(text(internal, "inputHash", _WHAT))
    except ValueError as error:
        refuse("predicate-malformed", "the provenance's inputs are malformed", context=quoted(str(error)))
    dependencies = items(build, "resolvedDependencies", _WHAT, _DEPENDENCIES_MAX)
    return Inputs(
        ref=said.ref,
        immutable_tag=said.immutable_tag,
        input_hash=input_hash,
        definition=sha256_of(external.get("definition"), _WHAT),
        locks=locks,
        templates={
            path: sha256_of(one, _WHAT) for path, one in mapping(external, "templates", _WHAT).items()
        },
        packages=frozenset(
            (one["uri"], sha256_of(one.get("digest"), _WHAT).hex)
            for one in dependencies
            if one["uri"].startswith("pkg:deb/")
        ),
        tools=tools,
        kit=said.kit,
    )


def named(package: LockedPackage, suite: str) -> tuple[str, str]:
    """A package as the inputs name it."""
    return package_url(package, suite), package.sha256


def _is_there(registry: Registry, where: Reference) -> bool:
    try:
        return registry.head_manifest(where) is not None
    except RegistryRefused as error:
        if error.status == 404:
            return False
        raise
