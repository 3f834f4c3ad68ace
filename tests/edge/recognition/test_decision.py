"""The open-set decision."""

from dataclasses import replace

import pytest

from edge.manifest.embedder import OpenSet
from edge.recognition.decision import TOP, categories_to_search, decide, probability_of
from edge.types import UNFAMILIAR, Category, Decision, Hit, Match

CARTON, TYRE = Category("carton", 0.9), Category("tyre", 0.1)
STRICT = {"carton": OpenSet(threshold=0.6, slope=10, midpoint=0.5, min_margin=0.1)}


def hits(*scores):
    return [Hit(f"i{n}", f"Item {n}", score) for n, score in enumerate(scores)]


def test_near_and_clear_item_is_the_match():
    found = hits(0.8, 0.5, 0.4)
    decision = decide([CARTON], {"carton": found}, STRICT)
    # 0.9 / (1 + e^(-10 * (0.8 - 0.5))) = 0.9 * 0.9526
    expected = Match("i0", "Item 0", 0.8, pytest.approx(0.3), pytest.approx(0.857317))
    assert decision == Decision(CARTON, expected, None, tuple(found))


def test_no_likely_category_is_unknown_category():
    assert decide([], {}, {}) == Decision(None, None, "unknown_category")


@pytest.mark.parametrize("found", [{}, {"carton": []}])
def test_no_gallery_or_an_empty_one_is_gallery_empty(found):
    assert decide([CARTON], found, STRICT) == Decision(CARTON, None, "gallery_empty")


def test_far_item_is_unknown_but_listed_as_alternative():
    assert decide([CARTON], {"carton": hits(0.59, 0.1)}, STRICT) == Decision(
        CARTON, None, "unknown_item", tuple(hits(0.59, 0.1))
    )


def test_two_near_items_are_low_margin():
    assert decide([CARTON], {"carton": hits(0.8, 0.75)}, STRICT).reason == "low_margin"


def test_unknown_item_goes_before_low_margin():
    assert decide([CARTON], {"carton": hits(0.5, 0.49)}, STRICT).reason == "unknown_item"


def test_only_item_has_its_whole_score_as_margin():
    assert decide([CARTON], {"carton": hits(0.8)}, STRICT).match.margin == 0.8


def test_at_most_five_alternatives_are_listed():
    assert len(decide([CARTON], {"carton": hits(*[0.9] * 9)}, {}).top) == TOP == 5


def test_second_category_wins_with_a_match_over_a_first_without():
    decision = decide(
        [Category("carton", 0.6), Category("tyre", 0.4)], {"carton": hits(0.3), "tyre": hits(0.9)}, STRICT
    )
    assert decision.category.name == "tyre"
    assert decision.match.item_id == "i0"


def test_of_two_matches_probability_times_odds_decides():
    rules = STRICT | {"tyre": OpenSet(threshold=0.6, slope=10, midpoint=0.5)}
    found = {"carton": hits(0.65, 0.2), "tyre": hits(0.8, 0.2)}
    # 0.7 * e^1.5 = 3.14, 0.3 * e^3 = 6.03
    assert decide([Category("carton", 0.7), Category("tyre", 0.3)], found, rules).category.name == "tyre"
    found["tyre"] = hits(0.71, 0.2)
    # 0.7 * e^1.5 = 3.14, 0.3 * e^2.1 = 2.45
    assert decide([Category("carton", 0.7), Category("tyre", 0.3)], found, rules).category.name == "carton"


@pytest.mark.parametrize(("category", "named"), [(0.27, True), (0.26, False)])
def test_match_confirms_a_category_that_is_not_too_unlikely(category, named):
    # 0.27 * 0.9526 = 0.257, 0.26 * 0.9526 = 0.248
    found = hits(0.8, 0.5)
    decision = decide([Category("carton", category)], {"carton": found}, STRICT, 0.5)
    assert (decision.match is not None) == named
    if not named:
        assert decision == Decision(None, None, "unknown_category", tuple(found))


