"""Checkout scenes from pictures of single products, after RPC (Wei et al. 2019): many products on a counter.

The three levels have on average the kinds and pieces of RPC's own checkout photos, as its page's table counts them
(rpc-dataset.github.io): easy 3.81 and 7.15, medium 6.27 and 12.30, hard 8.87 and 17.35.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.pasting.cutouts import Cutout
from trainer.pasting.distort import Chances
from trainer.pasting.ground import Ground
from trainer.pasting.paste import Composer, Layout
from trainer.synthetic.scene import Scene

LevelName = Literal["easy", "medium", "hard"]


@dataclass(frozen=True, slots=True)
class Level:
    """How crowded a counter is."""

    kinds: tuple[int, int]  # of products, at least and at most
    pieces: tuple[int, int]
    least_visible: float  # of each product, where there is room
    covered: float  # of the counter, about


LEVELS: dict[LevelName, Level] = {
    "easy": Level((3, 5), (4, 10), 0.95, 0.25),
    "medium": Level((5, 8), (10, 15), 0.85, 0.4),
    "hard": Level((8, 10), (15, 20), 0.7, 0.5),
}


def checkout_scene(
    rng: np.random.Generator,
    by_item: Sequence[Sequence[Cutout]],
    ground: Ground,
    layout: Layout,
    chances: Chances,
    level: Level,
) -> Scene:
    """Lays products on a counter, in any direction, all of much the same scale.

    Args:
        rng: of all draws.
        by_item: the cut-outs of each product; with fewer products than the level has kinds, all are used.
        ground: the counter.
        layout: its size; counts and sizes of objects are the level's.
        chances: of distortions.
        level: how crowded.
    """
    arranged = Layout(
        layout.width_px, layout.height_px, turn_deg=180.0, least_visible=level.least_visible, fit=layout.fit
    )
    kinds = min(len(by_item), int(rng.integers(level.kinds[0], level.kinds[1] + 1)))
    pieces = max(kinds, int(rng.integers(level.pieces[0], level.pieces[1] + 1)))
    chosen = rng.permutation(len(by_item))[:kinds]
    bought = rng.permutation(np.concatenate([chosen, rng.choice(chosen, pieces - kinds)]))
    composer = Composer(ground(rng, layout.width_px, layout.height_px), rng, arranged, chances)
    # a product fills about half of its square
    side = np.sqrt(level.covered * layout.width_px * layout.height_px / pieces / 0.55)
    for kind in bought:
        looks = by_item[int(kind)]
        composer.put(looks[int(rng.integers(len(looks)))], float(side * np.clip(rng.lognormal(0, 0.15), 0.7, 1.4)))
    return composer.finish()
