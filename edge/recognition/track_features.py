"""The fused features of a track, and the step that updates them: classify, embed, search and decide on its crop."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from edge.errors import NotLoadedError
from edge.imaging.pyramid import Pyramid, pyramid_of
from edge.inference.postprocess import unit_rows
from edge.inference.stages import Embedder
from edge.recognition.decision import categories_to_search
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.tracker import Track
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Decision, FloatArray, Image, Silhouette

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
    familiarity: float = 0.0  # weighted sum over crops of the sum of their probabilities, 1 for a familiar one
    vectors: dict[str, FloatArray] = field(default_factory=dict)  # embedding space -> weighted sum of unit vectors
    fresh: set[str] = field(default_factory=set)  # embedding spaces with a vector since the last counted embedding
    silhouette: Silhouette | None = None  # of the crop with the greatest weight
    silhouette_weight: float = 0.0  # of that crop
    categories: tuple[Category, ...] | None = ()  # likely ones by the newest crop, best first; None: any
    gallery_id: str = ""  # the gallery generation that the newest crop was searched in
    decision: Decision | None = None  # newest
    published: Decision | None = None  # newest that subscribers received

    def add_probabilities(self, probabilities: FloatArray, weight: float) -> FloatArray:
        """Add one crop's category probabilities; return the fused ones: their weighted geometric mean.

        They sum to 1, or to less where crops were unfamiliar, see edge.inference.stages.
        """
        log = np.asarray(np.log(np.maximum(probabilities, 1e-6)) * weight, np.float32)
        total = log if self.log_probabilities is None else self.log_probabilities + log
        self.log_probabilities = total
        self.weight += weight
        self.familiarity += weight * min(1.0, float(probabilities.sum()))
        fused = np.exp(total / self.weight)
        return np.asarray(fused / fused.sum() * (self.familiarity / self.weight), np.float32)

    def add_vector(self, space_id: str, vector: FloatArray, weight: float) -> None:
        """Add one crop's embedding of a space."""
        self.vectors[space_id] = self.vectors.get(space_id, np.zeros_like(vector)) + weight * vector
        self.fresh.add(space_id)

    def add_silhouette(self, silhouette: Silhouette | None, weight: float) -> None:
        """Keep one crop's silhouette if no earlier one has more weight: silhouettes cannot be summed."""
        if silhouette is not None and weight >= self.silhouette_weight:
            self.silhouette, self.silhouette_weight = silhouette, weight

    def fused(self) -> dict[str, FloatArray]:
        """Return the unit vector of all crops, by embedding space."""
        return {space_id: unit_rows(total) for space_id, total in self.vectors.items()}

    def count_embedding(self, box_px: Box, now_s: float) -> None:
        """Count one embedded crop."""
        self.first_embedded_s = self.first_embedded_s if self.embed_count else now_s
        self.last_embedded_s = now_s
        self.embed_count += 1
        self.fresh.clear()
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
        self.log_probabilities, self.weight, self.vectors, self.fresh = None, 0.0, {}, set()
        self.familiarity = 0.0
        self.silhouette, self.silhouette_weight = None, 0.0

    @property
    def is_confident(self) -> bool:
        """Whether the newest decision is a match that another embedding would hardly change."""
        match = self.decision.match if self.decision else None
        if match is None or match.probability is None:
            return False
        return match.probability >= _CONFIDENT_PROBABILITY and match.margin >= _CONFIDENT_MARGIN


@dataclass(frozen=True, slots=True)
class TrackToEmbed:
    """A track to embed in this frame."""

    track: Track
    features: TrackFeatures
    weight: float  # of its crop, 0..1


@dataclass(frozen=True, slots=True)
class EmbedCounts:
    """What became of the tracks to embed."""

    embedded: int
    waiting: int  # for a model that is being loaded: they stay due
    silhouettes_wanted: int  # crops that the localiser ran on
    silhouettes_found: int


