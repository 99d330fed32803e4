"""What we sign is accepted by the real cosign 2 and 3, in both formats, out of a real registry."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.model.digest import Digest
from builder.model.platform import Platform
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.settings import Settings
from builder.signing import predicates as p
from builder.signing.predicates import ROLE_OF
from builder.signing.refusal import EvidenceRefused
from builder.signing.statements import STATEMENT_V01, STATEMENT_V1, parse_statement
from builder.signing.verify import verify
from builder.stages.publish import publish
from builder.tools import process
from registry.storage import service
from tests.support.evidence import World, approval, world
from tests.support.images import AMD64, NOW
from tests.support.oracles import cosign
from tests.support.ports import free_address
from tests.support.requires import tool

pytestmark = pytest.mark.integration

# cosign's own names for our types, and the role whose key verifies them.
TYPES = {
    "slsaprovenance1": "builder",
    "cyclonedx": "builder",
    "spdxjson": "builder",
    "vuln": "builder",
    p.TEST_RESULT_TYPE: "builder",
    p.VERDICT_TYPE: "verdict",
}
OFFLINE = "--insecure-ignore-tlog=true"
TRUSTED_ROOT = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}


@dataclass(frozen=True)
class Published:
    """A published image, and cosign run against it."""

    world: World
    settings: Settings
    reference: Reference
    folder: Path

    @property
    def client(self) -> RegistryClient:
        return RegistryClient(self.settings.registry)

    def key(self, role: str) -> Path:
        return self.folder / "keys" / f"{role}.pub"

    def run(self, major: int, *arguments: str | Path, digest: Digest | None = None) -> process.Completed:
        """cosign without a home, keys or network of its own; its exit code is the caller's to judge."""
        environment = {
            "HOME": str(self.folder / "home"),
            "PATH": "/usr/bin:/bin",
            # Nothing but the registry on loopback can be reached.
            "https_proxy": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
            "no_proxy": "127.0.0.1",
        }
        target = str(self.reference.with_digest(digest or self.world.image.digest))
        return process.run(
            [cosign(major), *arguments, target],
            environment=environment,
            timeout_seconds=60,
            ok=tuple(range(256)),
        )


def _attestation(published: Published, name: str, role: str) -> tuple[str | Path, ...]:
    return ("verify-attestation", "--key", published.key(role), "--type", name, OFFLINE)


def _free_port() -> int:
    return int(free_address().rpartition(":")[2])


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    tool("docker-registry")
    folder = tmp_path_factory.mktemp("cosign")
    here = world(folder, platforms=(AMD64,))
    settings = Settings.load(
        environ={
            "PATH": os.environ.get("PATH", ""),
            "GOLDSMITH_STATE": str(folder / "state"),
            "GOLDSMITH_REGISTRY": f"127.0.0.1:{_free_port()}",
        },
        directory=folder,
        needs_catalogue=False,
    )
    service.up(settings)
    try:
        here = replace(here, repository=f"{settings.registry}/candidate/python")
        published_image = publish(here.signed(), RegistryClient(settings.registry))
        (folder / "root.json").write_text(json.dumps(TRUSTED_ROOT))
        yield Published(here, settings, Reference.parse(published_image.reference), folder)
    finally:
        service.down(settings)


def _subjects(published: Published) -> tuple[Digest, ...]:
    image = published.world.image
    return image.digest, *(x.manifest.digest for x in image.platforms)


@pytest.mark.parametrize("major", [2, 3])
def test_cosign_verifies_the_signature_of_index_and_platform(published: Published, major: int) -> None:
    for digest in _subjects(published):
        done = published.run(major, "verify", "--key", published.key("builder"), OFFLINE, digest=digest)
        assert done.returncode == 0, done.log
        assert digest in done.text


def test_cosign_3_verifies_the_signature_tag_too(published: Published) -> None:
    done = published.run(3, "verify", "--key", published.key("builder"), OFFLINE, "--new-bundle-format=false")
    assert done.returncode == 0, done.log


def test_cosign_3_verifies_the_signature_statement(published: Published) -> None:
    """The exact demand: some bundle by the key is not enough, it has to be the signature."""
    assert published.run(3, *_attestation(published, p.SIGNATURE_TYPE, "builder")).returncode == 0
    assert published.run(3, *_attestation(published, p.SIGNATURE_TYPE, "verdict")).returncode != 0


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize(
    ("major", "form"), [(2, "tags"), (2, "bundles"), (3, "bundles"), (3, "tags")], ids=str
)
def test_cosign_verifies_every_attestation(published: Published, major: int, form: str, name: str) -> None:
    role = TYPES[name]
    more: tuple[str | Path, ...] = ()
    if (major, form) == (2, "bundles"):
        more = ("--new-bundle-format", "--trusted-root", published.folder / "root.json")
    elif (major, form) == (3, "tags"):
        more = ("--new-bundle-format=false",)
    for digest in _subjects(published):
        done = published.run(major, *_attestation(published, name, role), *more, digest=digest)
        assert done.returncode == 0, done.log
        (printed,) = done.text.splitlines()
        statement = parse_statement(base64.b64decode(json.loads(printed)["payload"]))
        assert statement.type == (STATEMENT_V01 if form == "tags" else STATEMENT_V1)
        assert (statement.subject, ROLE_OF[statement.predicate_type]) == (digest, role)


