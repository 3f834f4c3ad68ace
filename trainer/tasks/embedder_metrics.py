"""How well an embedder finds items: the metrics of its validation pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trainer.data.crops import Crops, predict
from trainer.metrics import map_at_r, rank, recall_at, similarity
from trainer.models.networks import ModelCard
from trainer.tasks.shrink_embedder import truncate_vectors


def validate_embedder(model: nn.Module, crops: Crops) -> dict[str, NDArray[np.float64]]:
    """Return per-picture values whose means are the metrics; only those that the data allows.

    Validation crops are searched among the training crops; those of a class-disjoint split among each other.
    """
    if not crops.val:
        return {}
    queries = predict(model, crops.val_canvases, crops.spec)
    items = [sample.item for sample in crops.val]
    train_items = [sample.item for sample in crops.train]
    if not set(items) & set(train_items):  # a class-disjoint split: no training crop shows these items
        ranked = rank(similarity(queries, queries), items, items, same_set=True)
        return {"recall_1_val": recall_at(ranked, 1), "map_r_val": map_at_r(ranked)}
    train_canvases = crops.train_canvases()
    ranked = rank(similarity(queries, predict(model, train_canvases, crops.spec)), items, train_items)
    values = {"recall_1_train": recall_at(ranked, 1), "map_r_train": map_at_r(ranked)}
    if crops.gallery:
        among = similarity(queries, predict(model, crops.gallery_canvases, crops.spec))
        ranked = rank(among, items, [sample.item for sample in crops.gallery])
        values["recall_1_gallery"], values["recall_5_gallery"] = recall_at(ranked, 1), recall_at(ranked, 5)
    return values


def validation_recall(model: nn.Module, crops: Crops) -> float:
    """Return the mean Recall@1 of the validation pictures; the data has some."""
    values = validate_embedder(model, crops)
    return float(values["recall_1_val" if "recall_1_val" in values else "recall_1_train"].mean())


def validate_shorter(model: nn.Module, crops: Crops, card: ModelCard) -> dict[str, NDArray[np.float64]]:
    """Return Recall@1 of the shorter vectors, which were trained together with the whole ones."""
    if not crops.val or not card.shorter_dims:
        return {}
    queries, among = (predict(model, c, crops.spec) for c in (crops.val_canvases, crops.train_canvases()))
    items, known = ([sample.item for sample in samples] for samples in (crops.val, crops.train))
    names = [part.name for part in card.vector_parts]
    values = {}
    for dim in card.shorter_dims:
        cut = (truncate_vectors(vectors, card.vector_parts, names, dim) for vectors in (queries, among))
        values[f"recall_1_train_dim_{dim}"] = recall_at(rank(similarity(*cut), items, known), 1)
    return values
