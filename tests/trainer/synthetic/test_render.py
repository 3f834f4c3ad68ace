"""Pictures of single items."""

from __future__ import annotations

import numpy as np

from trainer.synthetic.items import catalogue
from trainer.synthetic.render import catalogue_picture, render_object

ITEMS = catalogue()


def test_another_seed_gives_another_picture() -> None:
    first, second = (render_object(ITEMS[0], np.random.default_rng(seed), 64) for seed in (1, 2))
    assert first.shape != second.shape or (first != second).any()


def test_object_is_rendered_tightly_at_the_wanted_height() -> None:
    for item in ITEMS[::7]:
        picture = render_object(item, np.random.default_rng(3), 100)
        shown = picture[..., 3] >= 24
        assert shown.any(axis=1)[[0, -1]].all()
        assert shown.any(axis=0)[[0, -1]].all()
        assert 80 <= picture.shape[0] <= 135


def test_catalogue_picture_is_white_around_the_item() -> None:
    for item in ITEMS[::9]:
        image_rgb, mask = catalogue_picture(item, np.random.default_rng(1), 96)
        assert image_rgb.shape == (96, 96, 3)
        assert 0.05 < mask.mean() < 0.8
        assert (image_rgb[0] == 255).all()
        assert (image_rgb[-1] == 255).all()
