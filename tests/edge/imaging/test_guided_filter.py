"""The guided filter: the mask takes the edges of the picture."""

import numpy as np

from edge.imaging.guided_filter import guided_filter, refine_mask


def test_coarse_mask_takes_the_pictures_edge():
    guide = np.zeros((60, 60), np.float32)
    guide[:, 33:] = 1.0
    rough = np.zeros((60, 60), np.float32)
    rough[:, 30:] = 1.0  # three columns too wide
    refined = guided_filter(guide, rough, 8, 1e-4)
    assert np.array_equal(refined[8:-8, 20:45] > 0.5, guide[8:-8, 20:45] > 0.5)


def test_mask_of_a_flat_picture_is_averaged():
    mask = np.zeros((40, 40), np.float32)
    mask[20, 20] = 1.0
    refined = guided_filter(np.full((40, 40), 0.4, np.float32), mask, 2, 1e-3)
    assert refined.max() < 0.05
    np.testing.assert_allclose(refined.sum(), 1.0, atol=1e-3)


def test_matching_mask_is_unchanged():
    guide = np.random.default_rng(1).random((40, 40)).astype(np.float32)
    np.testing.assert_allclose(guided_filter(guide, guide, 3, 1e-6), guide, atol=1e-3)


def test_mask_of_a_large_crop_is_refined_at_reduced_size():
    crop = np.full((400, 800, 3), 40, np.uint8)
    crop[80:320, 220:600] = 220
    rough = np.zeros((20, 40), np.uint8)
    rough[3:17, 10:31] = 255  # a cell too large on each side but one
    refined = refine_mask(crop, rough, 0.05)
    assert refined.shape == (80, 160)
    exact = np.zeros((80, 160), bool)
    exact[16:64, 44:120] = True
    overlap = ((refined >= 128) & exact).sum() / ((refined >= 128) | exact).sum()
    before = np.kron(rough >= 128, np.ones((4, 4), bool))
    assert overlap > (before & exact).sum() / (before | exact).sum() + 0.05
