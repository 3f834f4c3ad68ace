"""JSON from outside: bounded before it is parsed, and read as every other parser reads it."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.strict_json import parse_json, parse_plain_objects

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
TREES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
WITHIN_LIMITS = settings(derandomize=True, max_examples=200, deadline=None)


def wrong_json(data: bytes | str) -> str:
    """The message for a document that is refused."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_json(data, 1_000_000)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@WITHIN_LIMITS
@given(TREES, st.booleans())
def test_documents_are_read_as_by_the_standard_library(tree, ascii_only):
    text = json.dumps(tree, ensure_ascii=ascii_only)
    assert parse_json(text.encode(), 1_000_000) == tree
    assert parse_json(text, 1_000_000) == tree


@WITHIN_LIMITS
@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_a_value_error(data):
    with suppress(ValueError):
        assert parse_json(data, 1_000_000) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "found the key 'a' twice"),
        (b'{"a": NaN}', "found the number NaN"),
        (b"[-Infinity]", "found the number -Infinity"),
        (b"[1e999]", "found the number 1e999"),
        (b"[1%s]" % (b"0" * 5000), "found a number of 5001 digits"),
        (b"[" * 33 + b"]" * 33, "found JSON 33 levels deep, expected 32 at most"),
        (b"[" * 100_000, "found JSON 100000 levels deep"),
        (b'{"a":' * 100_000, "levels deep"),
        (b'["\\ud800"]', "not UTF-8"),
        (b"\xff", "not UTF-8"),
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else None,
)
def test_document_that_parsers_read_differently_is_refused(data, message):
    assert message in wrong_json(data)


def test_brackets_within_text_do_not_count_as_depth():
    text = json.dumps(["[" * 1000, '\\"[[[', "{" * 1000])
    assert parse_json(text, 1_000_000, max_depth=1) == json.loads(text)


def test_document_is_measured_before_it_is_parsed():
    assert parse_json(b"[1]", 3) == [1]
    with pytest.raises(ValueError, match="found 4 bytes of JSON, expected 3 at most"):
        parse_json(b"[12]", 3)


VALUES = SCALARS | st.text('a{}[]:,"\\', max_size=4)
ANY_DOCUMENT = st.one_of(
    st.dictionaries(
        st.text("ab:{}", max_size=3),
        VALUES | st.dictionaries(st.text("ab:{}", max_size=3), VALUES, max_size=2),
        max_size=3,
    ).map(json.dumps),
    st.sampled_from(
        [
            '{"a":1',
            '"b":2}',
            '{"a":{"b":1}',
            '{"a":{"b":1,"b":2}}',
            '{"a":1},{"b":{}}',
            '{"a":{"b":{}}}',
            '{"a":"',
            '{","b":1}',
            '{"a":1,"a":2}',
            '{"a":NaN}',
            '{"a":1e999}',
            "{}",
            "",
            "5",
        ]
    ),
)


@WITHIN_LIMITS
@given(st.lists(ANY_DOCUMENT, max_size=4))
def test_documents_parsed_together_are_those_parsed_one_by_one(documents):
    found = parse_plain_objects(documents, 1_000)
    if found is not None:
        assert found == [parse_json(document, 1_000) for document in documents]


def test_plain_objects_are_parsed_together():
    documents = ['{"size": 5, "name": "a b"}', "{}", '{"negative": true, "price": -1.5}', '{"of": {"colour": "red"}}']
    assert parse_plain_objects(documents, 1_000) == [json.loads(document) for document in documents]
    assert parse_plain_objects(documents, 10) is None
    assert parse_plain_objects([*documents, "{"], 1_000) is None
    assert parse_plain_objects(['{"a":"}', '{","b":1}'], 1_000) is None  # together they are one object
    assert parse_plain_objects(['{"a":{"b":1}', '{"c":2}}'], 1_000) is None
    assert parse_plain_objects(['{"a":{"b":{}}}'], 1_000) is None
    assert parse_plain_objects(['{":{"a":"}}'] * 4_000, 1_000) is None  # together they are very deep
