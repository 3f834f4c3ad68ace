"""Splits of data sets: the names that stand for one, and the split of a picture where nothing states any."""

from __future__ import annotations

from collections.abc import Collection, Iterable

VAL_EVERY = 5  # in a data set without splits, every fifth picture of an item is for validation
_SPLITS = ("train", "val", "test", "catalogue", "gallery", "iconic", "query")
_ALSO_CALLED = {"training": "train", "valid": "val", "validation": "val", "testing": "test", "trainval": "train"}


def split_from_name(name: str) -> str:
    """Return the split that a folder, file or column value stands for; empty for any other name.

    Case, blanks and a year (`val2017`) do not matter; only whole names count: `latest` is not `test`.
    """
    name = name.strip().casefold()
    name = name[:-4] if len(name) > 4 and name[-4:].isdecimal() and name[-4:-2] in ("19", "20") else name
    name = name.rstrip("_- ")
    name = _ALSO_CALLED.get(name, name)
    return name if name in _SPLITS else ""


def find_split(asked: str, there: Collection[str]) -> str | None:
    """Return the split of a data set that a person means, as the data set names it; None if it has none such."""
    asked = asked.strip()
    return next((name for name in (asked, split_from_name(asked)) if name in there), None)


def splits_named(names: Iterable[str]) -> list[str]:
    """Return the splits that names stand for, each once, in their order."""
    return list(dict.fromkeys(split for name in names if (split := split_from_name(name))))


def default_split(number: int) -> str:
    """Return the split of an item's n-th picture in a data set without splits; n counts from 0."""
    return "val" if number % VAL_EVERY == VAL_EVERY - 1 else "train"
