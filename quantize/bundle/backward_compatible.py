"""Backward compatibility: measures whether a new embedder can search galleries of an older bundle, and declares it.

Rules this module keeps:
1. A gallery is declared compatible only if Recall@1 improves: new queries in the old gallery must score above old
   queries in it (Shen et al. 2020, arXiv 2003.11942), on held-out crops.
2. The 95 % interval of that change, over the same queries, must not reach further below zero than the tolerance.
3. A declaration has its own thresholds, fitted for that search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.bundle.bundle import Bundle
from edge.gallery.item_vectors import shrink_to_centroid
from edge.inference.stages import Stages, load_stages
from edge.manifest.embedder import CompatibleGallery, EmbedderModel, OpenSet
from edge.types import Category, FloatArray
from quantize.compare import BoolRow, Vectors, nearest_is_correct
from quantize.gates import MIN_IMAGES
from quantize.open_set.fit_thresholds import fit_thresholds
from quantize.open_set.leave_items_out import ScoredCrop, leave_items_out
from quantize.open_set.score_crops import best_score_by_item, items_of
from quantize.pictures import Sample
from quantize.probes.choose_probes import GalleryVectors
from quantize.run_forms import embed_samples

TOLERANCE = 0.02  # largest allowed loss of Recall@1
_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class CrossSpaceRecall:
    """Recall@1 of old or new queries in an old or new gallery; `new_old` is new queries in the old gallery."""

    old_old: float
    new_old: float
    new_new: float
    queries: int
    change_95: tuple[float, float]  # interval of new_old - old_old, by bootstrap over the queries

    @property
    def update_gain(self) -> float | None:
        """Gain in the old gallery as a share of the gain in a re-embedded one; None if that gains nothing."""
        room = self.new_new - self.old_old
        return (self.new_old - self.old_old) / room if room > 0 else None

    def row(self) -> dict[str, Any]:
        """Return the numbers as the manifest stores them."""
        gain = self.update_gain
        return {
            "old_old": round(self.old_old, 4),
            "new_old": round(self.new_old, 4),
            "new_new": round(self.new_new, 4),
            "queries": self.queries,
            "change_95": [round(bound, 4) for bound in self.change_95],
            "update_gain": None if gain is None else round(gain, 3),
        }


@dataclass(frozen=True, slots=True)
class CompatibilityResult:
    """Compatibility of one category with the galleries of one older bundle."""

    bundle_id: str  # id of the older bundle
    category: str
    measured: CrossSpaceRecall
    declared: CompatibleGallery | None
    why: str  # reason for or against

    def row(self) -> dict[str, Any]:
        """Return the result as the manifest's evaluation stores it."""
        return {**self.measured.row(), "declared": self.declared is not None, "why": self.why}

    def __str__(self) -> str:
        may = "may" if self.declared else "may not"
        return f"{self.category}: galleries of bundle {self.bundle_id} {may} be searched: {self.why}"


def check_compatibility(
    old: Bundle,
    new: EmbedderModel,
    vectors: Vectors,
    crops: tuple[Sequence[Sample], Sequence[Sample]],
    tolerance: float = TOLERANCE,
) -> list[CompatibilityResult]:
    """Check every category that both bundles have, if the spaces differ and the heads are the same.

    Args:
        old: an older bundle, whose galleries are in use.
        new: the embedder to pack.
        vectors: embeddings of the crops by the new embedder.
        crops: held-out queries and gallery crops.
        tolerance: largest allowed loss of Recall@1.

    Raises:
        EngineError: the older embedder cannot run.
    """
    found = []
    stages: Stages | None = None  # models of the older bundle, loaded when first needed
    for category in new.categories:
        before = old.manifest.embedder_for(category)
        if before is None or before.space_id == new.space_id:
            continue
        if before.heads != new.heads:
            heads = {f"{head.name} of {head.dim}" for head in before.heads}
            unmeasured = CrossSpaceRecall(0.0, 0.0, 0.0, 0, (0.0, 0.0))
            why = f"the old embedder has other heads: {sorted(heads)}"
            found.append(CompatibilityResult(old.manifest.bundle_id, category, unmeasured, None, why))
            continue
        chosen = tuple([i for i, sample in enumerate(part) if sample.category == category] for part in crops)
        queries, gallery = ([part[i] for i in rows] for part, rows in zip(crops, chosen, strict=True))
        stages = stages or load_stages(old.folder, old.manifest, "onnxruntime")
        items = [sample.item for sample in gallery]
        old_queries, old_gallery = (embed_samples(stages.embedders[category], part) for part in (queries, gallery))
        new_queries = vectors.queries[chosen[0]]
        # the bundle that searches a gallery sets how far its vectors shrink to their centroid
        pairs = (
            Vectors(old_queries, shrink_to_centroid(old_gallery, items, before.gathering)),
            Vectors(new_queries, shrink_to_centroid(old_gallery, items, new.gathering)),
            Vectors(new_queries, shrink_to_centroid(vectors.gallery[chosen[1]], items, new.gathering)),
        )
        found.append(_check_category(old, before.space_id, category, pairs, (queries, gallery), tolerance))
    return found


