"""The configurations with the real clients: what the public hub offers cannot be had."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.devcheck.clients import containerd as containerd_config
from registry.devcheck.clients import docker as docker_config
from registry.devcheck.clients import podman as podman_config
from registry.devcheck.clients.mirror import File, Mirror
from registry.devcheck.probe import HOSTS, prove, puller
from tests.support import private_clients
from tests.support.engines import environment
from tests.support.hub import REPO, hub
from tests.support.registry_simulator import Simulator, simulator
from tests.support.requires import tool

pytestmark = pytest.mark.integration


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Simulator]:
    with hub(tmp_path / "hub") as sim:
        yield sim


@pytest.fixture
def mirror() -> Iterator[Simulator]:
    with simulator() as sim:
        yield sim


def put(folder: Path, files: tuple[File, ...]) -> Path:
    for file in files:
        path = folder / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text)
    return folder / "etc"


def test_containerd_asks_the_mirror_only(tmp_path: Path, foreign: Simulator, mirror: Simulator) -> None:
    files = containerd_config.files(Mirror(mirror.address, "", ""))
    hosts = put(tmp_path / "config", files) / "containerd" / "certs.d"
    image = f"{foreign.address}/{REPO}:1"
    with private_clients.containerd(tmp_path) as (ctr, address):
        refused = ctr("content", "fetch", "--hosts-dir", hosts, image)
        assert refused.returncode != 0
        assert foreign.requests == []
        assert mirror.count("HEAD|GET", f"/v2/{REPO}/manifests/1") > 0
        where = {"CONTAINERD_ADDRESS": address}
        assert proven("containerd", mirror.address, image, where, hosts)
        without = ctr("content", "fetch", "--plain-http", image)
        assert without.returncode == 0, without.stderr
        nothing = tmp_path / "nothing"
        nothing.mkdir()
        assert not proven("containerd", mirror.address, image, where, nothing)


def proven(client: str, mirror: str, foreign: str, where: dict[str, str], hosts: Path = HOSTS) -> bool:
    """What `doctor --client` finds with the real client."""
    attempts = prove(client, mirror, [foreign], puller(client, {**environment(), **where}, hosts))
    print(*attempts, sep="\n")  # pytest shows it when the test fails
    return all(a.ok for a in attempts)


def skopeo(etc: Path | None, image: str, to: Path) -> subprocess.CompletedProcess[str]:
    settings = [] if etc is None else ["--policy", etc / "containers/policy.json"]
    settings += [] if etc is None else ["--registries-conf", etc / "containers/registries.conf"]
    settings += ["--insecure-policy"] if etc is None else []
    return subprocess.run(
        [tool("skopeo"), *settings, "copy", "--src-tls-verify=false", f"docker://{image}", f"dir:{to}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_containers_tools_take_nothing_from_elsewhere(
    tmp_path: Path, foreign: Simulator, mirror: Simulator
) -> None:
    etc = put(tmp_path / "config", podman_config.files_without_signatures(Mirror(mirror.address, "", "")))
    refused = skopeo(etc, f"{foreign.address}/{REPO}:1", tmp_path / "out")
    assert refused.returncode != 0
    assert "rejected by policy" in refused.stderr
    assert foreign.count("GET", "/blobs/") == 0
    public = skopeo(etc, "docker.io/library/hello:1", tmp_path / "out")
    assert public.returncode != 0
    assert mirror.count("GET", f"/v2/{REPO}/manifests/1") == 1
    without = skopeo(None, f"{foreign.address}/{REPO}:1", tmp_path / "out")
    assert without.returncode == 0, without.stderr


def test_the_containers_tools_take_what_the_mirror_has(tmp_path: Path, foreign: Simulator) -> None:
    """The hub in the place of the mirror: its own images pass the policy."""
    etc = put(tmp_path / "config", podman_config.files_without_signatures(Mirror(foreign.address, "", "")))
    assert skopeo(etc, f"{foreign.address}/{REPO}:1", tmp_path / "out").returncode == 0
    assert skopeo(etc, "docker.io/library/hello:1", tmp_path / "out2").stderr.count("rejected by policy") == 1


def test_podman_is_proven(tmp_path: Path, mirror: Simulator) -> None:
    etc = put(tmp_path / "config", podman_config.files_without_signatures(Mirror(mirror.address, "", "")))
    with tempfile.TemporaryDirectory(prefix="gs-") as short:  # podman wants a path of 50 characters
        pulls = private_clients.podman(Path(short), etc)
        assert proven("podman", mirror.address, "docker.io/library/hello:1", pulls)
        (etc / "containers" / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        assert not proven("podman", mirror.address, "docker.io/library/hello:1", pulls)


def test_docker_reaches_the_mirror_only(tmp_path: Path, foreign: Simulator, mirror: Simulator) -> None:
    """Names, since loopback addresses are never asked through a proxy: the engine alone resolves them."""
    hosts = "127.0.0.1 localhost hub.example mirror.example\n"
    port, own = (sim.address.rpartition(":")[2] for sim in (foreign, mirror))
    (file,) = docker_config.files(Mirror(f"mirror.example:{own}", "", ""))
    lines = [line for line in file.text.splitlines() if line.startswith("Environment=")]
    proxies = dict(line.removeprefix('Environment="').rstrip('"').partition("=")[::2] for line in lines)
    (tmp_path / "closed").mkdir()
    with private_clients.dockerd(tmp_path / "closed", {**environment(), **proxies}, hosts) as (
        docker,
        address,
    ):
        refused = docker("pull", f"hub.example:{port}/{REPO}:1")
        assert refused.returncode != 0
        assert "127.0.0.1:9" in refused.stderr  # the proxy that does not exist
        assert foreign.requests == []
        names = f"mirror.example:{own}", f"hub.example:{port}/{REPO}:1"
        assert proven("docker", *names, {"DOCKER_HOST": address})
        asked = docker("pull", f"mirror.example:{own}/{REPO}:1")
        assert asked.returncode != 0
        assert mirror.count("HEAD|GET", f"/v2/{REPO}/manifests/1") > 0
    (tmp_path / "open").mkdir()
    with private_clients.dockerd(tmp_path / "open", environment(), hosts) as (docker, address):
        without = docker("pull", f"hub.example:{port}/{REPO}:1")
        assert foreign.count("HEAD|GET", "/manifests/") > 0, without.stderr
        assert not proven("docker", *names, {"DOCKER_HOST": address})
