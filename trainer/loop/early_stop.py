"""When a training stops early: its examinations on validation pictures have not become better for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.errors import TrainError

# Of a detector, a finder, a classifier, an embedder, a localiser.
WATCHED = ("map50_95", "map50", "accuracy", "map_r_train", "iou")


@dataclass(frozen=True, slots=True)
class Standing:
    """How the examinations of a run have gone."""

    best_epoch: int = 0  # 0: there was none
    since: int = 0  # examinations after the best one

    def is_over(self, stop_after: int | None) -> bool:
        """Whether so many examinations were no better; None: never."""
        return stop_after is not None and self.since >= stop_after


def standing(rows: Sequence[dict[str, float]], watch: str | None) -> Standing:
    """Where a run stands after these epochs.

    Args:
        rows: of metrics.csv; those that hold the metric were examined.
        watch: better when larger, or smaller where it is a loss; None: the first of WATCHED that was measured.
    """
    name = watch or next((name for name in WATCHED if any(name in row for row in rows)), "")
    sign = -1.0 if "loss" in name else 1.0
    best, best_epoch, since = float("-inf"), 0, 0
    for row in rows:
        if name in row and sign * row[name] > best:
            best, best_epoch, since = sign * row[name], round(row["epoch"]), 0
        elif name in row:
            since += 1
    return Standing(best_epoch, since)


def require_watched(found: dict[str, float], now: Standing, watch: str | None) -> None:
    """Check that an examination measured what is watched.

    Raises:
        TrainError: it did not; says what it measured.
    """
    if not now.best_epoch:
        raise TrainError(
            f"optimiser.watch: found {sorted(found) or 'no validation pictures'} to watch, "
            f"expected {watch or ' or '.join(WATCHED)}"
        )
