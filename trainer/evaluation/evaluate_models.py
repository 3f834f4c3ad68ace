"""Evaluation of model chains: every measure of every column, on the same pictures with the same items left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import TrainError
from edge.types import FloatArray
from trainer.class_metrics import map_by_label, mean_over_labels
from trainer.data.asked_splits import scenes_of_splits
from trainer.data.dataset import read_scenes
from trainer.data.pictures import load_pictures
from trainer.evaluation.evaluation_set import EvaluationSet
from trainer.evaluation.model_chain import ModelChain
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
from trainer.evaluation.reference_gallery import ReferenceGallery
from trainer.evaluation.retrieval import RECALL_AT, retrieve, retrieve_among_all
from trainer.evaluation.risk import RISKS, curve_of, named_wrongly, scores_and_errors
from trainer.evaluation.vehicles import vehicle_tables
from trainer.metrics import mean_over_classes, measured, per_class
from trainer.models.networks import load_model
from trainer.recipe_parts import LEAST_VISIBLE
from trainer.tasks.detector import measure_boxes, scene_canvases, validate_detector
from trainer.tasks.detector_labels import detect_in_scenes

log = logging.getLogger(__name__)
Table = dict[str, Any]
_TWIN = 0.999  # least cosine of a query and a stored vector of, perhaps, the same picture


@dataclass(frozen=True, slots=True)
class Column:
    """One chain and its results."""

    chain: ModelChain
    predictions: Predictions
    closed_set: list[QueryResult]  # results with the whole gallery
    open_set: list[QueryResult]  # results with some items left out of the gallery
    table: Table


def evaluate_chain(
    chain: ModelChain, references: Mapping[str, ReferenceGallery], evaluation_set: EvaluationSet
) -> Column:
    """Measure one chain on the evaluation set.

    Raises:
        CaptureError: a picture cannot be read.
        EngineError: a model cannot run.
    """
    predictions = predict_queries(chain, evaluation_set, references)
    closed_set = query_results(predictions, chain, set())
    open_set = query_results(predictions, chain, set(evaluation_set.left_out))
    stored = any(reference.ids is None for reference in references.values())
    table: Table = {"protocol": "stored gallery" if stored else evaluation_set.protocol}
    if predictions.probabilities is not None:
        table["coarse"] = _coarse(predictions, chain, evaluation_set.seed)
    found = _retrieved(predictions, references, closed_set, evaluation_set.seed)
    table |= {"categories": found.categories, "retrieval": found.pooled}
    if among_all := retrieve_among_all(chain.embed, predictions, references):
        table["retrieval_among_all"] = {name: measured(v, evaluation_set.seed) for name, v in among_all.items()}
    known = [one for one in closed_set if one.known]
    right = np.array([one.nearest == one.true_item for one in known], np.float64)
    table["end_to_end"] = {"top_1": measured(right, evaluation_set.seed)} if known else {}
    table["without_a_match"] = len(closed_set) - len(known)
    table["noticed"] = _noticed(found.fewest, found.twins, closed_set)
    for line in table["noticed"]:
        log.warning("%s: %s", chain.name, line)
    table |= vehicle_tables(predictions, references, evaluation_set.seed)
    table["open_world"] = _open_world(chain, closed_set, open_set, evaluation_set)
    table["latency_ms"] = {f"p{p}": float(np.percentile(predictions.latency_ms, p)) for p in (50, 95)}
    return Column(chain, predictions, closed_set, open_set, table)


def confusions(query_results: Sequence[QueryResult]) -> list[tuple[str, str, int]]:
    """Count the confusions, most frequent first: the true item, the nearest item, how often."""
    wrong = Counter((v.true_item, v.nearest) for v in query_results if v.known and v.nearest not in (None, v.true_item))
    return [(true_item, nearest or "", times) for (true_item, nearest), times in wrong.most_common()]


def evaluate_detector(folder: Path, scenes: Path, root: Path | None, asked: str | None) -> Table:
    """Measure a detector on every scene of a split: mAP50, mAP50-95, best F1.

    All labels count as one; a detector of several labels is measured item by item, too. Crowds, which COCO ignores,
    and objects that are mostly hidden are no true boxes: a detection on one counts as false, so that a detector scores
    no higher than by COCO's protocol.

    Args:
        folder: run folder of the detector.
        scenes: data set with boxes.
        root: folder that its paths are relative to.
        asked: splits, comma-separated; None: `val`, else `test`. A data set without splits is used as a whole.

    Raises:
        TrainError: model or data are missing or cannot be used.
    """
    module, card = load_model(folder)
    if card.kind != "detector":
        raise TrainError(f"{folder}: this is a {card.kind}; give the run folder of a detector")
    named = len(card.labels) > 1
    listed, names = read_scenes(scenes, root, least_visible=LEAST_VISIBLE, class_agnostic=not named)
    listed = scenes_of_splits(listed, asked, scenes)
    if not named:
        pictures = load_pictures(listed, None)
        measures = validate_detector(module, scene_canvases(pictures, card.preprocess), card)
        return {**measures, "unreadable": float(len(pictures.skipped))}
    found, truths, kept = detect_in_scenes(module, card, listed, names)
    once = [np.unique(one.boxes_px, axis=0) for one in truths]  # equal boxes, of whatever labels, are one object
    measures = measure_boxes([one.unlabelled for one in found], once)
    by_item = map_by_label(found, truths, card.labels)
    unreadable = float(len(listed) - len(kept))
    return {**measures, "unreadable": unreadable, **mean_over_labels(by_item), "by_item": by_item}


@dataclass(slots=True)
class _Retrieved:
    """What was retrieved in the gallery of each category."""

    categories: Table = field(default_factory=dict)  # measures by category; without those of no query
    pooled: Table = field(default_factory=dict)  # measures over the queries of all categories
    fewest: dict[str, int] = field(default_factory=dict)  # by category, fewest pictures that a query was searched among
    twins: dict[str, int] = field(default_factory=dict)  # by category, queries that seem to be in a stored gallery


def _retrieved(
    predictions: Predictions,
    references: Mapping[str, ReferenceGallery],
    closed_set: Sequence[QueryResult],
    seed: int,
) -> _Retrieved:
    done = _Retrieved()
    pooled: dict[str, list[NDArray[np.float64]]] = {}
    for category, reference in references.items():
        rows, vectors = predictions.of_category(category)
        found = retrieve(
            reference, vectors, [predictions.queries[i].item for i in rows], predictions.query_ids[np.array(rows, int)]
        )
        done.twins[category] = _count_twins(reference, vectors)
        if not found.measures:
            continue
        done.fewest[category] = found.fewest
        results = [closed_set[rows[place]] for place in found.kept]
        nearest_right = np.array([one.nearest == one.true_item for one in results], np.float64)
        done.categories[category] = {
            **{name: measured(values, seed) for name, values in found.measures.items()},
            "top_1_through_the_chain": measured(nearest_right, seed),
            "items": len(reference.names),
            "without_a_match": len(rows) - len(found.kept),
        }
        for name, values in found.measures.items():
            pooled.setdefault(name, []).append(values)
    done.pooled = {name: measured(np.concatenate(parts), seed) for name, parts in pooled.items()}
    return done


def _count_twins(reference: ReferenceGallery, vectors: FloatArray) -> int:
    """Count the queries that seem to be in a gallery that does not say what its pictures are."""
    if reference.ids is not None or not len(vectors):
        return 0
    stored = reference.vectors if reference.unshrunk is None else reference.unshrunk
    nearest = [(vectors[chunk] @ stored.T).max(axis=1) for chunk in reference.chunks(len(vectors))]
    return int((np.concatenate(nearest) >= _TWIN).sum())


def _noticed(fewest: Mapping[str, int], twins: Mapping[str, int], results: Sequence[QueryResult]) -> list[str]:
    """Return what deserves a look.

    Args:
        fewest: by category, the fewest pictures that a query was searched among.
        twins: by category, the queries that seem to be in a stored gallery.
        results: results with the whole gallery.
    """
    lines = []
    if small := {name: count for name, count in fewest.items() if count < max(RECALL_AT)}:
        lines.append(
            f"Recall@K up to K = {max(RECALL_AT)} is capped at the number of gallery pictures that a query is searched "
            f"among: {_listed(small)}"
        )
    if any(twins.values()):
        lines.append(
            "query pictures seem to be in the stored gallery, too, which does not name its pictures: "
            f"{_listed(twins)}; without --bundle-gallery, a query's own picture is no answer"
        )
    if alone := sum(not one.known for one in results):
        lines.append(
            f"{alone} of {len(results)} query pictures have no other picture of their item in the gallery; they are "
            "left out of the shares of right items"
        )
    return lines


def _listed(counts: Mapping[str, int], first: int = 5) -> str:
    shown = [f"{name} {count}" for name, count in counts.items() if count][:first]
    more = sum(count > 0 for count in counts.values()) - len(shown)
    return ", ".join(shown) + (f", and {more} more categories" if more else "")


def _coarse(predictions: Predictions, chain: ModelChain, seed: int) -> Table:
    if predictions.probabilities is None:
        return {}
    named = [chain.labels[i] for i in predictions.probabilities.argmax(axis=1)]
    true = [sample.category for sample in predictions.queries]
    right = np.array([a == b for a, b in zip(named, true, strict=True)], np.float64)
    pairs = Counter(zip(true, named, strict=True))
    matrix = {a: {b: pairs[a, b] for b in sorted(set(named)) if pairs[a, b]} for a in sorted(set(true))}
    table = per_class(named, true)
    means = {"mean_over_classes": mean_over_classes(table)}
    return {"accuracy": measured(right, seed), "per_class": table, "confusion": matrix} | means


def _open_world(
    chain: ModelChain, closed_set: Sequence[QueryResult], open_set: Sequence[QueryResult], evaluation_set: EvaluationSet
) -> Table:
    known, unknown = ([v for v in open_set if v.known == in_gallery] for in_gallery in (True, False))
    scores, wrong = scores_and_errors(open_set)
    bins, curve = reliability(open_set), curve_of(scores, wrong)
    table: Table = {
        "items_left_out": len(evaluation_set.left_out),
        "known": len(known),
        "unknown": len(unknown),
        "unreadable": len(evaluation_set.skipped),
        "auroc": _resampled(len(open_set), lambda rows: separation([open_set[i] for i in rows]), evaluation_set.seed),
        **{
            f"identified_at_far_{rate:g}": measured(identified_at(open_set, rate), evaluation_set.seed)
            for rate in (FALSE_ACCEPT_RATES if unknown else ())
        },
        "aurc": _resampled(len(open_set), lambda rows: curve_of(scores[rows], wrong[rows]).area, evaluation_set.seed),
        "excess_aurc": _resampled(
            len(open_set), lambda rows: curve_of(scores[rows], wrong[rows]).excess, evaluation_set.seed
        ),
        **{f"coverage_at_risk_{risk:g}": curve.coverage_at(risk) for risk in RISKS},
        "risk_coverage": curve.points(),
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
            "identified": measured(identified, evaluation_set.seed),
            "false_accept_rate": measured(accepted, evaluation_set.seed),
            "risk": measured(named_wrongly(open_set), evaluation_set.seed),
            "expected_calibration_error": _resampled(
                len(open_set),
                lambda rows: calibration_error_of(reliability([open_set[i] for i in rows])),
                evaluation_set.seed,
            ),
            "reliability": bins,
        }
    return table


def _resampled(count: int, measure: Callable[[NDArray[np.int64]], float], seed: int) -> Table:
    """Compute a measure of all pictures together, given by their numbers, with its bootstrap interval over pictures."""
    rng = np.random.default_rng(seed)
    draws = [measure(rng.integers(count, size=count)) for _ in range(200)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": measure(np.arange(count)), "interval": [float(low), float(high)], "count": count}
