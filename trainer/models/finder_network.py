"""The search network of the finder: it convolves a scene's representation with a query's representation as the kernel.

The method is that of US 2018/0260664, in the family of US 10,019,655 (see NOTICE): representation generators, search
layers for several pairs of query and scene scales, and a conversion network that merges their heat maps into one.
edge.finder.correlate is the same in numpy for single pictures, and provides the matrices that resample grids.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edge.finder.correlate import EPSILON, map_size, pool_matrix, query_positions, scene_grids, upsample_matrix
from edge.finder_shape import FinderShape
from edge.manifest.model import Preprocess
from trainer.models.backbone import Trunk


def correlate(scene: Tensor, values: Tensor, weights: Tensor, *, normalise: bool = True) -> Tensor:
    """Search every scene of a batch for its own queries, by one grouped convolution without a flip.

    Args:
        scene: (n, c, h, w).
        values: (n, k, c, v, u) of the queries, k for each scene.
        weights: (n, k, v, u), share of each cell that the query's object covers; all ones is the published form.
        normalise: divide by the norms of the query and of the scene under it, the latter from the squared scene.

    Returns:
        (n, k, h, w), the size of the scene, which is padded with zeros.
    """
    n, c, h, w = scene.shape
    k, v, u = weights.shape[1:]
    around = ((u - 1) // 2, u - 1 - (u - 1) // 2, (v - 1) // 2, v - 1 - (v - 1) // 2)
    weighted = values * weights[:, :, None]
    stacked = F.pad(scene, around).reshape(1, n * c, h + v - 1, w + u - 1)
    found = F.conv2d(stacked, weighted.reshape(n * k, c, v, u), groups=n).reshape(n, k, h, w)
    if not normalise:
        return found
    squared = F.pad((scene**2).sum(dim=1), around)[None]
    energy = F.conv2d(squared, weights.reshape(n * k, 1, v, u), groups=n).reshape(n, k, h, w)
    own = (values * weighted).sum(dim=(2, 3, 4)).clamp(min=0).sqrt()
    return found / (own[..., None, None] * energy.clamp(min=EPSILON**2).sqrt() + EPSILON)


class RepresentationGenerator(nn.Module):
    """Turns the trunk's maps into one map of signed features, and optionally a guide for the conversion."""

    def __init__(self, trunk: Trunk, channels: int, guide: int, shape: FinderShape) -> None:
        super().__init__()
        self.trunk, self.shape = trunk, shape
        deep = [c for c, stride in zip(trunk.channels, trunk.strides, strict=True) if stride >= shape.stride]
        fine = [c for c, stride in zip(trunk.channels, trunk.strides, strict=True) if stride == shape.map_stride]
        self.features = nn.Sequential(nn.Conv2d(sum(deep), channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.guide = nn.Sequential(nn.Conv2d(sum(fine), guide, 1), nn.ReLU(inplace=True)) if guide else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor] | tuple[Tensor]:
        """Map (n, 3, h, w) to the representation (n, channels, h / stride, w / stride), and to the guide."""
        maps = dict(zip(self.trunk.strides, self.trunk(x), strict=True))
        stride = self.shape.stride
        deep = [
            maps[s] if s == stride else F.interpolate(maps[s], scale_factor=s / stride, mode="nearest")
            for s in self.trunk.strides
            if s >= stride
        ]
        features = self.features(torch.cat(deep, dim=1))
        return (features,) if self.guide is None else (features, self.guide(maps[self.shape.map_stride]))


class _Block(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class Conversion(nn.Module):
    """The conversion network: merges the heat maps of several scales, and the guide, into one heat map."""

    def __init__(self, channels_in: int, width: int) -> None:
        super().__init__()
        wide = (width, width * 3 // 2, width * 2, width * 2)
        self.enter = _Block(channels_in, wide[0])
        self.down = nn.ModuleList(nn.Sequential(_Block(a, b, 2), _Block(b, b)) for a, b in pairwise(wide))
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(wide))
        self.blend = nn.ModuleList(_Block(a, a) for a in wide[:-1])
        self.leave = nn.Conv2d(wide[0], 1, 1)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, maps + guide, h, w) to (n, h, w); h and w are multiples of 8."""
        levels = [self.enter(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        level = levels.pop()
        for up, blend in zip(reversed(self.up), reversed(self.blend), strict=True):
            grown = F.interpolate(up(level), scale_factor=2.0, mode="bilinear", align_corners=False)
            level = blend(levels.pop() + grown)
        return self.leave(level)[:, 0]


class Finder(nn.Module):
    """The search network: locates the object of a query in a scene."""

    def __init__(
        self, trunk: Trunk, query_trunk: Trunk | None, channels: int, guide: int, width: int, shape: FinderShape,
        spec: Preprocess,
    ) -> None:  # fmt: skip
        """Build the network.

        Args:
            trunk: trunk for scenes, and for queries if `query_trunk` is None.
            query_trunk: trunk for queries; None: the trunk for scenes.
            channels: channels of the representations.
            guide: channels of the scene that the conversion sees beside the heat maps; 0 is the published form.
            width: channels of the conversion network.
            shape: which scales are compared.
            spec: preprocessing of the scenes.
        """
        super().__init__()
        self.shape, self.spec, self.guide = shape, spec, guide
        self.represent = RepresentationGenerator(trunk, channels, guide, shape)
        self.represent_query = None if query_trunk is None else RepresentationGenerator(query_trunk, channels, 0, shape)
        self.conversion = Conversion(shape.maps + guide, width)

    def forward(self, scenes: Tensor, queries: Tensor, coverage: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Search scenes for queries.

        Args:
            scenes: (s, 3, h, w), normalised.
            queries: (q, 3, at most h, w), each at all scales on one canvas, see edge.finder.query.
            coverage: (q, rows, columns) of the canvas in cells, 0..1.
            pairs: (n, 2), scene and query of each search; None: scene i with query i.

        Returns:
            (n, h / map_stride, w / map_stride): about 1 on the object, about 0 elsewhere.
        """
        found = self.represent(scenes)
        represented = (self.represent_query or self.represent)(queries)[0]
        stacked = self.stack(found[0], represented, coverage, pairs)
        if self.guide:
            stacked = torch.cat([stacked, found[1] if pairs is None else found[1][pairs[:, 0]]], dim=1)
        return self.conversion(stacked)

    def stack(self, scene: Tensor, query: Tensor, coverage: Tensor, pairs: Tensor | None) -> Tensor:
        """Return the heat maps of all pairs of scales, (n, maps, rows, columns), on the grid of the final map."""
        shape, spec = self.shape, self.spec
        s, q = (slice(None), slice(None)) if pairs is None else (pairs[:, 0], pairs[:, 1])
        kernels = [self._pooled(query, coverage, i, shape.kernel) for i in range(len(shape.query_px))]
        by_pair: dict[tuple[int, int], Tensor] = {}
        painted = []
        for scale, grid in enumerate(scene_grids(shape, spec)):
            searched = [i for i, at in shape.pairs if at == scale]
            values, weights = (torch.stack([kernels[i][part][q] for i in searched], dim=1) for part in (0, 1))
            found = correlate(_resized(scene, *grid)[s], values, weights)
            maps = self._on_map(found)
            by_pair |= {(i, scale): maps[:, place] for place, i in enumerate(searched)}
            if shape.paint:
                painted.append(self._on_map(_paint(found, weights)))
        stacked = [torch.stack([by_pair[pair] for pair in shape.pairs], dim=1), *painted]
        if shape.parts:
            values, weights = self._pooled(query, coverage, shape.query_px.index(max(shape.query_px)), shape.parts)
            stacked.append(self._on_map(_part_maps(scene[s], values[q], weights[q])))
        return torch.cat(stacked, dim=1)

    def _on_map(self, found: Tensor) -> Tensor:
        """Resample heat maps (n, k, h, w) to the grid of the final map."""
        return _resized(found, *map_size(self.shape, self.spec), grow=True)

    def _pooled(self, query: Tensor, coverage: Tensor, scale: int, cells: int) -> tuple[Tensor, Tensor]:
        """Pool the object's representation into cells x cells: the mean in each cell, and the object's share of it."""
        (x, y), px = query_positions(self.shape, self.spec)[scale], self.shape.query_px[scale]
        stride = self.shape.stride
        columns, rows = slice(x // stride, -(-(x + px) // stride)), slice(y // stride, -(-(y + px) // stride))
        part, weight = query[:, :, rows, columns], coverage[:, None, rows, columns]
        weights = _resized(weight, cells, cells)
        return _resized(part * weight, cells, cells) / weights.clamp(min=EPSILON), weights[:, 0]


def _resized(maps: Tensor, rows: int, columns: int, *, grow: bool = False) -> Tensor:
    """Resample maps (n, c, h, w) to another grid."""
    matrix = upsample_matrix if grow else pool_matrix
    down = torch.from_numpy(matrix(maps.shape[2], rows)).to(maps)
    across = torch.from_numpy(matrix(maps.shape[3], columns)).to(maps)
    return torch.einsum("rh,nchw,kw->ncrk", down, maps, across)


def _paint(found: Tensor, weights: Tensor) -> Tensor:
    """The batch form of edge.finder.correlate.paint: (n, k, h, w) and (n, k, v, u) to (n, 1, h, w)."""
    size, (h, w) = weights.shape[2], found.shape[2:]
    before = (size - 1) // 2
    around = size - 1 - before
    padded = F.pad(found, (around, before, around, before))
    laid = [
        (weights[:, :, m, n, None, None] * padded[:, :, size - 1 - m :, size - 1 - n :][:, :, :h, :w]).amax(dim=1)
        for m in range(size)
        for n in range(size)
    ]
    return torch.stack(laid, dim=1).amax(dim=1, keepdim=True).clamp(min=0)


def _part_maps(scene: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """Return the similarity of each scene cell to the best query cell, and to all on average: (n, 2, h, w)."""
    n, _, h, w = scene.shape
    flat = weights.flatten(1)
    used = flat > 0.5 * flat.max(dim=1, keepdim=True).values
    parts = values.flatten(2).transpose(1, 2)
    parts = parts / parts.norm(dim=2, keepdim=True).clamp(min=EPSILON)
    unit = scene.flatten(2) / (scene.flatten(2).norm(dim=1, keepdim=True) + EPSILON)
    likeness = torch.bmm(parts, unit)  # n, parts, cells
    best = likeness.masked_fill(~used[..., None], -2.0).max(dim=1).values
    mean = (likeness * used[..., None]).sum(dim=1) / used.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.stack([best, mean], dim=1).reshape(n, 2, h, w)
