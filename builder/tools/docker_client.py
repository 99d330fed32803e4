"""The `docker` program that can build with BuildKit on a given engine, and building with it.

The first `docker` in PATH may be a client without BuildKit. Each one is tried with a build of
one file, and the answer is remembered for this client and engine.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.store import Store
from builder.tools import process
from builder.tools.docker_engine import Engine

_PROOF_SECONDS = 60
_VERSION_SECONDS = 20
# As in a real build: an engine that cannot unpack a tar (in a plain chroot) builds nothing of ours.
_PROOF_DOCKERFILE = "FROM scratch\nADD marker.tar /\n"
_MODES = ("buildx", "buildkit")
_RECORD = "docker-client"
_SAID_MAX = 300  # characters of one client's complaint

INSTALL_HINT = (
    "install a client with BuildKit. Debian 12: apt-get install docker.io; "
    "Debian 13: apt-get install --no-install-recommends docker-cli docker-buildx"
)


@dataclass(frozen=True, slots=True)
class Combination:
    """A client and an engine that were seen to build together.

    `mode` is "buildx" (`docker buildx build`) or "buildkit" (`DOCKER_BUILDKIT=1 docker build`).
    """

    client: Path
    client_version: str
    mode: str
    engine: Engine

    def __str__(self) -> str:
        return f"{self.client} {self.client_version} ({self.mode}) with engine {self.engine.version}"


def find_combination(
    engine: Engine, store: Store, environment: Mapping[str, str], clients: tuple[Path, ...] | None = None
) -> Combination:
    """The first client in PATH that builds with BuildKit on `engine`.

    `clients` replaces those in PATH. Raises ToolError that tells what each of them said, and
    what to install.
    """
    complaints: list[str] = []
    for client in _distinct(clients if clients is not None else process.find_all("docker", environment)):
        key = _key(client, engine)
        known = store.record(_RECORD, key) or {}
        if known.get("mode") in _MODES:
            return Combination(client, str(known.get("version", ""))[:40], known["mode"], engine)
        version = _version(client, engine, environment)
        for mode in _MODES:
            combination = Combination(client, version, mode, engine)
            complaint = _prove(combination, store, environment)
            if complaint is None:
                store.remember(_RECORD, key, {"mode": mode, "version": version})
                return combination
            complaints.append(f"{client} {version} ({mode}): {complaint}")
    raise ToolError(
        "no docker client here can build with BuildKit" if complaints else "no docker client is installed",
        context="\n".join(complaints),
        hint=INSTALL_HINT,
        reference="docker-no-buildkit",
    )


def build_tar(
    combination: Combination,
    context: Path,
    output: Path,
    *,
    epoch: int,
    environment: Mapping[str, str],
    timeout_seconds: float,
    show: bool = False,
) -> None:
    """Build the folder `context` without a network; its root file system is written to `output`.

    `epoch` is SOURCE_DATE_EPOCH in seconds. Raises ToolError when the build fails or leaves no tar.
    """
    process.run_live(
        _command(combination, context, output, epoch),
        environment=_environment(combination, environment),
        timeout_seconds=timeout_seconds,
        show=show,
    )
    if not output.is_file() or output.stat().st_size == 0:
        raise ToolError("the build ended without a result", context=str(combination))


def _command(combination: Combination, context: Path, output: Path, epoch: int) -> list[str]:
    client = str(combination.client)
    # The default builder is the engine itself; another one would have to be pulled.
    if combination.mode == "buildx":
        head = [client, "buildx", "build", "--builder=default", "--provenance=false"]
    else:
        head = [client, "build"]
    return [
        *head,
        "--network=none",
        "--progress=plain",
        f"--build-arg=SOURCE_DATE_EPOCH={epoch}",
        f"--output=type=tar,dest={output}",
        str(context),
    ]


def _environment(combination: Combination, environment: Mapping[str, str]) -> dict[str, str]:
    return {
        **environment,
        "DOCKER_HOST": combination.engine.host,
        "DOCKER_BUILDKIT": "1",
        "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    }


def _distinct(clients: tuple[Path, ...]) -> Iterator[Path]:
    seen: set[Path] = set()
    for client in clients:
        real = client.resolve()
        if real not in seen:
            seen.add(real)
            yield client


def _key(client: Path, engine: Engine) -> Digest:
    stat = client.stat()
    return Digest.of_json(
        [str(client), stat.st_size, stat.st_mtime_ns, engine.id, engine.version, engine.host]
    )


def _version(client: Path, engine: Engine, environment: Mapping[str, str]) -> str:
    asked = process.run(
        [client, "--version"],
        environment={**environment, "DOCKER_HOST": engine.host},
        timeout_seconds=_VERSION_SECONDS,
        ok=range(-64, 256),
    )
    words = asked.text.replace(",", " ").split()
    return words[2][:40] if len(words) > 2 and words[0] == "Docker" else "of unknown version"


def _prove(combination: Combination, store: Store, environment: Mapping[str, str]) -> str | None:
    """None when the combination builds; otherwise what it said, on one line."""
    with store.scratch("docker-proof") as work:
        context = work / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(_PROOF_DOCKERFILE)
        (work / "marker").write_text("goldsmith")
        with tarfile.open(context / "marker.tar", "w") as tar:
            tar.add(work / "marker", "marker")
        output = work / "out.tar"
        try:
            process.run(
                _command(combination, context, output, 0),
                environment=_environment(combination, environment),
                timeout_seconds=_PROOF_SECONDS,
            )
            with tarfile.open(output) as tar:
                member = tar.extractfile("marker")
                if member is not None and member.read(100) == b"goldsmith":
                    return None
            return "its result is not what was built"
        except ToolError as error:
            said = (error.context.strip().splitlines() or [error.message])[0]
            no_plugin = combination.mode == "buildx" and said.startswith(("unknown", "docker: 'buildx'"))
            return "it has no buildx plug-in" if no_plugin else said[:_SAID_MAX]
        except (OSError, KeyError, tarfile.TarError) as error:
            return f"its result is no tar: {error}"[:_SAID_MAX]
