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

    outline: Points  # upper silhouette from the rear bumper over the roof to the front bumper
    belt: float  # y of the lower edge of the windows
    wheels: tuple[float, float, float]  # x of the rear and front axle, radius
    pillars: tuple[float, ...]  # x between windows and between doors
    cabin: tuple[float, float]  # x range that has side windows
    half_depth: float
    tumble: float  # roof width over body width

    @property
    def length(self) -> float:
        """Overall length in heights."""
        return self.outline[-1][0]


BODIES = {
    "hatch": Body(((0.03, 0.86), (0, 0.62), (0.05, 0.4), (0.2, 0.12), (0.42, 0.02), (0.85, 0), (1.35, 0.03), (1.95, 0.4), (2.55, 0.5), (2.68, 0.6), (2.7, 0.86)), 0.41, (0.5, 2.14, 0.215), (0.62, 1.2), (0.15, 1.9), 0.6, 0.78),
    "saloon": Body(((0.03, 0.86), (0, 0.55), (0.06, 0.4), (0.52, 0.35), (0.98, 0.05), (1.3, 0), (1.72, 0.03), (2.3, 0.39), (3.05, 0.48), (3.18, 0.6), (3.2, 0.86)), 0.39, (0.6, 2.56, 0.22), (0.98, 1.5), (0.66, 2.24), 0.6, 0.76),
    "estate": Body(((0.03, 0.86), (0, 0.55), (0.04, 0.4), (0.26, 0.06), (0.55, 0), (1.3, 0), (1.72, 0.03), (2.3, 0.39), (3.05, 0.48), (3.18, 0.6), (3.2, 0.86)), 0.39, (0.6, 2.56, 0.22), (0.86, 1.5), (0.12, 2.24), 0.6, 0.76),
    "coupe": Body(((0.03, 0.86), (0, 0.58), (0.06, 0.43), (0.3, 0.36), (1.05, 0.05), (1.4, 0), (1.7, 0.05), (2.3, 0.42), (3.08, 0.53), (3.18, 0.62), (3.2, 0.86)), 0.41, (0.6, 2.56, 0.235), (1.36,), (0.62, 2.22), 0.62, 0.7),
    "offroad": Body(((0.02, 0.8), (0, 0.62), (0.02, 0.4), (0.06, 0.05), (0.16, 0), (1.5, 0), (1.62, 0.04), (1.82, 0.37), (2.48, 0.46), (2.57, 0.53), (2.6, 0.8)), 0.37, (0.5, 2.12, 0.245), (0.7, 1.26), (0.12, 1.8), 0.55, 0.9),
    "van": Body(((0.02, 0.84), (0, 0.6), (0.01, 0.1), (0.1, 0), (1.9, 0), (2.08, 0.05), (2.5, 0.42), (2.84, 0.5), (2.9, 0.6), (2.9, 0.84)), 0.4, (0.52, 2.36, 0.2), (1.5,), (1.5, 2.4), 0.5, 0.92),
    "pickup": Body(((0.02, 0.8), (0, 0.6), (0.03, 0.42), (1.22, 0.4), (1.28, 0.06), (1.38, 0), (1.9, 0), (2.02, 0.04), (2.32, 0.37), (3.06, 0.46), (3.15, 0.53), (3.18, 0.8)), 0.37, (0.6, 2.64, 0.245), (1.62,), (1.3, 2.28), 0.57, 0.88),
}  # fmt: skip


def silhouette(body: Body) -> NDArray[np.uint8]:
    """The body without its wheels."""
    cover = np.zeros((UNIT, round(body.length * UNIT)), dtype=np.uint8)
    polygon(cover, np.array(body.outline) * UNIT, 255)
    return cover
