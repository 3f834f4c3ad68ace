"""The agreement guard, and the mask source that judges by colour."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.pasting.mask_sources import context_window, grabcut
from trainer.pasting.self_tuning.agreement import colour_model, disagreement

BOX = (30.0, 20.0, 70.0, 60.0)


def red_square(ground: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """A red square of 36x36 px on noise, with a spot of the ground's colour in its middle; and its true mask."""
    rng = np.random.default_rng(0)
    image = (ground + rng.integers(-10, 11, (90, 100, 3))).astype(np.uint8)
    truth = np.zeros((90, 100), np.bool_)
    truth[22:58, 32:68] = True
    image[truth] = (200, 30, 30)
    image[36:42, 46:52] = ground
    return image, truth


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("source", [grabcut, colour_model])
def test_object_in_a_box_is_masked_whole(source):
    image, truth = red_square()
    assert iou(source(image, BOX), truth) > 0.9


@pytest.mark.parametrize("source", [grabcut, colour_model])
def test_box_without_surroundings_gives_no_mask(source):
    image, _ = red_square()
    assert source(image, (0.0, 0.0, 100.0, 90.0)) is None
    assert source(image, (20.0, 20.0, 22.0, 22.0)) is None


def test_agreeing_masks_are_kept_and_others_named():
    _, truth = red_square()
    half = truth.copy()
    half[:, 50:] = False
    assert disagreement(truth, truth, BOX) is None
    assert disagreement(truth, half, BOX) == "agreement"
    assert disagreement(truth, None, BOX) == "no mask"


@pytest.mark.parametrize("share", [0.03, 0.95])
def test_implausible_area_is_rejected_even_if_both_agree(share):
    mask = np.zeros((90, 100), np.bool_)
    rows, columns = context_window(BOX, mask.shape)
    mask[rows.start : rows.start + round(share * (rows.stop - rows.start)), columns] = True
    assert disagreement(mask, mask, BOX) == "area"
