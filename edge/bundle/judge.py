"""Judge one engine of one model by the golden probes of a bundle, with every other model at its reference.

Rules this module keeps:
1. The reference is the FP32 form in ONNX Runtime on the CPU; without that form, the one that ships.
2. A detector is judged by the scene probes, a classifier and an embedder by the crop probes.
3. A model without probes is judged by agreement with the reference: the cosine of each output on the probe pictures, or
   on synthetic ones if the bundle has none. The evidence says so.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.bundle.golden_probes import MIN_COSINE, ProbeResult, run_scene_probes
from edge.errors import EngineError
from edge.imaging import image
from edge.inference.checked_run import check_names, run_checked
from edge.inference.engine import open_engine
from edge.inference.engine_choice import Model
from edge.inference.open_models import read_whitening
from edge.inference.postprocess import unit_rows
from edge.inference.preprocess import to_batch, to_canvas
from edge.inference.stages import Classifier, Detector, Embedder, Stages
from edge.manifest.embedder import EmbedderModel
from edge.manifest.manifest import Manifest, Probe
from edge.manifest.stages import ClassifierModel, DetectorModel, FinderModel
from edge.telemetry.timing import Timings
from edge.types import Box, Engine, FloatArray, Image

_COMPARED = 8  # pictures to compare outputs on
_SYNTHETIC_PX = 160


class Judge:
    """Judges engines of the models of one bundle."""

    def __init__(self, folder: Path, manifest: Manifest, threads: int = 1) -> None:
        """Open nothing yet.

        Args:
            folder: of the bundle.
            manifest: of the bundle.
            threads: of the reference.
        """
        self._folder, self._manifest, self._threads = folder, manifest, threads
        self._reference: tuple[int, list[list[FloatArray]]] | None = None  # outputs of the model that was judged last

    def judge(self, model: Model, engine: Engine) -> str:
        """Return what an engine passed, in words.

        Args:
            model: its manifest entry.
            engine: a form of the model, loaded.

        Raises:
            EngineError: it failed, or gives another result than the machine that packed the bundle.
        """
        check_names(engine, model.input_name, model.output_names)
        self._run_largest(model, engine)
        if isinstance(model, DetectorModel) and self._manifest.scene_probes:
            return self._scenes(model, engine)
        if isinstance(model, ClassifierModel) and self._manifest.probes:
            return self._categories(model, engine)
        if isinstance(model, EmbedderModel) and (probes := self._probes_of(model)):
            return self._vectors(model, engine, probes)
        return self._agreement(model, engine)

    def batch(self, model: Model, rows: int) -> NDArray[np.generic]:
        """Return an input for a model, of probe pictures or synthetic ones."""
        spec, pictures = model.preprocess, self._pictures
        canvases = [to_canvas(spec, pictures[row % len(pictures)])[0] for row in range(rows)]
        return to_batch(spec, canvases)

    def _run_largest(self, model: Model, engine: Engine) -> None:
        rows = 1 if isinstance(model, FinderModel) else model.max_batch
        run_checked(engine, self.batch(model, rows), model.output_shapes(rows), nan_share=1.0)

    def _scenes(self, model: DetectorModel, engine: Engine) -> str:
        stages = Stages(Detector(model, engine), None, {})
        results = run_scene_probes(self._folder, self._manifest.scene_probes, stages)
        if failed := [result for result in results if not result.passed]:
            raise EngineError(f"{len(failed)} of {len(results)} scene probes failed; {failed[0]}")
        return _counted(len(results), "scene probe")

    def _categories(self, model: ClassifierModel, engine: Engine) -> str:
        classifier = Classifier(model, engine)
        failed = []
        for probe in self._manifest.probes:
            output = classifier.classify_with_features(*self._crop(probe), Timings())
            category = classifier.rank_categories(output.probabilities[0])[0].name
            cosine = 1.0
            if model.descriptor_dim:
                cosine = float(output.descriptors[0] @ self._descriptors[probe.path][0])
            result = ProbeResult(probe, category, cosine)
            failed += [] if result.passed else [result]
        if failed:
            raise EngineError(f"{len(failed)} of {len(self._manifest.probes)} probes failed; {failed[0]}")
        return _counted(len(self._manifest.probes), "probe")

    def _probes_of(self, model: EmbedderModel) -> list[Probe]:
        return [probe for probe in self._manifest.probes if probe.category in model.categories]

    def _vectors(self, model: EmbedderModel, engine: Engine, probes: list[Probe]) -> str:
        whitening = read_whitening(self._folder, model)
        embedder = Embedder(model, engine, classifier=self._classifier, whitening=whitening)
        failed = []
        for probe in probes:
            descriptors = self._descriptors[probe.path] if model.classifier_share else None
            vector = embedder.embed(*self._crop(probe), Timings(), descriptors)[0]
            expected = unit_rows(np.asarray(probe.embedding_i8, np.float32))
            result = ProbeResult(probe, None, float(vector @ expected))
            failed += [] if result.passed else [result]
        if failed:
            raise EngineError(f"{len(failed)} of {len(probes)} probes failed; {failed[0]}")
        return _counted(len(probes), "probe")

    def _agreement(self, model: Model, engine: Engine) -> str:
        cosines = [
            _cosine(got, want)
            for number, wanted in enumerate(self._wanted(model))
            for got, want in zip(self._outputs(model, engine, number), wanted, strict=True)
        ]
        worst = min(cosines)
        on = "probe pictures" if self._manifest.probes or self._manifest.scene_probes else "synthetic pictures"
        if worst < MIN_COSINE:
            raise EngineError(f"differs from the reference on {on}: cosine {worst:.4f}, expected {MIN_COSINE} at least")
        return f"agrees with the reference on {on}, cosine {worst:.4f}; the bundle has no probes for it"

    def _wanted(self, model: Model) -> list[list[FloatArray]]:
        """Return the reference's outputs for each picture."""
        if self._reference is None or self._reference[0] != id(model):
            engine = open_reference(self._folder, model, self._threads)
            outputs = [self._outputs(model, engine, number) for number in range(min(_COMPARED, len(self._pictures)))]
            self._reference = id(model), outputs
        return self._reference[1]

    def _outputs(self, model: Model, engine: Engine, number: int) -> list[FloatArray]:
        canvas, _ = to_canvas(model.preprocess, self._pictures[number])
        return run_checked(engine, to_batch(model.preprocess, [canvas]), model.output_shapes(1))

    def _crop(self, probe: Probe) -> tuple[Image, list[Box]]:
        picture = image.read_image(self._folder / probe.path)
        return picture, [(0.0, 0.0, float(picture.shape[1]), float(picture.shape[0]))]

    @cached_property
    def _classifier(self) -> Classifier | None:
        model = self._manifest.classifier
        return None if model is None else Classifier(model, open_reference(self._folder, model, self._threads))

    @cached_property
    def _descriptors(self) -> dict[str, FloatArray]:
        """The reference classifier's descriptor of each probe, by path, (1, descriptor_dim)."""
        if self._classifier is None:
            return {}
        classify = self._classifier.classify_with_features
        return {probe.path: classify(*self._crop(probe), Timings()).descriptors for probe in self._manifest.probes}

    @cached_property
    def _pictures(self) -> list[Image]:
        scenes, crops = self._manifest.scene_probes, self._manifest.probes
        paths = [scene.path for scene in scenes] + [crop.path for crop in crops]
        step = max(1, len(paths) // _COMPARED)
        return [image.read_image(self._folder / path) for path in paths[::step][:_COMPARED]] or _synthetic_pictures()


def reference_form(model: Model) -> str:
    """Return the form that the others are compared with."""
    return "fp32" if "fp32" in model.files else model.ship


def open_reference(folder: Path, model: Model, threads: int = 1) -> Engine:
    """Load the reference of a model.

    Raises:
        EngineError: ONNX Runtime rejects it.
    """
    path = folder / model.every_file[reference_form(model)]
    return open_engine(path, "onnxruntime", threads, max_batch=model.max_batch)


def _synthetic_pictures() -> list[Image]:
    """Return pictures of soft coloured shapes with noise; always the same."""
    random = np.random.default_rng(1)
    pictures = []
    for _ in range(_COMPARED):
        coarse = random.integers(0, 256, (5, 5, 3)).astype(np.uint8)
        soft = image.resize(coarse, _SYNTHETIC_PX, _SYNTHETIC_PX)
        noisy = soft.astype(np.int16) + random.integers(-12, 13, soft.shape)
        pictures.append(noisy.clip(0, 255).astype(np.uint8))
    return pictures


def _cosine(got: FloatArray, want: FloatArray) -> float:
    one, other = got.astype(np.float64).ravel(), want.astype(np.float64).ravel()
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    if lengths == 0.0:
        return float(not one.any() and not other.any())
    return float(one @ other) / lengths


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''} passed"
