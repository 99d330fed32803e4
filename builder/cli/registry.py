"""Commands for the storage registry: up, down, status, token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from registry.storage.service import Storage

_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    group = typer.Typer(help="The storage registry on this machine.", no_args_is_help=True)
    group.command("up")(up)
    group.command("down")(down)
    group.command("status")(status)
    group.command("token")(token)
    app.add_typer(group, name="registry")


def up(as_json: _Json = False) -> None:
    """Start the storage registry, unless it runs, and wait until it answers."""
    from builder.settings import Settings
    from registry.storage import service

    _tell(service.up(Settings.load(), closed=True), as_json)


def down(as_json: _Json = False) -> None:
    """Stop the storage registry that was started here; its data stays."""
    from builder.settings import Settings
    from registry.storage import service

    _tell(service.down(Settings.load()), as_json)


def status(as_json: _Json = False) -> None:
    """Say whether the storage registry runs."""
    from builder.settings import Settings
    from registry.storage import service

    _tell(service.status(Settings.load()), as_json)


def token(
    repository: Annotated[str, typer.Argument(help="The repository, such as candidate/python.")],
    as_json: _Json = False,
) -> None:
    """Print a token by which other clients read one repository of the storage, for five minutes."""
    from builder.errors import UsageError
    from builder.model.reference import Reference
    from builder.oci.auth import credentials_for
    from builder.oci.issuer import LIFE_SECONDS, Issuer
    from builder.report import emit, emit_json
    from builder.settings import Settings
    from builder.store import Store

    settings = Settings.load(needs_catalogue=False)
    try:
        name = Reference(settings.registry, repository).name
    except ValueError as error:
        raise UsageError(str(error)[:200], hint="such as candidate/python") from None
    login = credentials_for(Store(settings.state).credentials, settings.registry, writes=False)
    if not isinstance(login, Issuer):
        raise UsageError(f"there is no key for {settings.registry}", hint="goldsmith registry up")
    made = login.header(f"pull {name}").removeprefix("Bearer ")
    if as_json:
        emit_json({"registry": settings.registry, "repository": name, "token": made, "seconds": LIFE_SECONDS})
    else:
        emit(made)


def _tell(found: Storage, as_json: bool) -> None:
    from builder.report import emit, emit_json

    if as_json:
        emit_json(found.as_dict())
    elif found.pid is None:
        emit(f"not running (address {found.address}, data {found.data})")
    else:
        emit(f"{'started' if found.started else 'running'} on {found.address} (pid {found.pid})")
