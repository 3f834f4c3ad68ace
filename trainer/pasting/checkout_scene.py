"""Checkout scenes from pictures of single products, after RPC (Wei et al. 2019): many products on a counter.

The three levels have the average kinds and pieces of RPC's own checkout photos, as the table on its page counts them
(rpc-dataset.github.io): easy 3.81 and 7.15, medium 6.27 and 12.30, hard 8.87 and 17.35.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from trainer.pasting.background import Background
from trainer.pasting.cutouts import Cutout
from trainer.pasting.distort import DistortionProbabilities
from trainer.pasting.paste import Composer, SceneLayout
from trainer.synthetic.scene import Scene

LevelName = Literal["easy", "medium", "hard"]


@dataclass(frozen=True, slots=True)
class Level:
    """How crowded a counter is."""

    kinds: tuple[int, int]  # number of different products, smallest and largest
    pieces: tuple[int, int]  # number of products, smallest and largest
    least_visible: float  # visible fraction of each product, if there is room
    covered: float  # approximate share of the counter that products cover


LEVELS: dict[LevelName, Level] = {
    "easy": Level((3, 5), (4, 10), 0.95, 0.25),
    "medium": Level((5, 8), (10, 15), 0.85, 0.4),
    "hard": Level((8, 10), (15, 20), 0.7, 0.5),
}


def checkout_scene(
    rng: np.random.Generator,
    by_item: Sequence[Sequence[Cutout]],
    background: Background,
    layout: SceneLayout,
    probabilities: DistortionProbabilities,
    level: Level,
) -> Scene:
    """Lay products on a counter, in any direction and at a similar scale.

    Args:
        rng: source of randomness.
        by_item: the cut-outs of each product; all products are used if there are fewer than the level's kinds.
        background: the counter.
        layout: size of the scene; the level decides the number and size of objects.
        probabilities: probability of each distortion.
        level: how crowded the counter is.
    """
    arranged = replace(layout, turn_deg=180.0, least_visible=level.least_visible)
    kinds = min(len(by_item), int(rng.integers(level.kinds[0], level.kinds[1] + 1)))
    pieces = max(kinds, int(rng.integers(level.pieces[0], level.pieces[1] + 1)))
    chosen = rng.permutation(len(by_item))[:kinds]
    bought = rng.permutation(np.concatenate([chosen, rng.choice(chosen, pieces - kinds)]))
    composer = Composer(background(rng, layout.width_px, layout.height_px), rng, arranged, probabilities)
    # a product fills about half of its square
    side = np.sqrt(level.covered * layout.width_px * layout.height_px / pieces / 0.55)
    for kind in bought:
        views = by_item[int(kind)]
        composer.paste(views[int(rng.integers(len(views)))], float(side * np.clip(rng.lognormal(0, 0.15), 0.7, 1.4)))
    return composer.finish()
