"""Batches of picture indices."""

from __future__ import annotations

import numpy as np

from trainer.data.batches import pair_batches, shuffled_batches


def test_pair_batches_hold_neighbours_and_repeat_only_if_needed():
    labels = np.repeat(np.arange(6), 3)
    nearest = np.array([[(i + step) % 6 for step in range(1, 6)] for i in range(6)])
    for batch in pair_batches(labels, 4, 3, 20, np.random.default_rng(0), nearest):
        drawn = labels[batch].reshape(4, 3)
        assert (drawn == drawn[:, :1]).all()
        assert len(np.unique(batch)) == 12
        assert {(drawn[0, 0] + 1) % 6, (drawn[0, 0] + 2) % 6} <= set(drawn[:, 0])
    few = pair_batches(labels, 2, 5, 1, np.random.default_rng(0))[0]
    assert len(few) == 10


def test_shuffled_batches_repeat_no_picture_before_all_came():
    batches = shuffled_batches(7, 3, 5, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [3] * 5
    drawn = np.concatenate(batches)
    assert sorted(drawn[:7]) == sorted(drawn[7:14]) == list(range(7))
    assert [len(batch) for batch in shuffled_batches(2, 3, 1, np.random.default_rng(0))] == [2]