def test_rule_that_accepts_everything_names_unlikely_items():
    """The fits of a bundle ask for the nearest item, however unlikely."""
    anything = {"carton": OpenSet(threshold=-1.0, slope=10, midpoint=0.5)}
    assert decide([Category("carton", 0.1)], {"carton": hits(-0.5, -0.9)}, anything).match.item_id == "i0"


def test_unfamiliar_crop_is_named_only_as_a_taught_item():
    """An empty counter is near some item by chance; what a kiosk was taught may be new to its bundle."""
    unfamiliar = [Category("carton", UNFAMILIAR)]
    for rules in (STRICT, UNCALIBRATED):
        assert decide(unfamiliar, {"carton": hits(0.99, 0.2)}, rules, 0.5).reason == "unknown_category"
        taught = [replace(hit, taught=True) for hit in hits(0.99, 0.2)]
        assert decide(unfamiliar, {"carton": taught}, rules, 0.5).match.item_id == "i0"


UNCALIBRATED = {name: OpenSet(threshold=0.6, calibrated=False) for name in ("carton", "tyre")}


def test_uncalibrated_match_has_no_probability():
    match = decide([CARTON], {"carton": hits(0.8)}, UNCALIBRATED, 0.5).match
    assert (match.item_id, match.probability) == ("i0", None)


def test_no_uncalibrated_match_makes_up_for_an_unlikely_category():
    """An empty counter is near something by chance; there is no curve to say how often."""
    found = hits(0.99, 0.2)
    decision = decide([Category("carton", 0.32)], {"carton": found}, UNCALIBRATED, 0.5)
    assert decision == Decision(None, None, "unknown_category", tuple(found))


def test_ambiguous_item_is_low_margin_when_nearest():
    doubtful, clear = Hit("i9", "Item 9", 0.85, ambiguous=True), hits(0.7)
    assert decide([CARTON], {"carton": [doubtful, *clear]}, {}).reason == "low_margin"
    assert decide([CARTON], {"carton": [*hits(0.9), doubtful]}, {}).match.item_id == "i0"


def together(found, rules):
    return decide([Category(name, 1.0) for name in found], found, rules, together=True)


def test_items_of_all_categories_compete_where_nothing_names_one():
    found = {"carton": [Hit("a", "A", 0.7), Hit("b", "B", 0.2)], "tyre": [Hit("c", "C", 0.9), Hit("d", "D", 0.65)]}
    decision = together(found, UNCALIBRATED)
    assert (decision.category.name, decision.match.item_id) == ("tyre", "c")
    assert decision.match.margin == pytest.approx(0.2)  # the next is of the other category
    assert [hit.item_id for hit in decision.top] == ["c", "a", "d", "b"]


def test_scores_of_other_categories_count_by_their_odds():
    rules = {"carton": OpenSet(slope=10, midpoint=0.4), "tyre": OpenSet(slope=20, midpoint=0.7)}
    # odds e^4 against e^2: on the scale of cartons, 0.8 of a tyre is 0.4 + 2 / 10
    decision = together({"carton": hits(0.8), "tyre": [Hit("t", "Tyre", 0.8)]}, rules)
    assert (decision.category.name, decision.match.margin) == ("carton", pytest.approx(0.2))


def test_item_found_in_two_categories_does_not_compete_with_itself():
    taught = Hit("taught-1", "Mug", 0.9)
    decision = together({"carton": [taught, *hits(0.5)], "tyre": [taught]}, UNCALIBRATED)
    assert (decision.match.item_id, decision.match.margin) == ("taught-1", pytest.approx(0.4))


def test_without_a_match_the_likelier_category_gives_the_reason():
    decision = decide([Category("carton", 0.6), Category("tyre", 0.4)], {"tyre": hits(0.1)}, STRICT)
    assert (decision.category.name, decision.reason) == ("carton", "gallery_empty")


