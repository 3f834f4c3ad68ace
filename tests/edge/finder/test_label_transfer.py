"""The vote of the nearest known pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edge.finder.correlate import Kernel
from edge.finder.label_transfer import KnownPicture, transfer_label


def kernel(x: float, y: float) -> Kernel:
    """One cell of two channels."""
    return Kernel(np.array([[[x]], [[y]]], np.float32), np.ones((1, 1), np.float32))


KNOWN = [
    KnownPicture("cup", kernel(1, 0)),
    KnownPicture("jug", kernel(1, 0.3)),
    KnownPicture("jug", kernel(1, 0.4)),
    KnownPicture("pan", kernel(-1, 0)),
]


@pytest.mark.parametrize(("nearest", "label", "similarity"), [(1, "cup", 1.0), (3, "jug", 1 / np.hypot(1, 0.3))])
def test_nearest_pictures_vote_with_their_similarity(nearest, label, similarity):
    found = transfer_label(kernel(2, 0), KNOWN, nearest)
    assert found.label == label
    assert found.similarity == pytest.approx(similarity, abs=1e-4)


def test_opposite_pictures_have_no_vote():
    assert transfer_label(kernel(1, 0), [KNOWN[3], KNOWN[0]], 2).label == "cup"
