"""Run a loaded model and check what it gives: a model file is data from outside, also where its hash is right."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from edge.errors import EngineError
from edge.manifest.embedder import EmbedderModel
from edge.manifest.stages import ClassifierModel, LocaliserModel
from edge.types import Engine, FloatArray, Runnable


def check_names(engine: Engine, input_name: str, output_names: Sequence[str]) -> None:
    """Check that a loaded model has the one input and the outputs that the manifest names, in order.

    Raises:
        EngineError: it has others.
    """
    if not _are([input_name], engine.inputs) or not _are(output_names, engine.outputs):
        raise EngineError(
            f"{engine.where}: found the inputs {_listed(engine.inputs)} and outputs {_listed(engine.outputs)}, but the "
            f"manifest says input {input_name} and outputs {', '.join(output_names)}; pack the bundle again"
        )


def _are(names: Sequence[str], tensors: Sequence[Collection[str]]) -> bool:
    return len(names) == len(tensors) and all(name in known for name, known in zip(names, tensors, strict=True))


def _listed(tensors: Sequence[Collection[str]]) -> str:
    return ", ".join("/".join(sorted(names)) for names in tensors) or "none"


def run_checked(
    engine: Runnable, batch: NDArray[np.generic], shapes: list[tuple[int, ...]], nan_share: float = 0.0
) -> list[FloatArray]:
    """Run a batch and check the outputs against the manifest.

    Args:
        engine: the loaded model.
        batch: its input.
        shapes: of its outputs.
        nan_share: of each output may be NaN.

    Raises:
        EngineError: the engine failed, shapes differ, or an output is not of numbers.
    """
    raw = engine.run(batch)
    found = [getattr(output, "shape", type(output).__name__) for output in raw]
    if found != shapes:
        raise EngineError(f"{engine.where}: found outputs of shapes {found}, expected {shapes}, as the manifest says")
    try:
        outputs = [np.asarray(output, np.float32) for output in raw]
    except (TypeError, ValueError) as error:
        raise EngineError(f"{engine.where}: found an output that is not of numbers: {error}") from error
    for output in outputs:
        # the largest is NaN if any is: one fast pass where all is well
        if np.isnan(output.max(initial=-np.inf)) and (count := int(np.isnan(output).sum())) > nan_share * output.size:
            raise EngineError(f"{engine.where}: {count} of {output.size} outputs are not numbers (NaN)")
    return outputs


def run_crops(
    engine: Runnable, model: ClassifierModel | EmbedderModel | LocaliserModel, batch: NDArray[np.generic]
) -> list[FloatArray]:
    """Run a batch of crops in parts of at most `max_batch` rows.

    Raises:
        EngineError: as `run_checked`, or an output is infinite.
    """
    parts = [batch[i : i + model.max_batch] for i in range(0, len(batch), model.max_batch)]
    answers = [run_checked(engine, part, model.output_shapes(len(part))) for part in parts]
    outputs = [np.concatenate(rows) for rows in zip(*answers, strict=True)]
    if not all(np.isfinite(output.max(initial=0.0)) and np.isfinite(output.min(initial=0.0)) for output in outputs):
        raise EngineError(f"{engine.where}: an output is infinite")
    return outputs


def unit_vectors(where: str, vectors: FloatArray) -> FloatArray:
    """Return vectors scaled to unit length.

    Args:
        where: names the model.
        vectors: (n, dim).

    Raises:
        EngineError: a vector is zero, so it has no direction.
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    if not lengths.all():
        raise EngineError(f"{where}: found an embedding of zeros")
    return np.asarray(vectors / lengths, np.float32)
