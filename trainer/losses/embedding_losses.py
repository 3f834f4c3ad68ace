"""The losses of the classifier and the embedder.

Sources: Norm-Scale cosine softmax and HDCL: "Hard decorrelated centralized loss", Neurocomputing 2021 (the minus before
lambda in its Eq. 11 is a misprint of the plus of Eq. 6). Pairwise losses: US 12,386,883 (see NOTICE): "minimise the
mean positive distance, maximise the mean negative one"; the second is unbounded, so both get a hinge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MARGIN_POSITIVE, MARGIN_NEGATIVE = 0.1, 0.6  # on D = 1 - cos


class CosineSoftmax(nn.Module):
    """Cross-entropy over scaled cosines to one centre per class, optionally hard and decorrelated (HDCL).

    Plain softmax: neither. DGCRL: decorrelated. HCL: hard. HDCL: both.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        scale: float = 16.0,
        decorrelation: float = 0.0,
        shorter_dims: Sequence[int] = (),
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dims = (*shorter_dims, dim)  # lengths of the prefixes of vectors and centres that must all work
        self.centres = nn.Parameter(torch.randn(classes, dim))
        self.scale = scale  # alpha: 100 with pretrained weights in the paper, 16 to 32 from scratch
        self.decorrelation = decorrelation  # lambda, 0.1 in the paper
        self.label_smoothing = label_smoothing
        self.dropout = dropout  # share of the numbers of each unit vector
        self.hardest: int | None = None  # K: classes in the denominator, at least 2; None: all

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Map (n, dim) and (n,) class indices to the mean loss."""
        losses = []
        for dim in self.dims:
            unit = F.normalize(vectors[:, :dim], dim=1)
            if self.dropout:
                unit = F.dropout(unit, self.dropout, self.training)
            cosines = unit @ F.normalize(self.centres[:, :dim], dim=1).T
            losses.append(hard_cross_entropy(self.scale * cosines, labels, self.hardest, self.label_smoothing))
        loss = torch.stack(losses).mean()
        if self.decorrelation and len(self.centres) > 1:
            loss = loss + self.decorrelation * centre_correlation(F.normalize(self.centres, dim=1))
        return loss


def hard_cross_entropy(logits: Tensor, labels: Tensor, hardest: int | None, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy with only the `hardest` largest logits in the denominator; None: all.

    `smoothing` is the share of the target that is spread over the classes in the denominator.
    """
    true = logits.gather(1, labels[:, None])[:, 0]
    top = logits if hardest is None else logits.topk(min(hardest, logits.shape[1]), dim=1).values
    if smoothing:
        true = torch.lerp(true, top.mean(dim=1), smoothing)
    return (top.logsumexp(dim=1) - true).mean()


def centre_correlation(centres: Tensor) -> Tensor:
    """Return the mean |w_l . w_j| over pairs of unit centres."""
    products = (centres @ centres.T).abs()
    count = len(centres)
    return (products.sum() - products.diagonal().sum()) / (count * (count - 1))


def pair_losses(
    original: dict[str, Tensor], confused: dict[str, Tensor], labels: Tensor, mode: Literal["literal", "guarded"]
) -> dict[str, Tensor]:
    """Return the pairwise loss of each head: mean [D - m_p]+ of positives plus mean [m_n - D]+ of negatives.

    O is an original, R its region-confusion image, i and j of one item, k of another:

    | head    | pulls      | pushes                     |
    | class   | (O_i, O_j) | (O_i, O_k)                 |
    | local   | (R_i, R_j) | (O_i, O_k)                 |
    | outline | (O_i, O_j) | (R_i, R_j); guarded: also (O_i, O_k) |

    The literal outline head pushes apart what the local head pulls together and has no term between items.

    Args:
        original: unit vectors (n, dim) of the originals, by head name.
        confused: the same for their region-confusion images; a class head needs none.
        labels: (n,) item indices.
        mode: `literal` as written, or `guarded`.
    """
    same = labels[:, None] == labels[None, :]
    other_picture = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positive, negative = same & other_picture, ~same
    losses = {}
    for head, o in original.items():
        d_original = cosine_distances(o)
        if head == "class":
            losses[head] = pull(d_original, positive) + push(d_original, negative)
        elif head == "local":
            losses[head] = pull(cosine_distances(confused[head]), positive) + push(d_original, negative)
        else:
            pushed = push(cosine_distances(confused[head]), positive)
            if mode == "guarded":
                pushed = pushed + push(d_original, negative)
            losses[head] = pull(d_original, positive) + pushed
    return losses


def cosine_distances(vectors: Tensor) -> Tensor:
    """Return 1 - cos between all rows of (n, dim) unit vectors: (n, n)."""
    return 1.0 - vectors @ vectors.T


def pull(distances: Tensor, pairs: Tensor) -> Tensor:
    """Return the mean of [D - m_p]+ over the pairs that violate the margin; 0 if none does."""
    return hinge_mean(distances[pairs] - MARGIN_POSITIVE)


def push(distances: Tensor, pairs: Tensor) -> Tensor:
    """Return the mean of [m_n - D]+ over the pairs that violate the margin; 0 if none does."""
    return hinge_mean(MARGIN_NEGATIVE - distances[pairs])


def hinge_mean(values: Tensor) -> Tensor:
    """Return the mean of the positive values; 0 if there is none."""
    costs = values.clamp(min=0.0)
    return costs.sum() / (costs > 0).sum().clamp(min=1)
