"""Join the sealed shards of a catalogue into a gallery, as one run without shards would have made it."""

from __future__ import annotations

import heapq
import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain, groupby
from pathlib import Path

from dataset_formats.notices import printable
from edge.errors import BundleError, TrainError
from edge.gallery.attributes import ATTRIBUTES
from edge.gallery.generation import Gallery, write_gallery_index
from edge.gallery.limits import NEGATIVE
from edge.gallery.store import store_path
from edge.gallery.writer import GalleryWriter
from edge.manifest.manifest import Manifest
from trainer.catalogue import part_files, shard_seals
from trainer.catalogue.part_files import PartEntry, Record, read_part
from trainer.catalogue.shard_seals import ShardSeal
from trainer.catalogue.storage import Folder
from trainer.disk_errors import report_disk_errors

log = logging.getLogger(__name__)

_PARTS_IN_MEMORY = 8  # of each shard; a run that was never stopped needs one


@dataclass(frozen=True, slots=True)
class EmbeddedGallery:
    """A gallery that was written."""

    gallery: Gallery
    pictures: int
    skipped: list[str]  # why pictures could not be used
    not_embedded: dict[str, int]  # pictures of each category that the bundle has no embedder for
    damaged_parts: int = 0  # of earlier runs, whose items were embedded again


def seal_gallery(
    seals: Sequence[tuple[Folder, ShardSeal]], manifest: Manifest, out: Path, created_at: str | None = None
) -> EmbeddedGallery:
    """Write the gallery of all shards: one store per category, with thumbnails.

    An item without a readable picture is left out, and its pictures are in `skipped`.

    Args:
        seals: of all shards, each with the folder of its parts, see `read_seals`.
        manifest: of the bundle that embedded them.
        out: folder of the generation.
        created_at: ISO 8601, UTC; None: now.

    Raises:
        TrainError: a part is missing or damaged, no picture can be read, or the gallery cannot be written.
        BundleError: the shards are of another bundle.
        GalleryError: a name or text breaks the limits of a gallery.
    """
    pictures = 0
    skipped: list[str] = []
    empty: list[str] = []
    merged = heapq.merge(*(_records(*one) for one in seals), key=lambda record: record.order)
    with report_disk_errors(f"{out}: cannot write the gallery"):
        for category, records in groupby(merged, key=lambda record: record.category):
            readable = _readable(records, skipped)
            first = next(readable, None)
            if first is None:
                empty.append(category)
                store_path(out, category).unlink(missing_ok=True)  # of an earlier run
                continue
            with _new_store(out, category, manifest) as writer:
                for record in chain([first], readable):
                    _add(writer, record)
                    pictures += record.pictures
            log.info("wrote the store of %s", printable(category))
    if not pictures:
        why = f"; the first: {skipped[0]}" if skipped else ""
        raise TrainError(f"{', '.join(map(printable, empty)) or out}: no picture of any item can be read{why}")
    not_embedded: dict[str, int] = {}
    for _, seal in seals:
        for category, lost in seal.not_embedded.items():
            not_embedded[category] = not_embedded.get(category, 0) + lost
    created_at = created_at or datetime.now(timezone.utc).isoformat(timespec="seconds")
    damaged = sum(seal.damaged_parts for _, seal in seals)
    with report_disk_errors(f"{out}: cannot write the gallery"):
        gallery = write_gallery_index(out, created_at)
    return EmbeddedGallery(gallery, pictures, skipped, not_embedded, damaged)


def remove_shards(folders: Sequence[Folder]) -> None:
    """Remove the parts and seals of a gallery that is whole.

    Raises:
        TrainError: one cannot be removed.
    """
    for folder in folders:
        for pattern in (shard_seals.PATTERN, part_files.PATTERN):
            for name in folder.names(pattern):
                folder.remove(name)
        folder.remove_if_empty()


def _new_store(out: Path, category: str, manifest: Manifest) -> GalleryWriter:
    model = manifest.embedder_for(category)
    if model is None:
        raise BundleError(f"the bundle has no embedder for {category!r}; give the bundle that embedded the shards")
    return GalleryWriter(out, category, model.space_id, model.heads)


def _readable(records: Iterable[Record], skipped: list[str]) -> Iterator[Record]:
    """Yield the records that have a picture; note why other pictures were skipped."""
    for record in records:
        skipped += record.skipped
        if record.pictures:
            yield record


def _add(writer: GalleryWriter, record: Record) -> None:
    writer.add(
        record.item_id,
        record.label,
        record.vectors,
        metadata={
            **({NEGATIVE: True} if record.negative else {}),
            **({ATTRIBUTES: dict(record.attributes)} if record.attributes else {}),
        },
        thumbnail=record.thumbnail,
        silhouettes=record.silhouettes or None,
    )


def _records(folder: Folder, seal: ShardSeal) -> Iterator[Record]:
    """Yield the records of a shard, in the order of the gallery.

    Raises:
        TrainError: a part is missing or damaged.
    """
    in_memory: OrderedDict[str, list[Record]] = OrderedDict()

    def records_of(name: str, expected: str) -> list[Record]:
        if name not in in_memory:
            if len(in_memory) == _PARTS_IN_MEMORY:
                in_memory.popitem(last=False)
            try:
                records, sha256 = read_part(folder, name)
            except TrainError as error:
                raise TrainError(f"shard {seal.name}: {error}") from error
            if sha256 != expected:
                raise TrainError(f"shard {seal.name}: {folder.where}/{name} was replaced; embed this shard again")
            in_memory[name] = records
        in_memory.move_to_end(name)
        return in_memory[name]

    def places(part: PartEntry) -> Iterator[tuple[tuple[str, str], str, str, int]]:
        yield part.first, part.name, part.sha256, part.use[0]  # no part is read before its turn comes
        for number in part.use[1:]:
            yield records_of(part.name, part.sha256)[number].order, part.name, part.sha256, number

    for _, name, sha256, number in heapq.merge(*map(places, seal.parts)):
        yield records_of(name, sha256)[number]
