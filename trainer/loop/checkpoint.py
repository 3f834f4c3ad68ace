"""The state of a training run on disk, from which it goes on after being killed."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edge.durable import write_durably
from edge.errors import TrainError
from trainer.disk_errors import report_disk_errors

log = logging.getLogger(__name__)

CHECKPOINT_FILE, BEST_FILE = "checkpoint.pt", "best.pt"


@dataclass(slots=True)
class Progress:
    """How far a run has come."""

    epoch: int = 0  # finished
    rows: list[dict[str, float]] = field(default_factory=list)  # of metrics.csv, one per finished epoch


def save_checkpoint(
    path: Path,
    done: Progress,
    module: nn.Module,
    average: nn.Module | None,
    optimiser: torch.optim.Optimizer,
    recipe: str,
) -> None:
    """Replace the checkpoint whole.

    Raises:
        TrainError: the disk refused; the checkpoint before is untouched.
    """
    _save(
        path,
        done.epoch,
        {
            "recipe": recipe,
            "epoch": done.epoch,
            "rows": done.rows,
            "module": module.state_dict(),
            "average": None if average is None else average.state_dict(),
            "optimiser": optimiser.state_dict(),
        },
    )


def save_best(out: Path, epoch: int, module: nn.Module) -> None:
    """Keep the weights of the best examination so far.

    Raises:
        TrainError: the disk refused.
    """
    _save(out / BEST_FILE, epoch, {"epoch": epoch, "module": module.state_dict()})


def load_best(out: Path, epoch: int, module: nn.Module) -> None:
    """Take the weights that were kept.

    Raises:
        TrainError: missing, damaged, or of another epoch.
    """
    path = out / BEST_FILE
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(saved["module"])
    except Exception as error:  # whatever unpickling raises on damage
        raise TrainError(f"{path}: cannot take the best weights: {type(error).__name__}: {error}") from error
    if saved["epoch"] != epoch:
        raise TrainError(f"{path}: found the weights of epoch {saved['epoch']}, expected those of epoch {epoch}")


def _save(path: Path, epoch: int, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with report_disk_errors(f"{path}: cannot save epoch {epoch}", "; what was saved before is whole"):
        write_durably(path, buffer.getvalue())


def resume_checkpoint(
    path: Path, module: nn.Module, average: nn.Module | None, optimiser: torch.optim.Optimizer, recipe: str
) -> Progress:
    """Load the checkpoint where there is one.

    Raises:
        TrainError: damaged, or of another recipe.
    """
    if not path.exists():
        return Progress()
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        same = saved["recipe"] == recipe
    except Exception as error:  # whatever unpickling raises on damage
        raise TrainError(f"{path}: cannot resume: {type(error).__name__}: {error}") from error
    if not same:
        raise TrainError(f"{path}: found a checkpoint of another recipe, expected this one's or an empty folder")
    try:
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        if average is not None:
            average.load_state_dict(saved["average"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainError(f"{path}: cannot resume: {type(error).__name__}: {error}") from error
    log.info("%s: goes on after epoch %d", path, saved["epoch"])
    return Progress(saved["epoch"], saved["rows"])
