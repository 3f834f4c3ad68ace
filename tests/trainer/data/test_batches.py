"""Batches of picture indices."""

from __future__ import annotations

import numpy as np

from trainer.data.batches import pair_batches


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
