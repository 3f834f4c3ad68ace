"""Keep the features of objects that have left, and search them again when another gallery becomes active.

Rules:
1. The number of objects and their age are bounded; the oldest are dropped first.
2. A vector is searched only in a gallery of its own embedding space.
3. A new result is published only if it is an identity that was not published before.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace

from edge.recognition.camera_tracks import TrackState
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.track_features import TrackFeatures
from edge.types import Category, Decision, FloatArray, Silhouette


@dataclass(frozen=True, slots=True)
class DepartedObject:
    """One object that has left."""

    track_id: int
    state: TrackState  # without its features
    left_s: float  # monotonic, when its end was published
    decision: Decision  # as published
    categories: tuple[Category, ...] | None  # likely ones, best first; None: any
    vectors: dict[str, FloatArray]  # by embedding space, of unit length
    silhouette: Silhouette | None
    gallery_id: str  # the gallery generation it was last searched in


class Reidentifier:
    """The objects that left recently, in the order in which they left."""

    def __init__(self, max_objects: int, max_age_s: float) -> None:
        self._max_objects = max_objects
        self._max_age_s = max_age_s
        self._objects: OrderedDict[tuple[str, int], DepartedObject] = OrderedDict()  # by camera and track
        self._queue: deque[tuple[str, int]] = deque(maxlen=max_objects)  # to be searched, newest last

    def __len__(self) -> int:
        return len(self._objects)

    def take_over(self, other: Reidentifier) -> None:
        """Take the objects of another one, within this one's bounds."""
        self._objects, self._queue = other._objects, deque(other._queue, maxlen=self._max_objects)
        while len(self._objects) > self._max_objects:
            self._objects.popitem(last=False)

    def add(self, track_id: int, state: TrackState, features: TrackFeatures, decision: Decision, now_s: float) -> None:
        """Keep what a later search of an object needs."""
        if not features.vectors or self._max_objects == 0:
            return
        key = (state.observation.camera, track_id)
        self._objects[key] = DepartedObject(
            track_id,
            replace(state, features=None),
            now_s,
            decision,
            features.categories,
            features.fused(),
            features.silhouette,
            features.gallery_id,
        )
        self._queue.append(key)
        self._drop_old(now_s)

    def queue_all(self) -> None:
        """Queue every object: another gallery is active."""
        self._queue = deque(self._objects, self._max_objects)

    def search(self, models: LoadedModels, now_s: float, limit: int) -> list[DepartedObject]:
        """Search some of the queued objects, the newest first; return those with a new identity.

        Args:
            models: the active bundle and gallery.
            now_s: monotonic.
            limit: objects at most, so that the frames of live cameras do not wait.
        """
        self._drop_old(now_s)
        found = []
        for _ in range(min(limit, len(self._queue))):
            key = self._queue.pop()
            departed = self._objects.get(key)
            if departed is None or departed.gallery_id == models.gallery_id:
                continue
            decision = _search(departed, models)
            self._objects[key] = replace(departed, decision=decision, gallery_id=models.gallery_id)
            if decision is not departed.decision:
                found.append(self._objects[key])
        return found

    def _drop_old(self, now_s: float) -> None:
        while self._objects:
            key, oldest = next(iter(self._objects.items()))
            if len(self._objects) <= self._max_objects and now_s - oldest.left_s <= self._max_age_s:
                break
            del self._objects[key]


def _search(departed: DepartedObject, models: LoadedModels) -> Decision:
    """Decide on an object by another gallery; return the published decision if there is no new identity."""
    space_ids, categories = models.space_ids, departed.categories
    if categories is not None:
        there = (c for c in categories if c.name in models.indexes)
        categories = tuple(c for c in there if space_ids.get(c.name) in departed.vectors)
    if not (departed.vectors.keys() & space_ids.values() if categories is None else categories):
        return departed.decision
    decision = models.identify(categories, departed.vectors, departed.silhouette)
    before, now = departed.decision.match, decision.match
    return departed.decision if now is None or (before is not None and before.item_id == now.item_id) else decision
