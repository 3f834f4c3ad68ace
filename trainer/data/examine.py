"""Open every picture of a data set once: check that it is readable and that its boxes fit, and hash it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dataset_formats.boxes import clip_boxes
from dataset_formats.decode import decode_picture, read_bytes
from dataset_formats.listings import annotated_pictures
from dataset_formats.records import Listing, NamedBox
from dataset_formats.splits import default_split
from edge.errors import CaptureError
from trainer.data.data_card import Findings, Row
from trainer.data.dataset import samples_of, split_pictures
from trainer.data.duplicates import PerceptualHash, perceptual_hash
from trainer.recipe_parts import Split

_CHUNK = 16  # pictures that a thread takes at once


@dataclass(frozen=True, slots=True)
class _Listed:
    """One file, and what the data set says about it."""

    path: Path
    split: str
    objects: tuple[tuple[str, str], ...]
    boxes: tuple[NamedBox, ...]
    declared_size_px: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class _Examined:
    """The result of opening the file."""

    phash: PerceptualHash | None
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
        listing: contents of the data set.
        source: name of the data set.
        split: how to split the pictures; None: as the data set does.
        threads: None: one for each core.

    Returns:
        a row for each picture, and what else was found.
    """
    found = Findings(
        source,
        listing.layout,
        true_boxes=bool(listing.scenes),
        left_out=list(listing.left_out),
        noticed=list(listing.noticed),
    )
    listed = list(_listed_files(listing, split))
    rows = []
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        chunks = [listed[start : start + _CHUNK] for start in range(0, len(listed), _CHUNK)]
        with tqdm(total=len(listed), desc=source, unit="picture") as bar:
            for chunk, examined in zip(chunks, pool.map(_open_all, chunks), strict=True):
                rows += [_record(one, result, found) for one, result in zip(chunk, examined, strict=True)]
                bar.update(len(chunk))
    return rows, found


def _listed_files(listing: Listing, split: Split | None) -> Iterator[_Listed]:
    """List the files to open."""
    if listing.scenes:
        for number, scene in enumerate(split_pictures(listing.scenes, split)):
            named = tuple((box.category, box.item) for box in scene.boxes)
            yield _Listed(scene.path, scene.split or default_split(number), named, scene.boxes, scene.declared_size_px)
        return
    boxes = {scene.path: scene.boxes for scene in annotated_pictures(listing)}
    for sample in samples_of(listing, split):
        yield _Listed(sample.path, sample.split, ((sample.category, sample.item),), boxes.get(sample.path, ()))


def _open_all(listed: Sequence[_Listed]) -> list[_Examined]:
    return [_open(one) for one in listed]


def _open(listed: _Listed) -> _Examined:
    try:
        data = read_bytes(listed.path)
        picture, info = decode_picture(data, str(listed.path))
    except CaptureError as error:
        return _Examined(None, error=str(error))
    height, width = picture.shape[:2]
    clipped = clip_boxes(np.array([box.box_px for box in listed.boxes], np.float32), width, height)
    texts = [
        f"{listed.path}: {box.item} {' '.join(f'{v:.0f}' for v in box.box_px)} in {width}x{height}"
        for box in listed.boxes
    ]
    resized = listed.declared_size_px not in (None, (width, height))
    return _Examined(
        perceptual_hash(picture),
        hashlib.blake2b(data, digest_size=16).hexdigest(),
        (*info.oddities, *["of another size than annotated"] * resized),
        outside=tuple(np.array(texts, object)[clipped.outside]),
        empty=tuple(np.array(texts, object)[clipped.empty]),
    )


def _record(listed: _Listed, examined: _Examined, found: Findings) -> Row:
    found.unreadable += [examined.error] if examined.error else []
    found.boxes_outside += examined.outside
    found.boxes_empty += examined.empty
    for oddity in examined.oddities:
        found.oddities.setdefault(oddity, []).append(str(listed.path))
    return Row(listed.path, listed.split, listed.objects, examined.phash, examined.digest)
