"""Which looks are afforded."""

import pytest

from edge.recognition.scheduler import Claim, LookBudget, Need, claim_of
from edge.recognition.track_evidence import Evidence
from edge.types import Decision, Match

NEW, CLOSE, RECHECK = (Claim(need, 0.0) for need in Need)


def decided(margin):
    return Decision(None, Match("i", "I", 0.9, margin, 0.9), None)


def test_a_track_without_a_match_is_unrecognised_the_fewer_looks_the_sooner():
    unknown = Evidence(looks=2, decision=Decision(None, None, "unknown_item"))
    fresh, tried = claim_of(Evidence(), 9.0, settled=False), claim_of(unknown, 9.0, settled=False)
    assert (fresh.need, tried.need) == (Need.UNRECOGNISED, Need.UNRECOGNISED)
    assert fresh < tried


def test_the_closer_the_call_the_sooner():
    close, clearer = (claim_of(Evidence(looks=1, decision=decided(m)), 9.0, settled=False) for m in (0.02, 0.08))
    assert close.need == Need.CLOSE
    assert tried_before(close, clearer)


def test_a_settled_track_is_only_rechecked_the_longest_unseen_first():
    recent, old = (Evidence(looks=9, last_look_s=at_s, decision=decided(0.3)) for at_s in (8.0, 1.0))
    assert claim_of(recent, 9.0, settled=True).need == Need.RECHECK
    assert tried_before(claim_of(old, 9.0, settled=True), claim_of(recent, 9.0, settled=True))


def tried_before(a, b):
    return sorted([b, a]) == [a, b] and a != b


def test_what_is_unrecognised_goes_first_whatever_the_order():
    budget = LookBudget(1.0)
    assert budget.grant([RECHECK, CLOSE, NEW, NEW], 0.0) == [False, False, True, False]


def test_looks_accrue_at_the_stated_rate_and_are_saved_for_a_second():
    budget = LookBudget(4.0)
    assert sum(budget.grant([NEW] * 9, 0.0)) == 4
    assert sum(budget.grant([NEW] * 9, 0.5)) == 2
    assert sum(budget.grant([NEW] * 9, 100.0)) == 4


@pytest.mark.parametrize(("looks_per_s", "seconds"), [(0.5, 60), (7.0, 20)])
def test_no_more_than_the_budget_is_spent_in_the_long_run(looks_per_s, seconds):
    budget = LookBudget(looks_per_s)
    spent = sum(sum(budget.grant([NEW] * 3, frame / 15)) for frame in range(seconds * 15))
    assert looks_per_s * seconds - 1 <= spent <= looks_per_s * seconds + max(1.0, looks_per_s)


def test_rechecks_leave_a_share_for_what_may_come_next():
    budget = LookBudget(9.0)
    assert sum(budget.grant([RECHECK] * 9, 0.0)) == 5
    assert sum(budget.grant([CLOSE] * 9, 0.0)) == 2
    assert sum(budget.grant([NEW] * 9, 0.0)) == 2


def test_rechecks_happen_even_with_the_smallest_budget():
    budget = LookBudget(0.1)
    assert budget.grant([RECHECK], 0.0) == [True]


def test_a_clock_that_steps_back_gives_nothing():
    budget = LookBudget(1.0)
    budget.grant([NEW], 10.0)
    assert budget.grant([NEW], 5.0) == [False]
