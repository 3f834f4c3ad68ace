"""Groups the vectors of an item, so that somebody can split it: by the pictures that are known, or by likeness.

A gallery keeps vectors, not pictures. Where the console has no picture of a vector, it shows the named crop of its sets
that is nearest to it, and says so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from console.galleries.items import vector_ids
from edge.inference.postprocess import unit_rows
from edge.types import FloatArray
from gallery_sync.gallery_log.records import Upsert

_MOST_GROUPS = 6  # by likeness
_MOST_CROPS = 500  # named crops that are compared
_JOIN = 0.93  # groups whose means are so alike become one


@dataclass(frozen=True, slots=True)
class Group:
    """Vectors of an item that belong together."""

    vectors: tuple[str, ...]  # their names
    picture_id: int | None  # the picture that they are of; None: not known
    crop_id: int | None  # else the nearest named crop, if there is one
    similarity: float | None  # of that crop
    draft_id: int | None  # that added the picture


def group_vectors(rows: sqlite3.Connection, category: str, item: str, record: Upsert, space_id: str) -> list[Group]:
    """Return the vectors of an item in groups: one for each known picture, then groups of those that look alike."""
    names = vector_ids(record)
    vectors = unit_rows(record.vectors_i8.astype(np.float32))
    known: dict[int, list[int]] = {}
    drafts: dict[int, int] = {}
    query = (
        "SELECT p.id, p.draft_id FROM gallery_origins o JOIN gallery_pictures p ON p.id = o.picture_id "
        "WHERE o.vector = ? AND p.path IS NOT NULL ORDER BY p.id LIMIT 1"
    )
    for place, name in enumerate(names):
        row = rows.execute(query, (name,)).fetchone()
        if row is not None:
            known.setdefault(row[0], []).append(place)
            drafts[row[0]] = row[1]
    groups = [
        Group(tuple(names[place] for place in places), picture, None, None, drafts[picture])
        for picture, places in known.items()
    ]
    taken = {place for places in known.values() for place in places}
    rest = [place for place in range(len(names)) if place not in taken]
    crops = _crops(rows, category, item, space_id, vectors.shape[1])
    for places in _clusters(vectors[rest]):
        chosen = [rest[place] for place in places]
        crop, similarity = _nearest_crop(crops, vectors[chosen])
        groups.append(Group(tuple(names[place] for place in chosen), None, crop, similarity, None))
    return groups


def _clusters(vectors: FloatArray) -> list[list[int]]:
    """Return groups of rows of unit length: the means farthest apart begin, and nearly equal groups are joined."""
    if not len(vectors):
        return []
    seeds = [0]
    while len(seeds) < min(_MOST_GROUPS, len(vectors)):
        nearest = (vectors @ vectors[seeds].T).max(axis=1)
        if nearest.min() > _JOIN:
            break
        seeds.append(int(nearest.argmin()))
    means = vectors[seeds]
    for _ in range(8):
        group = (vectors @ means.T).argmax(axis=1)
        used = np.unique(group)
        means = unit_rows(np.stack([vectors[group == one].sum(axis=0) for one in used]))
    group = (vectors @ means.T).argmax(axis=1)
    found = [np.flatnonzero(group == one).tolist() for one in range(len(means))]
    return sorted((one for one in found if one), key=len, reverse=True)


def _crops(rows: sqlite3.Connection, category: str, item: str, space_id: str, dim: int) -> list[tuple[int, FloatArray]]:
    query = (
        "SELECT id, vector FROM crops WHERE category = ? AND item = ? AND state = 'item' AND space = ? "
        "AND vector IS NOT NULL LIMIT ?"
    )
    found = rows.execute(query, (category, item, space_id, _MOST_CROPS)).fetchall()
    return [(row[0], np.frombuffer(row[1], np.float32)) for row in found if len(row[1]) == 4 * dim]


def _nearest_crop(crops: Sequence[tuple[int, FloatArray]], vectors: FloatArray) -> tuple[int | None, float | None]:
    if not crops:
        return None, None
    mean = unit_rows(vectors.sum(axis=0)[None])[0]
    scores = np.stack([vector for _, vector in crops]) @ mean
    best = int(scores.argmax())
    return crops[best][0], float(scores[best])
