"""The order in which people read the boxes of a picture: row by row from the top, each from the left."""

from __future__ import annotations

from collections.abc import Sequence

from edge.types import Box


def reading_order(boxes_px: Sequence[Box]) -> list[int]:
    """Return the indices of boxes in reading order.

    A box belongs to a row if its middle lies between the top and the bottom of the row's first box: shelves are rarely
    quite level, and things on them differ in height.
    """
    rows: list[list[int]] = []
    for index in sorted(range(len(boxes_px)), key=lambda i: (boxes_px[i][1] + boxes_px[i][3], boxes_px[i][0])):
        middle = (boxes_px[index][1] + boxes_px[index][3]) / 2
        first = boxes_px[rows[-1][0]] if rows else None
        if first is not None and first[1] <= middle < first[3]:
            rows[-1].append(index)
        else:
            rows.append([index])
    return [index for row in rows for index in sorted(row, key=lambda i: (boxes_px[i][0], boxes_px[i][1]))]
