"""Starts `edge-train learn` on sets: writes their named crops, and builds the command."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from console.settings import Settings
from console.storage.database import Database
from console.training.data_set import LABELS, count_crops, file_of, named_crops, write_crops
from console.training.job import Job
from console.training.jobs import Jobs
from console.training.progress import LEARNED
from edge.errors import ConsoleError
from edge.extras import install_command

DATA = "data"
TRAIN = (sys.executable, "-m", "trainer.cli")
_NEEDED = ("torch", "onnx")  # to train, and to pack what was trained: the extra `learn` brings both


@dataclass(frozen=True, slots=True)
class LearnRequest:
    """What a person asked for."""

    set_ids: tuple[int, ...]
    name: str
    minutes: float
    weights: str  # package, hub, hub:NAME, or the path of a safetensors file on this server


def missing_trainer() -> str:
    """Return the command that installs what training needs; empty if it is here."""
    there = all(importlib.util.find_spec(package) is not None for package in _NEEDED)
    return "" if there else install_command("learn")


def require_trainer() -> None:
    """Check that training is installed.

    Raises:
        ConsoleError: it is not.
    """
    if command := missing_trainer():
        raise ConsoleError("missing", f"training is not installed on this server; run: {command}")


def start_learning(settings: Settings, database: Database, jobs: Jobs, request: LearnRequest, by: str) -> Job:
    """Queue the job.

    Raises:
        ConsoleError: there is too little to learn from, training is not installed, or the disk failed.
    """
    require_trainer()
    with database.read() as rows:
        counts = count_crops(rows, request.set_ids)
        if counts.problem:
            raise ConsoleError("invalid", counts.problem)
        crops = list(named_crops(rows, request.set_ids))
    weights = checked_weights(request.weights, (*settings.folders, settings.data))

    def prepare(folder: Path) -> None:
        (folder / DATA).mkdir()
        write_crops(crops, folder / DATA)

    number = jobs.next_sequence()
    argv = [
        *TRAIN, "learn", f"{DATA}/{file_of(crops)}", "--out", LEARNED, f"--name={request.name}",
        "--labels", f"{DATA}/{LABELS}", "--minutes", f"{request.minutes:g}",
        "--weights", weights, "--sequence", str(number),
    ]  # fmt: skip
    about = {
        "sets": list(request.set_ids), "minutes": request.minutes, "weights": weights, "counts": asdict(counts),
        "sequence": number,
    }  # fmt: skip
    return jobs.start("learn", request.name, argv, by, about=about, prepare=prepare)


def checked_weights(asked: str, folders: Sequence[Path]) -> str:
    """Return the weights to start from, if they may be used.

    Raises:
        ConsoleError: a file that is not there, or in none of the folders that the console may read.
    """
    if asked.partition(":")[0] in ("package", "hub"):
        return asked
    try:
        path = Path(asked).resolve(strict=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ConsoleError("invalid", f"weights: there is no file {asked}; give package, hub, or a file") from error
    if not path.is_file() or not any(path.is_relative_to(one.resolve()) for one in folders):
        raise ConsoleError("denied", "weights: give a file in a folder that the console was started with (--folder)")
    return str(path)
