"""Selective convolutional descriptor aggregation (SCDA): an embedding and an object mask without any training.

Wei et al., "Selective convolutional descriptor aggregation for fine-grained image retrieval", IEEE TIP 2017. The object
is the largest connected component of the cells whose summed activation is above the mean. The embedding is the average
and the maximum of the descriptors of those cells.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from trainer.models.backbone import Trunk

SHALLOW_WEIGHT = 0.5  # alpha of SCDA+, of the descriptors of the map before the last

Variant = Literal["scda", "scda+", "scda_flip+"]


class Scda(nn.Module):
    """A trunk with the aggregation instead of trained heads.

    `scda` reads the last map of the trunk. `scda+` also reads the map before it, so the trunk needs two maps.
    `scda_flip+` also embeds the mirrored picture.
    """

    def __init__(self, trunk: Trunk, variant: Variant = "scda") -> None:
        super().__init__()
        if variant != "scda" and len(trunk.channels) < 2:
            raise ValueError(f"{variant}: found a trunk of {len(trunk.channels)} map, expected two")
        self.trunk = trunk
        self.variant = variant

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w), normalised, to (n, dim), rows of unit length.

        dim is twice the channels of the maps that are read, and twice that with the mirrored picture.
        """
        with torch.no_grad():
            vectors = self._aggregate(x)
            if self.variant == "scda_flip+":
                vectors = torch.cat([vectors, self._aggregate(x.flip(3))], dim=1) / math.sqrt(2.0)
        return vectors

    def _aggregate(self, x: Tensor) -> Tensor:
        maps = self.trunk(x)
        mask = object_mask(maps[-1])
        last = selected_descriptors(maps[-1], mask)
        if self.variant == "scda":
            return last
        before = maps[-2]
        mask = object_mask(before, F.interpolate(mask[:, None].float(), before.shape[2:])[:, 0] > 0)
        return F.normalize(torch.cat([last, SHALLOW_WEIGHT * selected_descriptors(before, mask)], dim=1), dim=1)


def object_mask(feature: Tensor, within: Tensor | None = None) -> Tensor:
    """Return the object mask: the largest component of the cells whose summed activation is above the mean.

    Args:
        feature: (n, c, h, w), of a trunk.
        within: (n, h, w) bool, the cells that may be chosen; None: all cells.

    Returns:
        (n, h, w) bool, with at least one cell in each picture.
    """
    # Maps without a ReLU have negative activations, which do not indicate an object. Without them, groceries,
    # MobileNetV2 at stride 32, 296 pictures of `val` among 5 of each class: Recall@1 0.460 instead of 0.429.
    strength = feature.clamp(min=0.0).sum(dim=1)
    chosen = strength > strength.mean(dim=(1, 2), keepdim=True)
    if within is not None:
        chosen &= within
    flat = strength.flatten(1)
    strongest = F.one_hot(flat.argmax(dim=1), flat.shape[1]).bool().reshape(strength.shape)
    none = ~chosen.flatten(1).any(dim=1)
    return largest_component(torch.where(none[:, None, None], strongest, chosen))


def largest_component(mask: Tensor) -> Tensor:
    """Keep the largest 8-connected component of each mask: (n, h, w) bool to the same.

    Among components of equal size, the lowest one is kept.
    """
    count, height, width = mask.shape
    numbers = torch.arange(1, height * width + 1, device=mask.device, dtype=torch.float32).reshape(1, height, width)
    labels = numbers * mask
    while True:  # each cell takes the largest label of its neighbours until all cells of a component agree
        spread = F.max_pool2d(labels[:, None], 3, 1, 1)[:, 0] * mask
        if torch.equal(spread, labels):
            break
        labels = spread
    names = labels.flatten(1).long()
    sizes = torch.zeros(count, height * width + 1, dtype=torch.long, device=mask.device)
    sizes.scatter_add_(1, names, torch.ones_like(names))
    sizes[:, 0] = 0  # cells outside the mask
    best = sizes.shape[1] - 1 - sizes.flip(1).argmax(dim=1)
    return (labels == best[:, None, None]) & mask


def selected_descriptors(feature: Tensor, mask: Tensor) -> Tensor:
    """Return average and maximum of the descriptors under a mask, each of unit length: (n, c, h, w) to (n, 2c)."""
    inside = mask[:, None].to(feature.dtype)
    average = (feature * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3))
    largest = feature.masked_fill(~mask[:, None], -math.inf).amax(dim=(2, 3))
    return torch.cat([F.normalize(average, dim=1), F.normalize(largest, dim=1)], dim=1) / math.sqrt(2.0)
