"""Masks from plain backgrounds, and what is wrong with given masks."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.pasting.mask_samples import iou, red_square
from trainer.pasting.mask_sources import box_agreement, mask_flaw, mask_on_plain_background


def test_flood_from_the_border_keeps_the_object_without_holes():
    image, truth = red_square()
    image[~truth] = 255
    assert iou(mask_on_plain_background(image), truth) > 0.95


def test_background_that_is_not_plain_gives_no_mask():
    image = np.random.default_rng(1).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    assert mask_on_plain_background(image) is None


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (np.zeros((20, 30), np.bool_), "is empty"),
        (np.ones((20, 30), np.bool_), "covers the whole picture"),
        (np.ones((30, 20), np.bool_), "is 20x30, expected 30x20"),
        (np.pad(np.zeros((10, 20), np.bool_), 5, constant_values=True), "inverted"),
    ],
)
def test_wrong_mask_is_described(mask, said):
    assert said in mask_flaw(mask, (20, 30, 3))


def test_object_that_fills_its_picture_is_not_inverted():
    y, x = np.mgrid[-1:1:40j, -1:1:60j]
    assert mask_flaw(np.abs(x) + np.abs(y) < 1.9, (40, 60, 3)) is None


def test_box_agreement_is_iou_with_the_masks_extent():
    _, truth = red_square()
    assert box_agreement(truth, (32, 22, 68, 58)) == pytest.approx(1.0)
    assert box_agreement(truth, (32, 22, 68, 94)) == pytest.approx(0.5)
