"""The JSON responses of a kiosk, as specified in static/openapi.json."""

from __future__ import annotations

from typing import Any

from edge.kiosk.kiosk import Enrolment, EnrolmentProgress
from edge.kiosk.session import Session
from edge.kiosk.taught_store import TaughtItem
from edge.recognition.loaded_models import LoadedModels
from edge.types import Category, Decision, Hit


def decision_json(decision: Decision) -> dict[str, Any]:
    """Return what an object is, or why it is unknown."""
    match = decision.match
    return {
        "category": decision.category and _category(decision.category),
        "match": match
        and {
            "item": match.item_id,
            "label": match.label,
            "score": _number(match.score),
            "margin": _number(match.margin),
            "probability": None if match.probability is None else _number(match.probability),
        },
        "reason": decision.reason,
        "top": [_hit(hit) for hit in decision.top],
        **_attributes(decision),
    }


def lookup_json(decision: Decision, models: LoadedModels, latency_ms: dict[str, float]) -> dict[str, Any]:
    """Return the answer to an uploaded picture."""
    versions = {"bundle": models.bundle_id, "gallery": models.gallery_id}
    return {**decision_json(decision), **versions, "latency_ms": {k: round(v, 2) for k, v in latency_ms.items()}}


def state_json(version: int, session: Session, progress: EnrolmentProgress, models: LoadedModels) -> dict[str, Any]:
    """Return what the page shows."""
    is_enrolling = session.phase == "teaching"
    return {
        "version": version,
        "phase": session.phase,
        "still": session.is_still,
        "hint": session.hint,
        "answer": session.decision and decision_json(session.decision),
        "teaching": {"looks": progress.pictures, "wanted": progress.wanted, "verdict": progress.verdict}
        if is_enrolling
        else None,
        "categories": sorted(models.stages.embedders),
    }


def enrolment_json(enrolment: Enrolment) -> dict[str, Any]:
    """Return the result of teaching an item."""
    warnings = [{"kind": one.kind, "other": one.other and _hit(one.other)} for one in enrolment.warnings]
    return {**taught_json(enrolment.item, None), "recognised": enrolment.recognised, "concerns": warnings}


def taught_json(item: TaughtItem, retired: str | None) -> dict[str, Any]:
    """Return one taught item."""
    return {
        "item": item.item_id,
        "label": item.label,
        "category": item.category,
        "taught_at": item.taught_at,
        "looks": item.looks,
        "negative": item.negative,
        "retired": retired,
    }


def _attributes(decision: Decision) -> dict[str, Any]:
    """Return the attributes of an object as a field, as in an event; no field where its gallery has none."""
    voted = [{"name": a.name, "value": a.value, "confidence": _number(a.confidence)} for a in decision.attributes]
    return {"attributes": voted} if voted else {}


def _category(category: Category) -> dict[str, Any]:
    return {"name": category.name, "score": _number(category.score)}


def _hit(hit: Hit) -> dict[str, Any]:
    return {"item": hit.item_id, "label": hit.label, "score": _number(hit.score)}


def _number(value: float) -> float:
    return round(float(value), 4)
