"""Reads an image from its registry for the index: everything that is taken was verified.

The procedure; the numbers stand in the code:

 1. The index manifest is fetched by its digest and hashed; it lists image manifests of platforms.
 2. The attestations that the index needs (verdict, provenance, SBOM, vulnerability report) are
    read in one form: the tag `.att` where there is one, otherwise the bundles. Each is signed by
    the key of its role, is of this manifest, and of the type that its carrier promises.
 3. The newest verdict is of this image and of exactly its platforms, and the repository has the
    name that it was given for.
 4. Each platform's SBOM is the one that the verdict names, and names what the provenance says
    was put in.
 5. Each platform's vulnerability report is of that platform and lists the packages of the SBOM.
    Of several, the one with the newest database counts.
 6. The newest channel record, by the verdict's key.

Whether the image may be used today is not asked here: expired, denied and withdrawn images are
known to the index, too. `builder.signing.verify` asks that, and compares both forms.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from builder.model.channel import ChannelRecord
from builder.model.digest import Digest, canonical_json, is_digest_of_json
from builder.model.image import Descriptor
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.verdict import Verdict
from builder.oci.manifest import Manifest
from builder.signing import verdicts
from builder.signing.attested import statements
from builder.signing.collect import Registry, manifest_at
from builder.signing.cosign_formats import BUNDLE_TYPE, attestation_tag
from builder.signing.predicates import (
    CYCLONEDX_TYPE,
    PROVENANCE_TYPE,
    VERDICT_TYPE,
    VULNERABILITY_TYPE,
    Provenance,
    items,
    mapping,
    parse_cyclonedx,
    parse_provenance,
    parse_vulnerabilities,
    text,
)
from builder.signing.refusal import quoted, refuse
from builder.signing.statements import Statement
from builder.signing.trust import Trust
from builder.tools.canary import release_name
from registry.promotion.records import read_record

NOT_AN_IMAGE = "not-an-image"  # the reason of a refusal: a database, a list, somebody's artefact
_ON_IMAGE = frozenset({VERDICT_TYPE, PROVENANCE_TYPE})
_ON_PLATFORM = frozenset({CYCLONEDX_TYPE, VULNERABILITY_TYPE})
_PLATFORMS_MAX = 16
_SCANNERS_MAX = 1000
_TEXT_MAX = 300  # characters
# What tells the scanner's packages apart, and what it matches them by.
SCANNER_FACTS = ("PkgType", "SrcName", "SrcEpoch", "SrcVersion", "SrcRelease", "Modularitylabel", "FilePath")
_PREFIX = "aquasecurity:trivy:"
_FACTS = frozenset(_PREFIX + name for name in SCANNER_FACTS)
_SYSTEM = ("pkg:deb/", "pkg:apk/", "pkg:rpm/")
_PACKAGES_KEPT = 50_000


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """A package as the scanner tells it apart; `facts` are its properties, empty when it has none.

    `purl` is without the distribution; `release` is `debian 13`.
    """

    release: str
    purl: str
    facts: str
    name: str
    version: str
    architecture: str
    source: str

    @property
    def of_system(self) -> bool:
        """Whether the distribution made it; the others are of a language (Python, Go …)."""
        return self.purl.startswith(_SYSTEM)


@dataclass(frozen=True, slots=True)
class Flaw:
    """What a report says of a package: a vulnerability, and how bad it is there."""

    id: str
    severity: str
    status: str
    fixed_version: str
    title: str


@dataclass(frozen=True, slots=True)
class Addition:
    """What a scanner of an extension says of a package: who it is, and what it found."""

    scanner: str
    package: Package
    flaw: Flaw


@dataclass(frozen=True, slots=True)
class PlatformFacts:
    """One platform: its packages, what the newest report found in each of them, and what was found beside."""

    digest: Digest
    platform: str
    release: str
    point_release: str
    packages: Mapping[Package, tuple[Flaw, ...]]
    database: str
    database_updated: str
    further: tuple[Addition, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What trusted keys say of an image in one repository; `mark` is the state of its evidence."""

    repository: str
    digest: Digest
    immutable_tag: str
    verdict: Verdict
    platforms: tuple[PlatformFacts, ...]
    record: ChannelRecord | None
    mark: str


def read_image(
    registry: Registry, where: Reference, trust: Trust, listed: Collection[str] | None
) -> ImageFacts:
    """Carry out the procedure above; `where` has the digest, `listed` are the repository's tags, where
    they are known.

    Raises EvidenceRefused with the first flaw, RegistryError when something cannot be had.
    """
    # 1. the image
    root, digest, _ = manifest_at(registry, where)
    children = _platforms(root)
    # 2. what is said of it
    mark = evidence_mark(registry, where, digest, listed)
    alone = len(children) == 1
    said = _said(registry, where, digest, trust, listed, _ON_IMAGE | (_ON_PLATFORM if alone else frozenset()))
    # 3. the verdict and the name
    verdict = _newest_verdict(said)
    provenances = tuple(parse_provenance(s.predicate) for s in said if s.predicate_type == PROVENANCE_TYPE)
    _check_names(where, digest, children, verdict, provenances)
    platforms = []
    for child in children:
        about = said if alone else _said(registry, where, child.digest, trust, listed, _ON_PLATFORM)
        platforms.append(_platform_facts(child, about, verdict, provenances))
    # 6. what was decided
    record = read_record(registry, where, digest, trust)
    return ImageFacts(
        where.name, digest, provenances[0].immutable_tag, verdict, tuple(platforms), record, mark
    )


