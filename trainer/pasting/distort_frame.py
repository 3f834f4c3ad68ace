"""Distortions of a whole frame: exposure, resolution and noise of its camera, and bars at its sides."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.pasting.distort import DistortionProbabilities
from trainer.synthetic.camera import add_noise, jpeg, tone_curve

Bytes = NDArray[np.uint8]


def simulate_camera(image_rgb: Bytes, rng: np.random.Generator, probabilities: DistortionProbabilities) -> Bytes:
    """Simulate a camera on a composed frame, so that pasted objects and background come from one camera."""
    if rng.random() < probabilities.exposure:
        exposure, warmth = rng.uniform(0.75, 1.2), rng.normal(0, 0.04)
        gains = (exposure * (1 + warmth), exposure, exposure * (1 - warmth))
        image_rgb = tone_curve(image_rgb, gains, float(rng.uniform(0.88, 1.15)))
    if rng.random() < probabilities.resolution:
        high, wide = image_rgb.shape[:2]
        share = rng.uniform(0.4, 0.8)
        small = cv2.resize(
            image_rgb, (max(2, round(wide * share)), max(2, round(high * share))), interpolation=cv2.INTER_AREA
        )
        image_rgb = cv2.resize(small, (wide, high), interpolation=cv2.INTER_LINEAR)
    if rng.random() < probabilities.noise:
        image_rgb = add_noise(image_rgb, rng, float(rng.uniform(1, 8)))
        image_rgb = jpeg(image_rgb, int(rng.integers(55, 95)))
    return image_rgb


def pillar_box(image_rgb: Bytes, owner: NDArray[np.uint16], rng: np.random.Generator) -> None:
    """Lay black bars over two opposite sides, in place; pixels under them belong to no object."""
    upright = rng.random() < 0.5
    length = image_rgb.shape[1] if upright else image_rgb.shape[0]
    wide = max(1, round(length * rng.uniform(0.05, 0.15)))
    for part in (slice(0, wide), slice(length - wide, length)):
        place = (slice(None), part) if upright else (part, slice(None))
        image_rgb[place] = 0
        owner[place] = 0
