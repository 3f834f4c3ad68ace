"""What many looks say, and when another is worth it."""

import numpy as np
import pytest

from edge.recognition.track_evidence import EmbedPolicy, TrackFeatures, is_cut_off, look_weight, sight_quality
from edge.recognition.tracker import Track
from edge.types import Decision, Match

POLICY = EmbedPolicy(min_looks=3, max_looks=5, look_interval_s=0.2, recheck_s=2.0)


def match(probability=0.99, margin=0.3):
    return Decision(None, Match("i", "I", 0.9, margin, probability), None)


UNKNOWN = Decision(None, None, "unknown_item")


def track(box_px=(20, 20, 60, 60), *, age_s=10.0):
    return Track(1, box_px, "object", 5, 0.0, age_s)


def wants(evidence, *, weight=1.0, now_s=10.0, seen=None):
    return POLICY.wants_look(evidence, seen or track(), weight, now_s)


def test_an_object_never_looked_at_wants_a_look():
    assert wants(TrackFeatures())


def looked_at(evidence, until_s=10.0):
    """When an object in view all the time is looked at."""
    times = []
    for hundredth in range(round(until_s * 100)):
        if wants(evidence, now_s=hundredth / 100):
            evidence.note_look((20, 20, 60, 60), hundredth / 100)
            times.append(hundredth / 100)
    return times


def test_looks_at_an_unclear_object_come_an_interval_apart_then_ever_more_rarely():
    assert looked_at(TrackFeatures(decision=UNKNOWN), until_s=2.0) == pytest.approx([0.0, 0.2, 0.4, 0.8, 1.6], abs=0.02)


def test_however_unclear_an_object_is_it_is_looked_at_when_a_recheck_is_due():
    evidence = TrackFeatures(looks=4, first_look_s=1.0, last_look_s=8.0, decision=UNKNOWN)
    patient = EmbedPolicy(min_looks=1, max_looks=99, look_interval_s=1.0, recheck_s=2.0)
    assert not patient.wants_look(evidence, track(), 1.0, 9.9)
    assert patient.wants_look(evidence, track(), 1.0, 10.0)


def test_after_the_last_look_it_waits_for_the_recheck():
    evidence = TrackFeatures(looks=5, first_look_s=1.0, last_look_s=9.0, decision=UNKNOWN)
    assert not wants(evidence)
    assert wants(evidence, now_s=11.0)


def test_a_clear_match_stops_early_and_is_rechecked_soon_and_then_ever_more_rarely():
    times = looked_at(TrackFeatures(decision=match()))
    assert times == pytest.approx([0.0, 0.4, 1.6, 3.6, 5.6, 7.6, 9.6], abs=0.04)


@pytest.mark.parametrize(
    ("box", "outgrown"), [((20, 20, 71, 60), True), ((20, 20, 60, 71), True), ((9, 9, 58, 58), False)]
)
def test_an_object_that_shows_a_quarter_more_is_outgrown(box, outgrown):
    evidence = TrackFeatures()
    assert not evidence.is_outgrown(box)
    evidence.note_look((20, 20, 60, 60), 1.0)
    evidence.note_look((20, 20, 40, 60), 2.0)
    assert evidence.is_outgrown(box) is outgrown


def test_forgotten_looks_leave_what_was_decided_and_told():
    evidence = TrackFeatures(decision=match(), announced=match())
    evidence.note_look((20, 20, 60, 60), 9.9)
    evidence.add_probabilities(np.array([1.0, 0.0], np.float32), 1.0)
    evidence.add_vector("carton", np.array([1.0, 0.0], np.float32), 1.0)
    evidence.forget_looks()
    assert wants(evidence)
    assert evidence.decision == evidence.announced == match()
    np.testing.assert_allclose(evidence.add_probabilities(np.array([0.0, 1.0], np.float32), 1.0), [0, 1], atol=1e-5)
    np.testing.assert_allclose(evidence.add_vector("carton", np.array([0.0, 1.0], np.float32), 1.0), [0, 1])


@pytest.mark.parametrize(("probability", "margin"), [(0.94, 0.3), (0.99, 0.09)])
def test_a_match_that_is_unsure_or_close_is_not_clear(probability, margin):
    evidence = TrackFeatures(looks=1, last_look_s=9.79, decision=match(probability, margin))
    assert not evidence.is_clear
    assert wants(evidence)


