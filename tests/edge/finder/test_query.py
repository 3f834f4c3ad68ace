"""Masks and layout of query pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import PictureError
from edge.finder.query import lay_out_query, object_mask
from tests.edge.finder.finder_samples import RED, SHAPE, scene_with
from tests.fakes_engine import SPEC


def test_object_on_a_plain_background_is_masked_with_its_holes():
    picture = np.full((40, 40, 3), 255, np.uint8)
    picture[10:30, 12:28] = RED
    picture[16:20, 16:20] = 255
    mask = object_mask(picture)
    assert mask.sum() == 20 * 16
    assert mask[17, 17] == 1
    assert mask[5, 5] == 0


def test_picture_without_a_plain_background_is_the_object():
    assert object_mask(np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)).all()


def test_box_is_clipped_to_the_picture():
    picture = scene_with()
    assert object_mask(picture, (50, 60, 90, 70)).sum() == 14 * 4
    with pytest.raises(PictureError, match="lies outside the picture of 64x64"):
        object_mask(picture, (70, 0, 90, 10))


def test_all_sizes_are_centred_on_a_grey_background():
    picture = np.full((30, 30, 3), (0, 200, 0), np.uint8)
    picture[5:25, 10:20] = RED  # 10 wide, 20 high
    mask = np.zeros((30, 30), np.uint8)
    mask[5:25, 10:20] = 1
    canvas, coverage = lay_out_query(picture, mask, SHAPE, SPEC)
    assert canvas[8, 8].tolist() == list(RED)
    assert canvas[8, 2].tolist() == [SPEC.fill] * 3  # beside it, where the green was
    assert canvas[12, 44].tolist() == list(RED)
    assert not (canvas == (0, 200, 0)).all(axis=2).any()
    assert coverage.shape == (8, 8)
    assert coverage[:2, :2] == pytest.approx(0.5)
    assert coverage[:3, 4:7].sum() * 64 == pytest.approx(24 * 12)


def test_empty_mask_is_rejected():
    with pytest.raises(PictureError, match=r"the mask \(64, 64\) has 0 pixels set"):
        lay_out_query(scene_with(), np.zeros((64, 64), np.uint8), SHAPE, SPEC)
