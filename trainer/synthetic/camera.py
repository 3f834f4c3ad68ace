"""Camera simulation: exposure, white balance, blur, noise and JPEG."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
_NOISE = 1 << 20


@cache
def _noise() -> NDArray[np.float32]:
    return np.random.default_rng(11).standard_normal(_NOISE, dtype=np.float32)


def tone_curve(image_rgb: Bytes, gains: tuple[float, float, float], gamma: float) -> Bytes:
    """Apply white balance, exposure and gamma by table."""
    level = np.linspace(0, 1, 256) ** gamma * 255
    table = np.clip(np.round(level[:, None] * np.array(gains)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image_rgb, table[None]))


def add_noise(image_rgb: Bytes, rng: np.random.Generator, sigma: float) -> Bytes:
    """Add sensor noise; the pattern is cut from a stored field, so it costs little."""
    size = image_rgb.size
    start = int(rng.integers(max(1, _NOISE - size)))
    noise = np.resize(_noise()[start : start + size], size).reshape(image_rgb.shape)
    return np.asarray(cv2.add(image_rgb, noise * np.float32(sigma), dtype=cv2.CV_8U))


def jpeg(image_rgb: Bytes, quality: int) -> Bytes:
    """Pass the image through JPEG; the channels are swapped for OpenCV and back."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"image of shape {image_rgb.shape}: the JPEG encoder failed")
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def photograph(image_rgb: Bytes, rng: np.random.Generator) -> Bytes:
    """Photograph a drawn world with a random exposure, colour of light, focus and noise."""
    exposure, warmth, green = rng.uniform(0.7, 1.25), rng.normal(0, 0.06), rng.normal(0, 0.02)
    gains = (exposure * (1 + warmth), exposure * (1 + green), exposure * (1 - warmth))
    image_rgb = tone_curve(image_rgb, gains, float(rng.uniform(0.85, 1.2)))
    if rng.random() < 0.5:
        image_rgb = cv2.GaussianBlur(image_rgb, (5, 5), float(rng.uniform(0.3, 1.1)))
    if rng.random() < 0.15:
        reach = int(rng.integers(2, 5))
        image_rgb = cv2.blur(image_rgb, (reach, 1) if rng.random() < 0.7 else (1, reach))
    image_rgb = add_noise(image_rgb, rng, float(rng.uniform(1, 7)))
    if rng.random() < 0.6:
        image_rgb = jpeg(image_rgb, int(rng.integers(55, 95)))
    return image_rgb
