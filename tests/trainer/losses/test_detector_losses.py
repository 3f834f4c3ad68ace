"""The losses of the detector against values computed on paper."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.losses.detector_losses import giou, quality_focal


def test_giou_of_two_separate_squares():
    a, b = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[2.0, 0.0, 3.0, 1.0]])
    iou, generalised = giou(a, b)
    assert float(iou) == 0.0
    assert float(generalised) == pytest.approx(-1 / 3)  # hull 3, union 2
    assert float(giou(a, a)[1]) == pytest.approx(1.0)


def test_quality_focal_loss_at_probability_one_half():
    found = quality_focal(torch.zeros(1), torch.ones(1))
    assert float(found) == pytest.approx(0.25 * math.log(2), abs=1e-6)
