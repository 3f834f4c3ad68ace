"""Region confusion: shuffle, flip and re-crop the blocks of a picture, so that only local detail survives.

US 12,386,883 describes the mechanism (see NOTICE); the shuffle is that of Chen et al., "Destruction and construction
learning", CVPR 2019: a block moves less than twice the neighbourhood along each axis.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def shuffled_positions(blocks: int, neighbourhood: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw where each block comes from.

    Returns:
        rows and columns, (blocks, blocks) each: the block at (y, x) of the result was at (rows[y, x], columns[y, x]).
        A permutation; |rows[y, x] - y| and |columns[y, x] - x| stay below 2 * neighbourhood.
    """
    index = torch.arange(blocks)
    jitter = torch.rand((2, blocks, blocks), generator=generator) * 2 * neighbourhood - neighbourhood
    columns = (index[None, :] + jitter[0]).argsort(dim=1)  # in each row, along x
    rows = (index[:, None] + jitter[1]).argsort(dim=0)  # then in each column, along y
    return rows, columns.gather(0, rows)


def region_confusion(
    images: Tensor, blocks: int, neighbourhood: int, generator: torch.Generator, crop: float = 0.15
) -> Tensor:
    """Confuse the regions of a batch, each picture in its own way.

    Args:
        images: (n, c, h, w), h and w multiples of `blocks`.
        blocks: along each axis.
        neighbourhood: k of the shuffle, blocks; 0 leaves the blocks in place.
        generator: of the randomness.
        crop: the most that is cut off each axis of a block before it is scaled back; 0 keeps every pixel.
    """
    n, c, h, w = images.shape
    size_y, size_x = h // blocks, w // blocks
    tiles = images.unfold(2, size_y, size_y).unfold(3, size_x, size_x)  # n c B B y x
    tiles = tiles.permute(0, 2, 3, 1, 4, 5).reshape(n, blocks * blocks, c, size_y, size_x)
    if neighbourhood:
        source = torch.stack([_flat_source(blocks, neighbourhood, generator) for _ in range(n)])
        tiles = tiles[torch.arange(n)[:, None], source]
    tiles = tiles.reshape(-1, c, size_y, size_x)
    tiles = _flip_and_crop(tiles, crop, generator) if crop else _flip(tiles, generator)
    tiles = tiles.reshape(n, blocks, blocks, c, size_y, size_x).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(n, c, h, w).contiguous(memory_format=torch.channels_last)


def _flat_source(blocks: int, neighbourhood: int, generator: torch.Generator) -> Tensor:
    rows, columns = shuffled_positions(blocks, neighbourhood, generator)
    return (rows * blocks + columns).flatten()


def _signs(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, (count, 2), generator=generator) * 2 - 1


def _flip(tiles: Tensor, generator: torch.Generator) -> Tensor:
    signs = _signs(len(tiles), generator)
    tiles = torch.where((signs[:, 0] < 0)[:, None, None, None], tiles.flip(3), tiles)
    return torch.where((signs[:, 1] < 0)[:, None, None, None], tiles.flip(2), tiles)


def _flip_and_crop(tiles: Tensor, crop: float, generator: torch.Generator) -> Tensor:
    """Flip each tile or not along each axis, and scale a random part of it back to full size: one resampling."""
    count = len(tiles)
    scale = 1.0 - crop * torch.rand((count, 2), generator=generator)
    shift = (torch.rand((count, 2), generator=generator) * 2 - 1) * (1.0 - scale)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = (scale * _signs(count, generator)).unbind(1)
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(tiles.shape), align_corners=False)
    return F.grid_sample(tiles, grid, mode="bilinear", padding_mode="border", align_corners=False)
