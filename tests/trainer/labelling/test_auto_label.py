"""A detector and cues together, and the uncertainty of a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trainer.labelling.auto_label import NOT_COMMON, Proposers, fuse, select_proposals
from trainer.labelling.proposals import Priors, Proposal

PRIORS = Priors(threshold=0.6)


def box(x0, x1, score, source="proposer") -> Proposal:
    return Proposal((x0, 0.0, x1, 100.0), score, source)


def test_box_that_both_proposers_find_scores_higher():
    both, model_alone, cues_alone = (
        select_proposals(fuse(found, seen), Priors(threshold=0.0)).proposals[0]
        for found, seen in (
            ([box(0, 100, 0.8, "model")], [box(10, 100, 0.8)]),
            ([box(0, 100, 0.8, "model")], []),
            ([], [box(10, 100, 0.8)]),
        )
    )
    assert both.box_px == (10, 0, 100, 100)
    assert both.source == "model"
    assert both.score == pytest.approx(0.7 * 0.8 + 0.3 * 0.9 * 0.8)
    assert both.score > model_alone.score > cues_alone.score > 0


def test_box_of_cues_alone_only_raises_the_uncertainty():
    found = [box(0, 100, 1.0, "model")]
    clear, unsure = (
        select_proposals(fuse(found, [box(0, 100, 1.0), *more]), PRIORS) for more in ([], [box(300, 400, 0.9)])
    )
    assert [one.source for one in unsure.proposals] == ["model"]
    assert (unsure.why, unsure.uncertainty > clear.uncertainty == 0.0) == ("box nearly proposed", True)


def test_box_around_two_detected_objects_is_dropped():
    found = [box(0, 100, 0.9, "model"), box(100, 200, 0.9, "model")]
    kept = select_proposals(fuse(found, [box(0, 200, 0.95)]), PRIORS).proposals
    assert sorted(one.box_px[0] for one in kept) == [0, 100]


def test_picture_without_a_proposal_is_the_most_uncertain():
    empty, weak, clear = (select_proposals(listed, PRIORS) for listed in ([], [box(0, 9, 0.61)], [box(0, 9, 0.95)]))
    assert empty.uncertainty == 1.0 > weak.uncertainty > clear.uncertainty
    assert (empty.why, weak.why) == ("nothing found", "weak box")


class Scripted:
    """A detector with fixed results."""

    def propose(self, image_rgb):
        return [box(0, 100, 0.9, "model")]


PICTURE = np.full((200, 400, 3), 120, np.uint8)


@pytest.mark.parametrize("use_cues", [True, False])
def test_detector_alone_is_not_fused_with_cues(use_cues):
    seen = [box(5, 100, 0.9)]
    (kept,) = Proposers(PRIORS, None, Scripted(), use_cues).prelabel(PICTURE, seen).proposals
    assert kept.box_px[0] == (5 if use_cues else 0)


def test_detector_alone_still_obeys_the_priors():
    for priors, count in ((PRIORS, 1), (replace(PRIORS, aspect=(2.0, 4.0)), 0), (replace(PRIORS, threshold=0.95), 0)):
        assert len(Proposers(priors, None, Scripted(), use_cues=False).prelabel(PICTURE, []).proposals) == count


@pytest.mark.parametrize(("common", "lacks"), [((0.0, 0.0), True), ((0.0, 0.4), False), ((), False)])
def test_picture_without_the_common_object_says_so(common, lacks):
    listed = [replace(box(0, 100, 0.2), reasons={"common": value}) for value in common]
    assert (Proposers(PRIORS).prelabel(PICTURE, listed).why == NOT_COMMON) == lacks
