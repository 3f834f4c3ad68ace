"""Items that were deleted urgently: a gallery folder that still has one does not bring it back unnoticed.

Rules this module keeps:
1. Known are the urgent deletions of the gallery logs as they are now: those of the promised offline window.
2. An item that a person enrolled again after its deletion counts as any other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from edge.errors import SyncError, one_line
from edge.gallery.generation import Gallery
from edge.gallery.store_file import open_store
from gallery_sync.formats.documents import GalleryLog, SpaceLog
from gallery_sync.gallery_log.records import Delete, Upsert
from gallery_sync.gallery_log.segment_file import read_segment
from gallery_sync.repository.folder import read_object
from gallery_sync.repository.published import Published

log = logging.getLogger(__name__)

_MOST_NAMED = 10


def refuse_erased(published: Published, gallery: Gallery, *, allowed: bool) -> None:
    """Look in a gallery for items that were deleted urgently, and warn of each.

    Args:
        published: what the repository has now.
        gallery: to publish.
        allowed: whether they may come back.

    Raises:
        SyncError: there are some, and they may not.
        GalleryError: a store is damaged.
    """
    for category in gallery.categories:
        erased = _erased(published, published.logs[category]) if category in published.logs else set()
        found = sorted(erased & _ids(gallery, category)) if erased else []
        if not found:
            continue
        told = ", ".join([repr(one[:80]) for one in found[:_MOST_NAMED]] + ["..."] * (len(found) > _MOST_NAMED))
        text = f"category {category[:80]!r}: {len(found)} items of the gallery were deleted urgently: {told}"
        if not allowed:
            raise SyncError(
                f"{one_line(text)}; make the gallery without them or, to bring them back to every device: "
                "--allow-erased"
            )
        log.warning("%s; they come back to every device", one_line(text))


def _erased(published: Published, one: GalleryLog) -> set[str]:
    """Return the items of a category that were deleted urgently and are in no embedding space again."""
    spaces = [_deleted_and_back(published, space) for space in one.spaces]
    return set().union(*(gone for gone, _ in spaces)) - set().union(*(back for _, back in spaces))


def _deleted_and_back(published: Published, space: SpaceLog) -> tuple[set[str], set[str]]:
    """Return the items that were deleted urgently from an embedding space, and those that came back afterwards."""
    gone: set[str] = set()
    back: set[str] = set()
    if not any(segment.urgent for segment in space.segments):
        return gone, back
    for segment in space.segments:
        try:
            records = read_segment(read_object(published.repo, segment.object), f"segment {segment.sequence}").records
        except SyncError as error:
            log.warning("%s; items that it deleted urgently are not known", error)
            continue
        deleted = {record.item_id for record in records if isinstance(record, Delete)}
        back = (back - deleted) | (_ids_of_upserts(records) & gone)
        gone |= deleted if segment.urgent else set()
    return gone, back


def _ids_of_upserts(records: Iterable[object]) -> set[str]:
    return {record.item_id for record in records if isinstance(record, Upsert)}


def _ids(gallery: Gallery, category: str) -> set[str]:
    with open_store(gallery.path(category)) as store:
        return {str(item_id) for (item_id,) in store.execute("SELECT item_id FROM items WHERE deleted = 0")}
