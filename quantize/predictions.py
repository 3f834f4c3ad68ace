"""Scores of held-out crops by the packed models, which open-set rules are fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge.gallery.item_vectors import augment_views, shrink_to_centroid
from edge.inference.stages import Embedder, Stages
from edge.recognition.decision import categories_to_search
from edge.silhouettes.rerank import RERANKED, GallerySilhouettes
from edge.telemetry.timing import Timings
from edge.types import Box, Category, FloatArray, Hit, Image, Silhouette
from quantize.choose_probes import GalleryVectors
from quantize.fit_thresholds import ScoredCrop
from quantize.pictures import Sample


def embed_galleries(samples: Sequence[Sample], stages: Stages) -> dict[str, GalleryVectors]:
    """Embed the gallery of each category as for a device, with the forms that ship.

    Raises:
        CaptureError: a crop cannot be read.
        EngineError: a model cannot run.
    """
    galleries = {}
    for category in sorted({sample.category for sample in samples}):
        embedder = stages.embedders[category]
        listed: dict[str, list[Sample]] = {}
        for sample in samples:
            if sample.category == category:
                listed.setdefault(sample.item, []).append(sample)
        rows: list[tuple[str, FloatArray]] = []
        for item, crops in listed.items():  # holds the pictures of one item at a time
            pictures = [sample.crop(embedder.model.preprocess.crop_margin) for sample in crops]
            rows += [(item, _vector(view, embedder)) for view in augment_views(pictures)]
        named = tuple(item for item, _ in rows)
        vectors = shrink_to_centroid(np.stack([row for _, row in rows]), named, embedder.model.gathering)
        galleries[category] = GalleryVectors(vectors, named)
    return galleries


def items_of(galleries: Mapping[str, GalleryVectors]) -> dict[str, list[str]]:
    """Return the items of each category, sorted."""
    return {category: sorted(set(gallery.items)) for category, gallery in galleries.items()}


def score_crops(
    samples: Sequence[Sample],
    stages: Stages,
    galleries: Mapping[str, GalleryVectors],
    silhouettes: Mapping[str, GallerySilhouettes] | None = None,
) -> list[ScoredCrop]:
    """Classify and embed each crop as a device would, and score every item of the likely categories.

    Args:
        samples: held-out crops.
        stages: loaded models of the bundle.
        galleries: gallery of each category.
        silhouettes: silhouettes of each category that uses them in the score.

    Raises:
        CaptureError: a crop cannot be read.
        EngineError: a model cannot run.
    """
    items = items_of(galleries)
    scored = []
    for sample in samples:
        categories = _categories(sample, stages)
        searched = [category.name for category in categories if category.name in galleries]
        vectors = {one: _embed(sample, one) for one in {stages.embedders[name] for name in searched}}
        scores = {
            name: best_score_by_item(vectors[stages.embedders[name]], galleries[name], items[name]) for name in searched
        }
        reranked = [name for name in searched if name in (silhouettes or {})]
        if silhouettes and reranked and (silhouette := _silhouette(sample, stages)) is not None:
            scores |= {n: rerank_scores(scores[n], items[n], silhouettes[n], silhouette) for n in reranked}
        scored.append(ScoredCrop(sample.item, categories, scores))
    return scored


def best_score_by_item(vector: FloatArray, gallery: GalleryVectors, items: Sequence[str]) -> FloatArray:
    """Return the best cosine of a unit vector with each item, (items,)."""
    position = {item: i for i, item in enumerate(items)}
    best = np.full(len(items), -1.0, np.float32)
    np.maximum.at(best, [position[item] for item in gallery.items], gallery.vectors @ vector)
    return best


def rerank_scores(
    scores: FloatArray, items: Sequence[str], silhouettes: GallerySilhouettes, silhouette: Silhouette
) -> FloatArray:
    """Fuse the best scores with the overlap of silhouettes, (items,); -1 for items that are not re-ranked."""
    best = [Hit(items[i], items[i], float(scores[i])) for i in np.argsort(-scores, kind="stable")[:RERANKED]]
    position = {item: i for i, item in enumerate(items)}
    fused = np.full(len(items), -1.0, np.float32)
    for hit in silhouettes.rerank(best, silhouette):
        fused[position[hit.item_id]] = hit.score
    return fused


def _silhouette(sample: Sample, stages: Stages) -> Silhouette | None:
    if stages.localiser is None:
        return None
    picture = sample.crop(stages.localiser.model.preprocess.crop_margin)
    return stages.localiser.silhouettes(picture, _whole(picture), Timings())[0]


def _categories(sample: Sample, stages: Stages) -> list[Category]:
    """Return the categories to search; without a classifier, the true one."""
    if stages.classifier is None:
        return [Category(sample.category, 1.0)]
    model = stages.classifier.model
    picture = sample.crop(model.preprocess.crop_margin)
    named = stages.classifier.rank_categories(stages.classifier.classify(picture, _whole(picture), Timings())[0])
    return categories_to_search(named, model.threshold, stages.embedders)


def _embed(sample: Sample, embedder: Embedder) -> FloatArray:
    return _vector(sample.crop(embedder.model.preprocess.crop_margin), embedder)


def _vector(picture: Image, embedder: Embedder) -> FloatArray:
    return np.asarray(embedder.embed(picture, _whole(picture), Timings())[0], np.float32)


def _whole(picture: Image) -> list[Box]:
    return [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]
