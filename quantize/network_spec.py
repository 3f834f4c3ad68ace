"""Spec of a network: a JSON file beside its FP32 ONNX file that describes input, outputs and postprocessing."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from edge.durable import write_durably
from edge.errors import QuantizeError, first_validation_error
from edge.finder_shape import FinderShape
from edge.manifest.embedder import EmbedderModel, Head
from edge.manifest.model import Preprocess, Target
from edge.manifest.stages import ClassifierModel, DetectorModel, FinderModel, LocaliserModel

Kind = Literal["detector", "classifier", "embedder", "localiser", "finder"]
Model = DetectorModel | ClassifierModel | EmbedderModel | LocaliserModel | FinderModel
MAX_BATCH = 8  # crops of one frame, or frames of several cameras, in one run


class Spec(BaseModel):
    """Properties of a network that do not depend on its precision. Saved as `<model>.json` beside `<model>.onnx`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    kind: Kind
    input_name: str = "image"
    output_names: list[str]
    preprocess: Preprocess
    decoder: Literal["ltrb", "yolox"] = "ltrb"  # detector
    strides: list[int] = []  # detector, localiser: input pixels per cell
    labels: list[str] = []  # detector, classifier
    keep_labels: list[str] | None = None  # detector: report only these
    categories: list[str] = []  # embedder
    heads: list[Head] = []  # embedder
    finder: FinderShape | None = None
    channels: int = 0  # finder: channels of its representation
    guide: int = 0  # finder: channels of the scene that its conversion network reads
    score_threshold: float = 0.3  # detector, finder
    iou_threshold: float = 0.6  # detector
    temperature: float = 1.0  # classifier
    threshold: float = 0.5  # classifier: below it the category is unknown
    descriptor_dim: int = 0  # classifier: length of its second output
    max_batch: int = MAX_BATCH  # largest batch; the fixed batch size of an ONNX file that has one
    record: dict[str, Any] = {}  # seed, data, recipe and metrics, as the trainer wrote them


def spec_path(onnx: Path) -> Path:
    """Return the path of the spec of an ONNX file."""
    return onnx.with_suffix(".json")


def conversion_path(onnx: Path) -> Path:
    """Return the path of the conversion network of a finder's ONNX file."""
    return onnx.with_name(f"{onnx.name.split('.')[0]}.conversion.onnx")


def conversion_int8_path(onnx: Path) -> Path:
    """Return the path of the INT8 form of a finder's conversion network."""
    return onnx.with_name(f"{onnx.name.split('.')[0]}.conversion.ort-u8.onnx")


def write_spec(onnx: Path, spec: Spec) -> None:
    """Write a spec beside its ONNX file."""
    write_durably(spec_path(onnx), spec.model_dump_json(indent=1).encode())


def read_spec(path: Path) -> Spec:
    """Read a spec.

    Raises:
        QuantizeError: the file is missing or is not a spec.
    """
    try:
        return Spec.model_validate_json(path.read_bytes().removeprefix(codecs.BOM_UTF8))
    except OSError as error:
        raise QuantizeError(f"{path}: cannot read the spec of the ONNX file: {error.strerror}") from error
    except ValidationError as error:
        raise QuantizeError(f"{path}: {first_validation_error(error)}") from error


def model_entry(
    spec: Spec,
    files: dict[Target, str],
    ship: Target,
    why: str,
    conversion: str | None = None,
    conversion_int8: str | None = None,
) -> Model:
    """Return the manifest entry of a network, without the values that packing fits.

    Args:
        spec: spec of the network.
        files: path of each form in the bundle.
        ship: the form that was chosen.
        why: the reason for that choice.
        conversion: path of a finder's conversion network in the bundle.
        conversion_int8: path of its INT8 form; None: FP32 runs beside an INT8 trunk, too.

    Raises:
        QuantizeError: the spec lacks what its kind needs, or a value is out of its range.
    """
    try:
        entry = _model_entry(spec, files, ship, why, conversion)
    except ValidationError as error:
        raise QuantizeError(f"{spec.kind}: the spec's {first_validation_error(error)}") from error
    return entry if conversion_int8 is None else entry.model_copy(update={"conversion_int8": conversion_int8})


def _model_entry(spec: Spec, files: dict[Target, str], ship: Target, why: str, conversion: str | None) -> Model:
    shared: dict[str, Any] = {
        "files": files,
        "input_name": spec.input_name,
        "output_names": spec.output_names,
        "preprocess": spec.preprocess,
        "ship": ship,
        "why": why,
        "max_batch": spec.max_batch,
    }
    if spec.kind == "localiser":
        if len(spec.strides) != 1:
            raise QuantizeError(f"localiser: found {len(spec.strides)} strides, expected 1")
        return LocaliserModel(**shared, stride=spec.strides[0])
    if spec.kind == "finder":
        if spec.finder is None or conversion is None:
            raise QuantizeError(
                "finder: the spec has no shape, or the conversion network is missing; export the finder again"
            )
        return FinderModel(
            **shared,
            shape=spec.finder,
            channels=spec.channels,
            guide=spec.guide,
            conversion=conversion,
            score_threshold=spec.score_threshold,
        )
    if spec.kind != "embedder" and not spec.labels:
        raise QuantizeError(f"{spec.kind}: the spec has no labels; give at least one")
    if spec.kind == "detector":
        return DetectorModel(
            **shared,
            decoder=spec.decoder,
            strides=spec.strides,
            labels=spec.labels,
            keep_labels=spec.keep_labels,
            score_threshold=spec.score_threshold,
            iou_threshold=spec.iou_threshold,
        )
    if spec.kind == "classifier":
        return ClassifierModel(
            **shared,
            labels=spec.labels,
            temperature=spec.temperature,
            threshold=spec.threshold,
            descriptor_dim=spec.descriptor_dim,
        )
    if not spec.heads:
        raise QuantizeError("embedder: the spec has no heads; give at least one")
    return EmbedderModel(**shared, categories=spec.categories, heads=spec.heads, space_id="0" * 64)
