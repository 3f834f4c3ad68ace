"""Whether a new embedder's queries may be searched in galleries of an older bundle: measured, and declared if so.

Rules this module keeps:
1. Declared is only what finds more than before: Recall@1 of new queries in the old gallery above that of old queries in
   it (Shen et al. 2020, arXiv 2003.11942), on held-out crops.
2. Nor may the 95 % interval of that change, over the same queries, reach further below zero than a stated tolerance.
3. What is declared brings thresholds of its own, fitted for that search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge.bundle.bundle import Bundle
from edge.gallery.item_vectors import shrink_to_centroid
from edge.inference.stages import Stages, load_stages
from edge.manifest import CompatibleGallery, EmbedderModel, OpenSet
from edge.types import Category, FloatArray
from quantize import fit_thresholds as openset
from quantize.compare import BoolRow, Vectors, embed_samples, nearest_is_correct
from quantize.dataset import Sample
from quantize.gates import MIN_IMAGES
from quantize.predictions import best_score_by_item, items_of
from quantize.probes import Gallery

TOLERANCE = 0.02  # of Recall@1
_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class CrossSpaceRecall:
    """Recall@1 by whose queries are searched in whose gallery."""

    old_old: float
    new_old: float
    new_new: float
    queries: int
    change_95: tuple[float, float]  # of new_old - old_old, by bootstrap over the queries

    @property
    def update_gain(self) -> float | None:
        """Share of what embedding anew would bring that is there before; None where it would bring nothing."""
        room = self.new_new - self.old_old
        return (self.new_old - self.old_old) / room if room > 0 else None

    def row(self) -> dict[str, Any]:
        """The numbers as the manifest holds them."""
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
class Verdict:
    """What became of one category and one older bundle."""

    bundle_id: str  # the older one
    category: str
    measured: CrossSpaceRecall
    declared: CompatibleGallery | None
    why: str  # or why not

    def row(self) -> dict[str, Any]:
        """The verdict as the manifest's evaluation holds it."""
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
) -> list[Verdict]:
    """Judge every category that both serve, of another space but the same heads.

    Args:
        old: an older bundle, whose galleries are in the field.
        new: the embedder that is packed.
        vectors: its own, of the crops.
        crops: queries, held out, and those of a gallery.
        tolerance: of Recall@1.

    Raises:
        EngineError: the older embedder cannot be run.
    """
    found = []
    stages: Stages | None = None  # of the older bundle
    for category in new.categories:
        before = old.manifest.embedder_for(category)
        if before is None or before.space_id == new.space_id:
            continue
        if before.heads != new.heads:
            heads = {f"{head.name} of {head.dim}" for head in before.heads}
            unmeasured = CrossSpaceRecall(0.0, 0.0, 0.0, 0, (0.0, 0.0))
            why = f"found heads {sorted(heads)}, expected those of the new embedder"
            found.append(Verdict(old.manifest.bundle_id, category, unmeasured, None, why))
            continue
        chosen = tuple([i for i, sample in enumerate(part) if sample.category == category] for part in crops)
        queries, gallery = ([part[i] for i in rows] for part, rows in zip(crops, chosen, strict=True))
        stages = stages or load_stages(old.folder, old.manifest, "onnxruntime")
        items = [sample.item for sample in gallery]
        asked, held = (embed_samples(stages.embedders[category], part) for part in (queries, gallery))
        ours = vectors.queries[chosen[0]]
        # a gallery is gathered as the bundle that searches it says
        pairs = (
            Vectors(asked, shrink_to_centroid(held, items, before.gathering)),
            Vectors(ours, shrink_to_centroid(held, items, new.gathering)),
            Vectors(ours, shrink_to_centroid(vectors.gallery[chosen[1]], items, new.gathering)),
        )
        found.append(_judge(old, before.space_id, category, pairs, (queries, gallery), tolerance))
    return found


def _judge(
    old: Bundle,
    space_id: str,
    category: str,
    pairs: tuple[Vectors, Vectors, Vectors],  # old in old, new in old, new in new
    crops: tuple[Sequence[Sample], Sequence[Sample]],
    tolerance: float,
) -> Verdict:
    queries, gallery = crops
    known = np.isin([s.item for s in queries], [s.item for s in gallery])
    right = [nearest_is_correct(pair.queries, pair.gallery, queries, gallery)[known] for pair in pairs]
    measured = measure(right[0], right[1], right[2])
    if why := reason_against(measured, tolerance):
        return Verdict(old.manifest.bundle_id, category, measured, None, why)
    open_set = _fit_open_set(category, pairs[1], crops)
    declared = CompatibleGallery(space_id=space_id, category=category, open_set=open_set, **measured.row())
    why = f"Recall@1 {measured.new_old:.4f} in them, {measured.old_old:.4f} before, {measured.new_new:.4f} once anew"
    return Verdict(old.manifest.bundle_id, category, measured, declared, why)


def _fit_open_set(category: str, vectors: Vectors, crops: tuple[Sequence[Sample], Sequence[Sample]]) -> OpenSet:
    """Thresholds for queries of one space in a gallery of another."""
    among = Gallery(vectors.gallery, tuple(sample.item for sample in crops[1]))
    items = items_of({category: among})
    asked = [
        openset.ScoredCrop(sample.item, [Category(category, 1.0)], {category: best_score_by_item(vector, among, items[category])})
        for vector, sample in zip(vectors.queries, crops[0], strict=True)
    ]
    return openset.fit(openset.leave_items_out(asked, items), [category])[category].open_set


def measure(old_old: BoolRow, new_old: BoolRow, new_new: BoolRow, seed: int = 0) -> CrossSpaceRecall:
    """Recall@1 of each pair from whether each query's nearest is right, the same queries in the same order."""
    if not len(old_old):
        return CrossSpaceRecall(0.0, 0.0, 0.0, 0, (0.0, 0.0))
    change = new_old.astype(np.float64) - old_old
    rng = np.random.default_rng(seed)
    means: FloatArray = change[rng.integers(len(change), size=(_DRAWS, len(change)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    recalls = [float(right.mean()) for right in (old_old, new_old, new_new)]
    return CrossSpaceRecall(recalls[0], recalls[1], recalls[2], len(change), (float(low), float(high)))


def reason_against(measured: CrossSpaceRecall, tolerance: float) -> str:
    """Why galleries of the older space must not be searched; nothing where they may."""
    if measured.queries < MIN_IMAGES:
        return f"found {measured.queries} held-out crops of items in the gallery, expected at least {MIN_IMAGES}"
    if measured.new_old <= measured.old_old:
        return f"found Recall@1 {measured.new_old:.4f} in them, expected more than the {measured.old_old:.4f} before"
    if measured.change_95[0] < -tolerance:
        low = f"{measured.change_95[0]:+.4f}"
        return f"found a change of Recall@1 that may be {low} (95 % interval), expected no worse than {-tolerance:+.4f}"
    return ""
