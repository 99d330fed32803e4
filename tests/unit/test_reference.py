"""Names, tags and digests are parsed strictly, once."""

from __future__ import annotations

import pytest

from builder.model.digest import Digest, canonical_json
from builder.model.platform import Platform
from builder.model.reference import Reference

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("localhost:5000/a/b:1", ("localhost:5000", "a/b", "1", None)),
        ("registry.example/x", ("registry.example", "x", None, None)),
        (f"127.0.0.1:5/x:t@sha256:{HEX}", ("127.0.0.1:5", "x", "t", f"sha256:{HEX}")),
        (f"[::1]:5000/x@sha256:{HEX}", ("[::1]:5000", "x", None, f"sha256:{HEX}")),
        ("candidate/python:3.13", ("default:1", "candidate/python", "3.13", None)),
    ],
)
def test_a_reference_is_taken_apart_and_put_together(text: str, parts: tuple) -> None:
    found = Reference.parse(text, "default:1")
    assert (found.host, found.name, found.tag, found.digest) == parts
    assert Reference.parse(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "h.example/",
        "h.example/X",
        "h.example/a//b",
        "h.example/../b",
        "h.example/a%2fb",
        "h.example/a\\b",
        "h.example/a\0b",
        "h.example/аpple",
        "h.example/" + "a" * 256,
        "h.example/a:" + "t" * 129,
        "h.example/a:-x",
        "h.example/a:",
        "h.example/a@",
        "h.example/a@sha256:" + HEX.upper(),
        "h.example/a@sha256:" + HEX[:-1],
        "h.example/a@sha512:" + HEX * 2,
        "h.example/a@sha256:" + HEX + "/../x",
        "h example/a",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Reference.parse(text)


@pytest.mark.parametrize("text", ["sha256:" + "g" * 64, HEX, "sha256:", "SHA256:" + HEX, f"sha256:{HEX}\n"])
def test_only_a_sha256_digest_is_a_digest(text: str) -> None:
    with pytest.raises(ValueError):
        Digest(text)


def test_one_value_has_one_json() -> None:
    assert canonical_json({"b": 1, "a": ["ü"]}) == '{"a":["ü"],"b":1}'.encode()
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


@pytest.mark.parametrize("text", ["windows/amd64", "linux/unknown", "linux", "linux/amd64/v3"])
def test_an_unknown_platform_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Platform.parse(text)
