"""Running commands in locked-down containers of exactly one candidate image.

No shell, no network, no capabilities, no new privileges, read-only, uid 65532, with limits on
processes, memory, time and output. Containers and the loaded image are removed at the end,
after Ctrl-C too; what a killed run left behind is removed by the next one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.errors import ToolError
from builder.model.digest import Digest
from builder.model.image import PlatformImage
from builder.oci.archive import save_archive
from builder.store import Store
from builder.tools.docker_engine import Engine, connect

USER = "65532:65532"
OUTPUT_MAX = 64 << 10  # bytes of each stream that are read; more is a failure
EMULATOR = "/.goldsmith-emulator"  # where the program that runs foreign programs is bound
_LABEL, _OWNER = "dev.goldsmith.check", "dev.goldsmith.pid"
_PROCESSES_MAX = 128
_MEMORY_MAX = 512 << 20  # bytes
_LOAD_SECONDS = 300
_GRACE_SECONDS = 60  # what the engine may take beyond a command's own time


@dataclass(frozen=True, slots=True)
class Trial:
    """A command to run: its words, its time limit, a folder to mount at `mount_at`, read-only."""

    argv: tuple[str, ...]
    timeout_seconds: int
    mount: Path | None = None
    mount_at: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a command did. `problem` says why there is no exit code: too slow, not startable."""

    exit_code: int | None
    stdout: bytes
    stderr: bytes
    problem: str = ""


class Bench:
    """A loaded candidate, in which trials are run; several threads may do so.

    With an `emulator` (a program of this machine) the image's own programs are run by it.
    """

    def __init__(self, client: Any, image_id: str, label: str, emulator: Path | None = None) -> None:
        self._client, self._image, self._label = client, image_id, label
        self._emulator = emulator
        self._lock, self._live, self._closed = threading.Lock(), set[str](), False

    @property
    def prefix(self) -> tuple[str, ...]:
        """The words that go before a command inside the container."""
        return (EMULATOR,) if self._emulator else ()

    def run(self, trial: Trial) -> Observation:
        """Run one command in a container of its own, and remove that.

        Raises ToolError when the engine fails; a command that cannot be started is an observation.
        """
        from docker.errors import DockerException

        try:
            container = self._create(trial)
        except (DockerException, OSError) as error:
            raise _failed("the engine could not make a container", error) from None
        try:
            return self._observe(container, trial)
        except (DockerException, OSError) as error:
            raise _failed("the engine failed while a check ran", error) from None
        finally:
            self._remove(container)

    def close(self) -> None:
        """Remove every container that still is there; no new one can be made."""
        with self._lock:
            self._closed = True
            live = tuple(self._live)
        for container in live:
            self._remove(container)

    def _create(self, trial: Trial) -> str:
        from docker.types import LogConfig, Mount

        api = self._client.api
        mounts = []
        if trial.mount:
            mounts.append(Mount(trial.mount_at, str(trial.mount), type="bind", read_only=True))
        if self._emulator:
            mounts.append(Mount(EMULATOR, str(self._emulator), type="bind", read_only=True))
        argv = (*self.prefix, *trial.argv)
        settings = api.create_host_config(
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode="none",
            ipc_mode="none",
            pids_limit=_PROCESSES_MAX,
            mem_limit=_MEMORY_MAX,
            log_config=LogConfig(type="json-file", config={"max-size": "8m", "max-file": "1"}),
            mounts=mounts,
        )
        with self._lock:
            if self._closed:
                raise ToolError("the checks were interrupted")
            made = api.create_container(
                self._image,
                command=list(argv[1:]),
                entrypoint=[argv[0]],
                user=USER,
                environment=dict(trial.environment),
                labels={_LABEL: self._label, _OWNER: str(os.getpid())},
                host_config=settings,
                stdin_open=False,
                tty=False,
            )
            container = str(made["Id"])
            self._live.add(container)
        return container

    def _observe(self, container: str, trial: Trial) -> Observation:
        from docker.errors import APIError, DockerException

        api = self._client.api
        try:
            api.start(container)
        except APIError as error:
            if error.status_code is not None and error.status_code < 500 and error.status_code != 404:
                return Observation(None, b"", b"", f"it cannot be started: {str(error.explanation)[:300]}")
            raise
        try:
            ended = api.wait(container, timeout=trial.timeout_seconds)
        except DockerException:
            raise
        except OSError:  # the SDK's time limit, among others
            state = api.inspect_container(container).get("State", {})
            if not state.get("Running"):
                raise
            api.kill(container)
            return Observation(None, b"", b"", f"it did not end within {trial.timeout_seconds} s")
        streams = {}
        for name, stdout in (("stdout", True), ("stderr", False)):
            data = self._output(container, stdout)
            if len(data) > OUTPUT_MAX:
                return Observation(None, b"", b"", f"it wrote more than {OUTPUT_MAX} bytes to {name}")
            streams[name] = data
        if api.inspect_container(container).get("State", {}).get("OOMKilled"):
            return Observation(None, b"", b"", f"it took more than {_MEMORY_MAX >> 20} MiB of memory")
        return Observation(int(ended["StatusCode"]), streams["stdout"], streams["stderr"])

    def _output(self, container: str, stdout: bool) -> bytes:
        data = b""
        stream = self._client.api.logs(container, stdout=stdout, stderr=not stdout, stream=True, follow=False)
        with contextlib.closing(stream):
            for piece in stream:
                data += piece
                if len(data) > OUTPUT_MAX:
                    break
        return data

    def _remove(self, container: str) -> None:
        from docker.errors import DockerException

        with contextlib.suppress(DockerException, OSError):
            self._client.api.remove_container(container, force=True, v=True)
        with self._lock:
            self._live.discard(container)


