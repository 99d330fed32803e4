"""Proves that a configured client reaches the mirror and nothing else: by trying, with a witness.

1. The mirror must answer through the client: a client that reaches nothing proves nothing.
2. The witness, a registry of our own, must not be reached. Where a policy rejects (Podman), it may
   be asked for the manifest, but nothing of an image may be taken from it.
3. Images of public registries must not come, and no public registry may answer.

"Not reached" is said only of what was tried; a failed control is never a proof.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.errors import ToolError, UsageError
from builder.tools import process
from registry.devcheck.witness import LOOPBACK, Witness, outward, witness

FOREIGN = ("docker.io/library/hello-world:latest", "quay.io/podman/hello:latest")
CLIENTS = ("docker", "podman", "containerd")
HOSTS = Path("/etc/containerd/certs.d")
_ABSENT = "goldsmith-doctor/nothing:latest"  # no registry has it
_SECONDS = 60
_SAID = 300  # characters of a client's message that are kept
_NO_CONNECTION = re.compile(
    r"proxyconnect|connection refused|connection reset|no such host|i/o timeout|network is unreachable"
    r"|no route|deadline exceeded|Client\.Timeout|server misbehaving|temporary failure|did not end within",
    re.IGNORECASE,
)
_BROKEN = re.compile(
    r"x509|tls:|HTTP response to HTTPS|Cannot connect to the Docker|cannot be started", re.IGNORECASE
)
# What clients print when a registry has no such image, or does not give it.
_ANSWERED = re.compile(
    r"unknown|not found|denied|unauthorized|authentication required|\b40[134]\b", re.IGNORECASE
)
_POLICY = re.compile(r"rejected by policy|is blocked", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: what was asked for, whether that is as it should be, and what was seen."""

    reference: str
    ok: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client said to one pull."""

    succeeded: bool
    text: str


Pull = Callable[[str, bool], Answer]


def prove(client: str, mirror: str, foreign: Sequence[str], pull: Pull) -> tuple[Attempt, ...]:
    """Carry out the procedure above; the client is proven when every attempt is `ok`.

    `pull` tries to get a reference; its second argument says that the registry has no TLS.
    """
    attempts = [_control(mirror, pull)]
    with witness(outward() if client == "docker" else LOOPBACK) as seen:
        attempts.append(_witnessed(seen, pull(seen.reference, True)))
    attempts += [_public(reference, mirror, pull(reference, False)) for reference in foreign]
    return tuple(attempts)


def puller(client: str, environment: Mapping[str, str], hosts: Path = HOSTS) -> Pull:
    """The real client's pull, with the configuration it has; raises UsageError for an unknown one."""
    commands: dict[str, tuple[str, ...]] = {
        "docker": ("docker", "pull", "--quiet"),
        "podman": ("podman", "pull", "--quiet"),
        "containerd": ("ctr", "content", "fetch", "--hosts-dir", str(hosts)),
    }
    if client not in commands:
        raise UsageError(f"no client {client[:50]!r} can be proven", hint=", ".join(CLIENTS))
    if process.find(commands[client][0], environment) is None:
        raise ToolError(f"{commands[client][0]} is not installed", hint="install the client, then prove it")

    def pull(reference: str, plain: bool) -> Answer:
        extra = ("--tls-verify=false",) if plain and client == "podman" else ()
        try:
            done = process.run(
                [*commands[client], *extra, reference],
                environment=environment,
                timeout_seconds=_SECONDS,
                ok=range(256),
            )
        except ToolError as error:
            return Answer(False, f"{error.message} {error.context}")
        return Answer(done.returncode == 0, f"{done.log} {done.text}"[-2000:])

    return pull


def _control(mirror: str, pull: Pull) -> Attempt:
    """1. the mirror says that it has no such image, or that it may not be had."""
    reference = f"{mirror}/{_ABSENT}"
    answer = pull(reference, False)
    silent = _NO_CONNECTION.search(answer.text) or _BROKEN.search(answer.text)
    # Docker hands on the registry's words without naming it.
    told = mirror in answer.text or "response from daemon" in answer.text
    answered = told and _ANSWERED.search(answer.text)
    if silent or not answered or answer.succeeded:
        return Attempt(
            reference, False, f"the mirror does not answer through this client: {_short(answer.text)}"
        )
    return Attempt(reference, True, f"the mirror answers: {_short(answer.text)}")


def _witnessed(seen: Witness, answer: Answer) -> Attempt:
    """2. what the witness saw decides, not what the client says."""
    if answer.succeeded or seen.blobs:
        return Attempt(seen.reference, False, "an image of another registry was taken in")
    if not seen.connections:
        return Attempt(seen.reference, True, "another registry was not even asked")
    if _POLICY.search(answer.text):
        return Attempt(seen.reference, True, "another registry's image was rejected by the policy")
    return Attempt(seen.reference, False, f"another registry was reached: {_short(answer.text)}")


def _public(reference: str, mirror: str, answer: Answer) -> Attempt:
    """3. a public registry: nothing comes, and the one who refuses is the mirror, a policy, or nobody."""
    if answer.succeeded:
        return Attempt(reference, False, "the image came")
    if _POLICY.search(answer.text):
        return Attempt(reference, True, "rejected by the policy")
    if mirror in answer.text:
        return Attempt(reference, True, f"the mirror was asked instead: {_short(answer.text)}")
    if _NO_CONNECTION.search(answer.text):
        return Attempt(reference, True, f"no connection: {_short(answer.text)}")
    return Attempt(reference, False, f"the registry may have answered: {_short(answer.text)}")


def _short(text: str) -> str:
    return " ".join(text.split())[-_SAID:]
