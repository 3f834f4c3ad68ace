"""Evaluation of model chains: every measure of every column, on the same pictures with the same items left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_formats.records import Sample
from edge.errors import CaptureError, TrainError
from edge.imaging.image import read_image
from trainer.data.dataset import choose, read_samples, read_scenes
from trainer.data.pictures import load_pictures
from trainer.evaluation.model_chain import ModelChain, ReferenceGallery
from trainer.evaluation.open_set import (
    FALSE_ACCEPT_RATES,
    QueryResult,
    calibration_error_of,
    identified_at,
    outcomes,
    reliability,
    separation,
)
from trainer.evaluation.predictions import Predictions, predict_queries, query_results
from trainer.metrics import average_precision_at, bootstrap, map_at_r, per_class, precision_at, r_precision, recall_at
from trainer.models.networks import load_model
from trainer.recipe import LEAST_VISIBLE
from trainer.tasks.detector import scene_canvases, validate_detector

log = logging.getLogger(__name__)
Table = dict[str, Any]
Measures = dict[str, NDArray[np.float64]]  # values of each picture, by name of the measure
NEAREST = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The pictures that every chain is evaluated on."""

    queries: list[Sample]
    skipped: list[str]  # pictures that cannot be read
    gallery: list[Sample]
    left_out: frozenset[str]  # items left out of the gallery, so that they are unknown
    trimmed: tuple[str, ...] = ("catalogue",)  # splits whose pictures show one object on a plain background
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """One chain and its results."""

    chain: ModelChain
    predictions: Predictions
    closed_set: list[QueryResult]  # results with the whole gallery
    open_set: list[QueryResult]  # results with some items left out of the gallery
    table: Table


def load_evaluation_set(
    index: Path, root: Path | None, query: str, gallery: str, *, share: float, seed: int
) -> EvaluationSet:
    """Choose the query pictures, the gallery pictures, and the items to leave out.

    Args:
        index: data set, see trainer.data.dataset.read_samples.
        root: folder that its paths are relative to.
        query: split of the pictures to recognise.
        gallery: splits of the gallery pictures, comma-separated.
        share: share of the items to leave out of the gallery.
        seed: seed of the random draw.

    Raises:
        TrainError: the data are missing, or a split has no picture.
    """
    samples = read_samples(index, root)
    queries, known = choose(samples, [query]), choose(samples, gallery.split(","))
    for split, found in (query, queries), (gallery, known):
        if not found:
            raise TrainError(f"{index}: no picture belongs to split {split!r}; check --query and --gallery")
    readable, skipped = [], []
    for sample in queries:
        try:
            read_image(sample.path)
            readable.append(sample)
        except CaptureError as error:
            log.warning("skipped %s", error)
            skipped.append(str(error))
    catalogue = sorted({sample.item for sample in known})
    count = min(round(share * len(catalogue)), len(catalogue) - 1)
    left = np.random.default_rng(seed).choice(catalogue, count, replace=False).tolist()
    return EvaluationSet(readable, skipped, known, frozenset(left), seed=seed)


def evaluate_chain(
    chain: ModelChain, references: Mapping[str, ReferenceGallery], evaluation_set: EvaluationSet
) -> Column:
    """Measure one chain on the evaluation set.

    Raises:
        CaptureError: a picture cannot be read.
        EngineError: a model cannot run.
    """
    predictions = predict_queries(chain, evaluation_set.queries, references)
    closed_set = query_results(predictions, chain, set())
    open_set = query_results(predictions, chain, set(evaluation_set.left_out))
    table: Table = {"categories": {}}
    if predictions.probabilities is not None:
        table["coarse"] = _coarse(predictions, chain, evaluation_set.seed)
    pooled: dict[str, list[NDArray[np.float64]]] = {}
    for category in references:
        rows, measures = _retrieval(predictions, category)
        if not rows:
            continue
        nearest_right = np.array([closed_set[i].nearest == closed_set[i].true_item for i in rows], np.float64)
        table["categories"][category] = {
            **{name: _measure(values, evaluation_set.seed) for name, values in measures.items()},
            "top_1_through_the_chain": _measure(nearest_right, evaluation_set.seed),
            "items": len(predictions.items[category]),
        }
        for name, values in measures.items():
            pooled.setdefault(name, []).append(values)
    table["retrieval"] = {name: _measure(np.concatenate(parts), evaluation_set.seed) for name, parts in pooled.items()}
    right = np.array([one.nearest == one.true_item for one in closed_set], np.float64)
    table["end_to_end"] = {"top_1": _measure(right, evaluation_set.seed)}
    table["open_world"] = _open_world(chain, closed_set, open_set, evaluation_set)
    table["latency_ms"] = {f"p{p}": float(np.percentile(predictions.latency_ms, p)) for p in (50, 95)}
    return Column(chain, predictions, closed_set, open_set, table)


