"""Pictures with boxes as values of JSON: `labels.json`, and the boxes of an edit."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from dataset_formats.text_files import BAD_DATA, as_text
from edge.types import Box
from trainer.labelling.proposals import Proposal, Source

log = logging.getLogger(__name__)

_LEAST_PX = 0.99  # width and height of a box: a pixel, but for rounding


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """One picture and its boxes."""

    name: str  # its path, relative to the label folder
    width: int
    height: int
    boxes: tuple[Proposal, ...] = ()
    state: Literal["proposed", "human"] = "proposed"
    uncertainty: float = 1.0
    why: str = ""


def clip_to_picture(box: Proposal, picture: LabelledPicture) -> Proposal | None:
    """Return a box of a person, clipped to its picture; None if less than a pixel of it is left."""
    x0, y0, x1, y1 = box.box_px
    clipped = (max(0.0, x0), max(0.0, y0), min(float(picture.width), x1), min(float(picture.height), y1))
    if not all(map(math.isfinite, box.box_px)) or min(clipped[2] - clipped[0], clipped[3] - clipped[1]) < _LEAST_PX:
        return None
    return replace(box, box_px=clipped, source="human", score=1.0)


def labels_to_json(listed: Iterable[LabelledPicture], split_of: Mapping[str, str]) -> dict[str, Any]:
    """Return pictures as COCO, with their states, reasons and splits; `unlabelled` without a split."""
    listed = list(listed)
    names = sorted({box.category for one in listed for box in one.boxes} | {"object"})
    number_of = {name: number for number, name in enumerate(names, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for one in listed:
        about: dict[str, Any] = {"state": one.state, "split": split_of.get(one.name, "unlabelled")}
        about |= {"uncertainty": one.uncertainty, "why": one.why}
        size = {"width": one.width, "height": one.height}
        images.append({"id": len(images) + 1, "file_name": one.name} | size | about)
        for box in one.boxes:
            x0, y0, x1, y1 = (round(v, 2) for v in box.box_px)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": number_of[box.category],
                    "bbox": [x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)],
                    "area": round((x1 - x0) * (y1 - y0), 2),
                    "iscrowd": 0,
                    "score": round(box.score, 4),
                    "source": box.source,
                    "reasons": box.reasons,
                }
            )
    categories = [{"id": number, "name": name} for name, number in number_of.items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def labels_from_json(tree: Any, file: Path) -> dict[str, LabelledPicture]:
    """Return the pictures of `labels.json` by name. A damaged picture or box is left out, and named in the log.

    Raises:
        BAD_DATA: it is no label file.
    """
    images, annotations, categories = (list(tree[key]) for key in ("images", "annotations", "categories"))
    damaged = []
    names: dict[Any, str] = {}
    pictures: dict[Any, LabelledPicture] = {}
    boxes: dict[Any, list[Proposal]] = defaultdict(list)
    for number, entry in enumerate(categories, 1):
        try:
            names[entry["id"]] = as_text(entry["name"])
        except BAD_DATA as error:
            damaged.append(f"category {number}: {error!r:.80}")
    for number, entry in enumerate(images, 1):
        try:
            pictures[entry["id"]] = _picture(entry)
        except BAD_DATA as error:
            damaged.append(f"image {number}: {error!r:.80}")
    for number, entry in enumerate(annotations, 1):
        try:
            if entry["image_id"] not in pictures:
                raise ValueError("its image is not there")
            boxes[entry["image_id"]].append(_annotation(entry, names[entry["category_id"]]))
        except BAD_DATA as error:
            damaged.append(f"annotation {number}: {error!r:.80}")
    for line in damaged:
        log.warning("%s: left out %s; propose again to replace it", file, line)
    return {one.name: replace(one, boxes=tuple(boxes[key])) for key, one in pictures.items()}


def proposal_to_json(box: Proposal) -> dict[str, Any]:
    """Return a box as JSON values."""
    return {
        "box_px": [round(float(v), 2) for v in box.box_px],
        "score": round(box.score, 4),
        "source": box.source,
        "category": box.category,
        "reasons": box.reasons,
    }


def proposal_from_json(entry: dict[str, Any]) -> Proposal:
    """Return the box of the values that `proposal_to_json` made.

    Raises:
        BAD_DATA: they are damaged.
    """
    x0, y0, x1, y1 = entry["box_px"]
    return _proposal((x0, y0, x1, y1), entry, entry["category"])


def _annotation(entry: dict[str, Any], category: str) -> Proposal:
    x, y, width, height = entry["bbox"]
    return _proposal((x, y, x + width, y + height), entry, category)


def _proposal(box_px: Box, entry: dict[str, Any], category: str) -> Proposal:
    numbers = [*box_px, entry["score"], *entry["reasons"].values()]
    if any(isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one) for one in numbers):
        raise ValueError(f"has a value that is no number among {numbers!r:.60}")
    if entry["source"] not in get_args(Source):
        raise ValueError(f"source is {entry['source']!r:.20}")
    return Proposal(box_px, entry["score"], entry["source"], entry["reasons"], as_text(category))


def _picture(entry: dict[str, Any]) -> LabelledPicture:
    width, height, state, uncertainty = (entry[key] for key in ("width", "height", "state", "uncertainty"))
    if not all(type(side) is int and side > 0 for side in (width, height)):
        raise ValueError(f"size is {width!r:.20} x {height!r:.20}")
    if state not in ("proposed", "human") or not math.isfinite(uncertainty):
        raise ValueError(f"state is {state!r:.20}, uncertainty {uncertainty!r:.20}")
    about = as_text(entry["file_name"]), width, height
    return LabelledPicture(*about, state=state, uncertainty=uncertainty, why=as_text(entry["why"]))
