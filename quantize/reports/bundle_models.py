"""The models of a packed bundle, each with its name, its manifest entry and its spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edge.bundle.bundle import Bundle, read_bundle
from edge.errors import QuantizeError
from edge.manifest.embedder import EmbedderModel
from edge.manifest.model import Target
from edge.manifest.stages import ClassifierModel, DetectorModel, FinderModel, LocaliserModel
from quantize.network_spec import Model, Spec

_DETECTOR = ("decoder", "strides", "labels", "keep_labels", "score_threshold", "iou_threshold")
_CLASSIFIER = ("labels", "temperature", "threshold", "descriptor_dim")
_FINDER = ("channels", "guide", "score_threshold")


@dataclass(frozen=True, slots=True)
class BundleModel:
    """One model of a bundle."""

    name: str  # in the bundle: detector, classifier, embedder-<category>
    model: Model
    spec: Spec
    files: Mapping[Target, Path]  # each form that the bundle holds
    evaluation: Mapping[str, Any]  # as packed
    provenance: Mapping[str, Any]


def bundle_models(folder: Path) -> list[BundleModel]:
    """Read and verify a bundle, and return its models.

    Raises:
        BundleError: the bundle is damaged.
        QuantizeError: it holds no model.
    """
    return models_of(read_bundle(folder))


def models_of(bundle: Bundle) -> list[BundleModel]:
    """Return the models of a bundle that was read.

    Raises:
        QuantizeError: it holds no model.
    """
    manifest = bundle.manifest
    single = (manifest.detector, manifest.classifier, manifest.localiser, manifest.finder)
    models: list[Model] = [model for model in (*single, *manifest.embedders) if model is not None]
    if not models:
        raise QuantizeError(f"{bundle.folder}: the bundle holds no model")
    found = []
    for model in models:
        name = PurePosixPath(model.files[model.ship]).name.removesuffix(f".{model.ship}.onnx")
        files = {target: bundle.path(path) for target, path in model.files.items()}
        provenance = manifest.provenance.get("models", {}).get(name, {})
        found.append(BundleModel(name, model, spec_of(model), files, manifest.evaluation.get(name, {}), provenance))
    return found


def spec_of(model: Model) -> Spec:
    """Return the spec of a model, as far as its manifest entry holds it."""
    told: dict[str, Any] = {
        "input_name": model.input_name,
        "output_names": model.output_names,
        "preprocess": model.preprocess,
        "max_batch": model.max_batch,
    }
    if isinstance(model, DetectorModel):
        return Spec(kind="detector", **told, **_of(model, _DETECTOR))
    if isinstance(model, ClassifierModel):
        return Spec(kind="classifier", **told, **_of(model, _CLASSIFIER))
    if isinstance(model, LocaliserModel):
        return Spec(kind="localiser", **told, strides=[model.stride])
    if isinstance(model, FinderModel):
        return Spec(kind="finder", **told, finder=model.shape, **_of(model, _FINDER))
    assert isinstance(model, EmbedderModel)
    own = [head for head in model.parts if head.name != "classifier"]
    return Spec(kind="embedder", **told, categories=model.categories, heads=own)


def _of(model: Model, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(model, name) for name in names}
