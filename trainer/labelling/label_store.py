"""The labels of a folder of pictures: proposed boxes, boxes that people confirmed, and the queue of pictures to check.

Files of a label folder:
  labels.json   COCO; images carry `state` (proposed or human), `split`, `uncertainty`, `why`; annotations carry
                `source`, `score`, `reasons`. `edge-train detector` reads it as it is: every fifth confirmed picture is
                `val`, the other confirmed ones are `train`, the rest is `unlabelled`.
  edits.jsonl   one line for each confirmation of a picture: boxes before and after. Never rewritten.
  queue.csv     unconfirmed pictures, the most uncertain first.

Rules this module keeps:
1. An edit is on disk before `confirm` returns; `labels.json` may be older and is updated from the edits.
2. A proposal never replaces what a person confirmed.
3. Other files are replaced whole. `edits.jsonl` is appended to; a last line that a crash truncated is ignored.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from dataset_formats.text_files import BAD_DATA, as_text
from edge.durable import fsync_folder, write_durably
from edge.errors import TrainError
from edge.inference.postprocess import iou_matrix
from trainer.labelling.label_file import (
    LabelledPicture,
    clip_to_picture,
    labels_from_json,
    labels_to_json,
    proposal_from_json,
    proposal_to_json,
)
from trainer.labelling.proposals import Proposal

log = logging.getLogger(__name__)

LABELS_FILE, EDITS_FILE, QUEUE_FILE = "labels.json", "edits.jsonl", "queue.csv"
NEXT_FILE = "next.json"  # the pictures to edit next
OWN_FILES = (LABELS_FILE, EDITS_FILE, QUEUE_FILE, NEXT_FILE)
UNTOUCHED = 0.7  # overlap of a proposal with the true box that needs no edit
_SAME = 0.1  # overlap from which a box counts as moved, not as removed and another one added
_VAL_EVERY = 5


@dataclass(frozen=True, slots=True)
class Edit:
    """What a person changed in one picture."""

    overlaps: tuple[float, ...]  # of each box that stayed or moved: overlap of the old and the new box
    added: int
    removed: int

    @property
    def untouched(self) -> int:
        """Return the number of proposals that needed no edit."""
        return sum(overlap >= UNTOUCHED for overlap in self.overlaps)


@dataclass(slots=True)
class LabelStore:
    """The labels of one folder, in memory; its writes are durable."""

    folder: Path
    pictures: dict[str, LabelledPicture] = field(default_factory=dict)
    edits: dict[str, Edit] = field(default_factory=dict)  # the first of each picture: later ones edit no proposals
    confirmations: int = 0  # so far, those of the same picture included

    def queue(self) -> list[LabelledPicture]:
        """Return the unconfirmed pictures, the most uncertain first."""
        waiting = [one for one in self.pictures.values() if one.state == "proposed"]
        return sorted(waiting, key=lambda one: (-one.uncertainty, one.name))

    def propose(self, picture: LabelledPicture) -> None:
        """Replace a picture's proposals, unless a person has confirmed the picture."""
        known = self.pictures.get(picture.name)
        if known is None or known.state != "human":
            self.pictures[picture.name] = picture

    def confirm(self, name: str, boxes: list[Proposal]) -> Edit:
        """Store the boxes that a person confirmed; they are on disk when this returns.

        Args:
            name: name of a picture of this store.
            boxes: all objects of the picture, in its pixels; none for a picture without objects.

        Raises:
            TrainError: the picture is unknown, a box is empty or outside it, or the file cannot be written; nothing has
                changed.
        """
        if name not in self.pictures:
            raise TrainError(f"{self.folder}: {name!r} is not one of its {len(self.pictures)} pictures")
        picture = self.pictures[name]
        clipped = []
        for box in boxes:
            inside = clip_to_picture(box, picture)
            if inside is None:
                raise TrainError(
                    f"{name}: box {list(box.box_px)} lies outside the {picture.width}x{picture.height} picture or has "
                    "no area"
                )
            clipped.append(inside)
        line = {
            "picture": name,
            "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "before": [proposal_to_json(box) for box in picture.boxes],
            "after": [proposal_to_json(box) for box in clipped],
        }
        _append(self.folder / EDITS_FILE, json.dumps(line))
        return self._apply(line)

    def save(self) -> None:
        """Write `labels.json` and `queue.csv`, with what other processes have confirmed meanwhile.

        Raises:
            TrainError: the files cannot be written; the old ones are untouched.
        """
        self._replay()
        try:
            write_durably(
                self.folder / LABELS_FILE, json.dumps(labels_to_json(self.pictures.values(), self.splits())).encode()
            )
            write_durably(self.folder / QUEUE_FILE, self._queue_table().encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise TrainError(f"{self.folder}: cannot write labels: {error.strerror}") from error

    def write_batch(self, path: Path, count: int) -> int:
        """Write the first pictures of the queue as COCO, for editing and import; return how many."""
        first = self.queue()[:count]
        write_durably(path, json.dumps(labels_to_json(first, self.splits())).encode())
        return len(first)

    def _apply(self, line: dict[str, Any]) -> Edit:
        before, after = ([proposal_from_json(box) for box in line[side]] for side in ("before", "after"))
        edit = compare_boxes(before, after)
        name = line["picture"]
        self.edits.setdefault(name, edit)
        self.confirmations += 1
        self.pictures[name] = replace(
            self.pictures[name], boxes=tuple(after), state="human", uncertainty=0.0, why="confirmed"
        )
        return edit

    def _replay(self) -> None:
        self.edits.clear()
        self.confirmations = 0
        for line in _read_edits(self.folder / EDITS_FILE):
            if line["picture"] in self.pictures:
                self._apply(line)

    def splits(self) -> dict[str, str]:
        """Return the split of each confirmed picture, by the order of first edits, so that a picture stays in its."""
        return {
            name: "val" if position % _VAL_EVERY == _VAL_EVERY - 1 else "train"
            for position, name in enumerate(self.edits)
        }

    def _queue_table(self) -> str:
        table = io.StringIO()
        writer = csv.writer(table)
        writer.writerow(["picture", "uncertainty", "boxes", "why"])
        writer.writerows([one.name, one.uncertainty, len(one.boxes), one.why] for one in self.queue())
        return table.getvalue()


def open_label_store(folder: Path) -> LabelStore:
    """Read a label folder; an empty or missing folder gives a store without pictures.

    A damaged picture or box is left out, and named in the log.

    Raises:
        TrainError: `labels.json` is no label file, or the folder cannot be created.
    """
    store = LabelStore(folder)
    path = folder / LABELS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists():
            store.pictures |= labels_from_json(json.loads(path.read_bytes()), path)
    except OSError as error:
        raise TrainError(f"{path}: cannot read: {error.strerror}") from error
    except BAD_DATA as error:
        raise TrainError(f"{path}: not a label file: {type(error).__name__} {error}") from error
    store._replay()  # noqa: SLF001 same module
    return store


def compare_boxes(before: list[Proposal], after: list[Proposal]) -> Edit:
    """Match the boxes before and after an edit, each once, the best overlap first."""
    sides = [np.array([box.box_px for box in listed], np.float32).reshape(-1, 4) for listed in (before, after)]
    overlap = iou_matrix(*sides)
    overlaps = []
    while overlap.size and overlap.max() >= _SAME:
        row, column = np.unravel_index(overlap.argmax(), overlap.shape)
        overlaps.append(float(overlap[row, column]))
        overlap[row, :], overlap[:, column] = -1.0, -1.0
    return Edit(tuple(overlaps), len(after) - len(overlaps), len(before) - len(overlaps))


def _append(path: Path, line: str) -> None:
    """Append one line, on disk when this returns; start a new line after one that a crash truncated."""
    try:
        torn = path.exists() and path.stat().st_size > 0 and path.read_bytes()[-1:] != b"\n"
        with path.open("ab") as file:
            file.write((("\n" if torn else "") + line + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(path.parent)
    except OSError as error:
        raise TrainError(f"{path}: cannot write an edit: {error.strerror}") from error


def _read_edits(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    edits = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line:
            continue
        try:
            edit = json.loads(line)
            as_text(edit["picture"]), [proposal_from_json(box) for side in ("before", "after") for box in edit[side]]
        except BAD_DATA:
            log.warning("%s: line %d is damaged and ignored", path, number)
            continue
        edits.append(edit)
    return edits
