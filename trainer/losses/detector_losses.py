"""The losses of the detector: quality focal loss (Li et al. 2020) and GIoU (Rezatofighi et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def quality_focal(logits: Tensor, quality: Tensor, beta: float = 2.0) -> Tensor:
    """Return the sum of the quality focal loss: |quality - p|^beta times cross-entropy to a soft target in 0..1."""
    gap = (quality - logits.sigmoid()).abs().pow(beta)
    return (gap * F.binary_cross_entropy_with_logits(logits, quality, reduction="none")).sum()


def giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the plain and generalised IoU of paired boxes (n, 4), x0 y0 x1 y1."""
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).clamp(min=0).prod(dim=1)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - overlap
    iou = overlap / union.clamp(min=1e-9)
    return iou, iou - (hull - union) / hull.clamp(min=1e-9)