def confusions(query_results: Sequence[QueryResult]) -> list[tuple[str, str, int]]:
    """Count the confusions, most frequent first: the true item, the nearest item, how often."""
    wrong = Counter((v.true_item, v.nearest) for v in query_results if v.known and v.nearest not in (None, v.true_item))
    return [(true_item, nearest or "", times) for (true_item, nearest), times in wrong.most_common()]


def evaluate_detector(folder: Path, scenes: Path, root: Path | None, split: str) -> Table:
    """Measure a detector on every scene of a split: mAP50, mAP50-95, best F1.

    Raises:
        TrainError: model or data are missing or cannot be used.
    """
    module, card = load_model(folder)
    if card.kind != "detector":
        raise TrainError(f"{folder}: this is a {card.kind}; give the run folder of a detector")
    listed, _ = read_scenes(scenes, root, [split], least_visible=LEAST_VISIBLE)
    return dict(validate_detector(module, scene_canvases(load_pictures(listed, None), card.preprocess), card))


def _retrieval(predictions: Predictions, category: str) -> tuple[list[int], Measures]:
    """Return the retrieval measures in the gallery of the true category, and the queries whose item it holds."""
    rows, similar = predictions.similar(category)
    listed = set(predictions.items[category])
    kept = [place for place, i in enumerate(rows) if predictions.queries[i].item in listed]
    rows = [rows[place] for place in kept]
    if not rows:
        return [], {}
    search = (similar[kept], [predictions.queries[i].item for i in rows], predictions.references[category].items)
    measures = {f"recall_at_{k}": recall_at(*search, k) for k in NEAREST}
    for k in NEAREST[1:]:
        measures[f"precision_at_{k}"] = precision_at(*search, k)
        measures[f"map_at_{k}_per_hits"] = average_precision_at(*search, k, per="hits")
        measures[f"map_at_{k}_per_possible"] = average_precision_at(*search, k, per="possible")
    return rows, measures | {"map_at_r": map_at_r(*search), "r_precision": r_precision(*search)}


def _coarse(predictions: Predictions, chain: ModelChain, seed: int) -> Table:
    if predictions.probabilities is None:
        return {}
    named = [chain.labels[i] for i in predictions.probabilities.argmax(axis=1)]
    true = [sample.category for sample in predictions.queries]
    right = np.array([a == b for a, b in zip(named, true, strict=True)], np.float64)
    pairs = Counter(zip(true, named, strict=True))
    matrix = {a: {b: pairs[a, b] for b in sorted(set(named)) if pairs[a, b]} for a in sorted(set(true))}
    return {"accuracy": _measure(right, seed), "per_class": per_class(named, true), "confusion": matrix}


def _open_world(
    chain: ModelChain, closed_set: Sequence[QueryResult], open_set: Sequence[QueryResult], evaluation_set: EvaluationSet
) -> Table:
    known, unknown = ([v for v in open_set if v.known == in_gallery] for in_gallery in (True, False))
    bins = reliability(open_set)
    table: Table = {
        "items_left_out": len(evaluation_set.left_out),
        "known": len(known),
        "unknown": len(unknown),
        "unreadable": len(evaluation_set.skipped),
        "auroc": _resampled(open_set, separation, evaluation_set.seed),
        **{
            f"identified_at_far_{rate:g}": _measure(identified_at(open_set, rate), evaluation_set.seed)
            for rate in (FALSE_ACCEPT_RATES if unknown else ())
        },
    }
    if chain.calibrated:
        accepted = np.array([v.predicted_item is not None for v in unknown], np.float64)
        identified = np.array([v.outcome == "identified" for v in known], np.float64)
        table |= {
            "at_shipped_thresholds": {
                "known": outcomes(open_set, known=True),
                "unknown": outcomes(open_set, known=False),
                "nothing_left_out": outcomes(closed_set, known=True),
            },
            "identified": _measure(identified, evaluation_set.seed),
            "false_accept_rate": _measure(accepted, evaluation_set.seed),
            "expected_calibration_error": _resampled(
                open_set, lambda some: calibration_error_of(reliability(some)), evaluation_set.seed
            ),
            "reliability": bins,
        }
    return table


def _resampled(listed: Sequence[QueryResult], measure: Callable[[Sequence[QueryResult]], float], seed: int) -> Table:
    """Compute a measure of all pictures together, with its bootstrap interval over pictures."""
    rng = np.random.default_rng(seed)
    draws = [measure([listed[i] for i in rng.integers(len(listed), size=len(listed))]) for _ in range(200)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": measure(listed), "interval": [float(low), float(high)], "count": len(listed)}


def _measure(values: NDArray[np.float64], seed: int) -> Table:
    mean = float(values.mean()) if len(values) else 0.0
    return {"mean": mean, "interval": list(bootstrap(values, seed)), "count": len(values)}