@contextlib.contextmanager
def loaded(
    image: PlatformImage, engine: Engine, store: Store, emulator: Path | None = None
) -> Iterator[Bench]:
    """Load the candidate into `engine` and give a bench; afterwards the image is removed again,
    unless it was there before. `emulator` runs its programs, when this machine cannot.

    Raises ToolError when the engine cannot load it, or holds another image than the candidate.
    """
    from docker.errors import DockerException

    label = Digest.of(str(store.root.resolve()).encode()).short
    name = f"{_repository(label)}-{image.manifest.digest.short}:candidate"
    expected = (str(image.manifest.digest), str(image.config.digest))
    client = connect(engine, _LOAD_SECONDS)
    try:
        try:
            _sweep(client, label)
            there_before = _known(client, expected)
            _load(client, image, name, store)
            found = str(client.api.inspect_image(name)["Id"])
        except (DockerException, OSError) as error:
            raise _failed("the engine could not load the image", error) from None
        bench = Bench(client, found, label, emulator)
        try:
            # The id is the manifest's or the configuration's digest, as the engine stores images.
            if found not in expected:
                raise ToolError(
                    "the engine loaded another image than the candidate",
                    context=f"{found} instead of {expected[0]}",
                )
            yield bench
        finally:
            bench.close()
            if not there_before:
                with contextlib.suppress(DockerException, OSError):
                    client.api.remove_image(name, force=True)
    finally:
        client.close()


def _load(client: Any, image: PlatformImage, name: str, store: Store) -> None:
    with store.scratch("check") as work:
        archive = work / "image.tar"
        save_archive(image, name, archive)
        with open(archive, "rb") as data:
            for line in client.api.load_image(data, quiet=True) or ():
                if "error" in line:
                    raise ToolError("the engine refused the image", context=str(line["error"])[:500])


def _known(client: Any, ids: Sequence[str]) -> bool:
    from docker.errors import ImageNotFound

    for identifier in ids:
        with contextlib.suppress(ImageNotFound):
            client.api.inspect_image(identifier)
            return True
    return False


def _repository(label: str) -> str:
    return f"goldsmith-check-{label}/{os.getpid()}"


def _sweep(client: Any, label: str) -> None:
    """Remove what a killed run of the same state directory left in the engine.

    The state directory's lock keeps other processes away, so what is not ours is left over.
    """
    for container in client.api.containers(all=True, filters={"label": f"{_LABEL}={label}"}):
        if (container.get("Labels") or {}).get(_OWNER) != str(os.getpid()):
            client.api.remove_container(container["Id"], force=True, v=True)
    for image in client.api.images(filters={"reference": f"goldsmith-check-{label}/*"}):
        for name in image.get("RepoTags") or ():
            left = name.startswith(f"goldsmith-check-{label}/") and not name.startswith(
                f"{_repository(label)}-"
            )
            if left:
                client.api.remove_image(name, force=True)


def _failed(message: str, error: Exception) -> ToolError:
    return ToolError(message, context=str(error)[:500], hint="goldsmith doctor says what answers")
