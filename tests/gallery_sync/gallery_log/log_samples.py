"""Small gallery logs, and devices that follow them, in a folder."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edge.gallery.store import quantise, read_category
from edge.gallery.writer import GalleryWriter
from gallery_sync.formats.documents import Base, Segment, SpaceLog
from gallery_sync.formats.fields import ObjectRef
from gallery_sync.gallery_log import live_root
from gallery_sync.gallery_log.apply import Applied, apply_steps, stamp
from gallery_sync.gallery_log.records import Delete, Record, Upsert, digest
from gallery_sync.gallery_log.segment_file import write_segment
from gallery_sync.gallery_log.states import path_to
from tests.store_samples import HEADS, SPACE, unit_rows

DIM = sum(head.dim for head in HEADS)
PICTURE = b"\xff\xd8\xff" + b"a picture of "


def upsert(item_id: str, label: str | None = None, seed: int | None = None, **changed: object) -> Upsert:
    """An item with two vectors and a picture of its own."""
    seed = zlib.crc32(item_id.encode()) if seed is None else seed
    vectors, scales = quantise(unit_rows(2, DIM, seed))
    picture = PICTURE + item_id.encode() * 3
    fields = {"metadata": "{}", "thumbnail": picture, "silhouettes": None, "vectors_i8": vectors, "scales": scales}
    return Upsert(**{"item_id": item_id, "label": label or f"Item {item_id}", **fields, **changed})


def delete(*ids: str) -> list[Record]:
    return [Delete(item_id) for item_id in ids]


def write_store(folder: Path, records: Iterable[Upsert], space_id: str = SPACE, category: str = "tyre") -> Path:
    """A store as GalleryWriter makes it, with the same int8 rows as the records."""
    with GalleryWriter(folder, category, space_id, HEADS) as writer:
        for one in records:
            vectors = one.vectors_i8.astype(np.float32) * one.scales[:, None]
            writer.add(one.item_id, one.label, vectors, None, one.thumbnail, one.silhouettes)
    return folder / f"{category}.sqlite"


class Publisher:
    """The server's side: a log of one category, with an object for each state."""

    def __init__(self, folder: Path, items: Iterable[Upsert], sequence: int = 1) -> None:
        self.folder, self.objects = folder, dict[str, bytes]()
        folder.mkdir(parents=True, exist_ok=True)
        self.items = {one.item_id: one for one in items}
        self.sequence = sequence
        self.log = SpaceLog(space_id=SPACE, heads=HEADS, bases=[self._base()])

    @property
    def root(self) -> str:
        return live_root.root_text(sum(map(digest, self.items.values())))

    def put(self, data: bytes) -> ObjectRef:
        ref = ObjectRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
        self.objects[ref.sha256] = data
        return ref

    def read(self, ref: ObjectRef) -> bytes:
        return self.objects[ref.sha256]

    def _base(self) -> Base:
        plain = write_store(self.folder / f"plain{self.sequence}", self.items.values())
        stamp(plain, self.sequence, self.folder / "base.sqlite")
        ref = self.put((self.folder / "base.sqlite").read_bytes())
        items = len(self.items)
        return Base(sequence=self.sequence, object=ref, live_root=self.root, items=items, vectors=2 * items)

    def change(self, *records: Record, urgent: bool = False, to: int | None = None, base: bool = False) -> Segment:
        """Publish a change, as a segment and where `base` says so as a base, too."""
        after, self.sequence = self.sequence, to or self.sequence + 1
        for record in records:
            if isinstance(record, Upsert):
                self.items[record.item_id] = record
            else:
                self.items.pop(record.item_id, None)
        deletes = sum(isinstance(record, Delete) for record in records)
        segment = Segment(
            after=after,
            sequence=self.sequence,
            object=self.put(write_segment(records, SPACE, DIM)),
            live_root=self.root,
            upserts=len(records) - deletes,
            deletes=deletes,
            urgent=urgent,
        )
        bases = [*self.log.bases, *([self._base()] if base else [])]
        self.log = self.log.model_copy(update={"bases": bases, "segments": [*self.log.segments, segment]})
        return segment


class Device:
    """The device's side: the newest of its stores."""

    def __init__(self, folder: Path, publisher: Publisher) -> None:
        self.folder, self.publisher = folder, publisher
        self.have: int | None = None
        self.erased_to, self.made = 0, 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def store(self) -> Path:
        return self.folder / str(self.made) / "tyre.sqlite"

    def out(self) -> Path:
        out = self.folder / str(self.made + 1) / "tyre.sqlite"
        out.parent.mkdir(exist_ok=True)
        return out

    def go_to(self, wanted: int, log: SpaceLog | None = None) -> Applied | None:
        """Follow the log; None if there is nothing to do."""
        log = log or self.publisher.log
        steps = path_to(log, self.have, wanted, self.erased_to)
        if not steps.are_needed:
            return None
        store = self.store
        if steps.base:
            store = self.folder / "base.sqlite"
            store.write_bytes(self.publisher.read(steps.base.object))
        return self.keep(apply_steps(store, log, steps, self.out(), self.publisher.read, category="tyre"))

    def keep(self, applied: Applied) -> Applied:
        self.made += 1
        assert applied.state is not None
        self.have, self.erased_to = applied.state.sequence, applied.state.erased_to
        return applied

    @property
    def ids(self) -> set[str]:
        return set(read_category(self.store, SPACE, DIM).item_ids)

    @property
    def labels(self) -> dict[str, str]:
        items = read_category(self.store, SPACE, DIM)
        return dict(zip(items.item_ids, items.labels, strict=True))
