"""Import, promote, export and import again, with the real Trivy and real registries; skopeo and oras read it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from zstandard import ZstdCompressor

from builder.settings import Settings
from registry.storage import service
from tests.support.debian import PACKAGES, debian_files
from tests.support.evidence import PASSPHRASE
from tests.support.foreign import Foreign, described, docker_archive, write_layout
from tests.support.images import layer_tar
from tests.support.oracles import foreign, program
from tests.support.ports import free_address
from tests.support.requires import tool
from tests.support.vulndb import sample_database

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
ABOUT = ("--owner", "team-data", "--end-of-life", "2040-01-01", "--why", "the shop needs it")
# Without the openssl that the sample database knows to be vulnerable.
SOUND = tuple(p for p in PACKAGES if p.source != "openssl")
ACCOUNTS = {"etc/passwd": b"app:x:1000:1000::/:/bin/sh\n"}


@dataclass
class Site:
    """One side: a state directory, a registry on loopback, and the command line."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    address: str = ""

    def settings(self) -> Settings:
        return Settings.load(self.environment(), directory=self.folder, needs_catalogue=False)

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "GOLDSMITH_STATE": str(self.folder / "state"),
            "GOLDSMITH_REGISTRY": self.address,
            "GOLDSMITH_KEY_PASSPHRASE": PASSPHRASE,
            **self.extra,
        }

    def run(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "builder", *map(str, arguments)],
            cwd=self.folder / "catalogue",
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)


def site(folder: Path, **extra: str) -> Site:
    (folder / "catalogue").mkdir(parents=True)
    address = free_address()
    made = Site(folder, extra, address)
    service.up(made.settings())
    return made


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The side that reaches the world, with keys, a catalogue, and the sample database."""
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("ours")
    made = site(folder, GOLDSMITH_TRIVY_DB=str(sample_database(folder)))
    for name in ("images", "templates"):
        shutil.copytree(ROOT / name, folder / "catalogue" / name)
    (folder / "catalogue" / "policies").mkdir()
    ask_for_approvals(made, 0)
    try:
        made.run("init")
        yield made
    finally:
        service.down(made.settings())


def ask_for_approvals(here: Site, count: int) -> None:
    """The policy for imports, content with the sample database, and with so many approvals."""
    policy = yaml.safe_load((ROOT / "registry" / "policies" / "import.yaml").read_text())
    policy["database"] = {"age_days_max": 36500, "sample": "accept"}
    policy["approvals"] = dict.fromkeys(policy["approvals"], count)
    (here.folder / "catalogue" / "policies" / "import.yaml").write_text(yaml.safe_dump(policy))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A closed network: a registry and nothing else; no keys, no catalogue."""
    tool("docker-registry")
    made = site(tmp_path_factory.mktemp("theirs"))
    try:
        yield made
    finally:
        service.down(made.settings())


