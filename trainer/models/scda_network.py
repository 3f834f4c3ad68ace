"""Selective convolutional descriptor aggregation (SCDA): an embedder and an object mask without any training.

Wei et al., "Selective convolutional descriptor aggregation for fine-grained image retrieval", IEEE TIP 2017. The object
is the largest connected component of the cells whose summed activation is above the mean. The embedding is the average
and the maximum of the descriptors of those cells.

The graph is static, so that it exports. The component is found by a fixed number of masked max-pools, see
`most_steps`; everything behind the trunk stays in FP32 in a quantised form, see `FreeEmbedder.project`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import TrainError
from trainer.models.backbone import Trunk
from trainer.models.free_methods import AGGREGATIONS, FreeMethod

SHALLOW_WEIGHT = 0.5  # alpha of SCDA+, of the descriptors of the map before the last
_MOST_CELLS = 2048  # of a map: the sizes of its components take the square of it in memory
_BELOW = -1e4  # below any activation, and within FP16


class FreeEmbedder(nn.Module):
    """A trunk, and an aggregation of its maps instead of trained heads.

    `scda+` and `scda_flip+` also read the map before the last: of a whole trunk, the deepest one with a smaller stride.
    """

    def __init__(self, trunk: Trunk, method: FreeMethod, dim: int | None = None) -> None:
        """Build the network; its whitening, if any, is zero until `fit_whitening`.

        Args:
            trunk: whole, or cut; for `scda+` and `scda_flip+`, cut at two strides or more.
            method: the aggregation.
            dim: numbers to compress the vector to; None, or its own length: all of it.

        Raises:
            TrainError: the trunk has one map only, or `dim` is more than the vector's length.
        """
        super().__init__()
        self.trunk = trunk
        self.how = AGGREGATIONS[method]
        self.channels = trunk.channels[-1:]
        self._before = -1
        if self.how.shallow:
            self._before, before = map_before_last(trunk, method)
            self.channels = [before, *self.channels]
        self.inputs = sum(self.channels) * (self.how.average + self.how.largest) * (1 + self.how.flipped)
        if dim is not None and dim > self.inputs:
            raise TrainError(f"dim is {dim}, but {method} gives {self.inputs} numbers; choose fewer, or none for all")
        self.mean: Tensor | None
        self.axes: Tensor | None
        whitened = dim is not None and dim < self.inputs
        self.register_buffer("mean", torch.zeros(self.inputs) if whitened else None)
        self.register_buffer("axes", torch.zeros(dim or 0, self.inputs) if whitened else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w), normalised, to (n, dim), rows of unit length."""
        return self.project(self.aggregate(x))

    def aggregate(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w), normalised, to (n, inputs), rows of unit length."""
        if not self.how.flipped:
            return self._vectors(self._maps(x))
        both = self._vectors(self._maps(torch.cat([x, x.flip(3)])))
        return both.reshape(2, -1, both.shape[1]).permute(1, 0, 2).flatten(1) / math.sqrt(2.0)

    def project(self, vectors: Tensor) -> Tensor:
        """Map (n, inputs) to (n, dim), rows of unit length."""
        if self.axes is None or self.mean is None:
            return vectors
        # An Einsum, which no form quantises: a rounded map would have another object.
        return F.normalize(torch.einsum("nc,dc->nd", vectors - self.mean, self.axes), dim=1)

    def fit_whitening(self, vectors: Tensor) -> None:
        """Set the projection to the largest principal components, each of variance one (SVD and whitening).

        Args:
            vectors: (n, inputs) of other pictures; n is above the numbers to keep.

        Raises:
            TrainError: there are too few pictures.
        """
        assert self.axes is not None
        assert self.mean is not None
        dim = len(self.axes)
        if len(vectors) <= dim:
            raise TrainError(f"whitening to {dim} numbers needs more than {dim} pictures, but there are {len(vectors)}")
        x = vectors.double()
        mean = x.mean(dim=0)
        _, lengths, axes = torch.linalg.svd(x - mean, full_matrices=False)
        # A direction in which nothing varies, as in copies of one picture, is left as it is.
        lengths = torch.where(lengths > 1e-6 * lengths[0], lengths, lengths[0])[:dim]
        self.mean.copy_(mean)
        self.axes.copy_(axes[:dim] / lengths[:, None] * math.sqrt(len(x) - 1))

    def _maps(self, x: Tensor) -> list[Tensor]:
        """Map pictures to the maps that are aggregated, the last one last."""
        if self.how.shallow and self.trunk.whole:
            last, before = self.trunk.network.forward_intermediates(self.trunk.before(x), indices=[self._before])
            return [*before, last]
        maps: list[Tensor] = self.trunk(x)
        return maps[-2 if self.how.shallow else -1 :]

    def _vectors(self, maps: list[Tensor]) -> Tensor:
        last = maps[-1]
        mask = object_mask(last) if self.how.selected else torch.ones_like(last[:, 0])
        vectors = self._pooled(last, mask)
        if not self.how.shallow:
            return vectors
        before = maps[0]
        within = F.interpolate(mask[:, None], before.shape[2:])[:, 0]
        shallow = SHALLOW_WEIGHT * self._pooled(before, object_mask(before, within))
        return F.normalize(torch.cat([vectors, shallow], dim=1), dim=1)

    def _pooled(self, feature: Tensor, mask: Tensor) -> Tensor:
        """Return average, maximum or both of the descriptors under a mask (n, h, w): (n, c, h, w) to (n, c or 2c)."""
        inside = mask[:, None]
        parts = []
        if self.how.average:
            parts.append(F.normalize((feature * inside).sum(dim=(2, 3)) / inside.sum(dim=(2, 3)), dim=1))
        if self.how.largest:
            largest = torch.where(inside > 0.5, feature, torch.full_like(feature, _BELOW)).amax(dim=(2, 3))
            parts.append(F.normalize(largest, dim=1))
        return torch.cat(parts, dim=1) / math.sqrt(len(parts))


def map_before_last(trunk: Trunk, method: str) -> tuple[int, int]:
    """Return the number and the channels of the deepest map with a smaller stride than the last.

    Raises:
        TrainError: the trunk is cut and has one map, or timm cannot give the maps of this network.
    """
    if not trunk.whole:
        if len(trunk.channels) < 2:
            raise TrainError(f"{method} reads two maps; set backbone.strides to two strides, such as [16, 32], or null")
        return len(trunk.channels) - 2, trunk.channels[-2]
    maps = trunk.network.feature_info
    shallower = [i for i, one in enumerate(maps) if one["reduction"] < maps[-1]["reduction"]]
    if not shallower or not hasattr(trunk.network, "forward_intermediates"):
        raise TrainError(f"{method} reads two maps, which this backbone cannot give; choose another one")
    return shallower[-1], int(maps[shallower[-1]]["num_chs"])


def object_mask(feature: Tensor, within: Tensor | None = None) -> Tensor:
    """Return the object mask: the largest component of the cells whose summed activation is above the mean.

    Args:
        feature: (n, c, h, w), of a trunk.
        within: (n, h, w) of 0 and 1, the cells that may be chosen; None: all cells.

    Returns:
        (n, h, w) of 0 and 1, with at least one cell in each picture.
    """
    # Maps without a ReLU have negative activations, which do not indicate an object. Without them, groceries,
    # MobileNetV2 at stride 32, 296 pictures of `val` among 5 of each class: Recall@1 0.460 instead of 0.429.
    strength = feature.clamp(min=0.0).sum(dim=1)
    chosen = (strength > strength.mean(dim=(1, 2), keepdim=True)).to(feature.dtype)
    if within is not None:
        chosen = chosen * within
    # No cell is above the mean in a constant map: all of them are as strong as the strongest.
    strongest = (strength >= strength.amax(dim=(1, 2), keepdim=True)).to(feature.dtype)
    found = chosen.amax(dim=(1, 2), keepdim=True)
    return largest_component(chosen + strongest * (1.0 - found))


def most_steps(height: int, width: int) -> int:
    """Return how many steps the two farthest cells of any component can be apart.

    A shortest path holds at most two cells of each block of 2x2 cells, because the cells of a block are all neighbours.
    """
    return 2 * math.ceil(height / 2) * math.ceil(width / 2) - 1


def largest_component(mask: Tensor) -> Tensor:
    """Keep the largest 8-connected component of each mask: (n, h, w) of 0 and 1 to the same.

    Among components of equal size, the one with the lowest cell is kept.

    Raises:
        TrainError: the masks have more than 2048 cells.
    """
    height, width = int(mask.shape[1]), int(mask.shape[2])
    cells = height * width
    if cells > _MOST_CELLS:
        raise TrainError(f"a map of {width}x{height} cells is too large for an object mask; choose a smaller input")
    numbers = torch.arange(1, cells + 1, device=mask.device, dtype=mask.dtype).reshape(1, 1, height, width)
    inside = mask[:, None]
    labels = numbers * inside
    for _ in range(most_steps(height, width)):  # each cell takes the largest label of its neighbours
        spread = F.max_pool2d(labels, 3, 1, 1) * inside
        if not torch.jit.is_tracing() and torch.equal(spread, labels):
            break
        labels = spread
    names, flat = labels.flatten(1), inside.flatten(1)
    same = (names[:, :, None] == names[:, None, :]).to(mask.dtype)
    sizes = (same * flat[:, None, :]).sum(dim=2) * flat
    largest = (sizes >= sizes.amax(dim=1, keepdim=True)).to(mask.dtype)
    winner = (names * largest).amax(dim=1, keepdim=True)
    return ((names == winner).to(mask.dtype) * flat).reshape(-1, height, width)
