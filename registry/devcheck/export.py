"""Builds the catalogue of known images from the registry alone: tags, attestations, configurations.

The newest build of each line passes `builder.signing.verify`, or it is listed as refused with the
reason. Earlier builds are found by their immutable tags; what is said of them comes from
attestations by the trusted keys, whatever their verdict says today.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

from builder.errors import PolicyDenied
from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.reference import Reference
from builder.model.verdict import Verdict
from builder.oci.manifest import parse_json
from builder.signing import channels, predicates
from builder.signing.claims import believed
from builder.signing.collect import Registry, collect, manifest_at
from builder.signing.trust import Trust
from builder.signing.verify import verify
from registry.devcheck.approval import channel_of, for_developers
from registry.devcheck.known import Build, Image, Known, Severity, Vulnerability

PREVIOUS_MAX = 50  # earlier builds of one line
_CONFIG_MAX = 1 << 20  # bytes
_IMMUTABLE = re.compile(r".+-[0-9a-f]{12}")
_ATTACHED = re.compile(r"sha256-[0-9a-f]{64}(\..+)?")
_END_OF_LIFE = "dev.goldsmith.end-of-life"
_TITLE = "org.opencontainers.image.title"
_CALLED_BACK = (Channel.WITHDRAWN, Channel.QUARANTINE)
_SEVERITIES = ("CRITICAL", "HIGH", "MEDIUM", "LOW")


class Listing(Registry, Protocol):
    """What an export asks of a registry beside verification; all raise RegistryError."""

    host: str

    def repositories(self) -> tuple[str, ...]:
        """The names of all repositories."""

    def tags(self, repo: str) -> tuple[str, ...]:
        """All tags of a repository."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A digest as its registry and its builder describe it."""

    digest: Digest
    ref: str
    labels: Mapping[str, str]
    build: Build
    record: ChannelRecord | None


def read_registry(
    registry: Listing,
    trust: Trust,
    now: dt.datetime,
    *,
    mirror: str,
    valid: dt.timedelta,
    accept_sample: bool = False,
) -> Known:
    """The catalogue of today. Raises RegistryError when the registry cannot be read."""
    images: list[Image] = []
    repositories = registry.repositories()
    for repo in repositories:
        if for_developers(repo, repositories):
            images += _Repository(registry, repo, trust, now, accept_sample).images()
    return Known(
        schema=1,
        mirror=mirror,
        exported=now,
        valid_until=now + valid,
        images=_with_replacements(sorted(images, key=lambda i: i.ref), now.date()),
    )


class _Repository:
    def __init__(
        self, registry: Listing, repo: str, trust: Trust, now: dt.datetime, accept_sample: bool
    ) -> None:
        self._registry, self._trust, self._now, self._sample = registry, trust, now, accept_sample
        self._home = Reference(registry.host, repo)

    def images(self) -> Iterable[Image]:
        tags = [t for t in self._registry.tags(self._home.name) if not _ATTACHED.fullmatch(t)]
        builds: dict[Digest, _Seen] = {}
        for tag in tags:
            found = self._registry.head_manifest(self._home.with_tag(tag))
            if _IMMUTABLE.fullmatch(tag) and found and found.digest not in builds:
                seen = self._seen(found.digest)
                if seen:
                    builds[found.digest] = seen
        for tag in tags:
            if not _IMMUTABLE.fullmatch(tag):
                image = self._image(tag, builds)
                if image:
                    yield image

    def _image(self, tag: str, builds: Mapping[Digest, _Seen]) -> Image | None:
        found = self._registry.head_manifest(self._home.with_tag(tag))
        if found is None:
            return None
        seen = builds.get(found.digest) or self._seen(found.digest)
        record = seen.record if seen else None
        channel = channel_of(self._home.name, record)
        if channel is None:
            return None
        verdict, refused = self._verdict(found.digest, tag)
        name = self._home.name.rpartition("/")[2]
        ref = f"{name}:{tag}"
        earlier = sorted(
            (s.build for s in builds.values() if s.ref == ref and s.digest != found.digest),
            key=lambda b: (b.created or dt.datetime.min.replace(tzinfo=dt.UTC), b.digest),
            reverse=True,
        )
        labels = seen.labels if seen else {}
        return Image(
            ref=ref,
            repository=self._home.name,
            tags=(tag,),
            channel=channel,
            title=labels.get(_TITLE, "")[:500],
            replacement=(record.replacement.partition("@")[0] or None) if record else None,
            reason=record.why[:500] if record else "",
            end_of_life=_date(labels.get(_END_OF_LIFE, "")),
            refused=refused[:500],
            verdict_expires=verdict.expires_at if verdict else None,
            current=seen.build if seen else Build(digest=found.digest),
            previous=tuple(earlier[:PREVIOUS_MAX]),
        )

    def _verdict(self, digest: Digest, tag: str) -> tuple[Verdict | None, str]:
        try:
            reference = Reference(self._home.host, self._home.name, tag, digest)
            return verify(
                reference, self._registry, self._trust, self._now, accept_sample=self._sample
            ).verdict, ""
        except PolicyDenied as error:  # the others mean: it could not be looked at
            return None, error.message

    def _seen(self, digest: Digest) -> _Seen | None:
        """What the trusted builder says of a digest; None when it says nothing that can be believed."""
        try:
            root, _, size = manifest_at(self._registry, self._home.with_digest(digest))
            children = root.manifests or (Descriptor(root.media_type, digest, size),)
            said, record = self._said(digest), self._record(digest)
            provenance = predicates.parse_provenance(said[predicates.PROVENANCE_TYPE])
            reports = [self._said(c.digest).get(predicates.VULNERABILITY_TYPE) for c in children]
            configurations = {str(c.platform): self._configuration(c.digest) for c in children}
        except (PolicyDenied, KeyError):
            return None
        created, labels, _ = configurations[str(children[0].platform)]
        build = _build(digest, children, [r for r in reports if r], created, provenance.immutable_tag)
        layers = {platform: found[2] for platform, found in configurations.items() if platform != "None"}
        build = build.model_copy(update={"layers": layers})
        if record and record.channel in _CALLED_BACK:
            build = build.model_copy(update={"withdrawn": (record.why or str(record.channel))[:500]})
        return _Seen(digest, provenance.ref, labels, build, record)

    def _said(self, digest: Digest) -> dict[str, Mapping[str, Any]]:
        """The believed predicates about a manifest by type; the last scan wins."""
        found: dict[str, Mapping[str, Any]] = {}
        for attached in collect(self._registry, self._home, digest):
            for statement in believed(attached, digest, self._trust):
                kind, old = statement.predicate_type, found.get(statement.predicate_type)
                if old is None or _scanned(statement.predicate) > _scanned(old):
                    found[kind] = statement.predicate
        return found

    def _record(self, digest: Digest) -> ChannelRecord | None:
        """The newest decision on an image."""
        records = (
            channels.decode(statement.predicate)
            for attached in collect(self._registry, self._home, digest)
            for statement in believed(attached, digest, self._trust)
            if statement.predicate_type == predicates.CHANNEL_TYPE
        )
        return channels.newest(records, digest)

    def _configuration(
        self, digest: Digest
    ) -> tuple[dt.datetime | None, Mapping[str, str], tuple[Digest, ...]]:
        """When it was made, its labels, and its layers' diff ids."""
        manifest, _, _ = manifest_at(self._registry, self._home.with_digest(digest))
        if manifest.config is None:
            return None, {}, ()
        data = self._registry.get_blob_bytes(self._home.name, manifest.config, _CONFIG_MAX)
        value = parse_json(data, "configuration", _CONFIG_MAX)
        labels = (value.get("config") or {}).get("Labels") or {}
        texts = {k: v for k, v in labels.items() if isinstance(v, str)} if isinstance(labels, dict) else {}
        return _time(value.get("created")), texts, _diff_ids(value)


