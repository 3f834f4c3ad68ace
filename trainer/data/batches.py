"""Batches of picture indices: plain ones, and ones with several pictures of each item for metric learning."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plain_batches(count: int, size: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Cut a shuffle of all indices into batches; an incomplete last batch is dropped."""
    order = rng.permutation(count)
    size = min(size, count)
    return [order[start : start + size] for start in range(0, count - size + 1, size)]


def shuffled_batches(count: int, size: int, batches: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Cut shuffles of all indices into a number of batches; no picture comes twice before all others came once."""
    needed = batches * min(size, count)
    order = np.concatenate([rng.permutation(count) for _ in range(-(-needed // count))])[:needed]
    return list(order.reshape(batches, -1))


def pair_batches(
    labels: NDArray[np.int64],
    classes: int,
    images: int,
    batches: int,
    rng: np.random.Generator,
    nearest: NDArray[np.int64] | None = None,
) -> list[NDArray[np.int64]]:
    """Draw batches of `classes` items with `images` pictures each.

    Args:
        labels: (n,) item of each picture, 0 and up.
        classes: items of a batch; fewer if there are fewer.
        images: pictures of each item, without repetition if there are enough.
        batches: number of batches.
        rng: source of randomness.
        nearest: (items, items) for each item the others, most similar first. Half of each batch is then the
            neighbourhood of one item, so that the negatives are hard.
    """
    members = [np.flatnonzero(labels == label) for label in range(int(labels.max()) + 1)]
    drawn = []
    for _ in range(batches):
        order = rng.permutation(len(members))
        if nearest is not None and classes < len(members):
            near = np.concatenate([order[:1], nearest[order[0]][: classes // 2]])
            order = np.concatenate([near, order[~np.isin(order, near)]])
        rows = [rng.choice(members[label], images, replace=len(members[label]) < images) for label in order[:classes]]
        drawn.append(np.concatenate(rows))
    return drawn
