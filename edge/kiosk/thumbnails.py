"""The thumbnail of an item: from the active gallery, or from a taught item."""

from __future__ import annotations

from pathlib import Path

from edge.bundle.layout import gallery_folder
from edge.errors import FinesightError, GalleryError
from edge.gallery.store import read_thumbnail, store_path
from edge.kiosk.taught_store import TaughtStore


class ItemThumbnails:
    """Reads thumbnails from a device's disk."""

    def __init__(self, state_dir: Path, store: TaughtStore) -> None:
        self._state_dir = state_dir
        self._store = store

    def has_item(self, generation: str, category: str, item_id: str) -> bool:
        """Whether a gallery has a live item; False for a damaged store."""
        try:
            read_thumbnail(store_path(gallery_folder(self._state_dir, generation), category), item_id)
        except GalleryError:
            return False
        return True

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
