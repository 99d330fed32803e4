"""A client is proven only when the mirror answers through it and nobody else can be reached."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from builder.cli import main as command_line
from builder.errors import ToolError, UsageError
from registry.devcheck.probe import FOREIGN, Answer, prove, puller
from registry.devcheck.witness import LOOPBACK, witness

MIRROR = "mirror.example"
UNKNOWN = f"reading {MIRROR}/x: manifest unknown: there is no such image"
NO_PROXY = "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused"

BLOCKED = Answer(False, NO_PROXY)


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return bytes(reply.read())


def reach(reference: str, *, blobs: bool) -> None:
    """What a client does that can reach the witness."""
    host, _, rest = reference.partition("/")
    name, _, tag = rest.partition(":")
    manifest = json.loads(get(f"http://{host}/v2/{name}/manifests/{tag}"))
    if blobs:
        get(f"http://{host}/v2/{name}/blobs/{manifest['config']['digest']}")


def client(
    mirror: str = UNKNOWN,
    witnessed: Callable[[str], Answer] = lambda reference: Answer(False, NO_PROXY),
    public: Answer = BLOCKED,
) -> Callable[[str, bool], Answer]:
    def pull(reference: str, plain: bool) -> Answer:
        if plain:
            return witnessed(reference)
        return Answer(False, mirror) if reference.startswith(MIRROR) else public

    return pull


def proven(pull: Callable[[str, bool], Answer], name: str = "containerd") -> list[bool]:
    return [a.ok for a in prove(name, MIRROR, FOREIGN[:1], pull)]


def taken(reference: str) -> Answer:
    reach(reference, blobs=True)
    return Answer(True, "")


def asked(said: str) -> Callable[[str], Answer]:
    def pull(reference: str) -> Answer:
        reach(reference, blobs=False)
        return Answer(False, said)

    return pull


@pytest.mark.parametrize("name", ["docker", "podman", "containerd"])
def test_a_closed_client_is_proven(name: str) -> None:
    assert proven(client(), name) == [True, True, True]


def test_a_policy_that_rejects_is_a_proof() -> None:
    assert proven(client(witnessed=asked("Source image rejected: … is rejected by policy."))) == [
        True,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "witnessed",
    [
        taken,
        asked("manifest unknown"),
        lambda r: (reach(r, blobs=True), Answer(False, "is rejected by policy"))[1],
    ],
)
def test_a_witness_that_was_reached_is_no_proof(witnessed: Callable[[str], Answer]) -> None:
    assert proven(client(witnessed=witnessed)) == [True, False, True]


@pytest.mark.parametrize(
    "said",
    [
        NO_PROXY,
        "",
        "x509: certificate signed by unknown authority",
        "podman cannot be started",
        "Error: the runroot is too long",
        "sh: podman: not found",
    ],
)
def test_a_client_that_reaches_nothing_proves_nothing(said: str) -> None:
    assert proven(client(mirror=said)) == [False, True, True]


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        (Answer(True, ""), False),
        (Answer(False, "toomanyrequests: slow down"), False),
        (Answer(False, "pull access denied"), False),
        (Answer(False, f"reading manifest latest in {MIRROR}/library/hello-world: denied"), True),
        (Answer(False, "docker ended: did not end within 60 s and was stopped"), True),
    ],
)
def test_public_registries(answer: Answer, ok: bool) -> None:
    assert proven(client(public=answer)) == [True, True, ok]


def test_the_witness_counts_connections_of_any_kind() -> None:
    import socket

    with witness(LOOPBACK) as seen:
        host, _, port = seen.address.partition(":")
        with socket.create_connection((host, int(port))) as peer:
            peer.sendall(b"\x16\x03\x01\x00\x05hello\r\n\r\n")
            with contextlib.suppress(OSError):
                peer.recv(1)
        assert (seen.connections, seen.blobs) == (1, 0)


def test_unknown_and_missing_clients_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no client"):
        puller("lynx", {"PATH": "/usr/bin"})
    with pytest.raises(ToolError, match="podman is not installed"):
        puller("podman", {"PATH": str(tmp_path)})


def test_the_command_says_what_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program in the place of ctr: the mirror answers, others cannot be reached."""
    program = tmp_path / "ctr"
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *{MIRROR}/*) echo "{UNKNOWN}";; *) echo "{NO_PROXY}";; esac >&2\nexit 1\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    arguments = ["doctor", "--client", "containerd", "--mirror", MIRROR]
    assert command_line.run(arguments) == 0
    assert "none of the others that were tried" in capsys.readouterr().out
    program.write_text("#!/bin/sh\nexit 0\n")
    assert command_line.run([*arguments, "--json"]) == 5
    told = json.loads(capsys.readouterr().out)
    assert told["proven"] is False
    assert [a["reference"] for a in told["attempts"]][2:] == list(FOREIGN)
    assert command_line.run(["doctor", "--mirror", MIRROR]) == 2
