"""A cautious open-set rule from the gallery's own pictures, for data with too few held-out pictures to fit a curve.

Rules this module keeps:
1. Each gallery picture asks for its item while its item is left out: the nearest other item is a wrong answer. The
   threshold accepts two in a hundred of those, or the requested share, as if they were normal and drawn from as many
   items as there are (Student's t): few items say little about all that may come. Six to forty items of groceries, one
   to six pictures each, untuned vectors: 1.5 to 5.3 % of photos of other items were accepted, but 8 % with one picture
   of six items. The smoothed quantile of `level_accepting` accepted up to 22 % there.
2. Where an item has several pictures, each is also compared with the others: a threshold that no such answer reaches is
   lowered to the best of them, and one far below them is raised half way to the lowest tenth, because objects that are
   like no item may come. An item with one picture is compared with its own augmented views.
3. Nothing here is calibrated: answers have no probability.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from edge.gallery.item_vectors import shrink_to_centroid
from edge.manifest.embedder import OpenSet
from edge.types import FloatArray
from quantize.open_set.fit_thresholds import OPERATING_POINTS
from quantize.open_set.leave_items_out import ScoredCrop

CAUTIOUS_SHARE = 0.02  # of wrong answers that are accepted, if no other share was requested
_BELOW_BEST = 0.001  # cosine by which the best right answer is above the threshold
_LOWEST = 0.1  # share of right answers that are low; where there is no wrong answer, the others are named


@dataclass(frozen=True, slots=True)
class GalleryRows:
    """The vectors of one category's gallery as they are stored, with those of augmented views."""

    vectors: FloatArray  # (n, dim), rows of unit length, not shrunk
    items: tuple[str, ...]  # of each row
    pictures: NDArray[np.int64]  # (n,), number of the picture that a row is or is a view of, per category
    is_view: NDArray[np.bool_]  # (n,)

    def shrunk(self, share: float) -> FloatArray:
        """Return the vectors as a device searches them."""
        return shrink_to_centroid(self.vectors, self.items, share)


@dataclass(frozen=True, slots=True)
class GalleryAnswers:
    """Scores of the pictures of one gallery, each searched among the others."""

    category: NDArray[np.str_]  # (pictures,)
    right: NDArray[np.float64]  # (pictures,), of the own item by its other pictures; NaN if it has no other
    wrong: NDArray[np.float64]  # (pictures,), of the nearest other item; -inf if there is none
    views: NDArray[np.float64]  # of the views of pictures that are alone, by the same picture

    def named(self, category: str, threshold: float) -> float | None:
        """Return the share of a category's pictures that name their item; None if no item has two pictures."""
        asked = (self.category == category) & ~np.isnan(self.right)
        named = (self.right >= threshold) & (self.right > self.wrong)
        return float(named[asked].mean()) if asked.any() else None


def search_gallery_in_itself(galleries: Mapping[str, GalleryRows], gathering: float) -> GalleryAnswers:
    """Search every picture of an embedder's galleries in all of them, without the picture itself.

    Args:
        galleries: of one embedder, by category.
        gathering: how far a device moves vectors towards the centroid of their item.
    """
    names = sorted(galleries)
    vectors = np.concatenate([galleries[name].shrunk(gathering) for name in names])
    owner = np.array([(name, item) for name in names for item in galleries[name].items], dtype=object).reshape(-1, 2)
    category, right, wrong, views = [], [], [], []
    for name in names:
        rows = galleries[name]
        items = np.array(rows.items)
        for row in np.flatnonzero(~rows.is_view):
            item, picture = items[row], rows.pictures[row]
            others = ~((owner[:, 0] == name) & (owner[:, 1] == item))
            cosines = vectors[others] @ rows.vectors[row]
            category.append(name)
            wrong.append(float(cosines.max(initial=-np.inf)))
            own = np.flatnonzero((items == item) & (rows.pictures != picture))
            if len(own):
                rest = shrink_to_centroid(rows.vectors[own], items[own].tolist(), gathering)
                right.append(float((rest @ rows.vectors[row]).max()))
                continue
            right.append(np.nan)
            turned = rows.vectors[rows.is_view & (rows.pictures == picture)]
            views += (turned @ rows.vectors[row]).astype(float).tolist()
    return GalleryAnswers(np.asarray(category, np.str_), np.asarray(right), np.asarray(wrong), np.asarray(views))


def cautious_rule(
    gallery: GalleryAnswers, held_out: Sequence[ScoredCrop], items: Mapping[str, Sequence[str]], share: float | None
) -> OpenSet:
    """Return one rule for all categories of an embedder.

    Args:
        gallery: the gallery searched in itself.
        held_out: the few held-out pictures, if there are any; they count like those of the gallery.
        items: items of the gallery by category, in the order of `ScoredCrop.scores`.
        share: share of wrong answers that may be accepted; None: CAUTIOUS_SHARE.
    """
    answers = [_answers_of(crop, items) for crop in held_out]
    wrong = np.array([*gallery.wrong, *(other for _, other in answers)], np.float64)
    right = np.array([*gallery.right, *(own for own, _ in answers)], np.float64)
    right = right[np.isfinite(right)]
    right = right if len(right) else gallery.views
    best, low = 1.0 - _BELOW_BEST, OpenSet().threshold
    if len(right):
        best, low = float(right.max()) - _BELOW_BEST, float(np.quantile(right, _LOWEST))
    wrong = wrong[np.isfinite(wrong)]
    if not len(wrong):
        return OpenSet(threshold=round(low, 4), midpoint=round(low, 4), calibrated=False)
    count, chosen = sum(len(names) for names in items.values()), share or CAUTIOUS_SHARE
    levels = {one: _level_accepting(wrong, one, count) for one in (*OPERATING_POINTS, chosen)}
    levels = {one: min(best, max(level, (level + low) / 2)) for one, level in levels.items()}
    threshold = round(levels[chosen], 4)
    points = {f"{one:g}": round(level, 4) for one, level in sorted(levels.items()) if one in (*OPERATING_POINTS, share)}
    return OpenSet(
        threshold=threshold, midpoint=threshold, false_accept=share, operating_points=points, calibrated=False
    )


def _level_accepting(wrong: NDArray[np.float64], share: float, items: int) -> float:
    """Return the score above which this share of further wrong answers is expected, from answers for few items."""
    normal = NormalDist().inv_cdf(1 - share)
    student = normal * (1 + (normal**2 + 1) / (4 * max(1, items - 1)))  # first term of its series
    return float(wrong.mean() + student * wrong.std() * math.sqrt(1 + 1 / items))


def _answers_of(crop: ScoredCrop, items: Mapping[str, Sequence[str]]) -> tuple[float, float]:
    """Return the score of a picture's own item, NaN if no gallery has it, and of the nearest other item."""
    own, other = np.nan, -np.inf
    for category, scores in crop.scores.items():
        for item, score in zip(items[category], scores.tolist(), strict=True):
            if (category, item) == (crop.category, crop.item):
                own = score
            else:
                other = max(other, score)
    return own, other
