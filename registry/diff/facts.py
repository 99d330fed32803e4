"""What is known of one image: its content by digest, and what trusted keys attested of it.

Whether it is approved today is not asked: an old, expired or withdrawn image can be compared, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias

from builder.model.digest import Digest
from builder.model.evidence import Finding, Severity
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.model.verdict import Verdict
from builder.oci.manifest import parse_json, parse_manifest
from builder.signing import predicates
from builder.signing.attested import statements
from builder.signing.collect import Registry
from builder.signing.refusal import quoted, refuse
from builder.signing.trust import Trust
from builder.signing.verdicts import decode
from builder.signing.verification import Verification
from builder.signing.verify import resolve

_CONFIG_MAX = 4 << 20  # bytes
_PLATFORMS_MAX = 16
_KINDS = frozenset({predicates.VERDICT_TYPE, predicates.VULNERABILITY_TYPE, predicates.TEST_RESULT_TYPE})
_Said: TypeAlias = Mapping[str, list[Mapping[str, Any]]]
# What of a configuration decides how a container runs, or tells people what it is.
_CONFIG_KEYS = (
    "User",
    "Entrypoint",
    "Cmd",
    "WorkingDir",
    "Env",
    "ExposedPorts",
    "Volumes",
    "StopSignal",
    "Healthcheck",
    "Labels",
)


class Basis(StrEnum):
    """Who says it: a trusted key, or only this machine; of what nobody says, nothing is compared."""

    SIGNED = "signed"
    LOCAL = "local, unsigned"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """One platform: `packages` are NAME → versions, `config` key → text, sizes in bytes (compressed).

    `scan_by` and `checks_by` tell who says the findings and licences, and the checks; `scanned` is
    the time of the scan and `database` the vulnerability database that it asked.
    """

    platform: str
    digest: Digest
    layers: tuple[Descriptor, ...]
    config_blob: Descriptor
    manifest_size: int
    config: Mapping[str, str]
    packages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    licences: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    checks: Mapping[str, str] = field(default_factory=dict)
    scanned: str = ""
    database: str = ""
    scan_by: Basis = Basis.SIGNED
    checks_by: Basis = Basis.SIGNED
    diff_ids: tuple[Digest, ...] = ()

    @property
    def size(self) -> int:
        """What a client pulls: layers, configuration and manifest."""
        return sum(layer.size for layer in self.layers) + self.config_blob.size + self.manifest_size


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """An image: where it was read, its digest, its platforms by name, and its verdict's waivers."""

    where: str
    ref: str
    digest: Digest
    index_size: int
    platforms: Mapping[str, PlatformFacts]
    waivers: tuple[str, ...] = ()
    waivers_by: Basis = Basis.SIGNED


def read_image(registry: Registry, reference: Reference, trust: Trust) -> ImageFacts:
    """What the registry holds of an image, and what trusted keys said of it.

    Raises EvidenceRefused for a signature or report that is not what it claims to be, RegistryError
    when there is no such image or the registry fails.
    """
    digest = resolve(reference, registry)

    def said(one: Digest) -> _Said:
        found: dict[str, list[Mapping[str, Any]]] = {}
        for statement in statements(registry, reference.with_digest(one), trust, _KINDS):
            found.setdefault(statement.predicate_type, []).append(statement.predicate)
        return found

    about = said(digest)
    verdicts = [decode(p) for p in about.get(predicates.VERDICT_TYPE, ())]
    newest = max(verdicts, key=lambda v: v.issued_at, default=None)
    where = reference.with_digest(digest)
    found = _image(registry, where, newest, lambda one: about if one == digest else said(one))
    return replace(found, where=str(reference))


def verified_image(registry: Registry, found: Verification) -> ImageFacts:
    """The same of an image that was verified in this run: only manifests and configurations are read."""
    reports: dict[Digest, dict[str, list[Mapping[str, Any]]]] = {}
    for proof in found.manifests:
        for kind, report in proof.reports:
            reports.setdefault(proof.digest, {}).setdefault(kind, []).append(report)
    where = found.reference.with_digest(found.digest)
    return _image(registry, where, found.verdict, lambda one: reports.get(one, {}))


def nothing_of(image: ImageFacts) -> ImageFacts:
    """What there was before a first image: its platforms, with nothing in them."""
    none = Descriptor("", Digest.of(b""), 0)
    platforms = {p: PlatformFacts(p, none.digest, (), none, 0, {}) for p in image.platforms}
    return ImageFacts("", image.ref, none.digest, 0, platforms)


def _image(
    registry: Registry, where: Reference, verdict: Verdict | None, said: Callable[[Digest], _Said]
) -> ImageFacts:
    data, media_type, digest = registry.get_manifest(where)
    root = parse_manifest(data, media_type)
    children = root.manifests if root.is_index else (Descriptor(root.media_type, digest, len(data)),)
    if not 1 <= len(children) <= _PLATFORMS_MAX:
        refuse("index-malformed", "the index does not list image manifests of known platforms")
    platforms = {}
    for child in children:
        # What is said of an index of one platform is said of that platform, too.
        about = said(digest) if len(children) == 1 else {}
        if predicates.VULNERABILITY_TYPE not in about:
            about = said(child.digest)
        facts = _platform(registry, where.with_digest(child.digest), about)
        platforms[facts.platform] = facts
    return ImageFacts(
        where=str(where),
        ref=verdict.ref if verdict else where.name.rpartition("/")[2],
        digest=digest,
        index_size=len(data) if root.is_index else 0,
        platforms=platforms,
        waivers=verdict.waivers if verdict else (),
    )


