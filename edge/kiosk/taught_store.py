"""What people taught this device, on its disk: a folder per thing, with the pictures it was taught by.

Rules this module keeps:
1. The pictures are the authority. What models made of them is kept beside them (`edge.kiosk.taught_embeddings`), may be missing or
   damaged at any time, and is never uploaded.
2. A thing appears whole or not at all: it is written under another name, flushed and renamed.
3. Teaching a name again adds pictures to the thing; its newest MAX_LOOKS stay.
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

from edge.durable import fsync_folder, fsync_tree, replace_folder, write_durably
from edge.errors import TaughtItemsError

log = logging.getLogger(__name__)

MAX_LOOKS = 12
_ITEM = "item.json"
_UPLOADED = "uploaded"  # holds the revision that the trainer has
_MADE = "made"  # by models, of the pictures
_MOST_MADE = 16 << 20  # bytes of that; 12 pictures of two bundles are some 100 KB


class TaughtItem(BaseModel):
    """One thing that was taught."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = Field(default=1, alias="schema")
    item_id: Annotated[str, Field(pattern=r"^taught-[0-9a-f]{12}$")]
    label: str  # what people call it
    category: str | None  # where it belongs, if anybody said
    taught_at: str  # ISO 8601, UTC; of the newest pictures
    revision: int = 1  # grows when it is taught again
    looks: Annotated[int, Field(ge=1)]  # pictures
    negative: bool = False  # it must not be named, and vetoes where it is the nearest