@pytest.mark.parametrize("major", [2, 3])
@pytest.mark.parametrize("name", ["cyclonedx", p.VERDICT_TYPE])
def test_the_key_of_the_other_role_verifies_nothing(published: Published, major: int, name: str) -> None:
    role = TYPES[name]
    other = {"builder": "verdict", "verdict": "builder"}[role]
    done = published.run(major, "verify-attestation", "--key", published.key(other), "--type", name, OFFLINE)
    assert done.returncode != 0


def test_cosign_2_refuses_a_verdict_key_as_signer(published: Published) -> None:
    done = published.run(2, "verify", "--key", published.key("verdict"), OFFLINE)
    assert done.returncode != 0


def test_goldsmith_verifies_the_same_from_the_real_registry(published: Published) -> None:
    for reference in (published.reference, published.reference.with_tag("3.13")):
        found = verify(reference, published.client, published.world.trust, NOW)
        assert found.digest == published.world.image.digest
        assert {m.forms for m in found.manifests} == {("bundles", "tags")}
        assert all(m.ignored == 0 for m in found.manifests)


def test_a_second_publication_with_a_newer_verdict_is_verified_everywhere(
    published: Published, tmp_path: Path
) -> None:
    """The tags are replaced, the bundles grow by what changed, and the newer verdict governs."""
    here = world(tmp_path, name="again")
    here = replace(here, repository=f"{published.settings.registry}/candidate/again")
    reference = Reference.parse(publish(here.signed(), published.client).reference)
    later = NOW.replace(day=3)
    newer = replace(here, verdict=approval(here.image, here.proofs, later))
    publish(newer.signed(), published.client)
    found = verify(reference, published.client, here.trust, later)
    assert found.verdict.issued_at == later
    other = replace(published, world=here, reference=reference, folder=tmp_path)
    for major in (2, 3):
        assert other.run(major, "verify", "--key", other.key("builder"), OFFLINE).returncode == 0
        assert other.run(major, *_attestation(other, p.VERDICT_TYPE, "verdict")).returncode == 0


def test_several_platforms_are_signed_each(published: Published, tmp_path: Path) -> None:
    here = world(tmp_path, name="multi", platforms=(AMD64, Platform("linux", "arm64")))
    here = replace(here, repository=f"{published.settings.registry}/candidate/multi")
    done = publish(here.signed(), published.client)
    reference = Reference.parse(done.reference)
    found = verify(reference, published.client, here.trust, NOW)
    assert [str(m.platform) for m in found.manifests[1:]] == ["linux/amd64", "linux/arm64"]
    other = replace(published, world=here, reference=reference, folder=tmp_path)
    for digest in _subjects(other):
        assert other.run(2, "verify", "--key", other.key("builder"), OFFLINE, digest=digest).returncode == 0
        assert other.run(3, "verify", "--key", other.key("builder"), OFFLINE, digest=digest).returncode == 0


def test_an_unsigned_image_of_the_same_registry_is_refused_by_all(published: Published) -> None:
    """The control: cosign says no where we say no."""
    data, media_type, digest = published.client.get_manifest(published.reference)
    for blob in json.loads(data)["manifests"]:
        raw, kind, _ = published.client.get_manifest(published.reference.with_digest(Digest(blob["digest"])))
        for part in (json.loads(raw)["config"], *json.loads(raw)["layers"]):
            assert published.client.mount_blob(
                "candidate/unsigned", Digest(part["digest"]), published.reference.name
            )
        where = Reference(published.settings.registry, "candidate/unsigned", None, Digest(blob["digest"]))
        published.client.put_manifest(where, raw, kind)
    where = Reference(published.settings.registry, "candidate/unsigned", None, digest)
    published.client.put_manifest(where, data, media_type)
    bare = replace(published, reference=where)
    for major in (2, 3):
        assert bare.run(major, "verify", "--key", bare.key("builder"), OFFLINE).returncode != 0
    with pytest.raises(EvidenceRefused) as raised:
        verify(where, published.client, published.world.trust, NOW)
    assert raised.value.reference == "unsigned"
