"""The catalogue of known images: read from a registry, signed, believed only when all is right."""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.errors import RegistryError
from builder.model.channel import Channel, ChannelRecord
from builder.model.digest import Digest, canonical_json
from builder.model.image import Descriptor
from builder.signing.statements import PAYLOAD_TYPE, pae
from registry.devcheck.export import read_registry
from registry.devcheck.known import Known
from registry.devcheck.known_file import PAYLOAD_TYPE as OURS
from registry.devcheck.known_file import CatalogueRefused, decode, encode, load
from registry.promotion.records import signed_record
from tests.support import evidence
from tests.support.evidence import World, world
from tests.support.images import NOW, built_image
from tests.support.known import known
from tests.support.memory_registry import HOST, MemoryRegistry

REPO = "candidate/python"
VALID = dt.timedelta(days=14)


class Registry:
    """A registry in memory that lists its repositories and tags too."""

    host = HOST

    def __init__(self) -> None:
        self.memory = MemoryRegistry()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.memory, name)

    def repositories(self) -> tuple[str, ...]:
        self.memory._ask("repositories")
        return tuple(sorted({repo for repo, _ in self.memory.manifests}))

    def tags(self, repo: str) -> tuple[str, ...]:
        return tuple(sorted(tag for name, tag in self.memory.tags if name == repo))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def registry(here: World, tmp_path: Path) -> Registry:
    """An older build, then the newest; the tag moved on. Another repository is nobody's business."""
    held = Registry()
    old = built_image(tmp_path / "old", files=({"hello": b"older\n"},), version="3.13.4")
    proofs = tuple(evidence.evidence(p) for p in old.platforms)
    before = replace(
        here, image=old, proofs=proofs, verdict=evidence.approval(old, proofs, NOW - dt.timedelta(days=30))
    )
    held.store_signed(REPO, before.signed())
    held.store_signed(REPO, here.signed())
    held.store_image("other/x", old, ("1",))
    return held


def read(registry: Registry, here: World, now: dt.datetime = NOW) -> Known:
    return read_registry(registry, here.trust, now, mirror="mirror.example", valid=VALID)


def test_the_registry_tells_everything(registry: Registry, here: World) -> None:
    found = read(registry, here)
    (image,) = found.images
    assert (image.ref, image.repository, image.tags) == ("python:3.13", REPO, ("3.13",))
    assert (image.channel, image.refused) == ("candidate", "")
    assert image.current.digest == here.image.digest
    assert image.current.packages == ("hello=2.10-5",)
    assert [(v.id, v.package, v.severity) for v in image.current.vulnerabilities] == [
        ("CVE-2026-1", "hello=2.10-5", "LOW")
    ]
    assert image.current.platforms == {"linux/amd64": here.image.platforms[0].manifest.digest}
    assert image.current.immutable_tag == here.image.immutable_tag
    assert image.current.created == NOW
    assert image.verdict_expires == here.verdict.expires_at
    (earlier,) = image.previous  # its verdict has expired, but what is in it is attested
    assert earlier.digest != image.current.digest
    assert earlier.packages == ("hello=2.10-5",)
    assert (found.mirror, found.exported, found.valid_until) == ("mirror.example", NOW, NOW + VALID)


def test_an_expired_image_is_listed_as_refused(registry: Registry, here: World) -> None:
    (image,) = read(registry, here, NOW + dt.timedelta(days=8)).images
    assert "has expired" in image.refused


def test_an_unsigned_image_is_listed_as_refused(registry: Registry, here: World) -> None:
    registry.drop_bundles(REPO)
    registry.drop_tags(REPO, ".sig", ".att")
    (image,) = read(registry, here).images
    assert image.refused == "nothing is signed"
    assert (image.current.packages, image.previous) == ((), ())


def decided(here: World, digest: Digest, channel: Channel, sequence: int = 1) -> ChannelRecord:
    tag = here.image.immutable_tag
    why, other = "CVE-2026-9", "python:3.14@" + digest
    return ChannelRecord(digest, "python:3.13", tag, channel, sequence, Digest.of(b"entry"), NOW, why, other)


