"""Open-set decision: which item, or why not. Thresholds are fitted when a bundle is packed; here they are applied."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

from edge.manifest import OpenSet
from edge.types import Category, Decision, Hit, Match, Reason

TOP = 5  # alternatives an event carries
SEARCH_DEPTH = 2 * TOP  # items asked for, some of which may be negative
SEARCHED = 3  # categories at most
SEARCHED_RATIO = 0.05  # a category this likely, relative to the best, is searched too
# The same where the vector is there already, for a category that shares its embedder with one that is searched.
SEARCHED_BESIDE = 5
SEARCHED_BESIDE_RATIO = 0.01
CONFIRMABLE = 0.5  # of the threshold: a category less likely than that is not searched for a match to confirm it


def categories_to_search(
    categories: list[Category], threshold: float, embedder_for: Mapping[str, Hashable]
) -> list[Category]:
    """The categories whose galleries are worth a search, best first: none when even the best is too unlikely.

    Args:
        categories: best first.
        threshold: probability below which the category is unknown unless a match confirms it.
        embedder_for: what embeds for each category.
    """
    if not categories or categories[0].score < CONFIRMABLE * threshold:
        return []
    best = categories[0].score
    searched = [c for c in categories[:SEARCHED] if c.score >= SEARCHED_RATIO * best]
    asked = {embedder_for[c.name] for c in searched if c.name in embedder_for}
    beside = [
        c
        for c in categories[len(searched) : SEARCHED_BESIDE]
        if c.score >= SEARCHED_BESIDE_RATIO * best and embedder_for.get(c.name) in asked
    ]
    return searched + beside


def probability_of(score: float, open_set: OpenSet) -> float:
    """Calibrated probability that a nearest item at this cosine similarity is right."""
    # a slope fitted to well separated scores can be in the thousands: exp overflows at 710
    return 1.0 / (1.0 + math.exp(min(-open_set.slope * (score - open_set.midpoint), 700.0)))


def decide(
    categories: list[Category], hits: dict[str, list[Hit]], open_sets: dict[str, OpenSet], threshold: float = 0.0
) -> Decision:
    """Choose the identity of one object.

    A match beats none; then the probability of the category times the odds of its nearest item decides. A negative
    exemplar competes like an item, and where it wins or draws nothing is named.

    Args:
        categories: what was searched, best first; empty when no category was likely enough.
        hits: nearest items by category; a category that is missing has no gallery.
        open_sets: thresholds by category; a category that is missing uses the defaults.
        threshold: probability below which a category is unknown unless a match confirms it.
    """
    if not categories:
        return Decision(None, None, "unknown_category")
    ranked = {name: sorted(found, key=lambda hit: (-hit.score, not hit.negative)) for name, found in hits.items()}
    rules = {c.name: open_sets.get(c.name, OpenSet()) for c in categories}
    odds = {c.name: _log_odds(ranked[c.name][0], rules[c.name]) for c in categories if ranked.get(c.name)}
    at_worst = min(odds.values(), default=0.0)  # a category without a gallery is neither favoured nor held back
    judged = {c.name: _judge(c, ranked.get(c.name, []), rules[c.name]) for c in categories}
    claiming = {n for n, told in judged.items() if told.match or _is_vetoed(ranked.get(n, []), rules[n])}

    def weight(category: Category) -> tuple[bool, float]:
        likely = math.log(max(category.score, 1e-9))
        return category.name in claiming, likely + odds.get(category.name, at_worst)

    chosen = judged[max(categories, key=weight).name]
    if not claiming and categories[0].score < threshold:
        return Decision(None, None, "unknown_category", chosen.top)
    return chosen


def _is_vetoed(hits: list[Hit], open_set: OpenSet) -> bool:
    """Whether the nearest is near enough, and not to be named."""
    return bool(hits) and hits[0].negative and hits[0].score >= open_set.threshold


def _log_odds(nearest: Hit, open_set: OpenSet) -> float:
    """Logarithm of the odds that the nearest item is right."""
    return open_set.slope * (nearest.score - open_set.midpoint)


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
