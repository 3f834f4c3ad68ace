"""Variation of training pictures: geometry per picture (OpenCV), light and damage per batch (torch)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edge.manifest import Preprocess
from edge.types import FloatArray, Image
from trainer.recipe import Augment


def vary_crop(image_rgb: Image, spec: Preprocess, how: Augment, rng: np.random.Generator) -> Image:
    """Cut a slightly wrong, turned and skewed part of a picture onto the model's canvas.

    The part is laid out as edge.preprocess lays out a crop, so that only the content varies, not the framing.
    """
    height, width = image_rgb.shape[:2]
    part = rng.uniform(*how.scale) * np.array([width, height]) * rng.uniform(0.95, 1.05, 2)
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
    matrix = cv2.getPerspectiveTransform(quad, target)
    canvas = np.full((spec.height, spec.width, 3), spec.fill, np.uint8)
    canvas[:inner_h, :inner_w] = cv2.warpPerspective(
        image_rgb, matrix, (inner_w, inner_h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return canvas


def vary_scene(
    image_rgb: Image, boxes_px: FloatArray, spec: Preprocess, how: Augment, rng: np.random.Generator
) -> tuple[Image, FloatArray, NDArray[np.bool_]]:
    """Zoom, shift and flip a scene onto the model's canvas.

    Returns:
        the canvas, the boxes on it clipped, and which of them are still there: a third visible, 4 px or more.
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


def vary_light(canvases: NDArray[np.uint8], how: Augment, rng: np.random.Generator) -> Tensor:
    """Vary brightness, contrast, saturation and tint; blur, add noise, erase rectangles.

    Returns:
        (n, 3, h, w) float 0..255.
    """
    x = torch.from_numpy(canvases).permute(0, 3, 1, 2).float()
    n, _, height, width = x.shape

    def draw(*shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(-how.colour, how.colour, (n, *shape)).astype(np.float32))

    if how.colour:
        grey = x.mean(dim=1, keepdim=True)
        x = grey + (x - grey) * (1.0 + 1.5 * draw(1, 1, 1))
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = mean + (x - mean) * (1.0 + draw(1, 1, 1))
        x = x * (1.0 + 0.3 * draw(3, 1, 1)) * (1.0 + draw(1, 1, 1))
    blurred = torch.from_numpy(np.flatnonzero(rng.random(n) < how.blur))
    if len(blurred):
        x[blurred] = F.avg_pool2d(x[blurred], 3, stride=1, padding=1, count_include_pad=False)
    if how.noise:
        sigma = torch.from_numpy(rng.uniform(0, how.noise, (n, 1, 1, 1)).astype(np.float32))
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        # One field of noise, rolled for each picture: drawing it afresh costs more than the warp.
        field = torch.randn((3, height, width), generator=generator)
        x = x + sigma * torch.stack([field.roll(int(rng.integers(height * width))) for _ in range(n)])
    for i in np.flatnonzero(rng.random(n) < how.erase):
        size_y, size_x = (int(v) for v in rng.uniform(0.1, 0.35, 2) * (height, width))
        top, left = int(rng.integers(height - size_y)), int(rng.integers(width - size_x))
        grey_level = torch.from_numpy(rng.uniform(0, 255, (3, 1, 1)).astype(np.float32))
        x[i, :, top : top + size_y, left : left + size_x] = grey_level
    return x.clamp_(0, 255)


def normalise(x: Tensor, spec: Preprocess) -> Tensor:
    """Map (n, 3, h, w) of 0..255 by the card's mean and standard deviation, channels last in memory."""
    mean = torch.tensor(spec.mean).view(1, 3, 1, 1) * 255.0
    std = torch.tensor(spec.std).view(1, 3, 1, 1) * 255.0
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def canvases_to_input(canvases: NDArray[np.uint8], spec: Preprocess) -> Tensor:
    """Map evaluation canvases (n, h, w, 3) to the network's input."""
    return normalise(torch.from_numpy(canvases).permute(0, 3, 1, 2).float(), spec)
