"""The command that looks at what runs: inventory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from builder.cli.developers import AsJson, Mirror, Sample, TrustFolder
from builder.errors import UsageError

if TYPE_CHECKING:
    from builder.store import Store
    from registry.inventory.bases import Placed
    from registry.inventory.running import Running

_WRONG = 4
_SHOWN = 4  # vulnerabilities in one line


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(inventory)


def inventory(
    docker: Annotated[
        bool, typer.Option("--docker", help="The containers of the Docker engine here.")
    ] = False,
    pods: Annotated[
        str | None,
        typer.Option(
            "--pods", metavar="FILE", help="What `kubectl get pods -A -o json` printed; - is stdin."
        ),
    ] = None,
    digests: Annotated[
        str | None, typer.Option("--list", metavar="FILE", help="A reference or digest a line; - is stdin.")
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An exported catalogue; works offline. Default: ask the registry."),
    ] = None,
    trust: TrustFolder = None,
    mirror: Mirror = None,
    accept_sample: Sample = False,
    keep: Annotated[
        str,
        typer.Option("--keep", metavar="PLACE", help="Remember it under this name, for `goldsmith clock`."),
    ] = "",
    as_json: AsJson = False,
) -> int:
    """Find out what runs on vulnerable, withdrawn, outdated or foreign bases, and on what it should run.

    A base is found by its digest, by the annotation that names it, or by its layers. Ends with 4
    when something is wrong.
    """
    from builder.cli.developers import known_images, surroundings
    from builder.report import emit_json
    from builder.store import Store
    from registry.inventory.bases import counted, place, running_digests
    from registry.inventory.kept import Look, check_name
    from registry.inventory.kept import keep as remember

    if not (docker or pods or digests):
        raise UsageError("nothing to look at", hint="--docker, --pods FILE or --list FILE")
    if keep:
        check_name(keep)
    running = _running(docker, pods, digests)
    settings, keys = surroundings(trust)
    known = known_images(settings, keys, catalogue, mirror, accept_sample)
    found = place(running, known, settings.now.date())
    if keep:
        look = Look(keep, settings.now, frozenset(map(str, running_digests(found))))
        remember(kept_folder(Store(settings.state)), look)
    if as_json:
        emit_json({"states": counted(found), "running": [_as_dict(one) for one in found]})
    else:
        _show(found)
    return _WRONG if any(one.states for one in found) else 0


def kept_folder(store: Store) -> Path:
    """Where it is remembered what ran."""
    return store.root / "running"


def _running(docker: bool, pods: str | None, digests: str | None) -> tuple[Running, ...]:
    from registry.inventory.running import of_containers, of_list, of_pods

    found: tuple[Running, ...] = ()
    if pods:
        found += of_pods(_read(pods))
    if digests:
        try:
            found += of_list(_read(digests).decode())
        except UnicodeDecodeError:
            raise UsageError(f"{digests} is not text in UTF-8") from None
    if docker:
        from builder.settings import Settings
        from builder.store import Store
        from builder.tools.docker_engine import Engine, find_engine
        from builder.tools.docker_running import running_containers

        settings = Settings.load(needs_catalogue=False)
        engine = find_engine(Store(settings.state), settings.child_environment)
        if not isinstance(engine, Engine):
            raise UsageError("no Docker engine answers here", hint="goldsmith doctor")
        found += of_containers(running_containers(engine))
    return found


def _read(file: str) -> bytes:
    from registry.inventory.running import SIZE_MAX

    try:
        if file == "-":
            return sys.stdin.buffer.read(SIZE_MAX + 1)
        with open(file, "rb") as handle:
            return handle.read(SIZE_MAX + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read", context=str(error.strerror)) from None


def _as_dict(one: Placed) -> dict[str, Any]:
    return {
        "where": one.running.where,
        "image": one.running.image,
        "digests": list(one.running.digests),
        "base": one.ref or None,
        "base_digest": one.digest or None,
        "found_by": one.by or None,
        "states": list(one.states),
        "fixed_by_replacement": list(one.fixed),
        "instead": one.instead or None,
    }


def _show(found: tuple[Placed, ...]) -> None:
    from builder.report import emit, table
    from registry.inventory.bases import counted

    rows = []
    for one in found:
        fixed = ", ".join(one.fixed[:_SHOWN]) + (
            f" and {len(one.fixed) - _SHOWN} more" if len(one.fixed) > _SHOWN else ""
        )
        base = f"{one.ref} ({one.by})" if one.ref else "none of ours"
        rows.append(
            [
                one.running.where,
                one.running.image,
                base,
                ", ".join(one.states) or "current",
                fixed,
                one.instead,
            ]
        )
    table("What runs", ("where", "image", "base", "state", "mended by moving", "run on"), rows)
    emit(f"{len(found)} running: " + ", ".join(f"{n} {state}" for state, n in counted(found).items()))
