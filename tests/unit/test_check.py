"""The check stage without a real engine: nothing that was not seen counts as passed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.checks.probe import RULES, judge_probe
from builder.errors import RegistryError, ToolError
from builder.model.definition import ChecksDefinition
from builder.model.evidence import Outcome
from builder.model.image import PlatformImage
from builder.oci.layout import blob_path, create_layout
from builder.stages.check import check
from builder.store import Store
from builder.tools import container
from builder.tools.container import Observation, loaded
from builder.tools.docker_engine import Engine
from builder.tools.dockerd import NoEngine
from tests.support.images import add_layer, platform_image, target

ENGINE = Engine("unix:///nowhere.sock", "26.1.5", "ID", "system")
ZEROES = "0" * 16
SEEN = {
    "Uid": "65532",
    "Gid": "65532",
    "CapInh": ZEROES,
    "CapPrm": ZEROES,
    "CapEff": ZEROES,
    "CapBnd": ZEROES,
    "CapAmb": ZEROES,
    "NoNewPrivs": "1",
    "Interface": "lo",
    "Zurich": "+0200",
    "NewYork": "-0500",
    "Certificates": "140",
    "Verified": "/etc/ssl/certs/ca-certificates.crt: OK",
    "End": "probe",
}


@pytest.fixture
def image(tmp_path: Path) -> PlatformImage:
    layout = create_layout(tmp_path / "layout")
    return platform_image(layout, [add_layer(layout, {"etc/passwd": b"root::0:0::/:/bin/sh\n"})])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "state").create()


def _probe_output(changes: Mapping[str, str | None]) -> Observation:
    lines = [f"{k}: {v}" for k, v in {**changes, **SEEN, **changes}.items() if v is not None]
    return Observation(0, ("\n".join(lines) + "\n").encode(), b"")


def _no_probe() -> Path:
    raise AssertionError("the probe is not needed without an engine")


def test_without_an_engine_every_container_check_says_not_run_and_why(
    image: PlatformImage, store: Store
) -> None:
    commands = (
        {"name": "it runs", "run": ("/bin/x",)},
        {"name": "dev only", "run": ("/x",), "variants": ("dev",)},
    )
    checks = ChecksDefinition.model_validate({"schema": 1, "commands": commands})
    error = NoEngine(
        "no rights to use the container engine",
        context="unix:///own: no such socket\nunix:///x: permission denied",
    )
    report = check(replace(target(), checks=checks), image, error, _no_probe, store)
    not_run = {r.id: r.detail for r in report.results if r.outcome is Outcome.NOT_RUN}
    assert list(not_run) == [*(r.id for r in RULES), "command:it-runs"]
    assert all("no rights" in d and "permission denied" in d for d in not_run.values())
    assert report.digest == image.manifest.digest
    failed = {r.id for r in report.results if r.outcome is Outcome.FAILED}
    assert {"accounts-locked", "ca-bundle", "os-release", "time-zones"} <= failed


def test_an_engine_that_fails_makes_checks_not_run(
    image: PlatformImage, store: Store, tmp_path: Path
) -> None:
    away = replace(ENGINE, host=f"unix://{tmp_path}/away.sock")
    report = check(target(), image, away, lambda: tmp_path, store)
    assert [r.outcome for r in report.results if r.id == "locked-down"] == [Outcome.NOT_RUN]


def test_a_probe_that_cannot_be_made_makes_checks_not_run(image: PlatformImage, store: Store) -> None:
    def folder() -> Path:
        raise ToolError("package dash is not in the pool")

    report = check(target(), image, ENGINE, folder, store)
    assert "dash" in next(r.detail for r in report.results if r.id == "locked-down")


def test_a_candidate_whose_manifest_names_other_content_is_refused(
    image: PlatformImage, store: Store
) -> None:
    other = platform_image(image.layout, [add_layer(image.layout, {"hello": b"x"})])
    for mixed in (replace(image, config=other.config), replace(image, layers=other.layers)):
        with pytest.raises(ToolError, match="other content"):
            check(target(), mixed, NoEngine("none"), _no_probe, store)


def test_an_altered_layer_is_refused(image: PlatformImage, store: Store) -> None:
    path = blob_path(image.layout, image.layers[0].blob.digest)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises((RegistryError, ToolError)):
        check(target(), image, NoEngine("none"), _no_probe, store)


class _FakeApi:
    def __init__(self, identifier: str) -> None:
        self.identifier, self.removed = identifier, list[str]()

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        return [
            {"Id": "old", "Labels": {"dev.goldsmith.pid": "1"}},
            {"Id": "ours", "Labels": {"dev.goldsmith.pid": str(container.os.getpid())}},
        ]

    def images(self, **_: Any) -> list[dict[str, Any]]:
        return []

    def inspect_image(self, name: str) -> dict[str, str]:
        from docker.errors import ImageNotFound

        if name.startswith("sha256:"):
            raise ImageNotFound("not here")
        return {"Id": self.identifier}

    def load_image(self, data: Any, quiet: bool) -> Iterator[dict[str, str]]:
        data.read()
        return iter(())

    def remove_container(self, name: str, **_: Any) -> None:
        self.removed.append(name)

    def remove_image(self, name: str, **_: Any) -> None:
        self.removed.append(name.split("/", maxsplit=1)[0][:15])


class _FakeClient:
    def __init__(self, identifier: str) -> None:
        self.api = _FakeApi(identifier)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("which", ["manifest", "config", "other"])
def test_only_the_candidates_own_id_is_accepted(
    image: PlatformImage, store: Store, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    ids = {"manifest": image.manifest.digest, "config": image.config.digest, "other": "sha256:" + "0" * 64}
    client = _FakeClient(ids[which])
    monkeypatch.setattr(container, "connect", lambda *_: client)
    if which == "other":
        with pytest.raises(ToolError, match="another image"), loaded(image, ENGINE, store):
            pass
    else:
        with loaded(image, ENGINE, store):
            pass
    # What a killed run left is gone, and so is the image; the containers of this run are not touched.
    assert client.api.removed == ["old", "goldsmith-check"]


def test_the_probes_answers_pass() -> None:
    assert {r.outcome for r in judge_probe(_probe_output({}))} == {Outcome.PASSED}


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"Uid": "0"}, {"locked-down"}),
        ({"CapBnd": "00000000a80425fb"}, {"locked-down"}),
        ({"CapEff": None}, {"locked-down"}),
        ({"NoNewPrivs": "0"}, {"locked-down"}),
        ({"Writable": "/etc"}, {"locked-down"}),
        ({"Interface": "eth0"}, {"locked-down"}),
        ({"Interface": None}, {"locked-down"}),
        ({"Certificates": ""}, {"ca-bundle-works"}),
        ({"Certificates": "3"}, {"ca-bundle-works"}),
        ({"Verified": "error"}, {"ca-bundle-works"}),
        ({"Zurich": "+0000"}, {"time-zones-work"}),
        ({"NewYork": None}, {"time-zones-work"}),
        ({"End": None}, {r.id for r in RULES}),
    ],
)
def test_each_answer_counts(changes: Mapping[str, str | None], failed: set[str]) -> None:
    assert {r.id for r in judge_probe(_probe_output(changes)) if r.outcome is Outcome.FAILED} == failed


@pytest.mark.parametrize(
    "seen",
    [Observation(0, b"", b""), Observation(None, b"", b"", "too slow"), Observation(0, b"\xff\n", b"")],
)
def test_a_probe_without_an_answer_passes_nothing(seen: Observation) -> None:
    assert {r.outcome for r in judge_probe(seen)} == {Outcome.FAILED}
