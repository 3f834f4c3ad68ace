"""Distortions: each changes what it should and leaves a picture that can be pasted."""

from __future__ import annotations

import numpy as np
import pytest

from edge.errors import TrainError
from trainer.pasting import distort as d
from trainer.pasting.distort_frame import pillar_box, simulate_camera
from trainer.pasting.superpixel import drop_segments, segments

STEPS = [d.tear, d.lens_blur, d.motion_blur, d.lighting, d.transparency, drop_segments]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def quilt() -> np.ndarray:
    """An opaque picture of 6x5 patches of different colours, 60x50 px."""
    patches = np.random.default_rng(9).integers(20, 236, (6, 5, 3)).astype(np.uint8)
    colour = np.kron(patches, np.ones((10, 10, 1), np.uint8))
    return np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("seed", range(4))
def test_distortions_change_the_picture_but_keep_it_premultiplied(step, seed):
    changed = step(quilt(), rng(seed))
    assert changed.dtype == np.uint8
    assert changed.shape[2] == 4
    assert (changed[..., :3].max(axis=2).astype(int) <= changed[..., 3].astype(int) + 1).all()
    if step is not drop_segments:  # may find no segment small enough
        assert changed.shape != quilt().shape or (changed != quilt()).any()


@pytest.mark.parametrize("step", STEPS)
def test_same_seed_gives_the_same_bytes(step):
    assert step(quilt(), rng(5)).tobytes() == step(quilt(), rng(5)).tobytes()


def test_blurs_spread_beyond_the_edge():
    for step in (d.lens_blur, d.motion_blur):
        blurred = step(quilt(), rng(1))
        assert blurred.shape[0] > 60 or blurred.shape[1] > 50
        assert ((blurred[..., 3] > 0) & (blurred[..., 3] < 255)).any()


def test_affine_scales_to_the_wanted_size():
    for size in (30.0, 120.0):
        picture = d.affine(quilt(), rng(2), size, 0.0)
        assert 0.8 * size < max(picture.shape[:2]) < 1.25 * size


def test_tear_leaves_a_gap():
    torn = d.tear(quilt(), rng(0))
    inside = torn[10:-10, 10:-10, 3]
    assert (inside == 0).any()
    assert (torn[..., 3] > 0).sum() <= 60 * 50


def test_transparency_is_limited():
    alpha = d.transparency(quilt(), rng(0))[..., 3]
    assert 0.6 * 255 < alpha.min() == alpha.max() < 0.95 * 255


def test_superpixels_follow_the_patches():
    labels = segments(np.ascontiguousarray(quilt()[..., :3]))
    assert labels.min() == 1
    assert len(np.unique(labels[5::10, 5::10])) >= 28  # of 30 patches
    assert np.sort(np.bincount(labels.ravel()))[-30:].sum() > 0.85 * labels.size


def test_dropped_superpixels_are_at_most_two_fifths():
    shares = [float((drop_segments(quilt(), rng(seed))[..., 3] < 128).mean()) for seed in range(12)]
    assert max(shares) <= 0.42
    assert sum(share > 0.02 for share in shares) >= 3
    assert sum(share == 0 for share in shares) >= 3  # darkened instead


def test_pasted_picture_takes_on_the_light_of_its_place():
    warm, dark = np.full((4, 4, 3), (220, 180, 120), np.uint8), np.full((4, 4, 3), 25, np.uint8)
    grey = np.dstack([np.full((8, 8, 3), 120, np.uint8), np.full((8, 8), 255, np.uint8)])
    red, _, blue = d.match_lighting(grey, warm, 1.0)[..., :3].reshape(-1, 3).mean(axis=0)
    assert red > blue + 10
    assert d.match_lighting(grey, dark, 1.0)[..., :3].mean() < 100
    assert (d.match_lighting(grey, dark, 0.0) == grey).all()


def test_pixels_under_pillar_bars_belong_to_no_object():
    image, owner = np.full((40, 60, 3), 90, np.uint8), np.ones((40, 60), np.uint16)
    pillar_box(image, owner, rng(0))
    assert (image[owner == 0] == 0).all()
    assert (image[owner == 1] == 90).all()
    assert 0.05 < (owner == 0).mean() < 0.35


def test_camera_simulation_keeps_the_frame_size():
    image = rng().integers(0, 256, (30, 44, 3)).astype(np.uint8)
    assert (
        simulate_camera(image, rng(1), d.DistortionProbabilities(resolution=1, noise=1, exposure=1)).shape
        == image.shape
    )
    assert (
        simulate_camera(image, rng(1), d.DistortionProbabilities().without(["resolution", "noise", "exposure"]))
        == image
    ).all()


def test_unknown_distortion_is_rejected():
    with pytest.raises(TrainError, match="'tares' is unknown; known are affine, tear"):
        d.DistortionProbabilities().without(["tares"])
