"""The stages of a bundle (detector, classifier, localiser, embedders): preprocess, run the engine, decode."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.engine_store.engine_store import EngineStore
from edge.engine_store.stored_engine import Readiness, StoredEngine
from edge.errors import EngineError
from edge.imaging.guided_filter import refine_mask
from edge.imaging.pyramid import Pyramid, pyramid_of
from edge.inference import postprocess as decode
from edge.inference.checked_run import run_checked, run_crops, unit_vectors
from edge.inference.engine import Backend, Precision
from edge.inference.engine_choice import EngineChoice, Resolved, models_of, resolve
from edge.inference.fingerprint import fingerprint_of
from edge.inference.open_models import NAN_CELLS, ModelOpener, OpenOptions, read_whitening
from edge.inference.postprocess import WhiteningMap
from edge.inference.preprocess import Placement, to_batch, to_canvas
from edge.manifest.embedder import EmbedderModel
from edge.manifest.manifest import Manifest
from edge.manifest.model import Preprocess
from edge.manifest.stages import ClassifierModel, DetectorModel, FinderModel, LocaliserModel
from edge.silhouettes.silhouette import silhouette_of
from edge.telemetry.counters import Counters
from edge.telemetry.timing import Timings
from edge.types import UNFAMILIAR, Box, Category, Detection, FloatArray, Image, Runnable, Silhouette

_MIN_BOX_PX = 2.0


class Detector:
    """Finds every object in a frame."""

    def __init__(self, model: DetectorModel, engine: Runnable, batch_size: int = 1) -> None:
        """Wrap a loaded model.

        Args:
            model: the manifest's entry.
            engine: runs the model.
            batch_size: frames to run at once, at most the model's `max_batch`.
        """
        self.model = model
        self.batch_size = batch_size
        self._engine = engine
        keep = model.keep_labels
        self._wanted = None if keep is None else np.array([label in keep for label in model.labels], np.bool_)

    def detect(self, pictures: Sequence[Image | Pyramid], timings: Timings) -> list[list[Detection]]:
        """Find the objects of each frame, best first.

        Raises:
            EngineError: the engine failed, or its outputs do not match the manifest.
        """
        found = []
        for first in range(0, len(pictures), self.batch_size):
            found += self._detect(pictures[first : first + self.batch_size], timings)
        return found

    def _detect(self, pictures: Sequence[Image | Pyramid], timings: Timings) -> list[list[Detection]]:
        spec = self.model.preprocess
        with timings.stage("preprocess"):
            canvases, placements = zip(*(to_canvas(spec, picture) for picture in pictures), strict=True)
            batch = to_batch(spec, list(canvases))
        with timings.stage("detect"):
            outputs = run_checked(self._engine, batch, self.model.output_shapes(len(batch)), NAN_CELLS)
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
        reported = (placed.visible_sides_px(boxes) >= _MIN_BOX_PX).all(axis=1)
        if self._wanted is not None:
            reported &= self._wanted[classes]
        # A box that is not reported must neither suppress another one nor count towards the limit.
        if not reported.all():
            boxes, scores, classes = boxes[reported], scores[reported], classes[reported]
        kept = decode.non_maximum_suppression(boxes, scores, model.iou_threshold)
        rows = zip(boxes[kept].tolist(), scores[kept].tolist(), classes[kept].tolist(), strict=True)
        return [
            Detection(placed.to_source((x0, y0, x1, y1)), score, model.labels[number])
            for (x0, y0, x1, y1), score, number in rows
        ]


@dataclass(frozen=True, slots=True)
class ClassifierOutput:
    """A classifier's output for crops, one row each."""

    probabilities: FloatArray  # (boxes, labels), calibrated; rows sum to 1, or to UNFAMILIAR
    descriptors: FloatArray  # (boxes, descriptor_dim), rows of unit length; (boxes, 0) if the model has no descriptor


