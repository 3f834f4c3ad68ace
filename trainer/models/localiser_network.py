"""The networks of the localiser, which finds the pixels of the object in a crop.

`Localiser` needs no published weights: a small U2-Net (Qin et al. 2020), an encoder and a decoder whose stages are
U-Nets themselves (RSU blocks, "ReSidual U-blocks"), with a side output at each decoder stage and one output that fuses
them. Unlike in the paper, the first convolution has stride 2, so that the mask has half the input's size; pooling is by
average; the channels are few. `TrunkLocaliser` starts from published weights: the maps of a backbone, and a decoder
with the same side outputs. The weights that the authors of U2-Net publish are for wider networks and fit neither. Both
are static graphs of convolution, ReLU, average pooling and upsampling.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.models.backbone import Trunk

STRIDE = 2  # input pixels per cell of the mask
COARSEST = 32  # input pixels per cell of the deepest map; the input size is a multiple of it
STRIDES = (2, 4, 8, 16, 32)  # of the maps that a TrunkLocaliser reads


class _Conv(nn.Sequential):
    """3x3, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int, dilation: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride, dilation, dilation, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


def _halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class ResidualUBlock(nn.Module):
    """A U-Net of `height` levels with a residual connection; a `flat` one dilates instead of pooling."""

    def __init__(self, channels_in: int, middle: int, channels_out: int, height: int, *, flat: bool = False) -> None:
        super().__init__()
        rates = [2**level if flat else 1 for level in range(height)]
        self.flat = flat
        self.enter = _Conv(channels_in, channels_out)
        self.down = nn.ModuleList(
            _Conv(channels_out if level == 0 else middle, middle, rates[level]) for level in range(height - 1)
        )
        self.bottom = _Conv(middle, middle, rates[-1] if flat else 2)
        self.up = nn.ModuleList(
            _Conv(2 * middle, channels_out if level == 0 else middle, rates[level]) for level in range(height - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels_in, h, w) to (n, channels_out, h, w)."""
        entered = self.enter(x)
        maps = [self.down[0](entered)]
        for conv in list(self.down)[1:]:
            maps.append(conv(maps[-1] if self.flat else _halve(maps[-1])))
        found = self.bottom(maps[-1])
        for level in range(len(maps) - 1, -1, -1):
            if not self.flat and level < len(maps) - 1:
                found = _double(found)
            found = self.up[level](torch.cat([found, maps[level]], dim=1))
        return found + entered


class MaskNetwork(nn.Module):
    """A localiser of any form."""

    def all_masks(self, x: Tensor) -> list[Tensor]:
        """Map (n, 3, h, w), normalised, to (n, 1, h / 2, w / 2) logits: the fused output, then each side output."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 3, h, w), normalised, to (n, 1, h / 2, w / 2) logits of the object."""
        return self.all_masks(x)[0]

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that started from published weights."""
        return []


class Localiser(MaskNetwork):
    """Four stages down, one at the bottom, four up; logits of the object at half the input's size."""

    def __init__(self, width: int) -> None:
        """Build the stages.

        Args:
            width: channels of the finest stage.
        """
        super().__init__()
        out = [width, width * 3 // 2, width * 2, width * 3]
        middle = [width // 2, width // 2, width * 3 // 4, width]
        heights = [5, 4, 3, 3]
        self.stem = _Conv(3, width, stride=2)
        self.encoder = nn.ModuleList(
            ResidualUBlock(([width, *out])[stage], middle[stage], out[stage], heights[stage], flat=stage == 3)
            for stage in range(4)
        )
        self.bottom = ResidualUBlock(out[3], middle[3], out[3], 3, flat=True)
        self.decoder = nn.ModuleList(
            ResidualUBlock(
                out[stage] + out[min(3, stage + 1)], middle[stage], out[stage], heights[stage], flat=stage == 3
            )
            for stage in range(4)
        )
        self.sides = nn.ModuleList(nn.Conv2d(channels, 1, 3, padding=1) for channels in [*out, out[3]])
        self.fuse = nn.Conv2d(5, 1, 1)

    def all_masks(self, x: Tensor) -> list[Tensor]:
        """Map (n, 3, h, w), normalised, to six (n, 1, h / 2, w / 2) logits: the fused output, then each side output."""
        maps = [self.encoder[0](self.stem(x))]
        for stage in list(self.encoder)[1:]:
            maps.append(stage(_halve(maps[-1])))
        found = self.bottom(_halve(maps[-1]))
        decoded = [found]
        for stage in range(3, -1, -1):
            found = self.decoder[stage](torch.cat([_double(found), maps[stage]], dim=1))
            decoded.insert(0, found)
        return _fused(self.sides, self.fuse, decoded)


class TrunkLocaliser(MaskNetwork):
    """The maps of a backbone, a decoder that adds them from coarse to fine, and a side output at each stride."""

    def __init__(self, trunk: Trunk, width: int) -> None:
        """Build the decoder.

        Args:
            trunk: with the maps of STRIDES.
            width: channels of the decoder.
        """
        super().__init__()
        self.trunk = trunk
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
            for channels in trunk.channels
        )
        self.smooth = nn.ModuleList(_Conv(width, width) for _ in trunk.channels)
        self.sides = nn.ModuleList(nn.Conv2d(width, 1, 3, padding=1) for _ in trunk.channels)
        self.fuse = nn.Conv2d(len(STRIDES), 1, 1)

    def all_masks(self, x: Tensor) -> list[Tensor]:
        """Map (n, 3, h, w), normalised, to six (n, 1, h / 2, w / 2) logits: the fused output, then each side output."""
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, self.trunk(x), strict=True)]
        decoded = [self.smooth[-1](maps[-1])]
        for level in range(len(maps) - 2, -1, -1):
            decoded.insert(0, self.smooth[level](maps[level] + _double(decoded[0])))
        return _fused(self.sides, self.fuse, decoded)

    def trunk_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the backbone."""
        return list(self.trunk.parameters())


def _fused(sides: nn.ModuleList, fuse: nn.Conv2d, decoded: list[Tensor]) -> list[Tensor]:
    """Return the fused output, then each side output at the size of the finest."""
    small = [side(feature) for side, feature in zip(sides, decoded, strict=True)]
    grown = small[:1] + [
        F.interpolate(side, scale_factor=float(2**level), mode="bilinear", align_corners=False)
        for level, side in enumerate(small[1:], start=1)
    ]
    return [fuse(torch.cat(grown, dim=1)), *grown]
