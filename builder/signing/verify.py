"""Verify an image from its registry alone: who made it, what is known of it, who approved it.

The procedure; the numbers stand in the code (here, in `collect` and in `claims`):

 1. Resolve the reference to a digest. Fetch the manifest by that digest and hash its bytes; from here on
    the digest is the identity, and every byte is fetched once and by digest.
 2. Parse it. An index has only image manifests of known platforms, at least one.
 3. For each form that is there (bundles by the referrers list; the tags `.sig` and `.att`): an image
    signature, made by a builder's key, over this digest. A tag's signature is a simple-signing payload, a
    bundle's is a statement of cosign's signature type with an empty predicate. An attestation is never
    taken for a signature.
 4. Every attestation of a type we know has exactly one signature, by a key of the role that may say such a
    thing; its subject is this digest; its type is the one that its carrier promises. Statements of other
    types count for nothing. Nor do those by a key of ours that did not hold at their time: the one that
    they say, or else that of the newest verdict (`trust` has the rules). Only what calls an image back
    counts whenever it was signed.
 5. All demanded types are there, and every predicate parses as its type.
 6. The newest verdict approves, is of this image, unexpired and not from the future, was not given with a
    sample database (unless accepted), and lists the platforms of the index. It does not live longer than
    any policy allows. Both forms have the same verdict; when only one form is there, that form has to
    satisfy everything.
 7. The SBOM that the verdict names is among the attested ones, and it names every package that the
    provenance says was put in.
 8. Each platform manifest that the index lists passes 3 to 7 with its own digest.
 9. Configuration and layers of each platform are in the registry, with their sizes.
10. The repository and tag that were asked for are those of the image that was approved.
11. The newest channel record on the image, where there is one, neither withdraws nor quarantines it.
12. Change records, where there are any, are of this image; the newest one is passed on.

What the caller still owes: to use the digest that is returned and not to resolve the tag again;
to bring public keys from a place that the registry's operator cannot write; to remember the
newest `issued_at` of each digest (`seen`), since a registry can hide a newer verdict until the
older one expires; to hash layers when pulling, as every client does.

"Bad" is EvidenceRefused (a PolicyDenied), "could not be looked at" is a RegistryError; neither is good.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from builder.errors import RegistryError
from builder.model.change import ChangeRecord
from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest
from builder.model.image import Descriptor
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.model.verdict import Verdict
from builder.oci.manifest import Manifest
from builder.signing import changerecords, channels, verdicts
from builder.signing.claims import Claims, believe
from builder.signing.collect import Registry, collect, manifest_at
from builder.signing.memo import Memo
from builder.signing.naming import other_names
from builder.signing.predicates import IMAGE_TYPES, PLATFORM_TYPES, timestamp
from builder.signing.refusal import quoted, refuse
from builder.signing.trust import Trust, earliest
from builder.signing.verification import ManifestProof, Verification

LIFE_MAX = dt.timedelta(days=90)  # of a verdict: what was stolen and dated back ends with it
SKEW = dt.timedelta(minutes=5)  # how far the clocks of signer and verifier may differ
_PLATFORMS_MAX = 16


def verify(
    reference: Reference,
    registry: Registry,
    trust: Trust,
    now: dt.datetime,
    *,
    accept_sample: bool = False,
    seen: Callable[[Digest], dt.datetime | None] = lambda digest: None,
    held: bool = False,
    memo: Memo | None = None,
) -> Verification:
    """Carry out the procedure above for `reference` (an index, or one platform's manifest).

    `seen` tells the newest time of a verdict that was seen on a digest before: an older one is
    refused. `held` is for those who decide on what is in quarantine: step 11 lets that pass. `memo` has
    what this run read before. Raises EvidenceRefused with the first flaw, TrustRefused when the trust file
    has expired, RegistryError when something cannot be fetched.
    """
    trust.require_current(now)
    memo = memo or Memo()
    # 1. reference → digest → bytes
    digest = resolve(reference, registry)
    root, _, size = manifest_at(registry, reference.with_digest(digest), memo)
    # 2. what it is
    platforms = _platforms(root, digest, size)
    single = platforms[0].digest if len(platforms) == 1 else None
    required = PLATFORM_TYPES if single else IMAGE_TYPES
    # 3. to 7. the image itself
    claims = _believed(registry, reference, digest, required, trust, memo)
    verdict = claims[0].verdict
    _check_verdict(verdict, now, accept_sample, seen(digest))
    _check_subject(verdict, root, digest, platforms)
    if single:
        _check_sbom(claims, verdict, platforms[0])
    _check_name(reference, claims)
    channel = _check_channel(claims, verdict, held)
    change = _check_change(claims, verdict)
    proofs = [_proof(digest, None if root.is_index else platforms[0].platform, claims)]
    # 8. its platforms, 9. their content
    if not root.is_index:
        _check_content(registry, reference, root)
    else:
        for platform in platforms:
            proofs.append(_verify_platform(registry, reference, platform, verdict, trust, held, memo))
    uses = earliest(u for p in proofs for u in p.uses)
    return Verification(reference, digest, verdict, tuple(proofs), channel, uses, change)


def published_verdict(reference: Reference, registry: Registry, trust: Trust) -> Verdict:
    """The verdict on a published image, for explanation only: steps 1 to 5, whatever it says.

    It may deny, or have expired. Raises as `verify` does.
    """
    digest = resolve(reference, registry)
    root, _, size = manifest_at(registry, reference.with_digest(digest))
    required = PLATFORM_TYPES if len(_platforms(root, digest, size)) == 1 else IMAGE_TYPES
    return _believed(registry, reference, digest, required, trust, Memo())[0].verdict


def resolve(reference: Reference, registry: Registry) -> Digest:
    """The digest of what the reference names; raises RegistryError when there is no such thing.

    With tag and digest, both have to name the same manifest.
    """
    found = registry.head_manifest(reference)
    if found is None:
        raise RegistryError(
            f"{reference} is not in the registry",
            hint="see `goldsmith images` for what there is, or publish it with `goldsmith run`",
            reference="not-found",
        )
    if reference.digest is not None and reference.tag is not None:
        tagged = registry.head_manifest(reference.with_tag(reference.tag))
        if tagged is None or tagged.digest != reference.digest:
            refuse(
                "digest-mismatch",
                f"the tag {reference.tag} does not point to that digest",
                context=f"tag: {tagged.digest if tagged else 'not there'}\ndigest: {reference.digest}",
            )
    return reference.digest or found.digest


def _platforms(root: Manifest, digest: Digest, size: int) -> tuple[Descriptor, ...]:
    if not root.is_index:
        return (Descriptor(root.media_type, digest, size),)
    children = root.manifests
    if not 1 <= len(children) <= _PLATFORMS_MAX or any(c.platform is None for c in children):
        refuse("index-malformed", "the index does not list image manifests of known platforms")
    if len({c.digest for c in children}) != len(children):
        refuse("index-malformed", "the index lists a manifest twice")
    return children


def _believed(
    registry: Registry,
    reference: Reference,
    digest: Digest,
    required: frozenset[str],
    trust: Trust,
    memo: Memo,
) -> tuple[Claims, ...]:
    """3. to 5. for each form, and 6. that the forms agree on the verdict; at least one form."""
    attached = collect(registry, reference, digest, memo)
    if not attached:
        refuse(
            "unsigned",
            "nothing is signed",
            context=f"{digest} has neither bundles nor signature tags",
            hint="only images that `goldsmith run` published have signatures",
        )
    claims = tuple(believe(a, digest, required, trust, memo) for a in attached)
    if len({verdicts.encode(c.verdict) for c in claims}) != 1:
        refuse(
            "verdict-replayed",
            "bundles and tags have different verdicts",
            context="\n".join(f"{c.form}: issued {timestamp(c.verdict.issued_at)}" for c in claims),
            hint="one of them was put back to an older state; publish the image again",
        )
    return claims


def _check_verdict(
    verdict: Verdict, now: dt.datetime, accept_sample: bool, not_before: dt.datetime | None
) -> None:
    """6. the verdict allows it, today."""
    issued, expires = timestamp(verdict.issued_at), timestamp(verdict.expires_at)
    times = f"issued {issued}, expires {expires}, now {timestamp(now)}"
    if not verdict.approved:
        refuse(
            "verdict-denies",
            f"the verdict denies {verdict.ref}",
            context="\n".join(f"{r.id}: {f}" for r in verdict.failed for f in r.failures),
            hint=next((r.solution for r in verdict.failed), ""),
        )
    if verdict.issued_at > now + SKEW:
        refuse("verdict-from-the-future", "the verdict is from the future", context=times)
    if verdict.expires_at <= now:
        refuse(
            "verdict-expired",
            f"the verdict on {verdict.ref} has expired",
            context=times,
            hint="run the image's pipeline again, so that it is scanned and judged anew",
        )
    if verdict.expires_at - verdict.issued_at > LIFE_MAX:
        refuse("verdict-too-long", f"the verdict on {verdict.ref} lives too long", context=times)
    if not_before is not None and verdict.issued_at < not_before:
        refuse(
            "verdict-replayed",
            "an older verdict than one that was seen before",
            context=f"{times}, seen before: {timestamp(not_before)}",
        )
    if verdict.database is None:
        refuse("not-scanned", "the verdict was given without a vulnerability database")
    if verdict.database.sample and not accept_sample:
        refuse(
            "sample-database",
            "the verdict was given with the sample vulnerability database of the tests",
            context=verdict.database.source,
            hint="scan with a real database (GOLDSMITH_TRIVY_DB); only for a demonstration: --accept-sample, "
            "or GOLDSMITH_POLICY=demo for commands without that option",
        )


def _check_subject(
    verdict: Verdict, root: Manifest, digest: Digest, platforms: tuple[Descriptor, ...]
) -> None:
    """6. the verdict is of this image and of exactly its platforms."""
    if root.is_index:
        judged = set(verdict.sboms)
        if verdict.digest != digest:
            refuse("subject-mismatch", "the verdict is of another image", context=str(verdict.digest))
        if judged != {str(p.digest) for p in platforms}:
            refuse("subject-mismatch", "the verdict judged other platforms than the index lists")
    elif str(digest) not in verdict.sboms:
        refuse("subject-mismatch", "the verdict did not judge this platform", context=str(verdict.digest))


def _check_sbom(claims: tuple[Claims, ...], verdict: Verdict, platform: Descriptor) -> None:
    """7. in each form, the SBOM that was judged is there, and it is complete."""
    for one in claims:
        named = one.cyclonedx.get(verdict.sboms[str(platform.digest)])
        if named is None:
            refuse(
                "sbom-mismatch",
                "the attested SBOM is not the one that was judged",
                context=f"{one.form} of {platform.digest}",
            )
        for provenance in one.provenances:
            if missing := sorted(provenance.packages_of(platform.platform) - named):
                refuse(
                    "sbom-incomplete",
                    "the SBOM does not name every package of the image",
                    context=", ".join(missing[:20]),
                )


def _check_name(reference: Reference, claims: tuple[Claims, ...]) -> None:
    """10. another approved image under this name is refused too."""
    verdict = claims[0].verdict
    name = verdict.ref.partition(":")[0]
    provenances = [p for c in claims for p in c.provenances]
    wrong = [r for c in claims for r in c.repositories if r.rpartition("/")[2] != name]
    wrong += [p.ref for p in provenances if p.ref != verdict.ref]
    for tag in {p.immutable_tag for p in provenances} or {""}:
        wrong += other_names(reference, verdict.ref, tag)
    if wrong:
        refuse(
            "other-name",
            f"what is there is {verdict.ref}, not what was asked for",
            context=f"{reference}: {', '.join(sorted(set(wrong)))}",
        )


def _check_channel(claims: tuple[Claims, ...], verdict: Verdict, held: bool) -> ChannelRecord | None:
    """11. what was called back is refused, with the reason and the replacement."""
    record = channels.newest((r for c in claims for r in c.channels), verdict.digest)
    refused = (Channel.WITHDRAWN,) if held else (Channel.WITHDRAWN, Channel.QUARANTINE)
    if record is not None and record.channel in refused:
        withdrawn = record.channel is Channel.WITHDRAWN
        refuse(
            "withdrawn" if withdrawn else "quarantined",
            f"{record.ref} was {'withdrawn' if withdrawn else 'put into quarantine'}",
            context=f"since {timestamp(record.at)}: {record.why}\n{record.digest}",
            hint=f"use {record.replacement}" if record.replacement else "use another digest of the stream",
        )
    return record


def _check_change(claims: tuple[Claims, ...], verdict: Verdict) -> ChangeRecord | None:
    """12. what is said to be new is said of this image."""
    records = [r for c in claims for r in c.changes]
    for record in records:
        if (record.digest, record.ref) != (verdict.digest, verdict.ref):
            refuse(
                "subject-mismatch",
                "a change record is of another image",
                context=f"{quoted(record.ref)} {record.digest}",
            )
    return changerecords.newest(records)


def _verify_platform(
    registry: Registry,
    reference: Reference,
    platform: Descriptor,
    verdict: Verdict,
    trust: Trust,
    held: bool,
    memo: Memo,
) -> ManifestProof:
    where = reference.with_digest(platform.digest)
    manifest, digest, size = manifest_at(registry, where, memo)
    if manifest.is_index or (manifest.media_type, size) != (platform.media_type, platform.size):
        refuse("index-malformed", "the index describes a platform otherwise than it is", context=str(where))
    claims = _believed(registry, reference, digest, PLATFORM_TYPES, trust, memo)
    if verdicts.encode(claims[0].verdict) != verdicts.encode(verdict):
        refuse("verdict-replayed", "a platform has another verdict than its index", context=str(where))
    _check_sbom(claims, verdict, platform)
    _check_name(where, claims)
    _check_channel(claims, verdict, held)
    _check_change(claims, verdict)
    _check_content(registry, reference, manifest)
    return _proof(digest, platform.platform, claims)


def _check_content(registry: Registry, reference: Reference, manifest: Manifest) -> None:
    """9. a client that pulls now will find everything."""
    for blob in manifest.blobs:
        if not registry.has_blob(reference.name, blob.digest, blob.size):
            raise RegistryError(
                "a part of the image is missing in the registry",
                context=f"{reference.repository}: {blob.media_type} {blob.digest}, {blob.size} bytes",
                hint="publish the image again",
                reference="content-missing",
            )


def _proof(digest: Digest, platform: Platform | None, claims: tuple[Claims, ...]) -> ManifestProof:
    return ManifestProof(
        digest,
        platform,
        tuple(c.form for c in claims),
        tuple(sorted(frozenset.intersection(*(c.types for c in claims)))),
        sum(c.ignored for c in claims),
        tuple(dict.fromkeys(p for c in claims for p in c.provenances)),
        tuple(r for c in claims for r in c.reports),
        frozenset(u for c in claims for u in c.uses),
    )
