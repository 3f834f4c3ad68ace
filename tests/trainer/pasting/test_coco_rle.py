"""COCO run lengths."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.pasting.coco_rle import decode_rle, encode_rle


@pytest.mark.parametrize("seed", [0, 1])
def test_rle_round_trip(seed):
    mask = np.random.default_rng(seed).random((7, 11)) < 0.5
    encoded = encode_rle(mask)
    assert sum(encoded["counts"]) == 77
    assert (decode_rle(encoded) == mask).all()


def test_rle_runs_down_columns_and_begins_with_zeros():
    mask = np.array([[True, False], [True, True]])
    assert encode_rle(mask) == {"size": [2, 2], "counts": [0, 2, 1, 1]}


def test_rle_of_wrong_length_gives_an_empty_mask():
    assert not decode_rle({"size": [2, 2], "counts": [0, 9]}).any()
