"""A look at tracks: classify and embed their crops, fuse with the looks before, search, decide."""

from __future__ import annotations

from dataclasses import dataclass

from edge.recognition.decision import categories_to_search
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.track_evidence import TrackFeatures
from edge.recognition.tracker import Track
from edge.telemetry.timing import Timings
from edge.types import Category, FloatArray, Hit, Image


@dataclass(frozen=True, slots=True)
class TrackToEmbed:
    """A track that is worth a look in this frame."""

    track: Track
    evidence: TrackFeatures
    weight: float  # of the look, 0..1


@dataclass(frozen=True, slots=True)
class Outlined:
    """How many outlines were looked for, and found."""

    asked: int
    found: int


def look(models: LoadedModels, image_rgb: Image, due: list[TrackToEmbed], now_s: float, timings: Timings) -> Outlined:
    """Look at the due tracks, crops of one category in one batch, and decide anew on each.

    Returns:
        how many outlines were looked for, and how many of those were found.

    Raises:
        EngineError: a model failed; no look is counted.
    """
    searched, descriptors = _categories(models, image_rgb, due, timings)
    outlined = _outlines(models, image_rgb, due, searched, timings)
    hits: list[dict[str, list[Hit]]] = [{} for _ in due]
    embedders, indexes = models.stages.embedders, models.indexes
    for embedder in dict.fromkeys(embedders.values()):  # each once, however many categories it serves
        asked = [
            [c.name for c in categories if embedders.get(c.name) is embedder and c.name in indexes]
            for categories in searched
        ]
        rows = [i for i, found in enumerate(asked) if found]
        if not rows:
            continue
        described = None if descriptors is None else descriptors[rows]
        vectors = embedder.embed(image_rgb, [due[i].track.box_px for i in rows], timings, described)
        with timings.stage("search"):
            for i, vector in zip(rows, vectors, strict=True):
                for name in asked[i]:
                    fused = due[i].evidence.add_vector(name, vector, due[i].weight)
                    due[i].evidence.spaces[name] = embedder.model.space_id
                    hits[i] |= models.search({name: fused}, due[i].evidence.outline)
    for one, categories, found in zip(due, searched, hits, strict=True):
        one.evidence.note_look(one.track.box_px, now_s)
        one.evidence.categories, one.evidence.searched_in = tuple(categories), models.gallery_id
        one.evidence.decision = models.decide(categories, found)
    return outlined


def _outlines(
    models: LoadedModels, image_rgb: Image, due: list[TrackToEmbed], searched: list[list[Category]], timings: Timings
) -> Outlined:
    """Give the evidence of each track whose categories ask for it the outline of its object."""
    asked = [
        one
        for one, categories in zip(due, searched, strict=True)
        if models.wants_silhouette([category.name for category in categories])
    ]
    localiser = models.stages.localiser
    if localiser is None or not asked:
        return Outlined(0, 0)
    found = localiser.silhouettes(image_rgb, [one.track.box_px for one in asked], timings)
    for one, outline in zip(asked, found, strict=True):
        one.evidence.add_outline(outline, one.weight)
    return Outlined(len(asked), sum(outline is not None for outline in found))


def _categories(
    models: LoadedModels, image_rgb: Image, due: list[TrackToEmbed], timings: Timings
) -> tuple[list[list[Category]], FloatArray | None]:
    """The categories to search for each due track, and the classifier's descriptors, a row for each."""
    classifier = models.stages.classifier
    if classifier is None:  # the detector's label is the category; a single category needs no name
        only = list(models.stages.embedders)
        return [
            [Category(one.track.label if one.track.label in only or len(only) != 1 else only[0], 1.0)] for one in due
        ], None
    seen = classifier.classify_with_features(image_rgb, [one.track.box_px for one in due], timings)
    fused = [one.evidence.add_probabilities(row, one.weight) for one, row in zip(due, seen.probabilities, strict=True)]
    return [
        categories_to_search(classifier.name(row), models.category_threshold, models.stages.embedders)
        for row in fused
    ], seen.descriptors
