"""Fits the weight of silhouettes in a category's score on held-out crops.

A rule is used if it finds more items than the vectors alone and the 95 % bound of the paired gain is above zero.
Otherwise the weight is 0, and devices compute no silhouettes for the category. Whoever packs may name the mode instead:
then it is used, and its gain or loss is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edge.gallery.item_vectors import shrink_to_centroid
from edge.manifest.embedder import SilhouetteRule
from edge.silhouettes.rerank import RERANKED
from edge.silhouettes.silhouette import align, overlaps
from edge.types import FloatArray, Silhouette
from quantize.pictures import Sample

WEIGHTS = tuple(round(0.05 * step, 2) for step in range(1, 13))  # candidates
OFF = SilhouetteRule()
IOU_ONLY = SilhouetteRule(mode="iou_only", weight=1.0)  # as published
Mode = Literal["absolute", "aligned", "iou_only"]


@dataclass(frozen=True, slots=True)
class Similarities:
    """Similarity of held-out crops of one category to each gallery item, by the item's best picture."""

    cosine: FloatArray  # (queries, items)
    absolute: FloatArray  # overlaps of the silhouettes, (queries, items); the cosine if either has none
    aligned: FloatArray
    own: NDArray[np.int64]  # (queries,), column of the crop's own item, -1 if the gallery does not have it

    def fused(self, rule: SilhouetteRule) -> FloatArray:
        """Return the scores by a rule, (queries, items); -1 for items that are not re-ranked."""
        overlap = self.aligned if rule.mode == "aligned" else self.absolute
        weight = 1.0 if rule.mode == "iou_only" else rule.weight
        scores: FloatArray = ((1.0 - weight) * self.cosine + weight * overlap).astype(np.float32)
        if rule.counts and scores.shape[1] > RERANKED:
            least = np.partition(self.cosine, -RERANKED, axis=1)[:, -RERANKED][:, None]
            scores = np.where(self.cosine >= least, scores, np.float32(-1.0))
        return scores

    def is_correct(self, rule: SilhouetteRule) -> NDArray[np.bool_]:
        """Return whether each crop's own item has the highest score: (queries,)."""
        return np.asarray(self.fused(rule).argmax(axis=1) == self.own, np.bool_)


@dataclass(frozen=True, slots=True)
class SilhouetteFit:
    """A rule and its gain on the crops it was fitted on."""

    rule: SilhouetteRule
    queries: int
    without: float  # Recall@1 by the vectors alone
    best: SilhouetteRule  # the best candidate, whether it is used or not
    gain: float  # gain of the best candidate, in Recall@1
    error: float  # standard error of that gain
    forced: bool = False  # the mode was named, and is used whether it pays or not

    @property
    def pays(self) -> bool:
        """Whether the best candidate's gain is more than chance."""
        return self.gain - 1.96 * self.error > 0

    def row(self) -> dict[str, object]:
        """Return the fit as the manifest stores it."""
        return {
            "queries": self.queries,
            "recall_at_1": round(self.without, 4),
            "best": {"mode": self.best.mode, "weight": self.best.weight},
            "gain": round(self.gain, 4),
            "gain_interval": [round(self.gain + sign * 1.96 * self.error, 4) for sign in (-1, 1)],
            "pays": self.pays,
        } | ({"forced": True} if self.forced else {})


@dataclass(frozen=True, slots=True)
class LabelledSilhouettes:
    """Crops with their vectors and silhouettes."""

    samples: Sequence[Sample]
    vectors: FloatArray  # (n, dim), rows of unit length
    silhouettes: Sequence[Silhouette | None]  # None: none was found

    def of(self, category: str) -> LabelledSilhouettes:
        """Return the crops of one category."""
        rows = [row for row, sample in enumerate(self.samples) if sample.category == category]
        return LabelledSilhouettes(
            [self.samples[row] for row in rows], self.vectors[rows], [self.silhouettes[row] for row in rows]
        )

    def by_item(self, category: str) -> dict[str, NDArray[np.uint8]]:
        """Return the silhouettes of each item of a category that has any: (n, silhouette.SIZE)."""
        found: dict[str, list[Silhouette]] = {}
        for sample, silhouette in zip(self.samples, self.silhouettes, strict=True):
            if silhouette is not None and sample.category == category:
                found.setdefault(sample.item, []).append(silhouette)
        return {item: np.stack(group) for item, group in found.items()}


