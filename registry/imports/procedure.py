"""Import: an image that others made goes to quarantine, judged and signed by us; nobody gets it yet.

The procedure; the numbers stand in the code:

 1. The name is no image of the catalogue, and its stream has an end of life that lies ahead.
 2. The image is fetched by digest into a folder of ours; what is no sound image is refused.
 3. Its layers are read: what two readers could see differently is refused.
 4. What was decided of this very digest before holds: what was called back does not come in again.
 5. It is checked, scanned and judged by the policy for imports, today. A denial ends it here.
 6. The ledger: who brought in what, from where.
 7. The record "quarantine" on platforms and index, before they are there: whoever verifies them
    from the first moment on is told so.
 8. The provenance of the import, signatures and attestations; content, evidence, tags in `quarantine/NAME`.

Before 6 nothing has changed anywhere. A run that was cut is completed by the next one, which takes
the same decision up again. Importing again gives an image that is there a new verdict.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder.checks import imported, installed
from builder.checks.rule import Rule
from builder.errors import PolicyDenied, UsageError
from builder.model.channel import Channel
from builder.model.digest import Digest
from builder.model.evidence import CheckReport, Evidence, NotDone, Sboms, ScanReport
from builder.model.image import BuiltImage, Descriptor, PlatformImage, Target
from builder.model.imported import ImportedFrom, import_target, installed_packages
from builder.model.lock import LockSection
from builder.model.platform import Platform
from builder.model.release import PublishedImage, SignedImage
from builder.model.verdict import Verdict
from builder.policy.explain import explain
from builder.signing.imports import import_provenance
from builder.signing.predicates import BUILDER_ID
from builder.version import version
from registry.audit.ledger import Action, Entry, Fact
from registry.promotion.channels import move
from registry.promotion.office import QUARANTINES, Office, State, Subject, decide, record_of, state_of
from registry.promotion.records import put_record, read_record
from registry.upstream.fetch import Fetched, FetchedPlatform, fetch
from registry.upstream.refusal import refuse
from registry.upstream.source import Source
from registry.upstream.tree import read_tree

_LINT = NotDone("lint", "there is no Dockerfile of ours")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be imported as what; `platforms` none is all that we know. `why` is for the ledger."""

    name: str
    tag: str
    owner: str
    end_of_life: dt.date
    why: str
    platforms: tuple[Platform, ...] = ()

    @property
    def ref(self) -> str:
        """`NAME:TAG`."""
        return f"{self.name}:{self.tag}"


