"""FP32 beside INT8: the same held-out pictures through both, by the device's own stages; one row per metric."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edge.imaging.image import read_image
from edge.imaging.silhouette import Outline
from edge.inference.engine import open_engine
from edge.inference.postprocess import softmax
from edge.inference.stages import Classifier, Detector, Embedder, Localiser, Seen
from edge.manifest import ClassifierModel, DetectorModel, EmbedderModel, LocaliserModel
from edge.telemetry.timing import Timings
from edge.types import Box, FloatArray, Image
from quantize.average_precision import Boxes, ap50_95, average_precision, match
from quantize.dataset import Sample, Scene
from quantize.gates import MIN_IMAGES, Gate, judge
from quantize.network_spec import Spec, model_entry

AP_SCORE = 0.05  # boxes below it do not move the average precision
BoolRow = NDArray[np.bool_]
Table = dict[str, tuple[float, float]]  # metric: FP32, INT8


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed between two forms of one network."""

    images: int
    table: Table
    gates: tuple[Gate, ...]


def _whole(picture: Image) -> list[Box]:
    return [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]


def seen_of(spec: Spec, path: Path, samples: Iterable[Sample]) -> Seen:
    """What a classifier says of each crop."""
    model = model_entry(spec, {"fp32": "model.onnx"}, "fp32", "")
    stage = Classifier(cast("ClassifierModel", model), open_engine(path, "onnxruntime"))
    pictures = (sample.crop(spec.preprocess.crop_margin) for sample in samples)
    told = [stage.see(picture, _whole(picture), Timings()) for picture in pictures]
    return Seen(np.concatenate([one.probabilities for one in told]), np.concatenate([one.descriptors for one in told]))


def vectors_of(spec: Spec, path: Path, samples: Iterable[Sample]) -> FloatArray:
    """Embedding of each crop, (n, dim), rows of unit length."""
    model = model_entry(spec, {"fp32": "model.onnx"}, "fp32", "")
    return embed(Embedder(cast("EmbedderModel", model), open_engine(path, "onnxruntime")), samples)


def embed(stage: Embedder, samples: Iterable[Sample]) -> FloatArray:
    """The same by a loaded stage."""
    rows = []
    for sample in samples:
        picture = sample.crop(stage.model.preprocess.crop_margin)
        rows.append(stage.embed(picture, _whole(picture), Timings())[0])
    return np.stack(rows) if rows else np.zeros((0, stage.model.dim), np.float32)


def _localiser(spec: Spec, path: Path) -> Localiser:
    model = model_entry(spec, {"fp32": "model.onnx"}, "fp32", "")
    return Localiser(cast("LocaliserModel", model), open_engine(path, "onnxruntime"))


def masks_of(spec: Spec, path: Path, samples: Iterable[Sample]) -> list[BoolRow]:
    """Which cells of each crop are the object: (h, w)."""
    stage = _localiser(spec, path)
    pictures = (sample.crop(spec.preprocess.crop_margin) for sample in samples)
    return [stage.locate(picture, _whole(picture), Timings())[0] >= 128 for picture in pictures]


def outlines_by(stage: Localiser, samples: Iterable[Sample]) -> list[Outline | None]:
    """Outline of the object in each crop."""
    pictures = (sample.crop(stage.model.preprocess.crop_margin) for sample in samples)
    return [stage.outlines(picture, _whole(picture), Timings())[0] for picture in pictures]


def boxes_of(spec: Spec, path: Path, scenes: Iterable[Scene]) -> list[Boxes]:
    """Boxes and scores found in each scene, those of low score too."""
    low = spec.model_copy(update={"score_threshold": min(AP_SCORE, spec.score_threshold)})
    model = model_entry(low, {"fp32": "model.onnx"}, "fp32", "")
    stage = Detector(cast("DetectorModel", model), open_engine(path, "onnxruntime"))
    found = []
    for scene in scenes:
        (detections,) = stage.detect([read_image(scene.path)], Timings())
        boxes = np.asarray([d.box_px for d in detections], np.float32).reshape(-1, 4)
        found.append((boxes, np.asarray([d.score for d in detections], np.float32)))
    return found


