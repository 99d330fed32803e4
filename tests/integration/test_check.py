"""Checks in real containers: what must pass passes, and each kind of trouble is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from builder.checks.probe import RULES, judge_probe, probe_folder, probe_trial
from builder.model.definition import ChecksDefinition
from builder.model.evidence import Outcome
from builder.model.image import PlatformImage
from builder.oci.layout import create_layout
from builder.stages.check import check
from builder.store import Store
from builder.tools.container import Bench, Trial, loaded
from builder.tools.docker_engine import Engine, connect
from tests.support.engines import engine as an_engine
from tests.support.images import platform_image, target
from tests.support.rootfs import host_programs, layer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Store]]:
    with an_engine(tmp_path_factory.mktemp("engine")) as found:
        yield found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> PlatformImage:
    """A few programs of this machine, with the libraries they need."""
    layout = create_layout(tmp_path_factory.mktemp("image") / "layout")
    programs = host_programs("cat", "sleep", "yes", "env", "dash")
    return platform_image(layout, [layer(layout, programs)])


@pytest.fixture
def bench(running: tuple[Engine, Store], image: PlatformImage) -> Iterator[Bench]:
    with loaded(image, *running) as bench:
        yield bench


def test_exit_code_and_output(bench: Bench) -> None:
    seen = bench.run(Trial(("/usr/bin/env", "/usr/bin/cat", "/nothing"), 20))
    assert (seen.exit_code, seen.stdout, seen.problem) == (1, b"", "")
    assert b"No such file" in seen.stderr


def test_it_runs_locked_down(bench: Bench) -> None:
    status = bench.run(Trial(("/usr/bin/cat", "/proc/self/status"), 20)).stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["Uid"].split()[0] == fields["Gid"].split()[0] == "65532"
    assert fields["CapEff"] == fields["CapBnd"] == "0" * 16
    assert fields["NoNewPrivs"] == "1"
    interfaces = bench.run(Trial(("/usr/bin/cat", "/proc/net/dev"), 20)).stdout.decode().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    mounts = bench.run(Trial(("/usr/bin/cat", "/proc/mounts"), 20)).stdout.decode().splitlines()
    assert next(m for m in mounts if m.split()[1] == "/").split()[3].startswith("ro,")


def test_a_program_that_is_not_there_is_an_observation(bench: Bench) -> None:
    seen = bench.run(Trial(("/usr/bin/bash",), 20))
    assert seen.exit_code is None
    assert "cannot be started" in seen.problem


def test_a_slow_command_is_stopped(bench: Bench) -> None:
    assert "did not end within 1 s" in bench.run(Trial(("/usr/bin/sleep", "60"), 1)).problem


def test_too_much_output_is_cut(bench: Bench) -> None:
    loop = "i=0; while [ $i -lt 20000 ]; do echo 0123456789; i=$((i + 1)); done"
    assert "wrote more than" in bench.run(Trial(("/usr/bin/dash", "-c", loop), 20)).problem


def test_nothing_is_left_behind(running: tuple[Engine, Store], image: PlatformImage) -> None:
    engine, store = running
    client = connect(engine)
    other = replace(image)
    with pytest.raises(KeyboardInterrupt), loaded(other, engine, store) as bench:
        bench.run(Trial(("/usr/bin/cat", "/proc/self/status"), 20))
        raise KeyboardInterrupt
    label = {"label": "dev.goldsmith.check"}
    assert client.api.containers(all=True, filters=label) == []
    client.close()


def test_own_commands_pass_and_fail_by_what_they_show(
    running: tuple[Engine, Store], image: PlatformImage, probe: Path
) -> None:
    commands = [
        {"name": "right", "run": ("/usr/bin/env", "A=b"), "stdout_contains": "A=b"},
        {"name": "wrong output", "run": ("/usr/bin/env", "A=b"), "stdout": "A=c\n"},
        {"name": "wrong code", "run": ("/usr/bin/cat", "/nothing")},
        {"name": "expected code", "run": ("/usr/bin/cat", "/nothing"), "exit_code": 1},
        {"name": "not there", "run": ("/usr/bin/bash",)},
    ]
    checks = ChecksDefinition.model_validate({"schema": 1, "commands": tuple(commands)})
    report = check(replace(target(), checks=checks), image, running[0], lambda: probe, running[1])
    outcomes = {r.id: r.outcome for r in report.results if r.id.startswith("command:")}
    assert report.digest == image.manifest.digest
    assert outcomes == {
        "command:right": Outcome.PASSED,
        "command:wrong-output": Outcome.FAILED,
        "command:wrong-code": Outcome.FAILED,
        "command:expected-code": Outcome.PASSED,
        "command:not-there": Outcome.FAILED,
    }


def test_the_probe_sees_what_is_wrong(bench: Bench, probe: Path) -> None:
    results = {r.id: r for r in judge_probe(bench.run(probe_trial(probe)))}
    assert set(results) == {r.id for r in RULES}
    assert results["locked-down"].outcome is Outcome.PASSED, results["locked-down"].detail
    # The image has neither certificates nor time zones.
    assert results["ca-bundle-works"].outcome is Outcome.FAILED
    assert results["time-zones-work"].outcome is Outcome.FAILED


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe's folder, made of this machine's programs in place of the assembler's."""
    folder = tmp_path_factory.mktemp("assembler")
    folder.chmod(0o755)
    tar = folder / "root.tar"
    tar.write_bytes(layer_tar_of("dash", "date", "openssl"))
    return probe_folder(tar)


def layer_tar_of(*programs: str) -> bytes:
    from tests.support.rootfs import tar_of

    return tar_of(host_programs(*programs))
