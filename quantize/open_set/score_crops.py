"""Scores of pictures by the packed models, which open-set rules are fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.gallery.item_vectors import ENOUGH_PICTURES, augment_views
from edge.inference.stages import Embedder, Stages
from edge.recognition.decision import categories_to_search
from edge.silhouettes.rerank import RERANKED, GallerySilhouettes
from edge.telemetry.timing import Timings
from edge.types import Category, FloatArray, Hit, Image, Silhouette
from quantize.open_set.gallery_rule import GalleryRows
from quantize.open_set.leave_items_out import ScoredCrop
from quantize.pictures import Sample, map_in_threads
from quantize.probes.choose_probes import GalleryVectors
from quantize.run_forms import vector_of, whole


@dataclass(frozen=True, slots=True)
class KnownOutputs:
    """What the packed models made of some crops already, so that no crop runs twice."""

    probabilities: Mapping[Sample, FloatArray] = field(default_factory=dict)
    vectors: Mapping[Sample, FloatArray] = field(default_factory=dict)  # by the embedder of the crop's category


_NOTHING_KNOWN = KnownOutputs()


def embed_galleries(
    samples: Sequence[Sample], stages: Stages, known: KnownOutputs = _NOTHING_KNOWN
) -> dict[str, GalleryRows]:
    """Embed the gallery of each category as for a device, with the forms that ship.

    Raises:
        CaptureError: a crop cannot be read.
        EngineError: a model cannot run.
    """
    pictures: dict[tuple[str, str], list[int]] = {}
    for number, sample in enumerate(samples):
        pictures.setdefault((sample.category, sample.item), []).append(number)

    def embed(sample: Sample) -> list[FloatArray]:
        """Return the vector of a picture, and those of its views if its item has few pictures."""
        embedder = stages.embedders[sample.category]
        has_views = len(pictures[sample.category, sample.item]) < ENOUGH_PICTURES
        if sample in known.vectors and not has_views:
            return [known.vectors[sample]]
        picture = sample.crop(embedder.model.preprocess.crop_margin)
        views = augment_views([picture]) if has_views else [picture]
        return [vector_of(view, embedder, plain=sample.plain) for view in views]

    found = map_in_threads(embed, samples)
    galleries = {}
    for category in sorted({sample.category for sample in samples}):
        rows = [
            (vector, samples[number].item, number, view > 0)
            for (of, _), numbers in pictures.items()
            if of == category
            for number in numbers
            for view, vector in enumerate(found[number])
        ]
        vectors, items, numbers, views = zip(*rows, strict=True)
        galleries[category] = GalleryRows(np.stack(vectors), items, np.array(numbers), np.array(views))
    return galleries


def items_of(galleries: Mapping[str, GalleryVectors | GalleryRows]) -> dict[str, list[str]]:
    """Return the items of each category, sorted."""
    return {category: sorted(set(gallery.items)) for category, gallery in galleries.items()}


def score_crops(
    samples: Sequence[Sample],
    stages: Stages,
    galleries: Mapping[str, GalleryVectors],
    silhouettes: Mapping[str, GallerySilhouettes] | None = None,
    known: KnownOutputs = _NOTHING_KNOWN,
) -> list[ScoredCrop]:
    """Classify and embed each crop as a device would, and score every item of the likely categories.

    Args:
        samples: held-out crops.
        stages: loaded models of the bundle.
        galleries: gallery of each category.
        silhouettes: silhouettes of each category that uses them in the score.
        known: outputs that need not be computed again.

    Raises:
        CaptureError: a crop cannot be read.
        EngineError: a model cannot run.
    """
    items = items_of(galleries)

    def score(sample: Sample) -> ScoredCrop:
        pictures: dict[float, Image] = {}

        def crop(margin: float) -> Image:
            if margin not in pictures:
                pictures[margin] = sample.crop(margin)
            return pictures[margin]

        def embed(embedder: Embedder) -> FloatArray:
            if embedder is stages.embedders.get(sample.category) and sample in known.vectors:
                return known.vectors[sample]
            return vector_of(crop(embedder.model.preprocess.crop_margin), embedder)

        categories = searched_categories(sample.category, stages)
        if stages.classifier is not None:
            model = stages.classifier.model
            probabilities = known.probabilities.get(sample)
            if probabilities is None:
                picture = crop(model.preprocess.crop_margin)
                probabilities = stages.classifier.classify(picture, whole(picture), Timings())[0]
            ranked = stages.classifier.rank_categories(probabilities)
            categories = categories_to_search(ranked, model.threshold, stages.embedders)
        searched = [category.name for category in categories if category.name in galleries]
        vectors = {one: embed(one) for one in {stages.embedders[name] for name in searched}}
        scores = {
            name: best_score_by_item(vectors[stages.embedders[name]], galleries[name], items[name]) for name in searched
        }
        reranked = [name for name in searched if name in (silhouettes or {})]
        if silhouettes and reranked and stages.localiser is not None:
            picture = crop(stages.localiser.model.preprocess.crop_margin)
            silhouette = stages.localiser.silhouettes(picture, whole(picture), Timings())[0]
            if silhouette is not None:
                scores |= {n: rerank_scores(scores[n], items[n], silhouettes[n], silhouette) for n in reranked}
        return ScoredCrop(sample.category, sample.item, categories, scores)

    return map_in_threads(score, samples)


def searched_categories(true_category: str, stages: Stages) -> list[Category]:
    """Return the categories that a device without a classifier searches: all, unless its detector names one."""
    named_by_detector = stages.detector is not None and true_category in stages.detector.model.labels
    names = [true_category] if named_by_detector else list(stages.embedders)
    return [Category(name, 1.0) for name in names]


def best_score_by_item(vector: FloatArray, gallery: GalleryVectors, items: Sequence[str]) -> FloatArray:
    """Return the best cosine of a unit vector with each item of the gallery, sorted: (items,)."""
    best = np.full(len(items), -1.0, np.float32)
    np.maximum.at(best, gallery.columns, gallery.vectors @ vector)
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
