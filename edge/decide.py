"""Open-set decision: which item, or why not. Thresholds are fitted when a bundle is packed; here they are applied."""

from __future__ import annotations

import math

from edge.manifest import OpenSet
from edge.types import Category, Decision, Hit, Match, Reason

TOP = 5  # alternatives an event carries
SECOND_CATEGORY_RATIO = 0.3  # a second category this likely, relative to the best, is searched too


def categories_to_search(categories: list[Category], threshold: float) -> list[Category]:
    """The categories whose galleries are worth a search: none when even the best is unlikely, at most two.

    Args:
        categories: best first.
        threshold: probability below which the category is unknown.
    """
    if not categories or categories[0].score < threshold:
        return []
    return [c for c in categories[:2] if c.score >= SECOND_CATEGORY_RATIO * categories[0].score]


def probability_of(score: float, open_set: OpenSet) -> float:
    """Calibrated probability that a nearest item at this cosine similarity is right."""
    # a slope fitted to well separated scores can be in the thousands: exp overflows at 710
    return 1.0 / (1.0 + math.exp(min(-open_set.slope * (score - open_set.midpoint), 700.0)))


def decide(categories: list[Category], hits: dict[str, list[Hit]], open_sets: dict[str, OpenSet]) -> Decision:
    """Choose the identity of one object.

    Args:
        categories: what was searched, best first; empty when no category was likely enough.
        hits: nearest items by category, best first; a category that is missing has no gallery.
        open_sets: thresholds by category; a category that is missing uses the defaults.
    """
    if not categories:
        return Decision(None, None, "unknown_category")
    judged = [
        _judge(category, hits.get(category.name, []), open_sets.get(category.name, OpenSet()))
        for category in categories
    ]
    # a match beats none; among matches the joint probability of category and item decides
    return max(judged, key=lambda d: (d.match is not None, _joint(d)))


def _joint(decision: Decision) -> float:
    category = decision.category.score if decision.category else 0.0
    return category * (decision.match.probability if decision.match else 1.0)


def _judge(category: Category, hits: list[Hit], open_set: OpenSet) -> Decision:
    if not hits:
        return Decision(category, None, "gallery_empty")
    top = tuple(hits[:TOP])
    best = hits[0]
    margin = best.score - hits[1].score if len(hits) > 1 else best.score
    reason: Reason | None = None
    if best.score < open_set.threshold:
        reason = "unknown_item"
    elif margin < open_set.min_margin:
        reason = "low_margin"
    if reason is not None:
        return Decision(category, None, reason, top)
    probability = probability_of(best.score, open_set)
    return Decision(category, Match(best.item_id, best.label, best.score, margin, probability), None, top)
