"""How well the shopping list of a picture was read: counts of each item, found beside true (RPC, Wei et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]  # (pictures, items)


def count(lists: Sequence[Mapping[str, int]], items: Sequence[str]) -> Counts:
    """Shopping lists as rows of counts, one column per item; what is no item of these does not count."""
    return np.array([[one.get(item, 0) for item in items] for one in lists], np.int64).reshape(len(lists), len(items))


def checkout_accuracy(found: Counts, true: Counts) -> NDArray[np.float64]:
    """For each picture, 1 when every count is right, else 0; the mean is cAcc."""
    return np.asarray((found == true).all(axis=1), np.float64)


def counting_distance(found: Counts, true: Counts) -> NDArray[np.float64]:
    """For each picture, by how many objects its list is wrong; the mean is ACD."""
    return np.asarray(np.abs(found - true).sum(axis=1), np.float64)


def mean_category_distance(found: Counts, true: Counts) -> float:
    """Distance of each item over its true objects, mean over the items that are shown at all: mCCD."""
    shown = true.sum(axis=0)
    wrong = np.abs(found - true).sum(axis=0)
    return float((wrong[shown > 0] / shown[shown > 0]).mean()) if (shown > 0).any() else 0.0


def mean_category_iou(found: Counts, true: Counts) -> float:
    """Lesser over greater count of each item, mean over the items that are shown or found at all: mCIoU."""
    less, more = np.minimum(found, true).sum(axis=0), np.maximum(found, true).sum(axis=0)
    return float((less[more > 0] / more[more > 0]).mean()) if (more > 0).any() else 1.0
