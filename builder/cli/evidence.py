"""Commands about trust: init (keys), verify (a published image), why (a verdict or a denial)."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.errors import ToolError, UsageError

if TYPE_CHECKING:
    from builder.model.digest import Digest
    from builder.model.reference import Reference
    from builder.model.verdict import Verdict
    from builder.settings import Settings
    from builder.signing.trust import Trust
    from builder.signing.verification import Verification
    from builder.store import Store

_SEEN = "seen"  # records: the newest verdict seen on a digest

Ref = Annotated[
    str,
    typer.Argument(metavar="REF", help="python:3.13 (as published here), or HOST/NAME[:TAG][@DIGEST]"),
]
TrustFolder = Annotated[
    Path | None,
    typer.Option("--trust", metavar="DIR", help="A folder with the public keys. Default: ours."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(init)
    app.command()(verify)
    app.command()(why)


def init(as_json: AsJson = False) -> None:
    """Make the state directory and one signing key per role; what exists is never changed."""
    from builder.report import emit, emit_json
    from builder.settings import Settings
    from builder.signing.keys import create_keys
    from builder.store import Store

    settings = Settings.load()
    store = Store(settings.state)
    with store.exclusive("goldsmith init"):
        states, generated = create_keys(store.keys, settings.key_uris, settings.passphrase)
    secret = "environment" if settings.passphrase else str(store.keys / "passphrase")
    if as_json:
        emit_json(
            {
                "state": str(store.root),
                "passphrase": secret,
                "passphrase_generated": generated,
                "keys": [
                    {"role": s.role, "private": s.private, "public": str(s.public), "created": s.created}
                    for s in states
                ],
            }
        )
        return
    for s in states:
        found = "made" if s.created else "is there" if s.private else "is kept"
        emit(f"{s.role:<8} {found}: {s.private or 'elsewhere'}, public key {s.public}")
    if generated:
        emit(
            f"passphrase made: {secret}\n"
            "  It lies beside the keys, which is for one machine only. In production give\n"
            "  GOLDSMITH_KEY_PASSPHRASE, or name KMS or HSM keys in GOLDSMITH_BUILDER_KEY and so on,\n"
            "  and keep root.key where nothing is built. Verifiers need nothing but the .pub files."
        )


def verify(
    ref: Ref,
    trust: TrustFolder = None,
    accept_sample: Annotated[
        bool, typer.Option("--accept-sample", help="Accept a verdict given with the sample database.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check signatures, attestations and verdict of a published image, from the registry alone."""
    from builder.cli.wiring import client_of
    from builder.cli.witnessing import as_data, in_words
    from builder.report import emit, emit_json
    from builder.signing.rebuilds import witnesses
    from builder.signing.verify import verify as verify_image

    settings, store, keys = surroundings(trust)
    reference = reference_of(ref, settings)
    client = client_of(settings, reference.host, writes=False)
    found = verify_image(
        reference,
        client,
        keys,
        settings.now,
        accept_sample=accept_sample,
        seen=lambda digest: _seen(store, digest),
    )
    _remember(store, found)
    seen = witnesses(client, reference.with_digest(found.verdict.digest), keys, settings.now)
    if as_json:
        emit_json({**_as_dict(found), "witnesses": as_data(seen)})
    else:
        _show(found)
        emit(in_words(seen))


def why(
    ref: Ref,
    trust: TrustFolder = None,
    checks: Annotated[bool, typer.Option("--checks", help="Tell the result of every check.")] = False,
    as_json: AsJson = False,
) -> None:
    """Explain why an image was approved or denied: the last run here, or the published verdict."""
    from builder.cli.wiring import client_of
    from builder.cli.witnessing import as_data, in_words
    from builder.model.digest import Digest
    from builder.policy.explain import explain, explain_checks
    from builder.report import emit, emit_json
    from builder.settings import Settings
    from builder.signing.predicates import TEST_RESULT_TYPE
    from builder.signing.rebuilds import witnesses
    from builder.signing.reports import platform_reports
    from builder.signing.verify import published_verdict
    from builder.store import Store

    if "/" not in ref and "@" not in ref:
        settings = Settings.load()
        name = _catalogue_name(ref, settings)
        record = Store(settings.state).record("verdicts", Digest.of(name.encode()))
        if record:
            lines = [*record.get("explanation", ()), *explain_checks(record.get("checks"), checks)]
            emit_json(record) if as_json else emit("\n".join(map(str, lines)))
            return
    settings, _, keys = surroundings(trust)
    reference = reference_of(ref, settings)
    client = client_of(settings, reference.host, writes=False)
    verdict = published_verdict(reference, client, keys)
    where = reference.with_digest(verdict.digest)
    seen = witnesses(client, where, keys, settings.now)
    reports = platform_reports(where, client, keys, TEST_RESULT_TYPE)
    results = {platform: report.get("details") for platform, report in reports.items()}
    told = (*explain(verdict, settings.now), in_words(seen))
    if as_json:
        said = {"reference": str(reference), "explanation": told, "witnesses": as_data(seen)}
        emit_json({**_verdict(verdict), **said, "checks": results})
    else:
        emit("\n".join((*told, *explain_checks(results, checks))))