def embed_tracks(
    models: LoadedModels,
    picture: Image | Pyramid,
    to_embed: list[TrackToEmbed],
    now_s: float,
    timings: Timings,
    *,
    wait: bool = True,
) -> EmbedCounts:
    """Classify and embed the crops of tracks, fuse, search and decide; crops of one category share a batch.

    Args:
        models: bundle and gallery.
        picture: the picture.
        to_embed: the tracks.
        now_s: time of the picture.
        timings: of the stages.
        wait: for models that are not loaded. False: they are loaded in the background, and tracks that need them wait.

    Raises:
        EngineError: a model failed; no embedding is counted. A model that cannot be loaded fails only its categories.
    """
    pyramid = pyramid_of(picture)
    searched, descriptors = _classify(models, pyramid, to_embed, timings)
    waiting: set[int] = set()
    unloadable: dict[int, set[Embedder]] = {}
    for embedder, rows in _rows_by_embedder(models, to_embed, searched).items():
        readiness = "ready" if wait else embedder.readiness()
        if readiness == "ready":
            try:
                described = None if descriptors is None else descriptors[rows]
                vectors = embedder.embed(pyramid, [to_embed[i].track.box_px for i in rows], timings, described)
            except NotLoadedError:
                readiness = "failed"
            else:
                for i, vector in zip(rows, vectors, strict=True):
                    to_embed[i].features.add_vector(embedder.model.space_id, vector, to_embed[i].weight)
        if readiness == "loading":
            waiting.update(rows)
        elif readiness == "failed":
            for i in rows:
                unloadable.setdefault(i, set()).add(embedder)
    done = [i for i in range(len(to_embed)) if i not in waiting]
    wanted, found = _locate(models, pyramid, [(to_embed[i], searched[i]) for i in done], timings)
    for i in done:
        features, categories = to_embed[i].features, searched[i]
        features.count_embedding(to_embed[i].track.box_px, now_s)
        features.categories = None if categories is None else tuple(categories)
        features.gallery_id = models.gallery_id
        with timings.stage("search"):
            features.decision = _decide(models, features, unloadable.get(i, set()))
    return EmbedCounts(len(done), len(waiting), wanted, found)


def _rows_by_embedder(
    models: LoadedModels, to_embed: list[TrackToEmbed], searched: list[list[Category] | None]
) -> dict[Embedder, list[int]]:
    """Return the tracks that each embedder is to embed: of its categories, and without its vector of this look."""
    rows: dict[Embedder, list[int]] = {}
    for i, found in enumerate(searched):
        names = models.indexes if found is None else [category.name for category in found]
        embedders = [models.stages.embedders.get(name) for name in names if name in models.indexes]
        for embedder in dict.fromkeys(embedders):  # each once: categories may share an embedder
            if embedder is not None and embedder.model.space_id not in to_embed[i].features.fresh:
                rows.setdefault(embedder, []).append(i)
    return rows


def _decide(models: LoadedModels, features: TrackFeatures, unloadable: Collection[Embedder]) -> Decision:
    """Search and decide; an object whose likeliest category has a model that cannot be loaded is not named."""
    lost = {embedder for embedder in unloadable if embedder.model.space_id not in features.vectors}
    best = features.categories[0] if features.categories else None
    if lost and (not features.vectors or (best is not None and models.stages.embedders.get(best.name) in lost)):
        return Decision(best, None, "not_looked_at")
    return models.identify(features.categories, features.fused(), features.silhouette)


def _classify(
    models: LoadedModels, picture: Pyramid, to_embed: list[TrackToEmbed], timings: Timings
) -> tuple[list[list[Category] | None], FloatArray | None]:
    """Return the categories to search for each track, None for all, and the classifier's descriptors, if any.

    Without a classifier, the detector's label is the category if items of it can be recognised.
    """
    classifier = models.stages.classifier
    if classifier is None:
        known = models.stages.embedders
        labels = [one.track.label for one in to_embed]
        return [[Category(label, 1.0)] if label in known else None for label in labels], None
    output = classifier.classify_with_features(picture, [one.track.box_px for one in to_embed], timings)
    fused = [
        one.features.add_probabilities(row, one.weight) for one, row in zip(to_embed, output.probabilities, strict=True)
    ]
    ranked = [classifier.rank_categories(row) for row in fused]
    threshold, embedders = models.category_threshold, models.stages.embedders
    return [categories_to_search(categories, threshold, embedders) for categories in ranked], output.descriptors


def _locate(
    models: LoadedModels,
    picture: Pyramid,
    embedded: list[tuple[TrackToEmbed, list[Category] | None]],
    timings: Timings,
) -> tuple[int, int]:
    """Add a silhouette to the features of each track for whose categories it counts.

    Returns:
        on how many crops the localiser ran, and in how many of them it found a silhouette.
    """
    wanted = [
        one
        for one, found in embedded
        if models.wants_silhouette(models.indexes if found is None else [category.name for category in found])
    ]
    localiser = models.stages.localiser
    if localiser is None or not wanted:
        return 0, 0
    silhouettes = localiser.silhouettes(picture, [one.track.box_px for one in wanted], timings)
    for one, silhouette in zip(wanted, silhouettes, strict=True):
        one.features.add_silhouette(silhouette, one.weight)
    return len(wanted), sum(silhouette is not None for silhouette in silhouettes)
