"""Open-set decision: which item, or why not. Thresholds are fitted when a bundle is packed; here they are applied."""

from __future__ import annotations

import math

from edge.manifest import OpenSet
from edge.types import Category, Decision, Hit, Match, Reason

TOP = 5  # alternatives an event carries
SEARCH_DEPTH = 2 * TOP  # items asked for, some of which may be negative
SEARCHED = 3  # categories at most
SEARCHED_RATIO = 0.05  # a category this likely, relative to the best, is searched too
CONFIRMABLE = 0.5  # of the threshold: a category less likely than that is not searched for a match to confirm it


def categories_to_search(categories: list[Category], threshold: float) -> list[Category]:
    """The categories whose galleries are worth a search: none when even the best is too unlikely.

    Args:
        categories: best first.
        threshold: probability below which the category is unknown unless a match confirms it.
    """
    if not categories or categories[0].score < CONFIRMABLE * threshold:
        return []
    return [c for c in categories[:SEARCHED] if c.score >= SEARCHED_RATIO * categories[0].score]


def probability_of(score: float, open_set: OpenSet) -> float:
    """Calibrated probability that a nearest item at this cosine similarity is right."""
    # a slope fitted to well separated scores can be in the thousands: exp overflows at 710
    return 1.0 / (1.0 + math.exp(min(-open_set.slope * (score - open_set.midpoint), 700.0)))


def decide(
    categories: list[Category], hits: dict[str, list[Hit]], open_sets: dict[str, OpenSet], threshold: float = 0.0
) -> Decision:
    """Choose the identity of one object.

    A match beats none; among matches the probability of the category times the odds of the item decides. A negative
    exemplar competes like an item, and where it wins or draws nothing is named.

    Args:
        categories: what was searched, best first; empty when no category was likely enough.
        hits: nearest items by category, best first; a category that is missing has no gallery.
        open_sets: thresholds by category; a category that is missing uses the defaults.
        threshold: probability below which a category is unknown unless a match confirms it.
    """
    if not categories:
        return Decision(None, None, "unknown_category")
    judged = []
    for category in categories:
        open_set = open_sets.get(category.name, OpenSet())
        found = sorted(hits.get(category.name, []), key=lambda hit: (-hit.score, not hit.negative))
        decision = _judge(category, found, open_set)
        claims = decision.match is not None or _is_vetoed(found, open_set)
        joint = _log_joint(category, found[0] if claims else None, open_set)
        judged.append((claims, joint, category, decision))
    claims, _, category, chosen = max(judged, key=lambda row: row[:2])
    if not claims and category.score < threshold:
        return Decision(None, None, "unknown_category", chosen.top)
    return chosen


def _is_vetoed(hits: list[Hit], open_set: OpenSet) -> bool:
    """Whether the nearest is near enough, and not to be named."""
    return bool(hits) and hits[0].negative and hits[0].score >= open_set.threshold


def _log_joint(category: Category, nearest: Hit | None, open_set: OpenSet) -> float:
    """Logarithm of the category's probability, times the odds of the item where one matches."""
    odds = open_set.slope * (nearest.score - open_set.midpoint) if nearest else 0.0
    return math.log(max(category.score, 1e-9)) + odds


def _judge(category: Category, hits: list[Hit], open_set: OpenSet) -> Decision:
    if not hits:
        return Decision(category, None, "gallery_empty")
    top = tuple(hit for hit in hits if not hit.negative)[:TOP]
    best = hits[0]
    margin = best.score - hits[1].score if len(hits) > 1 else best.score
    reason: Reason | None = None
    if best.score < open_set.threshold or best.negative:
        reason = "unknown_item"
    elif margin < open_set.min_margin:
        reason = "low_margin"
    if reason is not None:
        return Decision(category, None, reason, top)
    probability = probability_of(best.score, open_set)
    return Decision(category, Match(best.item_id, best.label, best.score, margin, probability), None, top)
