"""What a recogniser answered to each picture, so that people can review the pictures that it got wrong.

`report.json` of `edge-train learn` and the report of `edge-train evaluate` list the same records.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dataset_formats.records import Sample
from edge.types import Box
from trainer.evaluation.open_set import QueryResult

Outcome = Literal["right", "unknown", "wrong"]
_MOST = 2000  # answers in a report, which stays readable
_ORDER: dict[Outcome, int] = {"wrong": 0, "unknown": 1, "right": 2}


@dataclass(frozen=True, slots=True)
class ListedAnswer:
    """The answer to one picture."""

    path: Path
    box_px: Box | None  # of the object; None: it fills the picture
    category: str
    item: str  # the true one
    label: str
    outcome: Outcome
    nearest: str  # id of the nearest item, named or not; empty: nothing was searched
    score: float  # the larger, the surer; it orders the list
    probability: float | None = None  # of the answer, 0..1
    similarity: float | None = None  # cosine to the nearest item


def list_answers(answers: Iterable[ListedAnswer]) -> list[dict[str, Any]]:
    """Return answers as JSON values: the wrong ones first, the surest on top, 2000 at most."""
    listed = sorted(answers, key=lambda one: (_ORDER[one.outcome], -one.score))
    return [
        {
            "path": str(one.path.absolute()),
            "box_px": one.box_px,
            "category": one.category,
            "item": one.item,
            "label": one.label,
            "outcome": one.outcome,
            "nearest": one.nearest,
            "probability": None if one.probability is None else round(one.probability, 4),
            "similarity": None if one.similarity is None else round(one.similarity, 4),
        }
        for one in listed[:_MOST]
    ]


def answers_of_queries(queries: Sequence[Sample], results: Sequence[QueryResult]) -> Iterator[ListedAnswer]:
    """Yield the answer to each query picture of an evaluation; `results` are in the same order."""
    outcomes: dict[str, Outcome] = {"identified": "right", "unknown": "unknown", "wrong": "wrong"}
    for query, result in zip(queries, results, strict=True):
        yield ListedAnswer(
            query.path, query.box_px, query.category, query.item, query.label, outcomes[result.outcome],
            result.nearest or "", result.score, result.probability,
        )  # fmt: skip
