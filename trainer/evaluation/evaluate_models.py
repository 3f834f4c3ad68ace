"""Examination of models: every measure of every column, on the same pictures with the same items left out."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import CaptureError, TrainError
from edge.imaging.image import read_image
from trainer.data.batches import Sample, choose, load_pictures, read_samples, read_scenes
from trainer.evaluation.model_chain import Recogniser, Reference
from trainer.evaluation.open_set import (
    SHARES,
    Verdict,
    calibration_error_of,
    identified_at,
    outcomes,
    reliability,
    separation,
)
from trainer.evaluation.predictions import Heard, hear, verdicts
from trainer.metrics import average_precision_at, bootstrap, map_at_r, per_class, precision_at, r_precision, recall_at
from trainer.models.networks import load_model
from trainer.recipe import LEAST_VISIBLE
from trainer.tasks.detector import examine, place_scenes

log = logging.getLogger(__name__)
Table = dict[str, Any]
Measures = dict[str, NDArray[np.float64]]  # by name, one value for each picture
NEAREST = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of every column."""

    queries: list[Sample]
    skipped: list[str]  # pictures that cannot be read
    gallery: list[Sample]
    left_out: frozenset[str]  # items taken out of the gallery, to be unknown
    trimmed: tuple[str, ...] = ("catalogue",)  # splits whose pictures show one object on a plain ground
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """One recogniser and all it was found to do."""

    recogniser: Recogniser
    heard: Heard
    closed: list[Verdict]  # with the whole gallery
    open: list[Verdict]  # with items left out of it
    table: Table


def put(index: Path, root: Path | None, query: str, gallery: str, *, share: float, seed: int) -> Question:
    """Choose the pictures, and the items that are left out.

    Args:
        index: data set, see trainer.data.batches.read_samples.
        root: of its paths.
        query: split of the pictures to recognise.
        gallery: split of the pictures to recognise them by, comma between several.
        share: of the items, left out of the gallery.
        seed: of the draw.

    Raises:
        TrainError: the data are missing, or a split has no picture.
    """
    samples = read_samples(index, root)
    queries, known = choose(samples, [query]), choose(samples, gallery.split(","))
    for split, found in (query, queries), (gallery, known):
        if not found:
            raise TrainError(f"{index}: found no picture of split {split!r}, expected some")
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
    return Question(readable, skipped, known, frozenset(left), seed=seed)


def assess(recogniser: Recogniser, references: Mapping[str, Reference], question: Question) -> Column:
    """Ask one recogniser every question there is.

    Raises:
        CaptureError: a picture cannot be read.
        EngineError: a model cannot be run.
    """
    heard = hear(recogniser, question.queries, references)
    closed = verdicts(heard, recogniser, set())
    opened = verdicts(heard, recogniser, set(question.left_out))
    table: Table = {"categories": {}}
    if heard.probabilities is not None:
        table["coarse"] = _coarse(heard, recogniser, question.seed)
    pooled: dict[str, list[NDArray[np.float64]]] = {}
    for category in references:
        rows, measures = _retrieval(heard, category)
        if not rows:
            continue
        chain = np.array([closed[i].nearest == closed[i].shown for i in rows], np.float64)
        table["categories"][category] = {
            **{name: _measure(values, question.seed) for name, values in measures.items()},
            "top_1_through_the_chain": _measure(chain, question.seed),
            "items": len(heard.items[category]),
        }
        for name, values in measures.items():
            pooled.setdefault(name, []).append(values)
    table["retrieval"] = {name: _measure(np.concatenate(parts), question.seed) for name, parts in pooled.items()}
    right = np.array([one.nearest == one.shown for one in closed], np.float64)
    table["end_to_end"] = {"top_1": _measure(right, question.seed)}
    table["open_world"] = _open_world(recogniser, closed, opened, question)
    table["latency_ms"] = {f"p{p}": float(np.percentile(heard.latency_ms, p)) for p in (50, 95)}
    return Column(recogniser, heard, closed, opened, table)


def confusions(verdicts: Sequence[Verdict]) -> list[tuple[str, str, int]]:
    """What was most often taken for what: the item shown, the item it was nearest to, how often."""
    wrong = Counter((v.shown, v.nearest) for v in verdicts if v.known and v.nearest not in (None, v.shown))
    return [(shown, nearest or "", times) for (shown, nearest), times in wrong.most_common()]


