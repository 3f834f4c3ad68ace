"""Checkout measures: shopping lists as rows of counts, and the measures of RPC (Wei et al. 2019). Pure numpy.

P and G are counts of N pictures and K items, found and true. The names are RPC's:

    cAcc    share of the pictures with P = G
    ACD     objects wrong in a picture: mean over pictures of Σ|P - G| over items
    mCCD    mean over items of Σ|P - G| / ΣG over pictures
    mCIoU   mean over items of Σ min(P, G) / Σ max(P, G) over pictures

RPC's own tool (rpctool) divides by zero for an item that no picture shows. Here mCCD averages over the items with
ΣG > 0, and mCIoU over those with Σ max(P, G) > 0; where all items are shown, as in RPC, both agree with the tool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.metrics import bootstrap

Counts = NDArray[np.int64]  # (pictures, items)


def count_items(lists: Sequence[Mapping[str, int]], items: Sequence[str]) -> Counts:
    """Turn shopping lists into rows of counts, one column per item; other items are ignored."""
    return np.array([[one.get(item, 0) for item in items] for one in lists], np.int64).reshape(len(lists), len(items))


def checkout_accuracy(found: Counts, true: Counts) -> NDArray[np.float64]:
    """Return 1 for each picture whose counts are all right, else 0; the mean is cAcc."""
    return np.asarray((found == true).all(axis=1), np.float64)


def counting_distance(found: Counts, true: Counts) -> NDArray[np.float64]:
    """Return by how many objects the list of each picture is wrong; the mean is ACD."""
    return np.asarray(np.abs(found - true).sum(axis=1), np.float64)


def relative_distance(found: Counts, true: Counts) -> NDArray[np.float64]:
    """Return the counting distance of each picture over its true objects, without empty pictures.

    rpctool computes its mean, too, without a name.
    """
    shown = true.sum(axis=1)
    return np.asarray(counting_distance(found, true)[shown > 0] / shown[shown > 0], np.float64)


def mean_category_distance(found: Counts, true: Counts) -> float:
    """Return mCCD: the distance of each item over its true objects, averaged over the items that are shown."""
    shown = true.sum(axis=0)
    wrong = np.abs(found - true).sum(axis=0)
    return float((wrong[shown > 0] / shown[shown > 0]).mean()) if (shown > 0).any() else 0.0


def mean_category_iou(found: Counts, true: Counts) -> float:
    """Return mCIoU: the lesser over the greater count of each item, averaged over the items shown or found."""
    less, more = np.minimum(found, true).sum(axis=0), np.maximum(found, true).sum(axis=0)
    return float((less[more > 0] / more[more > 0]).mean()) if (more > 0).any() else 1.0


def checkout_measures(found: Counts, true: Counts, seed: int = 0) -> dict[str, Any]:
    """Return all measures of lists; cAcc and ACD with their 95 % bootstrap interval over pictures."""
    exact, distance = checkout_accuracy(found, true), counting_distance(found, true)
    relative = relative_distance(found, true)
    return {
        "scenes": len(true),
        "objects": int(true.sum()),
        "cAcc": {"mean": float(exact.mean()) if len(exact) else 0.0, "interval": list(bootstrap(exact, seed))},
        "ACD": {"mean": float(distance.mean()) if len(distance) else 0.0, "interval": list(bootstrap(distance, seed))},
        "mCCD": mean_category_distance(found, true),
        "mCIoU": mean_category_iou(found, true),
        "relative_distance": float(relative.mean()) if len(relative) else 0.0,
    }
