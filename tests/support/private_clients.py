"""Real clients of containers with their data in a folder of their own: containerd and dockerd."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from builder.store import Store
from builder.tools.dockerd import own_paths, start_own, stop_engine
from tests.support.oracles import program
from tests.support.requires import missing, tool

_SECONDS = 60
Client = Callable[..., subprocess.CompletedProcess[str]]


def root_only() -> None:
    """These daemons need root."""
    if os.geteuid() != 0:
        missing("only root can start a private daemon")


@contextmanager
def containerd(folder: Path) -> Iterator[tuple[Client, str]]:
    """A containerd; gives `ctr` on it, and its socket."""
    root_only()
    program, client = tool("containerd"), tool("ctr")
    config = folder / "config.toml"
    socket = Path("/run") / f"gs-{os.getpid()}.sock"  # a socket's path is short
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{socket}"\n'
    )

    def ctr(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [client, "--address", socket, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )

    with open(folder / "log", "wb") as log:
        daemon = subprocess.Popen([program, "--config", config], stdout=log, stderr=log)
    try:
        wait_until(lambda: ctr("version").returncode == 0 or daemon.poll() is not None)
        assert daemon.poll() is None, (folder / "log").read_text()[-2000:]
        yield ctr, str(socket)
    finally:
        daemon.terminate()
        daemon.wait(_SECONDS)
        for left in (socket, socket.with_name(socket.name + ".ttrpc")):
            left.unlink(missing_ok=True)


@contextmanager
def dockerd(folder: Path, environment: Mapping[str, str], hosts: str) -> Iterator[tuple[Client, str]]:
    """A dockerd with this environment that alone sees `hosts` as /etc/hosts; gives `docker` on it, and its address."""
    root_only()
    client = tool("docker")
    tool("dockerd")
    store = Store(folder / "state").create()
    (folder / "hosts").write_text(hosts)
    inner = folder / "inner.sh"
    inner.write_text(f'#!/bin/sh\nmount --bind {folder}/hosts /etc/hosts && exec "$@"\n')
    inner.chmod(0o755)
    prefix = (str(tool("unshare")), "--mount", "--propagation", "private", str(inner))
    address = own_paths(store).host

    def docker(*arguments: str | Path, host: str = address) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [client, "--host", host, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
        )

    start_own(store, prefix, environment, lambda host: docker("version", host=host).returncode == 0)
    try:
        yield docker, address
    finally:
        stop_engine(store, environment)


def podman(folder: Path, etc: Path) -> dict[str, str]:
    """A folder for PATH with a podman that keeps its data in `folder` and is configured by `etc`.

    It only pulls, so the programs that it would start containers with just say their names.
    """
    root_only()
    real = program("podman", "bookworm")
    bin_folder = folder / "bin"
    bin_folder.mkdir(parents=True)
    for name in ("conmon", "runc"):
        (bin_folder / name).write_text(f'#!/bin/sh\necho "{name} version 2.1.6"\n')
    (bin_folder / "podman").write_text(
        f"""#!/bin/sh
export CONTAINERS_REGISTRIES_CONF={etc}/containers/registries.conf
command=$1
shift
exec {real} --root {folder}/root --runroot {folder}/run --tmpdir {folder}/tmp --conmon {bin_folder}/conmon \\
  --runtime {bin_folder}/runc --storage-driver vfs --events-backend none \\
  "$command" --signature-policy {etc}/containers/policy.json "$@"
"""
    )
    for path in bin_folder.iterdir():
        path.chmod(0o755)
    return {"PATH": f"{bin_folder}:{os.environ['PATH']}"}


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds; fails after a minute."""
    ends = time.monotonic() + _SECONDS
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)
