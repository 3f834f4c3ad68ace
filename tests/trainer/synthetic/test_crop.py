"""Crops of single items."""

from __future__ import annotations

import numpy as np

from trainer.synthetic.crop import crop
from trainer.synthetic.items import catalogue

ITEMS = catalogue()


def test_crop_has_the_wanted_longest_side() -> None:
    for item in ITEMS[::14]:
        assert max(crop(item, ITEMS, np.random.default_rng(2), 120).shape[:2]) == 120
