"""Distortions of a cut-out: the differences between a clean picture of an object and the object in a photo.

Every function takes an RGBA picture premultiplied by alpha and returns another one. Distortions of a whole frame
(noise, pillar-box, resolution) are in trainer.pasting.distort_frame. The list is that of US 2018/0260664.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import TrainError
from trainer.pasting.superpixel import drop_segments
from trainer.synthetic.render import trimmed

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DistortionProbabilities:
    """The probability of each distortion of a cut-out or a frame, 0..1."""

    affine: float = 1.0  # turn, shear, stretch and perspective
    tear: float = 0.05  # one part is torn off and shifted
    lens_blur: float = 0.15
    motion_blur: float = 0.12
    lighting: float = 0.7  # brighter to one side, in another light
    transparency: float = 0.06
    segments: float = 0.12  # superpixels are dropped or darkened
    noise: float = 0.7  # noise of the frame; all below concern the frame
    pillar_box: float = 0.06
    resolution: float = 0.2
    exposure: float = 0.8

    def without(self, names: list[str]) -> DistortionProbabilities:
        """Return a copy in which some distortions never happen.

        Raises:
            TrainError: a name is not a distortion's.
        """
        known = [one.name for one in fields(self)]
        if unknown := [name for name in names if name not in known]:
            raise TrainError(f"distortion {unknown[0]!r} is unknown; known are {', '.join(known)}")
        return replace(self, **dict.fromkeys(names, 0.0))


def affine(picture: Bytes, rng: np.random.Generator, size_px: float, turn_deg: float) -> Bytes:
    """Scale, turn, shear, stretch and tilt a picture.

    Args:
        picture: RGBA, premultiplied.
        rng: source of randomness.
        size_px: longer side before the other distortions.
        turn_deg: largest turn to either side.
    """
    high, wide = picture.shape[:2]
    scale = size_px / max(high, wide)
    corners = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float64)
    shaped = (corners - (wide / 2, high / 2)) * scale * rng.uniform(0.9, 1.1, 2)
    shaped += rng.uniform(-0.05, 0.05, (4, 2)) * (wide * scale, high * scale)
    shear, angle = rng.uniform(-0.12, 0.12), np.radians(rng.uniform(-turn_deg, turn_deg))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return _warped(picture, corners, shaped @ np.array([[1.0, 0.0], [shear, 1.0]]) @ turn, scale)


def scaled(picture: Bytes, size_px: float) -> Bytes:
    """Scale a picture until its longer side is about size_px."""
    high, wide = picture.shape[:2]
    scale = size_px / max(high, wide)
    size = (max(2, round(wide * scale)), max(2, round(high * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def _warped(picture: Bytes, corners: NDArray[np.float64], shaped: NDArray[np.float64], scale: float) -> Bytes:
    shaped = shaped - shaped.min(axis=0)
    size = np.ceil(shaped.max(axis=0)).astype(int).clip(2)
    if scale < 0.6:  # shrink before the warp: linear interpolation would skip pixels
        small = scaled(picture, max(picture.shape[:2]) * scale * 1.2)
        corners = corners * np.divide(small.shape[1::-1], picture.shape[1::-1])
        picture = small
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), shaped.astype(np.float32))
    warped = cv2.warpPerspective(picture, matrix, (int(size[0]), int(size[1])), flags=cv2.INTER_LINEAR)
    return warped if not (warped[..., 3] >= 24).any() else trimmed(warped)


def tear(picture: Bytes, rng: np.random.Generator) -> Bytes:
    """Tear a picture along a jagged line and shift one part."""
    high, wide = picture.shape[:2]
    line = rng.uniform(0.3, 0.7) * high + np.cumsum(rng.normal(0, max(0.6, high * 0.01), wide))
    line += np.linspace(0, rng.uniform(-0.25, 0.25) * high, wide)
    below = np.arange(high)[:, None] > line[None]
    shift = np.round(np.array([rng.uniform(-0.08, 0.08) * wide, rng.uniform(0.01, 0.06) * high])).astype(int)
    room = int(np.abs(shift).max())
    upper, lower = (
        np.pad(np.where(part[..., None], picture, 0), ((room, room), (room, room), (0, 0))) for part in (~below, below)
    )
    lower = np.roll(lower, (shift[1], shift[0]), axis=(0, 1))
    keep = 255 - lower[..., 3:].astype(np.uint16)
    return trimmed((lower + upper * keep // 255).astype(np.uint8))


def lens_blur(picture: Bytes, rng: np.random.Generator) -> Bytes:
    """Defocus a picture with a disc, including its rim."""
    radius = rng.uniform(0.6, max(1.0, 0.015 * max(picture.shape[:2])))
    reach = int(np.ceil(radius)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return _spread(picture, disc)


def motion_blur(picture: Bytes, rng: np.random.Generator) -> Bytes:
    """Blur a picture along a line, including its rim."""
    length, angle = rng.uniform(2, max(3.0, 0.06 * max(picture.shape[:2]))), rng.uniform(0, np.pi)
    reach = int(np.ceil(length / 2)) + 1
    line = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    half = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    ends = [(int(v[0]), int(v[1])) for v in np.round((reach + np.array([-half, half])) * 16)]
    cv2.line(line, ends[0], ends[1], 1.0, 1, cv2.LINE_AA, shift=4)
    return _spread(picture, line)


def _spread(picture: Bytes, kernel: NDArray[np.float32]) -> Bytes:
    reach = kernel.shape[0] // 2
    room = cv2.copyMakeBorder(picture, reach, reach, reach, reach, cv2.BORDER_CONSTANT)
    blurred = cv2.filter2D(room, -1, kernel / max(float(kernel.sum()), 1e-6))
    return trimmed(blurred) if (blurred[..., 3] >= 24).any() else picture


def lighting(picture: Bytes, rng: np.random.Generator) -> Bytes:
    """Light a picture from one side and in another colour."""
    high, wide = picture.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    x, y = np.linspace(-1, 1, wide, dtype=np.float32), np.linspace(-1, 1, high, dtype=np.float32)
    ramp = 1 + rng.uniform(0, 0.3) * (np.cos(angle) * x[None] + np.sin(angle) * y[:, None]) / np.sqrt(2)
    gains = rng.uniform(0.75, 1.15) * (1 + rng.normal(0, 0.03, 3))
    return _gained(picture, ramp[..., None] * gains.astype(np.float32))


def match_lighting(picture: Bytes, around_rgb: Bytes, strength: float) -> Bytes:
    """Match a picture's brightness and colour cast to the place where it is pasted.

    Args:
        picture: RGBA, premultiplied.
        around_rgb: (h, w, 3) the place.
        strength: 0 changes nothing, 1 takes over the light of the place.
    """
    light = around_rgb.reshape(-1, 3).mean(axis=0) + 8.0
    grey = float(light.mean())
    cast = (light / grey) ** (0.5 * strength)
    alpha = max(1.0, float(picture[..., 3].astype(np.float64).sum()))
    own = 255.0 * float(picture[..., :3].astype(np.float64).sum()) / (3 * alpha) + 8.0
    gain = np.clip((grey / own) ** (0.35 * strength), 0.65, 1.35)
    return _gained(picture, np.clip(cast, 0.85, 1.18).astype(np.float32) * np.float32(gain))


def _gained(picture: Bytes, gain: NDArray[np.float32]) -> Bytes:
    colour = np.minimum(picture[..., :3] * gain, picture[..., 3:])  # premultiplied: never above alpha
    return np.dstack([np.clip(colour + 0.5, 0, 255).astype(np.uint8), picture[..., 3]])


def transparency(picture: Bytes, rng: np.random.Generator) -> Bytes:
    """Let the background show through."""
    return np.round(picture * np.float32(rng.uniform(0.65, 0.92))).astype(np.uint8)


def distort(picture: Bytes, rng: np.random.Generator, probabilities: DistortionProbabilities) -> Bytes:
    """Apply each distortion of a scaled cut-out with its probability."""
    steps = (
        (probabilities.lighting, lighting),
        (probabilities.segments, drop_segments),
        (probabilities.tear, tear),
        (probabilities.lens_blur, lens_blur),
        (probabilities.motion_blur, motion_blur),
        (probabilities.transparency, transparency),
    )
    for chance, step in steps:
        if rng.random() < chance:
            picture = step(picture, rng)
    return picture
