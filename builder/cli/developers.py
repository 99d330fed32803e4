"""Commands for those who use the images: check (their files), catalogue export, client-config."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.settings import Settings
    from builder.signing.trust import Trust
    from registry.devcheck.check import Outcome
    from registry.devcheck.known import Known

_UNREADABLE, _FINDINGS = 1, 4
_VALID_DAYS = 14
_VALID_DAYS_MAX = 90

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
TrustFolder = Annotated[
    Path | None,
    typer.Option("--trust", metavar="DIR", help="A folder with the public keys. Default: ours."),
]
Mirror = Annotated[
    str | None,
    typer.Option(metavar="HOST[:PORT]", help="The registry that developers pull from. Default: ours."),
]
Sample = Annotated[
    bool,
    typer.Option("--accept-sample", help="Accept verdicts with the sample database; for demonstrations."),
]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(check)
    app.command("client-config")(client_config)
    group = typer.Typer(help="The catalogue of approved images, for others.", no_args_is_help=True)
    group.command("export")(export)
    group.callback()(lambda: None)
    app.add_typer(group, name="catalogue")


def check(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files and folders.")],
    catalogue: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An exported catalogue; works offline. Default: ask the registry."),
    ] = None,
    trust: TrustFolder = None,
    mirror: Mirror = None,
    fix: Annotated[bool, typer.Option("--fix", help="Rewrite to the approved digest what is safe.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="With --fix: show the change, write nothing.")] = False,
    accept_sample: Sample = False,
    as_json: AsJson = False,
    sarif: Annotated[bool, typer.Option("--sarif", help="Print the result as SARIF 2.1.0.")] = False,
) -> int:
    """Check the images that Dockerfiles, Compose files and Kubernetes manifests name.

    Ends with 0 when all is well, 4 when there are findings, 1 when there are none but a file could
    not be read.
    """
    from registry.devcheck import fixer
    from registry.devcheck.check import check as look

    if diff and not fix:
        raise UsageError("--diff shows what --fix would do", hint="write --fix --diff")
    if as_json and sarif:
        raise UsageError("--json and --sarif are two forms of one result", hint="give one of them")
    settings, keys = surroundings(trust)
    known = known_images(settings, keys, catalogue, mirror, accept_sample)
    outcome = look(paths, known, settings.now.date())
    fixed: list[str] = []
    if diff:
        _show_differences(outcome, as_json or sarif)
    elif fix:
        for one in outcome.fixes:
            fixer.write(one.source.path, one.old, one.new)
            fixed.append(one.source.shown)
        outcome.findings = [f for f in outcome.findings if not (f.fixable and f.file in fixed)]
    _tell(outcome, known, fixed, as_json, sarif)
    return _FINDINGS if outcome.findings else _UNREADABLE if outcome.unreadable else 0


def export(
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where to write it.")],
    mirror: Mirror = None,
    days: Annotated[
        int, typer.Option(min=1, max=_VALID_DAYS_MAX, help="For how many days it may be used.")
    ] = _VALID_DAYS,
    accept_sample: Sample = False,
    as_json: AsJson = False,
) -> None:
    """Write the approved images with their digests and contents to a file, signed by the verdict key."""
    from builder.report import emit, emit_json
    from builder.signing.keys import load_keys
    from builder.store import Store, write_atomically
    from registry.devcheck.known_file import encode

    settings, keys = surroundings(None)
    signer = load_keys(Store(settings.state).keys, settings.key_uris, settings.passphrase).verdict
    keys.require(signer.public, settings.now)
    known = _read(settings, keys, mirror, dt.timedelta(days=days), accept_sample)
    data = encode(known, signer)
    write_atomically(to, data)
    refused = [i for i in known.images if i.refused]
    if as_json:
        emit_json(
            {
                "file": str(to),
                "bytes": len(data),
                "mirror": known.mirror,
                "valid_until": known.valid_until.isoformat(),
                "images": [i.ref for i in known.images],
                "refused": {i.ref: i.refused for i in refused},
            }
        )
        return
    emit(f"{to}: {len(known.images)} images of {known.mirror}, valid until {known.valid_until:%Y-%m-%d}")
    for image in refused:
        emit(f"  {image.ref} is listed as refused: {image.refused}")


def surroundings(trust: Path | None) -> tuple[Settings, Trust]:
    """Settings and trusted keys; with `--trust`, no catalogue is needed."""
    from builder.cli.trusting import trusted
    from builder.settings import Settings
    from builder.store import Store

    settings = Settings.load(needs_catalogue=False)
    return settings, trusted(Store(settings.state), trust)


def known_images(
    settings: Settings, keys: Trust, file: Path | None, mirror: str | None, accept_sample: bool
) -> Known:
    """What is known of the mirror's images: from an exported file, or else from the registry."""
    from registry.devcheck.known_file import load

    if file is None:
        return _read(settings, keys, mirror, dt.timedelta(days=1), accept_sample)
    known = load(file, keys, settings.now)
    return known.model_copy(update={"mirror": mirror}) if mirror else known


