"""Whatever a registry sends, the parsers answer with a value or with a typed refusal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.model.digest import canonical_json
from builder.signing import predicates as p
from builder.signing import verdicts
from builder.signing.cosign_formats import bundle
from builder.signing.cosign_parse import parse_attestation, parse_bundle
from builder.signing.refusal import EvidenceRefused
from builder.signing.statements import parse_simple_signing, parse_statement, simple_signing
from tests.support.evidence import World, world
from tests.support.forge import draft

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    out = [path]
    if isinstance(value, dict):
        out += [q for key in value for q in _paths(value[key], (*path, key))]
    elif isinstance(value, list):
        out += [q for n, item in enumerate(value) for q in _paths(item, (*path, n))]
    return out


def _replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    if not path:
        return by
    out = dict(value) if isinstance(value, dict) else list(value)
    out[path[0]] = _replaced(value[path[0]], path[1:], by)
    return out


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("fuzz"))


def _answers(parse: Callable[[Any], object], value: Any) -> None:
    with contextlib.suppress(EvidenceRefused):
        parse(value)


PREDICATES: dict[str, Callable[[Any], object]] = {
    p.PROVENANCE_TYPE: p.parse_provenance,
    p.CYCLONEDX_TYPE: p.parse_cyclonedx,
    p.SPDX_TYPE: p.parse_spdx,
    p.VULNERABILITY_TYPE: p.parse_vulnerabilities,
    p.TEST_RESULT_TYPE: p.parse_test_result,
    p.VERDICT_TYPE: verdicts.decode,
}


@pytest.mark.parametrize("kind", PREDICATES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_predicate_with_anything_anywhere(here: World, kind: str, data: st.DataObject) -> None:
    good = json.loads(draft(here, here.image.index).of(kind).predicate)
    PREDICATES[kind](good)
    path = data.draw(st.sampled_from([q for q in _paths(good) if q]))
    _answers(PREDICATES[kind], _replaced(good, path, data.draw(JSON)))


def _documents(here: World) -> list[tuple[Callable[[bytes], object], bytes]]:
    item = draft(here, here.image.index).of(p.TEST_RESULT_TYPE)
    signed = item.signed("bundles", "")
    envelope = json.loads(bundle(signed, "hint"))["dsseEnvelope"]
    return [
        (parse_bundle, bundle(signed, "hint")),
        (parse_attestation, canonical_json(envelope)),
        (parse_statement, signed.payload),
        (parse_simple_signing, simple_signing("host/name", here.image.digest)),
    ]


@pytest.mark.parametrize("number", range(4), ids=["bundle", "attestation", "statement", "signature"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_document_with_anything_anywhere(here: World, number: int, data: st.DataObject) -> None:
    parse, good = _documents(here)[number]
    parse(good)
    value = json.loads(good)
    path = data.draw(st.sampled_from([q for q in _paths(value) if q]))
    changed = json.dumps(_replaced(value, path, data.draw(JSON))).encode("utf-8", "surrogatepass")
    _answers(parse, changed)
    start = data.draw(st.integers(0, len(good) - 1))
    _answers(parse, good[:start] + data.draw(st.binary(max_size=8)) + good[start + 4 :])


def test_the_fuzz_starts_from_documents_that_parse(here: World) -> None:
    for parse, good in _documents(here):
        assert parse(good)
