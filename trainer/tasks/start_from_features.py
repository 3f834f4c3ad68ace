"""Starts an embedder where untrained features end: its projection keeps their distances, its centres are their means.

After ten epochs on 60 groceries, the gain over random numbers was within the noise (Recall@1 81.4 against 79.9 %, one
seed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.data.crops import Crops, predict
from trainer.models.backbone import Trunk
from trainer.models.networks import Embedder, EmbeddingHead
from trainer.tasks.finetune import mean_directions


class _Pooled(nn.Module):
    """What the fully-connected layer of a head sees."""

    def __init__(self, trunk: Trunk, head: EmbeddingHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w) to (n, inputs)."""
        return self.head.pool(self.trunk(x)[-1])


def start_from_features(model: Embedder, centres: Mapping[str, nn.Parameter], crops: Crops) -> None:
    """Set the projections and the centres (items, dim) of an embedder whose trunk is trained; both change in place."""
    model.eval()
    canvases, vectors = crops.train_canvases(), {}
    with torch.no_grad():
        for name, head in model.heads.items():
            pooled = torch.from_numpy(predict(_Pooled(model.trunk, head), canvases, crops.spec))
            head.fit_projection(pooled)
            vectors[name.removesuffix("_head")] = F.normalize(head.project(pooled), dim=1)
        vectors["joint"] = model.join(list(vectors.values()))
        items = torch.from_numpy(crops.item_indices(crops.train))
        for name, rows in centres.items():
            # numbers of about one, as in centres that are drawn
            rows.copy_(mean_directions(vectors[name], items, len(crops.items)) * math.sqrt(rows.shape[1]))
