"""The file format of cached embeddings."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

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
