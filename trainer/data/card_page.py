"""The data card for people: Markdown, and a sheet of the pairs that look the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.errors import CaptureError
from edge.imaging.contact_sheet import Card, contact_sheet
from edge.types import Image
from trainer.data.decode import read_picture

_LINES = 20  # of each list
_ASK = {
    "unreadable": "Pictures that cannot be read",
    "boxes_outside": "Boxes that reach out of their picture (clipped)",
    "boxes_empty": "Boxes outside their picture or without size (left out)",
    "notes": "Left out by the reader",
}


def to_markdown(card: dict[str, Any]) -> str:
    """The card as a page."""
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
        "Least, median and most are objects of an item; effective is the number of equal items as uneven.",
        "",
    ]
    for kind, title in (("duplicates", "Look the same"), ("embedding_duplicates", "Look the same to the model")):
        if kind in card:
            lines += _pairs(title, card[kind])
    for key, title in _ASK.items():
        lines += _list(title, card[key]["first"], card[key]["count"])
    for kind, files in card["oddities"].items():
        lines += _list(f"Pictures that are {kind}", files["first"], files["count"])
    lines += _list("Items with one training picture (no pair can be made)", card["one_picture"])
    lines += _list("Names that may be one class", [", ".join(names) for names in card["alike_names"]])
    shared = [f"{item}: {', '.join(found)}" for item, found in card["shared_names"].items()]
    lines += _list("Items of several categories", shared)
    for split, names in card["not_in_train"].items():
        lines += _list(f"Items of {split} that training has none of", names)
    return "\n".join(lines) + "\n"


def _list(title: str, texts: Sequence[str], count: int | None = None) -> list[str]:
    count = len(texts) if count is None else count
    if not count:
        return []
    more = [f"* … and {count - _LINES} more"] if count > _LINES else []
    return [f"## {title}: {count}", "", *(f"* {text}" for text in texts[:_LINES]), *more, ""]


def _pairs(title: str, pairs: dict[str, Any]) -> list[str]:
    leaks = ", ".join(f"{count} {key}" for key, count in pairs["leaks"].items()) or "none"
    told = f"Same file: {pairs['same_file']}. Between splits: {leaks}. Of different names: {pairs['contradictions']}."
    lines = [
        f"## {title}: {pairs['pairs']} pairs in {pairs['groups']} groups",
        "",
        f"Rule: {pairs['rule']}. {told}",
        "",
    ]
    for pair in pairs["first"][:_LINES]:
        marks = " **leak**" * pair["leak"] + " **other name**" * pair["contradicts"]
        lines.append(f"* {pair['a']} = {pair['b']} ({pair['near']}){marks}")
    return [*lines, ""]


def pair_sheet(pairs: Sequence[dict[str, Any]], base: Path, most: int = 60) -> Image | None:
    """Draw pairs side by side: red where names differ, grey where only the splits do; None when there are none."""
    cards = []
    for pair in pairs[:most]:
        try:
            first, second = (read_picture(base / pair[key])[0] for key in ("a", "b"))
        except CaptureError:
            continue
        verdict = False if pair["contradicts"] else None if pair["leak"] else True
        cards.append(Card(first, second, _tail(pair["a"]), f"{pair['near']}: {_tail(pair['b'])}", verdict))
    return contact_sheet(cards, []) if cards else None


def _tail(path: str) -> str:
    return path[-32:]
