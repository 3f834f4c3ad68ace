"""Comparison of FP32 and INT8: both run on the same held-out pictures, through the device's own stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.inference.postprocess import softmax
from edge.inference.stages import ClassifierOutput
from edge.types import FloatArray
from quantize.average_precision import Boxes, ap50_95, average_precision, match
from quantize.gates import MIN_IMAGES, Gate, check_gate
from quantize.pictures import Sample, Scene

AP_SCORE = 0.05  # boxes below it do not change the average precision
BoolRow = NDArray[np.bool_]
Table = dict[str, tuple[float, float]]  # metric: FP32, INT8


@dataclass(frozen=True, slots=True)
class Comparison:
    """Metrics and gates of two forms of one network."""

    images: int
    table: Table
    gates: tuple[Gate, ...]


def compare_classifiers(
    fp32: ClassifierOutput, int8: ClassifierOutput, truth: Sequence[str], labels: Sequence[str]
) -> Comparison:
    """Compare two classifiers. Crops whose category has no label are ignored."""
    known = np.asarray([name in labels for name in truth], bool)
    target = np.asarray([labels.index(name) for name in truth if name in labels], np.int64)
    a, b = (np.log(np.maximum(form.probabilities[known], 1e-30)) for form in (fp32, int8))
    images = len(target)
    if images == 0:
        return Comparison(0, {}, tuple(check_gate(name, 0.0, 0) for name in ("top1", "flip_rate")))
    correct_a, correct_b = a.argmax(1) == target, b.argmax(1) == target
    flips = float((a.argmax(1) != b.argmax(1)).mean())
    ratio, error = _paired_ratio(correct_a, correct_b)
    table: Table = {
        "top1": (float(correct_a.mean()), float(correct_b.mean())),
        "expected_calibration_error": (_calibration_error(a, target), _calibration_error(b, target)),
    }
    gates = (
        check_gate("top1", ratio, images, error),
        *_check_worst_group("worst_class", correct_a, correct_b, target),
        check_gate("flip_rate", flips, images, float(np.sqrt(flips * (1 - flips) / images))),
    )
    if fp32.descriptors.size:
        rows, more = _compare_rows(fp32.descriptors, int8.descriptors)
        table, gates = table | rows, (*gates, *more)
    return Comparison(images, table, gates)


def _compare_rows(fp32: FloatArray, int8: FloatArray) -> tuple[Table, list[Gate]]:
    """Compare two sets of unit vectors of the same crops, row by row."""
    cosine = (fp32 * int8).sum(axis=1)
    mean, p1 = float(cosine.mean()), float(np.percentile(cosine, 1))
    gates = [
        check_gate("cosine_mean", mean, len(cosine), float(cosine.std() / np.sqrt(len(cosine)))),
        check_gate("cosine_p1", p1, len(cosine)),
    ]
    return {"cosine_mean": (1.0, mean), "cosine_p1": (1.0, p1)}, gates


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings of the queries and the gallery by one form of an embedder."""

    queries: FloatArray
    gallery: FloatArray


def compare_embedders(fp32: Vectors, int8: Vectors, queries: Sequence[Sample], gallery: Sequence[Sample]) -> Comparison:
    """Compare nearest items, each query against the gallery of its own category, as on the device."""
    correct_fp32 = nearest_is_correct(fp32.queries, fp32.gallery, queries, gallery)
    correct_int8 = nearest_is_correct(int8.queries, int8.gallery, queries, gallery)
    correct_mixed = nearest_is_correct(int8.queries, fp32.gallery, queries, gallery)
    items = {(s.category, s.item) for s in gallery}
    counted = np.asarray([(s.category, s.item) in items for s in queries], bool)
    correct_fp32, correct_int8, correct_mixed = correct_fp32[counted], correct_int8[counted], correct_mixed[counted]
    names = np.asarray([s.category for s in queries])[counted]
    images = len(names)
    if images == 0:
        gates = [check_gate(name, 0.0, 0) for name in ("recall_at_1", "recall_at_1_fp32_gallery")]
    else:
        gates = [
            check_gate("recall_at_1", *_ratio_and_error(correct_fp32, correct_int8)),
            check_gate("recall_at_1_fp32_gallery", *_ratio_and_error(correct_fp32, correct_mixed)),
            *_check_worst_group("worst_category", correct_fp32, correct_int8, names),
        ]
    table: Table = {}
    if images:
        table["recall_at_1"] = (float(correct_fp32.mean()), float(correct_int8.mean()))
        table["recall_at_1_fp32_gallery"] = (float(correct_fp32.mean()), float(correct_mixed.mean()))
        for name in sorted(set(names)):
            of = names == name
            table[f"recall_at_1.{name}"] = (float(correct_fp32[of].mean()), float(correct_int8[of].mean()))
    if len(queries):
        rows, more = _compare_rows(fp32.queries, int8.queries)
        table, gates = table | rows, [*gates, *more]
    return Comparison(images, table, tuple(gates))


