"""The data card: what a data set holds and what is wrong with it, as JSON values and as Markdown. Does no I/O."""

from __future__ import annotations

import json
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

from dataset_formats.records import Layout
from trainer.data.duplicates import NEAR_BITS, NEAR_COLOUR, PerceptualHash, connected_groups, near_duplicates

CARD_FILE = "data_card.json"
SCHEMA = 1
_LINES = 20  # of each list on the page
_LISTS = {
    "unreadable": "Unreadable pictures",
    "boxes_outside": "Boxes that reach outside their picture (clipped)",
    "boxes_empty": "Boxes outside their picture or without area (left out)",
    "read": "Read",
    "left_out": "Left out by the reader",
    "noticed": "Noticed by the reader",
}
_LISTED = 1000  # pairs, files and names of each kind that a card lists at most; it counts all


@dataclass(frozen=True, slots=True)
class Row:
    """One examined picture, or one crop of it."""

    path: Path
    split: str
    objects: tuple[tuple[str, str], ...]  # category and item of each
    phash: PerceptualHash | None = None  # None: it could not be read
    digest: str = ""  # of the file's bytes; empty: not known


@dataclass(slots=True)
class Findings:
    """What examining a data set found beside its pictures."""

    source: str
    layout: Layout | None = None
    true_boxes: bool = False  # objects are cut out by boxes that people drew
    unreadable: list[str] = field(default_factory=list)
    boxes_outside: list[str] = field(default_factory=list)  # clipped
    boxes_empty: list[str] = field(default_factory=list)  # left out
    oddities: dict[str, list[str]] = field(default_factory=dict)  # files by oddity: 16 bit, CMYK, animated, …
    left_out: list[str] = field(default_factory=list)  # by the reader: which record, and why
    noticed: list[str] = field(default_factory=list)  # by the reader: read, but deserves a look


def make_card(rows: Sequence[Row], found: Findings) -> dict[str, Any]:
    """Return the data card of a data set; every value can be written as JSON."""
    base = shared_folder(rows)
    read = [row for row in rows if row.phash is not None]
    pairs, bits = near_duplicates([row.phash for row in read if row.phash is not None])
    if found.true_boxes:  # several objects of one scene may be alike
        apart = np.array([(read[a].path, read[a].split) != (read[b].path, read[b].split) for a, b in pairs], bool)
        pairs, bits = pairs[apart], bits[apart]
    items = sorted({item for row in rows for item in row.objects})
    return {
        "schema": SCHEMA,
        "source": found.source,
        "layout": found.layout,
        "pictures": len(rows),
        "read": _count_and_first([_described(row) for row in read], base),
        "true_boxes": found.true_boxes,
        "splits": {split: _counts([row for row in rows if row.split == split]) for split in _splits(rows)},
        "balance": {split: _balance([row for row in rows if row.split == split]) for split in _splits(rows)},
        "one_picture": _one_picture_items(rows),
        "not_in_train": _not_in_train(rows),
        "alike_names": alike_names(item for _, item in items) + alike_names({category for category, _ in items}),
        "shared_names": _items_in_several_categories(items),
        "unreadable": _count_and_first(found.unreadable, base),
        "boxes_outside": _count_and_first(found.boxes_outside, base),
        "boxes_empty": _count_and_first(found.boxes_empty, base),
        "oddities": {kind: _count_and_first(files, base) for kind, files in sorted(found.oddities.items())},
        "left_out": _count_and_first(found.left_out, base, None),
        "noticed": _count_and_first(found.noticed, base, None),
        "duplicates": describe_pairs(read, pairs, [f"{b} bits" for b in bits.tolist()], base)
        | {"rule": f"at most {NEAR_BITS} of 64 hash bits and {NEAR_COLOUR:g} grey levels apart"},
    }


def shared_folder(rows: Sequence[Row]) -> str:
    """Return the deepest folder that holds all pictures, with a slash at its end; empty if none does."""
    folders = {str(row.path.parent) for row in rows}
    if len({os.path.isabs(one) for one in folders}) != 1:  # noqa: PTH117 no object for each file
        return ""
    return str(Path(os.path.commonpath(folders), "_"))[:-1]


def _described(row: Row) -> str:
    objects = ", ".join("/".join(one) for one in row.objects)
    return f"{row.path}: {row.split}: {objects or 'no object'}"


def _splits(rows: Sequence[Row]) -> list[str]:
    return sorted({row.split for row in rows})


def _count_and_first(texts: Sequence[str], base: str, most: int | None = _LISTED) -> dict[str, Any]:
    """Return the count of texts and the first of them (None: all), without the shared folder at their start."""
    return {"count": len(texts), "first": [text.removeprefix(base) for text in texts[:most]]}


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    objects = [one for row in rows for one in row.objects]
    return {
        "pictures": len(rows),
        "objects": len(objects),
        "categories": len({category for category, _ in objects}),
        "items": len(set(objects)),
    }


def _balance(rows: Sequence[Row]) -> dict[str, Any]:
    """Return how evenly objects spread over items; `effective` is the number of equal classes of the same entropy."""
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


def _one_picture_items(rows: Sequence[Row]) -> list[str]:
    """Return the items with a single training picture, from which no pair can be made."""
    counts = Counter("/".join(one) for row in rows if row.split == "train" for one in set(row.objects))
    return sorted(name for name, count in counts.items() if count == 1)


