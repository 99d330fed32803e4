"""`sign_attest`: all signatures and attestations of one image, against the cosign command line.

Ours writes both forms (`.sig`/`.att` and bundles) for index and platform manifest. cosign 2
writes the first, cosign 3 the second; so the peer is both of them doing the same work.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from builder.cli.releasing import ReleaseTools
from builder.model.image import BuiltImage
from builder.model.reference import Reference
from builder.oci.client import RegistryClient
from builder.oci.manifest import parse_manifest
from builder.pipeline.prepare import prepare
from builder.pipeline.release import Release, release
from builder.pipeline.timing import Stages
from builder.report import Silent
from builder.stages.publish import publish
from tests.bench.scene import Scene, Stopwatch
from tests.support.oracles import cosign

_PASSWORD = "bench"


def measure(scene: Scene) -> Iterator[tuple[str, float, str, float]]:
    """Seconds to sign and to bring the signatures to the registry; the image is there already."""
    scene.run()
    tools = scene.tools()
    image, done, provenance = _released(scene, tools)
    times = []
    for _ in range(3):
        with Stopwatch() as watch:
            signed = tools.tools().sign(image, done.evidence, done.verdict, provenance)
            publish(signed, tools.client)
        times.append(watch.seconds)
    yield "sign_attest", sorted(times)[1], "s", _cosign(scene, image, done, provenance)


def _released(scene: Scene, tools: ReleaseTools) -> tuple[BuiltImage, Release, Any]:
    workshop = tools.workshop
    target = workshop.catalogue.find("base:13")
    prepared = prepare(workshop.catalogue, target)
    image = workshop.builder(["direct"]).reuse(prepared)
    if image is None:
        raise AssertionError("the image is not there")
    done = release(prepared, image, None, tools.tools(), scene.store, Stages(target.ref, Silent()))
    return image, done, tools.tools().provenance(prepared, image, None)


def _cosign(scene: Scene, image: BuiltImage, done: Release, provenance: Any) -> float:
    """cosign 2 and 3: one signature and six attestations, on index and platform manifest."""
    with scene.store.scratch("bench") as work:
        files = _predicates(work, done, provenance)
        reference = _copy(scene, image)
        total = 0.0
        for major in (2, 3):
            program, options = cosign(major), _options(scene, work, major)
            environment = {"COSIGN_PASSWORD": _PASSWORD, "HOME": str(work)}
            folder = work / str(major)
            folder.mkdir()
            scene.peer([program, "generate-key-pair", "--output-key-prefix", folder / "key"], **environment)
            key = ["--key", folder / "key.key", "--yes", *options]
            with Stopwatch() as watch:
                for digest in (image.digest, image.platforms[0].manifest.digest):
                    name = str(reference.with_digest(digest))
                    scene.peer([program, "sign", *key, name], **environment)
                    for kind, file in files.items():
                        scene.peer(
                            [program, "attest", *key, "--type", kind, "--predicate", file, name],
                            **environment,
                        )
            total += watch.seconds
    return total


def _copy(scene: Scene, image: BuiltImage) -> Reference:
    """The image in a repository of the peer's: foreign signatures beside ours are refused later."""
    client = RegistryClient(scene.settings.registry)
    source, copy = f"candidate/{image.target.definition.name}", "peer/signed"
    for digest in (image.platforms[0].manifest.digest, image.digest):
        data, media_type, _ = client.get_manifest(client.reference(source, digest=digest))
        for blob in parse_manifest(data, media_type).blobs:
            client.mount_blob(copy, blob.digest, source)
        client.put_manifest(client.reference(copy, digest=digest), data, media_type)
    return client.reference(copy, digest=image.digest)


def _options(scene: Scene, work: Path, major: int) -> list[str | Path]:
    if major == 2:
        return ["--tlog-upload=false"]
    config, root = work / "signing-config.json", work / "trusted-root.json"
    media = "application/vnd.dev.sigstore"
    config.write_text(
        json.dumps({"mediaType": f"{media}.signingconfig.v0.2+json", "rekorTlogConfig": {}, "tsaConfig": {}})
    )
    root.write_text(json.dumps({"mediaType": f"{media}.trustedroot+json;version=0.1"}))
    return ["--signing-config", config, "--trusted-root", root]


def _predicates(work: Path, done: Release, provenance: Any) -> dict[str, Path]:
    from builder.model.evidence import Sboms

    sboms = done.evidence[0].sboms
    if not isinstance(sboms, Sboms):
        raise AssertionError("no SBOM")
    contents = {
        "slsaprovenance1": json.dumps(provenance).encode(),
        "cyclonedx": sboms.cyclonedx,
        "spdxjson": sboms.spdx,
        "vuln": b'{"invocation":{},"scanner":{"result":{}},"metadata":{}}',
        "https://in-toto.io/attestation/test-result/v0.1": b'{"result":"PASSED","configuration":[]}',
        "https://goldsmith.dev/attestations/verdict/v1": b'{"approved":true}',
    }
    out = {}
    for number, (kind, data) in enumerate(contents.items()):
        out[kind] = work / f"predicate{number}.json"
        out[kind].write_bytes(data)
    return out