def assess_detector(folder: Path, scenes: Path, root: Path | None, split: str) -> Table:
    """Find the objects of every scene of a split: mAP50, mAP50-95, best F1.

    Raises:
        TrainError: model or data are missing or unusable.
    """
    module, card = load_model(folder)
    if card.kind != "detector":
        raise TrainError(f"{folder}: found a {card.kind}, expected a detector")
    listed, _ = read_scenes(scenes, root, [split], least_visible=LEAST_VISIBLE)
    return dict(examine(module, place_scenes(load_pictures(listed, None), card.preprocess), card))


def _retrieval(heard: Heard, category: str) -> tuple[list[int], Measures]:
    """Every measure of retrieval among the gallery of the true category; of items it does not have, none."""
    rows, similar = heard.similar(category)
    listed = set(heard.items[category])
    kept = [place for place, i in enumerate(rows) if heard.queries[i].item in listed]
    rows = [rows[place] for place in kept]
    if not rows:
        return [], {}
    ask = (similar[kept], [heard.queries[i].item for i in rows], heard.references[category].items)
    measures = {f"recall_at_{k}": recall_at(*ask, k) for k in NEAREST}
    for k in NEAREST[1:]:
        measures[f"precision_at_{k}"] = precision_at(*ask, k)
        measures[f"map_at_{k}_per_hits"] = average_precision_at(*ask, k, per="hits")
        measures[f"map_at_{k}_per_possible"] = average_precision_at(*ask, k, per="possible")
    return rows, measures | {"map_at_r": map_at_r(*ask), "r_precision": r_precision(*ask)}


def _coarse(heard: Heard, recogniser: Recogniser, seed: int) -> Table:
    if heard.probabilities is None:
        return {}
    named = [recogniser.labels[i] for i in heard.probabilities.argmax(axis=1)]
    true = [sample.category for sample in heard.queries]
    right = np.array([a == b for a, b in zip(named, true, strict=True)], np.float64)
    pairs = Counter(zip(true, named, strict=True))
    matrix = {a: {b: pairs[a, b] for b in sorted(set(named)) if pairs[a, b]} for a in sorted(set(true))}
    return {"accuracy": _measure(right, seed), "per_class": per_class(named, true), "confusion": matrix}


def _open_world(
    recogniser: Recogniser, closed: Sequence[Verdict], opened: Sequence[Verdict], question: Question
) -> Table:
    missed = {True: 0, False: 0}
    known, unknown = ([v for v in opened if v.known == sort] for sort in (True, False))
    bins = reliability(opened)
    table: Table = {
        "items_left_out": len(question.left_out),
        "known": len(known),
        "unknown": len(unknown),
        "unreadable": len(question.skipped),
        "auroc": _resampled(opened, separation, question.seed),
        **{
            f"identified_at_far_{share:g}": _measure(identified_at(opened, share), question.seed)
            for share in (SHARES if unknown else ())
        },
    }
    if recogniser.calibrated:
        accepted = np.array([v.answer is not None for v in unknown], np.float64)
        identified = np.array([v.outcome == "identified" for v in known], np.float64)
        table |= {
            "at_shipped_thresholds": {
                "known": outcomes(opened, known=True, missed=missed[True]),
                "unknown": outcomes(opened, known=False, missed=missed[False]),
                "nothing_left_out": outcomes(closed, known=True),
            },
            "identified": _measure(identified, question.seed),
            "false_accept_rate": _measure(accepted, question.seed),
            "expected_calibration_error": _resampled(
                opened, lambda some: calibration_error_of(reliability(some)), question.seed
            ),
            "reliability": bins,
        }
    return table


def _resampled(listed: Sequence[Verdict], measure: Callable[[Sequence[Verdict]], float], seed: int) -> Table:
    """A measure of all pictures together, with its bootstrap interval over pictures."""
    rng = np.random.default_rng(seed)
    draws = [measure([listed[i] for i in rng.integers(len(listed), size=len(listed))]) for _ in range(200)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": measure(listed), "interval": [float(low), float(high)], "count": len(listed)}


def _measure(values: NDArray[np.float64], seed: int) -> Table:
    mean = float(values.mean()) if len(values) else 0.0
    return {"mean": mean, "interval": list(bootstrap(values, seed)), "count": len(values)}
