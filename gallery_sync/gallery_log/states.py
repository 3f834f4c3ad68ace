"""The states of a category, and the shortest way from what a device has to the one that it should have.

Rules this module keeps:
1. It decides; it reads and downloads nothing.
2. A category that did not change at a gallery sequence keeps its older state. So the state at a sequence is the newest
   one that is not later.
3. The deletions of every urgent segment that is later than this state belong on top of it.
4. A segment leads from the state right before it. A log that says otherwise, or signs two roots of one state, is
   refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from edge.errors import SyncError
from gallery_sync.formats.documents import Base, Segment, SpaceLog
from gallery_sync.formats.fields import ObjectRef

MOST_DELETED_SHARE = 0.2  # of the items of a base: with more deletions since, a new base is made
MOST_SEGMENTS_SINCE_BASE = 64


@dataclass(frozen=True, slots=True)
class Steps:
    """What to fetch and apply."""

    sequence: int  # of the state that results
    base: Base | None  # the store to begin with; None: the one that the device has
    segments: tuple[Segment, ...]  # in order
    urgent: tuple[Segment, ...]  # later than the state: only their deletions are applied, on top
    start_root: str | None = None  # signed root of the state that the device has; None: of a base, or no longer known

    @property
    def are_needed(self) -> bool:
        """Whether anything changes."""
        return self.base is not None or bool(self.segments or self.urgent)

    @property
    def objects(self) -> tuple[ObjectRef, ...]:
        """The objects that the steps need."""
        base = (self.base.object,) if self.base else ()
        return (*base, *(segment.object for segment in (*self.segments, *self.urgent)))

    @property
    def size(self) -> int:
        """Bytes of these objects."""
        return sum(ref.size for ref in self.objects)


def path_to(log: SpaceLog, have: int | None, wanted: int, erased_to: int = 0, *, live_root: str | None = None) -> Steps:
    """Return the shortest way to the state of a category at a gallery sequence.

    It begins at the state that the device has, where segments lead on from it and have fewer bytes than the newest base
    that is not later than the wanted state. Otherwise it begins at this base.

    Args:
        log: the states of the category in one embedding space.
        have: the sequence of the state that the device has; None: it has none.
        wanted: gallery sequence.
        erased_to: the newest urgent sequence whose deletions were applied on top of what the device has.
        live_root: of what the device has. If it is the signed one of the wanted state, nothing is needed: after urgent
            deletions, a store may have the items of a state that it did not get by segments.

    Raises:
        SyncError: the log is not sane, it has no state that old, or nothing leads to it.
    """
    check_log(log)
    target = state_at(log, wanted)
    if target is None:
        raise SyncError(
            f"the gallery log begins after gallery sequence {wanted}; publish a release with a newer gallery sequence"
        )
    urgent = tuple(one for one in log.segments if one.urgent and one.sequence > target)
    roots = roots_of(log)
    if live_root is not None and roots[target] == live_root and not urgent:
        return Steps(target, None, (), ())
    into = {segment.sequence: segment for segment in log.segments}
    from_base = _steps_from_base(log, into, target, urgent)
    if have is None or have > target:
        return _required(from_base, target)
    if have == target:
        newer = tuple(one for one in urgent if one.sequence > erased_to)
        return Steps(target, None, (), newer and urgent, roots.get(have))
    chain = _chain(into, have, target)
    if chain is None:
        return _required(from_base, target)
    local = Steps(target, None, chain, urgent, roots.get(have))
    return from_base if from_base is not None and from_base.size < local.size else local


def _required(steps: Steps | None, target: int) -> Steps:
    if steps is None:
        raise SyncError(
            f"the gallery log has no base from which segments lead to gallery sequence {target}; publish the gallery "
            "again, which makes one"
        )
    return steps


def _steps_from_base(log: SpaceLog, into: dict[int, Segment], target: int, urgent: tuple[Segment, ...]) -> Steps | None:
    for base in reversed(log.bases):
        if base.sequence <= target and (chain := _chain(into, base.sequence, target)) is not None:
            return Steps(target, base, chain, urgent)
    return None


def _chain(into: dict[int, Segment], start: int, end: int) -> tuple[Segment, ...] | None:
    """Return the segments that lead from one state to another, None if none do."""
    found: list[Segment] = []
    now = end
    while now > start:
        segment = into.get(now)
        if segment is None:
            return None
        found.append(segment)
        now = segment.after
    return tuple(reversed(found)) if now == start else None


def roots_of(log: SpaceLog) -> dict[int, str]:
    """Return the signed root of each state by its sequence, the oldest first."""
    bases = {base.sequence: base.live_root for base in log.bases}
    return dict(sorted((bases | {one.sequence: one.live_root for one in log.segments}).items()))


def state_at(log: SpaceLog, sequence: int) -> int | None:
    """Return the sequence of the newest state that is not later than a gallery sequence, None if there is none."""
    return max((one for one in roots_of(log) if one <= sequence), default=None)


def newest_root(log: SpaceLog) -> str:
    """Return the signed root of the newest state."""
    *_, newest = roots_of(log).values()
    return newest


def check_log(log: SpaceLog) -> None:
    """Check that the states of a log agree with each other.

    Raises:
        SyncError: bases or segments are not in order, a segment does not begin at the state before it, or one state has
            two roots.
    """
    numbers = [one.sequence for one in log.bases], [one.sequence for one in log.segments]
    for ordered in numbers:
        if any(first >= second for first, second in pairwise(ordered)):
            raise SyncError("damaged gallery log: its bases or segments are not in order; publish the gallery again")
    bases = {base.sequence: base.live_root for base in log.bases}
    states = list(roots_of(log))
    before = dict(zip(states[1:], states, strict=False))
    for segment in log.segments:
        if before.get(segment.sequence, segment.after) != segment.after:
            raise SyncError(
                f"damaged gallery log: segment {segment.sequence} begins at state {segment.after}, and the state "
                f"before it is {before[segment.sequence]}; publish the gallery again"
            )
        if bases.get(segment.sequence, segment.live_root) != segment.live_root:
            raise SyncError(
                f"damaged gallery log: base and segment have different roots of state {segment.sequence}; publish the "
                "gallery again"
            )


def needs_base(log: SpaceLog, deletes: int = 0) -> bool:
    """Return whether the next change should also make a new base: after many segments, or many deletions.

    Args:
        log: as it is.
        deletes: items that the next change deletes.
    """
    newest = log.bases[-1]
    since = [one for one in log.segments if one.sequence > newest.sequence]
    deleted = deletes + sum(one.deletes for one in since)
    return len(since) + 1 > MOST_SEGMENTS_SINCE_BASE or deleted > MOST_DELETED_SHARE * newest.items
