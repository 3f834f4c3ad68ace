"""Runs the forms of a network on the same pictures, through the device's own stages; each picture is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.inference.engine import open_engine
from edge.inference.onnxruntime_engine import open_session_from_bytes
from edge.inference.stages import Classifier, ClassifierOutput, Detector, Embedder, Localiser
from edge.manifest.embedder import EmbedderModel
from edge.manifest.stages import ClassifierModel, DetectorModel, LocaliserModel
from edge.telemetry.timing import Timings
from edge.types import Box, Engine, FloatArray, Image, Silhouette
from quantize.average_precision import Boxes
from quantize.forms.emulate import in_float32, is_fp16
from quantize.forms.form_of import FOR_TENSORRT, form_of
from quantize.network_spec import Model, Spec, model_entry
from quantize.pictures import Picture, Sample, Scene, map_in_threads

AP_SCORE = 0.05  # boxes below it do not change the average precision
_Stage = TypeVar("_Stage")
_Row = TypeVar("_Row")


def open_form(path: Path) -> Engine:
    """Load a form of a network with ONNX Runtime; one for TensorRT as TensorRT computes it, node by node.

    Raises:
        EngineError: the file is missing or damaged.
    """
    engine = open_engine(path, "onnxruntime")  # it says what is wrong with a file
    model = onnx.load(str(path))
    if form_of(model) not in FOR_TENSORRT:
        return engine
    model = in_float32(model) if is_fp16(model) else model
    return open_session_from_bytes(model.SerializeToString(), str(path), optimise=False)


def classify(spec: Spec, paths: Sequence[Path], samples: Sequence[Sample]) -> list[ClassifierOutput]:
    """Classify each crop with the classifiers in ONNX files: one output for each form."""
    model = cast("ClassifierModel", _model(spec))
    stages = [Classifier(model, open_form(path)) for path in paths]
    forms = _run(stages, samples, spec.preprocess.crop_margin, _classified)
    return [
        ClassifierOutput(
            np.concatenate([output.probabilities for output in outputs]),
            np.concatenate([output.descriptors for output in outputs]),
        )
        for outputs in forms
    ]


def embed(spec: Spec, paths: Sequence[Path], samples: Sequence[Sample]) -> list[FloatArray]:
    """Embed each crop with the embedders in ONNX files: (n, dim), rows of unit length, for each form."""
    model = cast("EmbedderModel", _model(spec))
    stages = [Embedder(model, open_form(path)) for path in paths]
    return [_stacked(rows, model.dim) for rows in _run(stages, samples, spec.preprocess.crop_margin, vector_of)]


def locate(spec: Spec, paths: Sequence[Path], samples: Sequence[Sample]) -> list[list[NDArray[np.bool_]]]:
    """Return the object mask of each crop, (h, w), for each form."""
    model = cast("LocaliserModel", _model(spec))
    stages = [Localiser(model, open_form(path)) for path in paths]
    return _run(
        stages,
        samples,
        spec.preprocess.crop_margin,
        lambda picture, stage: stage.locate(picture, whole(picture), Timings())[0] >= 128,
    )


def detect(spec: Spec, paths: Sequence[Path], scenes: Sequence[Scene]) -> list[list[Boxes]]:
    """Detect boxes in each scene, also below the spec's score threshold, for each form."""
    low = spec.model_copy(update={"score_threshold": min(AP_SCORE, spec.score_threshold)})
    model = cast("DetectorModel", _model(low))
    stages = [Detector(model, open_form(path)) for path in paths]
    return _run(stages, scenes, 0.0, _boxes)


def embed_samples(stage: Embedder, samples: Sequence[Sample]) -> FloatArray:
    """Embed each crop with a loaded stage: (n, dim), rows of unit length."""
    margin = stage.model.preprocess.crop_margin
    rows = map_in_threads(lambda sample: vector_of(sample.crop(margin), stage, plain=sample.plain), samples)
    return _stacked(rows, stage.model.dim)


def silhouettes_of(stage: Localiser, samples: Sequence[Sample]) -> list[Silhouette | None]:
    """Return the silhouette of the object in each crop; None where the localiser finds none."""
    (found,) = _run(
        [stage],
        samples,
        stage.model.preprocess.crop_margin,
        lambda picture, one: one.silhouettes(picture, whole(picture), Timings())[0],
    )
    return found


def vector_of(picture: Image, stage: Embedder, *, plain: bool = False) -> FloatArray:
    """Embed a picture of one object, which may be on a plain background: (dim,)."""
    return np.asarray(stage.embed(picture, whole(picture), Timings(), plain=plain)[0], np.float32)


def whole(picture: Image) -> list[Box]:
    """Return the box of the whole picture."""
    return [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]


def _run(
    stages: Sequence[_Stage], pictures: Sequence[Picture], margin: float, task: Callable[[Image, _Stage], _Row]
) -> list[list[_Row]]:
    def run_on(picture: Picture) -> list[_Row]:
        image = picture.crop(margin)
        return [task(image, stage) for stage in stages]

    rows = map_in_threads(run_on, pictures)
    return [[row[number] for row in rows] for number in range(len(stages))]


def _model(spec: Spec) -> Model:
    return model_entry(spec, {"fp32": "model.onnx"}, "fp32", "")


def _classified(picture: Image, stage: Classifier) -> ClassifierOutput:
    return stage.classify_with_features(picture, whole(picture), Timings())


def _boxes(scene: Image, stage: Detector) -> Boxes:
    (detections,) = stage.detect([scene], Timings())
    boxes = np.asarray([d.box_px for d in detections], np.float32).reshape(-1, 4)
    return boxes, np.asarray([d.score for d in detections], np.float32)


def _stacked(rows: Sequence[FloatArray], dim: int) -> FloatArray:
    return np.stack(rows) if rows else np.zeros((0, dim), np.float32)
