"""Texts and numbers from devices as pages can show them: one line, bounded, and nothing but printable characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge.errors import one_line

_LATEST_S = 253_402_300_799.0  # of a time that has a date
_MOST_ENTRIES = 64


def clean(text: object, most: int = 200) -> str:
    """Return a text from outside as one line of at most `most` characters; empty for None."""
    shown = "" if text is None else one_line(str(text))
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def moment(value: object) -> float | None:
    """Return Unix seconds that have a date; None for what has none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if 0.0 <= value <= _LATEST_S else None


def counts(value: object) -> dict[str, int]:
    """Return counts by name, the largest first; what is no count is left out."""
    if not isinstance(value, Mapping):
        return {}
    found = {clean(name, 60): number for name, number in value.items() if is_count(number)}
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0]))[:_MOST_ENTRIES])


def is_count(value: object) -> bool:
    """Return whether a value can be a number of devices."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def as_object(value: object) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}
