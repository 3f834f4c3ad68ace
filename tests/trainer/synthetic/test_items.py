"""The synthetic world: the same seed gives the same bytes, and its ground truth is exact."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest

from trainer.synthetic.crop import crop
from trainer.synthetic.items import CATEGORIES, catalogue
from trainer.synthetic.render import catalogue_picture, render_object, sprite
from trainer.synthetic.scene import scene
from trainer.synthetic.shading import Light
from trainer.synthetic.solid import View
from trainer.synthetic.stream import stream

ITEMS = catalogue()
FRONT = View(yaw=0.0, pitch=0.08, light=Light(-0.5, fill=0.5, shine=1.0))
QUARTER = View(yaw=0.75, pitch=0.02, light=Light(-0.5, fill=0.5, shine=1.0))

FINGERPRINT = """
import hashlib, numpy
from trainer.synthetic.items import catalogue
from trainer.synthetic.scene import scene
picture = scene(numpy.random.default_rng(5), catalogue()[::9], 160, 96, 3)
print(hashlib.sha256(picture.image_rgb.tobytes() + b"".join(o.mask.tobytes() for o in picture.objects)).hexdigest())
"""


def _fingerprint() -> str:
    picture = scene(np.random.default_rng(5), ITEMS[::9], 160, 96, 3)
    masks = b"".join(one.mask.tobytes() for one in picture.objects)
    return hashlib.sha256(picture.image_rgb.tobytes() + masks).hexdigest()


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_category_has_a_dozen_items_with_unique_ids(category: str) -> None:
    mine = [item for item in ITEMS if item.category == category]
    assert len(mine) >= 12
    assert len({item.label for item in mine}) == len({item.item_id for item in mine}) == len(mine)
    assert all(item.item_id.startswith(f"{category}-") for item in mine)


@pytest.mark.parametrize("category", CATEGORIES)
def test_no_two_items_of_a_category_look_the_same(category: str) -> None:
    """From one viewpoint and in one light, at least 1.5 % of the pixels differ clearly."""
    view = QUARTER if category == "car" else FRONT
    pictures = {}
    for item in (item for item in ITEMS if item.category == category):
        picture = sprite(item, view, 72)
        canvas = np.zeros((96, 260, 4), dtype=np.int16)
        height, width = min(96, picture.shape[0]), min(260, picture.shape[1])
        canvas[:height, :width] = picture[:height, :width]
        pictures[item.item_id] = canvas
    for first, second in combinations(pictures, 2):
        shown = (pictures[first][..., 3] > 0) | (pictures[second][..., 3] > 0)
        differs = np.abs(pictures[first] - pictures[second]).max(axis=2) > 40
        assert differs.sum() / shown.sum() > 0.015, (first, second)


def test_same_seed_gives_the_same_scene_in_one_process() -> None:
    assert _fingerprint() == _fingerprint()


def test_same_seed_gives_the_same_scene_in_another_process() -> None:
    done = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True)
    assert _fingerprint() == done.stdout.strip()


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


def test_boxes_of_a_scene_are_the_extents_of_their_masks() -> None:
    for seed in range(6):
        picture = scene(np.random.default_rng(seed), ITEMS, 160, 96, 4)
        for one in picture.objects:
            rows, columns = np.flatnonzero(one.mask.any(axis=1)), np.flatnonzero(one.mask.any(axis=0))
            assert one.box_px == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def test_masks_of_a_scene_do_not_overlap() -> None:
    picture = scene(np.random.default_rng(8), ITEMS, 160, 96, 6)
    assert sum(one.mask.astype(int) for one in picture.objects).max() == 1


def test_visible_fraction_is_lower_for_a_hidden_object() -> None:
    fractions = [
        one.visible_fraction
        for seed in range(12)
        for one in scene(np.random.default_rng(seed), ITEMS, 160, 96, 6).objects
    ]
    assert max(fractions) == 1.0
    assert 0.12 <= min(fractions) < 0.9


def test_catalogue_picture_is_white_around_the_item() -> None:
    for item in ITEMS[::9]:
        image_rgb, mask = catalogue_picture(item, np.random.default_rng(1), 96)
        assert image_rgb.shape == (96, 96, 3)
        assert 0.05 < mask.mean() < 0.8
        assert (image_rgb[0] == 255).all()
        assert (image_rgb[-1] == 255).all()


def test_crop_has_the_wanted_longest_side() -> None:
    for item in ITEMS[::14]:
        assert max(crop(item, ITEMS, np.random.default_rng(2), 120).shape[:2]) == 120


def test_stream_objects_stay_inside_the_frame() -> None:
    seen: dict[int, tuple[str, list[int]]] = {}
    for frame in stream(3, ITEMS, 160, 96, fps=5, seconds=6):
        assert frame.image_rgb.shape == (96, 160, 3)
        for one in frame.objects:
            item_id, frames = seen.setdefault(one.object_id, (one.item_id, []))
            frames.append(frame.index)
            x0, y0, x1, y1 = one.box_px
            assert item_id == one.item_id
            assert 0 <= x0 < x1 <= 160
            assert 0 <= y0 < y1 <= 96
            assert 0 < one.visible_fraction <= 1
    assert len(seen) >= 6
    assert {"car"} < {item_id.split("-")[0] for item_id, _ in seen.values()}
    for _, frames in seen.values():  # an object passes once
        assert frames[-1] - frames[0] < 5 * 4


def test_same_seed_gives_the_same_stream() -> None:
    first, second = (
        hashlib.sha256(b"".join(frame.image_rgb.tobytes() for frame in stream(4, ITEMS, 160, 96, 3, 2))).hexdigest()
        for _ in range(2)
    )
    assert first == second
