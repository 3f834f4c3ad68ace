"""Augmentation of training pictures, 8 bits deep (OpenCV), region confusion, and canvases as network input.

Region confusion shuffles, flips and re-crops the blocks of a picture, so that only local detail survives. US 12,386,883
describes the mechanism (see NOTICE). The shuffle is that of Chen et al., "Destruction and construction learning", CVPR
2019: a block moves less than twice the neighbourhood along each axis.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edge.manifest.model import Preprocess
from edge.types import FloatArray, Image
from trainer.recipe_parts import Augment

_NOISE = 1 << 20  # numbers


def augment_crop(image_rgb: Image, spec: Preprocess, how: Augment, rng: np.random.Generator) -> Image:
    """Cut a shifted, turned and skewed part out of a picture, in another light, at its size on the canvas."""
    return augment_appearance(_warped(image_rgb, *_random_cut(image_rgb, spec, how, rng)), how, rng)


def augment_masked(
    image_rgb: Image,
    mask: NDArray[np.uint8],
    spec: Preprocess,
    how: Augment,
    rng: np.random.Generator,
    under_rgb: Image | None = None,
) -> tuple[Image, NDArray[np.uint8]]:
    """Augment a picture as `augment_crop` does, and its mask in the same way. Lay the object on `under_rgb`, if any."""
    matrix, size = _random_cut(image_rgb, spec, how, rng)
    content, cover = _warped(image_rgb, matrix, size), _warped(mask, matrix, size)
    if under_rgb is not None:
        below = cv2.resize(under_rgb, size, interpolation=cv2.INTER_AREA)
        share = cover[..., None].astype(np.float32) / 255.0
        content = np.asarray(np.rint(below + share * (content.astype(np.float32) - below)), np.uint8)
    return augment_appearance(content, how, rng), cover


def _random_cut(
    image_rgb: Image, spec: Preprocess, how: Augment, rng: np.random.Generator
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Return the perspective map from a picture to a random part, and the part's width and height on the canvas."""
    height, width = image_rgb.shape[:2]
    part = rng.uniform(*how.scale) * np.array([width, height]) * rng.uniform(1.0 - how.stretch, 1.0 + how.stretch, 2)
    centre = np.array([width, height]) * (0.5 + rng.uniform(-how.shift, how.shift, 2))
    angle = np.deg2rad(rng.uniform(-how.rotate_deg, how.rotate_deg))
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    corners = (corners + rng.uniform(-how.perspective, how.perspective, (4, 2))) * part
    if how.flip and rng.random() < 0.5:
        corners = corners[[1, 0, 3, 2]]
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    quad = (corners @ turn + centre).astype(np.float32)
    inner_w, inner_h = spec.width, spec.height
    if spec.resize == "letterbox":
        scale = min(spec.width / part[0], spec.height / part[1])
        inner_w = max(1, min(spec.width, round(part[0] * scale)))
        inner_h = max(1, min(spec.height, round(part[1] * scale)))
    target = np.array([[0, 0], [inner_w, 0], [inner_w, inner_h], [0, inner_h]], np.float32)
    return cv2.getPerspectiveTransform(quad, target), (inner_w, inner_h)


