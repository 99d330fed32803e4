"""The hardening rules for images that others made: what a policy may demand of them, by id.

Our own rules ask for what our templates do (uid 65532, no shell, our release's files). These ask
for what every image can be held to; the policy chooses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from builder.checks import hardening
from builder.checks.rule import Facts, Rule, odd_texts, result, told_history
from builder.model.evidence import CheckResult
from builder.oci.filesystem import FileSystem

WANTED = ("etc/passwd", "etc/shadow")
_ID_MAX = 2_000_000_000
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SIGNAL = re.compile(r"(SIG)?[A-Z0-9+-]{1,16}")
_KEYS_MAX = 200
_HEALTH_KEYS = {"Test", "Interval", "Timeout", "Retries", "StartPeriod", "StartInterval"}
# Commands that some tools run on the host when they are asked to: an image has no business there.
_HOST_LABELS = {"run", "install", "uninstall", "io.containers.autoupdate"}


def harden_import(
    files: FileSystem, document: Mapping[str, Any], wanted: Collection[str], added: Sequence[Rule] = ()
) -> tuple[CheckResult, ...]:
    """The results of the rules that are wanted; one that does not exist gives no result.

    `document` is the image's configuration, `added` are the checks of extensions, which come last.
    """
    facts = Facts(files, document.get("config") or {}, "runtime", "", told_history(document), imported=True)
    ours = tuple(
        result(identifier, title, failures(facts))
        for identifier, (title, failures) in RULES.items()
        if identifier in wanted
    )
    return (*ours, *(rule.judge(facts) for rule in added))


def _sound_configuration(facts: Facts) -> Iterator[str]:
    config = facts.config
    for key in ("Entrypoint", "Cmd", "Env", "Shell", "OnBuild"):
        values = config.get(key)
        if values is None:
            continue
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            yield f"{key} is not a list of texts"
        elif len(values) > _KEYS_MAX:
            yield f"{key} has more than {_KEYS_MAX} entries"
        elif key == "OnBuild" and values:
            yield "OnBuild would run commands in the builds of others"
        else:
            yield from odd_texts(key, ((v.partition("=")[0] or v, v) for v in values))
    for key in ("Volumes", "ExposedPorts"):
        values = config.get(key) or {}
        if not isinstance(values, dict) or len(values) > _KEYS_MAX or any(values.values()):
            yield f"{key} is not a set of names"
        else:
            yield from odd_texts(key, ((v, v) for v in values))
    yield from _labels(config.get("Labels") or {})
    folder, stop = config.get("WorkingDir") or "/", config.get("StopSignal") or "SIGTERM"
    if not isinstance(folder, str) or not folder.startswith("/") or ".." in folder.split("/"):
        yield "WorkingDir is not an absolute path"
    elif any(odd_texts("WorkingDir", [("", folder)])):
        yield "WorkingDir is no plain text"
    if not isinstance(stop, str) or not _SIGNAL.fullmatch(stop):
        yield "StopSignal is no signal"
    health = config.get("Healthcheck") or {}
    if not isinstance(health, dict) or set(health) - _HEALTH_KEYS:
        yield "Healthcheck is malformed"


def _labels(labels: object) -> Iterator[str]:
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        yield "Labels is not a mapping of texts"
        return
    if len(labels) > _KEYS_MAX:
        yield f"there are more than {_KEYS_MAX} labels"
    for name in sorted(set(map(str.lower, labels)) & _HOST_LABELS):
        yield f"the label {name} asks for commands on the host"
    yield from odd_texts("label", ((k, f"{k}={v}") for k, v in labels.items()))


def _user_known(facts: Facts) -> Iterator[str]:
    user = facts.config.get("User") or ""
    if not isinstance(user, str) or user.count(":") > 1:
        yield "User is no user"
        return
    for part, what in zip(user.split(":"), ("user", "group"), strict=False):
        if part.lstrip("-+").isdigit():
            if not part.isdigit() or len(part) > 10 or int(part) > _ID_MAX:
                yield f"the {what} id {part[:20]!r} is negative or too large"
        elif part and not _NAME.fullmatch(part):
            yield f"the {what} {part[:40]!r} is no name"
        elif part and what == "user" and part not in _accounts(facts.files):
            yield f"the user {part[:40]!r} is not in /etc/passwd"


def _non_root(facts: Facts) -> Iterator[str]:
    user = str(facts.config.get("User") or "").partition(":")[0]
    number = _accounts(facts.files).get(user, user)
    if not number.isdigit() or int(number) == 0:
        yield f"it runs as {user[:40]!r}" if user else "it runs as root: no user is set"


def _accounts(files: FileSystem) -> dict[str, str]:
    lines = (files.read("etc/passwd") or b"").decode("utf-8", "replace").splitlines()
    fields = [line.split(":") for line in lines]
    return {f[0]: f[2] for f in fields if len(f) > 3}


_SHARED = (
    "no-setuid",
    "no-world-writable",
    "no-file-capabilities",
    "no-devices",
    "no-histories",
    "no-shell",
    "no-package-manager",
)
RULES: Mapping[str, tuple[str, Callable[[Facts], Iterator[str]]]] = {
    "sound-configuration": (
        "The configuration holds only what it may, and plain texts",
        _sound_configuration,
    ),
    "user-known": ("The user is one that every engine understands alike", _user_known),
    "non-root": ("The image does not run as root", _non_root),
    **{r.id: (r.title, r.failures) for r in hardening.RULES if r.id in (*_SHARED, "accounts-locked")},
}
