"""When a track is due, and which tracks the budget allows."""

import numpy as np
import pytest

from edge.config.schema import CameraConfig, RecognitionConfig
from edge.recognition.camera_tracks import CameraTracks
from edge.recognition.scheduler import (
    EmbedBudget,
    EmbedPolicy,
    EmbedRequest,
    Priority,
    Scheduler,
    crop_quality,
    crop_weight,
    is_cut_off,
    request_for,
)
from edge.recognition.track_features import TrackFeatures
from edge.recognition.tracker import Track
from edge.telemetry.counters import Counters
from edge.types import Decision, Detection, Frame, Match

POLICY = EmbedPolicy(min_looks=3, max_looks=5, look_interval_s=0.2, recheck_s=2.0)
UNKNOWN = Decision(None, None, "unknown_item")
NEW, CLOSE, RECHECK = (EmbedRequest(priority, 0.0) for priority in Priority)


def match(probability=0.99, margin=0.3):
    return Decision(None, Match("i", "I", 0.9, margin, probability), None)


def track(box_px=(20, 20, 60, 60), *, age_s=10.0):
    return Track(1, box_px, "object", 5, 0.0, age_s)


def is_due(features, *, weight=1.0, now_s=10.0, shown=None):
    return POLICY.is_due(features, shown or track(), weight, now_s)


def test_track_never_embedded_is_due():
    assert is_due(TrackFeatures())


def embedded_at(features, until_s=10.0):
    """Return when an object that is always in view is embedded."""
    times = []
    for hundredth in range(round(until_s * 100)):
        if is_due(features, now_s=hundredth / 100):
            features.count_embedding((20, 20, 60, 60), hundredth / 100)
            times.append(hundredth / 100)
    return times


def test_unknown_track_is_embedded_at_growing_intervals():
    assert embedded_at(TrackFeatures(decision=UNKNOWN), until_s=2.0) == pytest.approx(
        [0.0, 0.2, 0.4, 0.8, 1.6], abs=0.02
    )


def test_interval_is_never_longer_than_the_recheck():
    features = TrackFeatures(embed_count=4, first_embedded_s=1.0, last_embedded_s=8.0, decision=UNKNOWN)
    patient = EmbedPolicy(min_looks=1, max_looks=99, look_interval_s=1.0, recheck_s=2.0)
    assert not patient.is_due(features, track(), 1.0, 9.9)
    assert patient.is_due(features, track(), 1.0, 10.0)


def test_track_waits_for_the_recheck_after_max_looks():
    features = TrackFeatures(embed_count=5, first_embedded_s=1.0, last_embedded_s=9.0, decision=UNKNOWN)
    assert not is_due(features)
    assert is_due(features, now_s=11.0)


def test_confident_match_is_rechecked_at_growing_intervals():
    times = embedded_at(TrackFeatures(decision=match()))
    assert times == pytest.approx([0.0, 0.4, 1.6, 3.6, 5.6, 7.6, 9.6], abs=0.04)


def test_cleared_features_are_due_and_keep_the_decisions():
    features = TrackFeatures(decision=match(), published=match())
    features.count_embedding((20, 20, 60, 60), 9.9)
    features.add_probabilities(np.array([1.0, 0.0], np.float32), 1.0)
    features.add_vector("space", np.array([1.0, 0.0], np.float32), 1.0)
    features.clear()
    assert is_due(features)
    assert features.decision == features.published == match()
    np.testing.assert_allclose(features.add_probabilities(np.array([0.0, 1.0], np.float32), 1.0), [0, 1], atol=1e-5)
    features.add_vector("space", np.array([0.0, 1.0], np.float32), 1.0)
    np.testing.assert_allclose(features.fused()["space"], [0, 1])


@pytest.mark.parametrize(("probability", "margin"), [(0.94, 0.3), (0.99, 0.09)])
def test_improbable_or_close_match_is_not_confident(probability, margin):
    features = TrackFeatures(embed_count=1, last_embedded_s=9.79, decision=match(probability, margin))
    assert not features.is_confident
    assert is_due(features)


def test_cut_off_object_waits_until_it_is_whole_or_for_a_while():
    assert not is_due(TrackFeatures(), weight=0.2, shown=track(age_s=1.0))
    assert is_due(TrackFeatures(), weight=0.2, shown=track(age_s=1.6))
    assert is_due(TrackFeatures(), weight=1.0, shown=track(age_s=1.0))


def test_decision_may_be_published_if_confident_or_after_min_looks():
    assert not POLICY.may_publish(TrackFeatures(embed_count=2, decision=UNKNOWN))
    assert POLICY.may_publish(TrackFeatures(embed_count=3, decision=UNKNOWN))
    assert POLICY.may_publish(TrackFeatures(embed_count=1, decision=match()))


@pytest.mark.parametrize(
    "box", [(0, 20, 60, 60), (20, 1.9, 60, 60), (20, 20, 100, 60), (20, 20, 60, 79), (3.5, 20, 93, 60)]
)
def test_box_at_a_border_is_cut_off_and_weighs_less(box):
    assert is_cut_off(box, 100, 80)
    assert crop_weight(track(box), 100, 80) == 0.2


def test_box_inside_or_filling_the_frame_has_full_weight():
    assert not is_cut_off((4, 4, 96, 76), 100, 80)
    assert crop_weight(track((4, 4, 96, 76)), 100, 80) == 1.0
    assert crop_weight(track((0, 0, 100, 80)), 100, 80) == 1.0


