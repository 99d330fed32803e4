"""Real clients log in at the gate: with Basic where nothing is anonymous, by a token where some is."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.oci.client import RegistryClient
from builder.stages.publish import publish
from builder.tools import process
from registry.access.source import Files
from registry.access.tokens import TokenStore
from tests.support import private_clients
from tests.support.engines import engine
from tests.support.evidence import approval, evidence, world
from tests.support.gates import RunningGate, running_gate, wait_for
from tests.support.images import NOW, built_image
from tests.support.issuer import Issuer, running_issuer
from tests.support.oracles import foreign, program
from tests.support.registry_simulator import simulator
from tests.support.requires import tool

pytestmark = pytest.mark.integration

SECRET, OPEN = "candidate/python", "candidate/open"


@dataclass
class Place:
    """A gate that knows two tokens and an issuer; `candidate/open` may be for everybody."""

    gate: RunningGate
    folder: Path
    tokens: TokenStore
    issuer: Issuer
    anonymous: bool
    good: str
    narrow: str

    def run(self, *argv: str | Path, **environment: str) -> process.Completed:
        """A client with a home of its own; its exit code is the caller's to judge."""
        return process.run(
            argv,
            environment={"HOME": str(self.folder / "home"), "PATH": os.environ["PATH"], **environment},
            timeout_seconds=120,
            ok=tuple(range(256)),
        )

    def image(self, repository: str = SECRET) -> str:
        return f"{self.gate.address}/{repository}:3.13"

    @property
    def wrong(self) -> str:
        return self.good[:-3] + "AAA"

    def judge(self, login: process.Completed, password: str) -> None:
        """Whether a login ended as it should, and told nothing."""
        if password == self.wrong:
            assert login.returncode != 0
        else:
            assert login.returncode == 0, login.log
        assert password not in login.log

    def refused_without_a_login(self, pull: process.Completed) -> None:
        assert pull.returncode != 0

    def forbidden(self, pull: process.Completed) -> None:
        """What is printed to somebody without a role on the image."""
        assert pull.returncode != 0
        flat = " ".join(pull.log.replace("\\", "").split())
        assert f"token:narrow may not pull {SECRET}: it has developer on open" in flat


