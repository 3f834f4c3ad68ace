"""Near duplicates as a trained network sees them: pictures with nearly parallel vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from dataset_formats.records import Sample
from edge.errors import TrainError
from trainer.data.crops import predict
from trainer.data.data_card import Row, describe_pairs
from trainer.data.duplicates import similar_pairs
from trainer.data.pictures import load_canvases
from trainer.models.networks import Classifier, load_model


class _Pooled(nn.Module):
    """A classifier's trunk, pooled, as an embedder."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.trunk = model.trunk

    def forward(self, x: Tensor) -> Tensor:
        return self.trunk(x)[-1].mean(dim=(2, 3))


def find_embedding_duplicates(listed: Sequence[Sample], folder: Path, least: float, base: str) -> dict[str, Any]:
    """Describe the pairs of objects in different pictures whose vectors are nearly parallel.

    Args:
        listed: pictures of single objects; an embedder compares only those of its categories.
        folder: run folder of an embedder, or of a classifier, whose trunk is used.
        least: smallest cosine of a pair.
        base: prefix to remove from paths.

    Raises:
        TrainError: the folder holds a detector or no model.
    """
    module, card = load_model(folder)
    if card.kind == "detector":
        raise TrainError(f"{folder}: this is a detector; give the run folder of a classifier or embedder")
    comparable = [s for s in listed if not card.categories or s.category in card.categories]
    samples, canvases, _ = load_canvases(comparable, card.preprocess)
    vectors = predict(_Pooled(module) if card.kind == "classifier" else module, canvases, card.preprocess)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-12
    pairs, cosines = similar_pairs(vectors, least)
    apart = np.array([samples[a].path != samples[b].path for a, b in pairs], bool)
    pairs, cosines = pairs[apart], cosines[apart]
    order = np.argsort(-cosines)
    rows = [Row(sample.path, sample.split, ((sample.category, sample.item),)) for sample in samples]
    distances = [f"cosine {value:.3f}" for value in cosines[order].tolist()]
    rule = f"cosine of {card.kind} {folder.name} {least:g} or more"
    return describe_pairs(rows, pairs[order], distances, base) | {"rule": rule}