def test_crop_quality_is_relative_to_the_best_crop():
    features = TrackFeatures()
    assert crop_quality(features, (0, 0, 40, 40), 100.0) == 1.0
    assert crop_quality(features, (0, 0, 40, 40), 25.0) == 0.5
    assert crop_quality(features, (0, 0, 20, 40), 100.0) == pytest.approx(0.5**0.5)
    assert crop_quality(features, (0, 0, 80, 80), 400.0) == 1.0
    assert crop_quality(features, (0, 0, 1, 1), 0.0) == 0.05


def test_plain_object_has_full_quality():
    assert crop_quality(TrackFeatures(), (0, 0, 40, 40), 0.0) == 1.0


def test_poor_crop_waits_for_a_better_one_but_not_for_ever():
    features = TrackFeatures(embed_count=1, last_embedded_s=10.0)
    assert POLICY.awaits_better(features, track(), 0.4, 10.9)
    assert not POLICY.awaits_better(features, track(), 0.4, 11.1)
    assert not POLICY.awaits_better(features, track(), 0.6, 10.1)


def decided(margin):
    return Decision(None, Match("i", "I", 0.9, margin, 0.9), None)


def test_unrecognised_tracks_with_fewer_embeddings_go_first():
    unknown = TrackFeatures(embed_count=2, decision=Decision(None, None, "unknown_item"))
    fresh, tried = request_for(TrackFeatures(), 9.0, settled=False), request_for(unknown, 9.0, settled=False)
    assert (fresh.priority, tried.priority) == (Priority.UNRECOGNISED, Priority.UNRECOGNISED)
    assert fresh < tried


def test_smaller_margin_goes_first():
    close, clearer = (
        request_for(TrackFeatures(embed_count=1, decision=decided(m)), 9.0, settled=False) for m in (0.02, 0.08)
    )
    assert close.priority == Priority.CLOSE
    assert is_before(close, clearer)


def test_recheck_of_longest_ago_goes_first():
    recent, old = (TrackFeatures(embed_count=9, last_embedded_s=at_s, decision=decided(0.3)) for at_s in (8.0, 1.0))
    assert request_for(recent, 9.0, settled=True).priority == Priority.RECHECK
    assert is_before(request_for(old, 9.0, settled=True), request_for(recent, 9.0, settled=True))


def is_before(a, b):
    return sorted([b, a]) == [a, b] and a != b


def granted(budget, priority, requests, now_s=0.0):
    """Return how many of so many requests of one priority the budget allows."""
    budget.refill(now_s)
    for count in range(requests):
        if not budget.allows(priority):
            return count
        budget.spend()
    return requests


def test_budget_refills_at_its_rate_up_to_one_second():
    budget = EmbedBudget(4.0)
    assert [granted(budget, Priority.UNRECOGNISED, 9, at_s) for at_s in (0.0, 0.5, 100.0)] == [4, 2, 4]


@pytest.mark.parametrize(("looks_per_s", "seconds"), [(0.5, 60), (7.0, 20)])
def test_budget_is_not_exceeded_in_the_long_run(looks_per_s, seconds):
    budget = EmbedBudget(looks_per_s)
    spent = sum(granted(budget, Priority.UNRECOGNISED, 3, frame / 15) for frame in range(seconds * 15))
    assert looks_per_s * seconds - 1 <= spent <= looks_per_s * seconds + max(1.0, looks_per_s)


def test_rechecks_leave_a_share_of_the_budget():
    budget = EmbedBudget(9.0)
    assert [granted(budget, priority, 9) for priority in reversed(Priority)] == [5, 2, 2]


def test_rechecks_happen_with_the_smallest_budget():
    assert granted(EmbedBudget(0.1), Priority.RECHECK, 1) == 1


def test_clock_that_steps_back_does_not_refill():
    budget = EmbedBudget(1.0)
    assert [granted(budget, Priority.UNRECOGNISED, 1, at_s) for at_s in (10.0, 5.0)] == [1, 0]


@pytest.fixture
def shelf():
    """A scheduler with one look a second, its counters, and what shows it three objects that do not move."""
    counters, camera = Counters(), CameraTracks(CameraConfig(source="file:///clip.mp4"), 1.0)
    picture = np.random.default_rng(0).integers(0, 255, (120, 320, 3), np.uint8)
    found = [Detection((x, 30.0, x + 60, 90.0), 0.9, "object") for x in (20.0, 120.0, 220.0)]

    def show(index, at_s):
        frame = Frame("shelf", index, picture, 0, 0.0, "file", at_s)
        now_ns[0] = round(at_s * 1e9)
        chosen = scheduler.select(camera, frame, camera.advance(frame, found).detected)
        return {one.track.track_id: one.weight for one in chosen}

    now_ns = [0]
    scheduler = Scheduler(RecognitionConfig(looks_per_s=1), POLICY, counters, lambda: now_ns[0])
    return show, camera, counters


def test_crop_that_the_budget_does_not_allow_is_not_measured(shelf):
    show, camera, counters = shelf
    assert [[*show(0, 0.0)], [*show(1, 0.1)]] == [[], [1]]
    assert [camera.states[i].features.best_sharpness > 0 for i in (1, 2, 3)] == [True, False, False]
    assert counters.snapshot() == {'looks_shed{camera="shelf",reason="budget"}': 2}


def test_poor_crop_leaves_the_budget_to_the_next_track(shelf):
    show, camera, counters = shelf
    show(0, 0.0)
    camera.states[1].features = TrackFeatures(best_sharpness=1e9)
    assert [*show(1, 0.1)] == [2]
    assert counters.total("looks_shed", reason="poor_sight") == counters.total("looks_shed", reason="budget") == 1


def test_less_sharp_crop_weighs_less(shelf):
    show, camera, _ = shelf
    show(0, 0.0)
    assert show(1, 0.1) == {1: 1.0}
    camera.states[1].features.best_sharpness *= 2
    assert show(2, 1.2) == {1: pytest.approx(0.5**0.5)}
