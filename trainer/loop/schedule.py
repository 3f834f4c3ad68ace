"""The learning rate of each step. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trainer.recipe import Optimiser


def learning_rate(how: Optimiser, step: int, total: int, watched: Sequence[float] = ()) -> float:
    """The rate of one step of `total`.

    `one_cycle` and `cosine`: linear warm-up, then a cosine to nearly zero; the first starts at a twenty-fifth, the
    second at zero. `plateau`: constant, times `decay` whenever `patience` examinations brought nothing better.

    Args:
        how: the schedule.
        step: counted from the start of the training.
        total: steps of the whole training.
        watched: see watched_values.
    """
    if how.schedule == "plateau":
        return how.lr * how.decay ** plateaus(watched, how.patience)
    warm = max(1.0, how.warmup * total)
    if step < warm:
        floor = 0.04 if how.schedule == "one_cycle" else 0.0
        return how.lr * (floor + (1 - floor) * (step + 1) / warm)
    return how.lr * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, total - warm))))


def watched_values(rows: Sequence[dict[str, float]], how: Optimiser) -> list[float]:
    """What was watched at each examination so far, turned so that more is better."""
    key = how.watch
    if key is None:
        return []
    return [-row[key] if "loss" in key else row[key] for row in rows if key in row]


def plateaus(watched: Sequence[float], patience: int) -> int:
    """How often `patience` examinations in a row brought nothing better; a plateau starts the count anew."""
    best, waited, count = -math.inf, 0, 0
    for value in watched:
        waited = 0 if value > best else waited + 1
        best = max(best, value)
        if waited == patience:
            waited, count = 0, count + 1
    return count
