"""The data card: what a data set holds, and what is wrong with it. Pure: what was examined comes in as rows."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.data.duplicates import NEAR_BITS, NEAR_COLOUR, Print, groups_of, near_pairs
from trainer.sample import Layout

CARD_FILE = "data_card.json"
SCHEMA = 1
_LISTED = 1000  # pairs, files and names of each kind that a card lists at most; all are counted


@dataclass(frozen=True, slots=True)
class Row:
    """One picture, or one crop of it, as it was examined."""

    path: Path
    split: str
    objects: tuple[tuple[str, str], ...]  # category and item of each
    look: Print | None = None  # None: it could not be read
    digest: str = ""  # of the file's bytes; none: not known


@dataclass(slots=True)
class Findings:
    """What was noticed on the way."""

    source: str
    layout: Layout | None = None
    true_boxes: bool = False  # objects were cut out by boxes that people drew
    unreadable: list[str] = field(default_factory=list)
    boxes_outside: list[str] = field(default_factory=list)  # clipped
    boxes_empty: list[str] = field(default_factory=list)  # left out
    oddities: dict[str, list[str]] = field(default_factory=dict)  # files by what is odd: 16 bit, CMYK, animated ..
    notes: list[str] = field(default_factory=list)


def make_card(rows: Sequence[Row], found: Findings) -> dict[str, Any]:
    """Describe a data set; everything in it can be written as JSON."""
    base = shared_folder(rows)
    read = [row for row in rows if row.look is not None]
    pairs, bits = near_pairs([row.look for row in read if row.look is not None])
    if found.true_boxes:  # several objects of one scene may be alike
        apart = np.array([(read[a].path, read[a].split) != (read[b].path, read[b].split) for a, b in pairs], bool)
        pairs, bits = pairs[apart], bits[apart]
    items = sorted({item for row in rows for item in row.objects})
    return {
        "schema": SCHEMA,
        "source": found.source,
        "layout": found.layout,
        "pictures": len(rows),
        "true_boxes": found.true_boxes,
        "splits": {split: _counts([row for row in rows if row.split == split]) for split in _splits(rows)},
        "balance": {split: _balance([row for row in rows if row.split == split]) for split in _splits(rows)},
        "one_picture": _scarce(rows),
        "not_in_train": _not_in_train(rows),
        "alike_names": alike_names(item for _, item in items) + alike_names({category for category, _ in items}),
        "shared_names": _shared(items),
        "unreadable": _short(found.unreadable, base),
        "boxes_outside": _short(found.boxes_outside, base),
        "boxes_empty": _short(found.boxes_empty, base),
        "oddities": {kind: _short(files, base) for kind, files in sorted(found.oddities.items())},
        "notes": _short(found.notes, base),
        "duplicates": describe_pairs(read, pairs, [f"{b} bits" for b in bits.tolist()], base)
        | {"rule": f"at most {NEAR_BITS} of 64 hash bits and {NEAR_COLOUR:g} grey levels apart"},
    }


def shared_folder(rows: Sequence[Row]) -> str:
    """The folder that all pictures lie in, with a slash at its end: cards name files from there."""
    folders = {str(row.path.parent) for row in rows}
    return os.path.commonpath(folders) + os.sep if folders else ""


def _splits(rows: Sequence[Row]) -> list[str]:
    return sorted({row.split for row in rows})


def _short(texts: list[str], base: str) -> dict[str, Any]:
    """How many, and the first of them without the folder that all share."""
    return {"count": len(texts), "first": [text.replace(base, "") for text in texts[:_LISTED]]}


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    objects = [one for row in rows for one in row.objects]
    return {
        "pictures": len(rows),
        "objects": len(objects),
        "categories": len({category for category, _ in objects}),
        "items": len(set(objects)),
    }


def _balance(rows: Sequence[Row]) -> dict[str, Any]:
    """How evenly the objects are spread; `effective` is the number of equal classes of the same entropy."""
    counts = Counter("/".join(one) for row in rows for one in row.objects)
    if not counts:
        return {"items": {}}
    sizes = np.array(list(counts.values()), np.float64)
    share = sizes / sizes.sum()
    return {
        "least": int(sizes.min()),
        "median": float(np.median(sizes)),
        "most": int(sizes.max()),
        "effective": round(float(np.exp(-(share * np.log(share)).sum())), 2),
        "items": dict(sorted(counts.items(), key=lambda pair: (pair[1], pair[0]))),
    }


def _scarce(rows: Sequence[Row]) -> list[str]:
    """Items with a single training picture: no pair can be made of it."""
    counts = Counter("/".join(one) for row in rows if row.split == "train" for one in set(row.objects))
    return sorted(name for name, count in counts.items() if count == 1)


def _not_in_train(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Of each other split, the items that training has none of: intended when classes are disjoint, else not."""
    trained = {one for row in rows if row.split == "train" for one in row.objects}
    if not trained:
        return {}
    found = {
        split: sorted(
            {"/".join(one) for row in rows if row.split == split for one in row.objects if one not in trained}
        )
        for split in _splits(rows)
    }
    return {split: names for split, names in found.items() if names}


