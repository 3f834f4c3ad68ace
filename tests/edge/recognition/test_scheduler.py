"""Which looks are afforded."""

import pytest

from edge.recognition.scheduler import EmbedBudget, EmbedRequest, Priority, request_for
from edge.recognition.track_evidence import TrackFeatures
from edge.types import Decision, Match

NEW, CLOSE, RECHECK = (EmbedRequest(need, 0.0) for need in Priority)


def decided(margin):
    return Decision(None, Match("i", "I", 0.9, margin, 0.9), None)


def test_a_track_without_a_match_is_unrecognised_the_fewer_looks_the_sooner():
    unknown = TrackFeatures(looks=2, decision=Decision(None, None, "unknown_item"))
    fresh, tried = request_for(TrackFeatures(), 9.0, settled=False), request_for(unknown, 9.0, settled=False)
    assert (fresh.need, tried.need) == (Priority.UNRECOGNISED, Priority.UNRECOGNISED)
    assert fresh < tried


def test_the_closer_the_call_the_sooner():
    close, clearer = (request_for(TrackFeatures(looks=1, decision=decided(m)), 9.0, settled=False) for m in (0.02, 0.08))
    assert close.need == Priority.CLOSE
    assert tried_before(close, clearer)


def test_a_settled_track_is_only_rechecked_the_longest_unseen_first():
    recent, old = (TrackFeatures(looks=9, last_look_s=at_s, decision=decided(0.3)) for at_s in (8.0, 1.0))
    assert request_for(recent, 9.0, settled=True).need == Priority.RECHECK
    assert tried_before(request_for(old, 9.0, settled=True), request_for(recent, 9.0, settled=True))


def tried_before(a, b):
    return sorted([b, a]) == [a, b] and a != b


def test_what_is_unrecognised_goes_first_whatever_the_order():
    budget = EmbedBudget(1.0)
    assert budget.allocate([RECHECK, CLOSE, NEW, NEW], 0.0) == [False, False, True, False]


def test_looks_accrue_at_the_stated_rate_and_are_saved_for_a_second():
    budget = EmbedBudget(4.0)
    assert sum(budget.allocate([NEW] * 9, 0.0)) == 4
    assert sum(budget.allocate([NEW] * 9, 0.5)) == 2
    assert sum(budget.allocate([NEW] * 9, 100.0)) == 4


@pytest.mark.parametrize(("looks_per_s", "seconds"), [(0.5, 60), (7.0, 20)])
def test_no_more_than_the_budget_is_spent_in_the_long_run(looks_per_s, seconds):
    budget = EmbedBudget(looks_per_s)
    spent = sum(sum(budget.allocate([NEW] * 3, frame / 15)) for frame in range(seconds * 15))
    assert looks_per_s * seconds - 1 <= spent <= looks_per_s * seconds + max(1.0, looks_per_s)


def test_rechecks_leave_a_share_for_what_may_come_next():
    budget = EmbedBudget(9.0)
    assert sum(budget.allocate([RECHECK] * 9, 0.0)) == 5
    assert sum(budget.allocate([CLOSE] * 9, 0.0)) == 2
    assert sum(budget.allocate([NEW] * 9, 0.0)) == 2


def test_rechecks_happen_even_with_the_smallest_budget():
    budget = EmbedBudget(0.1)
    assert budget.allocate([RECHECK], 0.0) == [True]


def test_a_clock_that_steps_back_gives_nothing():
    budget = EmbedBudget(1.0)
    budget.allocate([NEW], 10.0)
    assert budget.allocate([NEW], 5.0) == [False]
