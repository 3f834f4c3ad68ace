"""The fused features of a track, and the step that updates them: classify, embed, search and decide on its crop."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge.inference.postprocess import unit_rows
from edge.recognition.decision import categories_to_search
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.tracker import Track
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Decision, FloatArray, Hit, Image, Silhouette

_OUTGROWN = 1.25  # a box this many times as wide or high as any embedded one shows more of the object than they did
_CONFIDENT_PROBABILITY = 0.95
_CONFIDENT_MARGIN = 0.1


@dataclass(slots=True)
class TrackFeatures:
    """The fused features of one track, from all its crops that were embedded."""

    embed_count: int = 0
    first_embedded_s: float = float("-inf")
    last_embedded_s: float = float("-inf")
    width_px: float = 0.0  # of the widest embedded box
    height_px: float = 0.0  # of the highest embedded box
    best_sharpness: float = 0.0  # of all crops, embedded or not
    best_area_px2: float = 0.0  # of all crops, embedded or not
    log_probabilities: FloatArray | None = None  # (labels,), weighted sum over crops
    weight: float = 0.0  # sum over crops
    vectors: dict[str, FloatArray] = field(default_factory=dict)  # category -> weighted sum of unit vectors
    space_ids: dict[str, str] = field(default_factory=dict)  # category -> embedding space of its vector
    silhouette: Silhouette | None = None  # of the crop with the greatest weight
    silhouette_weight: float = 0.0  # of that crop
    categories: tuple[Category, ...] = ()  # likely ones by the newest crop, best first
    gallery_id: str = ""  # the gallery generation that the newest crop was searched in
    decision: Decision | None = None  # newest
    published: Decision | None = None  # newest that subscribers received

    def add_probabilities(self, probabilities: FloatArray, weight: float) -> FloatArray:
        """Add one crop's category probabilities; return the fused ones: their weighted geometric mean."""
        log = np.asarray(np.log(np.maximum(probabilities, 1e-6)) * weight, np.float32)
        total = log if self.log_probabilities is None else self.log_probabilities + log
        self.log_probabilities = total
        self.weight += weight
        fused = np.exp(total / self.weight)
        return np.asarray(fused / fused.sum(), np.float32)

    def add_vector(self, category: str, vector: FloatArray, weight: float) -> FloatArray:
        """Add one crop's embedding for a category; return the fused unit vector."""
        self.vectors[category] = self.vectors.get(category, np.zeros_like(vector)) + weight * vector
        return self.fused(category)

    def add_silhouette(self, silhouette: Silhouette | None, weight: float) -> None:
        """Keep one crop's silhouette if no earlier one has more weight: silhouettes cannot be summed."""
        if silhouette is not None and weight >= self.silhouette_weight:
            self.silhouette, self.silhouette_weight = silhouette, weight

    def fused(self, category: str) -> FloatArray:
        """Return the unit vector of all crops that were embedded for a category."""
        return unit_rows(self.vectors[category])

    def count_embedding(self, box_px: Box, now_s: float) -> None:
        """Count one embedded crop."""
        self.first_embedded_s = self.first_embedded_s if self.embed_count else now_s
        self.last_embedded_s = now_s
        self.embed_count += 1
        self.width_px = max(self.width_px, box_px[2] - box_px[0])
        self.height_px = max(self.height_px, box_px[3] - box_px[1])

    def is_outgrown(self, box_px: Box) -> bool:
        """Return whether the box is now so much larger that the embedded crops may have shown only a part."""
        width_px, height_px = box_px[2] - box_px[0], box_px[3] - box_px[1]
        return self.embed_count > 0 and (width_px > _OUTGROWN * self.width_px or height_px > _OUTGROWN * self.height_px)

    def restart_count(self) -> None:
        """Make the track due for embedding like a new one; keep the features and add to them."""
        self.embed_count, self.first_embedded_s, self.last_embedded_s = 0, float("-inf"), float("-inf")

    def clear(self) -> None:
        """Drop the features; keep the newest and the published decision until the next embedding."""
        self.restart_count()
        self.width_px = self.height_px = self.best_sharpness = self.best_area_px2 = 0.0
        self.log_probabilities, self.weight, self.vectors, self.space_ids = None, 0.0, {}, {}
        self.silhouette, self.silhouette_weight = None, 0.0

    @property
    def is_confident(self) -> bool:
        """Whether the newest decision is a match that another embedding would hardly change."""
        match = self.decision.match if self.decision else None
        return match is not None and match.probability >= _CONFIDENT_PROBABILITY and match.margin >= _CONFIDENT_MARGIN


