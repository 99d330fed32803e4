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
from typing import Any

from builder.errors import DefinitionError, Problem
from builder.model import assembly
from builder.model.generated import DEV_COMMAND, DEV_ENVIRONMENT, NONROOT, for_platform, generated
from builder.model.image import BuildContext, ImageConfig, Target
from builder.model.lock import LockedPackage, LockSection
from builder.model.platform import Platform

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
    left_out = target.stream.without if target.variant == "runtime" else ()
    without = tuple(for_platform(platform, path).lstrip("/") for path in left_out)
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
        "without": without,
        "runs": target.stream.run,
        "aliases": assembly.usr_aliases(platform.architecture),
        "assembly": assembly,
    }
    environment = _environment(templates)
    dockerfile = _rendered(environment, _dockerfile(target.definition.template), facts)
    script = _rendered(environment, _SCRIPT, facts)
    files = {
        "Dockerfile": dockerfile,
        "assemble/assemble.sh": script,
        "assemble/SHA256SUMS": "".join(f"{p.sha256}  {pool_name(p)}\n" for p in lock.packages).encode(),
        "assemble/packages": "".join(f"{pool_name(p)} {p.name}\n" for p in lock.packages).encode(),
        **{f"assemble/rootfs{e.path}": e.content for e in entries if e.kind == "file"},
    }
    return BuildContext(
        target.ref, platform, lock, files, entries, config, depth, without=without, runs=target.stream.run
    )


def used_templates(templates: Path, names: Iterable[str]) -> tuple[str, ...]:
    """The templates (paths below `templates`) that images of these templates are rendered from.

    With what they include, and what that includes; one that says only when it is rendered what it
    includes may include any. Raises DefinitionError when one cannot be parsed.
    """
    from jinja2 import meta

    environment = _environment(templates)
    wanted = [_SCRIPT, *(_dockerfile(name) for name in names)]
    found: dict[str, None] = {}
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        found[name] = None
        with _mistakes(name):
            source, _, _ = environment.loader.get_source(environment, name)
            included = set(meta.find_referenced_templates(environment.parse(source)))
        if None in included:
            return tuple(sorted(environment.list_templates(extensions=["j2"])))
        wanted += [one for one in included if one is not None]
    return tuple(sorted(found))


def pool_name(package: LockedPackage) -> str:
    """A package's file name in the context's `pool/`."""
    return f"{package.name}_{package.sha256[:16]}.deb"


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
def _environment(templates: Path) -> Any:
    """The environment of one templates folder; it compiles each template once."""
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(templates, followlinks=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    # A template sees the facts it is given, and nothing that could differ between two runs.
    environment.globals.clear()
    for name in ("random", "shuffle", "pprint", "urlize"):
        environment.filters.pop(name, None)
    environment.filters["shell_quote"] = shlex.quote
    environment.filters["docker_quote"] = docker_quote
    environment.filters["json"] = lambda value: json.dumps(list(value), ensure_ascii=False)
    return environment


def docker_quote(value: str) -> str:
    """A value as a double-quoted word of a Dockerfile, with nothing left to expand."""
    for special in ("\\", '"', "$"):
        value = value.replace(special, "\\" + special)
    return f'"{value}"'


def _dockerfile(template: str) -> str:
    return f"{template}.Dockerfile.j2"


def _rendered(environment: Any, name: str, facts: dict[str, Any]) -> bytes:
    with _mistakes(name):
        text: str = environment.get_template(name).render(**facts)
    data = text.encode()
    if len(data) > _TEMPLATE_MAX:
        raise DefinitionError([Problem(f"templates/{name}", "template", "it renders to more than 1 MiB")])
    return data


@contextmanager
def _mistakes(name: str) -> Iterator[None]:
    """What a template can do wrong, as a mistake in the catalogue."""
    from jinja2 import TemplateError, TemplateNotFound

    try:
        yield
    except TemplateNotFound as error:
        problem = Problem(
            f"templates/{error.name}", "template", "there is no such template", "see the files of templates/"
        )
        raise DefinitionError([problem]) from None
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        OSError,
        TypeError,
        ValueError,
        AttributeError,
    ) as error:
        line = getattr(error, "lineno", None)
        problem = Problem(
            f"templates/{name}", f"line {line}" if line else "template", str(error)[:500], "mend the template"
        )
        raise DefinitionError([problem]) from None
