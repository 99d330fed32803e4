"""A Trivy that is no Trivy: answers well unless it is told to misbehave in one way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from builder.model.image import PlatformImage
from builder.tools import trivy
from builder.tools.canary import CANARIES
from builder.tools.trivy import Trivy
from tests.support.programs import program

_BODY = """
here = os.path.dirname(os.path.abspath(__file__))
options = dict(a.split("=", 1) if "=" in a else (a, "") for a in sys.argv[2:])
command, output = sys.argv[1], options.get("--output")
if command == "--version":
    print("Version: 0.76.0")
    sys.exit()
with open(os.path.join(here, "calls.jsonl"), "a") as log:
    seen = {"argv": sys.argv[1:], "environment": dict(os.environ), "directory": os.listdir(".")}
    print(json.dumps(seen), file=log)
answer = json.load(open(os.path.join(here, "answers.json")))[options.get("--format") if command == "convert" else command]
if command == WHEN:
    MISBEHAVIOUR
if answer is not None:
    with open(output, "w") as out:
        json.dump(answer, out)
"""


def fake_trivy(folder: Path, image: PlatformImage, misbehave: str = "pass", when: str = "image") -> Trivy:
    """A fake whose answers fit `image`; `misbehave` is code that runs at its command `when`.

    The code may change `answer` (None writes nothing), write to `output`, or end the program.
    """
    folder.mkdir(parents=True, exist_ok=True)
    answers = {
        "image": report(image),
        "sbom": canary_report(),
        "cyclonedx": cyclonedx(image),
        "spdx-json": spdx(image),
    }
    (folder / "answers.json").write_text(json.dumps(answers))
    code = "\n    ".join(misbehave.splitlines())
    body = _BODY.replace("MISBEHAVIOUR", code).replace("WHEN", repr(when))
    return trivy.locate(str(program(folder / "trivy", body)), {"PATH": "/usr/bin:/bin"})


def calls(scanner: Trivy) -> list[dict[str, Any]]:
    """How the fake was called, in order: argv, environment, directory."""
    log = scanner.path.parent / "calls.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()]


def report(image: PlatformImage) -> dict[str, Any]:
    """Trivy's report of an image without findings."""
    return {
        "SchemaVersion": 2,
        "Trivy": {"Version": "0.76.0"},
        "ArtifactType": "container_image",
        "Metadata": {
            "OS": {"Family": "debian", "Name": "13.1"},
            "ImageID": image.config.digest,
            "DiffIDs": [layer.diff_id for layer in image.layers],
            "ImageConfig": {"created": "2026-03-01T12:00:00Z"},
        },
        "Results": [
            {
                "Target": "image",
                "Class": "os-pkgs",
                "Type": "debian",
                "Packages": [{"Name": p.name, "Version": p.version} for p in image.packages],
                "Vulnerabilities": [],
            }
        ],
    }


def finding(identifier: str = "CVE-2026-1", **changes: Any) -> dict[str, Any]:
    """One row of Vulnerabilities."""
    row = {
        "VulnerabilityID": identifier,
        "PkgName": "hello",
        "InstalledVersion": "2.10-5",
        "Status": "affected",
        "Severity": "LOW",
        "Title": "a flaw",
    }
    return {key: value for key, value in (row | changes).items() if value is not None}


def canary_report() -> dict[str, Any]:
    """Trivy's report of the canary."""
    canary = CANARIES["debian 13"]
    rows = [
        finding(name, PkgName=canary.package, InstalledVersion=canary.version)
        for name in canary.vulnerabilities
    ]
    results = [{"Class": "os-pkgs", "Vulnerabilities": rows}]
    return {"SchemaVersion": 2, "ArtifactType": "cyclonedx", "Metadata": {}, "Results": results}


def cyclonedx(image: PlatformImage) -> dict[str, Any]:
    """The CycloneDX document of an image."""
    return {
        "bomFormat": "CycloneDX",
        "components": [
            {
                "type": "library",
                "bom-ref": p.name,
                "name": p.name,
                "version": p.version,
                "purl": f"pkg:deb/debian/{p.name}@{p.version}",
            }
            for p in image.packages
        ],
    }


def spdx(image: PlatformImage) -> dict[str, Any]:
    """The SPDX document of an image."""
    return {
        "spdxVersion": "SPDX-2.3",
        "packages": [
            {
                "name": p.name,
                "versionInfo": p.version,
                "externalRefs": [
                    {"referenceType": "purl", "referenceLocator": f"pkg:deb/debian/{p.name}@{p.version}"}
                ],
            }
            for p in image.packages
        ],
    }
