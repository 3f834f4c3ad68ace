"""Losses of heat maps, against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from trainer.losses.finder_losses import HI, LO, MIN_CELLS, Margins, double_margin, margins_of, pixel_l2


def square():
    coverage = torch.zeros(1, 8, 8)
    coverage[:, 2:6, 2:6] = 1.0
    return coverage


def test_double_margin_is_zero_within_its_margins():
    truth = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    margins = Margins(torch.full((1, 2, 2), 0.8), torch.full((1, 2, 2), 0.3))
    assert double_margin(torch.tensor([[[0.8, 1.7], [0.3, -4.0]]]), truth, margins) == 0
    found = torch.tensor([[[0.6, 0.9], [0.5, 0.0]]])
    assert double_margin(found, truth, margins).item() == pytest.approx((0.2**2 + 0.2**2) / MIN_CELLS)


def test_pixel_l2_is_the_sum_of_squares_per_object_cell():
    truth, found = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), torch.tensor([[[0.5, 1.0], [0.0, 2.0]]])
    assert pixel_l2(found, truth).item() == pytest.approx((0.25 + 4.0) / MIN_CELLS)


def test_small_object_counts_as_much_as_a_large_one():
    """Neither object is found at all."""
    truth = torch.zeros(2, 16, 16)
    truth[0, :6, :6] = truth[1, :12, :12] = 1.0
    missed = torch.zeros(2, 16, 16)
    losses = [
        double_margin(missed[i : i + 1], truth[i : i + 1], margins_of(truth[i : i + 1], 0)).item() for i in range(2)
    ]
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0] == pytest.approx(HI**2)


def test_map_without_object_is_pushed_low():
    nothing = torch.zeros(2, 4, 4)
    margins = margins_of(nothing, 0)
    assert double_margin(nothing + 0.29, nothing, margins) == 0
    assert double_margin(nothing + 1.3, nothing, margins).item() == pytest.approx(16.0 / MIN_CELLS)


def test_edge_cell_has_half_the_margins():
    coverage = square()
    coverage[:, 2, 2:6] = 0.6
    margins = margins_of(coverage, 0)
    middle = (HI + LO) / 2
    assert margins.hi[0, 2, 3] == margins.lo[0, 2, 3] == pytest.approx(middle)
    assert (margins.hi[0, 4, 4], margins.lo[0, 0, 0]) == (pytest.approx(HI), pytest.approx(LO))


def test_band_beside_the_edge_is_ignored():
    coverage = square()
    margins = margins_of(coverage, 1)
    truth = (coverage >= 0.5).float()
    found = truth.clone()
    found[0, 1, 1:7] = 9.0  # beside the object
    assert double_margin(found, truth, margins) == 0
    found[0, 0, 0] = 9.0
    assert double_margin(found, truth, margins) > 0
