"""The figures of the HTML report, as SVG that takes its colours from the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

_SIDE = 320


def confusion_matrix(matrix: Mapping[str, Mapping[str, int]]) -> str:
    """Draw a confusion matrix: true categories as rows, predicted ones as columns, shaded by the share of the row."""
    names = sorted({*matrix, *(predicted for row in matrix.values() for predicted in row)})
    cell = 26 if len(names) <= 20 else 13
    left = 9 + 7 * max(map(len, names))
    size = left + cell * len(names)
    small = 12 if cell > 13 else 10
    parts = [
        (
            f'<svg viewBox="0 0 {size + 4} {size + 4}" role="img" '
            f'style="min-width:{min(size, 720)}px;max-width:{1.5 * size:.0f}px">'
        )
    ]
    for y, true in enumerate(names):
        at = left + y * cell
        parts.append(
            f'<text x="{left - 6}" y="{at + cell * 0.7}" text-anchor="end" font-size="{small}">{escape(true)}</text>'
        )
        turn = f"translate({at + cell * 0.7},{left - 6}) rotate(-90)"
        parts.append(f'<text transform="{turn}" font-size="{small}">{escape(true)}</text>')
        row = matrix.get(true, {})
        total = sum(row.values())
        for x, predicted in enumerate(names):
            times = row.get(predicted, 0)
            style = "grid" if not times else "hit" if x == y else "miss"
            depth = "" if not times else f' fill-opacity="{0.15 + 0.85 * (times / total) ** 0.6:.2f}"'
            place = f'x="{left + x * cell}" y="{at}" width="{cell - 1}" height="{cell - 1}"'
            title = (
                f"<title>{escape(true)} predicted as {escape(predicted)}: {times} of {total}</title>" if times else ""
            )
            parts.append(f'<rect class="{style}" {place}{depth}>{title}</rect>')
            if times and cell > 13:
                parts.append(
                    f'<text class="count" x="{left + (x + 0.5) * cell}" y="{at + cell * 0.66}" text-anchor="middle" '
                    f'font-size="11">{times}</text>'
                )
    return "".join(parts) + "</svg>"


def reliability_plot(bins: Sequence[Mapping[str, float]]) -> str:
    """Draw the share that was right over the stated probability; the area of a dot is its number of pictures."""
    parts = [_axes("stated probability", "share that was right")]
    parts.append(f'<line class="guide" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>')
    points = " ".join(f"{_x(one['probability']):.1f},{_y(one['right']):.1f}" for one in bins)
    parts.append(f'<polyline class="curve" points="{points}"/>')
    most = max((one["count"] for one in bins), default=1.0)
    for one in bins:
        radius = 3 + 11 * (one["count"] / most) ** 0.5
        title = f"{one['count']:.0f} pictures: stated {one['probability']:.2f}, right {one['right']:.2f}"
        parts.append(
            f'<circle class="dot" cx="{_x(one["probability"]):.1f}" cy="{_y(one["right"]):.1f}" r="{radius:.1f}">'
            f"<title>{title}</title></circle>"
        )
    return "".join(parts) + "</svg>"


def risk_coverage_plot(points: Sequence[Mapping[str, float]]) -> str:
    """Draw the share of wrong names over the share of pictures that are named, the surest first."""
    parts = [_axes("share that is named", "share of these that is wrong")]
    corners = " ".join(f"{_x(one['coverage']):.1f},{_y(one['risk']):.1f}" for one in points)
    parts.append(f'<polyline class="curve" points="{corners}"/>')
    for one in points:
        title = f"{100 * one['coverage']:.0f} % named, {100 * one['risk']:.1f} % of these wrong"
        place = f'cx="{_x(one["coverage"]):.1f}" cy="{_y(one["risk"]):.1f}"'
        parts.append(f'<circle class="dot" {place} r="3"><title>{title}</title></circle>')
    return "".join(parts) + "</svg>"


def principal_plane(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Project vectors on their first two principal components, scaled into 0..1: (n, 2)."""
    centred = np.asarray(vectors, np.float64) - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes[:2].T
    if plane.shape[1] < 2:  # fewer than two vectors or dimensions
        plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    span = np.maximum(plane.max(axis=0) - plane.min(axis=0), 1e-9)
    return np.asarray((plane - plane.min(axis=0)) / span, np.float64)


def embedding_map(plane: NDArray[np.float64], items: Sequence[str], right: Sequence[bool]) -> str:
    """Draw each picture's vector as a dot, with a colour for each item and a ring around wrong ones."""
    names = sorted(set(items))
    hue = {name: round(360 * number / len(names)) for number, name in enumerate(names)}
    parts = [f'<svg viewBox="0 0 {_SIDE} {_SIDE}" role="img">']
    order = sorted(range(len(items)), key=lambda i: not right[i])
    for i in reversed(order):
        x, y = 10 + plane[i, 0] * (_SIDE - 20), _SIDE - 10 - plane[i, 1] * (_SIDE - 20)
        ring = "" if right[i] else ' class="ring"'
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="hsl({hue[items[i]]} 65% 50%)"{ring}>'
            f"<title>{escape(items[i])}</title></circle>"
        )
    return "".join(parts) + "</svg>"


def _x(share: float) -> float:
    return 44 + share * (_SIDE - 60)


def _y(share: float) -> float:
    return _SIDE - 44 - share * (_SIDE - 60)


def _axes(below: str, beside: str) -> str:
    parts = [f'<svg viewBox="0 0 {_SIDE} {_SIDE}" role="img">']
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(f'<line class="grid" x1="{_x(0)}" y1="{_y(share)}" x2="{_x(1)}" y2="{_y(share)}"/>')
        parts.append(f'<text x="{_x(0) - 6}" y="{_y(share) + 4}" text-anchor="end" font-size="11">{share:.2g}</text>')
        parts.append(f'<text x="{_x(share)}" y="{_y(0) + 16}" text-anchor="middle" font-size="11">{share:.2g}</text>')
    parts.append(f'<text x="{_x(0.5)}" y="{_SIDE - 8}" text-anchor="middle" font-size="12">{below}</text>')
    parts.append(
        f'<text transform="translate(12,{_y(0.5)}) rotate(-90)" text-anchor="middle" font-size="12">{beside}</text>'
    )
    return "".join(parts)
