"""Commands about this machine: doctor, up, down."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from builder.settings import Settings
    from registry.gate.daemon import RunningGate

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_TOOL_MISSING = 5
_LOOPBACK = "127.0.0.1:"


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(doctor)
    app.command()(up)
    app.command()(down)


def doctor(
    client: Annotated[
        str | None,
        typer.Option(
            metavar="CLIENT", help="Prove that docker, podman or containerd reaches the mirror only."
        ),
    ] = None,
    mirror: Annotated[
        str | None, typer.Option(metavar="HOST[:PORT]", help="With --client: the mirror. Default: ours.")
    ] = None,
    foreign: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REF", help="With --client: an image that must not come. Default: two public ones."
        ),
    ] = None,
    hosts_dir: Annotated[
        Path, typer.Option(metavar="DIR", help="With --client containerd: its hosts.toml files.")
    ] = Path("/etc/containerd/certs.d"),
    as_json: AsJson = False,
) -> int:
    """Say what is installed and which versions, what is missing, and the command that installs it."""
    if client:
        from builder.cli.clients import prove_client

        return prove_client(client, mirror, foreign or [], hosts_dir, as_json)
    if mirror or foreign:
        from builder.errors import UsageError

        raise UsageError("--mirror and --foreign are for --client", hint="name the client: docker, podman, …")
    from builder.cli.doctor import examine
    from builder.report import emit, emit_json, table
    from builder.settings import Settings

    items = examine(Settings.load())
    missing = [x for x in items if x.needed and not x.ok]
    if as_json:
        emit_json({"ok": not missing, "items": [x.as_dict() for x in items]})
    else:
        marks = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING", (False, False): "no"}
        table(
            "This machine",
            ("", "what", "found", "for"),
            [(marks[x.ok, x.needed], x.name, x.found, x.purpose) for x in items],
        )
        for item in items:
            if not item.ok and item.install:
                emit(f"{item.name}: {item.install}")
    return _TOOL_MISSING if missing else 0


def up(
    registry: Annotated[bool, typer.Option(help="Whether to start the storage registry too.")] = True,
    gate: Annotated[bool, typer.Option(help="Whether to start the gate before it too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start a container engine and the storage registry, where none answers; with --gate the gate too."""
    from builder.report import emit, emit_json
    from builder.settings import Settings
    from builder.store import Store
    from builder.tools.docker_client import find_combination
    from builder.tools.docker_engine import ensure_engine
    from registry.storage import service

    settings = Settings.load()
    store = Store(settings.state).create()
    engine = ensure_engine(store, settings.child_environment)
    combination = find_combination(engine, store, settings.child_environment)
    running = service.up(settings, closed=True) if registry else service.status(settings)
    front = _gate(settings, gate)
    if as_json:
        emit_json(
            {
                "engine": {
                    "host": engine.host,
                    "version": engine.version,
                    "origin": engine.origin,
                    "client": str(combination.client),
                    "client_version": combination.client_version,
                    "mode": combination.mode,
                },
                "registry": running.as_dict(),
                "gate": front.as_dict(),
            }
        )
        return
    emit(f"container engine {engine.version} at {engine.host} ({engine.origin})")
    emit(f"building with {combination}")
    if running.pid is not None:
        emit(f"registry on {running.address} (pid {running.pid})")
    if front.pid is not None:
        emit(f"gate on {front.address} (pid {front.pid})")


def _gate(settings: Settings, start: bool) -> RunningGate:
    from builder.cli.extending import find_policy_of
    from registry.gate import daemon

    if not start:
        return daemon.status(settings)
    sample = find_policy_of(settings, settings.policy).data.database.sample == "accept"
    ours = settings.mirror.startswith(_LOOPBACK)  # elsewhere a web server stands before it
    return daemon.up(settings, settings.mirror if ours else daemon.LISTEN, accept_sample=sample)


def down(as_json: AsJson = False) -> None:
    """Stop the container engine, the registry and the gate that were started here; nothing else."""
    from builder.report import emit, emit_json
    from builder.settings import Settings
    from builder.store import Store
    from builder.tools.dockerd import stop_engine
    from registry.gate import daemon
    from registry.storage import service

    settings = Settings.load()
    gate = daemon.down(settings)
    was_running = service.status(settings).pid is not None
    service.down(settings)
    engine = stop_engine(Store(settings.state), settings.child_environment)
    if as_json:
        emit_json({"engine": engine, "registry": was_running, "gate": gate})
        return
    emit("gate " + ("stopped" if gate else "was not running"))
    emit("registry " + ("stopped" if was_running else "was not running"))
    emit("container engine " + ("stopped" if engine else "was not started here"))