def compare_classifiers(fp32: Seen, int8: Seen, truth: Sequence[str], labels: Sequence[str]) -> Comparison:
    """Compare answers; crops of a category without label do not count."""
    known = np.asarray([name in labels for name in truth], bool)
    target = np.asarray([labels.index(name) for name in truth if name in labels], np.int64)
    a, b = (np.log(np.maximum(form.probabilities[known], 1e-30)) for form in (fp32, int8))
    images = len(target)
    if images == 0:
        return Comparison(0, {}, tuple(judge(name, 0.0, 0) for name in ("top1", "flip_rate")))
    right_a, right_b = a.argmax(1) == target, b.argmax(1) == target
    flips = float((a.argmax(1) != b.argmax(1)).mean())
    ratio, error = _paired_ratio(right_a, right_b)
    table: Table = {
        "top1": (float(right_a.mean()), float(right_b.mean())),
        "expected_calibration_error": (_calibration_error(a, target), _calibration_error(b, target)),
    }
    gates = (
        judge("top1", ratio, images, error),
        *_judge_worst("worst_class", right_a, right_b, target),
        judge("flip_rate", flips, images, float(np.sqrt(flips * (1 - flips) / images))),
    )
    if fp32.descriptors.size:
        rows, more = _compare_rows(fp32.descriptors, int8.descriptors)
        table, gates = table | rows, (*gates, *more)
    return Comparison(images, table, gates)


def _compare_rows(fp32: FloatArray, int8: FloatArray) -> tuple[Table, list[Gate]]:
    """Compare vectors of the same crops, rows of unit length, by their cosines."""
    cosine = (fp32 * int8).sum(axis=1)
    mean, p1 = float(cosine.mean()), float(np.percentile(cosine, 1))
    gates = [
        judge("cosine_mean", mean, len(cosine), float(cosine.std() / np.sqrt(len(cosine)))),
        judge("cosine_p1", p1, len(cosine)),
    ]
    return {"cosine_mean": (1.0, mean), "cosine_p1": (1.0, p1)}, gates


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings of the queries and the gallery by one form of an embedder."""

    queries: FloatArray
    gallery: FloatArray


def compare_embedders(fp32: Vectors, int8: Vectors, queries: Sequence[Sample], gallery: Sequence[Sample]) -> Comparison:
    """Compare nearest items, each query against the gallery of its own category, as on the device."""
    right_fp32 = nearest_is_right(fp32.queries, fp32.gallery, queries, gallery)
    right_int8 = nearest_is_right(int8.queries, int8.gallery, queries, gallery)
    right_mixed = nearest_is_right(int8.queries, fp32.gallery, queries, gallery)
    items = {(s.category, s.item) for s in gallery}
    counted = np.asarray([(s.category, s.item) in items for s in queries], bool)
    right_fp32, right_int8, right_mixed = right_fp32[counted], right_int8[counted], right_mixed[counted]
    names = np.asarray([s.category for s in queries])[counted]
    images = len(names)
    if images == 0:
        gates = [judge(name, 0.0, 0) for name in ("recall_at_1", "recall_at_1_fp32_gallery")]
    else:
        gates = [
            judge("recall_at_1", *_in_order(right_fp32, right_int8)),
            judge("recall_at_1_fp32_gallery", *_in_order(right_fp32, right_mixed)),
            *_judge_worst("worst_category", right_fp32, right_int8, names),
        ]
    table: Table = {}
    if images:
        table["recall_at_1"] = (float(right_fp32.mean()), float(right_int8.mean()))
        table["recall_at_1_fp32_gallery"] = (float(right_fp32.mean()), float(right_mixed.mean()))
        for name in sorted(set(names)):
            of = names == name
            table[f"recall_at_1.{name}"] = (float(right_fp32[of].mean()), float(right_int8[of].mean()))
    if len(queries):
        rows, more = _compare_rows(fp32.queries, int8.queries)
        table, gates = table | rows, [*gates, *more]
    return Comparison(images, table, tuple(gates))


def compare_localisers(fp32: Sequence[BoolRow], int8: Sequence[BoolRow]) -> Comparison:
    """Compare the masks of the same crops by their overlap; two empty ones agree."""
    both = np.asarray([np.count_nonzero(a & b) for a, b in zip(fp32, int8, strict=True)], np.float64)
    either = np.asarray([np.count_nonzero(a | b) for a, b in zip(fp32, int8, strict=True)], np.float64)
    overlap = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    mean = float(overlap.mean())
    gate = judge("mask_overlap", mean, len(overlap), float(overlap.std() / np.sqrt(len(overlap))))
    return Comparison(len(overlap), {"mask_overlap": (1.0, mean)}, (gate,))


def nearest_is_right(
    queries: FloatArray, gallery: FloatArray, query_samples: Sequence[Sample], gallery_samples: Sequence[Sample]
) -> BoolRow:
    """Whether the nearest vector of a query's own category is of its item; False where the gallery has none."""
    categories = np.asarray([s.category for s in gallery_samples])
    right = np.zeros(len(query_samples), bool)
    for index, sample in enumerate(query_samples):
        of = np.nonzero(categories == sample.category)[0]
        if len(of):
            right[index] = gallery_samples[int(of[(gallery[of] @ queries[index]).argmax()])].item == sample.item
    return right


