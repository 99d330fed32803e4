"""Who may pull what at the gate: logins, tokens, refusals, and that no secret is ever told."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from builder.cli.wiring import client_of
from builder.errors import DefinitionError, RegistryError
from builder.model.reference import Reference
from builder.oci.auth import Credentials
from builder.oci.client import RegistryClient
from builder.settings import Settings
from builder.signing.verify import verify
from builder.stages.publish import publish
from registry.access.source import Files
from registry.access.tokens import TokenStore
from registry.pulls import pulls
from tests.support.evidence import World, approval, evidence, world
from tests.support.gates import Reply, RunningGate, running_gate, wait_for
from tests.support.images import NOW, built_image
from tests.support.registry_simulator import Simulator, simulator

PYTHON, RUBY = "candidate/python", "candidate/ruby"
TAG, OTHER = f"/v2/{PYTHON}/manifests/3.13", f"/v2/{RUBY}/manifests/3.13"


class Place:
    """A storage with two images, rules and tokens in files, and a gate."""

    def __init__(self, folder: Path, sim: Simulator, here: World, rules: str = "schema: 1\n") -> None:
        self.folder, self.sim, self.here = folder, sim, here
        self.tokens = TokenStore(folder / "state" / "access")
        self.rules = folder / "access.yaml"
        self.rules.write_text(rules)
        self.gate: RunningGate

    def source(self, anonymous: bool = False) -> Files:
        return Files(self.folder, self.tokens, anonymous=anonymous)

    def token(self, name: str, role: str = "developer", *images: str, days: int = 30) -> str:
        made, shown = self.tokens.draft(name, (role,), images or ("*",), days=days, by="user:ann", now=NOW)
        self.tokens.add(made)
        return shown

    def as_(self, shown: str, path: str = "/v2/", user: str = "any", method: str = "GET") -> Reply:
        return self.gate.ask(method, path, Authorization=basic(shown, user))

    def until(self, shown: str, status: int, path: str = "/v2/") -> float:
        """Seconds until a credential is answered so."""
        return wait_for(lambda: self.as_(shown, path), lambda r: r.status == status)[1]


def basic(shown: str, user: str = "any") -> str:
    return "Basic " + base64.b64encode(f"{user}:{shown}".encode()).decode()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulator, World]]:
    with simulator() as sim:
        folder = tmp_path_factory.mktemp("world")
        python = replace(world(folder / "world"), repository=f"{sim.address}/{PYTHON}")
        publish(python.signed(), RegistryClient(sim.address))
        image = built_image(folder / "ruby", name="ruby", files=({"r": b"ruby"},))
        proofs = tuple(evidence(x) for x in image.platforms)
        ruby = replace(python, image=image, proofs=proofs, verdict=approval(image, proofs, NOW))
        publish(replace(ruby, repository=f"{sim.address}/{RUBY}").signed(), RegistryClient(sim.address))
        yield sim, python


@pytest.fixture(scope="module")
def closed(storage: tuple[Simulator, World], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Nothing is anonymous; shared by the tests that only add tokens."""
    place = Place(tmp_path_factory.mktemp("closed"), *storage)
    with running_gate(place.sim.address, place.here.trust, access=place.source()) as gate:
        place.gate = gate
        yield place


@pytest.fixture
def place(storage: tuple[Simulator, World], tmp_path: Path) -> Place:
    return Place(tmp_path, *storage)


def blob_of(place: Place) -> str:
    return f"/v2/{PYTHON}/blobs/{place.here.image.platforms[0].layers[1].blob.digest}"


def every_path(place: Place) -> list[str]:
    digest = place.here.image.digest
    return [
        "/v2/",
        "/v2",
        "/v2/_catalog",
        f"/v2/{PYTHON}/tags/list",
        TAG,
        f"/v2/{PYTHON}/manifests/{digest}",
        f"/v2/{PYTHON}/manifests/sha256-{digest.hex}.sig",
        f"/v2/{PYTHON}/referrers/{digest}",
        blob_of(place),
        "/v2/nothing/manifests/x",
    ]


def test_without_a_login_there_is_nothing_and_no_default_lets_anybody_in(closed: Place) -> None:
    for path in every_path(closed):
        for method in ("GET", "HEAD"):
            got = closed.gate.ask(method, path)
            assert (got.status, got.headers["www-authenticate"]) == (
                401,
                f'Basic realm="http://{closed.gate.address}", charset="UTF-8"',
            ), path
    assert closed.gate.get(TAG).error["code"] == "UNAUTHORIZED"
    assert "/help/access" in closed.gate.get(TAG).error["message"]
    assert "docker login" in closed.gate.get("/help/access").body.decode()
    for user, password in (("admin", "admin"), ("admin", ""), ("", ""), ("anonymous", "anonymous")):
        assert closed.as_(password, user=user).status == 401
    for header in (
        "Bearer anonymous",
        "Basic",
        "Basic !!!",
        "Basic " + "A" * 30_000,
        "Negotiate x",
        "Bearer ",
    ):
        assert closed.gate.get(TAG, Authorization=header).status == 401, header[:40]
    assert closed.gate.get("/healthz").status == closed.gate.get("/metrics").status == 200


