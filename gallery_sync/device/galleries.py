"""Makes the gallery of a release in the cache, as planned, or by a base.

Rules this module keeps:
1. A store of the device is used only if its hash is right. A store that serves is read and copied, never written or
   linked.
2. Where segments do not lead to the signed live root, the newest base is taken, then older ones. Each of these
   fallbacks is counted.
3. A step that deletes or changes more than a share of what serves is refused, unless the signers of the bundle allow
   it: whoever has the gallery's key alone cannot empty or replace a gallery.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge.durable import file_mismatch
from edge.errors import GalleryError, SyncError
from edge.file_names import distinct_file_names
from edge.gallery.generation import Gallery, write_gallery_index
from edge.gallery.store import SUFFIX
from edge.gallery.store_file import open_store
from edge.types import Counts
from gallery_sync.device.deliveries import Objects, is_missing
from gallery_sync.device.gallery_plan import Change, LocalStore, attempts
from gallery_sync.device.wanted import RefusedError
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.fresh_files import copy_new, remove
from gallery_sync.gallery_log.apply import Applied, apply_steps
from gallery_sync.gallery_log.records import digest
from gallery_sync.gallery_log.states import Steps
from gallery_sync.gallery_log.store_records import read_records
from gallery_sync.transport.errors import BackOffError, BudgetError, ReleaseError, StorageError, TransferError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Cap:
    """How much of a category may be deleted or changed at once."""

    share: float = 0.5  # of the items that serve
    from_items: int = 100  # smaller categories may change as they like

    def allows(self, items: int, changed: int) -> bool:
        """Return whether so many of so many items may be deleted or changed."""
        return items < self.from_items or changed <= self.share * items


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes stores.

    Args:
        objects: downloads segments and bases.
        counts: counts how stores are made, and fallbacks.
        cap: limit of a change; None: there is none.
        may_fetch_whole: whether the byte policy allows so many bytes where segments failed.
    """

    objects: Objects
    counts: Counts
    cap: Cap | None
    may_fetch_whole: Callable[[int], bool]

    def make(self, folder: Path, changes: list[Change], created_at: str) -> Gallery:
        """Make a gallery generation in a folder, which is removed first.

        Raises:
            RefusedError: a change is too large.
            ReleaseError: what is signed does not give a gallery.
            SyncError: the network or the disk failed.
            OSError: the disk failed.
        """
        remove(folder)
        folder.mkdir(parents=True)
        names = distinct_file_names(change.category for change in changes)
        for change in changes:
            self._make_store(change, folder / f"{names[change.category]}{SUFFIX}")
        return write_gallery_index(folder, created_at)

    def _make_store(self, change: Change, out: Path) -> None:
        failure = ""
        for kind, source, steps in attempts(change):
            if failure and not self.may_fetch_whole(steps.size):
                raise BudgetError(
                    f"category {change.category[:80]!r}: {failure}; the byte policy does not allow a base of "
                    f"{steps.size} bytes now; allow more bytes"
                )
            made = self._try(kind, change, source, steps, out)
            if not isinstance(made, str):
                self.counts.add("stores_made", way=kind)
                self._check_change(change, source, made, out)
                return
            failure = made
            self.counts.add("gallery_fallbacks", way=kind)
            log.warning("category %.80r: the way by %s failed: %s", change.category, kind, failure)
        raise ReleaseError(f"category {change.category[:80]!r}: {failure}")

    def _try(
        self, kind: str, change: Change, source: LocalStore | None, steps: Steps, out: Path
    ) -> Applied | str | None:
        """Return what changed (None: nothing), or why this way fails."""
        remove(out)
        if source is not None and (wrong := file_mismatch(source.path, source.entry.size, source.entry.sha256)):
            return wrong
        if source is not None and not steps.are_needed:
            copy_new(source.path, out)
            return file_mismatch(out, source.entry.size, source.entry.sha256)
        try:
            paths = {ref.sha256: self._get(ref, change.category, kind) for ref in dict.fromkeys(steps.objects)}
        except (TransferError, BackOffError) as error:
            if not is_missing(error):
                raise
            return str(error)
        except ReleaseError as error:
            return str(error)
        first = source.path if source else paths[steps.base.object.sha256] if steps.base else out
        try:
            return apply_steps(
                *(first, change.space, steps, out, lambda ref: paths[ref.sha256].read_bytes()), category=change.category
            )
        except (SyncError, GalleryError) as error:
            if of_disk(error):
                raise StorageError(str(error)) from error
            return str(error)

    def _get(self, ref: ObjectRef, category: str, kind: str) -> Path:
        return self.objects.get_object(ref, f"gallery of {category[:80]!r} ({kind})")

    def _check_change(self, change: Change, source: LocalStore | None, made: Applied | None, out: Path) -> None:
        """Refuse a change that is too large for one step."""
        serving = change.serving
        if self.cap is None or serving is None or serving.entry.items < self.cap.from_items:
            return
        if source is not None and source.generation == serving.generation:
            changed = made.replaced + made.deleted + len(made.erased) if made else 0
        else:
            changed = changed_items(serving, out, change.space.space_id)
        if not self.cap.allows(serving.entry.items, changed):
            raise RefusedError(
                "change",
                f"category {change.category[:80]!r}: {changed} of {serving.entry.items} items would be deleted or "
                f"changed, and this device allows {self.cap.share:.0%} at once; if that is on purpose, publish a "
                "bundle that allows it",
            )


def of_disk(error: Exception) -> bool:
    """Return whether the disk is the cause of an error, so that another way to the same cannot help."""
    cause = error.__cause__
    return isinstance(cause, OSError) or (isinstance(cause, sqlite3.OperationalError) and "disk" in str(cause))


def changed_items(before: LocalStore, after: Path, space_id: str) -> int:
    """Return how many items of a store are gone or different in another one; in another space, how many are gone.

    Raises:
        GalleryError: a store is damaged.
    """
    if before.entry.space_id != space_id:
        return len(_ids(before.path) - _ids(after))
    held = {record.item_id: digest(record) for record in read_records(before.path)}
    same = sum(held.get(record.item_id) == digest(record) for record in read_records(after))
    return len(held) - same


def _ids(path: Path) -> set[str]:
    with open_store(path) as store:
        return {str(item_id) for (item_id,) in store.execute("SELECT item_id FROM items WHERE deleted = 0")}
