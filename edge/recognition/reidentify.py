"""Objects that were seen and are gone: fused embeddings, no pictures, to be searched in a gallery that comes later.

Rules:
1. Bounded by count and by age; the oldest go first.
2. A vector is searched only in a gallery of the embedding space that it is of.
3. What is searched anew is told only where it is an identity that was not told before.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, replace

from edge.imaging.silhouette import Silhouette
from edge.recognition.loaded_models import LoadedModels
from edge.recognition.scene import TrackState
from edge.recognition.track_evidence import TrackFeatures
from edge.types import Category, Decision, FloatArray


@dataclass(frozen=True, slots=True)
class DepartedObject:
    """One object that has left."""

    track_id: int
    record: TrackState  # where it was last seen, where it has been
    left_s: float  # monotonic, when it was told to have left
    told: Decision
    categories: tuple[Category, ...]  # that its looks found likely, best first
    vectors: dict[str, FloatArray]  # by category, of unit length
    spaces: dict[str, str]  # by category, of the vector
    outline: Silhouette | None
    searched_in: str  # gallery generation


class Reidentifier:
    """The objects that left not long ago, in the order in which they left."""

    def __init__(self, most: int, max_age_s: float) -> None:
        self._most = most
        self._max_age_s = max_age_s
        self._memories: OrderedDict[tuple[str, int], DepartedObject] = OrderedDict()  # by camera and track
        self._waiting: deque[tuple[str, int]] = deque(maxlen=most)  # to be searched in what serves, newest last

    def __len__(self) -> int:
        return len(self._memories)

    def take_over(self, other: Reidentifier) -> None:
        """Remember what another one does, within one's own bounds."""
        self._memories, self._waiting = other._memories, deque(other._waiting, maxlen=self._most)
        while len(self._memories) > self._most:
            self._memories.popitem(last=False)

    def remember(self, track_id: int, record: TrackState, evidence: TrackFeatures, told: Decision, now_s: float) -> None:
        """Keep what is needed to search an object again."""
        if not evidence.vectors or self._most == 0:
            return
        key = (record.moment.camera, track_id)
        self._memories[key] = DepartedObject(
            track_id,
            replace(record, evidence=None),
            now_s,
            told,
            evidence.categories,
            {category: evidence.fused(category) for category in evidence.vectors},
            dict(evidence.spaces),
            evidence.outline,
            evidence.searched_in,
        )
        self._waiting.append(key)
        self._forget(now_s)

    def expect(self) -> None:
        """Another gallery serves: everything is to be searched again."""
        self._waiting = deque(self._memories, self._most)

    def search(self, models: LoadedModels, now_s: float, limit: int) -> list[DepartedObject]:
        """Search some of what waits for it, the newest first; those that are now told to be something else.

        Args:
            models: the active bundle and gallery.
            now_s: monotonic.
            limit: objects at most, so that the frames of live cameras do not wait.
        """
        self._forget(now_s)
        found = []
        for _ in range(min(limit, len(self._waiting))):
            key = self._waiting.pop()
            memory = self._memories.get(key)
            if memory is None or memory.searched_in == models.gallery_id:
                continue
            told = _search(memory, models)
            self._memories[key] = replace(memory, told=told, searched_in=models.gallery_id)
            if told is not memory.told:
                found.append(self._memories[key])
        return found

    def _forget(self, now_s: float) -> None:
        while self._memories:
            key, oldest = next(iter(self._memories.items()))
            if len(self._memories) <= self._most and now_s - oldest.left_s <= self._max_age_s:
                break
            del self._memories[key]


def _search(memory: DepartedObject, models: LoadedModels) -> Decision:
    """What an object is by another gallery; what was told of it, where that is no other identity."""
    spaces = models.spaces
    searched = [
        category
        for category in memory.categories
        if category.name in memory.vectors
        and category.name in models.indexes
        and spaces.get(category.name) == memory.spaces.get(category.name)
    ]
    if not searched:
        return memory.told
    decision = models.decide(
        searched, models.search({c.name: memory.vectors[c.name] for c in searched}, memory.outline)
    )
    before, now = memory.told.match, decision.match
    return memory.told if now is None or (before is not None and before.item_id == now.item_id) else decision
