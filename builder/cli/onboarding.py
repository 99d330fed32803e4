"""Commands for an image that is not there yet: new (its folder), try (all stages on this machine)."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated

import typer

from builder.cli.images import Engines
from builder.errors import DefinitionError, GoldsmithError, PolicyDenied, UsageError

if TYPE_CHECKING:
    from builder.model.catalogue import Catalogue
    from builder.model.image import Target
    from builder.pipeline.trial import Tried
    from builder.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to the application."""
    app.command()(new)
    app.command("try")(try_image)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the new image is called.")],
    like: Annotated[str, typer.Option(metavar="IMAGE", help="The image of the catalogue to take after.")],
    owner: Annotated[
        str | None, typer.Option(help="Who answers for it. Default: git's user.name here.")
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="What it is. Default: as the model, with the name.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a complete image folder after an image that there is, and lock it."""
    from builder import scaffold
    from builder.cli.extending import open_catalogue
    from builder.report import emit, emit_json
    from builder.settings import Settings

    settings = Settings.load()
    catalogue = open_catalogue(settings)
    wish = scaffold.Wish(_free(name, catalogue), _model(like, catalogue), _owner(owner, settings), title)
    files = scaffold.scaffold(catalogue, wish)
    lock = _lock_of(catalogue, wish.model)
    scaffold.write_folder(catalogue.root / "images", name, {**files, **lock})
    locked, why = _locked(settings, name)
    notes = [
        f"images/{name}/README.md says what to fill in",
        f"images/{name}/image.yaml says all the same as that of {wish.model}: say what is other",
        *(f"images/{name}/{text}" for text in scaffold.lacking(catalogue.checks[wish.model])),
        *([] if locked else [f"goldsmith lock {name}: it is not locked yet ({why})"]),
    ]
    if wish.model in catalogue.waivers:
        notes.append(f"the waivers of {wish.model} were not taken over: each needs its own approval")
    if as_json:
        written = sorted((*files, *(["image.lock"] if locked else [])))
        emit_json({"image": name, "like": wish.model, "written": written, "locked": locked, "to_do": notes})
        return
    emit(f"images/{name} is written after {wish.model}" + (", and locked" if locked else ""))
    for note in notes:
        emit(f"  to do: {note}")
    emit(f"  then: goldsmith try {name}")


def _free(name: str, catalogue: Catalogue) -> str:
    from builder.model.definition import is_name

    if not is_name(name):
        hint = "lower-case letters and digits, in parts joined by single hyphens, at most 64 characters"
        raise UsageError(f"no image can be called {name[:80]!r}", hint=hint)
    if name in catalogue.definitions:
        raise UsageError(f"images/{name} is there already", hint="choose another name, or edit that one")
    return name


def _model(like: str, catalogue: Catalogue) -> str:
    if like in catalogue.definitions:
        return like
    near = difflib.get_close_matches(like, catalogue.definitions, 1)
    known = f"there are: {', '.join(sorted(catalogue.definitions))}"
    hint = f"did you mean {near[0]}?" if near else known
    raise UsageError(f"no image {like[:80]!r} in the catalogue to take after", hint=hint)


def _owner(owner: str | None, settings: Settings) -> str:
    from builder.tools.git import Git

    found = (owner or Git(settings.catalogue, settings.child_environment).user()).strip()
    if not found:
        raise UsageError("an image needs an owner, and git knows no user here", hint="say --owner TEAM")
    return found


def _lock_of(catalogue: Catalogue, model: str) -> dict[str, bytes]:
    """The model's lock, which holds for what asks for the same; none when it does not hold itself."""
    from builder.stages.lock import lock_path, locked_section
    from builder.store import read_file
    from builder.tools.strict_yaml import SIZE_MAX

    try:
        for target in catalogue.targets():
            if target.definition.name == model:
                for platform in target.platforms:
                    locked_section(catalogue, target, platform)
        return {"image.lock": read_file(lock_path(catalogue, model), 64 * SIZE_MAX)}
    except GoldsmithError:
        return {}


def _locked(settings: Settings, name: str) -> tuple[bool, str]:
    """Whether the new image is locked, or could be locked now; why not."""
    from builder.cli.extending import open_catalogue
    from builder.cli.locking import relock
    from builder.store import Store

    catalogue = open_catalogue(settings)
    if (catalogue.directory(name) / "image.lock").exists():
        return True, ""
    store = Store(settings.state)
    try:
        with store.exclusive("goldsmith new"):
            relock(catalogue, settings, store, [name], check=False)
    except GoldsmithError as error:
        return False, error.message
    return True, ""


def try_image(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="python, with all its streams; or python:3.13")
    ],
    only: Annotated[
        list[str] | None, typer.Option("--only", help="check, scan or lint: only that, without a verdict.")
    ] = None,
    engine: Engines = None,
    policy: Annotated[str | None, typer.Option(help="The policy that judges. Default: baseline.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build, check, scan and judge an image here; nothing is signed or published, no key is needed."""
    from builder.cli.releasing import ReleaseTools
    from builder.cli.wiring import Workshop
    from builder.pipeline.trial import EVIDENCE_STAGES, Trying
    from builder.report import Silent, emit_json, for_people

    try:
        workshop = Workshop.open()
    except DefinitionError as error:
        error.context += "\nagain: goldsmith lint"
        raise
    if strange := sorted({*(only or [])} - {*EVIDENCE_STAGES}):
        raise UsageError(
            f"there is no stage {strange[0][:50]!r} to ask for alone", hint="check, scan or lint"
        )
    targets = _targets(workshop.catalogue, image)
    tools = ReleaseTools(workshop, policy or workshop.settings.policy, workshop.settings.trivy_db)
    judged_by = tools.policy.name  # an unknown one is told before anything is built
    trying = Trying(
        workshop.builder(engine or ["direct"]),
        tools,
        tools.judge,
        workshop.store,
        Silent() if as_json else for_people(),
        workshop.settings.now,
        frozenset(only or []),
        "".join(f" --engine {name}" for name in engine or []) + (f" --policy {policy}" if policy else ""),
    )
    with workshop.store.exclusive(f"goldsmith try {image}"):
        tried = [trying.image(workshop.catalogue, target) for target in targets]
    if as_json:
        emit_json({"policy": judged_by, "images": [_as_dict(one, workshop.settings) for one in tried]})
    else:
        for one in tried:
            _show(one, workshop.settings)
    bad = [one.ref for one in tried if not one.good]
    if bad and as_json:
        raise typer.Exit(PolicyDenied.exit_code)
    if bad:
        hint = "mend what failed, and run the command after `again:`"
        raise PolicyDenied(f"{', '.join(bad)}: this would not be published", hint=hint)


def _targets(catalogue: Catalogue, image: str) -> list[Target]:
    found = [t for t in catalogue.targets() if image in (t.definition.name, t.ref)]
    return found or [catalogue.find(image)]  # which says what is near


def _as_dict(tried: Tried, settings: Settings) -> dict[str, object]:
    from builder.policy.explain import explain

    lines = explain(tried.verdict, settings.now) if tried.verdict else []
    return {**tried.as_dict(), "explanation": lines}


def _show(tried: Tried, settings: Settings) -> None:
    from builder.model.evidence import Outcome
    from builder.policy.explain import explain
    from builder.report import emit

    for stage in tried.stages:
        emit(f"{tried.ref}  {stage.name}: {stage.outcome}")
        for line in stage.said:
            emit(f"    {line}")
        if stage.outcome is not Outcome.PASSED:
            emit(f"    again: {stage.reproduce}")
    if tried.digest and not tried.verdict:
        emit(f"{tried.ref}  not judged: `goldsmith try {tried.ref}` asks the policy, too")
    if tried.verdict:
        emit("\n".join(explain(tried.verdict, settings.now)))
