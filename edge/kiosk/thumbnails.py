"""The thumbnail of an item: from the active gallery, or from a taught item."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edge.bundle.layout import gallery_folder
from edge.errors import FinesightError, GalleryError
from edge.gallery.store import held_ids, read_thumbnail, store_path
from edge.kiosk.taught_store import TaughtStore


class ItemThumbnails:
    """Reads thumbnails from a device's disk."""

    def __init__(self, state_dir: Path, store: TaughtStore) -> None:
        self._state_dir = state_dir
        self._store = store

    def held(self, generation: str, category: str, item_ids: Collection[str]) -> frozenset[str]:
        """Return which of some ids live items of a gallery have or had; none for a damaged store."""
        try:
            return held_ids(store_path(gallery_folder(self._state_dir, generation), category), item_ids)
        except GalleryError:
            return frozenset()

    def thumbnail(self, generation: str, categories: list[str], item_id: str) -> bytes | None:
        """Return JPEG or PNG bytes from the first category that has the item; None if there are none."""
        for item in self._store.items():
            if item.item_id == item_id:
                try:
                    return self._store.picture(item, 0)
                except FinesightError:
                    return None
        for category in categories:
            try:
                thumbnail = read_thumbnail(store_path(gallery_folder(self._state_dir, generation), category), item_id)
            except GalleryError:
                continue
            return thumbnail
        return None
