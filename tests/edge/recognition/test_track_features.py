"""Fusing the features of a track's crops."""

import numpy as np
import pytest

from edge.recognition.track_features import TrackFeatures
from edge.types import Decision, Match


@pytest.mark.parametrize(
    ("box", "outgrown"), [((20, 20, 71, 60), True), ((20, 20, 60, 71), True), ((9, 9, 58, 58), False)]
)
def test_box_a_quarter_larger_is_outgrown(box, outgrown):
    features = TrackFeatures()
    assert not features.is_outgrown(box)
    features.count_embedding((20, 20, 60, 60), 1.0)
    features.count_embedding((20, 20, 40, 60), 2.0)
    assert features.is_outgrown(box) is outgrown


def test_probabilities_fuse_to_their_weighted_geometric_mean():
    features = TrackFeatures()
    assert features.add_probabilities(np.array([0.5, 0.5], np.float32), 1.0) == pytest.approx([0.5, 0.5])
    # (0.5^1 * 0.9^3)^(1/4) = 0.7770, (0.5^1 * 0.1^3)^(1/4) = 0.1495, then over their sum
    fused = features.add_probabilities(np.array([0.9, 0.1], np.float32), 3.0)
    assert fused == pytest.approx([0.83861, 0.16139], abs=1e-4)


def test_unfamiliar_crops_make_every_category_less_likely():
    features = TrackFeatures()
    assert features.add_probabilities(np.array([0.2, 0.04], np.float32), 1.0).sum() == pytest.approx(0.24)
    fused = features.add_probabilities(np.array([0.9, 0.1], np.float32), 3.0)
    assert fused.sum() == pytest.approx((0.24 + 3) / 4)
    features.clear()
    assert features.add_probabilities(np.array([0.9, 0.1], np.float32), 1.0).sum() == pytest.approx(1.0)


def test_zero_probability_does_not_veto_for_ever():
    features = TrackFeatures()
    features.add_probabilities(np.array([0.0, 1.0], np.float32), 1.0)
    for _ in range(20):
        fused = features.add_probabilities(np.array([0.9, 0.1], np.float32), 1.0)
    assert fused[0] > 0.7


def test_vectors_fuse_by_weight_to_unit_length_and_by_space():
    features = TrackFeatures()
    features.add_vector("one", np.array([1, 0], np.float32), 1.0)
    features.add_vector("one", np.array([0, 1], np.float32), 0.2)
    features.add_vector("two", np.array([0, 1], np.float32), 0.2)
    fused = features.fused()
    assert fused["one"] == pytest.approx(np.array([1, 0.2]) / np.hypot(1, 0.2))
    assert fused["two"].tolist() == [0, 1]


@pytest.mark.parametrize(("probability", "confident"), [(0.96, True), (0.94, False), (None, False)])
def test_only_a_calibrated_sure_match_is_confident(probability, confident):
    match = Match("i0", "Item", 0.9, 0.3, probability)
    assert TrackFeatures(decision=Decision(None, match, None)).is_confident is confident
