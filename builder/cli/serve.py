"""The command that runs the gate: serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.settings import Settings

_LISTEN = "127.0.0.1:5700"


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(serve)


_Listen = Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="The address to answer at.")]
_Upstream = Annotated[
    str | None,
    typer.Option("--storage", metavar="HOST:PORT", help="The storage registry. Default: ours."),
]
_TrustFolder = Annotated[
    Path | None,
    typer.Option("--trust", metavar="DIR", help="A folder with the public keys. Default: ours."),
]
_Prefix = Annotated[
    str,
    typer.Option("--prefix", help="Serve the repositories whose names begin so; '' is what was promoted."),
]
_Strip = Annotated[
    bool, typer.Option("--strip-prefix", help="Leave the prefix out of the names that clients use.")
]
_Link = Annotated[
    str | None, typer.Option("--link", metavar="URL", help="Our address as people reach it, for refusals.")
]
_Accel = Annotated[
    str | None,
    typer.Option(
        "--accel", metavar="PATH", help="Let the web server in front send blobs (X-Accel-Redirect)."
    ),
]
_Sample = Annotated[
    bool, typer.Option("--accept-sample", help="Accept verdicts given with the sample database.")
]
_Anonymous = Annotated[
    bool, typer.Option("--anonymous", help="Let everybody pull everything, without a login.")
]
_AccessFile = Annotated[
    Path | None,
    typer.Option("--access", metavar="FILE", help="Who may pull. Default: access.yaml in the catalogue."),
]
_LogRequests = Annotated[
    bool, typer.Option(help="Whether to log each request, not only refusals and faults.")
]


def serve(
    listen: _Listen = _LISTEN,
    storage: _Upstream = None,
    trust: _TrustFolder = None,
    prefix: _Prefix = "",
    strip_prefix: _Strip = False,
    link: _Link = None,
    accel: _Accel = None,
    accept_sample: _Sample = False,
    access: _AccessFile = None,
    anonymous: _Anonymous = False,
    log_requests: _LogRequests = True,
) -> None:
    """Serve approved images to those who may pull them, read-only, until stopped; logs JSON lines."""
    from builder.cli.identity import pulls_folder, token_store
    from builder.cli.trusting import trusted
    from builder.oci.auth import credentials_for
    from builder.report import log_line
    from builder.settings import Settings, wall_clock
    from builder.store import Store
    from registry.access.source import Files
    from registry.gate.keyfolder import KeyFolder
    from registry.gate.repositories import Names
    from registry.gate.server import Configuration, Service

    settings = Settings.load(needs_catalogue=trust is None)
    host, port = _address(listen)
    if accel is not None and not accel.startswith("/"):
        raise UsageError(f"--accel is no path of a web server: {accel[:100]!r}", hint="such as /_blobs")
    if link is not None and not link.startswith(("http://", "https://")):
        raise UsageError(f"--link is no address: {link[:100]!r}", hint="such as https://mirror.example")
    upstream = storage or settings.registry
    store = Store(settings.state)
    folder = trust or store.keys
    keys = KeyFolder(folder, lambda: trusted(store, folder))
    config = Configuration(
        host=host,
        port=port,
        storage=upstream,
        trust=keys.trust,
        keys=keys,
        link=(link or f"http://{listen}").rstrip("/"),
        access=Files(settings.catalogue, token_store(store), file=access, anonymous=anonymous),
        credentials=credentials_for(store.credentials, upstream, writes=False),
        names=Names(prefix, strip_prefix),
        accept_sample=accept_sample,
        proofs=store.root / "gate",
        pulls=pulls_folder(store),
        blobs=_own_blobs(settings, upstream),
        accel=accel.rstrip("/") if accel else None,
        log_requests=log_requests,
    )
    Service(config, wall_clock, log_line).run()


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"not an address to listen at: {listen[:100]!r}", hint="such as 127.0.0.1:5700")
    return host.strip("[]"), int(port)


def _own_blobs(settings: Settings, upstream: str) -> Path | None:
    """The storage's blob folder, when the storage is the one of this state directory."""
    folder = settings.state / "registry" / "docker" / "registry" / "v2" / "blobs"
    return folder if upstream == settings.registry and folder.is_dir() else None
