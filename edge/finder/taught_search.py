"""Taught things that the detector misses are looked for: now and then, a few at a time.

Rules:
1. A camera's frame is searched at most every `every_s`, for at most `items` things; the rest take their turn.
2. What was found last time is looked for first: a track must not end for want of a look.
3. What the detector has found already is not proposed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.config.schema import SeekConfig
from edge.finder.correlate import Query
from edge.finder.finder import Finder
from edge.inference.postprocess import iou_matrix, non_maximum_suppression
from edge.telemetry.timing import Timings
from edge.types import Detection, Image

_SAME = 0.4  # IoU from which two boxes are of one object


@dataclass(frozen=True, slots=True)
class TaughtQuery:
    """A thing to look for."""

    item_id: str
    queries: tuple[Query, ...]  # of some of its pictures


class TaughtSearch:
    """Whose turn it is, camera by camera."""

    def __init__(self, config: SeekConfig) -> None:
        self._config = config
        self._searched_s: dict[str, float] = {}  # by camera
        self._turn: dict[str, list[str]] = {}  # by camera, item ids in the order in which they are next

    def is_due(self, camera: str, now_s: float) -> bool:
        """Whether a frame of a camera is to be searched."""
        elapsed_s = now_s - self._searched_s.get(camera, float("-inf"))
        return elapsed_s < 0 or elapsed_s >= self._config.every_s - 1e-6  # negative: a recording began anew

    def search(
        self, finder: Finder, sought: Sequence[TaughtQuery], camera: str, image_rgb: Image, now_s: float
    ) -> list[Detection]:
        """Search one frame for the things whose turn it is.

        Raises:
            EngineError: a network failed.
        """
        self._searched_s[camera] = now_s
        by_id = {one.item_id: one for one in sought}
        known = [item for item in self._turn.get(camera, []) if item in by_id]
        order = known + [item for item in by_id if item not in known]
        now, later = order[: self._config.items], order[self._config.items :]
        view = finder.scene_features(image_rgb, Timings())
        found: list[Detection] = []
        seen: list[str] = []
        for item in now:
            queries = by_id[item].queries
            boxes = finder.find_boxes(view, finder.heat_map(view, queries, Timings()), queries, Timings())
            found += [Detection(one.box_px, one.score, "object") for one in boxes]
            seen += [item] if boxes else []
        unseen = [item for item in now if item not in seen]
        # one place is kept for those that wait, however many are in view
        kept = seen[: max(1, self._config.items - 1)]
        self._turn[camera] = [*kept, *later, *unseen, *seen[len(kept) :]]
        return found


def new_proposals(sought: list[Detection], detected: Sequence[Detection]) -> list[Detection]:
    """The proposals that neither the detector nor a better proposal has a box for."""
    if not sought:
        return []
    boxes = np.asarray([one.box_px for one in sought], np.float32)
    scores = np.asarray([one.score for one in sought], np.float32)
    kept = [int(i) for i in non_maximum_suppression(boxes, scores, _SAME)]
    if detected:
        overlap = iou_matrix(boxes, np.asarray([one.box_px for one in detected], np.float32)).max(axis=1)
        kept = [i for i in kept if overlap[i] < _SAME]
    return [sought[i] for i in kept]
