"""Pictures that a trained network takes for the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from edge.errors import TrainError
from trainer.data.batches import Sample, load_canvases
from trainer.data.card import Row, describe_pairs
from trainer.data.crops import answers
from trainer.data.duplicates import similar_pairs
from trainer.models.networks import Classifier, load_model


class _Pooled(nn.Module):
    """A classifier's trunk as an embedder."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.trunk = model.trunk

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)[-1].mean(dim=(2, 3))


def alike_to_model(listed: Sequence[Sample], folder: Path, least: float, base: str) -> dict[str, Any]:
    """Pairs of objects, not of one picture, whose vectors are nearly parallel.

    Args:
        listed: pictures of single objects; of an embedder's categories only those are compared.
        folder: run folder of a classifier, whose trunk is used, or of an embedder.
        least: cosine.
        base: that paths are shortened by.

    Raises:
        TrainError: the folder holds no such model.
    """
    module, card = load_model(folder)
    if card.kind == "detector":
        raise TrainError(f"{folder}: found a detector, expected a classifier or an embedder to compare pictures")
    served = [s for s in listed if not card.categories or s.category in card.categories]
    samples, canvases, _ = load_canvases(served, card.preprocess)
    vectors = answers(_Pooled(module) if card.kind == "classifier" else module, canvases, card.preprocess)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
    pairs, cosines = similar_pairs(vectors, least)
    apart = np.array([samples[a].path != samples[b].path for a, b in pairs], bool)
    pairs, cosines = pairs[apart], cosines[apart]
    order = np.argsort(-cosines)
    rows = [Row(sample.path, sample.split, ((sample.category, sample.item),)) for sample in samples]
    told = [f"cosine {value:.3f}" for value in cosines[order].tolist()]
    rule = f"cosine of {card.kind} {folder.name} {least:g} or more"
    return describe_pairs(rows, pairs[order], told, base) | {"rule": rule}
