"""Decide which item an object is, or why none: the open-set decision.

The thresholds come from the bundle, where they were fitted.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace

from edge.manifest.embedder import OpenSet
from edge.types import UNFAMILIAR, Category, Decision, Hit, Match, Reason

TOP = 5  # alternatives an event carries
SEARCH_DEPTH = 2 * TOP  # nearest items to find, some of which may be negative
MAX_SEARCHED = 3  # categories
MIN_SEARCHED_RATIO = 0.05  # of the best category's probability: less likely ones are not searched
# The same for a category whose embedder runs anyway, for another category that is searched.
SEARCHED_BESIDE = 5
SEARCHED_BESIDE_RATIO = 0.01
MIN_CONFIRMABLE = 0.2  # of the threshold: no match, not even a taught one, confirms a less likely category
MIN_PROBABILITY = 0.25  # of category and item together, of a match; above UNFAMILIAR, so no unfamiliar crop reaches it
# The same of a taught item, of which no category is likely where the bundle never saw such things: the ratio test of
# edge.kiosk.taught_index decides about it.
MIN_TAUGHT_PROBABILITY = UNFAMILIAR * MIN_PROBABILITY


def categories_to_search(
    categories: list[Category], threshold: float, embedder_for: Mapping[str, Hashable]
) -> list[Category]:
    """Return the categories to search, best first; none when even the best is too unlikely.

    Args:
        categories: best first.
        threshold: probability below which the category is unknown unless a match confirms it.
        embedder_for: the embedder of each category.
    """
    if not categories or categories[0].score < MIN_CONFIRMABLE * threshold:
        return []
    best = categories[0].score
    searched = [c for c in categories[:MAX_SEARCHED] if c.score >= MIN_SEARCHED_RATIO * best]
    embedders = {embedder_for[c.name] for c in searched if c.name in embedder_for}
    beside = [
        c
        for c in categories[len(searched) : SEARCHED_BESIDE]
        if c.score >= SEARCHED_BESIDE_RATIO * best and embedder_for.get(c.name) in embedders
    ]
    return searched + beside


def probability_of(score: float, open_set: OpenSet) -> float:
    """Return the calibrated probability that a nearest item at this cosine similarity is right."""
    # a slope fitted to well separated scores can be in the thousands: exp overflows at 710
    return 1.0 / (1.0 + math.exp(min(-open_set.slope * (score - open_set.midpoint), 700.0)))


def decide(
    categories: list[Category],
    hits: dict[str, list[Hit]],
    open_sets: dict[str, OpenSet],
    threshold: float = 0.0,
    *,
    together: bool = False,
) -> Decision:
    """Decide the identity of one object.

    A category with a match goes before one without; then the probability of the category times the odds of its nearest
    item decides. A negative exemplar competes like an item; where it wins or draws, the object is unknown.

    Args:
        categories: searched ones, best first; empty when none was likely enough.
        hits: nearest items by category; a missing category has no gallery.
        open_sets: thresholds by category; a missing category uses the defaults.
        threshold: probability below which a category is unknown unless a calibrated match confirms it.
        together: nothing said which category it is: the items of all categories compete as if they were of one.
    """
    if not categories:
        return Decision(None, None, "unknown_category")
    ranked = {name: sorted(found, key=lambda hit: (-hit.score, not hit.negative)) for name, found in hits.items()}
    rules = {c.name: open_sets.get(c.name, OpenSet()) for c in categories}
    odds = {c.name: _log_odds(ranked[c.name][0], rules[c.name]) for c in categories if ranked.get(c.name)}
    if together and odds:
        best = next(c for c in categories if odds.get(c.name) == max(odds.values()))
        everything = _on_one_scale(ranked, rules, rules[best.name])
        return _judge(best, everything, rules[best.name], threshold)
    lowest = min(odds.values(), default=0.0)  # for a category without a gallery
    decisions = {c.name: _judge(c, ranked.get(c.name, []), rules[c.name], threshold) for c in categories}
    deciding = {n for n, decision in decisions.items() if decision.match or _is_vetoed(ranked.get(n, []), rules[n])}

    def weight(category: Category) -> tuple[bool, float]:
        log_probability = math.log(max(category.score, 1e-9))
        return category.name in deciding, log_probability + odds.get(category.name, lowest)

    chosen = decisions[max(categories, key=weight).name]
    if not deciding and categories[0].score < threshold:
        return Decision(None, None, "unknown_category", chosen.top)
    return chosen


def _on_one_scale(ranked: dict[str, list[Hit]], rules: dict[str, OpenSet], scale: OpenSet) -> list[Hit]:
    """Return the hits of all categories, best first, with the scores at which one category's curve has their odds.

    An item that was found in two categories, as a taught one may be, is listed once.
    """
    hits = [
        hit if rules[name] == scale else replace(hit, score=scale.midpoint + _log_odds(hit, rules[name]) / scale.slope)
        for name, found in ranked.items()
        if name in rules
        for hit in found
    ]
    best: dict[tuple[str, str], Hit] = {}
    for hit in sorted(hits, key=lambda hit: (-hit.score, not hit.negative)):
        best.setdefault((hit.item_id, hit.label), hit)
    return list(best.values())


def _is_vetoed(hits: list[Hit], open_set: OpenSet) -> bool:
    """Return whether the nearest hit is a negative exemplar above the threshold."""
    return bool(hits) and hits[0].negative and hits[0].score >= open_set.threshold


def _log_odds(nearest: Hit, open_set: OpenSet) -> float:
    """Return the logarithm of the odds that the nearest item is right."""
    return open_set.slope * (nearest.score - open_set.midpoint)


def _judge(category: Category, hits: list[Hit], open_set: OpenSet, threshold: float) -> Decision:
    if not hits:
        return Decision(category, None, "gallery_empty")
    top = tuple(hit for hit in hits if not hit.negative)[:TOP]
    best = hits[0]
    margin = best.score - hits[1].score if len(hits) > 1 else best.score
    reason: Reason | None = None
    if best.score < open_set.threshold or best.negative or not _is_likely(category, best, open_set, threshold):
        reason = "unknown_item"
    elif best.ambiguous or margin < open_set.min_margin:
        reason = "low_margin"
    if reason is not None:
        return Decision(category, None, reason, top)
    probability = category.score * probability_of(best.score, open_set) if open_set.calibrated else None
    return Decision(category, Match(best.item_id, best.label, best.score, margin, probability), None, top)


def counts_category(open_set: OpenSet) -> bool:
    """Return whether a calibrated match also needs a likely category.

    A bundle whose own threshold accepts answers that are likelier wrong than right decides alone.
    """
    return probability_of(open_set.threshold, open_set) >= 0.5


def _is_likely(category: Category, best: Hit, open_set: OpenSet, threshold: float) -> bool:
    """Return whether the nearest item of a category may be named, by the probability of the category.

    A near item makes up for an unlikely category only where a calibrated curve says how often that is right.
    """
    if not open_set.calibrated:
        return category.score >= (threshold * UNFAMILIAR if best.taught else threshold)
    if not counts_category(open_set):
        return True
    least = MIN_TAUGHT_PROBABILITY if best.taught else MIN_PROBABILITY
    return category.score * probability_of(best.score, open_set) >= least
