"""The learning rate of each step, and when training stops early. Pure functions of the rows of metrics.csv.

The model is evaluated after some epochs only; the rows of those epochs hold its metrics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import TrainError
from trainer.recipe_parts import Optimiser

# The metric of a detector, a finder, a classifier, an embedder, a localiser.
DEFAULT_WATCHED = ("map50_95", "map50", "accuracy", "map_r_train", "iou")


def learning_rate(settings: Optimiser, step: int, total: int, watched: Sequence[float] = ()) -> float:
    """Return the rate of one step of `total`.

    `one_cycle` and `cosine`: linear warm-up, then a cosine to nearly zero. `one_cycle` starts at a twenty-fifth of the
    rate, `cosine` at zero. `plateau`: constant, times `decay` after each `patience` evaluations without improvement.
    `constant`: always the same.

    Args:
        settings: the schedule.
        step: counted from the start of the training.
        total: steps of the whole training.
        watched: see watched_values.
    """
    if settings.schedule == "plateau":
        return settings.lr * settings.decay ** count_plateaus(watched, settings.patience)
    if settings.schedule == "constant":
        return settings.lr
    warm = max(1.0, settings.warmup * total)
    if step < warm:
        floor = 0.04 if settings.schedule == "one_cycle" else 0.0
        return settings.lr * (floor + (1 - floor) * (step + 1) / warm)
    return settings.lr * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm))))


def watched_values(rows: Sequence[dict[str, float]], settings: Optimiser) -> list[float]:
    """Return the watched metric of each evaluation so far; losses are negated, so that more is better."""
    key = settings.watch
    if key is None:
        return []
    return [-row[key] if "loss" in key else row[key] for row in rows if key in row]


def count_plateaus(watched: Sequence[float], patience: int) -> int:
    """Count how often `patience` evaluations in a row brought no improvement; each plateau restarts the count."""
    best, waited, count = -math.inf, 0, 0
    for value in watched:
        waited = 0 if value > best else waited + 1
        best = max(best, value)
        if waited == patience:
            waited, count = 0, count + 1
    return count


@dataclass(frozen=True, slots=True)
class BestSoFar:
    """The best evaluation of a run, and how many followed it."""

    epoch: int = 0  # 0: no evaluation yet
    evaluations_since: int = 0

    def should_stop(self, stop_after: int | None) -> bool:
        """Return whether `stop_after` evaluations brought no improvement; False if it is None."""
        return stop_after is not None and self.evaluations_since >= stop_after


def best_so_far(rows: Sequence[dict[str, float]], watch: str | None) -> BestSoFar:
    """Find the best evaluation among these epochs.

    Args:
        rows: rows of metrics.csv; those that hold the metric were evaluated.
        watch: better when larger, or smaller where it is a loss; None: the first of DEFAULT_WATCHED that was measured.
    """
    name = watch or next((name for name in DEFAULT_WATCHED if any(name in row for row in rows)), "")
    sign = -1.0 if "loss" in name else 1.0
    best, best_epoch, since = float("-inf"), 0, 0
    for row in rows:
        if name in row and sign * row[name] > best:
            best, best_epoch, since = sign * row[name], round(row["epoch"]), 0
        elif name in row:
            since += 1
    return BestSoFar(best_epoch, since)


def require_watched(metrics: dict[str, float], best: BestSoFar, watch: str | None) -> None:
    """Check that an evaluation measured the watched metric.

    Raises:
        TrainError: it did not; the message lists what it measured.
    """
    if not best.epoch:
        raise TrainError(
            f"optimiser.watch: {watch or ' or '.join(DEFAULT_WATCHED)} was not measured; "
            + (f"set it to one of {sorted(metrics)}" if metrics else "there are no validation pictures")
        )
