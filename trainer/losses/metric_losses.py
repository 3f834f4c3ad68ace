"""Losses of metric learning that the sources compare theirs with: contrastive, triplet, centre ranking, proxy anchor.

All take unit vectors. The first two compare the pictures of a batch with each other, the last two with one learned
centre of each item.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.losses.embedding_losses import cosine_distances, hinge_mean

MARGINS = {"contrastive": 0.5, "triplet": 0.2, "crl": 0.2, "proxy_anchor": 0.1}
PROXY_SCALE = 32.0  # alpha of proxy anchor
_SMALL = 1e-12  # keeps the gradient of the square root finite


class MetricLoss(nn.Module):
    """A loss on vectors (n, dim) of any length and their items (n,)."""

    def __init__(self, margin: float) -> None:
        super().__init__()
        self.margin = margin


class CentreLoss(MetricLoss):
    """A loss with one learned centre of each item."""

    def __init__(self, margin: float, dim: int, items: int) -> None:
        super().__init__(margin)
        self.centres = nn.Parameter(torch.randn(items, dim))  # of any length


class Contrastive(MetricLoss):
    """Pulls the pictures of an item together, and pushes others to the margin (Hadsell et al. 2006).

    On D = 1 - cos, which is half the squared Euclidean distance: mean [D]+ of positive pairs plus mean [m - D]+ of
    negative ones. Each mean is over the pairs that cost something.
    """

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Map (n, dim) and (n,) item indices to the loss."""
        distances = cosine_distances(F.normalize(vectors, dim=1))
        positive, negative = _pairs(labels)
        return hinge_mean(distances[positive]) + hinge_mean(self.margin - distances[negative])


class Triplet(MetricLoss):
    """The triplet loss with semi-hard negatives: 1/2 [m + D(a, p) - D(a, n)]+ (HDCL's Eq. 2).

    D is the Euclidean distance of unit vectors. A triplet is semi-hard where the negative is farther than the positive,
    but by no more than the margin, 0.2 (Schroff et al. 2015). The mean is over these triplets.
    """

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Map (n, dim) and (n,) item indices to the loss."""
        unit = F.normalize(vectors, dim=1)
        distances = euclidean_distances(unit, unit)
        positive, negative = _pairs(labels)
        farther = distances[:, None, :] - distances[:, :, None]  # (anchor, positive, negative)
        triplets = positive[:, :, None] & negative[:, None, :] & (farther > 0) & (farther <= self.margin)
        return 0.5 * hinge_mean(self.margin - farther[triplets])


class CentreRanking(CentreLoss):
    """The centralized ranking loss: the sum over other centres of [m + |f - c_k| - |f - c_l|]+ (HDCL's Eq. 3).

    c_k is the centre of the picture's own item. Vectors and centres have unit length, as with Norm-Scale, and the
    centres are learned. The printed sum over pictures is a mean here, so that the rate does not depend on the batch.
    Source: Zheng et al., "Centralized ranking loss with weakly supervised localization", IJCAI 2018.
    """

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Map (n, dim) and (n,) item indices to the loss."""
        distances = euclidean_distances(F.normalize(vectors, dim=1), F.normalize(self.centres, dim=1))
        own = distances.gather(1, labels[:, None])
        costs = (self.margin + own - distances).clamp(min=0.0)
        others = torch.ones_like(costs).scatter(1, labels[:, None], 0.0)
        return (costs * others).sum(dim=1).mean()


class ProxyAnchor(CentreLoss):
    """The proxy-anchor loss (Kim et al. 2020): each item's proxy is an anchor for all pictures of the batch.

    log(1 + sum exp(-alpha (s - m))) over the pictures of the item, averaged over the proxies that have some, plus
    log(1 + sum exp(alpha (s + m))) over all other pictures, averaged over all proxies. s is the cosine.
    """

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Map (n, dim) and (n,) item indices to the loss."""
        cosines = F.normalize(self.centres, dim=1) @ F.normalize(vectors, dim=1).T  # (items, n)
        own = labels[None, :] == torch.arange(len(cosines), device=labels.device)[:, None]
        pulled = _log_one_plus_sum(-PROXY_SCALE * (cosines - self.margin), own)
        pushed = _log_one_plus_sum(PROXY_SCALE * (cosines + self.margin), ~own)
        return pulled.sum() / own.any(dim=1).sum() + pushed.mean()


def metric_loss(name: str, dim: int, items: int, margin: float | None = None) -> MetricLoss:
    """Return a loss by its name in a recipe.

    Args:
        name: a key of MARGINS.
        dim: length of the vectors.
        items: number of items.
        margin: None: the value in MARGINS.
    """
    m = MARGINS[name] if margin is None else margin
    if name == "contrastive":
        return Contrastive(m)
    if name == "triplet":
        return Triplet(m)
    return CentreRanking(m, dim, items) if name == "crl" else ProxyAnchor(m, dim, items)


def euclidean_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the distances of unit vectors (n, dim) and (m, dim): (n, m)."""
    return (2.0 - 2.0 * rows @ columns.T).clamp(min=_SMALL).sqrt()


def _pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pairs are of one item, without a picture and itself, and which are of two: (n, n) each."""
    same = labels[:, None] == labels[None, :]
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def _log_one_plus_sum(exponents: Tensor, counted: Tensor) -> Tensor:
    """Return log(1 + sum exp) over the counted entries of each row."""
    masked = exponents.masked_fill(~counted, float("-inf"))
    return torch.cat([torch.zeros_like(masked[:, :1]), masked], dim=1).logsumexp(dim=1)
