"""The times of every engine and form in a trial, and which races are too close to call.

Rules this module keeps:
1. On one thread the measure is CPU time, which other work on the machine changes least; with several threads, and where
   an accelerator computes, it is wall time. All engines of a race run on the same CPU, each race on another one.
2. The score is the time per picture or crop, averaged over the batches that the device uses: one row, and several where
   that gains. A smaller score is faster.
3. Models of one network (as the embedders of many categories) share their times, so that they get one decision.
4. In a race the engines run in turn, in slices of a few milliseconds, and each round in the opposite order of the one
   before. The measure is the fastest tenth of an engine's runs: other work on the machine only makes runs slower, and
   not each engine equally so. An engine that is clearly slower than the best drops out, and the race ends when the two
   best are clearly apart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle.trial_process import TrialEngine
from edge.errors import EngineError
from edge.inference.engine import GPU_BACKENDS, RUNS, Backend, gains_from_batches
from edge.inference.engine_choice import TIE, Model, Tried
from edge.manifest.stages import DetectorModel, FinderModel

log = logging.getLogger(__name__)

_SLICE_MS = 8.0
_MOST_RUNS = 64  # in one slice
_LEAST_SLICES = 3
_LEAST_RUNS = 9
_HOPELESS = 1.25  # times the best: cannot win any more
_BUDGET_S = 2.0  # for all races of a bundle
_LEAST_S = 0.15  # for one race
_MOST_RACES = 4  # of one network, at different times
_MOST_MEASURED = 8  # models of one network: more share the times of these
_SAME_BYTES = 128  # difference in size of two files of one network; a layer in another precision differs by more
_CROPS = 4  # of one category that a frame typically has
_CLOSE = 1.25  # ratio of scores below which engines race again

Pair = tuple[Backend, str]  # engine and form
TimeRuns = Callable[[int], list[float]]  # number of runs -> milliseconds of each
MakeBatch = Callable[[Model, int], NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Timed:
    """The times of one engine and form."""

    ms: float  # of one row
    score_ms: float  # rule 2


class TrialTimes:
    """Collects runs by network, engine and form."""

    def __init__(self, models: Mapping[str, Model], threads: int, sizes: Callable[[str, str], int]) -> None:
        """Group the models by network.

        Args:
            models: by name.
            threads: inside one model, on a CPU.
            sizes: bytes of a model's form, by name and form.
        """
        self._models, self._threads = models, threads
        self._groups = _by_network(models, sizes)
        self._measured: dict[str, int] = {}  # model -> races
        self._runs: dict[tuple[str, Pair, int], list[float]] = {}  # network, engine and form, rows -> milliseconds
        self._failed: set[tuple[str, Pair]] = set()  # model, engine and form

    def measure(self, name: str, engines: Mapping[Pair, TrialEngine], make_batch: MakeBatch) -> None:
        """Let the engines of a model race; the first time, unless enough models of its network did.

        Args:
            name: of the model.
            engines: loaded.
            make_batch: returns an input of some rows.
        """
        group, model = self._groups[name], self._models[name]
        done = self._measured.get(name, 0)
        if not engines or (not done and self._members(group) >= _MOST_MEASURED):
            return
        self._measured[name] = done + 1
        budget_s = max(_LEAST_S, _BUDGET_S / _MOST_RACES / len(set(self._groups.values())))
        rows = self._rows(model)
        batched = {pair: one for pair, one in engines.items() if self._is_batched(model, pair[0])}
        budget_s = budget_s / 2 if rows > 1 and batched else budget_s
        self._race(name, engines, make_batch(model, 1), budget_s)
        if rows > 1 and batched:
            self._race(name, batched, make_batch(model, rows), budget_s)

    def _members(self, group: str) -> int:
        return sum(self._groups[name] == group for name in self._measured)

    def is_first(self, name: str) -> bool:
        """Return whether a model is the first of its network."""
        return self._groups[name] == name

    def leaders(self, name: str) -> list[Pair]:
        """Return the engines and forms of a model's network whose scores are close to the best."""
        group = self._groups[name]
        pairs = {pair for its_group, pair, _ in self._runs if its_group == group}
        scores = {pair: timed.score_ms for pair in pairs if (timed := self._timed(group, pair))}
        limit_ms = min(scores.values(), default=0.0) * _CLOSE
        return sorted(pair for pair, score_ms in scores.items() if score_ms <= limit_ms)

    def of(self, name: str, tried: Tried) -> Timed | None:
        """Return the times of an engine and form of a model; None if it failed while it ran."""
        pair = (tried.backend, tried.form)
        return None if (name, pair) in self._failed else self._timed(self._groups[name], pair)

    def _timed(self, group: str, pair: Pair) -> Timed | None:
        model = self._models[group]
        single = self._runs.get((group, pair, 1))
        if not single:
            return None
        ms, rows = fast_ms(single), self._rows(model)
        if rows == 1 or not self._is_batched(model, pair[0]):
            return Timed(ms, ms)
        several = self._runs.get((group, pair, rows))
        return Timed(ms, (ms + fast_ms(several) / rows) / 2) if several else None

    def _rows(self, model: Model) -> int:
        return 1 if isinstance(model, FinderModel) else min(_CROPS, model.max_batch)

    def _is_batched(self, model: Model, backend: Backend) -> bool:
        return gains_from_batches(backend, self._threads) if isinstance(model, DetectorModel) else True

    def _race(self, name: str, engines: Mapping[Pair, TrialEngine], batch: NDArray[Any], budget_s: float) -> None:
        running = {pair: engine for pair, engine in engines.items() if (name, pair) not in self._failed}
        while running:
            timers = [
                partial(one.time_ms, batch, on_cpu=self._measured[name] if self._by_cpu(pair[0]) else None)
                for pair, one in running.items()
            ]
            try:
                taken = race(timers, budget_s)
            except EngineError as error:
                log.warning("%s", error)
                failed = {pair for pair, one in running.items() if not _runs(one, batch)} or set(running)
                self._failed |= {(name, pair) for pair in failed}
                running = {pair: one for pair, one in running.items() if pair not in failed}
            else:
                for pair, taken_ms in zip(running, taken, strict=True):
                    self._runs.setdefault((self._groups[name], pair, len(batch)), []).extend(taken_ms)
                return

    def _by_cpu(self, backend: Backend) -> bool:
        return self._threads == 1 and backend in RUNS and backend not in GPU_BACKENDS


