"""The settings by which a finder compares a query with a scene: scales, grids and levels.

This module is outside edge.finder because the manifest needs it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Pixels = Annotated[int, Field(ge=16, le=4096)]


class FinderShape(BaseModel):
    """The scales, grids and levels of a finder; part of a recipe and of a bundle's manifest."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    stride: Annotated[int, Field(ge=1, le=256)] = 8  # input pixels per cell of the representation
    map_stride: Annotated[int, Field(ge=1, le=256)] = 4  # input pixels per cell of the guide and of the heat map
    query_px: Annotated[list[_Pixels], Field(min_length=1, max_length=16)] = [
        32,
        48,
        80,
        112,
    ]  # longer sides of the query, one per scale
    kernel: Annotated[int, Field(ge=1, le=16)] = 3  # cells along each axis of a query's kernel
    reach: Annotated[int, Field(ge=0, le=16)] = 1  # how many scales above and below its own a query is searched at
    # cells along each axis of a query to search one by one as well; 0: none
    parts: Annotated[int, Field(ge=0, le=32)] = 5
    paint: bool = True  # add a map per scene scale with the query's shape drawn where it was found
    # Thresholds of the heat map, low to high. Parts connected at a level are verified, see edge.finder.verify
    levels: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=32)] = [
        0.3,
        0.36,
        0.43,
        0.5,
        0.6,
    ]
    # cells along each axis when verification compares a part
    look_cells: Annotated[int, Field(ge=1, le=32)] = 5

    @property
    def verify_scale(self) -> int:
        """Index in `query_px` of the size for verification: the last but one, so that several parts fit on a canvas."""
        return max(0, len(self.query_px) - 2)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs of a query scale and a scene scale that it is searched at."""
        count = len(self.query_px)
        return [(q, s) for q in range(count) for s in range(count) if abs(q - s) <= self.reach]

    @property
    def maps(self) -> int:
        """How many heat maps one query gives before they are converted into one."""
        return len(self.pairs) + (len(self.query_px) if self.paint else 0) + (2 if self.parts else 0)
