"""The predictions of one chain for every query picture: its categories, and its similarity to each gallery item."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dataset_formats.records import Sample
from edge.manifest.embedder import OpenSet
from edge.recognition.decision import SEARCHED_BESIDE, SEARCHED_BESIDE_RATIO, categories_to_search, decide
from edge.types import Category, FloatArray, Hit, Image
from trainer.data.pictures import is_plain
from trainer.evaluation.evaluation_set import EvaluationSet
from trainer.evaluation.model_chain import BatchFunction, ModelChain, read_images
from trainer.evaluation.open_set import QueryResult, certainty_of
from trainer.evaluation.reference_gallery import Ids, ReferenceGallery

_NEAREST_ITEMS = 5  # of a category, that a decision is made from
_ANY = OpenSet(threshold=-1.0, slope=1.0, midpoint=0.0)  # every nearest item counts


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of one chain."""

    queries: list[Sample]
    query_ids: Ids  # (queries,) which picture each query is
    probabilities: FloatArray | None  # (queries, labels); None: no classifier, the true category is given
    vectors: dict[
        str, dict[int, FloatArray]
    ]  # by category and number of the query; only queries embedded for the category
    references: Mapping[str, ReferenceGallery]  # by category
    latency_ms: list[float]  # time of the whole chain, picture by picture

    def of_category(self, category: str) -> tuple[list[int], FloatArray]:
        """Return the numbers of the queries of a category, and their vectors."""
        found = self.vectors.get(category, {})
        rows = [i for i in found if self.queries[i].category == category]
        return rows, np.stack([found[i] for i in rows]) if rows else np.zeros((0, 0), np.float32)


def predict_queries(
    chain: ModelChain, evaluation_set: EvaluationSet, references: Mapping[str, ReferenceGallery], timed: int = 30
) -> Predictions:
    """Classify every query and embed it: for its true category, and for those that a device would search.

    A picture that the gallery has, too, is not embedded again.

    Args:
        chain: the models to run.
        evaluation_set: its queries are run.
        references: its gallery of each category.
        timed: number of queries that are run one by one to measure the latency.

    Raises:
        CaptureError: a picture cannot be read any more.
        EngineError: a model cannot run.
    """
    queries = evaluation_set.queries
    probabilities = []
    vectors: dict[str, dict[int, FloatArray]] = {category: {} for category in chain.embed}
    known = _known_vectors(chain, evaluation_set, references)
    latency_ms: list[float] = []
    start = 0
    for images in read_images(queries, evaluation_set.trimmed, chain.crop_margin):
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
            keys = {i: (embed_batch, _key(evaluation_set, i)) for i in rows if wanted[i] & served}
            if new := [i for i, key in keys.items() if key not in known]:
                known |= zip((keys[i] for i in new), embed_batch([images[i - rows[0]] for i in new]), strict=True)
            for i, key in keys.items():
                for category in wanted[i] & served:
                    vectors[category][i] = known[key]
        if len(latency_ms) < timed:
            latency_ms += [_chain_ms(chain, image, references) for image in images[: timed - len(latency_ms)]]
    table = np.concatenate(probabilities) if probabilities else None
    return Predictions(list(queries), evaluation_set.query_ids, table, vectors, references, latency_ms)


_PictureKey = tuple[int, bool]  # which picture, and whether it shows one object on a plain background


def _known_vectors(
    chain: ModelChain, evaluation_set: EvaluationSet, references: Mapping[str, ReferenceGallery]
) -> dict[tuple[BatchFunction, _PictureKey], FloatArray]:
    """Return the vectors of gallery pictures that are embedded like a query, by embedder and picture."""
    known: dict[tuple[BatchFunction, _PictureKey], FloatArray] = {}
    for category, reference in references.items():
        if reference.ids is None:
            continue
        rows = reference.vectors if reference.unshrunk is None else reference.unshrunk
        samples = [sample for sample in evaluation_set.gallery if sample.category == category]
        for sample, number, vector in zip(samples, reference.ids.tolist(), rows, strict=True):
            plain = is_plain(sample, evaluation_set.trimmed)
            if not (plain and category in chain.embed_plain):
                known[chain.embed[category], (number, plain)] = vector
    return known


def _key(evaluation_set: EvaluationSet, query: int) -> _PictureKey:
    return int(evaluation_set.query_ids[query]), is_plain(evaluation_set.queries[query], evaluation_set.trimmed)


def query_results(predictions: Predictions, chain: ModelChain, left_out: set[str]) -> list[QueryResult]:
    """Decide every query as a device would, with some items left out of the gallery, and without its own picture."""
    results = []
    nearest_items = {category: _nearest_items(predictions, category, left_out) for category in predictions.references}
    for number, query in enumerate(predictions.queries):
        categories, everything = _categories(predictions, chain, number)
        found = {category.name: nearest_items.get(category.name, {}).get(number) for category in everything}
        hits = {name: listed for name, listed in found.items() if listed is not None}
        picture = int(predictions.query_ids[number])
        shown = any(reference.shows(query.item, picture) for reference in predictions.references.values())
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
                shown and query.item not in left_out,
                shipped.match.item_id if shipped.match else None,
                nearest.item_id if nearest else None,
                certainty_of(nearest, calibrated=chain.calibrated) if nearest else float("-inf"),
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


def _nearest_items(predictions: Predictions, category: str, left_out: set[str]) -> dict[int, list[Hit]]:
    """Return the nearest items of a category, best first, for each query that was embedded for it."""
    reference, of_query = predictions.references[category], predictions.vectors.get(category, {})
    rows = np.fromiter(of_query, np.int64, len(of_query))
    vectors = np.stack(list(of_query.values())) if of_query else np.zeros((0, 0), np.float32)
    dropped = np.array([name in left_out for name in reference.names], np.bool_)
    found = {}
    for chunk in reference.chunks(len(rows)):
        best = reference.best_by_item(reference.similar(vectors[chunk], predictions.query_ids[rows[chunk]]))
        best[:, dropped] = -np.inf
        for number, scores in zip(rows[chunk].tolist(), best, strict=True):
            near = [i for i in np.argsort(-scores, kind="stable")[:_NEAREST_ITEMS] if scores[i] > -np.inf]
            found[number] = [Hit(reference.names[i], reference.names[i], float(scores[i])) for i in near]
    return found


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
