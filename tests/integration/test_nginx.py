"""The gate behind a real nginx with our configuration: TLS in front, blobs sent by nginx, refusals by the gate."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from builder.model.digest import Digest
from builder.oci.client import RegistryClient
from builder.stages.publish import publish
from tests.support.evidence import World, world
from tests.support.gates import Reply, running_gate
from tests.support.nginx import ACCEL, Nginx, nginx
from tests.support.private_clients import root_only
from tests.support.registry_simulator import simulator

pytestmark = pytest.mark.integration
REPO = "candidate/python"


@dataclass(frozen=True)
class Front:
    """What clients reach."""

    here: World
    server: Nginx

    def ask(self, method: str, path: str, **headers: str) -> Reply:
        """One request with TLS, its path as it is."""
        trust = ssl.create_default_context(cafile=str(self.server.certificate))
        connection = http.client.HTTPSConnection(self.server.secure, timeout=20, context=trust)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    root_only()  # an nginx of another user could not read the tests' files
    folder = tmp_path_factory.mktemp("nginx")
    with simulator() as sim:
        here = replace(
            world(folder / "world", files=({"data": os.urandom(1 << 20)},)),
            repository=f"{sim.address}/{REPO}",
        )
        publish(here.signed(), RegistryClient(sim.address))
        blobs = folder / "blobs"
        for digest, content in sim.blobs[REPO].items():
            path = blobs / "sha256" / digest[7:9] / digest[7:] / "data"
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
        with (
            running_gate(sim.address, here.trust, accel=ACCEL) as gate,
            nginx(folder / "nginx", gate.address, blobs) as server,
        ):
            yield Front(here, server)


def test_a_manifest_comes_from_the_gate(front: Front) -> None:
    got = front.ask("GET", f"/v2/{REPO}/manifests/3.13")
    assert (got.status, got.headers["docker-content-digest"]) == (200, front.here.image.digest)
    assert Digest.of(got.body) == front.here.image.digest
    assert "max-age" in got.headers["strict-transport-security"]


def test_a_blob_is_sent_by_nginx_as_the_registry_would(front: Front) -> None:
    blob = front.here.image.platforms[0].layers[0].blob
    path = f"/v2/{REPO}/blobs/{blob.digest}"
    got = front.ask("GET", path)
    assert (got.status, Digest.of(got.body)) == (200, blob.digest)
    assert got.headers["content-type"] == "application/octet-stream"
    assert got.headers["docker-content-digest"] == blob.digest
    assert got.headers["etag"] == f'"{blob.digest}"'
    assert "x-accel-redirect" not in got.headers
    head = front.ask("HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(blob.size), b"")
    part = front.ask("GET", path, Range="bytes=10-19")
    assert (part.status, part.body) == (206, got.body[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{blob.size}"


def test_nobody_reaches_the_blobs_past_the_gate(front: Front) -> None:
    digest = front.here.image.platforms[0].layers[0].blob.digest
    assert front.ask("GET", f"{ACCEL}/sha256/{digest[7:9]}/{digest[7:]}/data").status == 404
    assert front.ask("GET", f"/v2/{REPO}/blobs/{Digest.of(b'?')}").status == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/v2/{REPO}/manifests/9", 404),
        ("GET", "/v2/candidate%2fpython/manifests/3.13", 400),
        ("GET", f"/v2//{REPO}/manifests/3.13", 400),
        ("GET", f"/v2/x/../{REPO}/manifests/3.13", 400),
        ("PUT", f"/v2/{REPO}/manifests/3.13", 405),
    ],
)
def test_names_reach_the_gate_as_they_came(front: Front, method: str, path: str, status: int) -> None:
    got = front.ask(method, path)
    assert (got.status, got.headers["content-type"].partition(";")[0]) == (status, "application/json")


def test_who_comes_without_tls_is_sent_to_it(front: Front) -> None:
    connection = http.client.HTTPConnection(front.server.plain, timeout=20)
    connection.request("GET", "/v2/", headers={"Host": "images.example.com"})
    reply = connection.getresponse()
    assert (reply.status, reply.getheader("Location")) == (308, "https://images.example.com/v2/")
    connection.close()
