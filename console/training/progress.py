"""How far a running job is, and how long it may take: read from what it prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

from console.training.job import Job
from console.training.log_file import last_line, read_tail
from console.training.processes import LOG

LEARNED = "shop"  # the folder that `edge-train learn` writes, in that of its job
LEARNED_WORK = f"{LEARNED}/work"  # its bundle, gallery and data
_TAIL = 6000  # bytes of the log
_EPOCH_BAR = re.compile(r"(\d{1,6})/(\d{1,6}):\s+(\d{1,3})%\|")  # `trained 3/18:  45%|`, of the training loop
_BAR = re.compile(r"(\d{1,3})%\|")
_MOST_PLANNED = 0.97  # of a plan: it is a guess
_LEAST_S = 5.0  # before this, no time is guessed


def estimate(job: Job, home: Path, now_s: float) -> tuple[float | None, float | None, str]:
    """Return the share that is done, a guess of the seconds left (None: not known), and what it prints now."""
    says = last_line(read_tail(home / LOG, _TAIL))
    done = share_of(says)
    spent_s = now_s - (job.started_at or now_s)
    if job.kind == "learn" and (planned_s := planned_seconds(job)) is not None:
        return min(spent_s / planned_s, _MOST_PLANNED), max(planned_s - spent_s, 0.0) or None, says
    if done is None or done <= 0 or spent_s < _LEAST_S:
        return done, None, says
    return done, spent_s * (1 - done) / done, says


def share_of(line: str) -> float | None:
    """Return the share that a progress bar shows, of all epochs if it counts them; None without one."""
    if found := _EPOCH_BAR.search(line):
        epoch, epochs, percent = map(int, found.groups())
        if 1 <= epoch <= epochs:
            return min(1.0, (epoch - 1 + percent / 100) / epochs)
    found = _BAR.search(line)
    return min(1.0, int(found[1]) / 100) if found else None


def planned_seconds(job: Job) -> float | None:
    """Return how long `edge-train learn` takes by its own plan; None before it has one."""
    try:
        plan = json.loads((job.folder / LEARNED_WORK / "learn.json").read_bytes())["plan"]
        return None if plan is None else max(60.0 * float(plan["minutes"]), 1.0)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
