"""Scenes: the same seed gives the same bytes, and their ground truth is exact."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np

from trainer.synthetic.items import catalogue
from trainer.synthetic.scene import scene

ITEMS = catalogue()

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


def test_same_seed_gives_the_same_scene_in_one_process() -> None:
    assert _fingerprint() == _fingerprint()


def test_same_seed_gives_the_same_scene_in_another_process() -> None:
    done = subprocess.run([sys.executable, "-c", FINGERPRINT], capture_output=True, text=True, check=True)
    assert _fingerprint() == done.stdout.strip()


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
