"""The pictures that every chain is evaluated on, and which query pictures are in the gallery, too.

A picture is known by its content and box, never by its place in a list: a query's own picture, or an exact copy of it
under another name, is no answer.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from dataset_formats.boxes import clip_boxes
from dataset_formats.decode import decode_picture, read_bytes
from dataset_formats.notices import printable
from dataset_formats.records import Sample
from edge.errors import CaptureError, TrainError
from trainer.data.asked_splits import choose_gallery, choose_queries
from trainer.data.dataset import read_samples
from trainer.evaluation.reference_gallery import Ids

log = logging.getLogger(__name__)

_FIRST = 3  # examples in a message
Protocol = Literal["leave-one-out", "separate gallery", "stored gallery"]


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """The pictures that every chain is evaluated on."""

    queries: list[Sample]
    gallery: list[Sample]
    query_ids: Ids  # (queries,) equal numbers: the same picture
    gallery_ids: Ids  # (gallery,)
    left_out: frozenset[str]  # items left out of the gallery, so that they are unknown
    query_splits: tuple[str, ...] = ("val",)
    gallery_splits: tuple[str, ...] = ("catalogue",)
    trimmed: tuple[str, ...] = ("catalogue",)  # splits whose pictures show one object on a plain background
    skipped: list[str] = field(default_factory=list)  # why each other query was left out
    gallery_skipped: list[str] = field(default_factory=list)  # why each other gallery picture was left out
    noticed: list[str] = field(default_factory=list)
    own: int = 0  # queries that are in the gallery, too
    seed: int = 0

    @property
    def protocol(self) -> Protocol:
        """How the queries are searched."""
        return "leave-one-out" if self.own else "separate gallery"


@dataclass(frozen=True, slots=True)
class _File:
    """What an encoded picture holds."""

    digest: bytes = b""
    size_px: tuple[int, int] = (0, 0)  # width and height
    why: str = ""  # why it cannot be read


def load_evaluation_set(
    index: Path,
    root: Path | None,
    query: str | None,
    gallery: str | None,
    *,
    share: float,
    seed: int,
    trimmed: Sequence[str] = ("catalogue",),
) -> EvaluationSet:
    """Choose the query pictures, the gallery pictures, and the items to leave out; read every picture once.

    Args:
        index: data set, see trainer.data.dataset.read_samples.
        root: folder that its paths are relative to.
        query: splits of the pictures to recognise, comma-separated; None: see trainer.data.asked_splits.
        gallery: splits of the gallery pictures, comma-separated; None: see trainer.data.asked_splits.
        share: share of the items to leave out of the gallery.
        seed: seed of the random draw.
        trimmed: splits whose pictures show one object on a plain background, see edge.imaging.image.trim.

    Raises:
        TrainError: the data are missing, a split has no picture, or no picture of a split can be read.
    """
    samples = read_samples(index, root)
    queries = choose_queries(samples, query, index)
    known = choose_gallery(samples, gallery, queries, index)
    files = _read_files(sample.path for sample in [*queries.samples, *known.samples])
    readable, skipped = _readable(queries.samples, files)
    references, gallery_skipped = _readable(known.samples, files)
    for what, kept, why in ("query", readable, skipped), ("gallery", references, gallery_skipped):
        if not kept:
            raise TrainError(f"{index}: no {what} picture can be read; the first: {why[0]}")
    numbers: dict[object, int] = {}
    query_ids, gallery_ids = (
        np.array([numbers.setdefault((files[s.path].digest, s.box_px), len(numbers)) for s in listed], np.int64)
        for listed in (readable, references)
    )
    own, told = _own_pictures(readable, references, query_ids, gallery_ids)
    noticed = [line for line in (queries.why, known.why, _unreadable(skipped, gallery_skipped), told) if line]
    for line in noticed:
        log.warning("%s: %s", index, line)
    catalogue = sorted({sample.item for sample in references})
    count = min(round(share * len(catalogue)), len(catalogue) - 1)
    left = np.random.default_rng(seed).choice(catalogue, count, replace=False).tolist()
    return EvaluationSet(
        readable,
        references,
        query_ids,
        gallery_ids,
        frozenset(left),
        queries.splits,
        known.splits,
        tuple(trimmed),
        skipped,
        gallery_skipped,
        noticed,
        own,
        seed,
    )


def _read_files(paths: Iterable[Path]) -> dict[Path, _File]:
    """Decode every picture once."""
    distinct = sorted(set(paths))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return dict(zip(distinct, pool.map(_read_file, distinct), strict=True))


def _read_file(path: Path) -> _File:
    try:
        data = read_bytes(path)
        height, width = decode_picture(data, str(path))[0].shape[:2]
    except CaptureError as error:
        return _File(why=str(error))
    return _File(hashlib.sha256(data).digest(), (width, height))


def _readable(samples: Sequence[Sample], files: dict[Path, _File]) -> tuple[list[Sample], list[str]]:
    """Return the samples that show something, their boxes clipped to the picture, and why the others do not."""
    kept, skipped = [], []
    for sample in samples:
        file, why = files[sample.path], files[sample.path].why
        fitted = sample
        if not why and sample.box_px is not None:
            clipped = clip_boxes(np.asarray(sample.box_px), *file.size_px)
            if clipped.empty[0]:
                why = f"{sample.path}: box {sample.box_px} lies outside the picture or has no area"
            else:
                x0, y0, x1, y1 = clipped.boxes_px[0].tolist()
                fitted = replace(sample, box_px=(x0, y0, x1, y1))
        if why:
            log.warning("skipped %s", why)
            skipped.append(why)
        else:
            kept.append(fitted)
    return kept, skipped


def _unreadable(skipped: list[str], gallery_skipped: list[str]) -> str:
    if not skipped and not gallery_skipped:
        return ""
    return f"left out {len(skipped)} query pictures and {len(gallery_skipped)} gallery pictures that cannot be used"


def _own_pictures(
    queries: Sequence[Sample], gallery: Sequence[Sample], query_ids: Ids, gallery_ids: Ids
) -> tuple[int, str]:
    """Return how many queries are in the gallery, too, and a line that says so."""
    first = dict(zip(reversed(gallery_ids.tolist()), reversed(gallery), strict=True))
    own = [(query, number) for query, number in zip(queries, query_ids.tolist(), strict=True) if number in first]
    if not own:
        return 0, ""
    listed = {(sample.path.resolve(), number) for sample, number in zip(gallery, gallery_ids.tolist(), strict=True)}
    copies = [(query, first[number]) for query, number in own if (query.path.resolve(), number) not in listed]
    shown = ", ".join(f"{printable(query.path)} is {printable(other.path)}" for query, other in copies[:_FIRST])
    as_copy = f" ({len(copies)} as a copy under another name: {shown})" if copies else ""
    return len(own), (
        f"noticed: {len(own)} query pictures are in the gallery, too{as_copy}; protocol leave-one-out: a query's own "
        "picture is no answer"
    )
