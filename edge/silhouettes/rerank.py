"""Re-rank the nearest items of a category by vector and silhouette together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from edge.manifest.embedder import SilhouetteRule
from edge.silhouettes.silhouette import align, overlaps
from edge.types import Hit, Silhouette

RERANKED = 20  # how many of the nearest items by vector are re-ranked by silhouette


@dataclass(frozen=True, slots=True)
class GallerySilhouettes:
    """The silhouettes of the items of a category, and their weight."""

    rule: SilhouetteRule
    by_item: dict[str, NDArray[np.uint8]]  # (n, silhouette.SIZE), one of each picture that has one
    taught: dict[str, NDArray[np.uint8]] = field(default_factory=dict)  # the same for taught items

    def rerank(self, hits: list[Hit], silhouette: Silhouette) -> list[Hit]:
        """Score hits by (1 - w) * cosine + w * overlap, best first.

        The overlap is the largest one with any picture of the item. An item without silhouettes keeps its cosine.

        Args:
            hits: scored by cosine.
            silhouette: of the query, not aligned.
        """
        if self.rule.mode == "aligned":
            silhouette = align(silhouette)
        weight = 1.0 if self.rule.mode == "iou_only" else self.rule.weight
        known = {hit.item_id: rows for hit in hits if (rows := self._of(hit.item_id)) is not None}
        best: dict[str, float] = {}
        if known:
            overlap = overlaps(silhouette, np.concatenate(list(known.values())))
            starts = np.cumsum([0, *(len(rows) for rows in known.values())])[:-1]
            best = dict(zip(known, np.maximum.reduceat(overlap, starts).tolist(), strict=True))
        fused = [
            replace(hit, score=(1.0 - weight) * hit.score + weight * best.get(hit.item_id, hit.score)) for hit in hits
        ]
        return sorted(fused, key=lambda hit: -hit.score)

    def _of(self, item_id: str) -> NDArray[np.uint8] | None:
        return self.by_item.get(item_id, self.taught.get(item_id))


def silhouettes_for(rule: SilhouetteRule, by_item: Mapping[str, NDArray[np.uint8]]) -> GallerySilhouettes:
    """Return the silhouettes of a gallery, prepared for a rule: aligned where the rule says so.

    Args:
        rule: of the category.
        by_item: (n, silhouette.SIZE) for each item, not aligned.
    """
    if rule.mode != "aligned":
        return GallerySilhouettes(rule, dict(by_item))
    return GallerySilhouettes(rule, {item: np.stack([align(row) for row in rows]) for item, rows in by_item.items()})
