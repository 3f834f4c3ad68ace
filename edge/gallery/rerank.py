"""The order of the nearest items of a category, by vector and outline together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge.imaging.silhouette import Outline, align, overlaps
from edge.manifest import OutlineRule
from edge.types import Hit

RERANKED = 20  # nearest items by vector, among which outlines decide


@dataclass(frozen=True, slots=True)
class Outlines:
    """The outlines of a category's items, and how much they count."""

    rule: OutlineRule
    by_item: dict[str, NDArray[np.uint8]]  # (n, outline.SIZE), one of each picture that shows one
    taught: dict[str, NDArray[np.uint8]] = field(default_factory=dict)  # the same of what was taught beside the gallery

    def rerank(self, hits: list[Hit], outline: Outline) -> list[Hit]:
        """Score hits by (1 - w) * cosine + w * overlap, best first.

        The overlap is that with the item's picture that fits best. An item without outlines keeps its cosine.

        Args:
            hits: by cosine.
            outline: of the query, as it was seen.
        """
        if self.rule.mode == "aligned":
            outline = align(outline)
        weight = 1.0 if self.rule.mode == "iou_only" else self.rule.weight
        known = {hit.item_id: rows for hit in hits if (rows := self._of(hit.item_id)) is not None}
        best: dict[str, float] = {}
        if known:
            found = overlaps(outline, np.concatenate(list(known.values())))
            starts = np.cumsum([0, *(len(rows) for rows in known.values())])[:-1]
            best = dict(zip(known, np.maximum.reduceat(found, starts).tolist(), strict=True))
        fused = [
            replace(hit, score=(1.0 - weight) * hit.score + weight * best.get(hit.item_id, hit.score)) for hit in hits
        ]
        return sorted(fused, key=lambda hit: -hit.score)

    def _of(self, item_id: str) -> NDArray[np.uint8] | None:
        return self.by_item.get(item_id, self.taught.get(item_id))


def outlines_for(rule: OutlineRule, by_item: Mapping[str, NDArray[np.uint8]]) -> Outlines:
    """The outlines of a gallery as a rule compares them.

    Args:
        rule: of the category.
        by_item: (n, outline.SIZE) of each item, as its pictures show it.
    """
    if rule.mode != "aligned":
        return Outlines(rule, dict(by_item))
    return Outlines(rule, {item: np.stack([align(row) for row in rows]) for item, rows in by_item.items()})
