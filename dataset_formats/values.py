"""Numbers, sizes and flags as data sets write them."""

from __future__ import annotations

import math
import re

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def finite(value: object) -> float | None:
    """Return a finite number, also one written as text; None for anything else, such as true."""
    if isinstance(value, str):
        value = value.strip() if _NUMBER.fullmatch(value.strip()) else None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def number(text: str | None, what: str) -> float:
    """Return the finite number that a text is.

    Raises:
        ValueError: it is none.
    """
    value = finite(text)
    if value is None:
        text = (text or "").strip()
        raise ValueError(f"{what} is {text[:40]!r}, not a number; correct it" if text else f"has no {what}; add it")
    return value


def whole_number(text: str | None, what: str) -> int:
    """Return a whole number, zero or more.

    Raises:
        ValueError: the text is none.
    """
    value = number(text, what)
    if value < 0 or not value.is_integer():
        raise ValueError(f"{what} is {value:g}, expected 0, 1, 2, …")
    return int(value)


def size_or_none(width: str | None, height: str | None) -> tuple[int, int] | None:
    """Return a declared size; None if it is missing, zero or no size: the picture itself tells it."""
    try:
        size = int(number(width, "width")), int(number(height, "height"))
    except ValueError:
        return None
    return size if min(size) > 0 else None


def is_yes(text: str | None) -> bool:
    """Return whether a flag is set."""
    return (text or "").strip().casefold() in ("1", "true", "yes")


def sha256_or_empty(value: object) -> str:
    """Return a hash as data sets write it, 64 hexadecimal digits; empty for anything else."""
    text = value.strip().lower() if isinstance(value, str) else ""
    return text if _SHA256.fullmatch(text) else ""
