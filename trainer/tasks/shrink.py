"""Smaller embedders cut out of a trained one: some of its heads, or a shorter part of each.

A head is cut by its name (US 12,386,883: class and local, or class and outline, on small devices); its vector is cut
after its first numbers, which serve by themselves where it was trained with `shorter_dims`. A gallery of the whole
embedder is cut in the same way, so that nothing has to be embedded anew: `truncate_vectors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge.errors import TrainError
from edge.manifest import Head
from edge.types import FloatArray
from trainer.models.networks import Embedder, ModelCard, build_model, load_model, save_model


def truncate_vectors(vectors: FloatArray, heads: Sequence[Head], names: Sequence[str], dim: int | None = None) -> FloatArray:
    """The joint vectors that the cut embedder would give.

    Args:
        vectors: (n, dim of all heads), as the whole embedder gives them, or as a gallery of it keeps them.
        heads: of the whole embedder, in order.
        names: heads to keep, in any order; the order of `heads` stays.
        dim: of each head that is kept; None: all of it.

    Returns:
        (n, dim of the kept parts) float32, rows of unit length.
    """
    parts, start = [], 0
    for head in heads:
        if head.name in names:
            part = vectors[:, start : start + (dim or head.dim)]
            parts.append(part / np.linalg.norm(part, axis=1, keepdims=True).clip(1e-12))
        start += head.dim
    return np.asarray(np.concatenate(parts, axis=1) / np.sqrt(len(parts)), np.float32)


def shrink_embedder(folder: Path, out: Path, names: Sequence[str] | None = None, dim: int | None = None) -> ModelCard:
    """Write the cut embedder as a run folder of its own, to be exported like any other.

    Args:
        folder: of the whole embedder's run.
        out: to write to.
        names: heads to keep; None: all.
        dim: numbers of each head to keep; None: all.

    Raises:
        TrainError: the run is unusable, or has no such part.
    """
    network, card = load_model(folder)
    if not isinstance(network, Embedder):
        raise TrainError(f"{folder}: found a {card.kind}, expected an embedder")
    names = list(names or [head.name for head in card.heads])
    _require_parts(folder, card, names, dim)
    kept = [head.model_copy(update={"dim": dim or head.dim}) for head in card.heads if head.name in names]
    shorter = [length for length in card.shorter_dims if dim is None or length < dim]
    cut = card.model_copy(update={"heads": kept, "shorter_dims": shorter, "metrics": {}})
    smaller = build_model(cut)
    own = smaller.state_dict()
    weights = network.state_dict()
    # What a cut head's last layer has fewer of are rows: the numbers that it still gives.
    smaller.load_state_dict(
        {key: weights[key][: len(value)] if value.ndim else weights[key] for key, value in own.items()}
    )
    save_model(out, smaller, cut)
    return cut


def _require_parts(folder: Path, card: ModelCard, names: list[str], dim: int | None) -> None:
    found = [head.name for head in card.heads]
    if not set(names) <= set(found):
        raise TrainError(f"{folder}: found heads {found}, expected {names} among them")
    if card.joint == "sum" and set(names) != set(found):
        raise TrainError(f"{folder}: found heads that are summed, which serve together alone, expected all of {found}")
    lengths = [*card.shorter_dims, *(head.dim for head in card.heads)]
    if dim is not None and dim not in lengths:
        raise TrainError(f"{folder}: dim is {dim}, expected one it was trained for: {lengths}")