class Classifier:
    """Classifies crops into categories."""

    def __init__(self, model: ClassifierModel, engine: Runnable, fingerprint: str = "") -> None:
        """Wrap a loaded model.

        Args:
            model: the manifest's entry.
            engine: runs the model.
            fingerprint: see edge.inference.fingerprint; if empty, the model's outputs are not cached.
        """
        self.model = model
        self.fingerprint = fingerprint
        self._engine = engine

    def classify_with_features(
        self, picture: Image | Pyramid, boxes_px: list[Box], timings: Timings
    ) -> ClassifierOutput:
        """Return the probabilities and descriptors of crops.

        Raises:
            EngineError: the engine failed, or its outputs do not match the manifest.
        """
        with timings.stage("preprocess"):
            batch = _crops(self.model.preprocess, picture, boxes_px)
        with timings.stage("classify"):
            logits, *raw_descriptors = run_crops(self._engine, self.model, batch)
        with timings.stage("postprocess"):
            descriptors = (
                decode.unit_rows(raw_descriptors[0]) if raw_descriptors else np.zeros((len(boxes_px), 0), np.float32)
            )
            probabilities = decode.softmax(logits, self.model.temperature)
            if self.model.least_logit is not None:
                probabilities[logits.max(axis=1) < self.model.least_logit] *= UNFAMILIAR
            return ClassifierOutput(probabilities, descriptors)

    def logits(self, picture: Image | Pyramid, boxes_px: list[Box], timings: Timings) -> FloatArray:
        """Return the logits of crops, (boxes, labels) float32; the largest is low where a crop is unfamiliar.

        Raises:
            EngineError: the engine failed, or its outputs do not match the manifest.
        """
        with timings.stage("preprocess"):
            batch = _crops(self.model.preprocess, picture, boxes_px)
        with timings.stage("classify"):
            return run_crops(self._engine, self.model, batch)[0]

    def classify(self, picture: Image | Pyramid, boxes_px: list[Box], timings: Timings) -> FloatArray:
        """Return calibrated probabilities, (boxes, labels) float32.

        Raises:
            EngineError: the engine failed, or its outputs do not match the manifest.
        """
        return self.classify_with_features(picture, boxes_px, timings).probabilities

    def rank_categories(self, probabilities: FloatArray) -> list[Category]:
        """Return one row of probabilities as categories, best first."""
        order = np.argsort(-probabilities, kind="stable")
        return [Category(self.model.labels[i], float(probabilities[i])) for i in order]


class Localiser:
    """Segments the object in crops."""

    def __init__(self, model: LocaliserModel, engine: Runnable, fingerprint: str = "") -> None:
        """Wrap a loaded model; `fingerprint` as in Classifier."""
        self.model = model
        self.fingerprint = fingerprint
        self._engine = engine

    def locate(self, picture: Image | Pyramid, boxes_px: list[Box], timings: Timings) -> list[NDArray[np.uint8]]:
        """Return the mask of each crop, (h, w), 0..255, coarser than the crop: its box grown by the model's margin.

        Raises:
            EngineError: the engine failed, or its outputs do not match the manifest.
        """
        spec, stride = self.model.preprocess, self.model.stride
        with timings.stage("preprocess"):
            pyramid = pyramid_of(picture)
            crops = [pyramid.crop(box, spec.crop_margin) for box in boxes_px]
            canvases, placements = zip(*(to_canvas(spec, crop) for crop in crops), strict=True)
            batch = to_batch(spec, list(canvases))
        with timings.stage("localise"):
            logits = run_crops(self._engine, self.model, batch)[0][:, 0]
        masks = np.rint(255.0 / (1.0 + np.exp(-logits.clip(-30.0, 30.0)))).astype(np.uint8)
        sizes = [
            (round(p.source_height * p.scale_y / stride), round(p.source_width * p.scale_x / stride))
            for p in placements
        ]
        return [mask[: max(1, high), : max(1, wide)] for mask, (high, wide) in zip(masks, sizes, strict=True)]

    def silhouettes(self, picture: Image | Pyramid, boxes_px: list[Box], timings: Timings) -> list[Silhouette | None]:
        """Return the silhouette of the object in each box; None where the mask is empty.

        Raises:
            EngineError: the engine failed, or its outputs do not match the manifest.
        """
        pyramid = pyramid_of(picture)
        masks = self.locate(pyramid, boxes_px, timings)
        with timings.stage("postprocess"):
            crops = [pyramid.crop(box, self.model.preprocess.crop_margin) for box in boxes_px]
            if self.model.guided_radius:
                masks = [
                    refine_mask(crop, mask, self.model.guided_radius) for crop, mask in zip(crops, masks, strict=True)
                ]
            return [silhouette_of(m, crop.width, crop.height) for crop, m in zip(crops, masks, strict=True)]


