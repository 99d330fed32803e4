"""`goldsmith run` as a user meets it: faults, kills and refusals; nothing is ever half-published."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.oci.client import RegistryClient
from tests.integration.conftest import ROOT, Checkout
from tests.support.ports import free_address
from tests.support.requires import tool
from tests.support.vulndb import sample_database

pytestmark = pytest.mark.integration
STAGES = ("fetch", "unpack", "build", "normalise", "scan", "judge", "sign", "publish")


@pytest.fixture(scope="module")
def line(today: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout with keys, a registry, an engine and the sample database: ready to run."""
    tool("docker-registry")
    address = free_address()
    database = sample_database(tmp_path_factory.mktemp("database"))
    environment = {
        **today.environment,
        "GOLDSMITH_REGISTRY": address,
        "GOLDSMITH_TRIVY_DB": str(database),
        "GOLDSMITH_POLICY": "demo",
    }
    checkout = replace(today, environment=environment)
    checkout.goldsmith("init")
    checkout.goldsmith("up", "--no-registry")
    checkout.open_registry()
    yield checkout
    checkout.goldsmith("down")


@pytest.fixture
def registry(line: Checkout) -> RegistryClient:
    return RegistryClient(line.environment["GOLDSMITH_REGISTRY"])


def forget(checkout: Checkout, *kinds: str) -> None:
    """Make the next run do its work again."""
    for kind in kinds or ("built", "released"):
        shutil.rmtree(checkout.state / "records" / kind, ignore_errors=True)


def tags(registry: RegistryClient, name: str = "candidate/base") -> dict[str, str]:
    found = {t: registry.head_manifest(registry.reference(name, t)) for t in registry.tags(name)}
    return {t: str(d.digest) for t, d in found.items() if d and not t.startswith("sha256-")}


def images(checkout: Checkout, *arguments: str) -> dict[str, dict]:
    done = checkout.goldsmith("run", "--json", *arguments)
    return {i["ref"]: i for i in json.loads(done.stdout)["images"]}


