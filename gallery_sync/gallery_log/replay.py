"""What segments make of a state: which items change, and the live root after each step.

Rules this module keeps:
1. It computes; it reads and writes nothing.
2. After each segment the root must be the signed one.

After urgent deletions on top, a store lacks items that its state has, and the signed root less the root of the store
is the sum of the digests of these items. While no segment touches one of them, the sum stays, and roots are checked
with it. A segment that changes or deletes one makes the sum unknown. From the last of these deletions on, the state
has none of the items either, and the roots must be equal again. So an item that is enrolled again after its erasure
arrives like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from edge.errors import SyncError
from gallery_sync.formats.documents import Segment
from gallery_sync.gallery_log.live_root import root_number, root_text
from gallery_sync.gallery_log.records import Delete, Record, Upsert, digest

Step = tuple[Segment, tuple[Record, ...]]  # a signed segment and its records


class RootError(SyncError):
    """What the device holds and the segments do not make the signed state. A base does."""


@dataclass(frozen=True, slots=True)
class StoreState:
    """Which state of its category a store holds."""

    sequence: int
    log_root: str  # signed root of the state
    live_root: str  # of what the store holds; another one after deletions on top
    erased_to: int = 0  # newest urgent sequence whose deletions were applied on top; 0: none

    @property
    def is_exact(self) -> bool:
        """Whether the store must hold all of its state."""
        return self.erased_to <= self.sequence


class Replay:
    """Applies segments to the digests of the items that they touch."""

    def __init__(self, state: StoreState, before: Mapping[str, int], steps: Iterable[Step]) -> None:
        """Begin at a state.

        Args:
            state: of the store.
            before: digest of each item of the store that a step touches.
            steps: all that will be applied, urgent deletions on top among them.
        """
        self.state = state
        self.upserts: dict[str, Upsert] = {}  # items to write
        self.erased: list[str] = []  # items that were taken away on top
        self._now = dict(before)  # digest of each touched item that is there
        self._root = root_number(state.live_root)
        self._missing: int | None = root_number(state.log_root) - self._root  # None: unknown
        self._exact_from = state.erased_to
        on_top = (
            r for signed, records in steps if signed.urgent and signed.sequence <= state.erased_to for r in records
        )
        self._missing_ids = {r.item_id for r in on_top if isinstance(r, Delete)} - before.keys()

    @property
    def now(self) -> Mapping[str, int]:
        """Digest of each touched item that is there now."""
        return self._now

    def apply(self, signed: Segment, records: tuple[Record, ...]) -> None:
        """Go on to the next state.

        Raises:
            RootError: the root is not the signed one.
        """
        if signed.after != self.state.sequence:
            raise RootError(
                f"segment {signed.sequence} begins at {signed.after}, the store is at {self.state.sequence}"
            )
        for record in records:
            if record.item_id in self._missing_ids:
                self._missing = None
            self._drop(record.item_id)
            if isinstance(record, Upsert):
                self._now[record.item_id] = number = digest(record)
                self._root += number
                self.upserts[record.item_id] = record
        if signed.sequence >= self._exact_from:
            self._missing, self._missing_ids = 0, set()
        if self._missing is not None and root_text(self._root + self._missing) != signed.live_root:
            raise RootError(
                f"segment {signed.sequence}: found live root {root_text(self._root + self._missing)}, expected "
                f"{signed.live_root}; nothing was changed: begin with a base"
            )
        root = root_text(self._root)
        self.state = replace(self.state, sequence=signed.sequence, log_root=signed.live_root, live_root=root)

    def erase(self, steps: Iterable[Step]) -> None:
        """Apply the deletions of urgent segments on top of the state."""
        if self.state.is_exact:
            self.state = replace(self.state, erased_to=0)
        for signed, records in steps:
            self.erase_items((one.item_id for one in records if isinstance(one, Delete)), signed.sequence)

    def erase_items(self, item_ids: Iterable[str], sequence: int) -> None:
        """Take items away on top of the state, as urgent deletions up to a gallery sequence say."""
        self.erased += [item_id for item_id in item_ids if self._drop(item_id)]
        erased_to = max(self.state.erased_to, sequence)
        self.state = replace(self.state, live_root=root_text(self._root), erased_to=erased_to)

    def _drop(self, item_id: str) -> bool:
        """Take an item away; return whether it was there."""
        self.upserts.pop(item_id, None)
        number = self._now.pop(item_id, None)
        self._root -= number or 0
        return number is not None
