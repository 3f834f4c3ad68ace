"""Body styles of cars: silhouette, axles, windows and width."""

# ruff: noqa: E501  an outline is read as one row

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.synthetic.motif import polygon

UNIT = 512  # pixels of flat art per car height

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Body:
    """A body style; lengths are in car heights, x from the rear, y down from the roof."""

    outline: Points  # upper silhouette, from the rear bumper over the roof to the front bumper
    belt: float  # y of the lower edge of the windows
    wheels: tuple[float, float, float]  # x of the rear and front axle, radius
    pillars: tuple[float, ...]  # x between windows and between doors
    cabin: tuple[float, float]  # x range that has side windows
    half_depth: float
    tumble: float  # roof width over body width

    @property
    def length(self) -> float:
        """Return the overall length in heights."""
        return self.outline[-1][0]


BODIES = {
    "hatch": Body(((0.026, 0.86), (0, 0.62), (0.043, 0.4), (0.172, 0.12), (0.361, 0.02), (0.731, 0), (1.161, 0.03), (1.677, 0.4), (2.193, 0.5), (2.305, 0.6), (2.322, 0.86)), 0.41, (0.43, 1.84, 0.215), (0.533, 1.032), (0.129, 1.634), 0.6, 0.78),
    "saloon": Body(((0.026, 0.86), (0, 0.55), (0.052, 0.4), (0.447, 0.35), (0.843, 0.05), (1.118, 0), (1.479, 0.03), (1.978, 0.39), (2.623, 0.48), (2.735, 0.6), (2.752, 0.86)), 0.39, (0.516, 2.202, 0.22), (0.843, 1.29), (0.568, 1.926), 0.6, 0.76),
    "estate": Body(((0.026, 0.86), (0, 0.55), (0.034, 0.4), (0.224, 0.06), (0.473, 0), (1.118, 0), (1.479, 0.03), (1.978, 0.39), (2.623, 0.48), (2.735, 0.6), (2.752, 0.86)), 0.39, (0.516, 2.202, 0.22), (0.74, 1.29), (0.103, 1.926), 0.6, 0.76),
    "coupe": Body(((0.026, 0.86), (0, 0.58), (0.052, 0.43), (0.258, 0.36), (0.903, 0.05), (1.204, 0), (1.462, 0.05), (1.978, 0.42), (2.649, 0.53), (2.735, 0.62), (2.752, 0.86)), 0.41, (0.516, 2.202, 0.235), (1.17,), (0.533, 1.909), 0.62, 0.7),
    "offroad": Body(((0.017, 0.8), (0, 0.62), (0.017, 0.4), (0.052, 0.05), (0.138, 0), (1.29, 0), (1.393, 0.04), (1.565, 0.37), (2.133, 0.46), (2.21, 0.53), (2.236, 0.8)), 0.37, (0.43, 1.823, 0.245), (0.602, 1.084), (0.103, 1.548), 0.55, 0.9),
    "van": Body(((0.017, 0.84), (0, 0.6), (0.009, 0.1), (0.086, 0), (1.634, 0), (1.789, 0.05), (2.15, 0.42), (2.442, 0.5), (2.494, 0.6), (2.494, 0.84)), 0.4, (0.447, 2.03, 0.2), (1.29,), (1.29, 2.064), 0.5, 0.92),
    "pickup": Body(((0.017, 0.8), (0, 0.6), (0.026, 0.42), (1.049, 0.4), (1.101, 0.06), (1.187, 0), (1.634, 0), (1.737, 0.04), (1.995, 0.37), (2.632, 0.46), (2.709, 0.53), (2.735, 0.8)), 0.37, (0.516, 2.27, 0.245), (1.393,), (1.118, 1.961), 0.57, 0.88),
}  # fmt: skip


def silhouette(body: Body) -> NDArray[np.uint8]:
    """Return the silhouette of the body without its wheels."""
    cover = np.zeros((UNIT, round(body.length * UNIT)), dtype=np.uint8)
    polygon(cover, np.array(body.outline) * UNIT, 255)
    return cover
