"""Losses of a heat map against the true mask of the object that was searched for.

The double margin is that of US 2018/0260664, in the family of US 10,019,655 (see NOTICE).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_CELLS = 32  # smallest object size that a map's loss is divided by, so that tiny or absent objects do not dominate
HI, LO = 0.8, 0.3  # the map should be above HI on the object and below LO elsewhere


@dataclass(frozen=True, slots=True)
class Margins:
    """The bounds for each cell of a map, in the shape of the map."""

    hi: Tensor  # lower bound on the object
    lo: Tensor  # upper bound elsewhere


def margins_of(coverage: Tensor, band: int) -> Margins:
    """Compute the margins of each cell; none within the band around the object's edge.

    Args:
        coverage: (n, h, w), 0..1, the share of a cell that the object covers.
        band: cells to either side of the edge that the loss ignores; with 0, cells on the edge have half the margin and
            all others the whole.
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
    """Return the sum of y * max(hi - d, 0)^2 + (1 - y) * max(d - lo, 0)^2 per object cell, averaged over the maps.

    A small object counts as much as a large one.

    Args:
        found: d, (n, h, w).
        truth: y, (n, h, w), 0 or 1.
        margins: hi and lo of each cell.
    """
    on, off = (margins.hi - found).clamp(min=0) ** 2, (found - margins.lo).clamp(min=0) ** 2
    return _per_object(torch.where(truth > 0.5, on, off), truth)


def pixel_l2(found: Tensor, truth: Tensor) -> Tensor:
    """Return the sum of (d - y)^2 per object cell, averaged over the maps.

    Args:
        found: d, (n, h, w).
        truth: y, (n, h, w), 0..1.
    """
    return _per_object((found - truth) ** 2, truth)


def _per_object(cells: Tensor, truth: Tensor) -> Tensor:
    return (cells.sum(dim=(1, 2)) / truth.sum(dim=(1, 2)).clamp(min=MIN_CELLS)).mean()
