"""What pages and the API show of a job."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from console.training.curves import read_curves
from console.training.job import Job
from console.training.jobs import Jobs

_LOG_BYTES = 12_000
_MODULES = {
    "trainer.cli": "edge-train", "quantize.cli": "edge-quantize", "gallery_sync.cli": "edge-sync", "edge": "edge",
}  # fmt: skip


class JobValue(BaseModel):
    """A job."""

    id: int
    kind: str
    name: str
    state: str
    by: str
    command: str
    folder: str
    created_at: float
    started_at: float | None
    ended_at: float | None
    exit_code: int | None
    progress: float | None
    left_s: float | None
    result: str


def value_of(job: Job) -> JobValue:
    """Return a job as the API shows it."""
    return JobValue(
        id=job.id, kind=job.kind, name=job.name, state=job.state, by=job.by, command=shown_command(job.argv),
        folder=str(job.folder), created_at=job.created_at, started_at=job.started_at, ended_at=job.ended_at,
        exit_code=job.exit_code, progress=job.progress, left_s=job.left_s, result=job.says,
    )  # fmt: skip


def shown_command(argv: Sequence[str]) -> str:
    """Return a command that a person can copy: `edge-train learn …` instead of the interpreter and its module."""
    if list(argv[:2]) == ["/bin/sh", "-c"]:
        return " && ".join(shown_command(shlex.split(part)) for part in argv[2].split(" && "))
    if len(argv) > 2 and argv[1] == "-m" and argv[2] in _MODULES:
        return shlex.join([_MODULES[argv[2]], *argv[3:]])
    return shlex.join(argv)


def how_to_sign(jobs: Jobs, job: Job) -> str:
    """Return the command that signs the draft which a job left; empty: it left none."""
    if job.kind != "publish" or job.state != "done":
        return ""
    found = re.search(r"^edge-sync: .*: (edge-sync sign .+)$", jobs.log_tail(job.id), re.MULTILINE)
    return found[1] if found else ""


def live_values(jobs: Jobs, job: Job) -> dict[str, Any]:
    """Return what a job's page shows and keeps up to date, for JSON."""
    return {
        "id": job.id, "state": job.state, "progress": None if job.progress is None else round(job.progress, 4),
        "left_s": None if job.left_s is None else round(job.left_s), "says": job.says, "over": job.is_over,
        "log": jobs.log_tail(job.id, _LOG_BYTES), "curves": curves_of(job),
    }  # fmt: skip


def curves_of(job: Job) -> list[dict[str, Any]]:
    """Return the curves of a job for the page's script."""
    return [{"name": one.name, "epochs": one.epochs, "columns": one.columns} for one in read_curves(job.folder)]
