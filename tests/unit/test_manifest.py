"""Manifests: canonical to the byte, and strict against everything ambiguous."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.errors import RegistryError
from builder.model.digest import Digest
from builder.model.image import CONFIG_TYPE, INDEX_TYPE, LAYER_TYPE, MANIFEST_TYPE, Descriptor, ImageConfig
from builder.model.platform import Platform
from builder.oci.manifest import (
    MANIFEST_MAX,
    config_bytes,
    index_bytes,
    manifest_bytes,
    parse_json,
    parse_manifest,
)

CONFIG = Descriptor(CONFIG_TYPE, Digest.of(b"config"), 6)
LAYER = Descriptor(LAYER_TYPE, Digest.of(b"layer"), 5)
GOOD = manifest_bytes(CONFIG, [LAYER], {"a": "b"})


def altered(**changes: object) -> bytes:
    raw = json.loads(GOOD) | changes
    return json.dumps({k: v for k, v in raw.items() if v is not ...}).encode()


def with_layer(**changes: object) -> bytes:
    layer = {k: v for k, v in (LAYER.as_dict() | changes).items() if v is not ...}
    return altered(layers=[layer])


def test_a_written_manifest_is_read_back() -> None:
    manifest = parse_manifest(GOOD, MANIFEST_TYPE)
    assert (manifest.config, manifest.layers, manifest.annotations) == (CONFIG, (LAYER,), {"a": "b"})
    assert not manifest.is_index
    assert manifest.blobs == (CONFIG, LAYER)


def test_documents_are_canonical() -> None:
    assert json.dumps(json.loads(GOOD), sort_keys=True, separators=(",", ":")).encode() == GOOD
    assert b'"mediaType":"application/vnd.oci.image.manifest.v1+json"' in GOOD


def test_an_index_keeps_order_and_platform() -> None:
    one = Descriptor(MANIFEST_TYPE, Digest.of(b"1"), 1, platform=Platform("linux", "arm64"))
    two = Descriptor(MANIFEST_TYPE, Digest.of(b"2"), 1, platform=Platform("linux", "amd64"))
    index = parse_manifest(index_bytes([one, two]), INDEX_TYPE)
    assert index.is_index
    assert index.manifests == (one, two)


def test_the_configuration_is_a_function_of_its_values() -> None:
    config = ImageConfig("65532:65532", {"B": "2", "A": "1"}, ("/x",), None, "/", {})
    east = dt.datetime(2026, 1, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    data = config_bytes(config, Platform("linux", "amd64"), east, [Digest.of(b"t")], ["base"])
    assert json.loads(data) == {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Env": ["A=1", "B=2"], "User": "65532:65532", "WorkingDir": "/", "Entrypoint": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"t"))]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "base"}],
    }
    with pytest.raises(ValueError, match="history"):
        config_bytes(config, Platform("linux", "amd64"), east, [Digest.of(b"t")], [])


HOSTILE = {
    "not json": b"<html>",
    "empty": b"",
    "no object": b"[]",
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "utf-16": GOOD.decode().encode("utf-16"),
    "invalid utf-8": GOOD.replace(b'"a":"b"', b'"a":"\xff"'),
    "trailing data": GOOD + b"{}",
    "trailing nul": GOOD + b"\0",
    "duplicate key": GOOD.replace(b'{"annotations"', b'{"schemaVersion":2,"annotations"'),
    "duplicate nested key": GOOD.replace(b'{"a":"b"}', b'{"a":"b","a":"c"}'),
    "NaN": GOOD.replace(b'"schemaVersion":2', b'"schemaVersion":NaN'),
    "infinite size": GOOD.replace(b'"size":5', b'"size":1e999'),
    "huge number": GOOD.replace(b'"size":5', b'"size":' + b"9" * 5000),
    "nesting of 10,000": b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "nesting of 40": b'{"x":' + b"[" * 40 + b"]" * 40 + b"}",
    "one byte over 4 MiB": GOOD + b" " * (MANIFEST_MAX + 1 - len(GOOD)),
    "layers and manifests": altered(manifests=[]),
    "schema 1": altered(fsLayers=[]),
    "no media type": altered(mediaType=...),
    "unknown media type": altered(mediaType="text/html"),
    "media type is a list": altered(mediaType=["x"]),
    "index with layers": altered(mediaType=INDEX_TYPE, manifests=[]),
    "schema version 1": altered(schemaVersion=1),
    "schema version true": altered(schemaVersion=True),
    "no layers": altered(layers=...),
    "layers is a map": altered(layers={}),
    "10,000 layers": altered(layers=[LAYER.as_dict()] * 10_000),
    "no config": altered(config=...),
    "config is a text": altered(config="x"),
    "size -1": with_layer(size=-1),
    "size as text": with_layer(size="5"),
    "size true": with_layer(size=True),
    "size 1e3": with_layer(size=5.0),
    "size of 2^63": with_layer(size=2**63),
    "no size": with_layer(size=...),
    "sha512": with_layer(digest="sha512:" + "0" * 128),
    "upper-case hex": with_layer(digest="sha256:" + "A" * 64),
    "short digest": with_layer(digest="sha256:abc"),
    "digest with a path": with_layer(digest="sha256:../../../etc/passwd"),
    "digest with a newline": with_layer(digest=str(LAYER.digest) + "\n"),
    "no digest": with_layer(digest=...),
    "foreign urls": with_layer(urls=["http://169.254.169.254/latest"]),
    "data against the digest": with_layer(data=base64.b64encode(b"LAYER").decode()),
    "data not base64": with_layer(data="%%%"),
    "layer without media type": with_layer(mediaType=...),
    "control characters in the media type": with_layer(mediaType="a/b\x1b[31m"),
    "annotation is a number": with_layer(annotations={"a": 1}),
    "annotations is a list": altered(annotations=[]),
    "platform is a text": with_layer(platform="linux/amd64"),
    "subject is a text": altered(subject="x"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_is_refused(name: str) -> None:
    with pytest.raises(RegistryError):
        parse_manifest(HOSTILE[name])


def test_header_and_body_must_agree() -> None:
    parse_manifest(GOOD, MANIFEST_TYPE + "; charset=utf-8")
    with pytest.raises(RegistryError, match="sent as"):
        parse_manifest(GOOD, INDEX_TYPE)


def test_data_that_is_what_its_digest_says_is_accepted() -> None:
    data = base64.b64encode(b"layer").decode()
    assert parse_manifest(with_layer(data=data)).layers == (LAYER,)


@pytest.mark.parametrize(
    "platform",
    [
        {"os": "unknown", "architecture": "unknown"},
        {"os": "windows", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64", "variant": "v9"},
    ],
)
def test_a_foreign_platform_is_none_of_ours(platform: dict[str, str]) -> None:
    raw = json.loads(index_bytes([LAYER]))
    raw["manifests"][0]["platform"] = platform
    assert parse_manifest(json.dumps(raw).encode()).manifests[0].platform is None


def test_an_error_does_not_repeat_megabytes() -> None:
    with pytest.raises(RegistryError) as caught:
        parse_manifest(altered(mediaType="x" * 1_000_000))
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "text",
    [
        '{"a":18446744073709551616}',
        '{"a":-0}',
        '{"a":1.0}',
        '{"a":1e16}',
        '{"a":[true,1,""]}',
        '{"a":"\\ud800\\/\\u0041"}',
        '{"b":1,"a":{"c":null}}',
        '{ "a" : 1 }',
        '{"a":"}{"}',
    ],
)
def test_every_way_to_write_a_value_is_read_alike(text: str) -> None:
    """Documents in the form that we write ourselves are read in a shorter way."""
    found = parse_json(text.encode(), "thing")
    assert repr(found) == repr(json.loads(text)) == repr(parse_json(b" " + text.encode(), "thing"))


@pytest.mark.parametrize(
    "text", ['{"a":1,"a":1}', '{"a":1,"a":2}', '{"x":[{"a":{},"b":1,"a":{}}]}', '{"":0,"":0}']
)
@pytest.mark.parametrize("blank", [b"", b" "])
def test_a_repeated_key_is_refused_however_it_is_written(text: str, blank: bytes) -> None:
    with pytest.raises(RegistryError, match="proper JSON"):
        parse_json(text.encode() + blank, "thing")


@pytest.mark.parametrize(("depth", "fits"), [(31, True), (32, False)])
def test_nesting_has_a_limit_in_either_form(depth: int, fits: bool) -> None:
    for blank in (b"", b" "):
        data = b'{"x":' + b"[" * depth + b"]" * depth + b"}" + blank
        if fits:
            assert "x" in parse_json(data, "thing")
        else:
            with pytest.raises(RegistryError, match="nested"):
                parse_json(data, "thing")


def test_json_limits_apply_to_other_documents() -> None:
    with pytest.raises(RegistryError, match="larger than 3 bytes"):
        parse_json(b'{"a":1}', "thing", limit=3)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.binary() | st.dictionaries(st.sampled_from([*sorted(json.loads(GOOD)), "subject"]), JSON))
@settings(deadline=None, max_examples=300)
def test_any_other_input_is_a_typed_refusal(value: bytes | dict[str, object]) -> None:
    data = value if isinstance(value, bytes) else json.dumps(json.loads(GOOD) | value).encode()
    with contextlib.suppress(RegistryError):
        parse_manifest(data)
