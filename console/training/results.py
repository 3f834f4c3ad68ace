"""What a training came to: the verdict of `edge-train learn`, and each form of each model as its bundle tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.training.job import Job
from console.training.progress import LEARNED, LEARNED_WORK
from edge.bundle.bundle import MANIFEST_NAME
from edge.gallery.generation import INDEX_NAME

REPORT, PAGE = "report.json", "how-good.html"
_MOST_BYTES = 32 << 20
_ENOUGH = 20  # fewest held-out photos for percentages, as in learn.judge
_FORMS = {"int8": "INT8", "ort-u8": "INT8", "fp16": "FP16 (TensorRT)", "tensorrt-s8": "INT8 (TensorRT)"}
EVALUATION = "evaluation.json"  # of `edge-train evaluate`, in the folder of its job
_WORDS = {
    "top1": "right category", "recall_at_1": "nearest is the right item",
    "recall_at_1_fp32_gallery": "the same, in an FP32 gallery", "ap50_95": "boxes, AP50-95", "ap50": "boxes, AP50",
    "recall": "objects found", "matched_iou_median": "overlap of boxes with FP32",
    "cosine_mean": "similarity of vectors to FP32", "cosine_p1": "the same, the worst 1 %",
    "latency_ms": "time, ms", "expected_calibration_error": "error of its probabilities",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to one held-out photo."""

    path: Path
    box_px: tuple[float, float, float, float] | None
    category: str
    item: str
    label: str
    outcome: str  # right, unknown, wrong
    nearest: str
    probability: float | None
    similarity: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good a recogniser is on photos that it had not seen."""

    photos: int
    items: int
    held_out: int
    right: int
    unknown: int
    wrong: int
    nearest_right: int
    lookup_ms: float
    how: str
    is_trained: bool

    @property
    def headline(self) -> str:
        """Return the result in one sentence."""
        if not self.held_out:
            return "No photo was held out, so nobody knows yet how good it is. Name more crops, and learn again."
        if self.held_out < _ENOUGH:
            return (
                f"Of {self.held_out} photos that it had not seen, it named {self.right} rightly, said “I don't know” "
                f"to {self.unknown}, and named {self.wrong} wrongly. That is too few photos for a percentage."
            )
        share = 100 / self.held_out
        return (
            f"Of 100 photos that it had not seen, it names {share * self.right:.0f} rightly, says “I don't know” to "
            f"{share * self.unknown:.0f}, and names {share * self.wrong:.0f} wrongly ({self.held_out} photos)."
        )


@dataclass(frozen=True, slots=True)
class FormTable:
    """The forms of one model side by side."""

    model: str
    ships: str
    why: str
    forms: tuple[str, ...]  # FP32 first
    rows: tuple[tuple[str, tuple[str, ...]], ...]  # metric in words, and its value in each form
    failed: tuple[str, ...]  # gates that did not pass
    images: int


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; empty where there is none that can be read."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_verdict(job: Job) -> Verdict | None:
    """Return the verdict of a job that learned; None without one."""
    report = read_json(job.folder / LEARNED / REPORT)
    told = report.get("verdict")
    if not isinstance(told, dict):
        return None
    try:
        return Verdict(
            photos=int(report["photos"]),
            items=int(report["items"]),
            held_out=int(told["held_out"]),
            right=int(told["right"]),
            unknown=int(told["unknown"]),
            wrong=int(told["wrong"]),
            nearest_right=int(told["nearest_item_right"]),
            lookup_ms=float(told["lookup_ms"]),
            how=str(report["how"]),
            is_trained=str(report["how"]).startswith("trained"),
        )
    except (KeyError, TypeError, ValueError):
        return None


def answers_of(job: Job) -> tuple[Answer, ...]:
    """Return the answers that `edge-train learn` or `edge-train evaluate` listed; none if the report is damaged."""
    for report in (read_json(job.folder / LEARNED / REPORT), read_json(job.folder / EVALUATION)):
        try:
            if found := tuple(_answer(one) for one in report.get("answers", [])):
                return found
        except (KeyError, TypeError, ValueError):
            continue
    return ()


def pair_of(job: Job) -> tuple[Path, Path] | None:
    """Return the bundle and the gallery that a job made; None if it made none."""
    for inner in ("", LEARNED_WORK):
        bundle, gallery = job.folder / inner / "bundle", job.folder / inner / "gallery"
        if (bundle / MANIFEST_NAME).is_file() and (gallery / INDEX_NAME).is_file():
            return bundle, gallery
    return None


def bundle_of(job: Job) -> Path | None:
    """Return the bundle that a job made; None if it made none."""
    for inner in ("bundle", f"{LEARNED_WORK}/bundle"):
        if (job.folder / inner / MANIFEST_NAME).is_file():
            return job.folder / inner
    return None


def form_tables(bundle: Path) -> list[FormTable]:
    """Return the forms of each model of a bundle, as they were measured when it was packed."""
    evaluation = read_json(bundle / MANIFEST_NAME).get("evaluation", {})
    return [table for name, told in evaluation.items() if isinstance(told, dict) and (table := _table(name, told))]


def _table(model: str, told: Mapping[str, Any]) -> FormTable | None:
    measured = {"int8": told} if told.get("metrics") else {}
    others = told.get("forms", {})
    measured |= {form: one for form, one in others.items() if isinstance(one, dict) and one.get("metrics")}
    if not measured:
        return None
    names = list(dict.fromkeys(name for one in measured.values() for name in one["metrics"]))
    rows = []
    for name in names:
        values = [one["metrics"].get(name, {}) for one in measured.values()]
        fp32 = next((row["fp32"] for row in values if "fp32" in row), None)
        cells = [row.get(form, row.get("int8")) for form, row in zip(measured, values, strict=True)]
        rows.append((_in_words(name), tuple(_shown(name, value) for value in (fp32, *cells))))
    failed = [
        f"{_FORMS.get(form, form)}: {gate}"
        for form, one in measured.items()
        for gate, result in one.get("gates", {}).items()
        if result.get("verdict") != "pass"
    ]
    heads = ("FP32", *(_FORMS.get(form, form) for form in measured))
    ships = str(told.get("ship", ""))
    return FormTable(
        model, _FORMS.get(ships, ships.upper()), str(told.get("why", "")), heads, tuple(rows), tuple(failed),
        int(told.get("images", 0)),
    )  # fmt: skip


def _in_words(name: str) -> str:
    metric, _, category = name.partition(".")
    return f"{_WORDS.get(metric, metric)}{f': {category}' if category else ''}"


def _shown(name: str, value: object) -> str:
    if not isinstance(value, (int, float)):
        return "\N{EN DASH}"
    return f"{value:.2f}" if name.endswith("_ms") else f"{value:.4f}"


def _answer(one: Mapping[str, Any]) -> Answer:
    box = one.get("box_px")
    x0, y0, x1, y1 = map(float, box) if box else (0.0, 0.0, 0.0, 0.0)
    return Answer(
        path=Path(one["path"]),
        box_px=(x0, y0, x1, y1) if box else None,
        category=str(one["category"]),
        item=str(one["item"]),
        label=str(one.get("label") or ""),
        outcome=str(one["outcome"]),
        nearest=str(one["nearest"]),
        probability=_number(one.get("probability")),
        similarity=_number(one.get("similarity")),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None
