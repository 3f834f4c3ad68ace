"""Nearly the same pictures: found when re-encoded, scaled or brightened; not when only the shape is alike."""

from __future__ import annotations

import numpy as np

from edge.imaging.image import decode_image, encode_image, read_image, resize
from tests.dataset_formats.samples import picture
from trainer.data import duplicates
from trainer.data.duplicates import connected_groups, near_duplicates, perceptual_hash, similar_pairs


def blobs(tmp_path, seed: int):
    return read_image(picture(tmp_path / f"{seed}.png", seed, 160, 120))


def test_altered_copies_are_found_among_other_pictures(tmp_path):
    strangers = [blobs(tmp_path, seed) for seed in range(40)]
    copies = [
        decode_image(encode_image(strangers[3], ".jpg", 60), "jpeg"),
        resize(strangers[7], 80, 60, "area"),
        np.clip(strangers[9].astype(int) + 10, 0, 255).astype(np.uint8),
    ]
    pairs, bits = near_duplicates([perceptual_hash(image) for image in strangers + copies])
    assert {(3, 40), (7, 41), (9, 42)} == set(map(tuple, pairs.tolist()))
    assert bits.max() <= 4


def test_same_shape_in_another_colour_is_no_duplicate(tmp_path):
    image = np.clip(blobs(tmp_path, 1).astype(int) - [0, 60, 60], 0, 255).astype(np.uint8)
    other = np.clip(blobs(tmp_path, 1).astype(int) - [60, 0, 60], 0, 255).astype(np.uint8)
    one, two = perceptual_hash(image), perceptual_hash(other)
    assert np.abs(one.thumb.astype(int) - two.thumb).mean() > 20
    assert len(near_duplicates([one, two])[0]) == 0
    assert near_duplicates([one, two], bits=64, colour=255.0)[0].tolist() == [[0, 1]]


def test_hash_follows_the_cosine_transform():
    x = np.arange(32)
    wave = 128 + 60 * np.cos(np.pi * (2 * x + 1) * 2 / 64)[None, :] + 20 * np.cos(np.pi * (2 * x + 1) / 64)[:, None]
    bits = perceptual_hash(np.repeat(wave[..., None], 3, axis=2).astype(np.uint8)).bits.reshape(8, 8)
    assert bits[0, 2]
    assert bits[1, 0]
    assert bits[0, 0]


def test_blockwise_pairs_equal_those_of_plain_search():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4300, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs, values = similar_pairs(vectors, 0.98)
    first, second = np.nonzero(np.triu(vectors @ vectors.T >= 0.98, 1))
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == set(map(tuple, pairs.tolist()))
    assert len(pairs) > 100
    np.testing.assert_allclose(values, (vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(axis=1), atol=1e-5)


def test_number_of_pairs_is_bounded(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_PAIRS", 1000)
    pairs, values = similar_pairs(np.ones((5000, 1), np.float32), 0.9)
    assert pairs.shape == (1000, 2)
    assert len(values) == 1000


def test_groups_join_pairs_that_share_a_picture():
    assert connected_groups(np.array([[0, 1], [1, 4], [2, 3]]), 6) == [[0, 1, 4], [2, 3]]
    assert connected_groups(np.zeros((0, 2), np.int64), 6) == []
    assert len(near_duplicates([])[0]) == 0
