"""The taught items on the device's disk: one folder per item, with its pictures.

Rules this module keeps:
1. The pictures are the source of truth. The model outputs cached beside them (`edge.kiosk.taught_embeddings`) may be
   missing or damaged at any time, and are never uploaded.
2. An item appears complete or not at all: it is written under another name, flushed and renamed.
3. Teaching a name again adds pictures to its item. The newest MAX_PICTURES are kept.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.durable import fsync_folder, fsync_tree, make_folder, replace_folder, write_durably
from edge.errors import TaughtItemsError

log = logging.getLogger(__name__)

MAX_PICTURES = 12
MAX_LABEL_CHARACTERS = 80
_ITEM = "item.json"
_UPLOADED = "uploaded"  # holds the revision that the trainer has
_CACHE = "made"  # cached model outputs for the pictures
_MAX_CACHE_BYTES = 16 << 20  # 12 pictures and two bundles need about 100 KB


class TaughtItem(BaseModel):
    """One taught item."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = Field(default=1, alias="schema")
    item_id: Annotated[str, Field(pattern=r"^taught-[0-9a-f]{12}$")]
    label: str  # display name
    category: str | None  # as named by a person; None: not named
    taught_at: str  # ISO 8601, UTC; of the newest pictures
    revision: int = 1  # grows when it is taught again
    looks: Annotated[int, Field(ge=1)]  # number of pictures
    negative: bool = False  # must not be named, and vetoes a match when it is the nearest


