"""Losses of a heat map against the true mask of what was searched.

The double margin is that of US 2018/0260664, in the family of US 10,019,655 (see NOTICE).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_CELLS = 32  # of an object, by which its map is weighed: a speck, or nothing, weighs no more than this
HI, LO = 0.8, 0.3  # what the map is to reach on the object, and to stay under elsewhere


@dataclass(frozen=True, slots=True)
class Margins:
    """What each cell of a map is to reach or to stay under; of the shape of the map."""

    hi: Tensor  # on the object
    lo: Tensor  # elsewhere


def margins_of(coverage: Tensor, band: int) -> Margins:
    """The margins of each cell, none within the band around the object's edge.

    Args:
        coverage: (n, h, w), 0..1, how much of a cell is the object.
        band: cells to either side of the edge that are not asked; 0 asks those wholly inside or outside, and half the
            margin of those that the edge runs through.
    """
    solid, free = coverage > 0.99, coverage < 0.01
    hi, lo = torch.full_like(coverage, HI), torch.full_like(coverage, LO)
    if band:
        edge = (F.max_pool2d((~free).float()[:, None], 2 * band + 1, 1, band)[:, 0] > 0) & ~solid
        return Margins(hi.masked_fill(edge, -torch.inf), lo.masked_fill(edge, torch.inf))
    middle = (HI + LO) / 2
    edge = ~(solid | free)
    return Margins(hi.masked_fill(edge, middle), lo.masked_fill(edge, middle))


def double_margin(found: Tensor, truth: Tensor, margins: Margins) -> Tensor:
    """Sum of y * max(hi - d, 0)^2 + (1 - y) * max(d - lo, 0)^2, per cell of the object, mean of all maps.

    A small object counts as much as a large one.

    Args:
        found: d, (n, h, w).
        truth: y, (n, h, w), 0 or 1.
        margins: hi and lo of each cell.
    """
    on, off = (margins.hi - found).clamp(min=0) ** 2, (found - margins.lo).clamp(min=0) ** 2
    return _per_object(torch.where(truth > 0.5, on, off), truth)


def pixel_l2(found: Tensor, truth: Tensor) -> Tensor:
    """Sum of (d - y)^2, per cell of the object, mean of all maps.

    Args:
        found: d, (n, h, w).
        truth: y, (n, h, w), 0..1.
    """
    return _per_object((found - truth) ** 2, truth)


def _per_object(cells: Tensor, truth: Tensor) -> Tensor:
    return (cells.sum(dim=(1, 2)) / truth.sum(dim=(1, 2)).clamp(min=LEAST_CELLS)).mean()