def _platform(registry: Registry, where: Reference, said: _Said) -> PlatformFacts:
    data, media_type, digest = registry.get_manifest(where)
    manifest = parse_manifest(data, media_type)
    if manifest.config is None:
        refuse("index-malformed", "the index does not list image manifests of known platforms")
    configuration = parse_json(
        registry.get_blob_bytes(where.name, manifest.config, _CONFIG_MAX), "configuration", _CONFIG_MAX
    )
    scans = sorted(said.get(predicates.VULNERABILITY_TYPE, ()), key=_scanned)
    checks = said.get(predicates.TEST_RESULT_TYPE, ())
    if not scans:
        refuse("attestation-missing", "nobody that we trust says what is in the image", context=str(where))
    facts = PlatformFacts(
        platform=f"{configuration.get('os', '?')}/{configuration.get('architecture', '?')}"[:100],
        digest=digest,
        layers=manifest.layers,
        config_blob=manifest.config,
        manifest_size=len(data),
        config=config_texts(configuration),
        diff_ids=_diff_ids(configuration),
    )
    packages = _versions(_result(scans[-1]).get("packages", ()))
    facts = with_scan(replace(facts, packages=packages), scans[-1], Basis.SIGNED)
    return with_checks(facts, checks[-1] if checks else {"details": ()}, Basis.SIGNED)


def with_scan(facts: PlatformFacts, report: Mapping[str, Any], by: Basis) -> PlatformFacts:
    """The platform with the findings and licences of a vulnerability report.

    Raises EvidenceRefused for a report that is not of the agreed form.
    """
    result, asked = _result(report), report["scanner"]["db"]
    sample = ", SAMPLE DATABASE" if asked.get("sample") is True else ""
    return replace(
        facts,
        findings=tuple(_finding(f) for f in result.get("findings", ())),
        licences={str(k): tuple(map(str, v)) for k, v in (result.get("licences") or {}).items()},
        scanned=_scanned(report),
        database=f"sha256:{asked['digest']['sha256']} of {asked.get('lastUpdate', '?')}{sample}"[:200],
        scan_by=by,
    )


def with_checks(facts: PlatformFacts, report: Mapping[str, Any], by: Basis) -> PlatformFacts:
    """The platform with the outcomes of a check report."""
    told = {str(d["id"]): str(d["outcome"]) for d in report["details"]}
    return replace(facts, checks=told, checks_by=by)


def _result(report: Mapping[str, Any]) -> Mapping[str, Any]:
    predicates.parse_vulnerabilities(report)
    result: Mapping[str, Any] = report["scanner"]["result"]
    return result


def _scanned(report: Mapping[str, Any]) -> str:
    metadata = report.get("metadata")
    return str(metadata.get("scanFinishedOn", "")) if isinstance(metadata, dict) else ""


def _finding(raw: Mapping[str, Any]) -> Finding:
    try:
        return Finding(
            str(raw["id"]),
            str(raw["package"]),
            str(raw["installedVersion"]),
            str(raw["fixedVersion"]),
            Severity(raw["severity"]),
            str(raw["status"]),
            str(raw["title"]),
        )
    except (KeyError, ValueError) as error:
        refuse("predicate-malformed", "a finding is malformed", context=quoted(f"{error!r}"))


def _versions(packages: Any) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = {}
    for text in packages:
        name, _, version = str(text).partition("=")
        found.setdefault(name, set()).add(version)
    return {name: tuple(sorted(versions)) for name, versions in sorted(found.items())}


def config_texts(configuration: Mapping[str, Any]) -> dict[str, str]:
    """The settings as texts; environment and labels one by one."""
    settings = configuration.get("config")
    out: dict[str, str] = {}
    if not isinstance(settings, dict):
        return out
    for key in _CONFIG_KEYS:
        value = settings.get(key)
        if value in (None, "", [], {}):
            continue
        if key == "Env" and isinstance(value, list):
            out |= {f"Env {name}": text for name, _, text in (str(v).partition("=") for v in value)}
        elif key == "Labels" and isinstance(value, dict):
            out |= {f"Label {name}": str(text) for name, text in value.items()}
        elif isinstance(value, list):
            out[key] = " ".join(map(str, value))
        else:
            out[key] = ", ".join(sorted(map(str, value))) if isinstance(value, dict) else str(value)
    return out


def _diff_ids(configuration: Mapping[str, Any]) -> tuple[Digest, ...]:
    root = configuration.get("rootfs")
    listed = root.get("diff_ids") if isinstance(root, dict) else None
    try:
        return tuple(Digest(d) for d in listed) if isinstance(listed, list) else ()
    except (ValueError, TypeError):
        refuse("index-malformed", "the configuration does not list the layers' digests")
