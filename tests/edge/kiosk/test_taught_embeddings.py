"""The bytes in which what models made of a taught thing is kept."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edge.errors import TaughtItemsError
from edge.kiosk.taught_embeddings import pack, unpack

MADE = {
    ("picture 1", "embedder"): np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32),
    ("picture 1", "localiser"): np.arange(8, dtype=np.uint8),
    ("picture 0", "embedder"): np.array([[np.pi, -0.0]], np.float32)[:, ::-1],
}


def test_every_bit_comes_back_whatever_the_order():
    assert pack(dict(reversed(MADE.items()))) == pack(MADE)
    found = unpack(pack(MADE), "file")
    assert found.keys() == MADE.keys()
    for key, numbers in MADE.items():
        assert (found[key].dtype, found[key].shape) == (numbers.dtype, numbers.shape)
        assert found[key].tobytes() == numbers.tobytes()
    assert unpack(pack({}), "file") == {}


def test_a_file_with_any_byte_changed_or_cut_short_is_refused():
    whole = pack(MADE)
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1
        with pytest.raises(TaughtItemsError, match="file: found"):
            unpack(bytes(changed), "file")
        with pytest.raises(TaughtItemsError, match="file: found"):
            unpack(whole[:at], "file")


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
def test_a_whole_file_with_a_foreign_header_is_refused(header):
    body = len(header).to_bytes(4, "little") + header + bytes(8)
    with pytest.raises(TaughtItemsError, match="header"):
        unpack(pack({})[: -len(pack({})) + 17] + hashlib.sha256(body).digest() + body, "file")
