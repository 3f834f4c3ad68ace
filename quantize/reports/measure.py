"""Latency and memory of every engine and form of the models of a bundle, on this machine."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.errors import EngineError
from edge.inference.engine import GPU_BACKENDS, RUNS, open_engine, unusable
from edge.inference.preprocess import to_batch, to_canvas
from edge.manifest.model import Preprocess
from edge.telemetry.health_report import resident_bytes
from edge.types import Engine, Image
from quantize.latency import interleaved_ms
from quantize.reports.bundle_models import BundleModel

LATENCY_RUNS = 60
_GREY = 114


@dataclass(frozen=True, slots=True)
class Timed:
    """The time of one engine and form; or why there is none."""

    backend: str
    form: str
    ms: float | None = None
    problem: str = ""

    def row(self) -> dict[str, Any]:
        """Return it as the report's JSON stores it."""
        ms = None if self.ms is None else round(self.ms, 4)
        return {"engine": self.backend, "form": self.form, "ms": ms, "problem": self.problem}


def backends_here() -> tuple[list[str], dict[str, str]]:
    """Return the back ends that this machine can try, and why it cannot try the others."""
    problems = {backend: unusable(backend) for backend in RUNS}
    return [name for name, why in problems.items() if why is None], {name: why for name, why in problems.items() if why}


def input_batch(preprocess: Preprocess, picture_rgb: Image | None) -> NDArray[np.generic]:
    """Return a model's input for one picture; grey without one."""
    if picture_rgb is None:
        picture_rgb = np.full((preprocess.height, preprocess.width, 3), _GREY, np.uint8)
    return to_batch(preprocess, [to_canvas(preprocess, picture_rgb)[0]])


def _runnable(one: BundleModel, backend: str) -> list[tuple[str, Path]]:
    return [(form, path) for form, path in one.files.items() if form in RUNS[backend]]


def measure_latency(
    one: BundleModel, backends: Sequence[str], batch: NDArray[np.generic], runs: int = LATENCY_RUNS
) -> list[Timed]:
    """Time each engine and form in turn, on one thread.

    The measure is the CPU time of this process, which equals wall time on an idle machine; on a GPU it is wall time.
    """
    opened: list[tuple[str, str, Engine]] = []
    failed: list[Timed] = []
    for backend in backends:
        for form, path in _runnable(one, backend):
            try:
                engine = open_engine(path, backend, max_batch=one.model.max_batch)
                engine.run(batch)
            except EngineError as error:
                failed.append(Timed(backend, form, problem=str(error)))
            else:
                opened.append((backend, form, engine))
    clock_s = time.perf_counter if GPU_BACKENDS & set(backends) else time.process_time
    taken = interleaved_ms([engine for *_, engine in opened], batch, runs, clock_s)
    return [*(Timed(backend, form, ms) for (backend, form, _), ms in zip(opened, taken, strict=True)), *failed]


def measure_memory(
    models: Sequence[BundleModel], backends: Sequence[str]
) -> dict[str, dict[tuple[str, str], float] | str]:
    """Return how much each model adds to a process, in MiB, by back end and (name, form); or why that is not known.

    Each back end runs in a process of its own, which loads the models one after another and keeps them.
    """
    found: dict[str, dict[tuple[str, str], float] | str] = {}
    for backend in backends:
        wanted = [
            (one.name, form, str(path), one.model.preprocess.model_dump_json())
            for one in models
            for form, path in _runnable(one, backend)
        ]
        try:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found[backend] = pool.submit(_load_all, backend, wanted).result()
        except (BrokenProcessPool, EngineError) as error:
            found[backend] = str(error)
    return found


def _load_all(backend: str, wanted: Sequence[tuple[str, str, str, str]]) -> dict[tuple[str, str], float]:
    """Load models in this process, and return by how many MiB each made it grow."""
    engines: list[Engine] = []
    grew: dict[tuple[str, str], float] = {}
    if wanted:  # the first load brings the library itself
        engines.append(open_engine(Path(wanted[0][2]), backend))
    for name, form, path, preprocess in wanted:
        before = _resident_mib()
        engines.append(open_engine(Path(path), backend))
        engines[-1].run(input_batch(Preprocess.model_validate_json(preprocess), None))
        grew[name, form] = max(0.0, _resident_mib() - before)
    return grew


def _resident_mib() -> float:
    return (resident_bytes() or 0) / 2**20