def test_without_a_match_the_nearer_item_decides_between_categories():
    found = {"carton": hits(0.2), "tyre": hits(0.45)}
    # 0.6 * e^-3 = 0.030, 0.4 * e^-0.5 = 0.24
    rules = STRICT | {"tyre": OpenSet(threshold=0.6, slope=10, midpoint=0.5)}
    decision = decide([Category("carton", 0.6), Category("tyre", 0.4)], found, rules, 0.5)
    assert (decision.category.name, decision.reason, decision.top) == ("tyre", "unknown_item", tuple(found["tyre"]))


def test_category_without_gallery_gets_the_lowest_odds_of_the_others():
    found = {"tyre": hits(0.3)}
    for likelier in ("carton", "tyre"):
        ranked = sorted(
            (Category(n, 0.6 if n == likelier else 0.4) for n in ("carton", "tyre")), key=lambda c: -c.score
        )
        assert decide(ranked, found, STRICT).category.name == likelier


def test_one_clear_category_is_searched_alone():
    clear = [Category("carton", 0.96), Category("tyre", 0.04)]
    assert categories_to_search(clear, 0.5, {}) == clear[:1]


def test_close_categories_are_searched_but_at_most_three():
    close = [Category("a", 0.5), Category("b", 0.2), Category("c", 0.15), Category("d", 0.15)]
    assert categories_to_search(close, 0.5, {}) == close[:3]


def test_unlikelier_categories_are_searched_if_their_embedder_runs_anyway():
    scores = (0.9, 0.04, 0.03, 0.02, 0.008, 0.002)
    ranked = [Category(name, score) for name, score in zip("abcdef", scores, strict=True)]
    shared = {"a": 1, "b": 2, "c": 1, "d": 1, "e": 1, "f": 1}
    # b has another embedder, e is below one hundredth of a, f would be the sixth
    assert categories_to_search(ranked, 0.5, shared) == [ranked[0], ranked[2], ranked[3]]
    assert categories_to_search(ranked, 0.5, {name: name for name in "abcdef"}) == ranked[:1]


def test_category_too_unlikely_to_be_confirmed_is_not_searched():
    assert categories_to_search([Category("a", 0.1)], 0.5, {}) == [Category("a", 0.1)]
    assert categories_to_search([Category("a", 0.09)], 0.5, {}) == []
    assert categories_to_search([], 0.5, {}) == []


@pytest.mark.parametrize("slope", [1.0, 5000.0])
def test_probability_is_half_at_the_midpoint_and_never_overflows(slope):
    steep = OpenSet(slope=slope, midpoint=0.5)
    assert probability_of(0.5, steep) == 0.5
    assert 0 <= probability_of(-1.0, steep) < 0.5 < probability_of(1.0, steep) <= 1


def test_nearest_negative_exemplar_vetoes_and_is_not_listed():
    found = [Hit("no", "Shelf label", 0.9, negative=True), *hits(0.85)]
    assert decide([CARTON], {"carton": found}, STRICT) == Decision(CARTON, None, "unknown_item", tuple(hits(0.85)))


def test_negative_exemplar_that_ties_with_an_item_vetoes():
    found = [*hits(0.9), Hit("no", "Shelf label", 0.9, negative=True)]
    for order in (found, found[::-1]):
        assert decide([CARTON], {"carton": order}, {}) == Decision(CARTON, None, "unknown_item", tuple(hits(0.9)))


def test_farther_negative_exemplar_only_changes_the_margin():
    found = [*hits(0.9), Hit("no", "Shelf label", 0.7, negative=True)]
    decision = decide([CARTON], {"carton": found}, STRICT)
    assert (decision.match.item_id, decision.match.margin) == ("i0", pytest.approx(0.2))
    assert decision.top == tuple(hits(0.9))


def test_near_negative_exemplar_outweighs_item_of_second_category():
    second = Category("tyre", 0.4)
    near, far = ([Hit("no", "Shelf label", score, negative=True)] for score in (0.95, 0.3))
    assert decide([CARTON, second], {"carton": near, "tyre": hits(0.7)}, STRICT).match is None
    assert decide([CARTON, second], {"carton": far, "tyre": hits(0.7)}, STRICT).match.item_id == "i0"