class Embedder:
    """Maps crops of its categories to unit vectors."""

    def __init__(
        self,
        model: EmbedderModel,
        engine: Runnable,
        fingerprint: str | Callable[[], str] = "",
        classifier: Classifier | None = None,
        whitening: WhiteningMap | None = None,
    ) -> None:
        """Wrap a model; `fingerprint` as in Classifier, or what returns it once the model was loaded.

        The classifier provides descriptors for models with a `classifier_share`, and `whitening` is the last step of
        models that have one.

        Raises:
            EngineError: the model has a `classifier_share` and there is no classifier, or its whitening is missing.
        """
        if model.classifier_share and classifier is None:
            raise EngineError(
                f"embedder of {model.categories}: needs a classifier, and the bundle has none; pack one into it"
            )
        if model.whitening is not None and whitening is None:
            raise EngineError(f"embedder of {model.categories}: needs its whitening; read {model.whitening.file}")
        self.model = model
        self._fingerprint = fingerprint
        self._engine = engine
        self._classifier = classifier
        self._whitening = whitening

    @property
    def fingerprint(self) -> str:
        """See edge.inference.fingerprint; an engine that was never loaded is loaded for it.

        Raises:
            NotLoadedError: it cannot be loaded.
        """
        fingerprint = self._fingerprint if isinstance(self._fingerprint, str) else self._fingerprint()
        if fingerprint and self._classifier is not None and self.model.classifier_share:
            return hashlib.sha256(f"{fingerprint} {self._classifier.fingerprint}".encode()).hexdigest()
        return fingerprint

    @property
    def was_loaded(self) -> bool:
        """Whether the fingerprint is known without a load."""
        return self._engine.was_loaded if isinstance(self._engine, StoredEngine) else True

    def readiness(self) -> Readiness:
        """Return whether it can run without waiting; if not, it is loaded in the background."""
        return self._engine.readiness() if isinstance(self._engine, StoredEngine) else "ready"

    def embed(
        self,
        picture: Image | Pyramid,
        boxes_px: list[Box],
        timings: Timings,
        descriptors: FloatArray | None = None,
        *,
        plain: bool = False,
    ) -> FloatArray:
        """Return joint embeddings, (boxes, dim) float32, rows of unit length.

        Args:
            picture: the picture.
            boxes_px: the crops in it.
            timings: of the stages.
            descriptors: the classifier's descriptors of these boxes, if already known; else the classifier runs if the
                model has a `classifier_share`.
            plain: the picture shows one object on a plain background, as in a catalogue.

        Raises:
            EngineError: the engine failed, or its outputs do not match the manifest.
        """
        with timings.stage("preprocess"):
            batch = _crops(self.model.preprocess, picture, boxes_px)
        with timings.stage("embed"):
            vectors = self._vectors(batch)
        if descriptors is None and self.model.classifier_share and self._classifier is not None:
            descriptors = self._classifier.classify_with_features(picture, boxes_px, timings).descriptors
        return self._joint(vectors, descriptors, plain=plain)

    def embed_whole(
        self, pictures: Sequence[Image | Pyramid], timings: Timings, *, plain: bool | Sequence[bool] = False
    ) -> FloatArray:
        """Return the joint embedding of each whole picture, (pictures, dim), as `embed` does, in as few runs as fit.

        Args:
            pictures: the pictures.
            timings: of the stages.
            plain: whether they, or each of them, show one object on a plain background.

        Raises:
            EngineError: the engine failed, or its outputs do not match the manifest.
        """
        whole = [(one, [(0.0, 0.0, float(one.width), float(one.height))]) for one in map(pyramid_of, pictures)]
        with timings.stage("preprocess"):
            batch = np.concatenate([_crops(self.model.preprocess, one, box) for one, box in whole])
        with timings.stage("embed"):
            vectors = self._vectors(batch)
        if not self.model.classifier_share or self._classifier is None:
            return self._joint(vectors, None, plain=plain)
        found = [self._classifier.classify_with_features(one, box, timings).descriptors for one, box in whole]
        return self._joint(vectors, np.concatenate(found), plain=plain)

    def _vectors(self, batch: NDArray[np.generic]) -> FloatArray:
        return unit_vectors(self._engine.where, run_crops(self._engine, self.model, batch)[0])

    def _joint(
        self, vectors: FloatArray, descriptors: FloatArray | None, *, plain: bool | Sequence[bool]
    ) -> FloatArray:
        share = self.model.classifier_share
        if share and descriptors is not None and self._classifier is not None:
            # the cosine of two such rows is the sum of the parts' cosines, weighted by their shares
            joint = np.hstack([np.sqrt(1.0 - share) * vectors, np.sqrt(share) * descriptors])
            vectors = np.asarray(joint, np.float32)
        return vectors if self._whitening is None else self._whitening.map(vectors, plain=plain)


