"""buildah: what it is asked, what it may see, and what is left when it fails."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from builder.engines.assembler import host_platform
from builder.engines.buildah import BuildahEngine
from builder.errors import ToolError
from builder.model.lock import LockSection
from builder.stages.define import load_catalogue
from builder.stages.lock import builder_section
from builder.store import Store
from builder.tools import buildah
from tests.support.programs import program

# Like the real one, `unshare` runs what follows; a build tells what it was given and writes its tar.
_FAKE = """
if sys.argv[1:] == ["--version"]:
    print("buildah version VERSION (image-spec 1.1.0-rc2, runtime-spec 1.0.2-dev)")
    sys.exit()
if "build" not in sys.argv:
    rest = [x for x in sys.argv[sys.argv.index("unshare") + 1:]]
    while rest[0].endswith("unshare") or rest[0].startswith("--"):
        rest = rest[1:]
    os.execvp(rest[0], rest)
output = next(x for x in sys.argv if x.startswith("--output=")).rpartition("dest=")[2]
told = {"argv": sys.argv[1:], "environment": dict(os.environ)}
told["devices"] = [x.split(":")[0].strip() for x in open("/proc/net/dev").readlines()[2:]]
"""
_WRITES = "json.dump(told, open(output, 'w'))\n"


def _environment(folder: Path, body: str = _WRITES, version: str = "1.28.2") -> dict[str, str]:
    program(folder / "bin" / "buildah", _FAKE.replace("VERSION", version) + body)
    return {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", "HOME": "/root", "GOLDSMITH_SECRET": "x"}


def _build(folder: Path, environment: Mapping[str, str], seconds: float = 60) -> dict[str, object]:
    place = folder / "place"
    place.mkdir()
    found = buildah.locate(environment)
    output = folder / "out.tar"
    buildah.build_tar(found, folder, output, place, epoch=7, timeout_seconds=seconds)
    told: dict[str, object] = json.loads(output.read_text())
    return told


@pytest.fixture
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("namespaces without the real program take root")


@pytest.fixture
def assembler() -> LockSection:
    return builder_section(load_catalogue(Path(__file__).parents[2]), host_platform())


def test_where_it_is_missing_the_way_out_is_named() -> None:
    with pytest.raises(ToolError, match="not installed") as caught:
        buildah.locate({"PATH": "/nonexistent"})
    assert "apt-get install" in caught.value.hint and "--engine direct" in caught.value.hint


@pytest.mark.parametrize(
    ("version", "said"),
    [("1.19.6", "too old"), ("0.9", "too old"), ("of mine", "does not say"), ("", "does not say")],
)
def test_another_program_or_an_old_one_is_refused(tmp_path: Path, version: str, said: str) -> None:
    with pytest.raises(ToolError, match=said):
        buildah.locate(_environment(tmp_path, version=version))


def test_a_younger_one_is_taken(tmp_path: Path) -> None:
    assert buildah.locate(_environment(tmp_path, version="2.0.1")).version == "2.0.1"


def test_it_reaches_no_network_no_registry_and_nothing_of_the_host(tmp_path: Path, root: None) -> None:
    told = _build(tmp_path, _environment(tmp_path))
    assert told["devices"] == ["lo"]
    argv, place = told["argv"], str(tmp_path / "place")
    assert isinstance(argv, list)
    assert {f"--root={place}/root", f"--runroot={place}/run", "--pull-never", "--network=none"} <= set(argv)
    (policy,) = [x.partition("=")[2] for x in argv if x.startswith("--signature-policy=")]
    assert json.loads(Path(policy).read_text()) == {"default": [{"type": "reject"}]}
    seen = told["environment"]
    assert isinstance(seen, dict)
    assert "GOLDSMITH_SECRET" not in seen
    for name in (
        "HOME",
        "TMPDIR",
        "CONTAINERS_CONF",
        "CONTAINERS_STORAGE_CONF",
        "CONTAINERS_REGISTRIES_CONF",
    ):
        assert seen[name].startswith(place + "/")


def test_a_build_without_a_result_is_an_error(tmp_path: Path, root: None) -> None:
    with pytest.raises(ToolError, match="without a result"):
        _build(tmp_path, _environment(tmp_path, "sys.exit(0)"))


def test_what_it_says_is_in_the_error(tmp_path: Path, root: None) -> None:
    with pytest.raises(ToolError) as caught:
        _build(tmp_path, _environment(tmp_path, "sys.exit('Error: building at STEP \"RUN x\"')"))
    assert "building at STEP" in caught.value.context


def test_what_does_not_end_is_stopped_with_all_its_children(tmp_path: Path, root: None) -> None:
    """The child leaves its group and its session, as a step of a build does."""
    body = (
        "import subprocess\n"
        f"subprocess.Popen(['/bin/sh', '-c', 'exec 9>>{tmp_path}/held; flock 9; sleep 600'], start_new_session=True)\n"
        f"while not os.path.exists('{tmp_path}/held'): time.sleep(0.01)\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(ToolError, match="did not end"):
        _build(tmp_path, _environment(tmp_path, body), seconds=3)
    with open(tmp_path / "held", "a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # would wait for the child


def test_a_user_without_namespaces_is_told_what_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = _environment(tmp_path)
    program(tmp_path / "bin" / "chown", "sys.exit('chown: Invalid argument')")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ToolError, match="namespaces") as caught:
        buildah.prove(buildah.locate(environment), tmp_path)
    assert "Invalid argument" in caught.value.context
    assert "/etc/subuid" in caught.value.hint


def test_storage_of_killed_builds_goes_and_that_of_living_ones_stays(
    tmp_path: Path, root: None, assembler: LockSection
) -> None:
    store = Store(tmp_path / "state").create()
    with subprocess.Popen(["/bin/true"]) as child:
        ended = child.pid
    left, ours, theirs = (store.tmp / f"buildah-{pid}-abc" for pid in (ended, os.getpid(), os.getppid()))
    for place in (left, ours, theirs):
        (place / "root" / "vfs").mkdir(parents=True)
    engine = BuildahEngine(store, _environment(tmp_path), assembler)
    assert engine.program.version == "1.28.2"
    assert {x.name for x in store.tmp.iterdir()} == {ours.name, theirs.name}