@dataclass(frozen=True, slots=True)
class Instruments:
    """What an import is judged, signed and published with; the command line puts it together.

    `checks` are those of extensions.
    """

    scan: Callable[[Target, PlatformImage, Path], tuple[ScanReport, Sboms]]
    judge: Callable[[BuiltImage, tuple[Evidence, ...]], Verdict]
    sign: Callable[[BuiltImage, tuple[Evidence, ...], Verdict, Mapping[str, Any]], SignedImage]
    publish: Callable[[SignedImage], PublishedImage]
    checks: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import led to. `channel` is where the image stands; `entry` the decision to bring it in."""

    published: PublishedImage
    ref: str
    source: ImportedFrom
    verdict: Verdict
    channel: Channel
    entry: Entry
    left_out: tuple[Digest, ...]


def import_image(
    office: Office,
    source: Source,
    wish: Wish,
    taken: Collection[str],
    instruments: Instruments,
    told: Callable[[str], None] = lambda text: None,
) -> Imported:
    """Carry out the procedure above; `taken` are the names of the catalogue's images.

    Raises ImportRefused for what is no sound image, PolicyDenied when the policy or an earlier
    decision is against it, UsageError, RegistryError and ToolError as the parts do.
    """
    target = _target(wish, taken, office.now)  # 1.
    target = replace(target, waivers=office.policy.waivers_of(wish.name, wish.tag))
    layout = office.work / "import"
    fetched = fetch(source, layout, wish.platforms, lambda what: told(f"fetch {what}"))  # 2.
    image, checks, problems = _image(target, fetched, office, instruments.checks, told)  # 3.
    subject = Subject(image.digest, wish.ref, place=QUARANTINES)
    state = state_of(office, subject)
    known = _decided(state, subject)  # 4.
    evidence = tuple(
        _evidence(p, checks[p.platform], target, instruments, office.work, told) for p in image.platforms
    )
    told("judge")
    verdict = instruments.judge(image, evidence)  # 5.
    if not verdict.approved:
        raise PolicyDenied(
            f"{wish.ref} was denied by the policy {verdict.policy}; nothing was imported",
            context="\n".join((*explain(verdict)[2:], *problems)),
            hint=next((r.solution for r in verdict.failed), ""),
            reference="import-denied",
        )
    entry = known or decide(office, state, _fact(office, wish, source, image))[0]  # 6.
    if entry.fact.what is Action.IMPORT:
        _tell_quarantine(office, subject, entry, image)  # 7.
    first = _first(state, entry, image.digest)
    origin = ImportedFrom(
        source.kind, source.origin, source.root.digest, first.fact.who, first.at, wish.owner, wish.end_of_life
    )
    told("publish")
    provenance = import_provenance(image, origin, fetched.left_out, version(), BUILDER_ID)
    published = instruments.publish(instruments.sign(image, evidence, verdict, provenance))  # 8.
    channel = Channel(entry.fact.after["channel"])
    return Imported(published, wish.ref, origin, verdict, channel, entry, fetched.left_out)


def _target(wish: Wish, taken: Collection[str], now: dt.datetime) -> Target:
    """1. the image as a target of a name that nobody has."""
    if wish.name in taken:
        raise UsageError(
            f"{wish.name} is an image of the catalogue",
            hint="choose another name with --as, such as upstream-NAME",
        )
    if wish.end_of_life < now.date():
        raise UsageError(
            f"the end of life is past: {wish.end_of_life}", hint="take an image that is supported"
        )
    if not wish.why.strip():
        raise UsageError("a reason is missing", hint="--why tells who will approve it what it is for")
    try:
        return import_target(wish.name, wish.tag, wish.owner, wish.end_of_life, wish.platforms or _ANY)
    except ValueError as error:
        raise UsageError(
            f"not a name, stream and owner for an image: {wish.ref[:100]}",
            context="; ".join(line.strip() for line in str(error).splitlines()[1:3])[:300],
            hint="--as NAME:TAG: lower-case letters and digits, in NAME also -, in TAG also .",
        ) from None


_ANY = (Platform("linux", "amd64"),)


def _image(
    target: Target, fetched: Fetched, office: Office, added: tuple[Rule, ...], told: Callable[[str], None]
) -> tuple[BuiltImage, dict[Platform, CheckReport], list[str]]:
    """3. the image with what is installed in it, the results of its hardening rules, and what it lacks."""
    platforms, checks, problems = [], {}, []
    wanted = office.policy.data.checks.required
    read = (*installed.WANTED, *imported.WANTED, *(path for rule in added for path in rule.reads))
    for one in fetched.platforms:
        told(f"read {one.platform}")
        files = read_tree(fetched.layout, one.layers, read)
        execution = one.config.get("config")
        if execution is not None and not isinstance(execution, dict):
            refuse("malformed-config", "the configuration's config is no object")
        results = imported.harden_import(files, one.config, wanted, added)
        checks[one.platform] = CheckReport(one.manifest.digest, one.platform, "files", results)
        found = installed.installed(files)
        problems += [f"{one.platform}: {found.problem}"] if found.problem else []
        platforms.append(_platform(fetched, one, found.packages, target))
    image = BuiltImage(
        target,
        fetched.layout,
        fetched.index,
        tuple(platforms),
        fetched.source.digest,
        target.stream_name,
        imported=True,
    )
    return image, checks, problems


def _platform(
    fetched: Fetched, one: FetchedPlatform, names: tuple[str, ...], target: Target
) -> PlatformImage:
    section = LockSection(
        target.stream_name,
        target.variant,
        one.platform,
        target.stream.suite,
        one.manifest.digest,
        None,
        (),
    )
    packages = installed_packages(names, one.platform)
    return PlatformImage(
        one.platform, fetched.layout, one.manifest, one.config_blob, one.layers, section, packages
    )


def _decided(state: State, subject: Subject) -> Entry | None:
    """4. the decision that goes on holding; None when a new one is to be taken."""
    last = state.last(subject.digest)
    if last is None:
        move(state.channel, Channel.QUARANTINE)
        return None
    if last.fact.ref != subject.ref:
        raise PolicyDenied(
            f"this image is here already, as {last.fact.ref}",
            context=str(subject.digest),
            hint=f"use {last.fact.ref}, or import it under that name again",
            reference="imported-already",
        )
    if last.fact.what in (Action.REVOKE, Action.QUARANTINE):
        raise PolicyDenied(
            f"{subject.ref} was called back ({state.channel}), and does not come in again by itself",
            context=f"{last.at:%Y-%m-%d} by {last.fact.who}: {last.fact.why}",
            hint="import another digest, or release this one if the reason is gone",
            reference="called-back",
        )
    return None if last.fact.what is Action.IMPORT else last


def _evidence(
    image: PlatformImage,
    checks: CheckReport,
    target: Target,
    instruments: Instruments,
    work: Path,
    told: Callable[[str], None],
) -> Evidence:
    """5. what is known of one platform."""
    told(f"scan {image.platform}")
    folder = work / f"scan-{image.platform.architecture}"
    folder.mkdir()
    report, sboms = instruments.scan(target, image, folder)
    return Evidence(image.manifest.digest, image.platform, checks, report, sboms, _LINT)


def _fact(office: Office, wish: Wish, source: Source, image: BuiltImage) -> Fact:
    after = {
        "channel": Channel.QUARANTINE.value,
        "tag": wish.tag,
        "source": f"{source.origin}@{source.root.digest}",
        "policy": f"{office.policy.name}@{office.policy.digest}",
    }
    return Fact(office.who, Action.IMPORT, wish.ref, image.digest, {}, after, wish.why)


def _tell_quarantine(office: Office, subject: Subject, entry: Entry, image: BuiltImage) -> None:
    """7. platforms first, the index last; the records may be there before what they speak of."""
    repo, record = subject.repos[1], record_of(subject, entry)
    index = office.client.reference(repo, digest=subject.digest)
    for one in (*(p.manifest for p in image.platforms), image.index):
        plain = Descriptor(one.media_type, one.digest, one.size)
        where = index.with_digest(one.digest)
        if read_record(office.client, where, subject.digest, office.trust, one.digest) != record:
            put_record(office.client, repo, record, plain, office.keys.verdict)


def _first(state: State, entry: Entry, digest: Digest) -> Entry:
    """The entry by which the image first came in."""
    of_it = [e for e in state.history if e.fact.digest == digest and e.fact.what is Action.IMPORT]
    return of_it[0] if of_it else entry
