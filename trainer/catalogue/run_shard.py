"""Embed one shard of a catalogue into part files, in as many threads as there are cores, and seal it.

Rules this module keeps:
1. Results are taken in the order of the items, so that the parts of an undisturbed run are always the same.
2. A run that was killed loses the chunk it was filling; the next run skips what its parts hold.
3. The seal of a shard is written last. It names every part, so that nothing can be missing unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from dataset_formats.notices import printable
from edge.errors import TrainError
from trainer.catalogue.embed_item import EmbedOptions, ItemEmbedder
from trainer.catalogue.items import CatalogueItem, Shard, listing_digest, shard_of
from trainer.catalogue.part_files import KnownRecords, PartEntry, Record, read_known, write_part
from trainer.catalogue.shard_seals import ShardSeal, write_seal
from trainer.catalogue.storage import Folder
from trainer.cores import usable_cores

log = logging.getLogger(__name__)

CHUNK_PICTURES = 512  # embedded between two part files: some seconds of work, some megabytes
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Work:
    """A shard to embed."""

    items: list[CatalogueItem]  # of the shard, in the order of the gallery
    seal: ShardSeal  # what is known of it before: its number, and what it is a shard of


def plan_work(
    items: Sequence[CatalogueItem], embedder: ItemEmbedder, options: EmbedOptions, shard: Shard, where: str
) -> Work:
    """Choose the items of a shard. A category that the bundle has no embedder for is left out and counted.

    Args:
        items: of the whole catalogue.
        embedder: of the bundle.
        options: what the gallery holds of each item.
        shard: which part of the catalogue.
        where: the bundle, for the message.

    Raises:
        TrainError: the bundle has no embedder for any of the categories.
    """
    known = embedder.categories
    missing = sorted({item.category for item in items} - known)
    if missing and not any(item.category in known for item in items):
        raise TrainError(f"{where}: the bundle has embedders for {sorted(known)}, but none for {missing}")
    mine = [item for item in items if shard.of == 1 or shard_of(item, shard.of) == shard.number]
    left_out: Counter[str] = Counter()
    for item in mine:
        if item.category in missing:
            left_out[item.category] += len(item.pictures)
    if left_out:
        log.warning(
            "left out %d pictures of %d categories that the bundle has no embedder for: %s",
            left_out.total(),
            len(left_out),
            ", ".join(f"{printable(category)} ({count})" for category, count in sorted(left_out.items())),
        )
    about = [listing_digest(items), embedder.models_digest, options.trimmed, options.few, options.thumbnail_px]
    run = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    seal = ShardSeal(shard=shard.number, of=shard.of, run=run, not_embedded=dict(left_out))
    return Work([item for item in mine if item.category in known], seal)


def embed_shard(work: Work, embedder: ItemEmbedder, parts: Folder, jobs: int | None = None) -> ShardSeal:
    """Embed the items of a shard that no earlier run has embedded; write its parts and its seal.

    Args:
        work: the shard.
        embedder: of the bundle.
        parts: folder of the part files.
        jobs: threads; None: one for each core that this process may use.

    Raises:
        TrainError: a part cannot be written.
        EngineError: a model failed.
    """
    known = read_known(parts)
    filling = _Filling(parts, known)

    def embed(item: CatalogueItem) -> Record | str:
        return embedder.embed(item, known.keys(item.order))

    for item, result in zip(work.items, in_order(embed, work.items, jobs or usable_cores()), strict=True):
        filling.add(item, result)
    return seal_shard(work, parts, known, filling.finish())


def seal_shard(work: Work, parts: Folder, known: KnownRecords, used: dict[tuple[str, str], str]) -> ShardSeal:
    """Write the seal of a shard whose items are all embedded.

    Args:
        work: the shard.
        parts: folder of the part files.
        known: what is in it.
        used: the key of the record of each item.

    Raises:
        TrainError: it cannot be written.
    """
    entries: dict[str, PartEntry] = {}
    for item in work.items:
        part, number = known.found[item.order][used[item.order]]
        entries.setdefault(part, PartEntry(part, known.sha256[part], [], item.order)).use.append(number)
    seal = work.seal.model_copy(
        update={"items": len(work.items), "parts": [*entries.values()], "damaged_parts": known.damaged}
    )
    write_seal(parts, seal)
    return seal


class _Filling:
    """Collects records until a part is full."""

    def __init__(self, parts: Folder, known: KnownRecords) -> None:
        self._parts, self._known = parts, known
        self._chunk: list[Record] = []
        self._pictures = 0
        self._used: dict[tuple[str, str], str] = {}

    def add(self, item: CatalogueItem, result: Record | str) -> None:
        """Take the result of an item: its record, or the key of one that is known."""
        if isinstance(result, str):
            self._used[item.order] = result
            return
        self._used[item.order] = result.key
        self._chunk.append(result)
        self._pictures += len(item.pictures)
        if self._pictures >= CHUNK_PICTURES:
            self._write()

    def finish(self) -> dict[tuple[str, str], str]:
        """Write what is left; return the key of the record of each item."""
        self._write()
        return self._used

    def _write(self) -> None:
        if self._chunk:
            self._known.add(write_part(self._parts, self._chunk))
            log.info("wrote %d items up to %s/%s", len(self._chunk), *self._chunk[-1].order)
        self._chunk, self._pictures = [], 0


def in_order(make: Callable[[_Given], _Made], given: Iterable[_Given], jobs: int, ahead: int = 2) -> Iterator[_Made]:
    """Yield `make` of each, in order, from several threads that run at most `ahead` times `jobs` ahead.

    Args:
        make: called from any thread.
        given: what to call it with.
        jobs: threads; with one, everything runs in the caller's thread.
        ahead: bounds the results that wait.
    """
    if jobs == 1:
        yield from map(make, given)
        return
    waiting: deque[Future[_Made]] = deque()
    source = iter(given)
    with ThreadPoolExecutor(jobs, thread_name_prefix="embed") as pool:
        try:
            waiting.extend(pool.submit(make, one) for one in islice(source, ahead * jobs))
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(pool.submit(make, one) for one in islice(source, 1))
                yield made
        finally:
            pool.shutdown(cancel_futures=True)


def default_parts(out: str | Path) -> str:
    """Return the folder of the parts of a gallery that is being made."""
    return f"{str(out).rstrip('/')}.parts"