@pytest.fixture(scope="module", params=["basic", "some anonymous"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("login")
    (folder / "home").mkdir()
    with simulator() as sim, running_issuer() as issuer:
        here = world(folder / "world")
        publish(replace(here, repository=f"{sim.address}/{SECRET}").signed(), RegistryClient(sim.address))
        image = built_image(folder / "open", name="open", files=({"o": b"open"},))
        proofs = tuple(evidence(x) for x in image.platforms)
        other = replace(here, image=image, proofs=proofs, verdict=approval(image, proofs, NOW))
        publish(replace(other, repository=f"{sim.address}/{OPEN}").signed(), RegistryClient(sim.address))
        anonymous = request.param != "basic"
        rules = "anonymous: [open]\n" if anonymous else ""
        (folder / "access.yaml").write_text(f"schema: 1\n{rules}oidc:\n{issuer.entry()}")
        tokens = TokenStore(folder / "access")
        shown = []
        for name, images in (("ci", "*"), ("narrow", "open")):
            made, secret = tokens.draft(name, ("developer",), (images,), days=30, by="user:ann", now=NOW)
            tokens.add(made)
            shown.append(secret)
        with running_gate(sim.address, here.trust, access=Files(folder, tokens)) as gate:
            yield Place(gate, folder, tokens, issuer, anonymous, *shown)
        told = "".join(gate.lines)
        assert not any(secret[14:] in told for secret in shown)


@pytest.mark.parametrize("release", ["here", "forky"])
def test_skopeo(place: Place, tmp_path: Path, release: str) -> None:
    skopeo = (tool("skopeo"),) if release == "here" else foreign("skopeo", release)
    kept = ("--authfile", tmp_path / "auth.json")

    def copy(repository: str, *more: str | Path) -> process.Completed:
        source, target = f"docker://{place.image(repository)}", f"dir:{tmp_path / 'out'}"
        return place.run(
            *skopeo, "--insecure-policy", "copy", "--src-tls-verify=false", *more, source, target
        )

    place.refused_without_a_login(copy(SECRET))
    assert (copy(OPEN).returncode == 0) is place.anonymous
    for password in (place.wrong, place.issuer.token(), place.good):
        login = (*skopeo, "login", "--tls-verify=false", *kept, "-u", "ann", "-p", password)
        place.judge(place.run(*login, place.gate.address), password)
    assert copy(SECRET, *kept).returncode == 0
    assert copy(OPEN, *kept).returncode == 0
    # It keeps a bearer to itself unless it is asked for one.
    assert (copy(SECRET, "--src-registry-token", place.good).returncode == 0) is place.anonymous
    place.forbidden(copy(SECRET, "--src-creds", f"x:{place.narrow}"))


def test_crane(place: Place, tmp_path: Path) -> None:
    crane = program("crane", "forky")
    config = {"DOCKER_CONFIG": str(tmp_path / "config")}

    def pull(repository: str = SECRET) -> process.Completed:
        return place.run(
            crane, "pull", "--insecure", place.image(repository), tmp_path / "image.tar", **config
        )

    place.refused_without_a_login(pull())
    assert (pull(OPEN).returncode == 0) is place.anonymous
    for password in (place.narrow, place.issuer.token(), place.good):
        login = (crane, "auth", "login", place.gate.address, "-u", "ann", "-p", password)
        place.judge(place.run(*login, **config), password)
        if password == place.narrow:
            place.forbidden(pull())
            assert pull(OPEN).returncode == 0
        else:
            assert pull().returncode == 0
    listed = place.run(crane, "catalog", "--insecure", place.gate.address, **config)
    assert listed.log.split()[-2:] == [OPEN, SECRET]


def test_oras(place: Place, tmp_path: Path) -> None:
    oras = program("oras", "trixie")
    kept = ("--registry-config", tmp_path / "config.json")

    def fetch(repository: str, *more: str | Path) -> process.Completed:
        return place.run(oras, "manifest", "fetch", "--plain-http", *more, place.image(repository))

    place.refused_without_a_login(fetch(SECRET))
    assert (fetch(OPEN).returncode == 0) is place.anonymous
    for password in (place.wrong, place.issuer.token(), place.good):
        login = (oras, "login", "--plain-http", *kept, "-u", "ann", "-p", password, place.gate.address)
        place.judge(place.run(*login), password)
    assert fetch(SECRET, *kept).returncode == 0
    assert fetch(OPEN, *kept).returncode == 0
    place.forbidden(fetch(SECRET, "-u", "ann", "-p", place.narrow))


def test_podman(place: Place, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    (etc / "containers").mkdir(parents=True)
    (etc / "containers" / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{place.gate.address}"\ninsecure = true\n'
    )
    (etc / "containers" / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    with tempfile.TemporaryDirectory(prefix="gs-") as short:  # podman wants a path of 50 characters
        found = private_clients.podman(Path(short), etc)
        podman = Path(found["PATH"].partition(":")[0]) / "podman"
        kept = ("--authfile", Path(short) / "auth.json")
        place.refused_without_a_login(place.run(podman, "pull", place.image(), **found))
        anonymous = place.run(podman, "pull", place.image(OPEN), **found)
        assert (anonymous.returncode == 0) is place.anonymous, anonymous.log
        real = (program("podman", "bookworm"), "--root", f"{short}/root", "--runroot", f"{short}/run")
        for password in (place.wrong, place.issuer.token(), place.good):
            login = (*real, "login", "--tls-verify=false", *kept, "-u", "ann", "-p", password)
            place.judge(place.run(*login, place.gate.address, **found), password)
        for repository in (SECRET, OPEN):
            done = place.run(podman, "pull", *kept, place.image(repository), **found)
            assert done.returncode == 0, done.log
        place.forbidden(place.run(podman, "pull", "--creds", f"x:{place.narrow}", place.image(), **found))


def test_containerd(place: Place, tmp_path: Path) -> None:
    with private_clients.containerd(tmp_path) as (ctr, _):
        pull = ("images", "pull", "--plain-http", "--snapshotter", "native")
        assert ctr(*pull, place.image()).returncode != 0
        assert (ctr(*pull, place.image(OPEN)).returncode == 0) is place.anonymous
        assert ctr(*pull, "-u", f"ann:{place.wrong}", place.image()).returncode != 0
        done = ctr(*pull, "-u", f"ann:{place.narrow}", place.image())
        assert done.returncode != 0 and "403 Forbidden" in done.stderr
        done = ctr(*pull, "-u", f"ann:{place.good}", place.image())
        assert done.returncode == 0, done.stderr


def test_docker_until_its_token_is_revoked(place: Place, tmp_path: Path) -> None:
    docker = tool("docker")
    made, shown = place.tokens.draft("docker", ("developer",), ("*",), days=30, by="user:ann", now=NOW)
    place.tokens.add(made)
    wait_for(lambda: place.gate.get("/v2/", Authorization=f"Bearer {shown}"), lambda r: r.status == 200)
    with engine(tmp_path) as (found, _):
        host = {"DOCKER_HOST": found.host, "DOCKER_CONFIG": str(tmp_path / "config")}

        def login(password: str) -> None:
            typed = tmp_path / "password"
            typed.write_text(password)
            done = process.run(
                (docker, "login", "-u", "ann", "--password-stdin", place.gate.address),
                environment={"HOME": str(tmp_path), "PATH": os.environ["PATH"], **host},
                timeout_seconds=60,
                stdin=typed,
                ok=tuple(range(256)),
            )
            place.judge(done, password)

        def pull(repository: str = SECRET) -> process.Completed:
            place.run(docker, "image", "rm", "-f", place.image(repository), **host)
            return place.run(docker, "pull", place.image(repository), **host)

        try:
            place.refused_without_a_login(pull())
            assert (pull(OPEN).returncode == 0) is place.anonymous
            login(place.wrong)
            login(place.narrow)
            place.forbidden(pull())
            for password in (place.issuer.token(), shown):
                login(password)
                for repository in (SECRET, OPEN):
                    done = pull(repository)
                    assert done.returncode == 0, done.log
            place.tokens.revoke(made.id, NOW)
            wait_for(
                lambda: place.gate.get("/v2/", Authorization=f"Bearer {shown}"), lambda r: r.status == 401
            )
            ended = pull()
            assert ended.returncode != 0
            assert "the token docker is revoked since" in ended.log
        finally:
            place.run(docker, "image", "rm", "-f", place.image(), place.image(OPEN), **host)