def alike_names(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in case, spaces, hyphens, underscores or Unicode form only, and so may be one class."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[re.sub(r"[\s_\-\u2010-\u2015.]+", "", unicodedata.normalize("NFKC", name).casefold())].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _shared(items: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Item names that several categories have: an embedder of all categories takes them for one."""
    categories: dict[str, list[str]] = defaultdict(list)
    for category, item in items:
        categories[item].append(category)
    return {item: found for item, found in categories.items() if len(found) > 1}


def describe_pairs(rows: Sequence[Row], pairs: NDArray[np.int64], told: Sequence[str], base: str) -> dict[str, Any]:
    """What pairs of nearly the same pictures mean: copies, leaks between splits, contradictions of names.

    Args:
        rows: that the pairs index.
        pairs: (n, 2).
        told: how near each pair is, for people.
        base: that paths are shortened by.
    """
    leaks: Counter[str] = Counter()
    listed: list[dict[str, Any]] = []
    contradictions = exact = 0
    for (first, second), near in zip(pairs.tolist(), told, strict=True):
        a, b = rows[first], rows[second]
        is_exact = bool(a.digest) and a.digest == b.digest
        is_leak = a.split != b.split
        contradicts = set(a.objects) != set(b.objects)
        exact += is_exact
        contradictions += contradicts
        leaks[" | ".join(sorted((a.split, b.split)))] += is_leak
        listed.append(
            {
                "a": str(a.path).replace(base, ""),
                "b": str(b.path).replace(base, ""),
                "near": "same file" if is_exact else near,
                "leak": is_leak,
                "contradicts": contradicts,
            }
        )
    listed.sort(key=lambda pair: not (pair["leak"] or pair["contradicts"]))  # what matters first, else as near
    return {
        "pairs": len(pairs),
        "same_file": exact,
        "groups": len(groups_of(pairs, len(rows))),
        "leaks": {key: count for key, count in sorted(leaks.items()) if count},
        "contradictions": contradictions,
        "first": listed[:_LISTED],
    }


def summary(card: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a card, without its lists."""
    counted = {key: card[key]["count"] for key in ("unreadable", "boxes_outside", "boxes_empty", "notes")}
    alike = {key: card[key] for key in ("source", "layout", "pictures", "splits", "true_boxes", "alike_names")}
    pairs = {kind: _numbers(card[kind]) for kind in ("duplicates", "embedding_duplicates") if kind in card}
    oddities = {kind: files["count"] for kind, files in card["oddities"].items()}
    return alike | counted | {"oddities": oddities, "one_picture": card["one_picture"]} | pairs


def _numbers(pairs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in pairs.items() if key != "first"}
