"""Add the models of a bundle to an engine store, and open each with the engine and form that this machine chose."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.config.schema import TensorRtConfig
from edge.engine_store.engine_store import EngineStore
from edge.engine_store.stored_engine import StoredEngine
from edge.errors import EngineError
from edge.inference.checked_run import check_names, run_checked, run_crops, unit_vectors
from edge.inference.engine import gains_from_batches, open_engine
from edge.inference.engine_choice import Model, Resolved
from edge.inference.postprocess import WHITENING_DTYPE, WhiteningMap
from edge.inference.preprocess import to_batch, to_canvas
from edge.manifest.embedder import EmbedderModel
from edge.manifest.manifest import Manifest
from edge.manifest.stages import DetectorModel, FinderModel
from edge.types import Counts, Engine

log = logging.getLogger(__name__)

_SIDES = 2  # offsets of a whitening: of photos, of plain pictures
NAN_CELLS = 0.1  # share of a detector's output: a few cells without numbers are no objects, more are a broken model


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How every engine of a bundle is opened."""

    threads: int = 1  # inside one operator, on a CPU
    cache: Path | None = None  # folder of engines built on this machine; None: the bundle's folder
    tensorrt: TensorRtConfig | None = None  # how TensorRT builds and runs; None: its defaults
    counts: Counts | None = None  # what engines count: `cuda_graph_failures`


class ModelOpener:
    """Opens the models of one bundle for a store, and remembers what each runs with."""

    def __init__(self, folder: Path, manifest: Manifest, options: OpenOptions, store: EngineStore) -> None:
        """Open nothing yet.

        Args:
            folder: of the bundle.
            manifest: of the bundle.
            options: of every engine.
            store: holds the engines.
        """
        self.engines: dict[str, Resolved] = {}  # what runs each model, by its name
        self._folder, self._options, self._store = folder, options, store
        self._files = {entry.path: entry for entry in manifest.files}
        self._names: dict[object, list[str]] = {}

    def add(self, name: str, model: Model, resolved: Sequence[Resolved]) -> StoredEngine:
        """Add a model; models that one engine can run share it. Embedders may be closed again, the others stay.

        Args:
            name: of the model.
            model: its manifest entry.
            resolved: what to open it with, best first.
        """
        files = [self._files[model.every_file[one.form]] for one in resolved]
        shapes = tuple(map(tuple, model.output_shapes(1)))
        contents = tuple((one.backend, file.sha256) for one, file in zip(resolved, files, strict=True))
        key = (contents, model.max_batch, model.input_name, tuple(model.output_names), model.preprocess, shapes)
        names = self._names.setdefault(key, [])
        names.append(name)
        self.engines[name] = resolved[0] if len(names) == 1 else self.engines[names[0]]
        candidates = list(resolved)

        def open_and_try() -> Engine:
            one, engine = open_resolved(self._folder, name, model, candidates, self._options)
            candidates[:] = [one]  # after it was closed, nothing else may give other bits
            self.engines.update(dict.fromkeys(names, one))
            _try_out(model, engine, self.batch_size(model, one))
            return engine

        return self._store.add(
            name,
            key,
            open_and_try,
            where=str(self._folder / files[0].path),
            file_bytes=files[0].size,
            kind=(resolved[0].backend, resolved[0].form, type(model).__name__),
            is_pinned=not isinstance(model, EmbedderModel),
        )

    def batch_size(self, model: Model, resolved: Resolved) -> int:
        """Return how many rows a model is run with at most."""
        if isinstance(model, DetectorModel) and not gains_from_batches(resolved.backend, self._options.threads):
            return 1
        return model.max_batch

    def form_sha256(self, name: str, model: Model) -> str:
        """Return the hash of the file that runs a model."""
        return self._files[model.every_file[self.engines[name].form]].sha256


def open_resolved(
    folder: Path, name: str, model: Model, resolved: Sequence[Resolved], options: OpenOptions
) -> tuple[Resolved, Engine]:
    """Open the first engine that opens, and say which.

    Args:
        folder: of the bundle.
        name: of the model.
        model: its manifest entry.
        resolved: what to open it with, best first.
        options: of every engine.

    Raises:
        EngineError: none opens; that of the last one.
    """
    for number, one in enumerate(resolved, 1):
        path = folder / model.every_file[one.form]
        try:
            engine = open_engine(
                path,
                one.backend,
                options.threads,
                max_batch=model.max_batch,
                cache=options.cache,
                tensorrt=options.tensorrt,
                counts=options.counts,
            )
            check_names(engine, model.input_name, model.output_names)
        except EngineError as error:
            if number == len(resolved):
                raise
            log.warning("%s: %s; using %s %s", name, error, resolved[number].backend, resolved[number].form)
        else:
            return one, engine
    raise EngineError(f"{name}: nothing to open it with")


def _try_out(model: Model, engine: Engine, most_rows: int) -> None:
    """Run a model with its smallest and its largest batch: this rejects models that do not fit, and warms them up.

    Raises:
        EngineError: the engine failed, or its outputs do not match the manifest.
    """
    if isinstance(model, FinderModel):  # has a trial of its own, with queries
        return
    canvas, _ = to_canvas(model.preprocess, np.full((96, 96, 3), 114, np.uint8))
    for rows in (1, most_rows):
        batch = to_batch(model.preprocess, [canvas] * rows)
        if isinstance(model, DetectorModel):
            run_checked(engine, batch, model.output_shapes(rows), NAN_CELLS)
        else:
            outputs = run_crops(engine, model, batch)
            if isinstance(model, EmbedderModel):
                unit_vectors(engine.where, outputs[0])


def read_whitening(folder: Path, model: EmbedderModel) -> WhiteningMap | None:
    """Read the map of an embedder; None if it has none.

    Args:
        folder: of the bundle.
        model: the manifest's entry.

    Raises:
        EngineError: the file cannot be read, has another size, or holds what is not a number.
    """
    if model.whitening is None:
        return None
    path, parts = folder / model.whitening.file, model.whitening.dim
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: cannot read: {error.strerror}") from error
    if len(data) != 4 * model.dim * (parts + _SIDES):
        expected = f"{4 * model.dim * (parts + _SIDES)} for {model.dim} rows of {parts} + {_SIDES} numbers"
        raise EngineError(f"{path}: found {len(data)} bytes, expected {expected}; pack the bundle again")
    rows = np.frombuffer(data, WHITENING_DTYPE).reshape(model.dim, parts + _SIDES).astype(np.float32)
    if not np.isfinite(rows).all():
        raise EngineError(f"{path}: holds what is not a number; pack the bundle again")
    matrix, offsets = np.ascontiguousarray(rows[:, :parts]), np.ascontiguousarray(rows[:, parts:].T)
    return WhiteningMap(matrix, offsets, str(path))