class TaughtStore:
    """The things that were taught; from any thread."""

    def __init__(self, folder: Path, max_items: int) -> None:
        """Read what is there; a damaged thing is named and left alone.

        Raises:
            TaughtItemsError: the folder cannot be made or read.
        """
        self._folder = folder
        self._max_items = max_items
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._recover()
            read = [self._read(path) for path in sorted(folder.glob("taught-*"))]
        except OSError as error:
            raise TaughtItemsError(f"{folder}: cannot be read: {error.strerror or error}") from error
        self._items = {item.item_id: item for item in read if item is not None}

    def items(self) -> list[TaughtItem]:
        """Everything that was taught, oldest first."""
        with self._lock:
            return sorted(self._items.values(), key=lambda item: (item.taught_at, item.item_id))

    def keep(
        self, label: str, category: str | None, looks: list[bytes], taught_at: str, *, negative: bool = False
    ) -> TaughtItem:
        """Keep a thing, or more pictures of one of the same name.

        Args:
            label: its name.
            category: where it belongs.
            looks: JPEG pictures that it fills, at least one.
            taught_at: ISO 8601, UTC.
            negative: whether it is one that must not be named; said anew each time.

        Raises:
            TaughtItemsError: no name, no picture, no room, or the disk refused.
        """
        label = " ".join(label.split())
        if not label or len(label) > 80 or not looks:
            raise TaughtItemsError(f"taught {label[:80]!r}: found {len(looks)} pictures, expected one and a short name")
        with self._lock:
            known = next((i for i in self._items.values() if i.label.casefold() == label.casefold()), None)
            if known is None and len(self._items) >= self._max_items:
                raise TaughtItemsError(f"taught {label!r}: found {len(self._items)} things, expected room for one more")
            if known is not None:
                looks = [self.look(known, n) for n in range(known.looks)] + looks
            looks = looks[-MAX_LOOKS:]
            item = TaughtItem(
                item_id=known.item_id if known else f"taught-{secrets.token_hex(6)}",
                label=label,
                category=category or (known.category if known else None),
                taught_at=taught_at,
                revision=known.revision + 1 if known else 1,
                looks=len(looks),
                negative=negative,
            )
            self._write(item, looks)
            self._items[item.item_id] = item
        return item

    def forget(self, item_id: str) -> None:
        """Erase a thing.

        Raises:
            TaughtItemsError: there is no such thing, or the disk refused.
        """
        with self._lock:
            if item_id not in self._items:
                raise TaughtItemsError(f"{self._folder}: found no {item_id!r}")
            gone = self._folder / f".{item_id}.gone"
            try:
                (self._folder / item_id).rename(gone)
                fsync_folder(self._folder)
                shutil.rmtree(gone)
            except OSError as error:
                raise TaughtItemsError(f"{self._folder / item_id}: the disk refused: {error.strerror}") from error
            del self._items[item_id]

    def look(self, item: TaughtItem, number: int) -> bytes:
        """One JPEG picture of a thing, counted from 0.

        Raises:
            TaughtItemsError: it cannot be read.
        """
        path = self._folder / item.item_id / f"look-{number}.jpg"
        try:
            return path.read_bytes()
        except OSError as error:
            raise TaughtItemsError(f"{path}: cannot be read: {error.strerror}") from error

    def made(self, item: TaughtItem) -> bytes | None:
        """What was kept of a thing by `keep_made`, of any revision; None: nothing.

        Raises:
            TaughtItemsError: it cannot be read, or is too large.
        """
        path = self._folder / item.item_id / _MADE
        try:
            if (size := path.stat().st_size) > _MOST_MADE:
                raise TaughtItemsError(f"{path}: found {size} bytes, expected at most {_MOST_MADE}")
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TaughtItemsError(f"{path}: cannot be read: {error.strerror}") from error

    def keep_made(self, item: TaughtItem, data: bytes) -> None:
        """Keep what models made of a thing's pictures until it is forgotten.

        Raises:
            TaughtItemsError: it is too large, the disk refused, or the thing was forgotten meanwhile.
        """
        path = self._folder / item.item_id / _MADE
        if len(data) > _MOST_MADE:
            raise TaughtItemsError(f"{path}: found {len(data)} bytes to keep, expected at most {_MOST_MADE}")
        with self._lock:
            self._try(lambda: write_durably(path, data), item)

    def pending(self) -> list[TaughtItem]:
        """What the trainer does not have yet, oldest first."""
        return [item for item in self.items() if self._uploaded_revision(item) < item.revision]

    def package(self, item: TaughtItem) -> bytes:
        """A thing as the trainer gets it: a zip file of item.json and its pictures.

        Raises:
            TaughtItemsError: it cannot be read.
        """
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
            file.writestr(_ITEM, item.model_dump_json(by_alias=True))
            for number in range(item.looks):
                file.writestr(f"look-{number}.jpg", self.look(item, number))
        return buffer.getvalue()

    def note_uploaded(self, item: TaughtItem) -> None:
        """Remember that the trainer has this revision of a thing.

        Raises:
            TaughtItemsError: the disk refused, or it was forgotten meanwhile.
        """
        self._try(lambda: write_durably(self._folder / item.item_id / _UPLOADED, str(item.revision).encode()), item)

    def _uploaded_revision(self, item: TaughtItem) -> int:
        try:
            return int((self._folder / item.item_id / _UPLOADED).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def _write(self, item: TaughtItem, looks: list[bytes]) -> None:
        incoming = self._folder / f".{item.item_id}.incoming"

        def write() -> None:
            shutil.rmtree(incoming, ignore_errors=True)
            incoming.mkdir()
            (incoming / _ITEM).write_text(item.model_dump_json(by_alias=True), encoding="utf-8")
            for number, look in enumerate(looks):
                (incoming / f"look-{number}.jpg").write_bytes(look)
            with contextlib.suppress(OSError):  # there is none, or it is made anew
                os.link(self._folder / item.item_id / _MADE, incoming / _MADE)
            fsync_tree(incoming)
            replace_folder(incoming, self._folder / item.item_id)

        self._try(write, item)

    def _try(self, write: Callable[[], None], item: TaughtItem) -> None:
        try:
            write()
        except OSError as error:
            raise TaughtItemsError(f"{self._folder / item.item_id}: the disk refused: {error.strerror or error}") from error

    def _recover(self) -> None:
        """Put back what a power cut left aside while it was replaced, and clear away what it left half done."""
        for old in self._folder.glob(".taught-*.old"):
            final = self._folder / old.name.removeprefix(".").removesuffix(".old")
            if not final.exists():
                old.rename(final)
        for left in [*self._folder.glob(".taught-*")]:
            shutil.rmtree(left, ignore_errors=True)

    def _read(self, folder: Path) -> TaughtItem | None:
        try:
            item = TaughtItem.model_validate_json((folder / _ITEM).read_bytes())
            missing = [n for n in range(item.looks) if not (folder / f"look-{n}.jpg").is_file()]
        except (OSError, ValidationError) as error:
            log.warning("%s: found a damaged thing, it is left alone: %s", folder, str(error).splitlines()[0])
            return None
        if missing or item.item_id != folder.name:
            log.warning("%s: found a damaged thing, it is left alone: no pictures %s", folder, missing)
            return None
        return item
