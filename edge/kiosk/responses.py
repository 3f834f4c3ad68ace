"""What a kiosk says as JSON values, of what it knows; static/openapi.json is their contract."""

from __future__ import annotations

from typing import Any

from edge.kiosk.kiosk import Enrolment, EnrolmentProgress
from edge.kiosk.session import Session
from edge.kiosk.taught_store import TaughtItem
from edge.recognition.loaded_models import LoadedModels
from edge.types import Category, Decision, Hit


def decision_answer(decision: Decision) -> dict[str, Any]:
    """What something is, or why that is not known."""
    match = decision.match
    return {
        "category": decision.category and _category(decision.category),
        "match": match
        and {
            "item": match.item_id,
            "label": match.label,
            "score": _number(match.score),
            "margin": _number(match.margin),
            "probability": _number(match.probability),
        },
        "reason": decision.reason,
        "top": [_hit(hit) for hit in decision.top],
    }


def lookup_answer(decision: Decision, models: LoadedModels, latency_ms: dict[str, float]) -> dict[str, Any]:
    """The answer to an uploaded picture."""
    versions = {"bundle": models.bundle_id, "gallery": models.gallery_id}
    return {**decision_answer(decision), **versions, "latency_ms": {k: round(v, 2) for k, v in latency_ms.items()}}


def state_answer(version: int, session: Session, teaching: EnrolmentProgress, models: LoadedModels) -> dict[str, Any]:
    """What the page shows."""
    is_teaching = session.phase == "teaching"
    return {
        "version": version,
        "phase": session.phase,
        "still": session.is_still,
        "hint": session.hint,
        "answer": session.decision and decision_answer(session.decision),
        "teaching": {"looks": teaching.looks, "wanted": teaching.wanted, "verdict": teaching.verdict}
        if is_teaching
        else None,
        "categories": sorted(models.stages.embedders),
    }


def lesson_answer(lesson: Enrolment) -> dict[str, Any]:
    """What came of teaching."""
    told = [{"kind": one.kind, "other": one.other and _hit(one.other)} for one in lesson.concerns]
    return {**taught_answer(lesson.item, None), "recognised": lesson.recognised, "concerns": told}


def taught_answer(item: TaughtItem, retired: str | None) -> dict[str, Any]:
    """One thing that was taught."""
    return {
        "item": item.item_id,
        "label": item.label,
        "category": item.category,
        "taught_at": item.taught_at,
        "looks": item.looks,
        "negative": item.negative,
        "retired": retired,
    }


def _category(category: Category) -> dict[str, Any]:
    return {"name": category.name, "score": _number(category.score)}


def _hit(hit: Hit) -> dict[str, Any]:
    return {"item": hit.item_id, "label": hit.label, "score": _number(hit.score)}


def _number(value: float) -> float:
    return round(float(value), 4)
