"""Near duplicates of pictures: a perceptual hash, a search for all near pairs, and the groups that the pairs form."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_formats.decode import read_picture
from edge.errors import CaptureError
from edge.imaging.image import resize
from edge.types import FloatArray, Image

# On 4,282 photos of groceries, pairs within these limits showed the same object or pile from nearly the same view. The
# exceptions were catalogue pictures of variants of one carton on white.
NEAR_BITS, NEAR_COLOUR = 8, 20.0
_SIDE = 32  # pixels of the grey picture that is transformed
_KEPT = 8  # lowest frequencies along each axis
_THUMB = 16  # pixels of the colour thumbnail that confirms a pair
MOST_PAIRS = 500_000  # nearly all frames of a still camera are near pairs: the search stops here
_BLOCK = 2048  # rows of one product: 16 MB of similarities


@dataclass(frozen=True, slots=True)
class PerceptualHash:
    """The hash and thumbnail that pictures are compared by."""

    bits: NDArray[np.bool_]  # (64,) the perceptual hash
    thumb: NDArray[np.uint8]  # (16, 16, 3) RGB

    @property
    def text(self) -> str:
        """Return the hash as 16 hexadecimal digits."""
        return np.packbits(self.bits).tobytes().hex()


def _cosines() -> FloatArray:
    """Return the lowest rows of the orthonormal DCT-II of 32 values."""
    k, n = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None]
    rows = np.sqrt(2.0 / _SIDE) * np.cos(np.pi * (2 * n + 1) * k / (2 * _SIDE))
    rows[0] /= np.sqrt(2.0)
    return np.asarray(rows, np.float32)


_DCT = _cosines()


def perceptual_hash(image_rgb: Image) -> PerceptualHash:
    """Return the DCT hash (pHash, Zauner 2010: low frequencies of the grey picture against their median)."""
    small = resize(image_rgb, _SIDE, _SIDE, "area")
    grey = small @ np.array([0.299, 0.587, 0.114], np.float32)
    low = (_DCT @ grey @ _DCT.T).ravel()
    half = _SIDE // _THUMB
    thumb = small.reshape(_THUMB, half, _THUMB, half, 3).mean(axis=(1, 3)).astype(np.uint8)
    return PerceptualHash(low > np.median(low[1:]), thumb)


def similar_pairs(vectors: FloatArray, least: float) -> tuple[NDArray[np.int64], FloatArray]:
    """Return all pairs of rows with a cosine of `least` or more, at most the first MOST_PAIRS.

    The time is quadratic, in blocks of matrix products: 54,000 hashes take 13 s on one core
    (benchmarks/data_card.py).

    Args:
        vectors: (n, d), rows of unit length.
        least: smallest cosine of a pair.

    Returns:
        (pairs, 2) indices, the smaller first, and their (pairs,) cosines.
    """
    vectors = np.ascontiguousarray(vectors, np.float32)
    found, values, count = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.float32)], 0
    for top in range(0, len(vectors), _BLOCK):
        for left in range(top, len(vectors), _BLOCK):
            products = vectors[top : top + _BLOCK] @ vectors[left : left + _BLOCK].T
            rows, columns = np.nonzero(products >= least)
            above = rows + top < columns + left
            rows, columns = rows[above], columns[above]
            found.append(np.stack([rows + top, columns + left], axis=1))
            values.append(products[rows, columns])
            count += len(rows)
            if count >= MOST_PAIRS:
                return np.concatenate(found)[:MOST_PAIRS], np.concatenate(values)[:MOST_PAIRS]
    return np.concatenate(found), np.concatenate(values)


def near_duplicates(
    hashes: Sequence[PerceptualHash], bits: int = NEAR_BITS, colour: float = NEAR_COLOUR
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of pictures that look the same, among the first MOST_PAIRS pairs of near hashes.

    Args:
        hashes: of n pictures.
        bits: how many of the 64 may differ.
        colour: largest mean difference of the thumbnails, in grey levels. The hash alone ignores colour and confuses
            pale pictures on a plain background.

    Returns:
        (pairs, 2) indices, the smaller first, and the (pairs,) numbers of differing bits.
    """
    if not hashes:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    signs = np.where(np.stack([p.bits for p in hashes]), 0.125, -0.125).astype(np.float32)  # unit length
    pairs, products = similar_pairs(signs, 1.0 - 2.0 * bits / 64 - 1e-3)
    thumbs = np.stack([p.thumb for p in hashes]).astype(np.int16)
    step = 4096
    apart = [
        np.abs(thumbs[part[:, 0]] - thumbs[part[:, 1]]).mean(axis=(1, 2, 3))
        for part in (pairs[start : start + step] for start in range(0, len(pairs), step))
    ]
    close = np.concatenate([np.zeros(0), *apart]) <= colour
    return pairs[close], np.rint((1.0 - products[close]) * 32).astype(np.int64)


def connected_groups(pairs: NDArray[np.int64], count: int) -> list[list[int]]:
    """Return the connected components of the pairs, sorted; pictures without a pair are left out."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in pairs.tolist():
        parent[root(second)] = root(first)
    groups: dict[int, list[int]] = {}
    for node in sorted(set(pairs.ravel().tolist())):
        groups.setdefault(root(node), []).append(node)
    return sorted(groups.values())


def near_duplicate_of(paths: Iterable[Path]) -> dict[str, str]:
    """Map every picture with near duplicates to the first of its group; unreadable pictures are left out."""
    distinct = sorted(set(paths))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        hashes = list(pool.map(_hash_of, distinct))
    read = [(str(path), phash) for path, phash in zip(distinct, hashes, strict=True) if phash is not None]
    pairs, _ = near_duplicates([phash for _, phash in read])
    return {read[member][0]: read[group[0]][0] for group in connected_groups(pairs, len(read)) for member in group}


def _hash_of(path: Path) -> PerceptualHash | None:
    try:
        return perceptual_hash(read_picture(path)[0])
    except CaptureError:
        return None  # loading reports it