def evidence_mark(
    registry: Registry, where: Reference, subject: Digest, listed: Collection[str] | None = None
) -> str:
    """The state of what is attached to an image: it is another one when anything was added or renewed."""
    tag = attestation_tag(subject)
    found = registry.head_manifest(where.with_tag(tag)) if listed is None or tag in listed else None
    bundles = sorted({d.digest for d in registry.referrers(where.name, subject, BUNDLE_TYPE)})
    return Digest.of_json([found.digest if found else "", *bundles])


def _has(registry: Registry, tag: Reference, listed: Collection[str] | None) -> bool:
    """Whether the repository has a tag; a listing saves the question."""
    return registry.head_manifest(tag) is not None if listed is None else tag.tag in listed


def _platforms(root: Manifest) -> tuple[Descriptor, ...]:
    if not root.is_index or not any(c.platform for c in root.manifests):
        refuse(NOT_AN_IMAGE, "not an index: images are published as an index of their platforms")
    children = root.manifests
    known = 1 <= len(children) <= _PLATFORMS_MAX and all(c.platform for c in children)
    if not known or len({c.digest for c in children}) != len(children):
        refuse("index-malformed", "not an index of image manifests of known platforms")
    return children


def _said(
    registry: Registry,
    where: Reference,
    subject: Digest,
    trust: Trust,
    listed: Collection[str] | None,
    kinds: frozenset[str],
) -> tuple[Statement, ...]:
    """2. the statements of `kinds` about a manifest; at least one of each."""
    tagged = _has(registry, where.with_tag(attestation_tag(subject)), listed)
    found = statements(registry, where.with_digest(subject), trust, kinds, tagged=tagged)
    if missing := sorted(kinds - {s.predicate_type for s in found}):
        refuse("attestation-missing", f"attestations are missing on {subject}", context="\n".join(missing))
    return found


def _newest_verdict(said: Iterable[Statement]) -> Verdict:
    found = [verdicts.decode(s.predicate) for s in said if s.predicate_type == VERDICT_TYPE]
    return max(found, key=lambda v: v.issued_at)


def _check_names(
    where: Reference,
    digest: Digest,
    children: tuple[Descriptor, ...],
    verdict: Verdict,
    provenances: tuple[Provenance, ...],
) -> None:
    """3. the verdict is of this image under this name."""
    if verdict.digest != digest or set(verdict.sboms) != {str(c.digest) for c in children}:
        refuse("subject-mismatch", "the verdict is of another image or of other platforms")
    name = verdict.ref.partition(":")[0]
    if where.name.rpartition("/")[2] != name or any(p.ref != verdict.ref for p in provenances):
        refuse("other-name", f"what is there is {verdict.ref}", context=str(where))


def _platform_facts(
    child: Descriptor, about: Iterable[Statement], verdict: Verdict, provenances: tuple[Provenance, ...]
) -> PlatformFacts:
    about = tuple(about)
    # 4. the SBOM
    sbom = _sbom(child.digest, about, verdict)
    components = parse_cyclonedx(sbom)
    for provenance in provenances:
        if missing := sorted(provenance.packages_of(child.platform) - components):
            refuse("sbom-incomplete", "the SBOM lacks packages of the image", context=", ".join(missing[:20]))
    # 5. the report
    scanner = max(
        (_scanner(s, child.digest) for s in about if s.predicate_type == VULNERABILITY_TYPE),
        key=lambda s: str(s["db"].get("lastUpdate")),
    )
    result, database = scanner["result"], scanner["db"]
    system = mapping(result, "os", "vulnerability report")
    point = _short(system.get("version"))
    release = release_name(_short(system.get("family")), point)
    flaws: dict[Package, list[Flaw]] = {p: [] for p in packages_of(sbom, release, child.platform)}
    # Two that a report does not tell apart (a library in two folders) both have what it says of either.
    named: defaultdict[str, list[Package]] = defaultdict(list)
    of_system = set()
    for package in flaws:
        key = f"{package.name}={package.version}"
        named[key].append(package)
        if package.purl.startswith(_SYSTEM):
            of_system.add(key)
    # The report lists what the operating system's database has, and no packages of languages.
    if of_system != {str(p) for p in result.get("packages") or ()}:
        refuse("sbom-mismatch", "the vulnerability report lists other packages than the SBOM")
    for row in result["findings"]:
        alike = named.get(f"{row.get('package')}={row.get('installedVersion')}")
        if alike is None:
            refuse("sbom-mismatch", "a finding is of a package that is not there", context=quoted(row))
        for package in alike:
            flaws[package].append(_flaw(row))
    return PlatformFacts(
        child.digest,
        str(child.platform),
        release,
        point,
        {p: tuple(found) for p, found in flaws.items()},
        f"sha256:{database['digest']['sha256']}",
        _short(database.get("lastUpdate")),
        tuple(_additions(result, flaws)),
    )