def test_a_cut_off_object_waits_until_it_is_whole_or_has_stayed_so():
    assert not wants(TrackFeatures(), weight=0.2, seen=track(age_s=1.0))
    assert wants(TrackFeatures(), weight=0.2, seen=track(age_s=1.6))
    assert wants(TrackFeatures(), weight=1.0, seen=track(age_s=1.0))


def test_an_answer_is_announced_when_clear_or_when_looked_at_enough():
    assert not POLICY.may_announce(TrackFeatures(looks=2, decision=UNKNOWN))
    assert POLICY.may_announce(TrackFeatures(looks=3, decision=UNKNOWN))
    assert POLICY.may_announce(TrackFeatures(looks=1, decision=match()))


@pytest.mark.parametrize(
    "box", [(0, 20, 60, 60), (20, 1.9, 60, 60), (20, 20, 100, 60), (20, 20, 60, 79), (3.5, 20, 93, 60)]
)
def test_a_box_at_a_border_is_cut_off_and_counts_less(box):
    assert is_cut_off(box, 100, 80)
    assert look_weight(track(box), 100, 80) == 0.2


def test_a_box_inside_and_one_that_fills_the_frame_count_whole():
    assert not is_cut_off((4, 4, 96, 76), 100, 80)
    assert look_weight(track((4, 4, 96, 76)), 100, 80) == 1.0
    assert look_weight(track((0, 0, 100, 80)), 100, 80) == 1.0


def test_probabilities_fuse_to_their_weighted_geometric_mean():
    evidence = TrackFeatures()
    assert evidence.add_probabilities(np.array([0.5, 0.5], np.float32), 1.0) == pytest.approx([0.5, 0.5])
    # (0.5^1 * 0.9^3)^(1/4) = 0.7770, (0.5^1 * 0.1^3)^(1/4) = 0.1495, then over their sum
    fused = evidence.add_probabilities(np.array([0.9, 0.1], np.float32), 3.0)
    assert fused == pytest.approx([0.83861, 0.16139], abs=1e-4)


def test_a_zero_probability_does_not_veto_for_ever():
    evidence = TrackFeatures()
    evidence.add_probabilities(np.array([0.0, 1.0], np.float32), 1.0)
    for _ in range(20):
        fused = evidence.add_probabilities(np.array([0.9, 0.1], np.float32), 1.0)
    assert fused[0] > 0.7


def test_vectors_fuse_by_weight_to_unit_length_and_by_category():
    evidence = TrackFeatures()
    evidence.add_vector("carton", np.array([1, 0], np.float32), 1.0)
    fused = evidence.add_vector("carton", np.array([0, 1], np.float32), 0.2)
    assert fused == pytest.approx(np.array([1, 0.2]) / np.hypot(1, 0.2))
    assert evidence.add_vector("tyre", np.array([0, 1], np.float32), 0.2).tolist() == [0, 1]


def test_a_sight_is_measured_by_the_best_of_its_object():
    evidence = TrackFeatures()
    assert sight_quality(evidence, (0, 0, 40, 40), 100.0) == 1.0
    assert sight_quality(evidence, (0, 0, 40, 40), 25.0) == 0.5
    assert sight_quality(evidence, (0, 0, 20, 40), 100.0) == pytest.approx(0.5**0.5)
    assert sight_quality(evidence, (0, 0, 80, 80), 400.0) == 1.0
    assert sight_quality(evidence, (0, 0, 1, 1), 0.0) == 0.05


def test_a_plain_object_is_as_sharp_as_it_can_be():
    assert sight_quality(TrackFeatures(), (0, 0, 40, 40), 0.0) == 1.0


def test_a_poor_sight_waits_for_a_better_one_but_not_for_ever():
    evidence = TrackFeatures(looks=1, last_look_s=10.0)
    assert POLICY.awaits_better(evidence, track(), 0.4, 10.9)
    assert not POLICY.awaits_better(evidence, track(), 0.4, 11.1)
    assert not POLICY.awaits_better(evidence, track(), 0.6, 10.1)