def surroundings(trust: Path | None) -> tuple[Settings, Store, Trust]:
    """Settings, state and trusted keys; with `--trust`, no catalogue is needed."""
    from builder.cli.trusting import trusted
    from builder.settings import Settings
    from builder.store import Store

    settings = Settings.load(needs_catalogue=trust is None)
    store = Store(settings.state)
    return settings, store, trusted(store, trust)


def reference_of(text: str, settings: Settings) -> Reference:
    """What a command means by REF; without a registry, the candidate here. Raises UsageError."""
    from builder.model.reference import Reference
    from builder.stages.publish import CANDIDATE

    try:
        if "/" in text:
            reference = Reference.parse(text)
        else:
            name, at, digest = text.partition("@")
            name = name if at else _catalogue_name(name, settings)
            reference = Reference.parse(f"{settings.registry}/{CANDIDATE}/{name}{at}{digest}")
    except ValueError as error:
        raise UsageError(
            f"not a reference: {text[:200]!r}", context=str(error), hint="python:3.13, or HOST/NAME:TAG"
        ) from None
    if reference.tag is None and reference.digest is None:
        raise UsageError(f"{reference} names neither a tag nor a digest", hint="add :TAG or @sha256:…")
    return reference


def _catalogue_name(text: str, settings: Settings) -> str:
    """`python:3.13` as it is; `python` becomes its only stream."""
    from builder.cli.extending import open_catalogue

    return text if ":" in text else open_catalogue(settings).find(text).ref


def _seen(store: Store, digest: Digest) -> dt.datetime | None:
    record = store.record(_SEEN, digest)
    try:
        return dt.datetime.fromisoformat(str(record["issued_at"])) if record else None
    except (KeyError, ValueError):
        return None


def _remember(store: Store, found: Verification) -> None:
    """Keep the time of the newest verdict, so that an older one is refused from now on."""
    import contextlib

    if store.root.is_dir():
        with contextlib.suppress(ToolError):  # another user's state: verified all the same
            store.remember(_SEEN, found.digest, {"issued_at": found.verdict.issued_at.isoformat()})


def _as_dict(found: Verification) -> dict[str, Any]:
    return {
        "verified": True,
        "reference": str(found.reference),
        "digest": found.digest,
        "verdict": _verdict(found.verdict),
        "channel": found.channel.channel.value if found.channel else None,
        "previous": found.change.previous if found.change else None,
        "manifests": [
            {
                "digest": m.digest,
                "platform": str(m.platform) if m.platform else None,
                "forms": list(m.forms),
                "attestations": list(m.types),
                "ignored": m.ignored,
            }
            for m in found.manifests
        ],
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
    import json

    from builder.signing.verdicts import encode

    value: dict[str, Any] = json.loads(encode(verdict))
    return value


def _show(found: Verification) -> None:
    from builder.report import emit, table
    from builder.signing.predicates import SHORT_NAMES, timestamp

    verdict = found.verdict
    rows = [
        [
            str(m.platform) if m.platform else "image",
            m.digest,
            ", ".join(("signature", *(SHORT_NAMES[t] for t in m.types))),
            ", ".join(m.forms),
        ]
        for m in found.manifests
    ]
    table(f"verified: {found.reference}", ("of", "digest", "signed and attested", "found as"), rows)
    sample = ", with the SAMPLE DATABASE" if verdict.database and verdict.database.sample else ""
    emit(
        f"{verdict.ref} is approved by {verdict.policy}{sample}\n"
        f"issued {timestamp(verdict.issued_at)}, valid until {timestamp(verdict.expires_at)}\n"
        f"channel: {_channel(found)}\n"
        f"{_changed(found)}"
        f"{_judges(verdict)}"
        f"use it as {found.reference.with_digest(found.digest)}"
    )


def _channel(found: Verification) -> str:
    """A candidate of which a copy is stable has no record of its own."""
    return found.channel.channel if found.channel else f"none recorded in {found.reference.name}"


def _judges(verdict: Verdict) -> str:
    """Whose rules, checks and scanners were asked beside ours."""
    if not verdict.extensions:
        return "extensions asked: none\n"
    return "extensions asked:\n" + "".join(f"  {who}, {who.digest}\n" for who in verdict.extensions)


def _changed(found: Verification) -> str:
    if found.change is None:
        return ""
    before = f"since {found.change.previous}" if found.change.previous else "the first image"
    return f"changes: signed, {before}; `goldsmith changes` tells them\n"