def _additions(result: Mapping[str, Any], packages: Collection[Package]) -> Iterator[Addition]:
    """What scanners of extensions found; they name packages, and versions as they like."""
    if "further" not in result:
        return
    named: defaultdict[str, list[Package]] = defaultdict(list)
    for package in packages:
        named[package.name].append(package)
    what = "vulnerability report"
    for one in items(result, "further", what, _SCANNERS_MAX):
        scanner = text(mapping(one, "scanner", what), "id", what)[:_TEXT_MAX]
        for row in items(one, "findings", what, 1_000_000):
            if not (alike := named.get(_short(row.get("package")))):
                refuse("sbom-mismatch", "a finding is of a package that is not there", context=quoted(row))
            yield from (Addition(scanner, package, _flaw(row)) for package in alike)


def _sbom(digest: Digest, about: Iterable[Statement], verdict: Verdict) -> Mapping[str, Any]:
    wanted = verdict.sboms[str(digest)]
    for one in about:
        if one.predicate_type == CYCLONEDX_TYPE and is_digest_of_json(wanted, one.predicate):
            return one.predicate
    refuse("sbom-mismatch", "the attested SBOM is not the one that was judged", context=str(digest))


def _scanner(statement: Statement, digest: Digest) -> Mapping[str, Any]:
    parse_vulnerabilities(statement.predicate)
    scanner: Mapping[str, Any] = statement.predicate["scanner"]
    if scanner["result"].get("digest") != str(digest):
        refuse("subject-mismatch", "a vulnerability report is of another platform", context=str(digest))
    return scanner


def packages_of(sbom: Mapping[str, Any], release: str, platform: Platform | None) -> Iterable[Package]:
    """The packages that a CycloneDX document names; raises EvidenceRefused when one is malformed.

    An application without a package URL is a file in which packages are (a program of Go).
    """
    for component in items(sbom, "components", "SBOM", 1_000_000):
        kind = component.get("type")
        if kind != "operating-system" and not (kind == "application" and "purl" not in component):
            yield _package(component, release, platform)


def _package(component: Mapping[str, Any], release: str, platform: Platform | None) -> Package:
    listed = component.get("properties")
    properties = [
        (name, value[:_TEXT_MAX])
        for p in (listed if type(listed) is list else ())
        if type(p) is dict
        and type(name := p.get("name")) is str
        and name in _FACTS
        and type(value := p.get("value")) is str
    ]
    purl = text(component, "purl", "SBOM")[:_TEXT_MAX]
    name = text(component, "name", "SBOM")
    if component.get("group"):  # as the scanner's reports name it
        name = text(component, "group", "SBOM") + (":" if purl.startswith("pkg:maven/") else "/") + name
    return _described(
        release,
        purl,
        name[:_TEXT_MAX],
        text(component, "version", "SBOM")[:_TEXT_MAX],
        tuple(properties),
        platform.debian if platform else "",
    )


@lru_cache(maxsize=_PACKAGES_KEPT)  # the same packages are in many images
def _described(
    release: str, purl: str, name: str, version: str, properties: tuple[tuple[str, str], ...], own: str
) -> Package:
    base, rest = _split(purl)
    facts = {name.removeprefix(_PREFIX): value for name, value in properties}
    return Package(
        release=release,
        purl=base,
        facts=canonical_json(facts).decode() if facts else "",
        name=name,
        version=version,
        architecture=rest.get("arch", own),
        source=facts.get("SrcName", ""),
    )


def _split(purl: str) -> tuple[str, dict[str, str]]:
    """A purl without its distribution, and its qualifiers."""
    base, _, query = purl.partition("?")
    kept = "&".join(sorted(q for q in query.split("&") if q and not q.startswith("distro=")))
    return base + (f"?{kept}" if kept else ""), dict(parse_qsl(query))


def _flaw(row: Mapping[str, Any]) -> Flaw:
    texts: Callable[[str], str] = lambda key: _short(row.get(key))  # noqa: E731
    return Flaw(
        text(row, "id", "vulnerability report")[:100],
        texts("severity"),
        texts("status"),
        texts("fixedVersion"),
        texts("title"),
    )


def _short(value: object) -> str:
    return value[:_TEXT_MAX] if isinstance(value, str) else ""
