"""Make a smaller embedder from a trained one: keep some of its heads, or the first numbers of each.

Heads are chosen by name (US 12,386,883: class and local, or class and outline, on small devices). A vector is truncated
to its first numbers, which work alone if the embedder was trained with `shorter_dims`. `truncate_vectors` does the same
to a gallery of the whole embedder, so that you need not embed its pictures again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge.errors import TrainError
from edge.manifest.embedder import Head
from edge.types import FloatArray
from trainer.models.networks import Embedder, ModelCard, build_model, load_model, save_model


def truncate_vectors(
    vectors: FloatArray, heads: Sequence[Head], names: Sequence[str], dim: int | None = None
) -> FloatArray:
    """Return the joint vectors that the smaller embedder would give.

    Args:
        vectors: (n, dim of all heads), of the whole embedder or of its gallery.
        heads: heads of the whole embedder, in order.
        names: heads to keep, in any order; the order of `heads` stays.
        dim: numbers of each head to keep; None: all.

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
    """Write the smaller embedder as a run folder, to be exported like any other.

    Args:
        folder: run of the whole embedder.
        out: run folder to write.
        names: heads to keep; None: all.
        dim: numbers of each head to keep; None: all.

    Raises:
        TrainError: the run cannot be used, or lacks a head or length.
    """
    network, card = load_model(folder)
    if card.free is not None:
        raise TrainError(f"{folder}: {card.free} has no heads; make it again with --dim for a shorter vector")
    if not isinstance(network, Embedder):
        raise TrainError(f"{folder}: this is a {card.kind}; give the run folder of an embedder")
    names = list(names or [head.name for head in card.heads])
    _require_parts(folder, card, names, dim)
    kept = [head.model_copy(update={"dim": dim or head.dim}) for head in card.heads if head.name in names]
    shorter = [length for length in card.shorter_dims if dim is None or length < dim]
    cut = card.model_copy(update={"heads": kept, "shorter_dims": shorter, "metrics": {}})
    smaller = build_model(cut)
    own = smaller.state_dict()
    weights = network.state_dict()
    # A truncated head keeps the first rows of its last layer: the numbers that it still outputs.
    smaller.load_state_dict(
        {key: weights[key][: len(value)] if value.ndim else weights[key] for key, value in own.items()}
    )
    save_model(out, smaller, cut)
    return cut


def _require_parts(folder: Path, card: ModelCard, names: list[str], dim: int | None) -> None:
    found = [head.name for head in card.heads]
    if not set(names) <= set(found):
        raise TrainError(f"{folder}: has heads {found}; {names} must be among them")
    if card.joint == "sum" and set(names) != set(found):
        raise TrainError(f"{folder}: its heads are summed and work only together; keep all of {found}")
    lengths = [*card.shorter_dims, *(head.dim for head in card.heads)]
    if dim is not None and dim not in lengths:
        raise TrainError(f"{folder}: dim is {dim}, expected one of {lengths}, which it was trained for")