def _crops(spec: Preprocess, picture: Image | Pyramid, boxes_px: list[Box]) -> NDArray[np.generic]:
    pyramid = pyramid_of(picture)
    return to_batch(spec, [to_canvas(spec, pyramid.crop(box, spec.crop_margin))[0] for box in boxes_px])


@dataclass(frozen=True, slots=True)
class Stages:
    """The models of one bundle. All but the embedders stay loaded, these where the budget allows."""

    detector: Detector | None
    classifier: Classifier | None
    embedders: dict[str, Embedder]  # by category
    localiser: Localiser | None = None
    engines: dict[str, Resolved] = field(default_factory=dict)  # what runs each model, by its name
    store: EngineStore | None = None  # holds the engines; None: they are not in one


def load_stages(
    folder: Path,
    manifest: Manifest,
    backend: Backend = "auto",
    options: OpenOptions | None = None,
    precision: Precision = "shipped",
    choice: EngineChoice | None = None,
    store: EngineStore | None = None,
) -> Stages:
    """Load the models of a bundle and run each once: this rejects models that do not fit and warms up the engines.

    Args:
        folder: of the bundle.
        manifest: of the bundle.
        backend: which library runs the models.
        options: of every engine; the defaults when None.
        precision: which form of each model to run if the bundle holds several.
        choice: of this machine for this bundle; None: the default of edge.inference.engine_choice.
        store: an empty one, to hold the engines. If they do not all fit into its budget, each embedder is loaded when
            it is first needed. None: one without a limit.

    Raises:
        EngineError: a model cannot be loaded or run, its outputs do not match the manifest, or the bundle has no form
            for the back end.
    """
    store = store or EngineStore(None, Counters())
    options = replace(options or OpenOptions(), counts=store.counts)
    opener = ModelOpener(folder, manifest, options, store)
    named = {name: model for name, model in models_of(manifest).items() if not isinstance(model, FinderModel)}
    stored = {
        name: opener.add(name, model, resolve(name, model, backend, precision, choice)) for name, model in named.items()
    }
    store.start()

    def fingerprint(name: str, model: ClassifierModel | EmbedderModel | LocaliserModel) -> str:
        library = stored[name].library  # the first load may choose another form
        return fingerprint_of(model, opener.form_sha256(name, model), library)

    detector = classifier = localiser = None
    if (of_detector := manifest.detector) is not None:
        batch_size = opener.batch_size(of_detector, opener.engines["detector"])
        detector = Detector(of_detector, stored["detector"], batch_size)
    if (of_classifier := manifest.classifier) is not None:
        classifier = Classifier(of_classifier, stored["classifier"], fingerprint("classifier", of_classifier))
    if (of_localiser := manifest.localiser) is not None:
        localiser = Localiser(of_localiser, stored["localiser"], fingerprint("localiser", of_localiser))
    embedders = {}
    for name, model in named.items():
        if isinstance(model, EmbedderModel):
            whitening = read_whitening(folder, model)
            embedder = Embedder(model, stored[name], partial(fingerprint, name, model), classifier, whitening)
            embedders.update(dict.fromkeys(model.categories, embedder))
    return Stages(detector, classifier, embedders, localiser, opener.engines, store)
