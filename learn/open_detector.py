"""Opens a detector from wherever it is: a training run, a bundle, or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.bundle.bundle import MANIFEST_NAME, read_bundle
from edge.errors import TrainError
from edge.types import Detection, Image
from quantize.command import RUN_CARD
from quantize.network_spec import Spec

Detect = Callable[[Image], list[Detection]]  # (height, width, 3) RGB to objects, best first


@dataclass(frozen=True, slots=True)
class OpenedDetector:
    """A detector that is ready."""

    detect: Detect
    told: str  # for people: what it is
    score_threshold: float  # lowest score of an object


def open_detector(
    source: Path,
    spec: str | Spec | None = None,
    keep_labels: Sequence[str] | None = None,
    threshold: float | None = None,
) -> OpenedDetector:
    """Open a detector.

    Args:
        source: run folder of `edge-train detector`, bundle folder, or ONNX file.
        spec: of an ONNX file, itself or as for `quantize.detector_specs.find_spec`.
        keep_labels: the only labels of an ONNX file to use; None: as in its spec.
        threshold: lowest score of an object; None: that of the detector.

    Raises:
        TrainError: there is no detector at this path, or it takes no spec or labels.
        QuantizeError: an ONNX file has no spec and is no YOLOX.
        BundleError, EngineError: a bundle is damaged, or the model cannot run here.
    """
    if source.is_dir() and (spec is not None or keep_labels is not None):
        raise TrainError(f"{source}: --detector-spec and --keep-labels are for ONNX files, and this is a folder")
    if (source / RUN_CARD).is_file():
        return _of_run(source, threshold)
    if (source / MANIFEST_NAME).is_file():
        return _of_bundle(source, threshold)
    if source.is_dir() or source.suffix != ".onnx":
        raise TrainError(
            f"{source}: is no detector; give a run folder of edge-train detector, a bundle, or an ONNX file"
        )
    return _of_onnx(source, spec, keep_labels, threshold)


def _of_run(run: Path, threshold: float | None) -> OpenedDetector:
    from trainer.labelling.auto_label import TrainedDetector
    from trainer.models.networks import load_card

    trained, card = TrainedDetector(run), load_card(run)
    least = card.score_threshold if threshold is None else threshold
    label = card.labels[0] if len(card.labels) == 1 else "object"  # a proposal does not name its class

    def detect(image_rgb: Image) -> list[Detection]:
        return [Detection(one.box_px, one.score, label) for one in trained.propose(image_rgb) if one.score >= least]

    return OpenedDetector(detect, f"the training run {run.name}", least)


def _of_bundle(folder: Path, threshold: float | None) -> OpenedDetector:
    from edge.inference.stages import load_stages
    from edge.telemetry.timing import Timings

    manifest = read_bundle(folder).manifest
    if manifest.detector is None:
        raise TrainError(f"{folder}: this bundle has no detector; give a bundle, run folder or ONNX file with one")
    if threshold is not None:
        model = manifest.detector.model_copy(update={"score_threshold": threshold})
        manifest = manifest.model_copy(update={"detector": model})
    alone = manifest.model_copy(update={"classifier": None, "localiser": None, "embedders": [], "finder": None})
    detector = load_stages(folder, alone, "onnxruntime").detector
    assert detector is not None
    least = detector.model.score_threshold
    told = f"the detector of bundle {manifest.bundle_id}"
    return OpenedDetector(lambda image_rgb: detector.detect([image_rgb], Timings())[0], told, least)


def _of_onnx(
    file: Path, given: str | Spec | None, keep_labels: Sequence[str] | None, threshold: float | None
) -> OpenedDetector:
    from edge.inference.engine import open_engine
    from edge.inference.stages import Detector
    from edge.manifest.stages import DetectorModel
    from edge.telemetry.timing import Timings
    from quantize.detector_specs import find_spec
    from quantize.network_spec import model_entry

    spec = given if isinstance(given, Spec) else find_spec(file, given, keep_labels)
    if threshold is not None:
        spec = spec.model_copy(update={"score_threshold": threshold})
    model = model_entry(spec, {"fp32": file.name}, "fp32", "as it is")
    if not isinstance(model, DetectorModel):
        raise TrainError(f"{file}: its spec says {spec.kind}; give a detector")
    detector = Detector(model, open_engine(file, "onnxruntime"))
    return OpenedDetector(
        lambda image_rgb: detector.detect([image_rgb], Timings())[0], f"the file {file.name}", model.score_threshold
    )