def compare_detectors(
    fp32: Sequence[Boxes], int8: Sequence[Boxes], scenes: Sequence[Scene], threshold: float
) -> Comparison:
    """Compare boxes with the truth where scenes have it, and with each other.

    Args:
        fp32: boxes and scores per scene.
        int8: the same.
        scenes: with true boxes, or none at all.
        threshold: the operating score.
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
    gates = [judge("matched_iou", iou, images)]
    truths = [scene.boxes_px for scene in scenes]
    if not any(len(truth) for truth in truths):
        share = float(agreed.mean()) if len(agreed) else 0.0
        error = float(np.sqrt(share * (1 - share) / max(1, len(agreed))))
        table["agreement"] = (1.0, share)
        return Comparison(images, table, (*gates, judge("agreement", share, images, error)))
    ap = [(average_precision(form, truths, 0.5), ap50_95(form, truths)) for form in (fp32, int8)]
    table["ap50"], table["ap50_95"] = (ap[0][0], ap[1][0]), (ap[0][1], ap[1][1])
    recalled = [
        np.concatenate([match(b, s, truth, 0.5)[1] for (b, s), truth in zip(form, truths, strict=True)]) > 0
        for form in shown
    ]
    table["recall"] = (float(recalled[0].mean()), float(recalled[1].mean()))
    ratio, error = _paired_ratio(recalled[0], recalled[1])
    gates += [
        judge("ap50_95", _ratio(ap[0][1], ap[1][1]), images),
        judge("recall", ratio, images, error),
    ]
    return Comparison(images, table, tuple(gates))


def _ratio(fp32: float, int8: float) -> float:
    return int8 / fp32 if fp32 > 0 else 0.0


def _paired_ratio(right_fp32: BoolRow, right_int8: BoolRow) -> tuple[float, float]:
    """INT8's share of right answers over FP32's, and its standard error from the answers that changed."""
    share = float(right_fp32.mean())
    changed = float((right_fp32 != right_int8).mean())
    return _ratio(share, float(right_int8.mean())), float(np.sqrt(changed / len(right_fp32))) / max(share, 1e-9)


def _in_order(right_fp32: BoolRow, right_int8: BoolRow) -> tuple[float, int, float]:
    ratio, error = _paired_ratio(right_fp32, right_int8)
    return ratio, len(right_fp32), error


def _judge_worst(name: str, right_fp32: BoolRow, right_int8: BoolRow, group: NDArray[np.generic]) -> list[Gate]:
    """Judge the lowest ratio among groups of enough pictures; nothing when all are too small."""
    ratios = []
    for key in np.unique(group):
        of = group == key
        if of.sum() >= MIN_IMAGES:
            ratios.append((_ratio(float(right_fp32[of].mean()), float(right_int8[of].mean())), int(of.sum())))
    return [judge(name, *min(ratios))] if ratios else []


def _calibration_error(log_probabilities: FloatArray, target: NDArray[np.int64]) -> float:
    """Expected calibration error, 15 bins (Guo et al. 2017)."""
    probabilities = softmax(log_probabilities)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == target
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(confidence[bins == i].mean() - right[bins == i].mean()) * (bins == i).mean() for i in np.unique(bins)]
    return float(np.sum(gaps))