def test_a_token_is_a_password_and_a_bearer(closed: Place) -> None:
    shown = closed.token("dev")
    closed.until(shown, 200)
    for path in every_path(closed)[:-1]:
        assert closed.as_(shown, path).status == 200, path
        assert closed.as_(shown, path, user="dev", method="HEAD").status == 200, path
    assert closed.gate.get(TAG, Authorization=f"Bearer {shown}").status == 200
    assert closed.gate.get(TAG, Authorization=f"bAsIc {basic(shown)[6:]}").status == 200
    two = f"GET {TAG} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + f"Authorization: {basic(shown)}\r\n" * 2
    assert closed.gate.raw(two.encode() + b"\r\n").startswith(b"HTTP/1.1 401 ")
    assert closed.gate.ask("PUT", TAG, Authorization=basic(shown)).status == 405


def test_what_somebody_may_not_pull_answers_alike_whether_it_is_there_or_not(closed: Place) -> None:
    shown = closed.token("ruby-only", "developer", "ruby*")
    closed.until(shown, 200)
    assert closed.as_(shown, OTHER).status == 200
    for path in (TAG, blob_of(closed), f"/v2/{PYTHON}/referrers/{closed.here.image.digest}"):
        got = closed.as_(shown, path)
        assert (got.status, got.error["code"], got.error["detail"]["reason"]) == (403, "DENIED", "access")
    said = closed.as_(shown, TAG).error["message"]
    assert said.startswith(f"token:ruby-only may not pull {PYTHON}: it has developer on ruby*; ask ")
    absent = closed.as_(shown, "/v2/candidate/absent/manifests/3.13").error["message"]
    assert absent == said.replace("python", "absent")
    assert closed.as_(shown, "/v2/candidate/absent/tags/list").status == 403
    assert json.loads(closed.as_(shown, "/v2/_catalog").body) == {"repositories": [RUBY]}
    assert closed.as_(shown, "/v2/_catalog?n=1&last=candidate/a").headers.get("link") is None
    told = [
        e for e in closed.gate.events("forbidden") if e["reference"] == "3.13" and e["repository"] == PYTHON
    ]
    assert {e["who"] for e in told} == {"token:ruby-only"}
    # A name that begins the same is another name.
    assert closed.as_(shown, "/v2/xruby/manifests/1").status == 403


def test_a_viewer_sees_names_and_no_more(closed: Place) -> None:
    shown = closed.token("guest", "viewer")
    closed.until(shown, 200)
    assert json.loads(closed.as_(shown, "/v2/_catalog").body) == {"repositories": [PYTHON, RUBY]}
    assert closed.as_(shown, f"/v2/{PYTHON}/tags/list").status == 200
    assert closed.as_(shown, TAG).status == closed.as_(shown, blob_of(closed)).status == 403


def test_a_revoked_token_is_refused_at_once_although_it_was_remembered(closed: Place) -> None:
    shown = closed.token("leaked")
    closed.until(shown, 200)
    for _ in range(3):
        assert closed.as_(shown, TAG).status == 200
    closed.tokens.revoke(shown[3:13], NOW)
    closed.until(shown, 401, TAG)
    got = closed.as_(shown, TAG)
    assert "the token leaked is revoked since 2026-03-01" in got.error["message"]