@pytest.fixture(scope="module")
def stable(ours: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An image of two platforms, one packed with gzip and one with zstd, imported and promoted."""
    files = {**debian_files(SOUND), **ACCOUNTS}
    layers = [layer_tar(files), layer_tar({"app": b"x"})]
    packed = [ZstdCompressor().compress(layer) for layer in layers]
    zstd = {"layers": [described(x, "application/vnd.oci.image.layer.v1.tar+zstd") for x in packed]}
    platforms = [
        Foreign(layers),
        Foreign(layers, architecture="arm64", packed=packed, manifest=zstd),
    ]
    layout = write_layout(tmp_path_factory.mktemp("upstream") / "layout", *platforms)
    done = ours.json("import", layout, "--as", "upstream:1.0", *ABOUT)
    assert done["channel"] == "quarantine"
    ask_for_approvals(ours, 1)
    (waits,) = ours.json("approvals", "upstream")
    assert (waits["ref"], waits["missing"], waits["error"]) == ("upstream:1.0", 1, "")
    ask_for_approvals(ours, 0)
    promoted = ours.json("promote", f"upstream@{done['digest']}", "--why", "looked at")
    assert promoted["ref"] == "upstream:1.0"
    return dict(done)


def test_the_real_scanner_and_registry_take_an_image_to_stable(ours: Site, stable: dict[str, Any]) -> None:
    found = ours.json("verify", f"{ours.address}/upstream:1.0", "--accept-sample")
    assert (found["digest"], found["channel"]) == (stable["digest"], "stable")
    assert found["verdict"]["policy"] == "import"
    assert {m["platform"] for m in found["manifests"]} == {None, "linux/amd64", "linux/arm64"}
    actions = [e["what"] for e in ours.json("audit", "--ref", "upstream")]
    assert actions == ["import", "release", "promote"]


def test_a_vulnerable_archive_is_denied_with_the_reason(ours: Site, tmp_path: Path) -> None:
    one = Foreign([layer_tar({**debian_files(), **ACCOUNTS})])
    denied = ours.run("import", docker_archive(tmp_path / "x.tar", one), "--as", "bad:1.0", *ABOUT, code=4)
    assert "CVE-2025-15467" in denied.stderr
    assert "libssl3t64" in denied.stderr
    lines = [
        json.loads(x) for x in (ours.folder / "state" / "run" / "imports.jsonl").read_text().splitlines()
    ]
    assert (lines[-1]["as"], lines[-1]["outcome"], lines[-1]["reason"]) == (
        "bad:1.0",
        "refused",
        "import-denied",
    )


def test_an_image_that_trivy_does_not_know_is_refused(ours: Site, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", Foreign([layer_tar({"app": b"x"})]))
    refused = ours.run("import", layout, "--as", "scratch:1.0", *ABOUT, code=5)
    assert "no such operating system" in refused.stderr


def test_a_package_that_the_scanner_does_not_see_is_found(ours: Site, tmp_path: Path) -> None:
    """A database that is cut off: the scanner says nothing, the comparison does."""
    files = {**debian_files(SOUND), **ACCOUNTS}
    files["var/lib/dpkg/status.d/zlib1g"] = b"Package: zlib1g\nStatus: install ok installed\nVersion: \n"
    layout = write_layout(tmp_path / "layout", Foreign([layer_tar(files)]))
    assert "scanner-comparable" in ours.run("import", layout, "--as", "cut:1.0", *ABOUT, code=4).stderr


def test_a_closed_network_gets_it_with_public_keys_alone(
    ours: Site, theirs: Site, stable: dict[str, Any], tmp_path: Path
) -> None:
    bundle, keys = tmp_path / "bundle.tar", tmp_path / "keys"
    exported = ours.json("export", "upstream:1.0", "--to", bundle, "--accept-sample")
    assert [i["digest"] for i in exported["images"]] == [stable["digest"]]
    keys.mkdir()
    for name in ("builder.pub", "verdict.pub"):
        shutil.copy(ours.folder / "state" / "keys" / name, keys)
    arguments = ("import", bundle, "--bundle", "--trust", keys, "--accept-sample")
    refused = theirs.json(*arguments[:-1], code=4)
    assert refused["images"][0]["refused"]["error"] == "sample-database"
    assert theirs.json(*arguments)["images"][0]["outcome"] == "imported"
    found = theirs.json("verify", f"{theirs.address}/upstream:1.0", "--trust", keys, "--accept-sample")
    assert (found["digest"], found["channel"]) == (stable["digest"], "stable")


def test_skopeo_and_oras_read_the_bundle(ours: Site, stable: dict[str, Any], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    ours.run("export", "upstream:1.0", "--to", bundle, "--accept-sample")
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}

    def ask(*argv: str | Path) -> str:
        done = subprocess.run(
            [str(a) for a in argv], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    skopeo = foreign("skopeo", "trixie")
    raw = ask(*skopeo, "inspect", "--raw", f"oci:{bundle}:upstream:1.0")
    assert len(json.loads(raw)["manifests"]) == 2
    ask(
        *skopeo,
        "copy",
        "--all",
        "--insecure-policy",
        f"oci:{bundle}:upstream:1.0",
        f"dir:{tmp_path / 'copy'}",
    )
    oras = program("oras", "trixie")
    found = json.loads(
        ask(oras, "discover", "--oci-layout", "--format", "json", f"{bundle}@{stable['digest']}")
    )
    kinds = [r["artifactType"] for r in found.get("referrers", found.get("manifests", []))]
    assert kinds.count("application/vnd.dev.sigstore.bundle.v0.3+json") >= 4
