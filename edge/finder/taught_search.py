"""Search camera frames for taught items that the detector misses: at intervals, a few items at a time.

Rules:
1. A camera's frames are searched at most every `every_s`, for at most `items` items. The items take turns.
2. Items found last time are searched first, so that their tracks do not end.
3. Boxes that the detector found already are not proposed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from edge.config.schema import SeekConfig
from edge.finder.correlate import Query
from edge.finder.finder import Finder
from edge.finder.query import object_mask
from edge.inference.postprocess import iou_matrix, non_maximum_suppression
from edge.telemetry.timing import Timings
from edge.types import Box, Detection, Image

_SAME_OBJECT_IOU = 0.4  # from here on two boxes are one object


@dataclass(frozen=True, slots=True)
class TaughtQuery:
    """The queries of one taught item."""

    item_id: str
    queries: tuple[Query, ...]  # from some of its pictures


def make_taught_query(finder: Finder, item_id: str, pictures: Iterable[tuple[Image, Box | None]]) -> TaughtQuery:
    """Compute the queries of a taught item.

    Args:
        finder: of the loaded bundle.
        item_id: of the item.
        pictures: each with the box of the object; None: see `edge.finder.query.object_mask`.

    Raises:
        PictureError: a box lies outside its picture.
        EngineError: the trunk failed.
    """
    masked = ((picture, object_mask(picture, box)) for picture, box in pictures)
    return TaughtQuery(item_id, tuple(finder.make_query(picture, mask, Timings()) for picture, mask in masked))


class TaughtSearch:
    """Searches frames for taught items in turn, for each camera separately."""

    def __init__(self, config: SeekConfig) -> None:
        self._config = config
        self._searched_s: dict[str, float] = {}  # by camera
        self._turn: dict[str, list[str]] = {}  # by camera, item ids in the order of their turns

    def is_due(self, camera: str, now_s: float) -> bool:
        """Whether the next frame of a camera must be searched."""
        elapsed_s = now_s - self._searched_s.get(camera, float("-inf"))
        return elapsed_s < 0 or elapsed_s >= self._config.every_s - 1e-6  # negative: a recording restarted

    def search(
        self, finder: Finder, queries: Sequence[TaughtQuery], camera: str, image_rgb: Image, now_s: float
    ) -> list[Detection]:
        """Search one frame for the items whose turn it is.

        Raises:
            EngineError: a network failed.
        """
        self._searched_s[camera] = now_s
        by_id = {one.item_id: one for one in queries}
        known = [item for item in self._turn.get(camera, []) if item in by_id]
        order = known + [item for item in by_id if item not in known]
        now, later = order[: self._config.items], order[self._config.items :]
        features = finder.scene_features(image_rgb, Timings())
        detections: list[Detection] = []
        found: list[str] = []
        for item in now:
            kernels = by_id[item].queries
            boxes = finder.find_boxes(features, finder.heat_map(features, kernels, Timings()), kernels, Timings())
            detections += [Detection(one.box_px, one.score, "object") for one in boxes]
            found += [item] if boxes else []
        missed = [item for item in now if item not in found]
        # One turn is reserved for waiting items, however many items are in view.
        kept = found[: max(1, self._config.items - 1)]
        self._turn[camera] = [*kept, *later, *missed, *found[len(kept) :]]
        return detections


def new_proposals(proposals: list[Detection], detected: Sequence[Detection]) -> list[Detection]:
    """Return the proposals that overlap neither a detection nor a better proposal."""
    if not proposals:
        return []
    boxes = np.asarray([one.box_px for one in proposals], np.float32)
    scores = np.asarray([one.score for one in proposals], np.float32)
    kept = [int(i) for i in non_maximum_suppression(boxes, scores, _SAME_OBJECT_IOU)]
    if detected:
        overlap = iou_matrix(boxes, np.asarray([one.box_px for one in detected], np.float32)).max(axis=1)
        kept = [i for i in kept if overlap[i] < _SAME_OBJECT_IOU]
    return [proposals[i] for i in kept]
