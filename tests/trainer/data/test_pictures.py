"""Pictures in memory: shrunk, trimmed."""

from __future__ import annotations

import numpy as np

from edge.imaging.image import trim
from tests.trainer.toy import write_crops
from trainer.data.dataset import read_samples
from trainer.data.pictures import load_pictures


def test_pictures_are_shrunk_and_the_factor_is_kept(tmp_path):
    pictures = load_pictures(read_samples(write_crops(tmp_path)), 20)
    assert {(20, 16, 3)} == {image.shape for image in pictures.images}
    assert {0.5} == set(pictures.scales)


def test_trim_cuts_to_the_object_on_a_plain_background():
    image = np.full((100, 100, 3), 250, np.uint8)
    image[20:60, 40:60] = 30
    assert trim(image, 0.1).shape == (48, 24, 3)
    busy = np.random.default_rng(0).integers(0, 255, (50, 50, 3)).astype(np.uint8)
    assert trim(busy, 0.1) is busy
