"""Compares jobs: what they came to side by side, and only the keys in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from console.training.curves import Curves, read_curves
from console.training.job import Job
from console.training.results import read_json, read_verdict

LEAST, MOST = 2, 6
_CARD = "model.json"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison: a value for each job."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several jobs side by side."""

    jobs: tuple[Job, ...]
    metrics: tuple[Row, ...]
    differences: tuple[Row, ...]
    curves: tuple[tuple[Job, tuple[Curves, ...]], ...]


def compare(jobs: Sequence[Job]) -> Comparison:
    """Compare jobs."""
    curves = tuple((job, tuple(read_curves(job.folder))) for job in jobs)
    metrics = _rows([final_metrics(job, runs) for job, runs in curves])
    differing = [row for row in _rows([keys_of(job) for job in jobs]) if len(set(row.values)) > 1]
    return Comparison(tuple(jobs), tuple(metrics), tuple(differing), curves)


def final_metrics(job: Job, curves: Sequence[Curves]) -> dict[str, Any]:
    """Return what a job came to: the verdict, the cards of its models, and the last values of its curves."""
    found: dict[str, Any] = {}
    if (verdict := read_verdict(job)) is not None and verdict.held_out:
        for name in ("right", "unknown", "wrong"):
            found[f"held out: {name}"] = f"{getattr(verdict, name) / verdict.held_out:.1%}"
        found["held-out photos"] = verdict.held_out
        found["time of one look, ms"] = verdict.lookup_ms
    run = job.folder / "run"
    for folder in (run, *(sorted(run.iterdir()) if run.is_dir() else ())):
        card = read_json(folder / _CARD)
        metrics = card.get("metrics")
        if isinstance(metrics, dict):
            where = "" if folder == run else f"{folder.name}: "
            found |= {f"{where}{name}": value for name, value in metrics.items() if isinstance(value, (int, float))}
    if job.ended_at and job.started_at:
        found["minutes"] = round((job.ended_at - job.started_at) / 60, 1)
    for one in curves:
        if "loss" in one.final:
            found[f"{one.name}: loss"] = one.final["loss"]
    return found


def keys_of(job: Job) -> dict[str, Any]:
    """Return what a job was made with, by key."""
    about = dict(job.about)
    about.pop("sequence", None)  # each bundle has another
    keys: Mapping[str, Any] = about.pop("keys", {})
    counts: Mapping[str, Any] = about.pop("counts", {})
    plan = read_json(job.folder / "shop" / "report.json").get("plan", {})
    found = {"kind": job.kind, **about, **keys}
    found |= {f"data: {name}": value for name, value in counts.items()}
    if isinstance(plan, dict):
        found |= {f"plan: {name}": value for name, value in plan.items()}
    return found


def _rows(columns: Sequence[Mapping[str, Any]]) -> list[Row]:
    names = list(dict.fromkeys(name for column in columns for name in column))
    return [Row(name, tuple(_shown(column.get(name)) for column in columns)) for name in names]


def _shown(value: object) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)[:200]