def _build(
    digest: Digest,
    children: Iterable[Descriptor],
    reports: Iterable[Mapping[str, Any]],
    created: dt.datetime | None,
    immutable_tag: str,
) -> Build:
    packages: set[str] = set()
    flaws: dict[tuple[str, str], Vulnerability] = {}
    scanned: dt.datetime | None = None
    for report in reports:
        predicates.parse_vulnerabilities(report)
        result = report["scanner"]["result"]
        packages.update(p for p in result.get("packages", ()) if isinstance(p, str))
        when = _time(_scanned(report))
        scanned = max(filter(None, (scanned, when)), default=None)
        for raw in result["findings"]:
            one = _vulnerability(raw)
            flaws[one.id, one.package] = one
    return Build(
        digest=digest,
        platforms={str(c.platform): c.digest for c in children if c.platform},
        immutable_tag=immutable_tag,
        created=created,
        scanned=scanned,
        packages=tuple(sorted(packages)),
        vulnerabilities=tuple(flaws[key] for key in sorted(flaws)),
    )


def _vulnerability(raw: Mapping[str, Any]) -> Vulnerability:
    severity = raw.get("severity")
    return Vulnerability(
        id=str(raw.get("id") or "unknown")[:255],
        package=f"{raw.get('package')}={raw.get('installedVersion')}"[:255],
        severity=cast(Severity, severity if severity in _SEVERITIES else "UNKNOWN"),
        fixed_version=str(raw.get("fixedVersion") or "")[:500],
    )


def _with_replacements(images: Iterable[Image], today: dt.date) -> tuple[Image, ...]:
    """An image whose life has ended is replaced by the one of its family that lives longest."""
    listed = tuple(images)
    out = []
    for image in listed:
        family = [
            other
            for other in listed
            if other.repository == image.repository
            and other.ref.endswith("-dev") == image.ref.endswith("-dev")
            and other.end_of_life is not None
            and not other.refused
            and other.end_of_life > max(today, image.end_of_life or today)
        ]
        best = max(family, key=lambda i: (i.end_of_life or today, i.ref), default=None)
        ended = image.end_of_life is not None and image.end_of_life < today
        derive = best is not None and ended and image.replacement is None
        out.append(image.model_copy(update={"replacement": best.ref}) if best and derive else image)
    return tuple(out)


def _diff_ids(configuration: Mapping[str, Any]) -> tuple[Digest, ...]:
    """The layers of an image, from below; none when the configuration is not an image's."""
    root = configuration.get("rootfs")
    listed = root.get("diff_ids") if isinstance(root, dict) else None
    try:
        return tuple(Digest(d) for d in listed) if isinstance(listed, list) else ()
    except (ValueError, TypeError):
        return ()


def _scanned(predicate: Mapping[str, Any]) -> str:
    metadata = predicate.get("metadata")
    return str(metadata.get("scanFinishedOn", "")) if isinstance(metadata, dict) else ""


def _time(value: object) -> dt.datetime | None:
    try:
        return dt.datetime.strptime(str(value), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def _date(value: str) -> dt.date | None:
    try:
        return dt.date.fromisoformat(value)
    except ValueError:
        return None