def _runs(engine: TrialEngine, batch: NDArray[np.generic]) -> bool:
    try:
        engine.run(batch)
    except EngineError:
        return False
    return True


def _by_network(models: Mapping[str, Model], sizes: Callable[[str, str], int]) -> dict[str, str]:
    """Return for each model the first one of the same network: same inputs and outputs, and forms of the same size."""
    groups: dict[str, str] = {}
    first: dict[str, list[str]] = {}
    for name, model in models.items():
        spec = model.preprocess
        inputs = (spec.width, spec.height, spec.layout, spec.dtype, model.max_batch)
        shape = repr((type(model).__name__, inputs, model.output_shapes(1), list(model.every_file)))
        alike = (
            one
            for one in first.get(shape, [])
            if all(abs(sizes(name, form) - sizes(one, form)) <= _SAME_BYTES for form in model.every_file)
        )
        groups[name] = next(alike, name)
        if groups[name] == name:
            first.setdefault(shape, []).append(name)
    return groups


def fast_ms(taken_ms: Sequence[float]) -> float:
    """Return the milliseconds that a tenth of the runs did not exceed."""
    return float(np.quantile(taken_ms, 0.1))


@dataclass(slots=True)
class _Runner:
    time_runs: TimeRuns
    taken_ms: list[float] = field(default_factory=list)
    slices: int = 0

    @property
    def error_ms(self) -> float:
        """About one standard error of `fast_ms`."""
        low, high = np.quantile(self.taken_ms, (0.05, 0.35))
        return float((high - low) / np.sqrt(len(self.taken_ms)))

    def run_slice(self) -> None:
        runs = 1
        if self.taken_ms:
            runs = min(_MOST_RUNS, max(1, round(_SLICE_MS / max(1e-3, fast_ms(self.taken_ms)))))
        self.taken_ms += self.time_runs(runs)
        self.slices += 1

    @property
    def is_known(self) -> bool:
        return self.slices >= _LEAST_SLICES and len(self.taken_ms) >= _LEAST_RUNS


def race(engines: Sequence[TimeRuns], budget_s: float) -> list[list[float]]:
    """Return the milliseconds of every run of each engine.

    Args:
        engines: a function for each, which runs it and returns the milliseconds of every run.
        budget_s: of all runs together, after which the race ends; each engine gets three slices at least. It does not
            count the time in which other work keeps the machine busy.
    """
    runners = [_Runner(engine) for engine in engines]
    forwards = True
    alive = list(runners)
    while not _is_over(alive, late=sum(sum(one.taken_ms) for one in runners) >= budget_s * 1000):
        for runner in alive if forwards else alive[::-1]:
            runner.run_slice()
        forwards = not forwards
        best_ms = min(fast_ms(runner.taken_ms) for runner in alive)
        alive = [one for one in alive if not one.is_known or min(one.taken_ms) <= best_ms * _HOPELESS]
    return [runner.taken_ms for runner in runners]


def _is_over(alive: Sequence[_Runner], *, late: bool) -> bool:
    if not all(runner.is_known for runner in alive):
        return late and all(runner.slices >= _LEAST_SLICES for runner in alive)
    if late or len(alive) == 1:
        return True
    first, second = sorted(alive, key=lambda runner: fast_ms(runner.taken_ms))[:2]
    gap_ms = fast_ms(second.taken_ms) - fast_ms(first.taken_ms) * (1 + TIE)
    return gap_ms > 4 * (first.error_ms + second.error_ms)
