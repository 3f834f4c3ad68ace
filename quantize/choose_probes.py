"""Golden probes: small crops that the packed models predict correctly with a margin. Devices run them again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.errors import QuantizeError
from edge.imaging.image import encode_image, resize
from edge.inference.postprocess import unit_rows
from edge.inference.stages import Stages
from edge.telemetry.timing import Timings
from edge.types import Box, FloatArray, Image
from quantize.dataset import Sample

MIN_PROBES, MAX_PROBES = 8, 32
MAX_SIDE_PX = 128
_MIN_PROBABILITY = 0.6  # probability of the category
_MIN_MARGIN = 0.02  # cosine, to the next item


@dataclass(frozen=True, slots=True)
class ProbeCandidate:
    """A crop as it would be packed, with its vector by the packed models."""

    sample: Sample
    png: bytes
    vector: FloatArray  # (dim,)
    confidence: float  # probability of the category times the margin to the next item


@dataclass(frozen=True, slots=True)
class GalleryVectors:
    """Reference vectors of one category."""

    vectors: FloatArray  # (n, dim), rows of unit length
    items: tuple[str, ...]


def shrink(picture: Image) -> Image:
    """Shrink a crop so that its longer side is at most MAX_SIDE_PX."""
    height, width = picture.shape[:2]
    scale = MAX_SIDE_PX / max(height, width)
    if scale >= 1:
        return picture
    return resize(picture, max(1, round(width * scale)), max(1, round(height * scale)), "area")


def probe_candidate(sample: Sample, stages: Stages, galleries: dict[str, GalleryVectors]) -> ProbeCandidate | None:
    """Run the packed models on a crop; None if a prediction is wrong or its margin is too small."""
    gallery, embedder = galleries.get(sample.category), stages.embedders.get(sample.category)
    if gallery is None or embedder is None:
        return None
    picture = shrink(sample.crop(embedder.model.preprocess.crop_margin))
    whole: list[Box] = [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]
    confidence = 1.0
    if stages.classifier is not None:
        best = stages.classifier.rank_categories(stages.classifier.classify(picture, whole, Timings())[0])[0]
        if best.name != sample.category or best.score < _MIN_PROBABILITY:
            return None
        confidence = best.score
    vector = embedder.embed(picture, whole, Timings())[0]
    cosine = gallery.vectors @ vector
    items = np.asarray(gallery.items)
    others = cosine[items != sample.item]
    margin = float(cosine.max() - others.max()) if len(others) else 1.0
    if items[int(cosine.argmax())] != sample.item or margin < _MIN_MARGIN:
        return None
    return ProbeCandidate(sample, encode_image(picture, ".png"), vector, confidence * margin)


def choose_probes(
    samples: Sequence[Sample], stages: Stages, galleries: dict[str, GalleryVectors], kept: int = 0
) -> list[ProbeCandidate]:
    """Choose the crops of highest confidence, evenly over the categories and then over the items.

    Args:
        samples: crops to choose from.
        stages: the packed models.
        galleries: gallery of each category.
        kept: number of probes kept from the base bundle.

    Raises:
        QuantizeError: fewer than MIN_PROBES crops are predicted correctly.
    """
    by_category: dict[str, list[ProbeCandidate]] = defaultdict(list)
    for sample in samples:
        if candidate := probe_candidate(sample, stages, galleries):
            by_category[sample.category].append(candidate)
    for name, group in by_category.items():
        by_category[name] = _items_in_turn(sorted(group, key=lambda c: (-c.confidence, c.sample.name)))
    longest = max((len(group) for group in by_category.values()), default=0)
    chosen = [
        by_category[n][turn] for turn in range(longest) for n in sorted(by_category) if turn < len(by_category[n])
    ]
    if len(chosen) < MIN_PROBES - kept:
        raise QuantizeError(
            f"probes: {len(chosen)} of {len(samples)} held-out crops are predicted correctly with a margin, "
            f"expected at least {MIN_PROBES - kept}; give more crops, or pack with --no-probes"
        )
    return chosen[: max(MIN_PROBES, MAX_PROBES - kept)]


def _items_in_turn(ordered: list[ProbeCandidate]) -> list[ProbeCandidate]:
    """Reorder so that every item comes once before any item comes twice."""
    turn: dict[str, int] = defaultdict(int)
    keyed = []
    for candidate in ordered:
        keyed.append((turn[candidate.sample.item], candidate))
        turn[candidate.sample.item] += 1
    return [candidate for _, candidate in sorted(keyed, key=lambda pair: pair[0])]


def embedding_i8(vector: FloatArray) -> list[int]:
    """Return a vector as INT8: scaled so that its largest component is 127, rounded."""
    row = unit_rows(vector[None, :])[0]
    return [int(v) for v in np.rint(row * (127.0 / max(float(np.abs(row).max()), 1e-12)))]
