"""Detector, Classifier, Localiser, Embedder: preprocess, run the engine, decode."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import EngineError
from edge.imaging import image
from edge.imaging.guided_filter import refine_mask
from edge.imaging.silhouette import Silhouette, silhouette_of
from edge.inference import postprocess as decode
from edge.inference.engine import Backend, Precision, choose_backend, choose_target, gains_from_batches, open_engine
from edge.inference.fingerprint import fingerprint_of
from edge.inference.preprocess import Placement, to_batch, to_canvas
from edge.manifest import ClassifierModel, DetectorModel, EmbedderModel, LocaliserModel, Manifest, Preprocess
from edge.telemetry.timing import Timings
from edge.types import Box, Category, Detection, Engine, FloatArray, Image

_MIN_BOX_PX = 2.0


class Detector:
    """Finds every object of a frame."""

    def __init__(self, model: DetectorModel, engine: Engine, together: int = 1) -> None:
        """Take a model that is loaded.

        Args:
            model: of the manifest.
            engine: that runs it.
            together: frames that are best run at once; the model takes as many.
        """
        self.model = model
        self.together = together
        self._engine = engine

    def detect(self, images_rgb: Sequence[Image], timings: Timings) -> list[list[Detection]]:
        """Find the objects of each frame, best first.

        Raises:
            EngineError: the engine failed, or its answer is not what the manifest says.
        """
        found = []
        for first in range(0, len(images_rgb), self.together):
            found += self._detect(images_rgb[first : first + self.together], timings)
        return found

    def _detect(self, images_rgb: Sequence[Image], timings: Timings) -> list[list[Detection]]:
        spec = self.model.preprocess
        with timings.stage("preprocess"):
            canvases, placements = zip(*(to_canvas(spec, image_rgb) for image_rgb in images_rgb), strict=True)
            batch = to_batch(spec, list(canvases))
        with timings.stage("detect"):
            outputs = run_checked(self._engine, batch, self.model.output_shapes(len(batch)))
        with timings.stage("postprocess"):
            return [
                self._objects([output[row : row + 1] for output in outputs], placed)
                for row, placed in enumerate(placements)
            ]

    def _objects(self, outputs: list[FloatArray], placed: Placement) -> list[Detection]:
        model = self.model
        if model.decoder == "ltrb":
            boxes, scores, classes = decode.decode_ltrb(outputs, model.strides, model.score_threshold)
        else:
            boxes, scores, classes = decode.decode_yolox(
                outputs[0], model.strides, model.preprocess.width, model.preprocess.height, model.score_threshold
            )
        kept = decode.non_maximum_suppression(boxes, scores, model.iou_threshold)
        found = [
            Detection(placed.to_source(decode.box_of(boxes[i])), float(scores[i]), model.labels[classes[i]])
            for i in kept
        ]
        return [d for d in found if _is_visible(d.box_px) and self._is_wanted(d.label)]

    def _is_wanted(self, label: str) -> bool:
        return self.model.keep_labels is None or label in self.model.keep_labels


def _is_visible(box_px: Box) -> bool:
    return box_px[2] - box_px[0] >= _MIN_BOX_PX and box_px[3] - box_px[1] >= _MIN_BOX_PX


@dataclass(frozen=True, slots=True)
class ClassifierOutput:
    """What a classifier says of crops, a row for each."""

    probabilities: FloatArray  # (boxes, labels), calibrated
    descriptors: FloatArray  # (boxes, descriptor_dim), rows of unit length; (boxes, 0) of one that gives none


class Classifier:
    """Names the meta-category of crops."""

    def __init__(self, model: ClassifierModel, engine: Engine, fingerprint: str = "") -> None:
        """Take a model that is loaded.

        Args:
            model: of the manifest.
            engine: that runs it.
            fingerprint: of its numbers, see edge.inference.fingerprint; empty: not known, nothing it made is kept.
        """
        self.model = model
        self.fingerprint = fingerprint
        self._engine = engine

    def classify_with_features(self, image_rgb: Image, boxes_px: list[Box], timings: Timings) -> ClassifierOutput:
        """What categories crops may be of, and their descriptors.

        Raises:
            EngineError: the engine failed, or its answer is not what the manifest says.
        """
        with timings.stage("preprocess"):
            batch = _crops(self.model.preprocess, image_rgb, boxes_px)
        with timings.stage("classify"):
            logits, *described = _run_crops(self._engine, self.model, batch)
        with timings.stage("postprocess"):
            descriptors = decode.unit_rows(described[0]) if described else np.zeros((len(boxes_px), 0), np.float32)
            return ClassifierOutput(decode.softmax(logits, self.model.temperature), descriptors)

    def classify(self, image_rgb: Image, boxes_px: list[Box], timings: Timings) -> FloatArray:
        """Calibrated probabilities, (boxes, labels) float32.

        Raises:
            EngineError: the engine failed, or its answer is not what the manifest says.
        """
        return self.classify_with_features(image_rgb, boxes_px, timings).probabilities

    def name(self, probabilities: FloatArray) -> list[Category]:
        """One row of probabilities as categories, best first."""
        order = np.argsort(-probabilities, kind="stable")
        return [Category(self.model.labels[i], float(probabilities[i])) for i in order]


class Localiser:
    """Finds the object in crops, pixel by pixel."""

    def __init__(self, model: LocaliserModel, engine: Engine, fingerprint: str = "") -> None:
        """Take a model that is loaded; `fingerprint` as in Classifier."""
        self.model = model
        self.fingerprint = fingerprint
        self._engine = engine

    def locate(self, image_rgb: Image, boxes_px: list[Box], timings: Timings) -> list[NDArray[np.uint8]]:
        """The mask of each crop, which is its box grown by the model's margin: (h, w), 0..255, coarser than the crop.

        Raises:
            EngineError: the engine failed, or its answer is not what the manifest says.
        """
        spec, stride = self.model.preprocess, self.model.stride
        with timings.stage("preprocess"):
            crops = [image.crop(image_rgb, box, spec.crop_margin) for box in boxes_px]
            canvases, placements = zip(*(to_canvas(spec, crop) for crop in crops), strict=True)
            batch = to_batch(spec, list(canvases))
        with timings.stage("localise"):
            logits = _run_crops(self._engine, self.model, batch)[0][:, 0]
        masks = np.rint(255.0 / (1.0 + np.exp(-logits.clip(-30.0, 30.0)))).astype(np.uint8)
        covered = [
            (round(p.source_height * p.scale_y / stride), round(p.source_width * p.scale_x / stride))
            for p in placements
        ]
        return [mask[: max(1, high), : max(1, wide)] for mask, (high, wide) in zip(masks, covered, strict=True)]

    def silhouettes(self, image_rgb: Image, boxes_px: list[Box], timings: Timings) -> list[Silhouette | None]:
        """The outline of the object in each box; None where nothing is found.

        Raises:
            EngineError: the engine failed, or its answer is not what the manifest says.
        """
        masks = self.locate(image_rgb, boxes_px, timings)
        with timings.stage("postprocess"):
            crops = [image.crop(image_rgb, box, self.model.preprocess.crop_margin) for box in boxes_px]
            if self.model.guided_radius:
                masks = [
                    refine_mask(crop, mask, self.model.guided_radius) for crop, mask in zip(crops, masks, strict=True)
                ]
            return [silhouette_of(m, crop.shape[1], crop.shape[0]) for crop, m in zip(crops, masks, strict=True)]


class Embedder:
    """Maps crops of its categories to unit vectors."""

    def __init__(
        self, model: EmbedderModel, engine: Engine, fingerprint: str = "", classifier: Classifier | None = None
    ) -> None:
        """Take a model that is loaded; `fingerprint` as in Classifier, which describes where it has a part in the vectors.

        Raises:
            EngineError: the classifier has a part in the vectors, and there is none.
        """
        if model.classifier_share and classifier is None:
            raise EngineError(f"embedder of {model.categories}: found no classifier, expected the one that describes")
        self.model = model
        self.fingerprint = fingerprint
        self._engine = engine
        self._classifier = classifier

    def embed(
        self, image_rgb: Image, boxes_px: list[Box], timings: Timings, descriptors: FloatArray | None = None
    ) -> FloatArray:
        """Joint embeddings, (boxes, dim) float32, rows of unit length.

        Args:
            image_rgb: that the boxes lie in.
            boxes_px: of the crops.
            timings: of the stages.
            descriptors: what the classifier made of these boxes, where it was asked before; else it is asked where
                it has a part in the vectors.

        Raises:
            EngineError: the engine failed, or its answer is not what the manifest says.
        """
        with timings.stage("preprocess"):
            batch = _crops(self.model.preprocess, image_rgb, boxes_px)
        with timings.stage("embed"):
            vectors = decode.unit_rows(_run_crops(self._engine, self.model, batch)[0])
        share = self.model.classifier_share
        if not share or self._classifier is None:
            return vectors
        if descriptors is None:
            descriptors = self._classifier.classify_with_features(image_rgb, boxes_px, timings).descriptors
        # the cosine of two such rows is that of each part, weighted by its share
        joint = np.hstack([np.sqrt(1.0 - share) * vectors, np.sqrt(share) * descriptors])
        return np.asarray(joint, np.float32)


def _crops(spec: Preprocess, image_rgb: Image, boxes_px: list[Box]) -> NDArray[np.generic]:
    return to_batch(spec, [to_canvas(spec, image.crop(image_rgb, box, spec.crop_margin))[0] for box in boxes_px])


def run_checked(engine: Engine, batch: NDArray[np.generic], shapes: list[tuple[int, ...]]) -> list[FloatArray]:
    """Run a batch; the outputs must be those that the manifest promises."""
    outputs = [np.asarray(output, np.float32) for output in engine.run(batch)]
    found = [output.shape for output in outputs]
    if found != shapes:
        raise EngineError(f"{engine.where}: found outputs of shapes {found}, expected {shapes}, as the manifest says")
    return outputs


def _run_crops(
    engine: Engine, model: ClassifierModel | EmbedderModel | LocaliserModel, batch: NDArray[np.generic]
) -> list[FloatArray]:
    """Run a batch in parts that the model takes."""
    parts = [batch[i : i + model.max_batch] for i in range(0, len(batch), model.max_batch)]
    answers = [run_checked(engine, part, model.output_shapes(len(part))) for part in parts]
    return [np.concatenate(rows) for rows in zip(*answers, strict=True)]


@dataclass(frozen=True, slots=True)
class Stages:
    """The models of one bundle, loaded and warm."""

    detector: Detector | None
    classifier: Classifier | None
    embedders: dict[str, Embedder]  # by category
    localiser: Localiser | None = None


def load_stages(
    folder: Path,
    manifest: Manifest,
    backend: Backend = "auto",
    threads: int = 1,
    cache: Path | None = None,
    precision: Precision = "shipped",
) -> Stages:
    """Load every model of a bundle and try each: one that does not fit is refused, and the first frame is not slow.

    Args:
        folder: of the bundle.
        manifest: of the bundle.
        backend: which library runs the models.
        threads: inside one operator, on a CPU.
        cache: folder of engines built on this machine; in the bundle when None.
        precision: which form of each model, where the bundle holds several.

    Raises:
        EngineError: a model cannot be loaded or run, answers in other shapes than the manifest says, or the bundle
            has no form for the back end.
    """
    backend = choose_backend(backend)
    sha256 = {entry.path: entry.sha256 for entry in manifest.files}

    def opened(model: ClassifierModel | EmbedderModel | LocaliserModel) -> tuple[Engine, str]:
        form, engine = engine_of(model)
        return engine, fingerprint_of(model, sha256[form], engine.library)

    def engine_of(model: DetectorModel | ClassifierModel | EmbedderModel | LocaliserModel) -> tuple[str, Engine]:
        form = model.files[choose_target(dict(model.files), model.ship, backend, precision)]
        return form, open_engine(folder / form, backend, threads, max_batch=model.max_batch, cache=cache)

    detector = None
    if manifest.detector is not None:
        together = manifest.detector.max_batch if gains_from_batches(backend, threads) else 1
        detector = Detector(manifest.detector, engine_of(manifest.detector)[1], together)
    classifier = Classifier(manifest.classifier, *opened(manifest.classifier)) if manifest.classifier else None
    embedders = {}
    for model in manifest.embedders:
        engine, fingerprint = opened(model)
        if classifier is not None and model.classifier_share:
            fingerprint = hashlib.sha256(f"{fingerprint} {classifier.fingerprint}".encode()).hexdigest()
        embedder = Embedder(model, engine, fingerprint, classifier)
        embedders.update(dict.fromkeys(model.categories, embedder))
    localiser = Localiser(manifest.localiser, *opened(manifest.localiser)) if manifest.localiser else None
    stages = Stages(detector, classifier, embedders, localiser)
    _try(stages)
    return stages


def _try(stages: Stages) -> None:
    """Run each model on its smallest batch and on its largest."""
    grey = np.full((96, 96, 3), 114, np.uint8)
    whole: list[Box] = [(0.0, 0.0, 96.0, 96.0)]
    if stages.detector is not None:
        stages.detector.detect([grey], Timings())
        stages.detector.detect([grey] * stages.detector.together, Timings())
    if stages.classifier is not None:
        stages.classifier.classify(grey, whole, Timings())
        stages.classifier.classify(grey, whole * stages.classifier.model.max_batch, Timings())
    if stages.localiser is not None:
        stages.localiser.locate(grey, whole, Timings())
        stages.localiser.locate(grey, whole * stages.localiser.model.max_batch, Timings())
    for embedder in set(stages.embedders.values()):
        embedder.embed(grey, whole, Timings())
        embedder.embed(grey, whole * embedder.model.max_batch, Timings())
