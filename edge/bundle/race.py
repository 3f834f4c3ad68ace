"""Time several engines against each other, in a small budget and on a busy machine.

The engines run in turn, in slices of a few milliseconds, and each round in the opposite order of the one before. The
measure is the fastest tenth of an engine's runs: other work on the machine only makes runs slower, and not each engine
equally so. An engine that is clearly slower than the best drops out, and the race ends when the two best are clearly
apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge.inference.engine_choice import TIE

TimeRuns = Callable[[int], list[float]]  # number of runs -> milliseconds of each
_SLICE_MS = 8.0
_MOST_RUNS = 64  # in one slice
_LEAST_SLICES = 3
_LEAST_RUNS = 9
_HOPELESS = 1.25  # times the best: cannot win any more


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
