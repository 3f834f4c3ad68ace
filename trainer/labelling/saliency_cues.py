"""Cues to where an object is, from one picture alone: colour deviation, texture change, edges, saliency.

The border of the picture counts as background, and what deviates from it as an object (US 12,386,883, semi-automatic
labelling by edges, texture changes and colour deviations). Saliency is the spectral residual (Hou and Zhang, 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.types import FloatArray, Image

_GROUNDS = 4  # largest number of colours of the background
_LEAST_GROUND = 0.08  # share of the border's pixels that makes a colour part of the background
_RIM = 0.03  # width of the border, of the shorter side
_CODES = 10  # uniform, rotation-invariant local binary patterns of eight neighbours
_RESIDUAL_SIDE = 64


@dataclass(frozen=True, slots=True)
class Cues:
    """The cues of one picture, each (h, w) float32."""

    lab: FloatArray  # (h, w, 3), CIE L*a*b*
    colour: FloatArray  # Mahalanobis distance to the nearest colour of the background, 0..1
    texture: FloatArray  # chi-squared distance of local binary patterns to the background's, 0..1
    saliency: FloatArray  # spectral residual, 0..1
    gradient: FloatArray  # largest of the three channels, in levels per pixel
    contours: NDArray[np.uint8]  # thin edges, 0 or 255

    @property
    def maps(self) -> dict[str, FloatArray]:
        """Return the cues that separate objects from the background, by name."""
        return {"colour": self.colour, "texture": self.texture, "saliency": self.saliency}


def compute_cues(image_rgb: Image) -> Cues:
    """Compute all cues of a picture about 320 px long."""
    lab = np.asarray(cv2.cvtColor(image_rgb.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB), np.float32)
    smooth = np.asarray(cv2.GaussianBlur(lab, (0, 0), 1.0), np.float32)
    gradient = _gradient(smooth)
    rim = _rim(image_rgb.shape[0], image_rgb.shape[1])
    return Cues(smooth, _colour(smooth, rim), _texture(lab[..., 0], rim), _saliency(lab), gradient, _contours(smooth))


def _rim(height: int, width: int) -> NDArray[np.bool_]:
    wide = max(2, round(_RIM * min(height, width)))
    rim = np.ones((height, width), bool)
    rim[wide:-wide, wide:-wide] = False
    return rim


def _colour(lab: FloatArray, rim: NDArray[np.bool_]) -> FloatArray:
    border = lab[rim]
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 12, 0.5)
    _, owner, _ = cv2.kmeans(border, min(_GROUNDS, len(border)), None, criteria, 2, cv2.KMEANS_PP_CENTERS)
    nearest = np.full(lab.shape[:2], np.inf, np.float32)
    for ground in range(_GROUNDS):
        mine = border[owner[:, 0] == ground]
        if len(mine) < _LEAST_GROUND * len(border):
            continue
        inverse = np.linalg.inv(np.cov(mine.T) + np.diag([16.0, 4.0, 4.0]))  # a floor for sensor noise
        off = lab - mine.mean(axis=0)
        nearest = np.minimum(nearest, np.einsum("hwc,cd,hwd->hw", off, inverse, off, optimize=True))
    return _unit(np.sqrt(nearest))


def _texture(light: FloatArray, rim: NDArray[np.bool_]) -> FloatArray:
    padded = np.pad(light, 1, mode="edge")
    height, width = light.shape
    around = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    bits = np.stack([padded[y : y + height, x : x + width] > light + 1.5 for y, x in around])
    changes = (bits != np.roll(bits, 1, axis=0)).sum(axis=0)
    code = np.where(changes <= 2, bits.sum(axis=0), _CODES - 1)
    side = max(5, round(0.05 * min(height, width)) | 1)
    local = np.stack([cv2.blur((code == value).astype(np.float32), (side, side)) for value in range(_CODES)])
    ground = np.array([(code[rim] == value).mean() for value in range(_CODES)], np.float32)[:, None, None]
    return _unit(((local - ground) ** 2 / (local + ground + 1e-3)).sum(axis=0))


def _saliency(lab: FloatArray) -> FloatArray:
    height, width = lab.shape[:2]
    total = np.zeros((_RESIDUAL_SIDE, _RESIDUAL_SIDE), np.float32)
    for channel in cv2.split(cv2.resize(lab, (_RESIDUAL_SIDE, _RESIDUAL_SIDE), interpolation=cv2.INTER_AREA)):
        spectrum = np.fft.fft2(channel)
        log = np.log(np.abs(spectrum) + 1e-6).astype(np.float32)
        residual = log - cv2.blur(log, (3, 3))
        total += np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))).astype(np.float32) ** 2
    return _unit(np.asarray(cv2.resize(cv2.GaussianBlur(total, (0, 0), 2.5), (width, height)), np.float32))


def _gradient(lab: FloatArray) -> FloatArray:
    x, y = (cv2.Scharr(lab, cv2.CV_32F, *axis) / 32.0 for axis in ((1, 0), (0, 1)))
    # Dilated, because outlines may be off by one pixel.
    return np.asarray(cv2.dilate(np.sqrt((x**2 + y**2).max(axis=2)), np.ones((3, 3))), np.float32)


def _contours(lab: FloatArray) -> NDArray[np.uint8]:
    """Run Canny on lightness and both colour axes, with thresholds from the picture's own gradients."""
    found = np.zeros(lab.shape[:2], np.uint8)
    for channel, gain in zip(cv2.split(lab), (2.55, 2.0, 2.0), strict=True):
        grey = np.clip(channel * gain + (128.0 if gain == 2.0 else 0.0), 0, 255).astype(np.uint8)
        grey = cv2.bilateralFilter(grey, 5, 20.0, 3.0)
        strong = max(30.0, float(np.quantile(np.abs(cv2.Sobel(grey, cv2.CV_16S, 1, 0)), 0.93)) * 1.5)
        found |= cv2.Canny(grey, strong * 0.5, strong, L2gradient=True)
    return found


def _unit(values: FloatArray) -> FloatArray:
    """Scale so that the 2nd and 98th percentiles are 0 and 1."""
    low, high = np.quantile(values, [0.02, 0.98])
    return np.asarray(np.clip((values - low) / max(1e-6, float(high - low)), 0.0, 1.0), np.float32)
