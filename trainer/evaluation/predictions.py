"""The predictions of one chain for every query picture: its categories, and its similarity to each gallery item."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset_formats.records import Sample
from edge.manifest import OpenSet
from edge.recognition.decision import SEARCHED_BESIDE, SEARCHED_BESIDE_RATIO, categories_to_search, decide
from edge.types import Category, FloatArray, Hit, Image
from trainer.evaluation.model_chain import ModelChain, ReferenceGallery, read_images
from trainer.evaluation.open_set import QueryResult

_ANY = OpenSet(threshold=-1.0, slope=1.0, midpoint=0.0)  # every nearest item counts


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of one chain."""

    queries: list[Sample]
    probabilities: FloatArray | None  # (queries, labels); None: no classifier, the true category is given
    vectors: dict[
        str, dict[int, FloatArray]
    ]  # by category and number of the query; only queries embedded for the category
    references: Mapping[str, ReferenceGallery]  # by category
    items: dict[str, list[str]]  # items of each category, in the order of the scores
    latency_ms: list[float]  # time of the whole chain, picture by picture

    def similar(self, category: str) -> tuple[list[int], FloatArray]:
        """Return the queries of a category, and their cosines with each row of its gallery."""
        rows = [
            i
            for i, query in enumerate(self.queries)
            if query.category == category and i in self.vectors.get(category, {})
        ]
        reference = self.references.get(category)
        if reference is None or not rows:
            return [], np.zeros((0, 0), np.float32)
        return rows, np.stack([self.vectors[category][i] for i in rows]) @ reference.vectors.T


def predict_queries(
    chain: ModelChain, queries: Sequence[Sample], references: Mapping[str, ReferenceGallery], timed: int = 30
) -> Predictions:
    """Classify every query and embed it: for its true category, and for those that a device would search.

    Args:
        chain: the models to run.
        queries: pictures that can be read.
        references: its gallery of each category.
        timed: number of queries that are run one by one to measure the latency.

    Raises:
        CaptureError: a picture cannot be read.
        EngineError: a model cannot run.
    """
    probabilities = []
    vectors: dict[str, dict[int, FloatArray]] = {category: {} for category in chain.embed}
    latency_ms: list[float] = []
    start = 0
    for images in read_images(queries, (), 0.0):
        rows = range(start, start + len(images))
        start += len(images)
        rows_of_chunk = chain.classify(images) if chain.classify else None
        if rows_of_chunk is not None:
            probabilities.append(rows_of_chunk)
        wanted: dict[int, set[str]] = {i: {queries[i].category} for i in rows}
        if rows_of_chunk is not None:
            for i in rows:
                wanted[i] |= _likely_categories(rows_of_chunk[i - rows[0]], chain.labels)
        for embed_batch in dict.fromkeys(chain.embed.values()):
            served = {category for category, other in chain.embed.items() if other is embed_batch}
            chosen = [i for i in rows if wanted[i] & served]
            if not chosen:
                continue
            for i, vector in zip(chosen, embed_batch([images[i - rows[0]] for i in chosen]), strict=True):
                for category in wanted[i] & served:
                    vectors[category][i] = vector
        if len(latency_ms) < timed:
            latency_ms += [_chain_ms(chain, image, references) for image in images[: timed - len(latency_ms)]]
    items = {category: sorted(set(reference.items)) for category, reference in references.items()}
    table = np.concatenate(probabilities) if probabilities else None
    return Predictions(list(queries), table, vectors, references, items, latency_ms)


def query_results(predictions: Predictions, chain: ModelChain, left_out: set[str]) -> list[QueryResult]:
    """Decide every query as a device would, with some items left out of the gallery."""
    results = []
    listed = {item for names in predictions.items.values() for item in names} - left_out
    best = {category: _best_by_item(predictions, category) for category in predictions.references}
    for number, query in enumerate(predictions.queries):
        categories, everything = _categories(predictions, chain, number)
        hits = {}
        for category in everything:
            scores = best.get(category.name, {}).get(number)
            if scores is not None:
                names = predictions.items[category.name]
                near = [i for i in np.argsort(-scores, kind="stable")[: len(left_out) + 6] if names[i] not in left_out]
                hits[category.name] = [Hit(names[i], names[i], float(scores[i])) for i in near[:5]]
        shipped = decide(categories, hits, chain.open_sets, chain.category_threshold)
        rules = {
            name: rule.model_copy(update={"threshold": -1.0, "min_margin": 0.0})
            for name, rule in chain.open_sets.items()
        }
        nearest = decide(everything, hits, {name: rules.get(name, _ANY) for name in hits}).match
        probability = nearest.probability if nearest and chain.calibrated else None
        results.append(
            QueryResult(
                query.item,
                query.item in listed,
                shipped.match.item_id if shipped.match else None,
                nearest.item_id if nearest else None,
                (nearest.probability if chain.calibrated else nearest.score) if nearest else float("-inf"),
                probability,
            )
        )
    return results


def _categories(predictions: Predictions, chain: ModelChain, number: int) -> tuple[list[Category], list[Category]]:
    """Return the categories that a device searches for a query, and those it would search without a threshold."""
    if predictions.probabilities is None:
        given = [Category(predictions.queries[number].category, 1.0)]
        return given, given
    row = predictions.probabilities[number]
    ranked = [Category(chain.labels[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:SEARCHED_BESIDE]]
    searched, anyway = (categories_to_search(ranked, t, chain.embed) for t in (chain.category_threshold, 0.0))
    return searched, anyway


def _likely_categories(row: FloatArray, labels: Sequence[str]) -> set[str]:
    order = np.argsort(-row, kind="stable")[:SEARCHED_BESIDE]
    return {labels[i] for i in order if row[i] >= SEARCHED_BESIDE_RATIO * row[order[0]]}


def _best_by_item(predictions: Predictions, category: str) -> dict[int, FloatArray]:
    """Return for each query that was embedded for a category the best cosine with each of its items."""
    found, reference = predictions.vectors.get(category, {}), predictions.references[category]
    if not found:
        return {}
    similar = np.stack(list(found.values())) @ reference.vectors.T
    of_row = np.searchsorted(predictions.items[category], reference.items)
    best: NDArray[np.float32] = np.full((len(found), len(predictions.items[category])), -1.0, np.float32)
    np.maximum.at(best.T, of_row, similar.T)
    return dict(zip(found, best, strict=True))


def _chain_ms(chain: ModelChain, image: Image, references: Mapping[str, ReferenceGallery]) -> float:
    """Measure the processor time to classify, embed for the likeliest category and search."""
    started = time.process_time()
    category = next(iter(chain.embed))
    if chain.classify is not None:
        named = chain.labels[int(chain.classify([image])[0].argmax())]
        category = named if named in chain.embed else category
    vector = chain.embed[category]([image])[0]
    if category in references:
        (references[category].vectors @ vector).argmax()
    return (time.process_time() - started) * 1e3