@dataclass(frozen=True, slots=True)
class TrackToEmbed:
    """A track to embed in this frame."""

    track: Track
    features: TrackFeatures
    weight: float  # of its crop, 0..1


@dataclass(frozen=True, slots=True)
class SilhouetteCounts:
    """How many crops the localiser ran on, and in how many it found a silhouette."""

    wanted: int
    found: int


def embed_tracks(
    models: LoadedModels, image_rgb: Image, to_embed: list[TrackToEmbed], now_s: float, timings: Timings
) -> SilhouetteCounts:
    """Classify and embed the crops of tracks, fuse, search and decide; crops of one category share a batch.

    Returns:
        how many silhouettes were wanted, and how many of those were found.

    Raises:
        EngineError: a model failed; no embedding is counted.
    """
    searched, descriptors = _classify(models, image_rgb, to_embed, timings)
    silhouettes = _locate(models, image_rgb, to_embed, searched, timings)
    hits: list[dict[str, list[Hit]]] = [{} for _ in to_embed]
    embedders, indexes = models.stages.embedders, models.indexes
    for embedder in dict.fromkeys(embedders.values()):  # each once: categories may share an embedder
        names = [
            [c.name for c in categories if embedders.get(c.name) is embedder and c.name in indexes]
            for categories in searched
        ]
        rows = [i for i, found in enumerate(names) if found]
        if not rows:
            continue
        described = None if descriptors is None else descriptors[rows]
        vectors = embedder.embed(image_rgb, [to_embed[i].track.box_px for i in rows], timings, described)
        with timings.stage("search"):
            for i, vector in zip(rows, vectors, strict=True):
                features = to_embed[i].features
                for name in names[i]:
                    fused = features.add_vector(name, vector, to_embed[i].weight)
                    features.space_ids[name] = embedder.model.space_id
                    hits[i] |= models.search({name: fused}, features.silhouette)
    for one, categories, found in zip(to_embed, searched, hits, strict=True):
        one.features.count_embedding(one.track.box_px, now_s)
        one.features.categories, one.features.gallery_id = tuple(categories), models.gallery_id
        one.features.decision = models.decide(categories, found)
    return silhouettes


def _classify(
    models: LoadedModels, image_rgb: Image, to_embed: list[TrackToEmbed], timings: Timings
) -> tuple[list[list[Category]], FloatArray | None]:
    """Return the categories to search for each track, and the classifier's descriptors, one row per track."""
    classifier = models.stages.classifier
    if classifier is None:  # the detector's label is the category; a single category needs no label
        known = list(models.stages.embedders)
        labels = [one.track.label for one in to_embed]
        names = [label if label in known or len(known) != 1 else known[0] for label in labels]
        return [[Category(name, 1.0)] for name in names], None
    output = classifier.classify_with_features(image_rgb, [one.track.box_px for one in to_embed], timings)
    fused = [
        one.features.add_probabilities(row, one.weight) for one, row in zip(to_embed, output.probabilities, strict=True)
    ]
    ranked = [classifier.rank_categories(row) for row in fused]
    threshold, embedders = models.category_threshold, models.stages.embedders
    return [categories_to_search(categories, threshold, embedders) for categories in ranked], output.descriptors


def _locate(
    models: LoadedModels,
    image_rgb: Image,
    to_embed: list[TrackToEmbed],
    searched: list[list[Category]],
    timings: Timings,
) -> SilhouetteCounts:
    """Add a silhouette to the features of each track for whose categories it counts."""
    wanted = [
        one
        for one, categories in zip(to_embed, searched, strict=True)
        if models.wants_silhouette([category.name for category in categories])
    ]
    localiser = models.stages.localiser
    if localiser is None or not wanted:
        return SilhouetteCounts(0, 0)
    found = localiser.silhouettes(image_rgb, [one.track.box_px for one in wanted], timings)
    for one, silhouette in zip(wanted, found, strict=True):
        one.features.add_silhouette(silhouette, one.weight)
    return SilhouetteCounts(len(wanted), sum(silhouette is not None for silhouette in found))
