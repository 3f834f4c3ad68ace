"""Every picture of a data set opened once: readable, odd, its boxes inside, and what it looks like."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from edge.errors import CaptureError
from trainer.data.card import Findings, Row
from trainer.data.clip_boxes import fit_boxes
from trainer.data.dataset import boxed_of, divided_scenes, samples_of
from trainer.data.decode import decode_picture, read_bytes
from trainer.data.duplicates import Print, fingerprint
from trainer.recipe import Split
from trainer.sample import Listing, NamedBox, held_out

_CHUNK = 16  # pictures that a thread takes at a time


@dataclass(frozen=True, slots=True)
class _Asked:
    """One file, and what the data set says of it."""

    path: Path
    split: str
    objects: tuple[tuple[str, str], ...]
    boxes: tuple[NamedBox, ...]
    told_px: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """What opening it said."""

    look: Print | None
    digest: str = ""
    oddities: tuple[str, ...] = ()
    error: str = ""
    outside: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()


def examine_listing(
    listing: Listing, source: str, split: Split | None = None, threads: int | None = None
) -> tuple[list[Row], Findings]:
    """Open every picture of a listing.

    Args:
        listing: what the data set lists.
        source: its name.
        split: None: as the data set has it.
        threads: None: one for each core.
    """
    found = Findings(source, listing.layout, true_boxes=bool(listing.scenes), notes=list(listing.notes))
    asked = list(_asked(listing, split))
    rows = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        chunks = [asked[start : start + _CHUNK] for start in range(0, len(asked), _CHUNK)]
        with tqdm(total=len(asked), desc=source, unit="picture") as bar:
            for chunk, seen in zip(chunks, pool.map(_open_all, chunks), strict=True):
                rows += [_note(one, what, found) for one, what in zip(chunk, seen, strict=True)]
                bar.update(len(chunk))
    return rows, found


def _asked(listing: Listing, split: Split | None) -> Iterator[_Asked]:
    """Each file once."""
    if listing.scenes:
        for number, scene in enumerate(divided_scenes(listing.scenes, split)):
            named = tuple((box.category, box.item) for box in scene.boxes)
            yield _Asked(scene.path, scene.split or held_out(number), named, scene.boxes, scene.told_px)
        return
    boxes = {scene.path: scene.boxes for scene in boxed_of(listing)}
    for sample in samples_of(listing, split):
        yield _Asked(sample.path, sample.split, ((sample.category, sample.item),), boxes.get(sample.path, ()))


def _open_all(asked: Sequence[_Asked]) -> list[_Seen]:
    return [_open(one) for one in asked]


def _open(asked: _Asked) -> _Seen:
    try:
        data = read_bytes(asked.path)
        picture, facts = decode_picture(data, str(asked.path))
    except CaptureError as error:
        return _Seen(None, error=str(error))
    height, width = picture.shape[:2]
    fitted = fit_boxes(np.array([box.box_px for box in asked.boxes], np.float32), width, height)
    told = [
        f"{asked.path}: {box.item} {' '.join(f'{v:.0f}' for v in box.box_px)} in {width}x{height}"
        for box in asked.boxes
    ]
    other = asked.told_px not in (None, (width, height))
    return _Seen(
        fingerprint(picture),
        hashlib.blake2b(data, digest_size=16).hexdigest(),
        (*facts.oddities, *["of another size than annotated"] * other),
        outside=tuple(np.array(told, object)[fitted.outside]),
        empty=tuple(np.array(told, object)[fitted.empty]),
    )


def _note(asked: _Asked, seen: _Seen, found: Findings) -> Row:
    found.unreadable += [seen.error] if seen.error else []
    found.boxes_outside += seen.outside
    found.boxes_empty += seen.empty
    for oddity in seen.oddities:
        found.oddities.setdefault(oddity, []).append(str(asked.path))
    return Row(asked.path, asked.split, asked.objects, seen.look, seen.digest)
