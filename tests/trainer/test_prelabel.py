"""A detector and cues together, and how unsure a picture is."""

from __future__ import annotations

import pytest

from trainer.prelabel import fuse, judge
from trainer.propose import Priors, Proposal

PRIORS = Priors(threshold=0.6)


def box(x0, x1, score, source="proposer") -> Proposal:
    return Proposal((x0, 0.0, x1, 100.0), score, source)


def test_a_box_that_both_see_is_drawn_towards_the_outline():
    (one,) = fuse([box(0, 100, 0.4, "model")], [box(10, 100, 0.6)], 0.4, PRIORS)
    assert one.source == "model"
    assert one.score == pytest.approx(0.6)
    assert one.box_px == pytest.approx((5, 0, 100, 100))
    assert one.reasons == {"model": 0.4, "cues": 0.6}


def test_what_only_cues_see_is_no_proposal_but_makes_unsure():
    listed = fuse([box(0, 100, 1.0, "model")], [box(300, 400, 0.9)], 0.4, PRIORS)
    picture = judge(listed, PRIORS)
    assert [one.source for one in picture.proposals] == ["model"]
    assert picture.why == "box nearly proposed"
    assert picture.uncertainty > judge(listed[:1], PRIORS).uncertainty == 0.0


def test_below_its_own_threshold_a_detectors_box_is_no_proposal():
    assert judge(fuse([box(0, 100, 0.39, "model")], [], 0.4, PRIORS), PRIORS).proposals == ()
    assert len(judge(fuse([box(0, 100, 0.41, "model")], [], 0.4, PRIORS), PRIORS).proposals) == 1


def test_a_picture_without_a_proposal_is_the_most_uncertain():
    empty, weak, clear = (judge(listed, PRIORS) for listed in ([], [box(0, 9, 0.61)], [box(0, 9, 0.95)]))
    assert empty.uncertainty == 1.0 > weak.uncertainty > clear.uncertainty
    assert (empty.why, weak.why) == ("nothing found", "weak box")
