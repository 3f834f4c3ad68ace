"""Checkpoints: the state of a training run on disk, from which it resumes."""

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
    """The progress of a run."""

    epoch: int = 0  # finished epochs
    rows: list[dict[str, float]] = field(default_factory=list)  # rows of metrics.csv, one per finished epoch


def save_checkpoint(
    path: Path,
    progress: Progress,
    module: nn.Module,
    average: nn.Module | None,
    optimiser: torch.optim.Optimizer,
    recipe: str,
) -> None:
    """Replace the checkpoint atomically.

    Raises:
        TrainError: the disk is full or not writable; the previous checkpoint is untouched.
    """
    _save(
        path,
        progress.epoch,
        {
            "recipe": recipe,
            "epoch": progress.epoch,
            "rows": progress.rows,
            "module": module.state_dict(),
            "average": None if average is None else average.state_dict(),
            "optimiser": optimiser.state_dict(),
        },
    )


def save_best(out: Path, epoch: int, module: nn.Module) -> None:
    """Save the weights of the best evaluation so far.

    Raises:
        TrainError: the disk is full or not writable.
    """
    _save(out / BEST_FILE, epoch, {"epoch": epoch, "module": module.state_dict()})


def load_best(out: Path, epoch: int, module: nn.Module) -> None:
    """Load the weights of the best evaluation.

    Raises:
        TrainError: they are missing, damaged, or of another epoch.
    """
    path = out / BEST_FILE
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(saved["module"])
    except Exception as error:  # unpickling a damaged file may raise anything
        raise TrainError(f"{path}: cannot load the best weights: {type(error).__name__}: {error}") from error
    if saved["epoch"] != epoch:
        raise TrainError(f"{path}: found epoch {saved['epoch']}, expected epoch {epoch}")


def _save(path: Path, epoch: int, state: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with report_disk_errors(f"{path}: cannot save epoch {epoch}", "; the previous file is intact"):
        write_durably(path, buffer.getvalue())


def resume_checkpoint(
    path: Path, module: nn.Module, average: nn.Module | None, optimiser: torch.optim.Optimizer, recipe: str
) -> Progress:
    """Load the checkpoint if there is one.

    Raises:
        TrainError: it is damaged, or of another recipe.
    """
    if not path.exists():
        return Progress()
    try:
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        same = saved["recipe"] == recipe
    except Exception as error:  # unpickling a damaged file may raise anything
        raise TrainError(f"{path}: cannot resume: {type(error).__name__}: {error}") from error
    if not same:
        raise TrainError(f"{path}: this checkpoint is of another recipe; choose an empty --out folder")
    try:
        module.load_state_dict(saved["module"])
        optimiser.load_state_dict(saved["optimiser"])
        if average is not None:
            average.load_state_dict(saved["average"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainError(f"{path}: cannot resume: {type(error).__name__}: {error}") from error
    log.info("%s: resuming after epoch %d", path, saved["epoch"])
    return Progress(saved["epoch"], saved["rows"])