def start(checkout: Checkout, *arguments: str) -> subprocess.Popen[str]:
    # What was begun in the background of a shell ignores Ctrl-C, and so would its children.
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "builder", "run", *arguments],
        cwd=checkout.catalogue,
        env={**checkout.environment, "PYTHONPATH": str(ROOT), "GOLDSMITH_STATE": str(checkout.state)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(child: subprocess.Popen[str], stage: str) -> None:
    """Read the progress until `stage` has ended; the next one is under way then."""
    assert child.stderr is not None
    for text in child.stderr:
        if stage in text.split():
            return
    raise AssertionError(f"the run ended before {stage}")


def test_both_images_reach_the_registry_verified(line: Checkout, registry: RegistryClient) -> None:
    forget(line)
    found = images(line)
    assert [(i["outcome"], i["approved"]) for i in found.values()] == [("built", True), ("built", True)]
    for ref, image in found.items():
        assert (
            json.loads(line.goldsmith("verify", ref, "--accept-sample", "--json").stdout)["digest"]
            == image["digest"]
        )
    assert tags(registry, "candidate/python")["3.13"] == found["python:3.13"]["digest"]


def test_an_unchanged_run_does_nothing(line: Checkout, registry: RegistryClient) -> None:
    images(line)
    before = tags(registry)
    again = images(line)
    assert {i["outcome"] for i in again.values()} == {"unchanged"}
    assert all(not i["stages"] for i in again.values())
    assert tags(registry) == before


def test_a_denied_image_is_judged_again_and_not_looked_at_again(line: Checkout) -> None:
    """Its policy takes no sample database: real reports, read back, are the same for the judge."""
    demo = (ROOT / "registry" / "policies" / "demo.yaml").read_text()
    policies = line.catalogue / "policies"
    policies.mkdir(exist_ok=True)
    text = demo.replace("name: demo", "name: no-sample").replace("sample: accept", "sample: refuse")
    (policies / "no-sample.yaml").write_text(text)
    strict = replace(line, environment={**line.environment, "GOLDSMITH_POLICY": "no-sample"})

    def run() -> dict:
        (image,) = json.loads(strict.goldsmith("run", "--json", "base", ok=False).stdout)["images"]
        assert not image["approved"]
        return image

    first, second = run(), run()
    assert {"check", "scan"} <= set(first["stages"])
    assert set(second["stages"]) == {"judge"}
    assert [second[k] for k in ("digest", "explanation", "findings")] == [
        first[k] for k in ("digest", "explanation", "findings")
    ]


@pytest.fixture(scope="module")
def digest(line: Checkout) -> str:
    """The digest of base, published."""
    return str(images(line, "base")["base:13"]["digest"])


def unpublish(line: Checkout) -> None:
    """Take the image's repository away from the registry; the blobs themselves stay."""
    shutil.rmtree(
        line.state / "registry" / "docker" / "registry" / "v2" / "repositories" / "candidate" / "base",
        ignore_errors=True,
    )


def test_a_run_that_is_killed_after_any_stage_is_completed_by_the_next_ones(
    line: Checkout, registry: RegistryClient, digest: str
) -> None:
    unpublish(line)
    forget(line)
    for stage in ("start", *STAGES):
        child = start(line, "base")
        if stage != "start":
            wait_for(child, stage)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait(30)
        # Whatever was interrupted: a tag is not there, or it is the right one.
        assert set(tags(registry).values()) <= {digest}, stage
    assert images(line, "base")["base:13"]["digest"] == digest
    assert set(tags(registry).values()) == {digest}
    line.goldsmith("verify", "base:13", "--accept-sample")
    assert list((line.state / "tmp").iterdir()) == []


def test_a_blob_that_the_storage_spoils_moves_no_tag(
    line: Checkout, registry: RegistryClient, digest: str
) -> None:
    built = json.loads(line.goldsmith("build", "base", "--json").stdout)
    layer = built["platforms"]["linux/amd64"]["layers"][-1]["digest"].removeprefix("sha256:")
    blob = line.state / f"registry/docker/registry/v2/blobs/sha256/{layer[:2]}/{layer}/data"
    sound = blob.read_bytes()
    unpublish(line)
    blob.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    refused(line, 6, "other content than its digest says")
    assert tags(registry) == {}
    blob.write_bytes(sound)
    assert images(line, "base")["base:13"]["digest"] == digest
    assert set(tags(registry).values()) == {digest}


def test_a_user_without_rights_for_docker_builds_and_is_denied_for_that_reason(
    line: Checkout, digest: str
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # This Python may lie in a folder that is closed to others. Reading it takes the right to look
    # into folders, which is no right to write to the engine's socket.
    look = "+dac_read_search"
    nobody = (
        *(str(tool("setpriv")), "--reuid=65534", "--regid=65534", "--clear-groups"),
        *(f"--inh-caps=-all,{look}", f"--ambient-caps=-all,{look}"),
    )
    engine = json.loads(line.goldsmith("up", "--no-registry", "--json").stdout)["engine"]["host"]
    if not engine.startswith("unix://"):
        pytest.skip("the engine has no socket")
    # Not below pytest's own folders: those are closed to other users.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o711)
        for part in ("images", "templates"):
            shutil.copytree(line.catalogue / part, folder / "own" / "catalogue" / part)
        shutil.copytree(line.state / "pool", folder / "own" / "state" / "pool")
        database = shutil.copy(line.environment["GOLDSMITH_TRIVY_DB"], folder / "own")
        subprocess.run(["chown", "-R", "65534:65534", folder / "own"], check=True)
        settings = {"GOLDSMITH_TRIVY_DB": str(database), "DOCKER_HOST": engine, "HOME": "/nonexistent"}
        other = Checkout(
            folder / "own" / "catalogue", folder / "own" / "state", {**line.environment, **settings}
        )
        other.goldsmith("init", prefix=nobody)
        built = other.goldsmith("build", "base", "--engine", "direct", "--json", prefix=nobody)
        assert json.loads(built.stdout)["digest"] == digest
        ran = other.goldsmith("run", "base", "--engine", "direct", ok=False, prefix=nobody)
        assert ran.returncode == 4, ran.stderr
        for word in ("denied", "not run", "no rights"):
            assert word in ran.stderr, ran.stderr


def test_ctrl_c_ends_the_run_with_130_and_leaves_nothing(line: Checkout) -> None:
    forget(line)
    child = start(line, "base")
    wait_for(child, "unpack")
    os.killpg(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, "Traceback" in said) == (130, False)
    assert list((line.state / "tmp").iterdir()) == []


def test_a_second_run_on_the_same_state_is_refused_and_says_by_whom(line: Checkout) -> None:
    forget(line)
    child = start(line, "base")
    wait_for(child, "fetch")
    second = line.goldsmith("run", "base", ok=False)
    assert second.returncode == 1
    assert f"goldsmith run (pid {child.pid})" in second.stderr
    _, said = child.communicate(timeout=300)
    assert child.returncode == 0, said


def refused(line: Checkout, code: int, *words: str, **environment: str) -> str:
    """Run with a changed environment; it must end with `code`, say `words`, and publish nothing."""
    forget(line, "released")
    client = RegistryClient(line.environment["GOLDSMITH_REGISTRY"])
    before = tags(client)
    broken = replace(line, environment={**line.environment, **environment})
    done = broken.goldsmith("run", "base", ok=False)
    assert done.returncode == code, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert tags(client) == before
    return done.stderr


def test_without_an_engine_checks_are_not_run_and_the_verdict_denies(line: Checkout) -> None:
    said = refused(line, 4, "not run", DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert "denied" in said
    why = line.goldsmith("why", "base:13", ok=False)
    assert "not run" in why.stdout + why.stderr


def test_the_ordinary_policy_refuses_the_sample_database(line: Checkout) -> None:
    refused(line, 5, "days old", GOLDSMITH_POLICY="baseline")


def test_an_unknown_policy_is_named(line: Checkout) -> None:
    refused(line, 2, "strict", GOLDSMITH_POLICY="strict")


def test_a_registry_that_is_away_ends_with_6(line: Checkout) -> None:
    refused(line, 6, "127.0.0.1:1", GOLDSMITH_REGISTRY="127.0.0.1:1")


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ('[ "$1" = --version ] || [ "$1" = version ] && exec {trivy} "$@"\nexit 0\n', 5),
        ("exit 1\n", 5),
        ('[ "$1" = --version ] || [ "$1" = version ] && exec {trivy} "$@"\nkill -9 $$\n', 5),
    ],
    ids=["no-report", "broken", "killed"],
)
def test_a_scanner_that_does_not_scan_means_no_verdict(
    line: Checkout, tmp_path: Path, script: str, code: int
) -> None:
    from builder.tools.trivy import binary

    fake = tmp_path / "trivy"
    fake.write_text("#!/bin/sh\n" + script.replace("{trivy}", str(binary(None, os.environ))))
    fake.chmod(0o755)
    refused(line, code, "trivy", GOLDSMITH_TRIVY=str(fake))


def test_a_passphrase_that_is_wrong_signs_nothing(line: Checkout) -> None:
    refused(line, 2, "passphrase", GOLDSMITH_KEY_PASSPHRASE="another passphrase than that")


def test_inventory_finds_what_runs_on_our_images(line: Checkout, digest: str, tmp_path: Path) -> None:
    engine = json.loads(line.goldsmith("up", "--no-registry", "--json").stdout)["engine"]["host"]
    docker = [str(tool("docker")), "--host", engine]
    reference = f"{line.environment['GOLDSMITH_REGISTRY']}/candidate/base@{digest}"
    # The image has no program that waits; this machine's `sleep` lends itself, and is a layer on top.
    (tmp_path / "sleep").write_bytes(Path("/usr/bin/sleep").read_bytes())
    (tmp_path / "sleep").chmod(0o755)
    (tmp_path / "Dockerfile").write_text(f'FROM {reference}\nCOPY sleep /\nENTRYPOINT ["/sleep", "600"]\n')
    subprocess.run(
        [*docker, "build", "-q", "-t", "inventory-test", tmp_path], check=True, capture_output=True
    )
    started = []
    try:
        for image in ("inventory-test", reference):
            options = ["--volume", f"{tmp_path}/sleep:/sleep:ro", "--entrypoint", "/sleep"]
            ran = subprocess.run(
                [*docker, "run", "--detach", *options, image, "600"],
                check=True,
                capture_output=True,
                text=True,
            )
            started.append(ran.stdout.strip())
        done = line.goldsmith("inventory", "--docker", "--accept-sample", "--json", ok=False)
        assert done.returncode in (0, 4), done.stderr
        mine = [r for r in json.loads(done.stdout)["running"] if r["base_digest"] == digest]
        assert {(r["base"], r["found_by"]) for r in mine} == {("base:13", "digest"), ("base:13", "layers")}
    finally:
        subprocess.run([*docker, "rm", "--force", *started], check=True, capture_output=True)
        subprocess.run([*docker, "image", "rm", "inventory-test"], check=False, capture_output=True)