def test_decisions_are_heeded(registry: Registry, here: World) -> None:
    """A promoted image hides its candidates; the newest record says where it stands."""
    (before,) = read(registry, here).images
    registry.store_signed("python", here.signed())
    assert [i.repository for i in read(registry, here).images] == []  # there, but never promoted
    for number, channel in enumerate((Channel.STABLE, Channel.DEPRECATED, Channel.WITHDRAWN), 1):
        for subject in (here.image.index, *(p.manifest for p in here.image.platforms)):
            record = decided(here, here.image.digest, channel, number)
            registry.store("python", signed_record(record, subject, here.keys.verdict))
        (image,) = read(registry, here).images
        assert (image.repository, image.channel, image.reason) == ("python", str(channel), "CVE-2026-9")
        assert image.replacement == "python:3.14"
        assert bool(image.refused) == (channel is Channel.WITHDRAWN) == bool(image.current.withdrawn)
    old = before.previous[0].digest
    (subject,) = (
        Descriptor(m[1], d, len(m[0]))
        for (r, d), m in registry.memory.manifests.items()
        if (r, d) == (REPO, old)
    )
    registry.memory.manifests = {k: v for k, v in registry.memory.manifests.items() if k[0] == REPO}
    record = decided(here, Digest(old), Channel.WITHDRAWN)
    registry.store(REPO, signed_record(record, subject, here.keys.verdict))
    (image,) = read(registry, here).images
    assert (image.channel, image.previous[0].withdrawn) == ("candidate", "CVE-2026-9")


def test_a_registry_that_is_down_gives_no_catalogue(registry: Registry, here: World) -> None:
    registry.memory.down = True
    with pytest.raises(RegistryError):
        read(registry, here)


def test_a_signed_file_is_read_back(here: World, tmp_path: Path) -> None:
    path = tmp_path / "catalogue.json"
    path.write_bytes(encode(known(), here.keys.verdict))
    assert load(path, here.trust, NOW) == known()


def forged(here: World, **changes: Any) -> bytes:
    """A file whose payload has other values, properly signed."""
    value = {**json.loads(known().model_dump_json(by_alias=True)), **changes}
    return sealed(here, canonical_json(value))


def sealed(here: World, payload: bytes, kind: str = OURS) -> bytes:
    signature = here.keys.verdict.sign(pae(kind, payload))
    return canonical_json(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(signature).decode()}],
        }
    )


def test_bad_files_are_refused(here: World, tmp_path: Path) -> None:
    good = encode(known(), here.keys.verdict)
    other = known().model_copy(update={"mirror": "evil.example"})
    envelope = json.loads(good)
    payload = base64.b64encode(canonical_json(other.model_dump(mode="json", by_alias=True))).decode()
    two = [*envelope["signatures"], *envelope["signatures"]]
    cases = {
        "not proper JSON": b"nothing",
        "not an exported catalogue": b"{}",
        "was changed": json.dumps({**envelope, "payload": payload}).encode(),
        "trusted verdict key": encode(known(), here.keys.builder),
        "holds something else": sealed(here, b"{}", PAYLOAD_TYPE),
        "exactly one signature": json.dumps({**envelope, "signatures": two}).encode(),
        "another version": forged(here, schema=2),
        "malformed": forged(here, images=[{}]),
        "from the future": forged(here, exported="2026-03-02T12:00:00Z"),
        "too old": forged(here, valid_until="2026-02-01T00:00:00Z"),
    }
    for message, data in cases.items():
        with pytest.raises(CatalogueRefused, match=message) as caught:
            decode(data, here.trust, NOW)
        assert caught.value.exit_code == 1
    with pytest.raises(CatalogueRefused, match="cannot be read"):
        load(tmp_path / "gone", here.trust, NOW)
    with pytest.raises(CatalogueRefused, match="malformed"):
        decode(forged(here, surprise=1), here.trust, NOW)