def _not_in_train(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return, for each other split, the items missing from training; this is intended only for disjoint classes."""
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
    """Return groups of names that differ only in case, spaces, hyphens, underscores or Unicode form."""
    groups: dict[str, set[str]] = defaultdict(set)
    for name in names:
        groups[re.sub(r"[\s_\-\u2010-\u2015.]+", "", unicodedata.normalize("NFKC", name).casefold())].add(name)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def _items_in_several_categories(items: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return item names that occur in several categories; an embedder of all categories treats them as one item."""
    categories: dict[str, list[str]] = defaultdict(list)
    for category, item in items:
        categories[item].append(category)
    return {item: found for item, found in categories.items() if len(found) > 1}


def describe_pairs(
    rows: Sequence[Row], pairs: NDArray[np.int64], distances: Sequence[str], base: str
) -> dict[str, Any]:
    """Describe pairs of near duplicates: copies, leaks between splits, and pictures with contradicting names.

    Args:
        rows: the pictures that the pairs index.
        pairs: (n, 2).
        distances: how near each pair is, as text.
        base: prefix to remove from paths.
    """
    leaks: Counter[str] = Counter()
    listed: list[dict[str, Any]] = []
    contradictions = exact = 0
    for (first, second), near in zip(pairs.tolist(), distances, strict=True):
        a, b = rows[first], rows[second]
        is_exact = bool(a.digest) and a.digest == b.digest
        is_leak = a.split != b.split
        contradicts = set(a.objects) != set(b.objects)
        exact += is_exact
        contradictions += contradicts
        leaks[" | ".join(sorted((a.split, b.split)))] += is_leak
        listed.append(
            {
                "a": str(a.path).removeprefix(base),
                "b": str(b.path).removeprefix(base),
                "near": "same file" if is_exact else near,
                "leak": is_leak,
                "contradicts": contradicts,
            }
        )
    listed.sort(key=lambda pair: not (pair["leak"] or pair["contradicts"]))  # leaks and contradictions first
    return {
        "pairs": len(pairs),
        "same_file": exact,
        "groups": len(connected_groups(pairs, len(rows))),
        "leaks": {key: count for key, count in sorted(leaks.items()) if count},
        "contradictions": contradictions,
        "first": listed[:_LISTED],
    }


def summary(card: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of a card, without its lists."""
    counted = {key: card[key]["count"] for key in _LISTS}
    alike = {key: card[key] for key in ("source", "layout", "pictures", "splits", "true_boxes", "alike_names")}
    pairs = {kind: _numbers(card[kind]) for kind in ("duplicates", "embedding_duplicates") if kind in card}
    oddities = {kind: files["count"] for kind, files in card["oddities"].items()}
    return alike | counted | {"oddities": oddities, "one_picture": card["one_picture"]} | pairs


def _numbers(pairs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in pairs.items() if key != "first"}


def to_json(card: dict[str, Any]) -> bytes:
    """Return the card as a JSON file; a name that is not UTF-8 is escaped."""
    return json.dumps(card, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace")


def to_markdown(card: dict[str, Any]) -> bytes:
    """Return the card as a Markdown page; a name that is not UTF-8 is escaped."""
    lines = [f"# Data card: {card['source']}", "", f"Layout {card['layout']}, {card['pictures']} pictures."]
    if card["true_boxes"]:
        lines += ["Objects are cut out by boxes that people drew."]
    lines += ["", "| split | pictures | objects | categories | items | least | median | most | effective |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for split, counts in card["splits"].items():
        balance = card["balance"][split]
        spread = [str(balance.get(key, "")) for key in ("least", "median", "most", "effective")]
        lines.append(f"| {split} | {' | '.join([*(str(v) for v in counts.values()), *spread])} |")
    lines += [
        "",
        "Least, median and most count the objects of an item.",
        "Effective is the number of equally frequent items with the same entropy.",
        "",
    ]
    for kind, title in (("duplicates", "Near duplicates"), ("embedding_duplicates", "Duplicates to the model")):
        if kind in card:
            lines += _pairs(title, card[kind])
    for key, title in _LISTS.items():
        lines += _list(title, card[key]["first"], card[key]["count"])
    for kind, files in card["oddities"].items():
        lines += _list(f"Pictures that are {kind}", files["first"], files["count"])
    lines += _list("Items with a single training picture (no pair can be made)", card["one_picture"])
    lines += _list("Names that may be one class", [", ".join(names) for names in card["alike_names"]])
    shared = [f"{item}: {', '.join(found)}" for item, found in card["shared_names"].items()]
    lines += _list("Item names used in several categories", shared)
    for split, names in card["not_in_train"].items():
        lines += _list(f"Items of {split} without training pictures", names)
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")


def _list(title: str, texts: Sequence[str], count: int | None = None) -> list[str]:
    count = len(texts) if count is None else count
    if not count:
        return []
    more = [f"* … and {count - _LINES} more"] if count > _LINES else []
    return [f"## {title}: {count}", "", *(f"* {' '.join(text.splitlines())}" for text in texts[:_LINES]), *more, ""]


def _pairs(title: str, pairs: dict[str, Any]) -> list[str]:
    leaks = ", ".join(f"{count} {key}" for key, count in pairs["leaks"].items()) or "none"
    counts = f"Same file: {pairs['same_file']}. Between splits: {leaks}. Different names: {pairs['contradictions']}."
    lines = [
        f"## {title}: {pairs['pairs']} pairs in {pairs['groups']} groups",
        "",
        f"Rule: {pairs['rule']}. {counts}",
        "",
    ]
    for pair in pairs["first"][:_LINES]:
        marks = " **leak**" * pair["leak"] + " **other name**" * pair["contradicts"]
        lines.append(f"* {pair['a']} = {pair['b']} ({pair['near']}){marks}")
    return [*lines, ""]