def _check_category(
    old: Bundle,
    space_id: str,
    category: str,
    pairs: tuple[Vectors, Vectors, Vectors],  # old in old, new in old, new in new
    crops: tuple[Sequence[Sample], Sequence[Sample]],
    tolerance: float,
) -> CompatibilityResult:
    queries, gallery = crops
    known = np.isin([s.item for s in queries], [s.item for s in gallery])
    correct = [nearest_is_correct(pair.queries, pair.gallery, queries, gallery)[known] for pair in pairs]
    measured = measure(correct[0], correct[1], correct[2])
    if why := reason_against(measured, tolerance):
        return CompatibilityResult(old.manifest.bundle_id, category, measured, None, why)
    open_set = _fit_open_set(category, pairs[1], crops)
    declared = CompatibleGallery(space_id=space_id, category=category, open_set=open_set, **measured.row())
    why = (
        f"Recall@1 {measured.new_old:.4f} in them, {measured.old_old:.4f} with the old embedder, "
        f"{measured.new_new:.4f} in a gallery embedded again"
    )
    return CompatibilityResult(old.manifest.bundle_id, category, measured, declared, why)


def _fit_open_set(category: str, vectors: Vectors, crops: tuple[Sequence[Sample], Sequence[Sample]]) -> OpenSet:
    """Fit thresholds for queries of one space in a gallery of another."""
    gallery = GalleryVectors(vectors.gallery, tuple(sample.item for sample in crops[1]))
    items = items_of({category: gallery})
    scored = [
        ScoredCrop(
            category,
            sample.item,
            [Category(category, 1.0)],
            {category: best_score_by_item(vector, gallery, items[category])},
        )
        for vector, sample in zip(vectors.queries, crops[0], strict=True)
    ]
    return fit_thresholds(leave_items_out(scored, items), [category])[category].open_set


def measure(old_old: BoolRow, new_old: BoolRow, new_new: BoolRow, seed: int = 0) -> CrossSpaceRecall:
    """Compute Recall@1 of each pair. Each argument holds, for the same queries, whether the nearest item is right."""
    if not len(old_old):
        return CrossSpaceRecall(0.0, 0.0, 0.0, 0, (0.0, 0.0))
    change = new_old.astype(np.float64) - old_old
    rng = np.random.default_rng(seed)
    means: FloatArray = change[rng.integers(len(change), size=(_DRAWS, len(change)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    recalls = [float(found.mean()) for found in (old_old, new_old, new_new)]
    return CrossSpaceRecall(recalls[0], recalls[1], recalls[2], len(change), (float(low), float(high)))


def reason_against(measured: CrossSpaceRecall, tolerance: float) -> str:
    """Return why galleries of the older space must not be searched; an empty string if they may."""
    if measured.queries < MIN_IMAGES:
        return f"only {measured.queries} held-out crops show items of the gallery; {MIN_IMAGES} or more are needed"
    if measured.new_old <= measured.old_old:
        return f"Recall@1 {measured.new_old:.4f} in them is not above that of the old embedder, {measured.old_old:.4f}"
    if measured.change_95[0] < -tolerance:
        low = f"{measured.change_95[0]:+.4f}"
        return f"Recall@1 may change by {low} (95 % interval); the limit is {-tolerance:+.4f}"
    return ""
