"""What one recogniser says of every query picture: its categories, and how near it is to each item of a gallery."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.manifest import OpenSet
from edge.recognition.decision import SEARCHED_BESIDE, SEARCHED_BESIDE_RATIO, categories_to_search, decide
from edge.types import Category, FloatArray, Hit, Image
from trainer.data.batches import Sample
from trainer.evaluation.model_chain import Recogniser, Reference, pictures
from trainer.evaluation.open_set import Verdict

_ANY = OpenSet(threshold=-1.0, slope=1.0, midpoint=0.0)  # every nearest item counts


@dataclass(frozen=True, slots=True)
class Heard:
    """The answers of one recogniser."""

    queries: list[Sample]
    probabilities: FloatArray | None  # (queries, labels); None: the true category is given
    vectors: dict[str, dict[int, FloatArray]]  # by category, of those queries that were embedded for it
    references: Mapping[str, Reference]  # by category
    items: dict[str, list[str]]  # by category, in the order of scores
    latency_ms: list[float]  # of a chain of its own, picture by picture

    def similar(self, category: str) -> tuple[list[int], FloatArray]:
        """The queries of a category, and their cosines with each row of its gallery."""
        rows = [
            i
            for i, query in enumerate(self.queries)
            if query.category == category and i in self.vectors.get(category, {})
        ]
        reference = self.references.get(category)
        if reference is None or not rows:
            return [], np.zeros((0, 0), np.float32)
        return rows, np.stack([self.vectors[category][i] for i in rows]) @ reference.vectors.T


def hear(
    recogniser: Recogniser, queries: Sequence[Sample], references: Mapping[str, Reference], timed: int = 30
) -> Heard:
    """Classify and embed every query: for its true category, and for those that a device would search.

    Args:
        recogniser: that is asked.
        queries: readable pictures.
        references: its gallery.
        timed: queries that are asked one by one for the latency.

    Raises:
        CaptureError: a picture cannot be read.
        EngineError: a model cannot be run.
    """
    probabilities = []
    vectors: dict[str, dict[int, FloatArray]] = {category: {} for category in recogniser.embed}
    latency_ms: list[float] = []
    start = 0
    for images in pictures(queries, (), 0.0):
        rows = range(start, start + len(images))
        start += len(images)
        row_of = recogniser.classify(images) if recogniser.classify else None
        if row_of is not None:
            probabilities.append(row_of)
        wanted: dict[int, set[str]] = {i: {queries[i].category} for i in rows}
        if row_of is not None:
            for i in rows:
                wanted[i] |= _likely(row_of[i - rows[0]], recogniser.labels)
        for ask in dict.fromkeys(recogniser.embed.values()):
            served = {category for category, other in recogniser.embed.items() if other is ask}
            chosen = [i for i in rows if wanted[i] & served]
            if not chosen:
                continue
            for i, vector in zip(chosen, ask([images[i - rows[0]] for i in chosen]), strict=True):
                for category in wanted[i] & served:
                    vectors[category][i] = vector
        if len(latency_ms) < timed:
            latency_ms += [_chain_ms(recogniser, image, references) for image in images[: timed - len(latency_ms)]]
    items = {category: sorted(set(reference.items)) for category, reference in references.items()}
    table = np.concatenate(probabilities) if probabilities else None
    return Heard(list(queries), table, vectors, references, items, latency_ms)


def verdicts(heard: Heard, recogniser: Recogniser, left_out: set[str]) -> list[Verdict]:
    """Answer every query as a device would, with some items out of the gallery."""
    answered = []
    listed = {item for names in heard.items.values() for item in names} - left_out
    best = {category: _best_by_item(heard, category) for category in heard.references}
    for number, query in enumerate(heard.queries):
        categories, everything = _categories(heard, recogniser, number)
        hits = {}
        for category in everything:
            scores = best.get(category.name, {}).get(number)
            if scores is not None:
                names = heard.items[category.name]
                near = [i for i in np.argsort(-scores, kind="stable")[: len(left_out) + 6] if names[i] not in left_out]
                hits[category.name] = [Hit(names[i], names[i], float(scores[i])) for i in near[:5]]
        shipped = decide(categories, hits, recogniser.open_sets, recogniser.threshold)
        rules = {
            name: rule.model_copy(update={"threshold": -1.0, "min_margin": 0.0})
            for name, rule in recogniser.open_sets.items()
        }
        nearest = decide(everything, hits, {name: rules.get(name, _ANY) for name in hits}).match
        probability = nearest.probability if nearest and recogniser.calibrated else None
        answered.append(
            Verdict(
                query.item,
                query.item in listed,
                shipped.match.item_id if shipped.match else None,
                nearest.item_id if nearest else None,
                (nearest.probability if recogniser.calibrated else nearest.score) if nearest else float("-inf"),
                probability,
            )
        )
    return answered


def _categories(heard: Heard, recogniser: Recogniser, number: int) -> tuple[list[Category], list[Category]]:
    """What a device searches for a query, and what it would search without a threshold."""
    if heard.probabilities is None:
        given = [Category(heard.queries[number].category, 1.0)]
        return given, given
    row = heard.probabilities[number]
    ranked = [Category(recogniser.labels[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:SEARCHED_BESIDE]]
    told, anyway = (categories_to_search(ranked, t, recogniser.embed) for t in (recogniser.threshold, 0.0))
    return told, anyway


def _likely(row: FloatArray, labels: Sequence[str]) -> set[str]:
    order = np.argsort(-row, kind="stable")[:SEARCHED_BESIDE]
    return {labels[i] for i in order if row[i] >= SEARCHED_BESIDE_RATIO * row[order[0]]}


def _best_by_item(heard: Heard, category: str) -> dict[int, FloatArray]:
    """For each query that was embedded for a category, the best cosine with each of its items."""
    found, reference = heard.vectors.get(category, {}), heard.references[category]
    if not found:
        return {}
    similar = np.stack(list(found.values())) @ reference.vectors.T
    of_row = np.searchsorted(heard.items[category], reference.items)
    best: NDArray[np.float32] = np.full((len(found), len(heard.items[category])), -1.0, np.float32)
    np.maximum.at(best.T, of_row, similar.T)
    return dict(zip(found, best, strict=True))


def _chain_ms(recogniser: Recogniser, image: Image, references: Mapping[str, Reference]) -> float:
    """Processor time to classify, embed for the likeliest category and search: other work beside it does not count."""
    started = time.process_time()
    category = next(iter(recogniser.embed))
    if recogniser.classify is not None:
        named = recogniser.labels[int(recogniser.classify([image])[0].argmax())]
        category = named if named in recogniser.embed else category
    vector = recogniser.embed[category]([image])[0]
    if category in references:
        (references[category].vectors @ vector).argmax()
    return (time.process_time() - started) * 1e3
