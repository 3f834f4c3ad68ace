"""Silhouettes: masks to bits, alignment, overlap."""

import numpy as np

from edge.silhouettes.silhouette import SIDE, SIZE, align, cells, overlaps, silhouette_of


def disc(side: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return (np.hypot(x - centre[0], y - centre[1]) <= radius).astype(np.uint8) * 255


def test_mask_is_centred_with_the_aspect_of_the_crop():
    grid = cells(silhouette_of(np.full((30, 30), 255, np.uint8), 100, 50))  # a mask stretched from a wide crop
    assert grid.sum() == SIDE * SIDE / 2
    assert grid[16:48].all()
    assert not grid[:16].any()


def test_silhouette_has_512_bytes_at_any_mask_resolution():
    coarse, fine = (silhouette_of(disc(side, ((side - 1) / 2,) * 2, side / 3), 10, 10) for side in (48, 400))
    assert coarse.nbytes == fine.nbytes == SIZE == 512
    assert overlaps(coarse, fine[None])[0] > 0.95


def test_empty_mask_has_no_silhouette():
    assert silhouette_of(np.zeros((64, 64), np.uint8), 10, 20) is None
    speck = np.zeros((64, 64), np.uint8)
    speck[3:6, 3:6] = 255
    assert silhouette_of(speck, 64, 64) is None


def test_overlap_is_intersection_over_union():
    left, right = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    left[:, :32], right[:, 16:48] = True, True
    rows = np.stack([np.packbits(left), np.packbits(right), np.zeros(SIZE, np.uint8)])
    np.testing.assert_allclose(overlaps(np.packbits(left), rows), [1.0, 16 / 48, 0.0])
    assert overlaps(np.zeros(SIZE, np.uint8), rows[2:])[0] == 0.0


def test_alignment_removes_size_and_position():
    small, large = (silhouette_of(disc(128, *where), 128, 128) for where in (((40, 50), 24), ((70, 66), 50)))
    assert overlaps(small, large[None])[0] < 0.3
    assert overlaps(align(small), align(large)[None])[0] > 0.94


def test_alignment_keeps_the_shape():
    tall, wide = np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.uint8)
    tall[4:60, 26:40], wide[26:40, 4:60] = 255, 255
    upright, lying = (align(silhouette_of(mask, 64, 64)) for mask in (tall, wide))
    assert overlaps(upright, lying[None])[0] < 0.35
    grid = cells(upright)
    assert abs(int(grid.sum()) - 32 * 32) < 80
    y, x = np.nonzero(grid)
    assert abs(x.mean() - 31.5) < 0.6
    assert abs(y.mean() - 31.5) < 0.6
    assert np.array_equal(align(np.zeros(SIZE, np.uint8)), np.zeros(SIZE, np.uint8))
