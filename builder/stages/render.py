"""Render: definition and lock → build context. Pure: no clock, no network, no environment.

The template gives the Dockerfile; everything else in the context follows from the lock and
from `model/assembly.py`. The same input gives the same bytes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import DefinitionError, Problem
from builder.model import assembly
from builder.model.generated import DEV_COMMAND, DEV_ENVIRONMENT, NONROOT, for_platform, generated
from builder.model.image import BuildContext, ImageConfig, Target
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform

if TYPE_CHECKING:
    from builder.tools.template_sandbox import Sandbox

_TEMPLATE_MAX = 1 << 20  # bytes of one rendered file
_SCRIPT = "_partials/assemble.sh.j2"
_TITLES = {"runtime": "", "dev": ", to build with: a shell, apt and what compiles"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def render(
    target: Target,
    platform: Platform,
    lock: LockSection,
    templates: Path,
    inherited: Mapping[str, str],
    depth: int,
) -> BuildContext:
    """The build context of `target` on `platform`.

    `inherited` is the environment of the parent's configuration, empty without a parent;
    `depth` is the number of images below this one.
    Raises DefinitionError that names the template when it cannot be rendered.
    """
    config = image_config(target, inherited)
    entries = generated(target, platform, is_root=lock.parent is None)
    left_out = _left_out(target, platform)
    facts = {
        "image": {
            "ref": target.ref,
            "name": target.definition.name,
            "stream": target.stream_name,
            "variant": target.variant,
        },
        "platform": str(platform),
        "has_parent": depth > 0,
        "lock": lock,
        "config": config,
        "entries": entries,
        "without": left_out.paths,
        "keep": left_out.kept,
        "runs": target.stream.run,
        "aliases": assembly.usr_aliases(platform.architecture),
        "assembly": {
            name: value for name, value in vars(assembly).items() if name.isupper() and name[0] != "_"
        },
    }
    environment, template = _environment(templates), target.definition.template
    _refuse_unaccepted(environment, templates, template)
    dockerfile = _rendered(environment, templates, _dockerfile(template), facts)
    script = _rendered(environment, templates, _script(templates, template), facts)
    files = {
        "Dockerfile": dockerfile,
        "assemble/assemble.sh": script,
        "assemble/SHA256SUMS": "".join(f"{p.sha256}  {pool_name(p)}\n" for p in lock.packages).encode(),
        "assemble/packages": "".join(f"{pool_name(p)} {p.name}\n" for p in lock.packages).encode(),
        **{f"assemble/rootfs{e.path}": e.content for e in entries if e.kind == "file"},
    }
    return BuildContext(
        target.ref, platform, lock, files, entries, config, depth, left_out=left_out, runs=target.stream.run
    )


def used_templates(templates: Path, names: Iterable[str]) -> tuple[str, ...]:
    """The templates (paths below `templates`) that images of these templates are rendered from.

    With what they include and extend, what that includes, and what is kept of replaced blocks. One
    that says only when it is rendered what it includes may include any.
    Raises DefinitionError when one cannot be parsed.
    """
    from builder.tools.template_blocks import replaces_file, structure

    environment = _environment(templates)
    wanted = [(one, one, 0) for name in names for one in (_dockerfile(name), _script(templates, name))]
    found: dict[str, None] = {}
    while wanted:
        name, by, line = wanted.pop()
        if name in found:
            continue
        found[name] = None
        with _mistakes(templates, by, line):
            included = environment.referenced(name)
            extends = structure(environment, name).extends is not None
        if None in included:
            return tuple(sorted(environment.list_templates(extensions=["j2"])))
        wanted += [(one, name, at) for one, at in included.items() if one is not None]
        if extends and (templates / replaces_file(name)).is_file():
            found[replaces_file(name)] = None
    return tuple(sorted(found))


def template_problems(templates: Path) -> list[Problem]:
    """What is wrong with the blocks that the templates of a folder replace; they are read, not rendered."""
    from builder.tools.template_blocks import block_problems

    environment = _environment(templates)
    problems: list[Problem] = []
    for name in sorted(environment.list_templates(extensions=["j2"])):
        try:
            with _mistakes(templates, name):
                environment.referenced(name)
                problems += block_problems(environment, templates, [name])
        except DefinitionError as error:
            problems += error.problems
    return problems


def accept_replaced_blocks(templates: Path) -> list[str]:
    """Write down what the blocks that are replaced are now; returns the files of the catalogue that changed.

    Raises DefinitionError for a template that cannot be read.
    """
    from builder.tools.template_blocks import accept_blocks

    with _mistakes(templates, ""):
        return accept_blocks(_environment(templates), templates)


def pool_name(package: LockedPackage) -> str:
    """A package's file name in the context's `pool/`."""
    return f"{package.name}_{package.sha256[:16]}.deb"


def _left_out(target: Target, platform: Platform) -> assembly.LeftOut:
    stream = target.stream

    def here(paths: Iterable[str]) -> tuple[str, ...]:
        return tuple(for_platform(platform, path).lstrip("/") for path in paths)

    if target.variant == "dev":
        return assembly.LeftOut(here(stream.dev.without))
    return assembly.LeftOut(here(stream.without), here(stream.keep))


def image_config(target: Target, inherited: Mapping[str, str]) -> ImageConfig:
    """What a container of the image starts with; labels are derived, each fact once."""
    definition, stream = target.definition, target.stream
    entrypoint, command = stream.entrypoint, stream.command
    own = {**inherited, **stream.environment}
    if target.variant == "dev":
        own = {**DEV_ENVIRONMENT, **own, **stream.dev.environment}
        if stream.dev.entrypoint or stream.dev.command:
            entrypoint, command = stream.dev.entrypoint, stream.dev.command
        elif not entrypoint and not command:
            command = DEV_COMMAND
    environment = {"PATH": _PATH, **own}
    if definition.parent is None:
        environment.setdefault("SSL_CERT_FILE", "/" + assembly.CA_BUNDLE)
    labels = {
        "org.opencontainers.image.title": definition.title + _TITLES[target.variant],
        "org.opencontainers.image.ref.name": target.ref,
        "org.opencontainers.image.vendor": definition.owner,
        "org.opencontainers.image.version": target.stream_name,
        "dev.goldsmith.end-of-life": stream.end_of_life.isoformat(),
        "dev.goldsmith.variant": target.variant,
    }
    if definition.description and target.variant == "runtime":
        labels["org.opencontainers.image.description"] = definition.description
    if definition.licences:
        labels["org.opencontainers.image.licenses"] = definition.licences
    return ImageConfig(
        # Who builds with a dev image installs packages first, and that is for root.
        user="0:0" if target.variant == "dev" else f"{NONROOT}:{NONROOT}",
        environment=dict(sorted(environment.items())),
        entrypoint=entrypoint,
        command=command,
        working_directory=definition.working_directory,
        labels=dict(sorted(labels.items())),
    )


@lru_cache(maxsize=4)
def _environment(templates: Path) -> Sandbox:
    """The environment of one templates folder; it compiles each template once."""
    from builder.tools.template_sandbox import Sandbox

    filters = {
        "shell_quote": shlex.quote,
        "docker_quote": docker_quote,
        "json": lambda value: json.dumps(list(value), ensure_ascii=False),
    }
    return Sandbox(templates, filters)


def docker_quote(value: str) -> str:
    """A value as a double-quoted word of a Dockerfile, with nothing left to expand."""
    for special in ("\\", '"', "$"):
        value = value.replace(special, "\\" + special)
    return f'"{value}"'


def _dockerfile(template: str) -> str:
    return f"{template}.Dockerfile.j2"


def _script(templates: Path, template: str) -> str:
    """A template may have a script of its own, which extends that of all."""
    own = f"{template}.assemble.sh.j2"
    return own if (templates / own).is_file() else _SCRIPT


def _refuse_unaccepted(environment: Sandbox, templates: Path, template: str) -> None:
    from builder.tools.template_blocks import block_problems

    used = used_templates(templates, [template])
    with _mistakes(templates, _dockerfile(template)):
        problems = block_problems(environment, templates, used)
    if problems:
        raise DefinitionError(problems)


def _rendered(environment: Sandbox, templates: Path, name: str, facts: dict[str, Any]) -> bytes:
    with _mistakes(templates, name):
        return environment.rendered(name, facts, _TEMPLATE_MAX).encode()


@contextmanager
def _mistakes(templates: Path, name: str, at: int = 0) -> Iterator[None]:
    """What a template can do wrong, as a mistake in the catalogue."""
    from jinja2 import TemplateError, TemplateNotFound

    from builder.tools.template_sandbox import line_of

    try:
        yield
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        OSError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        SyntaxError,
    ) as error:
        file, line = line_of(error, templates) or (name, at)
        said, hint = str(error)[:500], "mend the template"
        if isinstance(error, TemplateNotFound):
            said, hint = f"there is no template {str(error.name)[:200]!r}", "see the files of templates/"
        elif isinstance(error, RecursionError):
            said = "it calls or includes itself without an end"
        problem = Problem(f"templates/{file}", f"line {line}" if line else "template", said, hint)
        raise DefinitionError([problem]) from None
