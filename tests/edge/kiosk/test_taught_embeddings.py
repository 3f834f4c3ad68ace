"""The file format of cached embeddings."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.errors import TaughtItemsError
from edge.kiosk.taught_embeddings import pack_cache, unpack_cache

CACHE = {
    ("picture 1", "embedder"): np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32),
    ("picture 1", "localiser"): np.arange(8, dtype=np.uint8),
    ("picture 0", "embedder"): np.array([[np.pi, -0.0]], np.float32)[:, ::-1],
}


def test_cache_round_trips_in_any_order():
    assert pack_cache(dict(reversed(CACHE.items()))) == pack_cache(CACHE)
    found = unpack_cache(pack_cache(CACHE), "file")
    assert found.keys() == CACHE.keys()
    for key, array in CACHE.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
        assert found[key].tobytes() == array.tobytes()
    assert unpack_cache(pack_cache({}), "file") == {}


def test_changed_or_truncated_file_is_rejected():
    whole = pack_cache(CACHE)
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        with pytest.raises(TaughtItemsError, match="file: damaged"):
            unpack_cache(bytes(changed), "file")
        with pytest.raises(TaughtItemsError, match="file: damaged"):
            unpack_cache(whole[:at], "file")


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b"7",
        b'[["p", "b", "float64", [1]]]',
        b'[["p", "b", "float32", [9]]]',
        b'[["p", "b", "float32"]]',
        b'[[["p"], "b", "float32", [1]]]',
        b"\xff",
    ],
)
def test_intact_file_with_a_wrong_header_is_rejected(header):
    body = len(header).to_bytes(4, "little") + header + bytes(8)
    with pytest.raises(TaughtItemsError, match="header"):
        unpack_cache(pack_cache({})[: -len(pack_cache({})) + 17] + hashlib.sha256(body).digest() + body, "file")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["float32", "uint8", "p"])
    | st.text(max_size=5),
    lambda values: st.lists(values, max_size=5) | st.dictionaries(st.text(max_size=4), values, max_size=3),
    max_leaves=20,
)
ENTRY = st.tuples(
    st.text(max_size=3), st.text(max_size=3), st.sampled_from(["float32", "uint8"]), st.lists(st.integers(), max_size=3)
)
ARRAYS = hnp.arrays(st.sampled_from([np.float32, np.uint8]), hnp.array_shapes(max_dims=3, max_side=4))


def with_checksum(body):
    magic = pack_cache({})[:17]
    return magic + hashlib.sha256(body).digest() + body


@settings(derandomize=True, max_examples=100, deadline=None)
@given(header=JSON | st.lists(ENTRY, max_size=4), numbers=st.binary(max_size=64))
def test_any_header_gives_a_cache_or_our_error(header, numbers):
    text = json.dumps(header).encode()
    try:
        cache = unpack_cache(with_checksum(len(text).to_bytes(4, "little") + text + numbers), "file")
    except TaughtItemsError:
        return
    assert all(array.dtype in (np.float32, np.uint8) for array in cache.values())


@pytest.mark.parametrize("header", [b'[["p", "b", "uint8", [99999999999999999999]]]', b"[" * 100_000 + b"]" * 100_000])
def test_huge_shape_or_nesting_is_our_error(header):
    with pytest.raises(TaughtItemsError, match="header"):
        unpack_cache(with_checksum(len(header).to_bytes(4, "little") + header), "file")


@settings(derandomize=True, max_examples=100, deadline=None)
@given(data=st.binary(max_size=100))
def test_any_bytes_give_our_error(data):
    for candidate in (data, with_checksum(data)[:49] + data, data + pack_cache({})):
        try:
            unpack_cache(candidate, "file")
        except TaughtItemsError:
            continue


@settings(derandomize=True, max_examples=100, deadline=None)
@given(cache=st.dictionaries(st.tuples(st.text(max_size=5), st.text(max_size=5)), ARRAYS, max_size=4))
def test_any_cache_round_trips(cache):
    found = unpack_cache(pack_cache(cache), "file")
    assert found.keys() == cache.keys()
    for key, array in cache.items():
        assert (found[key].dtype, found[key].shape) == (array.dtype, array.shape)
        assert found[key].tobytes() == array.tobytes()
