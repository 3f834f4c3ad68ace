"""Shading of surfaces: diffuse light, reflections of glass and metal, and the sheen of paint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Surface = Literal["glass", "metal", "paper", "paint"]


@dataclass(frozen=True, slots=True)
class Light:
    """One lamp and the brightness of the surroundings."""

    side: float  # -1 from the left .. 1 from the right
    fill: float  # 0 hard shadow side .. 1 flat light
    shine: float  # strength of reflections, about 1


def reflectance(surface: Surface, light: Light, right: Floats, up: Floats, gloss: Floats) -> tuple[Floats, Floats]:
    """Return a factor and an addition for a colour, from its normal (right, up, toward the camera) and gloss."""
    toward = np.sqrt(np.clip(1 - right * right - up * up, 0, 1))
    size = float(np.hypot(light.side * 0.75, 0.832))
    direct = np.clip(right * (light.side * 0.75 / size) + up * (0.45 / size) + toward * (0.7 / size), 0, 1)
    shade = (0.42 + 0.3 * light.fill) + 0.1 * up + (0.62 - 0.3 * light.fill) * direct
    index = np.clip((right + 1) * 127.5, 0, 255).astype(np.intp)
    streak, body = _mirror(surface, light)
    full = np.clip(gloss * 4 - 3, 0, 1) if surface in ("glass", "metal") else 0.0
    if surface in ("glass", "metal"):
        shade = shade + full * (body.take(index) - shade)
    shine = streak.take(index) * (gloss * np.float32(light.shine)) * np.clip(1 - np.abs(up) * 0.9, 0, 1)
    if surface == "paint":
        shade = shade + gloss * 0.25 * np.clip(up, -0.4, 1)
    return shade, shine


def _mirror(surface: Surface, light: Light) -> tuple[Floats, Floats]:
    """Return a glossy body's reflections by the sideways component of its normal: (256,) streaks and body factor."""
    right = np.linspace(-1, 1, 256)
    side = np.sign(light.side) if light.side else 1.0
    place = side * (0.5 + 0.25 * abs(light.side))

    def lobe(at: float, width: float) -> NDArray[np.float64]:
        return np.exp(-(((right - at) / width) ** 2))

    if surface == "glass":
        streak = 150 * lobe(place, 0.07) + 75 * lobe(-place * 1.08, 0.05) + 18 * lobe(place * 0.6, 0.25)
        body = 0.62 + 0.55 * np.sqrt(np.clip(1 - right**2, 0, 1)) + 0.12 * side * right
    elif surface == "metal":
        streak = 70 * lobe(place, 0.12) + 38 * lobe(-place * 1.1, 0.08)
        body = 0.52 + 0.55 * lobe(place * 0.9, 0.32) + 0.34 * lobe(-place * 0.55, 0.2) - 0.3 * lobe(side * 1.0, 0.1)
        body = body - 0.25 * lobe(-side * 1.0, 0.14) + 0.2 * lobe(0.0, 0.25)
    else:
        streak = 46 * lobe(place, 0.16) + 20 * lobe(-place, 0.1)
        body = np.ones(256)
    return streak.astype(np.float32), body.astype(np.float32)
