"""COCO run lengths."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_formats.coco.rle import decode_rle, encode_rle
from edge.errors import DataError, FinesightError
from tests.trainer.damaged import damaged_json, few_examples


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


@pytest.mark.parametrize(
    ("text", "counts"),
    [("PT1Ph0PT1", [1152, 768, 1152]), ("04", [0, 4]), ("0222", [0, 2, 2, 4])],
)
def test_compressed_runs_are_numbers_from_the_fourth_on_differences(text, counts):
    side = (1, sum(counts))
    masks = [decode_rle({"size": side, "counts": one}) for one in (text, counts)]
    assert (masks[0] == masks[1]).all()


@pytest.mark.parametrize("text", ["P", "é", "\0", "o" * 40])
def test_text_that_is_no_runs_is_rejected(text):
    with pytest.raises(DataError, match="segmentation"):
        decode_rle({"size": [2, 2], "counts": text})


@few_examples
@given(data=st.data(), height=st.integers(1, 9), width=st.integers(1, 9))
def test_rle_round_trip_of_any_mask(data, height, width):
    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    mask = np.array(bits).reshape(height, width)
    assert (decode_rle(encode_rle(mask)) == mask).all()


@few_examples
@given(text=damaged_json({"size": [3, 4], "counts": [2, 5, 5]}) | damaged_json({"size": [3, 4], "counts": "255"}))
def test_any_rle_is_decoded_or_rejected(text):
    segmentation = json.loads(text)
    with contextlib.suppress(FinesightError):
        assert decode_rle(segmentation).dtype == np.bool_