def compare_localisers(fp32: Sequence[BoolRow], int8: Sequence[BoolRow]) -> Comparison:
    """Compare masks of the same crops by their overlap. Two empty masks count as equal."""
    both = np.asarray([np.count_nonzero(a & b) for a, b in zip(fp32, int8, strict=True)], np.float64)
    either = np.asarray([np.count_nonzero(a | b) for a, b in zip(fp32, int8, strict=True)], np.float64)
    overlap = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    mean = float(overlap.mean())
    gate = check_gate("mask_overlap", mean, len(overlap), float(overlap.std() / np.sqrt(len(overlap))))
    return Comparison(len(overlap), {"mask_overlap": (1.0, mean)}, (gate,))


def nearest_is_correct(
    queries: FloatArray, gallery: FloatArray, query_samples: Sequence[Sample], gallery_samples: Sequence[Sample]
) -> BoolRow:
    """Return whether the nearest gallery vector in the query's category is of its item; False if there is none."""
    categories = np.asarray([s.category for s in gallery_samples])
    correct = np.zeros(len(query_samples), bool)
    for index, sample in enumerate(query_samples):
        of = np.nonzero(categories == sample.category)[0]
        if len(of):
            correct[index] = gallery_samples[int(of[(gallery[of] @ queries[index]).argmax()])].item == sample.item
    return correct


def compare_detectors(
    fp32: Sequence[Boxes], int8: Sequence[Boxes], scenes: Sequence[Scene], threshold: float
) -> Comparison:
    """Compare the boxes of two detectors with each other, and with true boxes if there are any.

    Args:
        fp32: boxes and scores for each scene.
        int8: boxes and scores for each scene.
        scenes: all with true boxes, or all without.
        threshold: the operating score threshold.
    """
    shown = [[(b[s >= threshold], s[s >= threshold]) for b, s in form] for form in (fp32, int8)]
    overlaps, found_by_both = [], []
    for (boxes_a, _), (boxes_b, scores_b) in zip(*shown, strict=True):
        overlap, found = match(boxes_b, scores_b, boxes_a, 0.5)
        overlaps.append(overlap[overlap > 0])
        found_by_both.append(found)
    both, agreed = np.concatenate(overlaps), np.concatenate(found_by_both)
    iou = float(np.median(both)) if len(both) else 0.0
    images = len(scenes)
    table: Table = {"matched_iou_median": (1.0, iou)}
    gates = [check_gate("matched_iou", iou, images)]
    truths = [scene.boxes_px for scene in scenes]
    if not any(len(truth) for truth in truths):
        share = float(agreed.mean()) if len(agreed) else 0.0
        error = float(np.sqrt(share * (1 - share) / max(1, len(agreed))))
        table["agreement"] = (1.0, share)
        return Comparison(images, table, (*gates, check_gate("agreement", share, images, error)))
    ap = [(average_precision(form, truths, 0.5), ap50_95(form, truths)) for form in (fp32, int8)]
    table["ap50"], table["ap50_95"] = (ap[0][0], ap[1][0]), (ap[0][1], ap[1][1])
    recalled = [
        np.concatenate([match(b, s, truth, 0.5)[1] for (b, s), truth in zip(form, truths, strict=True)]) > 0
        for form in shown
    ]
    table["recall"] = (float(recalled[0].mean()), float(recalled[1].mean()))
    ratio, error = _paired_ratio(recalled[0], recalled[1])
    gates += [
        check_gate("ap50_95", _ratio(ap[0][1], ap[1][1]), images),
        check_gate("recall", ratio, images, error),
    ]
    return Comparison(images, table, tuple(gates))


def _ratio(fp32: float, int8: float) -> float:
    return int8 / fp32 if fp32 > 0 else 0.0


def _paired_ratio(correct_fp32: BoolRow, correct_int8: BoolRow) -> tuple[float, float]:
    """Return INT8's accuracy over FP32's, and its standard error from the predictions that changed."""
    share = float(correct_fp32.mean())
    changed = float((correct_fp32 != correct_int8).mean())
    return _ratio(share, float(correct_int8.mean())), float(np.sqrt(changed / len(correct_fp32))) / max(share, 1e-9)


def _ratio_and_error(correct_fp32: BoolRow, correct_int8: BoolRow) -> tuple[float, int, float]:
    ratio, error = _paired_ratio(correct_fp32, correct_int8)
    return ratio, len(correct_fp32), error


def _check_worst_group(
    name: str, correct_fp32: BoolRow, correct_int8: BoolRow, group: NDArray[np.generic]
) -> list[Gate]:
    """Check the lowest ratio among the groups of at least MIN_IMAGES pictures; no gate if there is none."""
    ratios = []
    for key in np.unique(group):
        of = group == key
        if of.sum() >= MIN_IMAGES:
            ratios.append((_ratio(float(correct_fp32[of].mean()), float(correct_int8[of].mean())), int(of.sum())))
    return [check_gate(name, *min(ratios))] if ratios else []


def _calibration_error(log_probabilities: FloatArray, target: NDArray[np.int64]) -> float:
    """Return the expected calibration error with 15 bins (Guo et al. 2017)."""
    probabilities = softmax(log_probabilities)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == target
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(confidence[bins == i].mean() - correct[bins == i].mean()) * (bins == i).mean() for i in np.unique(bins)]
    return float(np.sum(gaps))