class TaughtStore:
    """The taught items of a device; usable from any thread."""

    def __init__(self, folder: Path, max_items: int) -> None:
        """Read the items in a folder. A damaged item, or a folder that cannot be used, is logged and left untouched."""
        self._folder = folder
        self._max_items = max_items
        self._lock = threading.Lock()
        try:
            make_folder(folder)
            self._recover()
        except OSError as error:
            log.warning("%s: nothing can be taught: %s", folder, error.strerror or error)
        try:
            items = [self._read(path) for path in sorted(folder.glob("taught-*"))]
        except OSError as error:
            log.warning("%s: the taught items cannot be read: %s", folder, error.strerror or error)
            items = []
        self._items = {item.item_id: item for item in items if item is not None}

    def items(self) -> list[TaughtItem]:
        """Return all items, oldest first."""
        with self._lock:
            return sorted(self._items.values(), key=lambda item: (item.taught_at, item.item_id))

    def save(
        self, label: str, category: str | None, pictures: list[bytes], taught_at: str, *, negative: bool = False
    ) -> TaughtItem:
        """Save a new item, or add pictures to the item of the same name.

        Args:
            label: its name.
            category: of the item; None: not known.
            pictures: JPEG pictures that the item fills, at least one.
            taught_at: ISO 8601, UTC.
            negative: whether the item must not be named; replaces the earlier value.

        Raises:
            TaughtItemsError: no name, no picture, too many items, or the disk failed.
        """
        label = " ".join(label.split())
        if not label or len(label) > MAX_LABEL_CHARACTERS:
            raise TaughtItemsError(f"give the item a name of 1 to {MAX_LABEL_CHARACTERS} characters")
        if not pictures:
            raise TaughtItemsError(f"item {label!r} has no picture; show it to the camera first")
        with self._lock:
            known = next((i for i in self._items.values() if i.label.casefold() == label.casefold()), None)
            if known is None and len(self._items) >= self._max_items:
                raise TaughtItemsError(
                    f"cannot save item {label!r}: the limit of {self._max_items} taught items (kiosk.max_taught) is "
                    "reached; forget one first"
                )
            if known is not None:
                pictures = [self.picture(known, n) for n in range(known.looks)] + pictures
            pictures = pictures[-MAX_PICTURES:]
            item = TaughtItem(
                item_id=known.item_id if known else f"taught-{secrets.token_hex(6)}",
                label=label,
                category=category or (known.category if known else None),
                taught_at=taught_at,
                revision=known.revision + 1 if known else 1,
                looks=len(pictures),
                negative=negative,
            )
            self._write(item, pictures)
            self._items[item.item_id] = item
        return item

    def forget(self, item_id: str) -> None:
        """Delete an item.

        Raises:
            TaughtItemsError: there is no such item, or the disk failed.
        """
        with self._lock:
            if item_id not in self._items:
                raise TaughtItemsError(f"{self._folder}: there is no item {item_id!r}")
            deleted = self._folder / f".{item_id}.gone"
            try:
                (self._folder / item_id).rename(deleted)
                fsync_folder(self._folder)
                shutil.rmtree(deleted)
            except OSError as error:
                raise TaughtItemsError(f"{self._folder / item_id}: disk error: {error.strerror}") from error
            del self._items[item_id]

    def picture(self, item: TaughtItem, number: int) -> bytes:
        """Return one JPEG picture of an item, counted from 0.

        Raises:
            TaughtItemsError: it cannot be read.
        """
        path = self._folder / item.item_id / f"look-{number}.jpg"
        try:
            return path.read_bytes()
        except OSError as error:
            raise TaughtItemsError(f"{path}: cannot be read: {error.strerror}") from error

    def cache(self, item: TaughtItem) -> bytes | None:
        """Return the cached model outputs of an item, of any revision; None if there are none.

        Raises:
            TaughtItemsError: the file cannot be read, or is too large.
        """
        path = self._folder / item.item_id / _CACHE
        try:
            if (size := path.stat().st_size) > _MAX_CACHE_BYTES:
                raise TaughtItemsError(f"{path}: found {size} bytes, expected at most {_MAX_CACHE_BYTES}")
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TaughtItemsError(f"{path}: cannot be read: {error.strerror}") from error

    def save_cache(self, item: TaughtItem, data: bytes) -> None:
        """Save the cached model outputs of an item.

        Raises:
            TaughtItemsError: the data is too large, the disk failed, or the item was deleted meanwhile.
        """
        path = self._folder / item.item_id / _CACHE
        if len(data) > _MAX_CACHE_BYTES:
            raise TaughtItemsError(f"{path}: cannot write {len(data)} bytes, at most {_MAX_CACHE_BYTES} are allowed")
        with self._lock:
            self._map_disk_errors(lambda: write_durably(path, data), item)

    def pending_upload(self) -> list[TaughtItem]:
        """Return the items whose newest revision is not uploaded yet, oldest first."""
        return [item for item in self.items() if self._uploaded_revision(item) < item.revision]

    def zip_item(self, item: TaughtItem) -> bytes:
        """Return an item as a zip file of item.json and its pictures, the same bytes each time.

        Raises:
            TaughtItemsError: it cannot be read.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
            file.writestr(zipfile.ZipInfo(_ITEM), item.model_dump_json(by_alias=True))  # without a time stamp
            for number in range(item.looks):
                file.writestr(zipfile.ZipInfo(f"look-{number}.jpg"), self.picture(item, number))
        return buffer.getvalue()

    def mark_uploaded(self, item: TaughtItem) -> None:
        """Record that this revision of an item is uploaded.

        Raises:
            TaughtItemsError: the disk failed, or the item was deleted meanwhile.
        """
        path = self._folder / item.item_id / _UPLOADED
        self._map_disk_errors(lambda: write_durably(path, str(item.revision).encode()), item)

    def _uploaded_revision(self, item: TaughtItem) -> int:
        try:
            return int((self._folder / item.item_id / _UPLOADED).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def _write(self, item: TaughtItem, pictures: list[bytes]) -> None:
        incoming = self._folder / f".{item.item_id}.incoming"

        def write() -> None:
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir()
            (incoming / _ITEM).write_text(item.model_dump_json(by_alias=True), encoding="utf-8")
            for number, picture in enumerate(pictures):
                (incoming / f"look-{number}.jpg").write_bytes(picture)
            with contextlib.suppress(OSError):  # the cache is optional
                os.link(self._folder / item.item_id / _CACHE, incoming / _CACHE)
            fsync_tree(incoming)
            replace_folder(incoming, self._folder / item.item_id)

        self._map_disk_errors(write, item)

    def _map_disk_errors(self, write: Callable[[], None], item: TaughtItem) -> None:
        try:
            write()
        except OSError as error:
            path = self._folder / item.item_id
            raise TaughtItemsError(f"{path}: disk error: {error.strerror or error}") from error

    def _recover(self) -> None:
        """Restore what a power cut left renamed, and delete what it left half written."""
        for old in self._folder.glob(".taught-*.old"):
            final = self._folder / old.name.removeprefix(".").removesuffix(".old")
            if not final.exists():
                old.rename(final)
        for leftover in [*self._folder.glob(".taught-*")]:
            shutil.rmtree(leftover, ignore_errors=True)

    def _read(self, folder: Path) -> TaughtItem | None:
        try:
            item = TaughtItem.model_validate_json((folder / _ITEM).read_bytes())
            missing = [n for n in range(item.looks) if not (folder / f"look-{n}.jpg").is_file()]
        except (OSError, ValidationError) as error:
            log.warning("%s: damaged item, left untouched: %s", folder, str(error).splitlines()[0])
            return None
        if missing or item.item_id != folder.name:
            log.warning("%s: damaged item, left untouched: missing pictures %s", folder, missing)
            return None
        return item
