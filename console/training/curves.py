"""The curves of training runs: what the trainers write to metrics.csv after each epoch."""

from __future__ import annotations

import csv
import itertools
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HISTORY = "metrics.csv"
_MOST_RUNS, _MOST_EPOCHS, _MOST_COLUMNS = 12, 5000, 40
_DEPTH = 4  # folders below that of a job
_NO_CURVES = frozenset({"epoch", "lr", "seconds"})
_WORSE = 0.02  # share of its best value that a metric loses before a run counts as overfitted


@dataclass(frozen=True, slots=True)
class Curves:
    """The numbers of one training run, epoch by epoch."""

    name: str  # of the run, for people: its folder
    epochs: tuple[float, ...]
    columns: dict[str, tuple[float | None, ...]]  # None: not measured in that epoch

    @property
    def metrics(self) -> dict[str, tuple[float | None, ...]]:
        """What was measured on pictures that were held out; larger is better."""
        return {name: values for name, values in self.columns.items() if not name.startswith("loss")}

    @property
    def final(self) -> dict[str, float]:
        """The last value of each column."""
        last = {
            name: next((v for v in reversed(values) if v is not None), None) for name, values in self.columns.items()
        }
        return {name: value for name, value in last.items() if value is not None}


def read_curves(folder: Path) -> list[Curves]:
    """Return the curves of all runs in a job's folder, by name."""
    found = [_read(path, folder) for path in itertools.islice(_histories(folder, _DEPTH), _MOST_RUNS)]
    return sorted((one for one in found if one is not None), key=lambda one: one.name)


def overfitting(curves: Curves) -> str:
    """Say in plain words whether a run learned its own pictures by heart; empty: too little was measured."""
    loss = [value for value in curves.columns.get("loss", ()) if value is not None]
    validation = {name: [v for v in values if v is not None] for name, values in curves.metrics.items()}
    watched = next((values for values in validation.values() if len(values) >= 2), None)
    held_out = [value for value in curves.columns.get("loss_val", ()) if value is not None]
    if len(held_out) >= 2 and held_out[-1] > min(held_out) * (1 + 5 * _WORSE) and len(loss) >= 2 and loss[-1] < loss[0]:
        return (
            "It overfits: the loss on held-out pictures rises while that on its own pictures falls. Train for fewer "
            "epochs, or add pictures."
        )
    if watched is None:
        return ""
    best = max(watched)
    if watched[-1] < best - max(_WORSE * abs(best), 1e-9):
        return (
            f"It may overfit: held-out pictures were recognised best at {best:.3g} and are now at {watched[-1]:.3g}, "
            "while the training went on. Train for fewer epochs, or add pictures."
        )
    return "No sign of overfitting: the last measurement on held-out pictures is its best, or close to it."


def _histories(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the histories below a folder; never follow links."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name == HISTORY and entry.is_file(follow_symlinks=False):
            yield Path(entry.path)
        elif depth > 0 and entry.is_dir(follow_symlinks=False) and entry.name not in ("photos", "state", "data"):
            yield from _histories(Path(entry.path), depth - 1)


def _read(path: Path, folder: Path) -> Curves | None:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(itertools.islice(csv.DictReader(file), _MOST_EPOCHS))
    except (OSError, ValueError, csv.Error):
        return None
    if not rows:
        return None
    names = [name for name in rows[0] if name and name not in _NO_CURVES][:_MOST_COLUMNS]
    epochs = tuple(_number(row.get("epoch")) or number for number, row in enumerate(rows, 1))
    columns = {name: tuple(_number(row.get(name)) for row in rows) for name in names}
    inner = path.parent.relative_to(folder)
    parts = [part for part in inner.parts if part not in ("shop", "work", "run")]
    return Curves("/".join(parts) or "run", epochs, columns)


def _number(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
