"""The agreement guard, and the mask source that judges by colour."""

from __future__ import annotations

import numpy as np
import pytest

from tests.trainer.pasting.mask_samples import iou, red_square
from trainer.pasting.mask_sources import context_window, grabcut
from trainer.pasting.self_tuning.agreement import colour_model, disagreement

BOX = (30.0, 20.0, 70.0, 60.0)


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
