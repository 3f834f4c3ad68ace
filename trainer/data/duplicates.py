"""Pictures that are nearly the same: a perceptual hash, and all pairs of near ones by matrix products."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.errors import CaptureError
from edge.imaging.image import resize
from edge.types import FloatArray, Image
from trainer.data.decode import read_picture

# On 4,282 photos of groceries, pairs within these were the same object or pile from nearly the same view, but for
# catalogue pictures of variants of one carton on white.
NEAR_BITS, NEAR_COLOUR = 8, 20.0
_SIDE = 32  # pixels of the grey picture that is transformed
_KEPT = 8  # lowest frequencies along each axis
_THUMB = 16  # pixels of the colour picture that confirms
MOST_PAIRS = 500_000  # of frames of a camera that stands still, nearly all pairs are near: their search ends here
_BLOCK = 2048  # rows of one product: 16 MB of similarities


@dataclass(frozen=True, slots=True)
class Print:
    """What a picture is compared by."""

    bits: NDArray[np.bool_]  # (64,) the perceptual hash
    thumb: NDArray[np.uint8]  # (16, 16, 3) RGB

    @property
    def text(self) -> str:
        """The hash as 16 hexadecimal digits."""
        return np.packbits(self.bits).tobytes().hex()


def _cosines() -> FloatArray:
    """The lowest rows of the orthonormal DCT-II of 32 values."""
    k, n = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None]
    rows = np.sqrt(2.0 / _SIDE) * np.cos(np.pi * (2 * n + 1) * k / (2 * _SIDE))
    rows[0] /= np.sqrt(2.0)
    return np.asarray(rows, np.float32)


_DCT = _cosines()


def fingerprint(image_rgb: Image) -> Print:
    """The DCT hash (pHash, Zauner 2010: low frequencies of the grey picture above their median) and a thumbnail."""
    small = resize(image_rgb, _SIDE, _SIDE, "area")
    grey = small @ np.array([0.299, 0.587, 0.114], np.float32)
    low = (_DCT @ grey @ _DCT.T).ravel()
    half = _SIDE // _THUMB
    thumb = small.reshape(_THUMB, half, _THUMB, half, 3).mean(axis=(1, 3)).astype(np.uint8)
    return Print(low > np.median(low[1:]), thumb)


def similar_pairs(vectors: FloatArray, least: float) -> tuple[NDArray[np.int64], FloatArray]:
    """All pairs of rows whose scalar product is `least` or more; the first MOST_PAIRS where there are more.

    Quadratic, but in blocks of matrix products: 54,000 hashes take 13 s on one core (benchmarks/data_card.py).

    Args:
        vectors: (n, d), rows of unit length.
        least: cosine.

    Returns:
        (pairs, 2) indices, the smaller first, and their (pairs,) products.
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


def near_pairs(
    prints: Sequence[Print], bits: int = NEAR_BITS, colour: float = NEAR_COLOUR
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of pictures that look the same: all, or those among the first MOST_PAIRS of near hashes.

    Args:
        prints: of n pictures.
        bits: of 64 that may differ.
        colour: mean difference of the thumbnails, in grey levels, that is allowed: the hash alone knows no colours and
            takes pale pictures on a plain ground for each other.

    Returns:
        (pairs, 2) indices, the smaller first, and the (pairs,) bits that differ.
    """
    if not prints:
        return np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
    signs = np.where(np.stack([p.bits for p in prints]), 0.125, -0.125).astype(np.float32)  # unit length
    pairs, products = similar_pairs(signs, 1.0 - 2.0 * bits / 64 - 1e-3)
    thumbs = np.stack([p.thumb for p in prints]).astype(np.int16)
    step = 4096
    apart = [
        np.abs(thumbs[part[:, 0]] - thumbs[part[:, 1]]).mean(axis=(1, 2, 3))
        for part in (pairs[start : start + step] for start in range(0, len(pairs), step))
    ]
    close = np.concatenate([np.zeros(0), *apart]) <= colour
    return pairs[close], np.rint((1.0 - products[close]) * 32).astype(np.int64)


def groups_of(pairs: NDArray[np.int64], count: int) -> list[list[int]]:
    """The sets of pictures that pairs join, directly or by way of others; sorted."""
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


def join_alike(paths: Iterable[Path]) -> dict[str, str]:
    """For every picture that looks like another, the first of all that do; those that cannot be read are left out."""
    distinct = sorted(set(paths))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        looks = list(pool.map(_look, distinct))
    read = [(str(path), look) for path, look in zip(distinct, looks, strict=True) if look is not None]
    pairs, _ = near_pairs([look for _, look in read])
    return {read[member][0]: read[group[0]][0] for group in groups_of(pairs, len(read)) for member in group}


def _look(path: Path) -> Print | None:
    try:
        return fingerprint(read_picture(path)[0])
    except CaptureError:
        return None  # told when it is loaded