def fit_rule(similar: Similarities, forced: Mode | None = None) -> SilhouetteFit:
    """Choose mode and weight by Recall@1, the smallest weight among equals; weight 0 without a certain gain.

    Args:
        similar: of held-out crops.
        forced: use this mode even if it does not pay, with the best of its weights; `iou_only` has none, as published.
    """
    before = similar.is_correct(OFF)
    modes: Sequence[Mode] = ("absolute", "aligned") if forced is None else (forced,)
    every = [SilhouetteRule(mode=mode, weight=weight) for weight in WEIGHTS for mode in modes]
    tried = [IOU_ONLY] if forced == "iou_only" else every
    if not len(before):
        return SilhouetteFit(OFF, 0, 0.0, OFF, 0.0, 0.0)
    best = max(tried, key=lambda rule: float(similar.is_correct(rule).mean()))
    change = similar.is_correct(best).astype(np.float64) - before
    gain, error = float(change.mean()), float(change.std() / np.sqrt(len(change)))
    fit = SilhouetteFit(best, len(before), float(before.mean()), best, gain, error, forced is not None)
    return fit if fit.pays or fit.forced else replace(fit, rule=OFF)


def similarities(
    queries: FloatArray,
    query_silhouettes: Sequence[Silhouette | None],
    query_items: Sequence[str],
    gallery: FloatArray,
    gallery_silhouettes: Sequence[Silhouette | None],
    gallery_items: Sequence[str],
) -> Similarities:
    """Compare crops of one category with its gallery pictures.

    Args:
        queries: (n, dim), rows of unit length.
        query_silhouettes: silhouette of each query; None if none was found.
        query_items: item of each query.
        gallery: (m, dim), rows of unit length.
        gallery_silhouettes: silhouette of each picture; None if none was found.
        gallery_items: item of each picture.
    """
    items = sorted(set(gallery_items))
    rows_of = [np.nonzero(np.asarray(gallery_items) == item)[0] for item in items]
    cosine = _best(np.asarray(queries @ gallery.T, np.float32), rows_of)
    by_item = [[gallery_silhouettes[int(row)] for row in rows] for rows in rows_of]
    absolute = _overlaps(query_silhouettes, by_item, cosine, aligned=False)
    aligned = _overlaps(query_silhouettes, by_item, cosine, aligned=True)
    column = {item: number for number, item in enumerate(items)}
    return Similarities(cosine, absolute, aligned, np.array([column.get(i, -1) for i in query_items], np.int64))


def _best(similar: FloatArray, rows_of: Sequence[NDArray[np.int64]]) -> FloatArray:
    return np.stack([similar[:, rows].max(axis=1) for rows in rows_of], axis=1)


def _overlaps(
    queries: Sequence[Silhouette | None],
    by_item: Sequence[Sequence[Silhouette | None]],
    cosine: FloatArray,
    *,
    aligned: bool,
) -> FloatArray:
    known = [[align(one) if aligned else one for one in group if one is not None] for group in by_item]
    found = cosine.copy()  # the cosine replaces the overlap if either has no silhouette
    for row, query in enumerate(queries):
        if query is None:
            continue
        compared = align(query) if aligned else query
        for column, group in enumerate(known):
            if group:
                found[row, column] = overlaps(compared, np.stack(group)).max()
    return found


def fit_categories(
    categories: Sequence[str],
    held_out: LabelledSilhouettes,
    gallery: LabelledSilhouettes,
    gathering: float,
    forced: Mode | None = None,
) -> dict[str, SilhouetteFit]:
    """Fit the rule of each category that has held-out crops and gallery pictures; `iou_only` needs none to fit.

    Args:
        categories: of one embedder.
        held_out: crops to search for.
        gallery: pictures to search in.
        gathering: how far gallery vectors shrink to their centroid.
        forced: see `fit_rule`.
    """
    fits = {}
    for category in categories:
        queries, known = held_out.of(category), gallery.of(category)
        if queries.samples and known.samples:
            items = [sample.item for sample in known.samples]
            similar = similarities(
                queries.vectors,
                queries.silhouettes,
                [sample.item for sample in queries.samples],
                shrink_to_centroid(known.vectors, items, gathering),
                known.silhouettes,
                items,
            )
            fits[category] = fit_rule(similar, forced)
        elif forced == "iou_only":
            fits[category] = SilhouetteFit(IOU_ONLY, 0, 0.0, IOU_ONLY, 0.0, 0.0, forced=True)
    return fits
