"""What a chain answered to each query picture, so that people can review the pictures that it got wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dataset_formats.records import Sample
from trainer.evaluation.open_set import QueryResult

_MOST = 2000  # answers in a report
_ORDER = {"wrong": 0, "unknown": 1, "identified": 2}


def list_answers(queries: Sequence[Sample], results: Sequence[QueryResult]) -> list[dict[str, Any]]:
    """Return the answers as `report.json` of `edge-train learn` lists them: the wrong ones first, the surest on top.

    Args:
        queries: the pictures.
        results: of the same pictures, in the same order.
    """
    pairs = sorted(zip(queries, results, strict=True), key=lambda pair: (_ORDER[pair[1].outcome], -pair[1].score))
    return [
        {
            "path": str(query.path.absolute()),
            "box_px": query.box_px,
            "category": query.category,
            "item": query.item,
            "label": query.label,
            "outcome": "right" if result.outcome == "identified" else result.outcome,
            "nearest": result.nearest or "",
            "probability": None if result.probability is None else round(result.probability, 4),
            "similarity": None,
        }
        for query, result in pairs[:_MOST]
    ]