def test_a_token_that_was_just_made_opens_the_door_at_its_first_use(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.gate.server._ACCESS_SECONDS", 3600)  # nobody but the door looks
    with running_gate(place.sim.address, place.here.trust, access=place.source()) as gate:
        place.gate = gate
        assert place.as_("gs_0123456789_nobody").status == 401
        assert place.as_(place.token("first"), TAG).status == 200
        assert gate.ask("GET", "/token", Authorization=basic(place.token("second"))).status == 200
        assert len(gate.events("access-changed")) == 2
        gate.time[0] += 1
        place.tokens.path.write_bytes(b"{")
        assert place.as_("gs_0123456789_nobody").status == 503  # neither valid nor invalid


def test_unknown_tokens_amplify_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.gate.server._ACCESS_SECONDS", 3600)
    monkeypatch.setattr("registry.gate.door._LOOK_SECONDS", 30)
    looks: list[float] = []
    source = place.source()
    changed = source.changed
    monkeypatch.setattr(source, "changed", lambda: (looks.append(0), changed())[1])
    with running_gate(place.sim.address, place.here.trust, access=source) as gate:
        place.gate = gate
        assert place.as_("gs_0123456789_nobody").status == 401  # at once: nobody looked for a while
        assert len(looks) == 1
        monkeypatch.setattr("registry.gate.door._LOOK_SECONDS", 1)
        with ThreadPoolExecutor(8) as many:
            asked = [many.submit(place.as_, f"gs_{n:010}_nobody") for n in range(8)]
        assert {one.result().status for one in asked} == {401}
        assert len(looks) <= 3  # one for all who waited, one for who came late
        assert place.as_("not-a-token").status == 401 and len(looks) <= 3


def test_a_token_ends_although_it_was_remembered(storage: tuple[Simulator, World], tmp_path: Path) -> None:
    place = Place(tmp_path, *storage)
    shown = place.token("short", days=1)
    with running_gate(place.sim.address, place.here.trust, access=place.source()) as gate:
        place.gate = gate
        assert place.as_(shown).status == 200
        gate.time[0] += 86400 - 1
        assert place.as_(shown).status == 200
        gate.time[0] += 1
        assert "is expired since" in place.as_(shown).error["message"]
        gate.time[0] -= 86400  # a clock set back brings nothing to life
        assert place.as_(shown).status == 401


def test_no_secret_is_told_in_logs_metrics_or_answers(closed: Place) -> None:
    good = closed.token("quiet")
    wrong = good[:-4] + "AAAA"
    closed.until(good, 200)
    told = [closed.as_(good, TAG).body, closed.as_(wrong, TAG).body, closed.gate.get("/metrics").body]
    told += [closed.gate.get(TAG, Authorization=f"Bearer {wrong}").body]
    assert closed.as_(wrong, TAG).status == 401
    assert [e["cause"] for e in closed.gate.events("not-authenticated")]
    lines = [e for e in closed.gate.events("request") if e["who"] == "token:quiet"]
    assert lines and lines[-1]["path"] == TAG
    text = "".join(closed.gate.lines).encode() + b"".join(told)
    for secret in (good, wrong):
        assert secret[14:40].encode() not in text
        assert basic(secret)[6:].encode()[:40] not in text
    assert b'goldsmith_gate_identity_requests_total{identity="token:quiet"}' in told[2]
    assert b'goldsmith_gate_unauthenticated_total{cause="refused"}' in told[2]


def test_a_role_taken_away_is_gone_within_a_moment(place: Place) -> None:
    shown = place.token("dev")
    with running_gate(place.sim.address, place.here.trust, access=place.source()) as gate:
        place.gate = gate
        assert place.as_(shown, TAG).status == 200
        (place.folder / "roles.yaml").write_text("schema: 1\nroles: {developer: {title: x, may: [see]}}\n")
        place.until(shown, 403, TAG)
        # Rules that are broken leave those before in force, loudly.
        (place.folder / "roles.yaml").write_text("schema: 1\nroles: {developer: {title: x, may: [eat]}}\n")
        place.rules.write_text("schema: 2\n")
        wait_for(lambda: gate.events("access-broken"), bool)
        assert place.as_(shown, TAG).status == 403 and gate.get(TAG).status == 401


def test_tokens_that_cannot_be_read_are_answered_with_later(place: Place) -> None:
    shown = place.token("dev")
    with running_gate(place.sim.address, place.here.trust, access=place.source()) as gate:
        place.gate = gate
        assert place.as_(shown).status == 200
        kept = place.tokens.path.read_bytes()
        place.tokens.path.write_bytes(kept[:-20])
        place.until(shown, 503)
        got = place.as_(shown, TAG)
        assert (got.error["code"], got.headers["retry-after"]) == ("UNAVAILABLE", "5")
        assert gate.events("tokens-unreadable")
        place.tokens.path.write_bytes(kept)
        place.until(shown, 200)


def test_a_gate_does_not_start_with_broken_rules(place: Place) -> None:
    place.rules.write_text("schema: 1\nanonimous: pull\n")
    with (
        pytest.raises(DefinitionError),
        running_gate(place.sim.address, place.here.trust, access=place.source()),
    ):
        pass


def test_all_anonymous_is_said_and_still_knows_who_shows_a_token(place: Place) -> None:
    shown = place.token("dev")
    with running_gate(place.sim.address, place.here.trust, access=place.source(anonymous=True)) as gate:
        place.gate = gate
        assert gate.get("/v2/").status == gate.get(TAG).status == gate.get("/v2/_catalog").status == 200
        assert "WITHOUT A LOGIN" in gate.events("anonymous")[0]["warning"]
        assert place.as_(shown, TAG).status == 200
        assert place.as_(shown[:-1] + "_", TAG).status == 401  # wrong is wrong, not anonymous
        assert {e["who"] for e in gate.events("request") if e["path"] == TAG and e["status"] == 200} == {
            "anonymous",
            "token:dev",
        }


def test_where_some_images_are_anonymous_clients_get_a_bearer_that_is_no_new_secret(place: Place) -> None:
    place.rules.write_text('schema: 1\nanonymous: ["ruby*"]\n')
    shown = place.token("dev")
    with running_gate(place.sim.address, place.here.trust, access=place.source()) as gate:
        place.gate = gate
        got = gate.get("/v2/")
        realm = f'Bearer realm="http://{gate.address}/token",service="goldsmith"'
        assert (got.status, got.headers["www-authenticate"]) == (401, realm)
        anonymous = json.loads(gate.get("/token?service=goldsmith").body)["token"]
        bearer = {"Authorization": f"Bearer {anonymous}"}
        assert gate.get("/v2/", **bearer).status == gate.get(OTHER, **bearer).status == 200
        assert gate.get(TAG, **bearer).status == 401
        assert json.loads(gate.get("/v2/_catalog", **bearer).body) == {"repositories": [RUBY]}
        given = gate.ask("GET", "/token?scope=repository:x:pull,push", Authorization=basic(shown))
        assert (given.status, given.headers["cache-control"]) == (200, "no-store")
        mine = {"Authorization": f"Bearer {json.loads(given.body)['access_token']}"}
        assert gate.get(TAG, **mine).status == 200
        assert gate.ask("GET", "/token", Authorization=basic("wrong")).status == 401
        # What was handed out ends with the token.
        place.tokens.revoke(shown[3:13], NOW)
        place.until(shown, 401)
        assert gate.get(TAG, **mine).status == 401


def test_what_is_remembered_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.gate.door._REMEMBERED", 3)
    shown = place.token("dev")
    with running_gate(place.sim.address, place.here.trust, access=place.source()) as gate:
        place.gate = gate
        for number in range(8):  # another user's name, another header
            assert place.as_(shown, f"/v2/absent{number}/manifests/1", user=f"u{number}").status == 404
        assert len(gate.service.door._state.visitors) <= 3
        assert all(len(v._known) <= 3 for v, _ in gate.service.door._state.visitors.values())


def test_our_own_client_logs_in(closed: Place) -> None:
    shown = closed.token("robot", "robot", "python")
    closed.until(shown, 200)
    client = RegistryClient(closed.gate.address, credentials=Credentials("robot", shown))
    data, _, digest = client.get_manifest(client.reference(PYTHON, "3.13"))
    assert digest == closed.here.image.digest and data


def test_verify_goes_through_the_gate_with_the_login_that_docker_stored(
    closed: Place, tmp_path: Path
) -> None:
    shown = closed.token("checker")
    closed.until(shown, 200)
    auths = {closed.gate.address: {"auth": basic(shown)[6:]}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths}))
    settings = Settings.load(
        {"DOCKER_CONFIG": str(tmp_path)}, directory=tmp_path, now=NOW, needs_catalogue=False
    )
    where = Reference(closed.gate.address, PYTHON, "3.13")
    found = verify(where, client_of(settings, closed.gate.address), closed.here.trust, NOW)
    assert found.digest == closed.here.image.digest
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RegistryError) as caught:
        verify(where, client_of(settings, closed.gate.address), closed.here.trust, NOW)
    assert "docker login" in caught.value.hint


def test_who_pulled_what_is_noted(place: Place) -> None:
    shown, folder = place.token("dev"), place.folder / "pulls"
    digest = place.here.image.digest
    with running_gate(place.sim.address, place.here.trust, access=place.source(), pulls=folder) as gate:
        place.gate = gate
        for _ in range(3):
            assert place.as_(shown, TAG).status == 200
        assert place.as_(shown, f"/v2/{PYTHON}/manifests/{digest}").status == 200
        place.as_(shown, TAG, method="HEAD")
        place.as_(shown, f"/v2/{PYTHON}/manifests/sha256-{digest.hex}.sig")
        place.as_(shown, f"/v2/{PYTHON}/manifests/absent")
        gate.get(TAG)
    counted = [(p.who, p.repository, p.digest, p.tag, p.count) for p in pulls(folder, NOW)]
    assert sum(c for *_, tag, c in counted if tag == "3.13") == 3
    assert set(counted) - {c for c in counted if c[3]} == {("token:dev", PYTHON, digest, "", 1)}
    assert {c[:3] for c in counted} == {("token:dev", PYTHON, digest)}
    assert all(shown[14:].encode() not in p.read_bytes() for p in folder.iterdir())
