"""Accuracy of every form of a model beside FP32 on held-out pictures, and the pictures whose answer changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge.errors import QuantizeError
from edge.imaging.image import draw_box, shrink
from edge.manifest.model import Target
from edge.types import FloatArray, Image
from quantize import compare, run_forms
from quantize.average_precision import Boxes, match
from quantize.compare_forms import accuracy_table, compare_network
from quantize.dataset import Data
from quantize.pictures import Sample, Scene
from quantize.reports.bundle_models import BundleModel

SHOWN = 12  # changed answers of one form that are kept as pictures
PICTURE_PX = 320
_SAME = 0.5  # overlap from which two boxes are one
_BOTH, _FP32_ONLY, _FORM_ONLY = (150, 150, 150), (31, 120, 220), (230, 100, 20)


@dataclass(frozen=True, slots=True)
class Flip:
    """One picture whose answer differs between FP32 and another form."""

    name: str  # of the picture in the data set
    image_rgb: Image
    truth: str
    fp32: str  # the answer and its score, for people
    other: str


@dataclass(frozen=True, slots=True)
class FormAccuracy:
    """One form compared with FP32."""

    table: dict[str, Any]  # images, metrics and gates, as the manifest stores them
    changed: int  # pictures whose answer changes
    of: int  # pictures compared
    flips: tuple[Flip, ...] = ()  # some of them

    def row(self) -> dict[str, Any]:
        """Return it as the report's JSON stores it, without the pictures."""
        told = [{"picture": one.name, "truth": one.truth, "fp32": one.fp32, "form": one.other} for one in self.flips]
        return {**self.table, "changed": self.changed, "of": self.of, "flips": told}


@dataclass(slots=True)
class _Changes:
    flips: list[Flip] = field(default_factory=list)
    count: int = 0


def measure_accuracy(one: BundleModel, data: Data) -> dict[Target, FormAccuracy]:
    """Compare every form of a model with FP32; nothing without an FP32 form, and for a finder, which has only that.

    Raises:
        QuantizeError: there is no held-out picture.
        EngineError: a form cannot be run.
    """
    others: list[Target] = [form for form in one.files if form != "fp32"]
    if "fp32" not in one.files or not others:
        return {}
    if one.spec.kind == "detector":
        return _detectors(one, data, others)
    comparisons, rows = compare_network(one.spec, one.files["fp32"], [one.files[form] for form in others], data)
    found: dict[Target, FormAccuracy] = {}
    for number, (form, comparison) in enumerate(zip(others, comparisons, strict=True)):
        changes = _Changes()
        if one.spec.kind == "classifier":
            changes = _classifier_flips(one, rows[0], rows[number + 1])
        elif one.spec.kind == "embedder":
            gallery = data.gallery_crops(one.spec)
            changes = _embedder_flips(one, rows[0], rows[number + 1], data.held_out_crops(one.spec), gallery)
        table = accuracy_table(comparison, comparison.gates, form)
        found[form] = FormAccuracy(table, changes.count, comparison.images, tuple(changes.flips))
    return found


def _classifier_flips(
    one: BundleModel, fp32: Mapping[Sample, FloatArray], other: Mapping[Sample, FloatArray]
) -> _Changes:
    labels = one.spec.labels
    changes = _Changes()
    for sample, before in fp32.items():
        after = other[sample]
        a, b = int(before.argmax()), int(after.argmax())
        if a != b:
            texts = f"{labels[a]} {before[a]:.3f}", f"{labels[b]} {after[b]:.3f}"
            _add(changes, sample, sample.category, texts, one.spec.preprocess.crop_margin)
    return changes


def _embedder_flips(
    one: BundleModel,
    fp32: Mapping[Sample, FloatArray],
    other: Mapping[Sample, FloatArray],
    queries: Sequence[Sample],
    gallery: Sequence[Sample],
) -> _Changes:
    changes = _Changes()
    for category in one.spec.categories:
        known = [sample for sample in gallery if sample.category == category]
        if not known:
            continue
        galleries = [np.stack([form[sample] for sample in known]) for form in (fp32, other)]
        for sample in (query for query in queries if query.category == category):
            scores = [vectors @ form[sample] for vectors, form in zip(galleries, (fp32, other), strict=True)]
            best = [int(score.argmax()) for score in scores]
            items = [known[index].item for index in best]
            if items[0] != items[1]:
                texts = [f"{item} {score[i]:.3f}" for item, score, i in zip(items, scores, best, strict=True)]
                _add(changes, sample, sample.item, (texts[0], texts[1]), one.spec.preprocess.crop_margin)
    return changes


def _add(changes: _Changes, sample: Sample, truth: str, texts: tuple[str, str], margin: float) -> None:
    changes.count += 1
    if len(changes.flips) < SHOWN:
        picture = shrink(sample.crop(margin), PICTURE_PX)
        changes.flips.append(Flip(sample.name, picture, truth, *texts))


def _detectors(one: BundleModel, data: Data, others: Sequence[Target]) -> dict[Target, FormAccuracy]:
    scenes = data.scenes_for(data.held_out_split)
    if not scenes:
        raise QuantizeError(
            f"{one.name}: there are no scenes of split {data.held_out_split!r} to compare on; there are the splits "
            f"{data.splits('detector')}"
        )
    threshold = one.spec.score_threshold
    fp32, *rest = run_forms.detect(one.spec, [one.files[form] for form in ("fp32", *others)], scenes)
    found: dict[Target, FormAccuracy] = {}
    for form, boxes in zip(others, rest, strict=True):
        comparison = compare.compare_detectors(fp32, boxes, scenes, threshold)
        changes = _Changes()
        for scene, before, after in zip(scenes, fp32, boxes, strict=True):
            _add_scene(changes, scene, _shown(before, threshold), _shown(after, threshold))
        table = accuracy_table(comparison, comparison.gates, form)
        found[form] = FormAccuracy(table, changes.count, len(scenes), tuple(changes.flips))
    return found


def _shown(boxes: Boxes, threshold: float) -> Boxes:
    kept = boxes[1] >= threshold
    return boxes[0][kept], boxes[1][kept]


def _add_scene(changes: _Changes, scene: Scene, fp32: Boxes, other: Boxes) -> None:
    """Draw the boxes that only one of two detectors finds in a scene."""
    overlap, found = match(other[0], other[1], fp32[0], _SAME)
    lost, gained = np.nonzero(found == 0)[0], np.nonzero(overlap == 0)[0]
    if not len(lost) and not len(gained):
        return
    changes.count += 1
    if len(changes.flips) >= SHOWN:
        return
    whole = scene.crop(0.0)
    picture = np.ascontiguousarray(shrink(whole, 2 * PICTURE_PX)).copy()
    scale = picture.shape[1] / whole.shape[1]
    layers = [(fp32[0][found > 0], _BOTH, 1), (fp32[0][lost], _FP32_ONLY, 3), (other[0][gained], _FORM_ONLY, 3)]
    for boxes, colour, thickness in layers:
        for x0, y0, x1, y1 in (boxes * scale).tolist():
            draw_box(picture, (x0, y0, x1, y1), colour, thickness)
    texts = [", ".join(f"{score:.2f}" for score in scores) for scores in (fp32[1][lost], other[1][gained])]
    truth = f"{len(scene.boxes_px)} true boxes" if len(scene.boxes_px) else "no true boxes"
    changes.flips.append(Flip(scene.name, picture, truth, texts[0] or "none", texts[1] or "none"))
