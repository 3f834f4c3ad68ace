"""What a new bundle takes over from an older one, byte for byte: the models that no new network replaces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edge.manifest import EmbedderModel, LocaliserModel, Manifest
from quantize.network_spec import Model


@dataclass(frozen=True, slots=True)
class Carried:
    """A model of the older bundle and what that knows of it."""

    name: str
    model: Model
    evaluation: dict[str, Any]
    provenance: dict[str, Any]
    waived: list[str]


def models_of(base: Manifest, replacing: Sequence[Model]) -> Iterator[Carried]:
    """The older bundle's models that go on: of each kind, or of an embedder each category, that nothing replaces.

    Args:
        base: the older bundle.
        replacing: the models of the new one that are trained anew.
    """
    kinds = {type(model) for model in replacing}
    replaced = {c for model in replacing if isinstance(model, EmbedderModel) for c in model.categories}
    single = (base.detector, base.classifier, base.localiser, base.finder)
    found: list[Model] = [model for model in single if model is not None and type(model) not in kinds]
    for embedder in base.embedders:
        left = [category for category in embedder.categories if category not in replaced]
        rules = {category: rule for category, rule in embedder.open_set.items() if category in left}
        galleries = [one for one in embedder.compatible if one.category in left]
        # how much an outline counts was fitted on the masks of one localiser
        outlined = {} if LocaliserModel in kinds else {c: rule for c, rule in embedder.outline.items() if c in left}
        if left:
            update = {"categories": left, "open_set": rules, "compatible": galleries, "outline": outlined}
            found.append(embedder.model_copy(update=update))
    for model in found:
        name = PurePosixPath(model.files[model.ship]).name.removesuffix(f".{model.ship}.onnx")
        waived = [gate for gate in base.waived if gate.rpartition(".")[0] == name]
        known = base.evaluation.get(name, {}), base.provenance.get("models", {}).get(name, {})
        yield Carried(name, model, *known, waived)
