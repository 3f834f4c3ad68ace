"""Losses of pytorch-metric-learning that the project's own losses are compared with.

Margins and scales are the library's defaults, except the triplet margin, which is that of Schroff et al. 2015 on unit
vectors. Triplets are the semi-hard ones of a batch. Proxy anchor: Kim et al. 2020 (alpha 32, margin 0.1).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from edge.errors import TrainError

Peer = Literal["contrastive", "triplet", "proxy_anchor"]


class PeerLoss(nn.Module):
    """One loss of pytorch-metric-learning on the joint vector."""

    def __init__(self, name: Peer, dim: int, classes: int) -> None:
        """Create the loss for vectors of `dim` numbers and this many classes.

        Raises:
            TrainError: the library is not installed.
        """
        super().__init__()
        try:
            from pytorch_metric_learning import distances, losses, miners
        except ImportError as error:
            raise TrainError(
                f"loss {name!r}: pytorch-metric-learning is not installed; install finesight[benchmarks]"
            ) from error
        self.miner = None
        if name == "contrastive":
            self.loss = losses.ContrastiveLoss(pos_margin=1.0, neg_margin=0.5, distance=distances.CosineSimilarity())
        elif name == "triplet":
            self.loss = losses.TripletMarginLoss(margin=0.2)
            self.miner = miners.TripletMarginMiner(margin=0.2, type_of_triplets="semihard")
        else:
            self.loss = losses.ProxyAnchorLoss(classes, dim, margin=0.1, alpha=32)

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Map (n, dim) unit vectors and (n,) class indices to the loss."""
        value: Tensor = self.loss(vectors, labels, self.miner(vectors, labels) if self.miner else None)
        return value
