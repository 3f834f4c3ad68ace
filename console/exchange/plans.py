"""What an import would change, decided before anything is changed.

Rules this module keeps:
1. Nothing of a person's is replaced by a proposal. Boxes that were confirmed here are replaced only if it is wished.
2. A box that is where one was before keeps its id, and so the decision of the review.
3. No answer is not the answer "no object": a picture without a box counts only if the file says that somebody looked.
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from console.boxes.editing import MOST_BOXES, clip, is_same
from console.exchange.exports import Names
from console.exchange.picture_names import find_pictures, known_pictures
from console.exchange.reading import Read
from dataset_formats.records import ONE_CATEGORY, Annotation, NamedBox
from edge.errors import ConsoleError
from edge.inference.postprocess import iou_matrix
from edge.types import Box

State = Literal["proposed", "confirmed"]
_SAME_SHAPE = 0.01  # share by which the ratio of width to height of a resized picture may differ
_MOVED = 0.3  # overlap from which a box is one that was there, moved
_MAX_NAME = 200  # characters of a class or an item


@dataclass(frozen=True, slots=True)
class Wishes:
    """How somebody wants a file to be understood."""

    names: Names = "class"  # what the names of boxes say
    checked: bool = False  # a person checked the boxes that models drew
    empty: bool = False  # a picture without a box shows no object
    replace: bool = False  # boxes that were confirmed here are replaced, too


@dataclass(frozen=True, slots=True)
class PlannedBox:
    """A box as it will be."""

    id: int | None  # of the one that stays
    box_px: Box
    source: str
    score: float
    category: str | None
    item: str | None
    label: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """What an import would do with one picture."""

    picture_id: int
    name: str
    version: int  # that it saw
    state: State
    boxes: tuple[PlannedBox, ...]
    same: int
    moved: int
    added: int
    removed: int
    unnamed: int  # removed boxes whose object a person had named

    @property
    def changes_boxes(self) -> bool:
        """Whether a box is other than before."""
        return bool(self.moved or self.added or self.removed)


@dataclass(slots=True)
class Plan:
    """What an import would do."""

    changes: list[Change] = field(default_factory=list)
    unchanged: int = 0  # pictures
    kept: list[str] = field(default_factory=list)  # pictures whose boxes of people stay
    empty: list[str] = field(default_factory=list)  # pictures without a box, for which nobody answered
    not_found: list[str] = field(default_factory=list)  # names, and why
    left_out: list[str] = field(default_factory=list)  # records, and why
    noticed: list[str] = field(default_factory=list)

    def count(self) -> dict[str, int]:
        """Return the counts of the changes."""
        names = ("same", "moved", "added", "removed", "unnamed")
        sums = {name: sum(getattr(one, name) for one in self.changes) for name in names}
        return {
            "pictures": len(self.changes),
            "confirmed": sum(one.state == "confirmed" for one in self.changes),
            **sums,
            "unchanged": self.unchanged,
            "kept": len(self.kept),
            "empty": len(self.empty),
            "not_found": len(self.not_found),
            "left_out": len(self.left_out),
        }


def make_plan(rows: sqlite3.Connection, set_id: int, read: Read, wishes: Wishes) -> Plan:
    """Decide what to take of a file.

    Raises:
        ConsoleError: the file names no picture of the set.
    """
    pictures = {row["name"]: row for row in rows.execute("SELECT * FROM pictures WHERE set_id = ?", (set_id,))}
    crops: dict[int, list[sqlite3.Row]] = defaultdict(list)
    for row in rows.execute("SELECT * FROM crops WHERE set_id = ?", (set_id,)):
        crops[row["picture_id"]].append(row)
    of_set = rows.execute("SELECT category FROM sets WHERE id = ?", (set_id,)).fetchone()[0]
    classes = {row["category"] for listed in crops.values() for row in listed} | {of_set, ONE_CATEGORY}
    listed = read.annotations.pictures
    contents = {one.name: one.sha256 for one in listed if one.sha256}
    matches = find_pictures((one.name for one in listed), known_pictures(rows, set_id), contents)
    times = Counter(one.name for one in listed)
    plan = Plan(left_out=list(read.annotations.left_out), noticed=list(read.annotations.noticed))
    plan.not_found = [f"{name}: {why}" for name, why in matches.problems.items()]
    planner = _Planner(plan, read, wishes, {one for one in classes if one}, of_set)
    for one in listed:
        if one.name in matches.found:
            if times[one.name] > 1:
                plan.left_out.append(f"{one.name}: {times[one.name]} records name it; keep one")
                continue
            picture = pictures[matches.found[one.name]]
            planner.add(picture, crops[picture["id"]], one)
    if not matches.found:
        first = plan.not_found[0] if plan.not_found else next(iter(plan.left_out), "it lists none")
        raise ConsoleError("invalid", f"the file names no picture of this set; the first: {first[:300]}")
    return plan


@dataclass(slots=True)
class _Planner:
    plan: Plan
    read: Read
    wishes: Wishes
    classes: set[str]
    of_set: str | None

    def add(self, picture: sqlite3.Row, crops: Sequence[sqlite3.Row], one: Annotation) -> None:
        """Plan one picture."""
        is_proposal = one.name in self.read.proposed and not self.wishes.checked
        of_people = picture["boxes"] in ("confirmed", "whole") or any(
            crop["state"] != "open" or crop["box_source"] == "human" for crop in crops
        )
        boxes = self._boxes(picture, one)
        if boxes is None:
            return
        if not boxes and not crops and (picture["boxes"] == "confirmed" or is_proposal):
            self.plan.unchanged += 1
            return
        if not boxes and not (self.wishes.empty or one.name in self.read.empty_is_answer):
            self.plan.empty.append(picture["name"])
            return
        state: State = "proposed" if is_proposal else "confirmed"
        change = _compared(picture, crops, boxes, state)
        is_there = not change.changes_boxes and picture["boxes"] in (state, "confirmed", "whole")
        if is_there and not self._renames(crops, change):
            self.plan.unchanged += 1
            return
        if of_people and (is_proposal or (picture["boxes"] == "confirmed" and not self.wishes.replace)):
            self.plan.kept.append(picture["name"])
            return
        self.plan.changes.append(change)

    def _boxes(self, picture: sqlite3.Row, one: Annotation) -> list[tuple[NamedBox, Box]] | None:
        """Return the boxes of a record in the pixels of a picture; None, and it is named, if they cannot be used."""
        scale = _scale(one.declared_size_px, picture["width"], picture["height"])
        here = f"{picture['width']} x {picture['height']}"
        if scale is None or len(one.boxes) > MOST_BOXES:
            there = "{} x {}".format(*one.declared_size_px or ("?", "?"))
            why = f"was annotated as {there}, and is {here}" if scale is None else f"has more than {MOST_BOXES} boxes"
            self.plan.left_out.append(f"{one.name}: {why}; annotate that picture")
            return None
        found = []
        for box in one.boxes:
            x0, y0, x1, y1 = box.box_px
            inside = clip(
                (x0 * scale[0], y0 * scale[1], x1 * scale[0], y1 * scale[1]), picture["width"], picture["height"]
            )
            names = (box.item, box.category, box.item_id)
            if inside is None or any(len(name) > _MAX_NAME or not name.isprintable() for name in names):
                why = "is not in the picture" if inside is None else "has a name that is too long or cannot be printed"
                self.plan.left_out.append(f"{one.name}: box of {box.item!a:.40} {why}; draw it again")
                continue
            found.append((box, inside))
        if one.boxes and not found:
            self.plan.left_out.append(f"{one.name}: none of its {len(one.boxes)} boxes can be used, so it is no answer")
            return None
        return [(self._named(box), inside) for box, inside in found]

    def _named(self, box: NamedBox) -> NamedBox:
        """Return a box with `category` as its class, and `item` as its identity; empty where they are unknown."""
        category = "" if box.category == ONE_CATEGORY else box.category
        if self.wishes.names == "identity" and box.item not in self.classes:
            return NamedBox(box.box_px, box.item, category or self.of_set or "", score=box.score)
        name = "" if box.item == ONE_CATEGORY else box.item
        return NamedBox(box.box_px, box.item_id, name or category or self.of_set or "", score=box.score)

    def _renames(self, crops: Sequence[sqlite3.Row], change: Change) -> bool:
        """Return whether an undecided box gets another class or item."""
        known = {crop["id"]: crop for crop in crops if crop["state"] == "open"}
        return any(
            (one.category or self.of_set, one.item) != (known[one.id]["category"] or self.of_set, known[one.id]["item"])
            for one in change.boxes
            if one.id in known
        )


def _compared(
    picture: sqlite3.Row, crops: Sequence[sqlite3.Row], boxes: Sequence[tuple[NamedBox, Box]], state: State
) -> Change:
    """Match boxes with those that are there, each once, the best overlap first."""
    here = [(crop["x0"], crop["y0"], crop["x1"], crop["y1"]) for crop in crops]
    overlap = iou_matrix(
        np.array([box for _, box in boxes], np.float32).reshape(-1, 4), np.array(here, np.float32).reshape(-1, 4)
    )
    stays: dict[int, int] = {}
    while overlap.size and overlap.max() >= _MOVED:
        row, column = (int(one) for one in np.unravel_index(overlap.argmax(), overlap.shape))
        stays[row] = column
        overlap[row, :], overlap[:, column] = -1.0, -1.0
    planned, same = [], 0
    for number, (named, box_px) in enumerate(boxes):
        crop = crops[stays[number]] if number in stays else None
        is_there = crop is not None and is_same(box_px, here[stays[number]])
        same += is_there
        planned.append(_planned(named, box_px, crop, state, is_there=is_there))
    removed = [crop for number, crop in enumerate(crops) if number not in stays.values()]
    return Change(
        picture["id"], picture["name"], picture["version"], state, tuple(planned), same, len(stays) - same,
        len(boxes) - len(stays), len(removed), sum(crop["state"] == "item" for crop in removed),
    )  # fmt: skip


def _planned(named: NamedBox, box_px: Box, crop: sqlite3.Row | None, state: State, *, is_there: bool) -> PlannedBox:
    source = "human" if state == "confirmed" else "import"
    score = 1.0 if named.score is None or state == "confirmed" else min(1.0, max(0.0, named.score))
    category, item = named.category or None, named.item or None
    if crop is None:
        return PlannedBox(None, box_px, source, score, category, item, None)
    same_item = item is None or item == crop["item"]
    return PlannedBox(
        id=crop["id"],
        box_px=(crop["x0"], crop["y0"], crop["x1"], crop["y1"]) if is_there else box_px,
        source=crop["box_source"] if is_there else source,
        score=crop["box_score"] if is_there else score,
        category=category or crop["category"],
        item=crop["item"] if same_item else item,
        label=crop["label"] if same_item else None,
    )


def _scale(size_px: tuple[int, int] | None, width: int, height: int) -> tuple[float, float] | None:
    """Return the factors from the annotated size to that of the picture; None if the two have different shapes."""
    if size_px is None or min(size_px) < 1 or size_px == (width, height):
        return 1.0, 1.0
    across, down = width / size_px[0], height / size_px[1]
    rounding = 1 / min(*size_px, width, height)
    return (across, down) if math.isfinite(across) and abs(across / down - 1) <= _SAME_SHAPE + rounding else None


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON values."""
    return asdict(plan)


def plan_from_json(tree: Mapping[str, Any]) -> Plan:
    """Return the plan of the values that `plan_to_json` made."""
    changes = [
        Change(**{**one, "boxes": tuple(PlannedBox(**{**b, "box_px": tuple(b["box_px"])}) for b in one["boxes"])})
        for one in tree["changes"]
    ]
    return Plan(**{**tree, "changes": changes})
