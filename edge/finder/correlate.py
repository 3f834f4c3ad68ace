"""The kernels of a query, and their normalised correlation with a scene, in plain float32 matrix products.

The method is that of US 2018/0260664, in the family of US 10,019,655 (see NOTICE): a scene's representation is
convolved with the query's representation as the kernel. Rules:
1. The kernel is not flipped: H(x, y) = sum over l, m, c of Q(l, m, c) * S(x + l, y + m, c). Zeros surround the scene.
2. Divided by both norms, a heat map is a cosine. Cells of a query outside the object have weight zero, also in the norm
   of the scene's part. Where all weights are one, this is the published formula.
3. Every change of grid is a matrix product with the matrices of this module. Training uses the same matrices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from edge.finder_shape import FinderShape
from edge.manifest.model import Preprocess
from edge.types import FloatArray

EPSILON = 1e-6  # added to norms, so that an empty part of a scene has similarity 0
CanvasSquare = tuple[int, int, int]  # a square on a canvas: x, y and side in pixels


@dataclass(frozen=True, slots=True)
class Kernel:
    """A query at one scale."""

    values: FloatArray  # (channels, kernel, kernel), mean representation of each cell's object pixels
    weights: FloatArray  # (kernel, kernel), 0..1, how much of a cell is the object


@dataclass(frozen=True, slots=True)
class Query:
    """The kernels and vectors computed from one picture of an object."""

    kernels: tuple[Kernel, ...]  # one per scale, smallest first
    parts: FloatArray  # (n, channels), rows of unit length: single cells of the largest scale
    verify_kernel: Kernel  # compared with parts of a heat map, see edge.finder.verify


@cache
def pool_matrix(cells: int, pooled: int) -> FloatArray:
    """Return (pooled, cells): means over equal stretches of a row of cells, or interpolation if `pooled` is larger."""
    if pooled > cells:
        return upsample_matrix(cells, pooled)
    edges = np.linspace(0, cells, pooled + 1)
    low, high = edges[:-1, None], edges[1:, None]
    at = np.arange(cells)[None]
    inside = np.clip(np.minimum(high, at + 1) - np.maximum(low, at), 0, None)
    return np.asarray(inside / inside.sum(axis=1, keepdims=True), np.float32)


@cache
def upsample_matrix(cells: int, grown: int) -> FloatArray:
    """Return (grown, cells): linear interpolation between cell centres, constant beyond the ends."""
    place = np.clip((np.arange(grown) + 0.5) * cells / grown - 0.5, 0, cells - 1)[:, None]
    return np.asarray(np.clip(1 - np.abs(place - np.arange(cells)[None]), 0, None), np.float32)


def scene_grids(shape: FinderShape, spec: Preprocess) -> list[tuple[int, int]]:
    """Return the rows and columns of the scene at each scale, so that scene and query cells have the same size."""
    cells_px = [px / shape.kernel for px in shape.query_px]
    return [(max(1, round(spec.height / px)), max(1, round(spec.width / px))) for px in cells_px]


def map_size(shape: FinderShape, spec: Preprocess) -> tuple[int, int]:
    """Return the rows and columns of the heat map."""
    return spec.height // shape.map_stride, spec.width // shape.map_stride


def query_positions(shape: FinderShape, spec: Preprocess) -> list[tuple[int, int]]:
    """Return the position of the query at each scale on one canvas: x and y in pixels, on whole cells.

    Raises:
        ValueError: the pictures do not fit on the canvas.
    """
    places, x, y, row = [], 0, 0, 0
    for px in shape.query_px:
        if x and x + px > spec.width:
            x, y = 0, row
        places.append((x, y))
        step = -(-(px + 2 * shape.stride) // (2 * shape.stride)) * 2 * shape.stride
        x, row = x + step, max(row, y + step)
        if x - step + px > spec.width or y + px > spec.height:
            raise ValueError(
                f"query_px: {shape.query_px} do not fit on {spec.width}x{spec.height} together; use smaller ones"
            )
    return places


def build_query(representation: FloatArray, coverage: FloatArray, shape: FinderShape, spec: Preprocess) -> Query:
    """Build the kernels of a query.

    Args:
        representation: (channels, rows, columns) of the canvas with the query at all scales.
        coverage: (rows, columns), 0..1, share of each cell that is the object.
        shape: of the finder.
        spec: of its canvas.
    """
    places = [(*at, px) for at, px in zip(query_positions(shape, spec), shape.query_px, strict=True)]
    kernels = tuple(build_kernel(representation, coverage, place, shape.stride, shape.kernel) for place in places)
    parts = np.zeros((0, len(representation)), np.float32)
    if shape.parts:
        largest = max(places, key=lambda place: place[2])
        fine = build_kernel(representation, coverage, largest, shape.stride, shape.parts)
        cells = fine.values[:, fine.weights > 0.5 * fine.weights.max()].T
        parts = cells / np.maximum(np.linalg.norm(cells, axis=1, keepdims=True), EPSILON)
    verify_kernel = build_kernel(representation, coverage, places[shape.verify_scale], shape.stride, shape.look_cells)
    return Query(kernels, np.asarray(parts, np.float32), verify_kernel)


def build_kernel(
    representation: FloatArray, coverage: FloatArray, place: CanvasSquare, stride: int, cells: int
) -> Kernel:
    """Build a kernel from a square: the mean representation of the object in each of cells x cells.

    Args:
        representation: (channels, rows, columns) of the canvas.
        coverage: (rows, columns), 0..1, share of each cell that is the object.
        place: the square on the canvas.
        stride: canvas pixels per cell.
        cells: along each axis.
    """
    x, y, px = place
    columns = slice(x // stride, -(-(x + px) // stride))
    rows = slice(y // stride, -(-(y + px) // stride))
    part, weight = representation[:, rows, columns], coverage[rows, columns]
    down, across = pool_matrix(part.shape[1], cells), pool_matrix(part.shape[2], cells)
    weights = down @ weight @ across.T
    values = down @ (part * weight) @ across.T / np.maximum(weights, EPSILON)
    return Kernel(np.asarray(values, np.float32), np.asarray(weights, np.float32))


def correlate(scene: FloatArray, kernels: Sequence[Kernel]) -> FloatArray:
    """Correlate a scene (channels, rows, columns) with n kernels of one size, normalised: (n, rows, columns)."""
    size = len(kernels[0].weights)
    values, weights = np.stack([k.values for k in kernels]), np.stack([k.weights for k in kernels])
    weighted = values * weights[:, None]
    product = weighted.reshape(len(kernels), -1) @ _unfold(scene, size)
    energy = weights.reshape(len(kernels), -1) @ _unfold((scene**2).sum(axis=0)[None], size)
    own_norm = np.sqrt((values * weighted).sum(axis=(1, 2, 3)))
    cosines = product / (own_norm[:, None] * np.sqrt(np.maximum(energy, EPSILON**2)) + EPSILON)
    return np.asarray(cosines.reshape(-1, *scene.shape[1:]), np.float32)


def similarity(one: Kernel, other: Kernel) -> float:
    """Return the cosine of two kernels of one size over the cells that both cover: -1..1."""
    shared = one.weights * other.weights
    product, own_energy, other_energy = (
        float((shared * values).sum())
        for values in (one.values * other.values, one.values * one.values, other.values * other.values)
    )
    return product / (math.sqrt(own_energy * other_energy) + EPSILON)


def paint(found: FloatArray, weights: FloatArray) -> FloatArray:
    """Draw each query's shape wherever it was found, scaled by its correlation: (rows, columns), at least 0.

    A correlation marks the centre of an object. This map marks the cells that the object covers. Where queries
    overlap, the strongest one counts.

    Args:
        found: (n, rows, columns) correlations.
        weights: (n, kernel, kernel), share of each cell of a query that is its object.
    """
    size, (rows, columns) = weights.shape[1], found.shape[1:]
    before = (size - 1) // 2
    around = (size - 1 - before, before)
    padded = np.pad(found, ((0, 0), around, around))
    painted = np.zeros((rows, columns), np.float32)
    for m, n in np.ndindex(size, size):
        moved = padded[:, size - 1 - m :, size - 1 - n :][:, :rows, :columns]
        painted = np.maximum(painted, (weights[:, m, n, None, None] * moved).max(axis=0))
    return painted


def _unfold(scene: FloatArray, size: int) -> FloatArray:
    """Return every size x size part of a zero-padded scene as a column: (channels * size * size, rows * columns)."""
    before = (size - 1) // 2
    padded = np.pad(scene, ((0, 0), (before, size - 1 - before), (before, size - 1 - before)))
    parts = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return np.asarray(parts.transpose(0, 3, 4, 1, 2).reshape(len(scene) * size * size, -1), np.float32)


def heat_maps(representation: FloatArray, query: Query, shape: FinderShape, spec: Preprocess) -> FloatArray:
    """Return all heat maps of a query in a scene, on the grid of the final map: (maps, rows, columns).

    Args:
        representation: (channels, rows, columns) of the scene.
        query: to search for.
        shape: of the finder.
        spec: of its canvas.
    """
    rows, columns = representation.shape[1:]
    by_pair: dict[tuple[int, int], FloatArray] = {}
    painted = []
    for scale, (high, wide) in enumerate(scene_grids(shape, spec)):
        searched = [q for q, s in shape.pairs if s == scale]
        scene = np.asarray(pool_matrix(rows, high) @ representation @ pool_matrix(columns, wide).T, np.float32)
        kernels = [query.kernels[q] for q in searched]
        found = correlate(scene, kernels)
        grown = _resize_to_map(found, shape, spec)
        by_pair |= {(q, scale): one for q, one in zip(searched, grown, strict=True)}
        if shape.paint:
            painted.append(_resize_to_map(paint(found, np.stack([k.weights for k in kernels]))[None], shape, spec))
    maps = [np.stack([by_pair[pair] for pair in shape.pairs]), *painted]
    if shape.parts:
        flat = representation.reshape(len(representation), -1)
        similarity = query.parts @ (flat / (np.sqrt((flat**2).sum(axis=0)) + EPSILON))
        parts = np.stack([similarity.max(axis=0), similarity.mean(axis=0)]).reshape(2, rows, columns)
        maps.append(_resize_to_map(parts, shape, spec))
    return np.concatenate(maps)


def _resize_to_map(found: FloatArray, shape: FinderShape, spec: Preprocess) -> FloatArray:
    """Resize heat maps (n, rows, columns) to the grid of the final map."""
    high, wide = map_size(shape, spec)
    grown = upsample_matrix(found.shape[1], high) @ found @ upsample_matrix(found.shape[2], wide).T
    return np.asarray(grown, np.float32)