def _read(
    settings: Settings, keys: Trust, mirror: str | None, valid: dt.timedelta, accept_sample: bool
) -> Known:
    from builder.cli.wiring import client_of
    from registry.devcheck.export import read_registry

    return read_registry(
        client_of(settings, writes=False),
        keys,
        settings.now,
        mirror=mirror or settings.mirror,
        valid=valid,
        accept_sample=accept_sample,
    )


def _show_differences(outcome: Outcome, machine: bool) -> None:
    from builder.report import emit
    from registry.devcheck.fixer import difference

    if not machine:
        for one in outcome.fixes:
            emit(difference(one.old, one.new, one.source.shown))


def _tell(outcome: Outcome, known: Known, fixed: list[str], as_json: bool, sarif: bool) -> None:
    from builder.report import emit, emit_json
    from registry.devcheck import output

    if as_json:
        emit_json(output.as_json(outcome, known, fixed))
    elif sarif:
        emit_json(output.as_sarif(outcome, _version()))
    else:
        emit(output.as_text(outcome, fixed))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("goldsmith")
    except PackageNotFoundError:
        return "0"


def client_config(
    client: Annotated[
        str, typer.Argument(help="docker, containerd, podman, buildx, kyverno or policy-controller.")
    ],
    mirror: Mirror = None,
    trust: TrustFolder = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="Write the files below DIR. Default: print them."),
    ] = None,
    signatures: Annotated[
        bool, typer.Option(help="podman: whether the programs can verify signatures (Debian 12's cannot).")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Write a configuration that keeps a client away from every registry but the mirror.

    It says what that enforces and what it cannot. Prove it with `goldsmith doctor --client`.
    """
    from builder.report import emit, emit_json
    from builder.signing.keys import BUILDER, VERDICT
    from builder.store import write_atomically
    from registry.devcheck.clients import find, podman
    from registry.devcheck.clients import mirror as mirrors

    chosen = find(client)
    settings, keys = surroundings(trust)
    host = mirror or settings.mirror

    def pems(role: str) -> str:
        return "".join(key.pem.decode() for key in keys.believed(role))

    try:
        where = mirrors.Mirror(host, *(pems(role) for role in (BUILDER, VERDICT)))
    except ValueError as error:
        raise UsageError(str(error), hint="give it as HOST or HOST:PORT, in lower case") from None
    if not signatures and client != "podman":
        raise UsageError("--no-signatures is for podman")
    files = chosen.files(where) if signatures else podman.files_without_signatures(where)
    written = []
    for file in files if to else ():
        path = Path(to or "") / file.path.removeprefix("kubectl apply -f ").lstrip("/")
        write_atomically(path, file.text.encode())
        written.append(str(path))
    if as_json:
        listed = [{"path": f.path, "text": f.text} for f in files]
        enforces = {"enforces": list(chosen.ENFORCES), "cannot": list(chosen.CANNOT)}
        emit_json({"client": client, "mirror": host, **enforces, "files": listed, "written": written})
        return
    lines = [f"{chosen.TITLE}, mirror {host}", "", "enforces:", *(f"  * {e}" for e in chosen.ENFORCES)]
    lines += ["cannot:", *(f"  * {c}" for c in chosen.CANNOT), ""]
    lines += [f"written: {path}" for path in written] or [f"== {f.path}\n{f.text}" for f in files]
    emit("\n".join(lines).rstrip())
