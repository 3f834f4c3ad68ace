"""The base bundle: an older bundle whose models a new one keeps, byte for byte, unless a new network replaces them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edge.manifest.embedder import EmbedderModel
from edge.manifest.manifest import Manifest
from edge.manifest.stages import LocaliserModel
from quantize.network_spec import Model


@dataclass(frozen=True, slots=True)
class KeptModel:
    """A model of the base bundle, with its evaluation and provenance."""

    name: str
    model: Model
    evaluation: dict[str, Any]
    provenance: dict[str, Any]
    waived: list[str]


def kept_models(base: Manifest, replacing: Sequence[Model]) -> Iterator[KeptModel]:
    """Yield the models of the base bundle that no new model replaces.

    A new model replaces the old one of its kind; a new embedder replaces the old ones in its categories only.

    Args:
        base: the base bundle.
        replacing: the new models.
    """
    kinds = {type(model) for model in replacing}
    replaced = {c for model in replacing if isinstance(model, EmbedderModel) for c in model.categories}
    single = (base.detector, base.classifier, base.localiser, base.finder)
    found: list[Model] = [model for model in single if model is not None and type(model) not in kinds]
    for embedder in base.embedders:
        left = [category for category in embedder.categories if category not in replaced]
        open_sets = {category: rule for category, rule in embedder.open_set.items() if category in left}
        galleries = [one for one in embedder.compatible if one.category in left]
        # the weight of silhouettes was fitted on the masks of one localiser
        silhouette_rules = (
            {} if LocaliserModel in kinds else {c: rule for c, rule in embedder.outline.items() if c in left}
        )
        if left:
            update = {"categories": left, "open_set": open_sets, "compatible": galleries, "outline": silhouette_rules}
            found.append(embedder.model_copy(update=update))
    for model in found:
        name = PurePosixPath(model.files[model.ship]).name.removesuffix(f".{model.ship}.onnx")
        waived = [gate for gate in base.waived if gate.startswith(f"{name}.")]
        evaluation, provenance = base.evaluation.get(name, {}), base.provenance.get("models", {}).get(name, {})
        yield KeptModel(name, model, evaluation, provenance, waived)
