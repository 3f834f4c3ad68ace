"""Proposals of one crop: the gallery's items and the crops that people have decided, best first, and the doubt of them.

The doubt is 0.6 * (1 - s) + 0.4 * (1 - m / 0.2): `s` is the similarity of the best item, held to 0..1, and `m` its
lead over the second item, held to 0..0.2. A crop without proposals has the doubt 1. The worst is reviewed first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

MOST = 3  # proposals of a crop
_CLEAR_LEAD = 0.2  # of the first over the second: more takes nothing off the doubt


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An item that a crop may show."""

    category: str
    item: str
    label: str
    similarity: float  # cosine, -1..1
    crop_id: int | None = None  # of the decided crop that is nearest; None: the gallery proposes it


def best(suggestions: Iterable[Suggestion], most: int = MOST) -> tuple[Suggestion, ...]:
    """Return the best suggestions, each item once."""
    found: dict[tuple[str, str], Suggestion] = {}
    for one in suggestions:
        key = one.category, one.item
        if key not in found or found[key].similarity < one.similarity:
            found[key] = one
    return tuple(sorted(found.values(), key=lambda one: (-one.similarity, one.category, one.item))[:most])


def lead(suggestions: tuple[Suggestion, ...]) -> float:
    """Return by how much the first is more similar than the second; 1 at most."""
    if not suggestions:
        return 0.0
    second = suggestions[1].similarity if len(suggestions) > 1 else -1.0
    return min(1.0, suggestions[0].similarity - second)


def doubt(suggestions: tuple[Suggestion, ...]) -> float:
    """Return the doubt of a crop, 0..1, by the formula above."""
    if not suggestions:
        return 1.0
    similarity = min(1.0, max(0.0, suggestions[0].similarity))
    margin = min(_CLEAR_LEAD, lead(suggestions))
    return 0.6 * (1.0 - similarity) + 0.4 * (1.0 - margin / _CLEAR_LEAD)


def to_json(suggestions: Iterable[Suggestion]) -> str:
    """Return suggestions as the column `proposals` of crops holds them."""
    rows = [
        {"category": one.category, "item": one.item, "label": one.label, "similarity": round(one.similarity, 5)}
        for one in suggestions
    ]
    return json.dumps(rows, ensure_ascii=False)


def from_json(text: str | None) -> tuple[Suggestion, ...]:
    """Return the suggestions that a column holds; none where it is empty."""
    rows: list[dict[str, Any]] = json.loads(text or "[]")
    return tuple(Suggestion(one["category"], one["item"], one["label"], one["similarity"]) for one in rows)
