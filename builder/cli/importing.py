"""Commands that bring images in from elsewhere: import."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli.bundles import bring, journal
from builder.cli.office import IMPORT_POLICY, open_office
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.cli.wiring import Workshop
    from builder.model.evidence import Evidence, Sboms, ScanReport
    from builder.model.image import BuiltImage, PlatformImage, Target
    from builder.model.platform import Platform
    from builder.model.release import PublishedImage, SignedImage
    from builder.model.verdict import Verdict
    from builder.settings import Settings
    from registry.imports.procedure import Imported, Instruments, Wish
    from registry.promotion.office import Office
    from registry.upstream.source import Source


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Where = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="HOST/NAME@sha256:…, or the path of an OCI layout (folder, tar) or docker archive.",
    ),
]
Name = Annotated[str, typer.Option("--as", metavar="NAME:TAG", help="What it is called here.")]
Until = Annotated[
    str, typer.Option("--end-of-life", metavar="DATE", help="Until when its makers support it.")
]
Owner = Annotated[str, typer.Option("--owner", metavar="NAME", help="Who answers for it here.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="What it is for; for those who approve it.")]
Platforms = Annotated[
    list[str] | None,
    typer.Option("--platform", help="linux/amd64 or linux/arm64; by default all of these that there are."),
]
TokenHosts = Annotated[
    list[str] | None,
    typer.Option("--token-host", metavar="HOST", help="A host that may issue tokens for the registry."),
]
RedirectHosts = Annotated[
    list[str] | None,
    typer.Option("--redirect-host", metavar="HOST", help="A host that the registry may send blobs from."),
]
IsBundle = Annotated[
    bool, typer.Option("--bundle", help="SOURCE is what `goldsmith export` wrote on the other side.")
]
TrustFolder = Annotated[
    Path | None,
    typer.Option(
        "--trust", metavar="DIR", help="With --bundle: the public keys of the other side. Default: ours."
    ),
]
Sample = Annotated[
    bool, typer.Option("--accept-sample", help="With --bundle: accept verdicts with the sample database.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command("import")(import_)


def import_(
    source: Where,
    name: Name = "",
    end_of_life: Until = "",
    owner: Owner = "",
    why: Why = "",
    platform: Platforms = None,
    token_host: TokenHosts = None,
    redirect_host: RedirectHosts = None,
    bundle: IsBundle = False,
    trust: TrustFolder = None,
    accept_sample: Sample = False,
    as_json: AsJson = False,
) -> int:
    """Bring in an image that others made: into quarantine, judged by the policy `import` and signed.

    Nobody can pull it before somebody approved it and it was promoted. With --bundle: bring in what
    was promoted elsewhere, verified with nothing but public keys; 4 when an image was left out.
    """
    if bundle:
        if any((name, end_of_life, owner, platform)):
            raise UsageError("a bundle says itself what it holds", hint="goldsmith import BUNDLE --bundle")
        return bring(Path(source), trust, accept_sample, why, as_json)
    if trust is not None or accept_sample:
        raise UsageError("--trust and --accept-sample are for bundles", hint="add --bundle")
    from builder.report import Silent, for_people
    from registry.access.roles import Permission
    from registry.imports.procedure import import_image

    reporter = Silent() if as_json else for_people()
    with open_office(IMPORT_POLICY) as (workshop, office, who):
        wish = _wish(name, end_of_life, owner, why, platform or [])
        who.require(Permission.IMPORT, wish.name)
        with journal(workshop.store, office.now, office.who, source, wish.ref):
            found = _source(source, workshop.settings, office.work, token_host or [], redirect_host or [])
            with workshop.store.exclusive(f"goldsmith import {wish.ref}"):
                done = import_image(
                    office,
                    found,
                    wish,
                    workshop.catalogue.definitions,
                    _instruments(workshop, office),
                    lambda what: reporter.note(f"{wish.ref}: {what}"),
                )
    _tell(done, as_json)
    return 0


def _wish(name: str, end_of_life: str, owner: str, why: str, platforms: list[str]) -> Wish:
    from builder.model.platform import Platform
    from registry.imports.procedure import Wish

    image, colon, tag = name.partition(":")
    if not colon or not tag:
        raise UsageError(f"--as names no stream: {name[:100]!r}", hint="--as NAME:TAG, such as alpine:3.22")
    try:
        until = dt.date.fromisoformat(end_of_life)
    except ValueError:
        raise UsageError(f"no date: {end_of_life[:50]!r}", hint="--end-of-life 2029-06-30") from None
    chosen: list[Platform] = []
    for text in platforms:
        try:
            chosen.append(Platform.parse(text))
        except ValueError as error:
            raise UsageError(str(error)[:200], hint="--platform linux/amd64 or linux/arm64") from None
    return Wish(image, tag, owner, until, why, tuple(chosen))


def _source(
    text: str, settings: Settings, work: Path, token_hosts: list[str], redirect_hosts: list[str]
) -> Source:
    """Where the image is: a file or folder that there is, or else a registry."""
    from builder.model.digest import Digest
    from builder.model.reference import Reference
    from builder.oci.auth import Credentials
    from builder.oci.client import RegistryClient
    from registry.upstream.source import RegistrySource, open_file

    path, _, digest = text.partition("@")
    try:
        if Path(path).exists():
            return open_file(Path(path), Digest(digest) if digest else None, work)
        reference = Reference.parse(text)
    except ValueError as error:
        raise UsageError(
            f"neither a file nor a reference: {text[:200]!r}",
            context=str(error),
            hint="HOST/NAME@sha256:…, or the path of a layout or archive",
        ) from None
    credentials = None
    if settings.upstream_user:
        credentials = Credentials(settings.upstream_user, settings.upstream_password or "")
    client = RegistryClient(
        reference.host,
        credentials=credentials,
        token_hosts=frozenset(token_hosts),
        redirect_hosts=frozenset(redirect_hosts),
        foreign=True,
    )
    return RegistrySource(client, reference)


def _instruments(workshop: Workshop, office: Office) -> Instruments:
    from builder.cli.releasing import ReleaseTools
    from builder.stages.judge import judge
    from builder.stages.publish import publish
    from builder.stages.scan import scan_import
    from builder.stages.sign import sign
    from registry.imports.procedure import Instruments
    from registry.promotion.office import QUARANTINES

    tools = ReleaseTools(workshop, IMPORT_POLICY, workshop.settings.trivy_db)

    def scanned(target: Target, image: PlatformImage, work: Path) -> tuple[ScanReport, Sboms]:
        further, scanner = workshop.extensions.scanners, tools.trivy
        return scan_import(
            image, name=target.ref, database=tools.database, trivy=scanner, work=work, further=further
        )

    def judged(image: BuiltImage, evidence: tuple[Evidence, ...]) -> Verdict:
        return judge(image, evidence, office.policy, office.now)

    def signed(
        image: BuiltImage, evidence: tuple[Evidence, ...], verdict: Verdict, provenance: Mapping[str, Any]
    ) -> SignedImage:
        name = f"{workshop.settings.registry}/{QUARANTINES}/{image.target.definition.name}"
        return sign(image, evidence, verdict, provenance, office.keys, name)

    def published(image: SignedImage) -> PublishedImage:
        return publish(image, office.client, QUARANTINES)

    return Instruments(scanned, judged, signed, published, workshop.extensions.checks)


def _tell(done: Imported, as_json: bool) -> None:
    from builder.report import emit, emit_json
    from builder.signing.predicates import timestamp

    source = f"{done.source.source}@{done.source.digest}"
    if as_json:
        emit_json(
            {
                "ref": done.ref,
                "digest": done.published.digest,
                "reference": done.published.reference,
                "tags": list(done.published.tags),
                "source": source,
                "channel": done.channel.value,
                "verdict": {"policy": done.verdict.policy, "expires_at": timestamp(done.verdict.expires_at)},
                "left_out": list(done.left_out),
                "entry": done.entry.as_dict(),
            }
        )
        return
    emit(
        f"imported: {done.ref} is {done.published.reference}\n"
        f"from {source}\n"
        f"approved by the policy {done.verdict.policy} until {timestamp(done.verdict.expires_at)}; "
        f"channel: {done.channel}\nledger entry {done.entry.sequence}"
    )
    if done.left_out:
        emit(f"left out of the source's index: {len(done.left_out)} manifests")