def _warped(picture: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.uint8]:
    warped = cv2.warpPerspective(picture, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def pad(contents: list[Image], spec: Preprocess) -> NDArray[np.uint8]:
    """Lay contents out as edge.inference.preprocess does, with a constant border: (n, h, w, 3)."""
    canvases = np.full((len(contents), spec.height, spec.width, 3), spec.fill, np.uint8)
    for canvas, content in zip(canvases, contents, strict=True):
        canvas[: content.shape[0], : content.shape[1]] = content
    return canvases


def confuse_regions(contents: list[Image], spec: Preprocess, blocks: int, neighbourhood: int, seed: int) -> list[Image]:
    """Apply region confusion to the contents only: a border among the blocks would reveal the outline."""
    full = np.stack([cv2.resize(content, (spec.width, spec.height)) for content in contents])
    x = torch.from_numpy(full).permute(0, 3, 1, 2).float()
    confused = region_confusion(x, blocks, neighbourhood, torch.Generator().manual_seed(seed))
    pixels = confused.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return [
        np.asarray(cv2.resize(image, content.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
        for image, content in zip(pixels, contents, strict=True)
    ]


def augment_scene(
    image_rgb: Image, boxes_px: FloatArray, spec: Preprocess, how: Augment, rng: np.random.Generator
) -> tuple[Image, FloatArray, NDArray[np.bool_]]:
    """Zoom, shift and flip a scene onto the model's canvas.

    Returns:
        the canvas, the boxes clipped to it, and which of them to keep: a third visible, 4 px or more.
    """
    height, width = image_rgb.shape[:2]
    scale = min(spec.width / width, spec.height / height) / rng.uniform(*how.scale)
    free = np.array([spec.width - width * scale, spec.height - height * scale])
    # Zoomed in, anywhere inside; zoomed out, anywhere on the canvas: free is negative or positive.
    shift = free * rng.uniform(0.0, 1.0, 2) if rng.random() < 0.7 else np.minimum(free, 0.0) * 0.5
    matrix = np.array([[scale, 0.0, shift[0]], [0.0, scale, shift[1]]])
    boxes = boxes_px * scale + np.tile(shift, 2)
    if how.flip and rng.random() < 0.5:
        matrix = np.array([[-scale, 0.0, shift[0] + width * scale], [0.0, scale, shift[1]]])
        x0, x1 = matrix[0, 2] - boxes_px[:, 0] * scale, matrix[0, 2] - boxes_px[:, 2] * scale
        boxes = np.stack([x1, boxes[:, 1], x0, boxes[:, 3]], axis=1)
    canvas = cv2.warpAffine(
        image_rgb,
        matrix,
        (spec.width, spec.height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(spec.fill,) * 3,
    )
    clipped = boxes.clip(0, [spec.width, spec.height] * 2)
    size, full = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    seen = (size.prod(axis=1) >= full.prod(axis=1) / 3) & (size.min(axis=1, initial=np.inf) >= 4)
    return np.asarray(canvas, np.uint8), clipped.astype(np.float32), seen


def augment_appearance(canvas: Image, how: Augment, rng: np.random.Generator) -> Image:
    """Change brightness, contrast, saturation and tint; blur, add noise, erase a rectangle."""
    if how.colour:
        canvas = np.asarray(cv2.transform(canvas, _colour_matrix(float(canvas.mean()), how.colour, rng)), np.uint8)
    if rng.random() < how.blur:
        canvas = _blur(canvas, rng)
    if how.noise:
        start = int(rng.integers(_NOISE - canvas.size)) if canvas.size < _NOISE else 0
        noise = np.resize(_noise()[start : start + canvas.size], canvas.shape) * np.float32(rng.uniform(0, how.noise))
        canvas = np.asarray(cv2.add(canvas, noise, dtype=cv2.CV_8U), np.uint8)
    if rng.random() < how.erase:
        height, width = canvas.shape[:2]
        size_y, size_x = (max(1, int(v)) for v in rng.uniform(0.1, 0.35, 2) * (height, width))
        top, left = int(rng.integers(height - size_y)), int(rng.integers(width - size_x))
        canvas[top : top + size_y, left : left + size_x] = rng.integers(0, 256, 3)
    return canvas


def _blur(canvas: Image, rng: np.random.Generator) -> Image:
    """Blur a picture: out of focus, or moved along a line of up to a sixteenth of the picture."""
    if rng.random() < 0.5:
        return np.asarray(cv2.GaussianBlur(canvas, (3, 3), rng.uniform(0.5, 1.2)), np.uint8)
    length = rng.uniform(2.0, max(2.0, 0.0625 * max(canvas.shape[:2])))
    angle = rng.choice([0.0, np.pi / 2]) + rng.normal(0.0, 0.15)  # cameras pan, and tilt
    half = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    size = 2 * int(np.ceil(length / 2)) + 1
    line = np.zeros((size, size), np.float32)
    ends = [tuple(int(v) for v in np.round((size // 2 + sign * half) * 16)) for sign in (-1, 1)]
    cv2.line(line, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, shift=4)
    return np.asarray(cv2.filter2D(canvas, -1, line / line.sum(), borderType=cv2.BORDER_REPLICATE), np.uint8)


def _colour_matrix(mean: float, strength: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one affine map of RGB: saturation about grey, contrast about the mean, tint, brightness."""
    saturation, contrast, brightness = 1.0 + np.array([1.5, 1.0, 1.0]) * rng.uniform(-strength, strength, 3)
    tint = brightness * (1.0 + 0.3 * rng.uniform(-strength, strength, 3))
    mix = saturation * np.eye(3) + (1.0 - saturation) / 3.0
    shift = np.full((3, 1), mean * (1.0 - contrast))
    return np.asarray(tint[:, None] * np.hstack([contrast * mix, shift]))


@cache
def _noise() -> FloatArray:
    """Return stored noise, drawn once and cut anywhere: drawing it each time costs more than the warp."""
    return np.random.default_rng(0).standard_normal(_NOISE, dtype=np.float32)


def canvases_to_input(canvases: NDArray[np.uint8], spec: Preprocess) -> Tensor:
    """Map canvases (n, h, w, 3) to the network's input: (n, 3, h, w), normalised, channels last in memory."""
    x = torch.from_numpy(canvases).permute(0, 3, 1, 2).float()
    mean = torch.tensor(spec.mean).view(1, 3, 1, 1) * 255.0
    std = torch.tensor(spec.std).view(1, 3, 1, 1) * 255.0
    return x.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)


def shuffled_positions(blocks: int, neighbourhood: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the source of each block.

    Returns:
        rows and columns, (blocks, blocks) each: the block at (y, x) of the result was at (rows[y, x], columns[y, x]).
        This is a permutation; |rows[y, x] - y| and |columns[y, x] - x| stay below 2 * neighbourhood.
    """
    index = torch.arange(blocks)
    jitter = torch.rand((2, blocks, blocks), generator=generator) * 2 * neighbourhood - neighbourhood
    columns = (index[None, :] + jitter[0]).argsort(dim=1)  # in each row, along x
    rows = (index[:, None] + jitter[1]).argsort(dim=0)  # then in each column, along y
    return rows, columns.gather(0, rows)


def region_confusion(
    images: Tensor, blocks: int, neighbourhood: int, generator: torch.Generator, crop: float = 0.15
) -> Tensor:
    """Apply region confusion to a batch, to each picture with its own draw.

    Args:
        images: (n, c, h, w), h and w multiples of `blocks`.
        blocks: number of blocks along each axis.
        neighbourhood: k of the shuffle, in blocks; 0 leaves the blocks in place.
        generator: source of randomness.
        crop: largest share cut off each axis of a block before it is scaled back; 0 keeps every pixel.
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
    """Flip each tile at random along each axis and scale a random part back to full size, in one resampling."""
    count = len(tiles)
    scale = 1.0 - crop * torch.rand((count, 2), generator=generator)
    shift = (torch.rand((count, 2), generator=generator) * 2 - 1) * (1.0 - scale)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = (scale * _signs(count, generator)).unbind(1)
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, list(tiles.shape), align_corners=False)
    return F.grid_sample(tiles, grid, mode="bilinear", padding_mode="border", align_corners=False)
