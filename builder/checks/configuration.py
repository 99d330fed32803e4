"""Hardening rules about the configuration: who runs, what is said, how it was made."""

from __future__ import annotations

import re
from collections.abc import Iterator

from builder.checks.rule import DEV, Facts, Rule, odd_texts

NONROOT = 65532
_ID_MAX = 2_000_000_000
_HISTORY = re.compile(r"goldsmith: [a-z0-9][a-z0-9+.-]{0,99}")
_SECRET_NAME = re.compile(
    r"(^|_)(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)(_|$)"
)
# Names that hold the place of a secret, not the secret: PGPASSFILE, TOKEN_FILE …
_PLACE = re.compile(r"(_FILE|_PATH|_DIR|_URL|_TTL)$")
_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY|\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}"
    r"|\bglpat-[A-Za-z0-9_-]{20}|\bxox[abprs]-[0-9A-Za-z-]{10}|://[^/\s:@]{1,200}:[^/\s:@]{1,200}@"
)


def _not_root(facts: Facts) -> Iterator[str]:
    user = facts.config.get("User")
    # A dev image is for building, which starts with installing packages.
    allowed = ("0:0", f"{NONROOT}:{NONROOT}") if facts.variant == DEV else (f"{NONROOT}:{NONROOT}",)
    if user not in allowed:
        yield f"the configuration's user is {str(user)[:60]!r}"


def _plain_configuration(facts: Facts) -> Iterator[str]:
    config = facts.config
    for part in re.split(":", str(config.get("User") or "")):
        if part.isdigit() and int(part) > _ID_MAX:
            yield f"the user id {part[:20]} is too large"
    for key in ("Entrypoint", "Cmd", "Env"):
        values = config.get(key) or []
        if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
            yield f"{key} is not a list of strings"
        else:
            yield from odd_texts(key, ((v.partition("=")[0] or v, v) for v in values))
    labels = config.get("Labels") or {}
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        yield "Labels is not a mapping of strings"
    else:
        yield from odd_texts("label", ((k, f"{k}={v}") for k, v in labels.items()))
    for key in ("Volumes", "ExposedPorts", "Healthcheck", "OnBuild", "Shell"):
        if config.get(key):
            yield f"{key} is set, which no definition can ask for"


def _no_secrets(facts: Facts) -> Iterator[str]:
    for where, name, value in _texts(facts):
        shown = name[:60]
        if value and _SECRET_NAME.search(name.upper()) and not _PLACE.search(name.upper()):
            yield f"{where} {shown!r} has the name of a secret, and a value"
        elif _SECRET_VALUE.search(value[:65_536]):
            yield f"{where} {shown!r} holds what looks like a credential"


def _texts(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """(kind, name, value) of whatever the configuration says in words."""
    for entry in facts.config.get("Env") or []:
        name, _, value = str(entry).partition("=")
        yield "Env", name, value
    labels = facts.config.get("Labels")
    for name, value in labels.items() if isinstance(labels, dict) else ():
        yield "label", str(name), str(value)
    for key in ("Entrypoint", "Cmd"):
        for number, value in enumerate(facts.config.get(key) or []):
            yield key, f"[{number}]", str(value)
    for number, value in enumerate(facts.history):
        yield "history", f"[{number}]", value


def _plain_history(facts: Facts) -> Iterator[str]:
    if not facts.history:
        yield "the configuration has no history"
    for line in facts.history:
        if not _HISTORY.fullmatch(line):
            yield f"a layer was made by {line[:100]!r}"


RULES = (
    Rule(
        id="not-root",
        title="The image runs as uid 65532, or is for building",
        rationale="Root in a container is root on the host wherever one isolation fails; a number, unlike a "
        "name, can be checked by an orchestrator before it starts anything.",
        source="CIS Docker Benchmark 1.6.0, 4.1; NIST SP 800-190, 4.1.2",
        looks_at="configuration",
        failures=_not_root,
    ),
    Rule(
        id="plain-configuration",
        title="The configuration holds plain, short texts only",
        rationale="Labels and variables are printed, parsed and pasted by many tools: control characters and "
        "huge values attack those. Volumes, ports, triggers and health checks change how others run it.",
        source="OCI image specification 1.1, config.md; NIST SP 800-190, 4.1.2",
        looks_at="configuration",
        failures=_plain_configuration,
    ),
    Rule(
        id="no-secrets-in-configuration",
        title="No secret in variables, labels, commands or history",
        rationale="Whoever can pull an image reads its configuration; a secret there is published.",
        source="CIS Docker Benchmark 1.6.0, 4.10; NIST SP 800-190, 4.1.4",
        looks_at="configuration",
        failures=_no_secrets,
    ),
    Rule(
        id="plain-history",
        title="Layers come from locked packages, not from instructions that ran",
        rationale="`RUN apt-get update` alone freezes an old index, ADD fetches what nobody pinned. A "
        "layer of "
        "ours is a group of locked packages, and its history says which.",
        source="CIS Docker Benchmark 1.6.0, 4.7, 4.9 and 4.11",
        looks_at="history",
        failures=_plain_history,
    ),
)
